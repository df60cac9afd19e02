//! What was recorded of the workload's two threads: how many waits, how long, and how far the stacks reach.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use super::recorders::Kind;

/// The name of the threads that count: whoever starts them waits as well, for other things. Their first function has it, too:
/// further down there is only the C library, whose names not everybody finds.
const THREAD: &str = "player";
/// The function of the workload that calls itself: how often it is in a stack tells how much of it was seen.
const CALLER: &str = "descends";

/// Waits of a recording.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Waits {
    /// How many; `None` from who only says how long.
    pub count: Option<u64>,
    pub total_ns: f64,
    /// Of this, with a stack that reaches its thread's first function.
    pub whole_ns: f64,
    /// Frames of the workload's callers, times the nanoseconds of their stacks.
    callers_ns: f64,
}

impl Waits {
    fn add(&mut self, count: Option<u64>, ns: f64, root_first: &[&str]) {
        self.count = count.map(|count| self.count.unwrap_or(0) + count);
        self.total_ns += ns;
        self.callers_ns += ns * root_first.iter().filter(|name| **name == CALLER).count() as f64;
        if root_first.contains(&THREAD) {
            self.whole_ns += ns;
        }
    }

    /// The part that is whole, in percent of the time.
    pub fn whole_percent(&self) -> f64 {
        100.0 * self.whole_ns / self.total_ns
    }

    /// True if anything on the user stacks has a name.
    pub fn has_names(&self) -> bool {
        self.callers_ns > 0.0
    }

    /// How many of the workload's callers are seen.
    pub fn callers(&self) -> f64 {
        self.callers_ns / self.total_ns
    }
}

/// Reads a recording: the file that `probe` wrote, or what the others said.
pub fn read(kind: Kind, output: &Path, said: &str) -> Result<Waits> {
    match kind {
        Kind::Probe => {
            let text = fs::read_to_string(output).with_context(|| format!("no result in {}", output.display()))?;
            of_json(&serde_json::from_str(&text)?).context("the JSON is not as expected")
        }
        Kind::Offcputime => Ok(of_offcputime(said)),
        Kind::Bpftrace => Ok(of_bpftrace(said)),
    }
}

fn of_json(envelope: &Value) -> Option<Waits> {
    let profile = envelope.get("profile")?;
    let table = |name| profile.get(name)?.as_array();
    let (threads, locations, all) = (table("threads")?, table("locations")?, table("stacks")?);
    let mut waits = Waits { count: Some(0), ..Waits::default() };
    for sample in table("samples")? {
        let at = |name| Some(sample.get(name)?.as_u64()? as usize);
        if threads.get(at("thread")?)?.get("name")? != THREAD {
            continue;
        }
        let indexes = all.get(at("stack")?)?.get("locations")?.as_array()?;
        let lines = |index: &Value| locations.get(index.as_u64()? as usize)?.get("lines")?.as_array();
        let names = indexes.iter().rev().filter_map(lines).flat_map(|lines| lines.iter().rev());
        let names: Vec<&str> = names.filter_map(|line| line.get("function")?.as_str()).collect();
        waits.add(Some(at("count")? as u64), at("value")? as f64, &names);
    }
    Some(waits)
}

/// Frames, leaf first; `-  player (12)` with the thread; the microseconds; an empty line.
fn of_offcputime(text: &str) -> Waits {
    let mut waits = Waits::default();
    let mut frames: Vec<&str> = Vec::new();
    let mut is_wanted = false;
    for line in text.lines().map(str::trim) {
        if let Some(thread) = line.strip_prefix("- ") {
            is_wanted = thread.trim().starts_with(THREAD);
        } else if let (Ok(microseconds), true) = (line.parse::<f64>(), is_wanted) {
            // The last line is the thread's.
            frames.pop();
            frames.reverse();
            waits.add(None, microseconds * 1e3, &frames);
        }
        if line.is_empty() {
            frames.clear();
            is_wanted = false;
        } else {
            frames.push(line);
        }
    }
    waits
}

/// `@waits[player, `, user frames, `, `, kernel frames, `]: count 1, average 2, total 3`. Frames are an address and
/// `name+offset`, leaf first.
fn of_bpftrace(text: &str) -> Waits {
    let mut waits = Waits { count: Some(0), ..Waits::default() };
    for entry in text.split("@waits[").skip(1).filter(|entry| entry.starts_with(THREAD)) {
        let Some((frames, numbers)) = entry.split_once("]: ") else { continue };
        let number = |name| -> Option<u64> {
            let rest = numbers.lines().next()?.split_once(name)?.1;
            rest.split(',').next()?.trim().parse().ok()
        };
        let (Some(count), Some(total)) = (number("count "), number("total ")) else { continue };
        let user = frames.split("\n, ").next().unwrap_or_default();
        let name = |line: &'_ str| Some(line.split_whitespace().nth(1)?.split('+').next()?.to_owned());
        let names: Vec<String> = user.lines().skip(1).filter_map(name).collect();
        let root_first: Vec<&str> = names.iter().rev().map(String::as_str).collect();
        waits.add(Some(count), total as f64, &root_first);
    }
    waits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_of_the_workloads_threads_are_read_in_every_notation() {
        let text = "    __schedule\n    hears\n    descends\n    descends\n    player\n    -      player (7)\n        60\n\n\
                    \x20   __schedule\n    -      player (8)\n        20\n\n    __schedule\n    -      main (6)\n        9\n";
        let waits = of_offcputime(text);
        assert_eq!((waits.count, waits.total_ns, waits.whole_ns), (None, 80e3, 60e3));
        assert_eq!((waits.whole_percent(), waits.callers()), (75.0, 1.5));
        let text = "@waits[player, \n\t7f hears+2\n\t55 descends+9\n, \n\tff __schedule+1\n]: count 3, average 4, total 12\n\
                    @waits[main, \n\t7f hears+2\n, \n]: count 3, average 4, total 12\n";
        let waits = of_bpftrace(text);
        assert_eq!((waits.count, waits.total_ns, waits.whole_ns, waits.callers()), (Some(3), 12.0, 0.0, 1.0));
    }

    #[test]
    fn waits_are_read_from_json() {
        let line = |name: &str| serde_json::json!({ "lines": [{ "function": name }] });
        let profile = serde_json::json!({ "profile": {
            "threads": [{ "name": "player" }, { "name": "main" }],
            "locations": [line("hears"), line("descends"), line("player")],
            "stacks": [{ "locations": [0, 1, 1, 2] }],
            "samples": [{ "thread": 0, "stack": 0, "count": 5, "value": 50 }, { "thread": 1, "stack": 0, "count": 1, "value": 9 }],
        }});
        let waits = of_json(&profile).unwrap();
        assert_eq!((waits.count, waits.total_ns, waits.whole_ns, waits.callers()), (Some(5), 50.0, 50.0, 2.0));
        assert_eq!(of_json(&Value::Null), None);
    }
}
