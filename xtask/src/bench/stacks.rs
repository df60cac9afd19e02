//! What a profiler wrote, as stacks: how many samples, how many frames, and where they end.

use std::fs;
use std::ops::AddAssign;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use serde_json::Value;

use super::tools::Kind;

/// The C library's code below a thread's first function, under all of its names: from there, a stack is whole.
const FIRST: [&str; 10] = [
    "_start",
    "__libc_start_main",
    "__libc_start_main_impl",
    "__libc_start_main_alias_2",
    "__libc_start_call_main",
    "start_thread",
    "clone",
    "__clone",
    "clone3",
    "__clone3",
];
/// How far from a stack's end such a frame may be: `clone3`, `start_thread`; `_start`, `__libc_start_main`,
/// `__libc_start_call_main`. A peer puts a frame of its own before them.
const NEAR_THE_END: usize = 4;
/// `perf script` unwinds; it may take this long, in seconds.
const SCRIPT_SECONDS: &str = "300";

/// Samples of one recording.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stacks {
    /// Samples.
    pub samples: u64,
    /// Of these, with a stack that reaches its thread's first frame.
    pub whole: u64,
    /// Frames of all samples.
    pub frames: u64,
}

impl AddAssign for Stacks {
    fn add_assign(&mut self, other: Self) {
        self.samples += other.samples;
        self.whole += other.whole;
        self.frames += other.frames;
    }
}

impl Stacks {
    /// `root_first` are a stack's names, from its end.
    fn add<'a>(&mut self, samples: u64, frames: usize, root_first: impl Iterator<Item = &'a str>) {
        self.samples += samples;
        self.frames += samples * frames as u64;
        if is_whole(root_first) {
            self.whole += samples;
        }
    }

    /// The part that is whole, in percent.
    pub fn whole_percent(&self) -> f64 {
        100.0 * self.whole as f64 / self.samples as f64
    }

    /// Frames of a sample.
    pub fn mean_frames(&self) -> f64 {
        self.frames as f64 / self.samples as f64
    }
}

/// True if a stack reaches its thread's first frame, by its names from its end.
pub fn is_whole<'a>(root_first: impl Iterator<Item = &'a str>) -> bool {
    root_first.take(NEAR_THE_END).any(|name| FIRST.contains(&name))
}

/// Reads a profiler's result.
pub fn read(kind: Kind, output: &Path) -> Result<Stacks> {
    if kind == Kind::Perf {
        return Ok(of_script(&script(output)?));
    }
    let text = fs::read_to_string(output).with_context(|| format!("no result in {}", output.display()))?;
    Ok(match kind {
        Kind::Probe if output.extension().is_some_and(|ending| ending == "json") => {
            of_json(&serde_json::from_str(&text)?).context("the JSON is not as expected")?
        }
        Kind::Bpftrace => of_bpftrace(&text),
        _ => of_folded(&text),
    })
}

/// Lines of frames, root first, behind the process's name: `name;main;work 12`. Inlined functions count as frames,
/// because nothing tells them apart.
fn of_folded(text: &str) -> Stacks {
    let mut stacks = Stacks::default();
    for (frames, count) in text.lines().filter_map(|line| line.rsplit_once(' ')) {
        let Ok(count) = count.parse() else { continue };
        let names = || frames.split(';').skip(1).map(str::trim).filter(|name| !name.is_empty());
        stacks.add(count, names().count(), names());
    }
    stacks
}

/// `@[`, the frames, `]: 12`. Only samples are counted: it stops at the first frame without frame pointer anyway.
fn of_bpftrace(text: &str) -> Stacks {
    let count = |line: &str| line.rsplit_once("]: ")?.1.trim().parse::<u64>().ok();
    Stacks { samples: text.lines().filter_map(count).sum(), ..Stacks::default() }
}

/// The profile with all its tables. A location is one address, whatever was inlined there.
fn of_json(envelope: &Value) -> Option<Stacks> {
    let profile = envelope.get("profile")?;
    let (locations, all) = (profile.get("locations")?.as_array()?, profile.get("stacks")?.as_array()?);
    let mut stacks = Stacks::default();
    for sample in profile.get("samples")?.as_array()? {
        let indexes = all.get(sample.get("stack")?.as_u64()? as usize)?.get("locations")?.as_array()?;
        let lines = |index: &Value| locations.get(index.as_u64()? as usize)?.get("lines")?.as_array();
        let names = indexes.iter().rev().filter_map(lines).flat_map(|lines| lines.iter().rev());
        let names = names.filter_map(|line| line.get("function")?.as_str());
        stacks.add(sample.get("count")?.as_u64()?, indexes.len(), names);
    }
    Some(stacks)
}

/// What perf makes of the stacks that it copied.
fn script(data: &Path) -> Result<String> {
    let mut command = Command::new("timeout");
    command.args([SCRIPT_SECONDS, "perf", "script", "-i"]).arg(data).args(["-F", "comm,tid,ip,sym"]);
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().context("cannot run perf script")?;
    anyhow::ensure!(output.status.success(), "perf script: {}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A line for the sample, one for each frame, leaf first, and an empty one.
fn of_script(text: &str) -> Stacks {
    let mut stacks = Stacks::default();
    for sample in text.split("\n\n").filter(|sample| !sample.trim().is_empty()) {
        // `7f12 name`, and behind an inlined function's name `(inlined)`.
        let frames: Vec<Vec<&str>> = sample.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
        // Its address is that of the frame that follows; otherwise it is only an alias, marked by mistake.
        let is_inlined = |pair: &[Vec<&str>]| pair[0].last() == Some(&"(inlined)") && pair[0][..1] == pair[1][..1];
        let inlined = frames.windows(2).filter(|pair| is_inlined(pair)).count();
        let names = frames.iter().rev().filter_map(|words| words.get(1).copied());
        stacks.add(1, frames.len() - inlined, names);
    }
    stacks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_and_whole_stacks_are_counted_in_every_notation() {
        let folded = "a;clone3;start_thread;begin;bottom 12\na;[unknown];_start;main 3\na;main;bottom 1\na;x  1\n";
        assert_eq!(of_folded(folded), Stacks { samples: 17, whole: 15, frames: 12 * 4 + 9 + 2 + 1 });
        let bpftrace = "Attaching 2 probes...\n@[\n    bottom+20\n    main+5\n]: 99\n@[\n]: 1\n";
        assert_eq!(of_bpftrace(bpftrace).samples, 100);
        let script = "a 1 \n\t 10 free (inlined)\n\t 10 bottom\n\t 20 main (inlined)\n\t 30 _start\n\na 1 \n\t 1 x\n\n";
        assert_eq!(of_script(script), Stacks { samples: 2, whole: 1, frames: 4 });
    }

    #[test]
    fn inlined_functions_are_no_frames_in_json() {
        let line = |name: &str| serde_json::json!({ "function": name });
        let profile = serde_json::json!({ "profile": {
            "locations": [{ "lines": [line("inlined"), line("bottom")] }, { "lines": [] }, { "lines": [line("_start")] }],
            "stacks": [{ "locations": [0, 1, 2] }, { "locations": [0, 1] }],
            "samples": [{ "stack": 0, "count": 5 }, { "stack": 1, "count": 1 }],
        }});
        assert_eq!(of_json(&profile), Some(Stacks { samples: 6, whole: 5, frames: 17 }));
        assert_eq!(of_json(&Value::Null), None);
    }
}
