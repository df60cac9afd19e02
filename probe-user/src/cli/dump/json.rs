//! A dump for scripts.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Shown;
use crate::symbolize::{Frame, Kind};
use crate::target::ThreadState;

/// A process at one moment.
#[derive(Serialize)]
pub struct Dump<'a> {
    pid: u32,
    name: &'a str,
    exe: &'a str,
    cmdline: &'a str,
    time: String,
    threads: Vec<Thread<'a>>,
    losses: &'a BTreeMap<String, u64>,
}

#[derive(Serialize)]
struct Thread<'a> {
    tid: u32,
    name: &'a str,
    state: ThreadState,
    /// For how long, in nanoseconds.
    state_ns: Option<u64>,
    /// Share of one CPU while it was measured.
    cpu_percent: Option<f64>,
    /// CPU time of its life, in nanoseconds.
    cpu_ns: u64,
    /// Leaf first.
    stack: Vec<Line<'a>>,
    /// Why the stack ends before the thread's first frame.
    truncated: Option<&'a str>,
}

#[derive(Serialize)]
struct Line<'a> {
    function: String,
    kind: Kind,
    module: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    file: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    line: u32,
    #[serde(skip_serializing_if = "is_false")]
    inlined: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// Everything that is known.
pub fn render<'a>(shown: &'a Shown) -> Dump<'a> {
    let profile = &shown.profile;
    let process = profile.processes.first();
    let text = |field: fn(&crate::symbolize::ProcessInfo) -> &str| process.map_or("", field);
    let threads = profile.samples.iter().zip(&shown.threads).map(|(sample, of)| {
        let line = |frame: Frame<'a>| {
            let Frame { kind, function, file, line, module, inlined, location: _ } = frame;
            Line { function: function.into_owned(), kind, module, file, line, inlined }
        };
        Thread {
            tid: of.thread.tid,
            name: &of.thread.name,
            state: of.thread.state,
            state_ns: of.thread.since_ns,
            cpu_percent: of.cpu_percent,
            cpu_ns: of.thread.cpu_ns,
            stack: profile.frames(sample.stack).into_iter().rev().map(line).collect(),
            truncated: profile.stacks[sample.stack as usize].truncated.as_deref(),
        }
    });
    Dump {
        pid: process.map_or(0, |process| process.pid),
        name: text(|process| &process.name),
        exe: text(|process| &process.exe),
        cmdline: text(|process| &process.cmdline),
        time: humantime::format_rfc3339_millis(shown.at).to_string(),
        threads: threads.collect(),
        losses: &profile.losses,
    }
}
