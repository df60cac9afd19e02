//! What is checked in the virtual machine: each check is a script that runs there, in `xtask/vm/`, and a judgement of its
//! result, here. An emulated processor is slow, so that shares are compared and hardly ever times.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// A check.
pub struct Check {
    /// Its name, which is also its script's.
    pub name: &'static str,
    /// What runs in the machine.
    pub script: &'static str,
    /// Says what is right about the result, or what is wrong.
    pub judge: fn(&str) -> Result<String>,
}

macro_rules! checks {
    ($($name:literal => $judge:ident,)*) => {
        [$(Check { name: $name, script: include_str!(concat!("../../vm/", $name, ".sh")), judge: $judge },)*]
    };
}

/// On the oldest supported kernel.
pub const OLDEST: [Check; 14] = checks! {
    "check" => host,
    "record" => deep,
    "command" => command,
    "off-cpu" => waits,
    "wakers" => wakers,
    "page-fault" => growth,
    "settings" => settings,
    "malloc" => leak,
    "dump" => dump,
    "latency" => latency,
    "daemon" => daemon,
    "holdings" => holdings,
    "quota" => quota,
    "functions" => functions,
};

/// On a kernel that preempts programs of probes as well: how it is otherwise, and whether threads that share probes on one CPU
/// are counted and unharmed.
pub const PREEMPTIBLE: [Check; 8] = checks! {
    "preemption" => preemption,
    "check" => host,
    "record" => deep,
    "off-cpu" => waits,
    "dump" => dump,
    "holdings" => holdings,
    "shared-calls" => shared_calls,
    "shared-heap" => shared_heap,
};

fn host(result: &str) -> Result<String> {
    ensure!(result.contains("Recording works on this host."), "it says that recording does not work");
    Ok("it says that recording works".to_owned())
}

fn deep(result: &str) -> Result<String> {
    whole(result, 0.95)
}

/// Its first samples may come before its unwind tables.
fn command(result: &str) -> Result<String> {
    whole(result, 0.75)
}

/// The program `deep`: a thousand calls below its first function.
fn whole(result: &str, least: f64) -> Result<String> {
    let stacks = Stacks::parse(result)?;
    let is_whole = |frames: &[&str]| {
        let is_begun = frames.get(1) == Some(&"_start") && frames.contains(&"main");
        is_begun && frames.iter().filter(|frame| **frame == "descend").count() == 1000
    };
    let (whole, all) = (stacks.sum(is_whole), stacks.sum(|_| true));
    let share = whole as f64 / all as f64;
    let seen = format!("{whole} of {all} stacks are whole, with 1,000 named calls");
    ensure!(share >= least && all >= 50, "only {seen}");
    Ok(seen)
}

fn waits(result: &str) -> Result<String> {
    let stacks = Stacks::parse(result)?;
    let time = |name| stacks.sum(has(name)) as f64 / 1e6;
    let (for_ever, long, short) = (time("waits_for_ever"), time("long_naps"), time("short_naps"));
    let seen =
        format!("waits for ever {for_ever:.1} s, in long naps {long:.1} s, in short ones {short:.1} s of about 4");
    ensure!((3.8..8.0).contains(&for_ever), "{seen}: the first waits all the time");
    ensure!(long + short > 0.8 * for_ever, "{seen}: one who only naps waits nearly all the time");
    // The naps are of 5 ms and of 1 ms, and all of them end a little late.
    ensure!((0.6..0.9).contains(&(long / (long + short))), "{seen}: of six parts, five are long");
    Ok(seen)
}

fn wakers(result: &str) -> Result<String> {
    let stacks = Stacks::parse(result)?;
    let woken = stacks.sum(|frames| {
        let place = |name| frames.iter().position(|frame| *frame == name);
        let order = (place("takes_work"), place("[woken by giver]"), place("gives_work"));
        matches!(order, (Some(waits), Some(by), Some(wakes)) if waits < by && by < wakes)
    });
    let (taker, rivals) = (stacks.sum(has("taker")), stacks.sum(has("wants_the_cpu")));
    let running = stacks.sum(|frames| has("wants_the_cpu")(frames) && frames.contains(&"[running]"));
    // The main thread does nothing but wait.
    let all = stacks.sum(has("pause")) as f64;
    let share = |part: u64, whole: f64| part as f64 / whole;
    let (woken, rivals, running) = (share(woken, taker as f64), share(rivals, all), share(running, all));
    let seen = format!(
        "{:.0} % of the taker's time ends by the giver; two threads on one CPU have {rivals:.2} of the time, {running:.2} \
         of it running",
        100.0 * woken
    );
    ensure!(woken > 0.8 && (1.7..2.3).contains(&rivals) && (0.4..1.2).contains(&running), "{seen}");
    Ok(seen)
}

fn growth(result: &str) -> Result<String> {
    let stacks = Stacks::parse(result)?;
    let mib = |kind: &str, function: &str| {
        stacks.sum(|frames| frames.contains(&kind) && frames.contains(&function)) as f64 / f64::from(1 << 20)
    };
    let (leaked, mapped) = (mib("[resident]", "leaks"), mib("[mapped]", "leaks"));
    let (given, huge) = (mib("[resident]", "takes_and_gives"), mib("[resident]", "takes_huge"));
    let seen = format!(
        "{leaked:.1} MiB resident and {mapped:.1} MiB mapped of 16 that leak, {given:.1} MiB of what is given back, {huge:.1} MiB \
         in huge pages"
    );
    ensure!((13.0..20.0).contains(&leaked) && (13.0..20.0).contains(&mapped), "{seen}");
    ensure!(given < 6.0 && huge > 6.0, "{seen}");
    Ok(seen)
}

/// The script has looked into each recording.
fn settings(result: &str) -> Result<String> {
    let settings: Vec<_> = result.lines().collect();
    ensure!(settings.len() == 5, "{} recordings instead of five", settings.len());
    Ok(format!("the programs load for each of: {}", settings.join(", ")))
}

/// This kernel has no links for many probes: each is a perf event.
fn latency(result: &str) -> Result<String> {
    let rows: Value = serde_json::from_str(result).context("no JSON")?;
    let number = |row: usize, name: &str| rows[row][name].as_f64().with_context(|| format!("no {name}: {rows:#}"));
    let (calls, median_ms) = (number(0, "calls")?, number(0, "p50_ns")? / 1e6);
    let (cheap, dear) = (number(0, "attached_share")?, number(1, "attached_share")?);
    let seen = format!(
        "{calls} calls of {median_ms:.1} ms; probes were set {cheap:.2} of the time, of what is called all the time {dear:.2}"
    );
    ensure!(calls >= 20.0 && (2.0..8.0).contains(&median_ms), "{seen}");
    ensure!(cheap > 0.9 && dear > 0.0 && dear < 0.9, "{seen}");
    Ok(seen)
}

/// The program `heap`: a tenth of what it allocates stays.
fn leak(result: &str) -> Result<String> {
    let stacks = Stacks::parse(result)?;
    let bytes = |name| stacks.sum(|frames| frames.contains(&"main") && frames.contains(&name));
    let (leaked, churned) = (bytes("leaks"), bytes("churns"));
    let seen = format!("{leaked} bytes were leaked, {churned} are in use besides");
    ensure!(leaked > 1_000_000 && leaked > churned, "{seen}");
    Ok(seen)
}

fn dump(result: &str) -> Result<String> {
    let dump: Value = serde_json::from_str(result).context("no JSON")?;
    let threads = dump["threads"].as_array().context("no threads")?;
    ensure!(threads.len() == 5, "{} threads instead of five: {dump}", threads.len());
    for (name, state, function) in [
        ("waits", &["sleeping"][..], "main"),
        ("sleeper", &["sleeping"], "waits_for_ever"),
        // It may be caught between two naps.
        ("napper", &["sleeping", "runnable", "running"], "napper"),
        ("rival", &["running", "runnable"], "wants_the_cpu"),
    ] {
        for thread in threads.iter().filter(|thread| thread["name"] == name) {
            ensure!(state.iter().any(|state| thread["state"] == *state), "the state of {thread}");
            // Whoever runs is seen by a sample, on a slow machine by one from before the tables were there.
            let is_early = thread["state"] == "running" && thread["truncated"] == "no frame pointer";
            ensure!(thread["truncated"].is_null() || is_early, "the stack of {thread}");
            let frames = thread["stack"].as_array().context("no stack")?;
            let names: Vec<_> = frames.iter().filter_map(|frame| frame["function"].as_str()).collect();
            let first = if name == "waits" { "_start" } else { "start_thread" };
            ensure!(
                names.contains(&function) && (is_early || names.contains(&first)),
                "{function} and {first} of {thread}"
            );
        }
    }
    let paused = threads.iter().filter(|thread| thread["stack"].to_string().contains("sys_pause"));
    ensure!(paused.count() == 2, "the kernel's part of those that wait for ever: {dump}");
    Ok("five threads with states and whole, named stacks".to_owned())
}

/// What the others claim to be checked on.
fn preemption(result: &str) -> Result<String> {
    ensure!(result.contains("(full)"), "the kernel's preemption is not full: {result}");
    Ok("the kernel's preemption is full".to_owned())
}

/// The program `preempted` says how often its function was called, the last line of the result.
fn shared_calls(result: &str) -> Result<String> {
    let (rows, told) = result.trim_end().rsplit_once('\n').context("no count")?;
    let rows: Value = serde_json::from_str(rows).context("no JSON")?;
    let number = |name: &str| rows[0][name].as_f64().with_context(|| format!("no {name}: {rows:#}"));
    let called = told.strip_prefix("called ").context("no count")?.parse::<f64>()?;
    let (calls, missed, left, share) =
        (number("calls")?, number("missed")?, number("left")?, number("attached_share")?);
    let seen = format!("{calls} calls are counted and {missed} missed of {called}, {left} left by a jump");
    ensure!(called > 1_000.0 && share > 0.999, "{seen}; probes were set {share:.3} of the time: {rows:#}");
    ensure!(calls + missed == called && missed < 0.01 * called && left == 0.0, "{seen}: {rows:#}");
    Ok(seen)
}

/// It says, too, how much it keeps.
fn shared_heap(result: &str) -> Result<String> {
    let (folded, told) = result.trim_end().rsplit_once('\n').context("no count")?;
    let kept = told.strip_prefix("kept ").context("no count")?.parse::<f64>()?;
    let stacks = Stacks::parse(folded)?;
    let bytes = |name| stacks.sum(|frames| has("start_thread")(frames) && has(name)(frames)) as f64;
    let (seen_kept, churned, all) = (bytes("keeps"), bytes("churns"), stacks.sum(|_| true) as f64);
    let seen = format!("{seen_kept} bytes are in use of {kept} that are kept, {churned} besides");
    // Samples that meet one that is being taken on the same CPU are lost, which is told with the result: on an emulated
    // processor, where each takes long, every fifth.
    ensure!((0.6..1.2).contains(&(seen_kept / kept)) && churned < 0.1 * kept, "{seen}");
    ensure!(seen_kept + churned > 0.99 * all, "{seen}, {all} in all: the other stacks are wrong");
    Ok(seen)
}

fn quota(result: &str) -> Result<String> {
    let sidecar: Value = serde_json::from_str(result).context("no JSON")?;
    let (value, container) = (sidecar["value"].as_f64().unwrap_or_default(), &sidecar["process"]["container"]);
    let seen = format!("it uses {value} percent of its quota, in the container {container}");
    let id = container.as_str().unwrap_or_default();
    ensure!((60.0..140.0).contains(&value) && id.len() == 64 && id.starts_with("01234567"), "{seen}");
    Ok(seen)
}

fn daemon(result: &str) -> Result<String> {
    let snapshot: Value = serde_json::from_str(result).context("no JSON")?;
    let (thread, culprit) = (&snapshot["threads"][0]["name"], &snapshot["culprits"][0]["function"]);
    let windows: Vec<_> = snapshot["profiles"].as_array().into_iter().flatten().map(|p| &p["window"]).collect();
    ensure!(windows == ["before", "breach", "after", "dump"], "the snapshot has profiles of {windows:?}");
    let seen = format!("the snapshot blames {culprit} in thread {thread}");
    ensure!(thread == "matcher" && culprit == "match_rules", "{seen}: {snapshot}");
    Ok(seen)
}

fn holdings(result: &str) -> Result<String> {
    let snapshots: Value = serde_json::from_str(result).context("no JSON")?;
    let culprit = |rule: &str| {
        let mut all = snapshots.as_array().into_iter().flatten();
        all.find(|snapshot| snapshot["rule"] == rule).map(|snapshot| snapshot["culprits"][0]["function"].clone())
    };
    let [opens, starts] = ["fds", "threads"].map(|rule| culprit(rule).unwrap_or_default());
    let seen = format!("{opens} opened what is still open, {starts} started the threads");
    ensure!(opens == "connect_backend" && starts == "spawn_worker", "{seen}: {snapshots:#}");
    Ok(seen)
}

/// Before Linux 6.6 only CAP_SYS_ADMIN may set probes, which the collector does not keep: it has to say so.
fn functions(result: &str) -> Result<String> {
    let said = result.lines().find(|line| line.contains("functions cannot be timed")).unwrap_or_default();
    ensure!(said.contains("only CAP_SYS_ADMIN may"), "it is not told why functions are not timed: {result}");
    Ok("it is told that this kernel lets only CAP_SYS_ADMIN time functions".to_owned())
}

fn has<'a>(name: &'a str) -> impl Fn(&[&str]) -> bool + 'a {
    move |frames| frames.iter().any(|frame| frame.starts_with(name))
}

/// Folded stacks, root first, each with its count.
struct Stacks<'a>(Vec<(Vec<&'a str>, u64)>);

impl<'a> Stacks<'a> {
    fn parse(text: &'a str) -> Result<Self> {
        let stack = |line: &'a str| {
            let (frames, count) = line.rsplit_once(' ')?;
            Some((frames.split(';').collect(), count.parse().ok()?))
        };
        let stacks = text.lines().map(|line| stack(line).with_context(|| format!("no folded stack: {line:.100}")));
        let stacks = stacks.collect::<Result<Vec<_>>>()?;
        ensure!(!stacks.is_empty(), "no stacks at all");
        Ok(Self(stacks))
    }

    /// The counts of all that fulfil a condition.
    fn sum(&self, condition: impl Fn(&[&str]) -> bool) -> u64 {
        self.0.iter().filter(|(frames, _)| condition(frames)).map(|(_, count)| count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_that_lacks_a_call_is_not_whole() {
        let stack = |calls: usize| format!("deep;_start;main{};at_the_bottom", ";descend".repeat(calls));
        assert!(deep(&format!("{} 97\n{} 3\n", stack(1000), stack(999))).is_ok());
        assert!(deep(&format!("{} 90\n{} 10\n", stack(1000), stack(999))).is_err());
        assert!(deep(&format!("{} 10\n", stack(1000))).is_err());
        assert!(deep("").is_err() && deep("error: no\n").is_err());
    }

    #[test]
    fn waits_are_compared_with_each_other() {
        let text = |ever: u32, long: u32, short: u32| {
            format!(
                "waits;sleeper;waits_for_ever;pause {ever}\nwaits;long_naps;nap {long}\nwaits;short_naps;nap {short}\n"
            )
        };
        assert!(waits(&text(4_200_000, 3_400_000, 700_000)).is_ok());
        assert!(waits(&text(4_200_000, 2_000_000, 2_000_000)).is_err());
        assert!(waits(&text(1_000_000, 3_400_000, 700_000)).is_err());
    }
}
