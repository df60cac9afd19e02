//! A dump for people: threads with identical stacks together, the busiest first, leaf on top as debuggers show it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::{Shown, ShownThread};
use crate::symbolize::{Frame, Kind};

/// Threads of a group that are listed by name; the rest is counted.
const LISTED: usize = 10;

/// Threads with the same stack.
struct Group<'a> {
    stack: u32,
    threads: Vec<&'a ShownThread>,
}

impl Group<'_> {
    fn cpu_percent(&self) -> f64 {
        self.threads.iter().filter_map(|thread| thread.cpu_percent).sum()
    }
}

/// The whole text.
pub fn render(shown: &Shown) -> String {
    let mut text = head(shown);
    for group in groups(shown) {
        text.push('\n');
        render_group(&mut text, shown, &group);
    }
    if !shown.profile.losses.is_empty() {
        text.push('\n');
        for (reason, &lost) in &shown.profile.losses {
            let _ = writeln!(text, "{}", crate::text::count(lost, reason));
        }
    }
    text
}

fn head(shown: &Shown) -> String {
    let mut states: BTreeMap<_, usize> = BTreeMap::new();
    for thread in &shown.threads {
        *states.entry(thread.thread.state).or_default() += 1;
    }
    let states: Vec<String> = states.into_iter().map(|(state, count)| format!("{count} {}", state.name())).collect();
    let process = shown.profile.processes.first();
    let (pid, name) = process.map_or((0, ""), |process| (process.pid, process.name.as_str()));
    let time = humantime::format_rfc3339_millis(shown.at);
    format!("{name} (pid {pid}) at {time}: {}\n", states.join(", "))
}

fn groups(shown: &Shown) -> Vec<Group<'_>> {
    let mut by_stack: BTreeMap<u32, Vec<&ShownThread>> = BTreeMap::new();
    for (sample, thread) in shown.profile.samples.iter().zip(&shown.threads) {
        by_stack.entry(sample.stack).or_default().push(thread);
    }
    let mut groups: Vec<Group<'_>> = by_stack.into_iter().map(|(stack, threads)| Group { stack, threads }).collect();
    for group in &mut groups {
        group.threads.sort_by(|a, b| b.busy().total_cmp(&a.busy()));
    }
    groups.sort_by(|a, b| {
        b.cpu_percent().total_cmp(&a.cpu_percent()).then_with(|| b.threads.len().cmp(&a.threads.len()))
    });
    groups
}

fn render_group(text: &mut String, shown: &Shown, group: &Group<'_>) {
    if let [_, _, ..] = group.threads.as_slice() {
        let _ = writeln!(text, "{} threads", group.threads.len());
    }
    for thread in group.threads.iter().take(LISTED) {
        let ShownThread { thread, cpu_percent } = thread;
        let since = thread.since_ns.map_or_else(String::new, |since_ns| format!(" for {}", short(since_ns)));
        let share = cpu_percent.map_or_else(String::new, |percent| format!(", {percent:.1} % CPU"));
        let _ = writeln!(text, "{} \"{}\" {}{since}{share}", thread.tid, thread.name, thread.state.name());
    }
    if group.threads.len() > LISTED {
        let _ = writeln!(text, "… and {} more (--json lists all)", group.threads.len() - LISTED);
    }
    let frames = shown.profile.frames(group.stack);
    if frames.is_empty() {
        text.push_str("    [no stack]\n");
    }
    for frame in frames.iter().rev() {
        render_frame(text, frame);
    }
    if let Some(reason) = &shown.profile.stacks[group.stack as usize].truncated {
        let _ = writeln!(text, "    [truncated: {reason}]");
    }
}

fn render_frame(text: &mut String, frame: &Frame<'_>) {
    let kernel = if frame.kind == Kind::Kernel { "_[k]" } else { "" };
    let place = match (frame.file, frame.module.rsplit('/').next().unwrap_or_default()) {
        ("", "") => String::new(),
        ("", _) if frame.kind == Kind::Kernel || frame.function.starts_with('[') => String::new(),
        ("", module) => format!(" in {module}"),
        (file, _) => format!(" at {}:{}", file.rsplit('/').next().unwrap_or(file), frame.line),
    };
    let inlined = if frame.inlined { " (inlined)" } else { "" };
    let _ = writeln!(text, "    {}{kernel}{place}{inlined}", frame.function);
}

/// Two figures of a time: 1.2ms, 34ms, 5.6s, 7m 8s.
fn short(nanoseconds: u64) -> String {
    let seconds = nanoseconds as f64 / 1e9;
    match seconds {
        s if s < 1e-3 => format!("{:.0}us", s * 1e6),
        s if s < 0.01 => format!("{:.1}ms", s * 1e3),
        s if s < 1.0 => format!("{:.0}ms", s * 1e3),
        s if s < 60.0 => format!("{s:.1}s"),
        s => humantime::format_duration(Duration::from_secs(s as u64)).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::record::DumpedThread;
    use crate::symbolize::{Line, Location, ProcessInfo, Profile, Sample, Stack};
    use crate::target::ThreadState;

    fn shown() -> Shown {
        let location = |name: &str| Location {
            lines: vec![Line { function: name.into(), file: "/src/a.c".into(), line: 7 }],
            ..Location::default()
        };
        let stack = |locations: &[u32]| Stack { locations: locations.to_vec(), truncated: None };
        let thread = |tid, state, cpu| ShownThread {
            thread: DumpedThread { tid, name: format!("t{tid}"), state, since_ns: Some(1_500_000), cpu_ns: 0 },
            cpu_percent: Some(cpu),
        };
        Shown {
            profile: Profile {
                processes: vec![ProcessInfo { pid: 5, name: "svc".into(), ..ProcessInfo::default() }],
                locations: vec![location("main"), location("wait"), location("hot")],
                stacks: vec![stack(&[1, 0]), stack(&[2, 0])],
                samples: [0, 1, 0].map(|stack| Sample { stack, ..Sample::default() }).to_vec(),
                ..Profile::default()
            },
            threads: vec![
                thread(5, ThreadState::Sleeping, 0.0),
                thread(6, ThreadState::Running, 99.9),
                thread(7, ThreadState::Sleeping, 0.1),
            ],
            at: UNIX_EPOCH,
        }
    }

    #[test]
    fn identical_stacks_are_shown_once_and_the_busiest_first() {
        let expected = "\
svc (pid 5) at 1970-01-01T00:00:00.000Z: 1 running, 2 sleeping

6 \"t6\" running for 1.5ms, 99.9 % CPU
    hot at a.c:7
    main at a.c:7

2 threads
7 \"t7\" sleeping for 1.5ms, 0.1 % CPU
5 \"t5\" sleeping for 1.5ms, 0.0 % CPU
    wait at a.c:7
    main at a.c:7
";
        assert_eq!(render(&shown()), expected);
    }

    #[test]
    fn the_busiest_can_be_had_alone() {
        let mut shown = shown();
        shown.keep_top(2);
        assert_eq!(shown.threads.iter().map(|thread| thread.thread.tid).collect::<Vec<_>>(), [6, 7]);
        assert_eq!(shown.profile.samples.iter().map(|sample| sample.stack).collect::<Vec<_>>(), [1, 0]);
    }

    #[test]
    fn times_are_short() {
        let texts = [900_000, 1_234_567, 34_000_000, 5_600_000_000, 428_000_000_000].map(short);
        assert_eq!(texts, ["900us", "1.2ms", "34ms", "5.6s", "7m 8s"]);
    }
}
