//! The programs that dump threads: how each is started, how long it takes, and how many of its stacks are whole.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::super::{stacks, tools};

/// Who dumps threads.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Probe,
    Gdb,
    EuStack,
}

/// One that is here.
pub struct Dumper {
    pub name: &'static str,
    pub kind: Kind,
    binary: PathBuf,
}

/// One dump.
#[derive(Clone, Copy)]
pub struct Dump {
    /// Of the whole command.
    pub took: Duration,
    /// In the kernel, reading all threads; known of `probe` alone.
    pub read: Option<Duration>,
    /// Threads.
    pub threads: usize,
    /// Of these, with a stack that reaches its first frame.
    pub whole: usize,
}

/// What a dump may take, in seconds.
const LIMIT: &str = "120";

/// `probe`, and those of its peers that are here or can be installed. Says which are not.
pub fn find(probe: PathBuf, install: bool) -> Vec<Dumper> {
    let mut dumpers = vec![Dumper { name: "probe", kind: Kind::Probe, binary: probe }];
    for (name, kind, package) in [("gdb", Kind::Gdb, "gdb"), ("eu-stack", Kind::EuStack, "elfutils")] {
        match tools::debian(name, package, install) {
            Ok(binary) => dumpers.push(Dumper { name, kind, binary }),
            Err(error) => eprintln!("xtask: without {name}: {error:#}"),
        }
    }
    dumpers
}

impl Dumper {
    /// Dumps a process, on one CPU if that is wanted.
    pub fn dump(&self, pid: u32, cpu: Option<usize>) -> Result<Dump> {
        let pid = pid.to_string();
        let mut command = Command::new("timeout");
        command.arg(LIMIT);
        if let Some(cpu) = cpu {
            command.args(["taskset", "-c", &cpu.to_string()]);
        }
        command.arg(&self.binary);
        match self.kind {
            Kind::Probe => command.args(["dump", "-v", "--json", "-d", "0", "-p", &pid]),
            Kind::Gdb => {
                command.args(["-nx", "-p", &pid, "-batch", "-ex", "set backtrace past-main on"]);
                command.args(["-ex", "thread apply all bt"])
            }
            Kind::EuStack => command.args(["-p", &pid]),
        };
        let began = Instant::now();
        let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {}", self.name))?;
        let took = began.elapsed();
        let (text, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        // eu-stack fails when it misses a single frame.
        ensure!(output.status.success() || self.kind == Kind::EuStack, "{}: {said}", output.status);
        let (threads, whole) = match self.kind {
            Kind::Probe => of_json(&serde_json::from_str(&text)?).context("the JSON is not as expected")?,
            Kind::Gdb => of_text(&text, "Thread "),
            Kind::EuStack => of_text(&text, "TID "),
        };
        ensure!(threads > 0, "no threads: {said}");
        Ok(Dump { took, read: reading(&said), threads, whole })
    }
}

/// `took_us=1234` in the last line that says so: before, it reads the threads without their stacks.
fn reading(said: &str) -> Option<Duration> {
    let line = said.lines().rfind(|line| line.contains("read all threads"))?;
    let digits: String = line.split_once("took_us=")?.1.chars().take_while(char::is_ascii_digit).collect();
    Some(Duration::from_micros(digits.parse().ok()?))
}

fn of_json(dump: &Value) -> Option<(usize, usize)> {
    let threads = dump.get("threads")?.as_array()?;
    let is_whole = |thread: &&Value| {
        let frames = thread["stack"].as_array().into_iter().flatten().rev();
        stacks::is_whole(frames.filter_map(|frame| frame["function"].as_str()))
    };
    Some((threads.len(), threads.iter().filter(is_whole).count()))
}

/// A line for the thread, and one for each frame, leaf first: `#1 0x7f12 in name (…)`, `#1 0x7f12 name`.
fn of_text(text: &str, thread: &str) -> (usize, usize) {
    let (mut threads, mut whole) = (0, 0);
    for stack in text.split(&format!("\n{thread}")).skip(1) {
        let frames: Vec<&str> = stack.lines().filter(|line| line.starts_with('#')).collect();
        let name = |line: &&'_ str| {
            let words = line.split([' ', '(']).skip(1).filter(|word| !word.is_empty());
            words.into_iter().find(|word| !word.starts_with("0x") && *word != "in").unwrap_or_default().to_owned()
        };
        let names: Vec<String> = frames.iter().rev().map(name).collect();
        threads += 1;
        whole += usize::from(stacks::is_whole(names.iter().map(String::as_str)));
    }
    (threads, whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_counted_in_every_notation() {
        let gdb = "[New LWP 2]\n\nThread 2 (Thread 0x7f (LWP 2) \"a\"):\n#0  0x01 in pause () from /lib/libc.so\n\
                   #1  start_thread (arg=0x0) at x.c:4\n#2  0x03 in clone3 () at a.S:8\n\nThread 1 (LWP 1):\n#0 0x1 in x ()\n";
        assert_eq!(of_text(gdb, "Thread "), (2, 1));
        let eu = "PID 1 - process\nTID 1:\n#0  0x1 pause\n#1  0x2 - 1 _start\nTID 2:\n#0  0x3 pause\n#1  0x3 - 1 start_thread\n";
        assert_eq!(of_text(&eu.replace(" - 1", ""), "TID "), (2, 2));
        let json = serde_json::json!({ "threads": [
            { "stack": [{ "function": "pause" }, { "function": "start_thread" }, { "function": "clone3" }] },
            { "stack": [] },
        ]});
        assert_eq!(of_json(&json), Some((2, 1)));
        assert_eq!(reading("DEBUG read all threads threads=3 took_us=1250\n"), Some(Duration::from_micros(1250)));
    }
}
