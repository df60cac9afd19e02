//! The tools that time functions: how each is started, and what it has seen.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use super::super::tools::{debian, with_tracepoints};

/// A tool that times functions.
pub struct Timer {
    /// Its name in the table.
    pub name: &'static str,
    /// What its probes may cost, in percent of one core; `None` for tools that do not ask.
    pub budget: Option<f64>,
    kind: Kind,
    binary: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Probe,
    Funclatency,
    Bpftrace,
}

/// What a tool has seen of the first function.
pub struct Seen {
    /// Calls.
    pub calls: f64,
    /// Calls a second.
    pub rate: f64,
    /// The share of time in which its probes were set.
    pub share: f64,
    /// Median of their times in nanoseconds, where it tells.
    pub p50: Option<f64>,
    /// The same for 99 % of them.
    pub p99: Option<f64>,
}

/// `probe` with several budgets, and the others that are there or can be installed. Says which are not.
pub fn find(probe: PathBuf, install: bool) -> Vec<Timer> {
    let own = [("probe, 5 %", 5.0), ("probe, 1 %", 1.0), ("probe, without a bound", 100.0)];
    let own = own.map(|(name, budget)| Timer { name, budget: Some(budget), kind: Kind::Probe, binary: probe.clone() });
    let mut timers = Vec::from(own);
    for (name, kind, package) in
        [("funclatency", Kind::Funclatency, "libbpf-tools"), ("bpftrace", Kind::Bpftrace, "bpftrace")]
    {
        match debian(name, package, install) {
            Ok(binary) => timers.push(Timer { name, budget: None, kind, binary }),
            Err(error) => eprintln!("xtask: without {name}: {error:#}"),
        }
    }
    timers
}

impl Timer {
    /// Times malloc, and free where one command times two functions.
    pub fn command(&self, pid: u32, seconds: u32) -> Result<Command> {
        let (process, seconds) = (pid.to_string(), seconds.to_string());
        let libc = libc_of(pid)?;
        Ok(match self.kind {
            Kind::Probe => {
                let mut command = self.probe(pid);
                command.args(["-d", &seconds, "libc.so.6:malloc", "libc.so.6:free"]);
                command
            }
            Kind::Funclatency => {
                // It writes lines, and would keep them back where nobody looks on.
                let mut command = Command::new("stdbuf");
                command.arg("-oL").arg(&self.binary).args(["-p", &process, "-d", &seconds, "c:malloc"]);
                command
            }
            Kind::Bpftrace => {
                let probes: String = ["malloc", "free"]
                    .map(|function| {
                        format!(
                            "uprobe:{libc}:{function} {{ @{function}_since[tid] = nsecs; }} \
                             uretprobe:{libc}:{function} /@{function}_since[tid]/ {{ \
                             @{function}_times = hist(nsecs - @{function}_since[tid]); \
                             @{function}_calls = count(); delete(@{function}_since[tid]); }} "
                        )
                    })
                    .concat();
                let mut command = with_tracepoints(&self.binary);
                let program = format!("{probes} interval:s:{seconds} {{ exit(); }}");
                command.args(["-B", "line", "-p", &process, "-e", &program]);
                command
            }
        })
    }

    /// Times the program's own function; until it is interrupted without a time.
    pub fn own_function(&self, pid: u32, seconds: Option<u32>) -> Command {
        let mut command = self.probe(pid);
        command.arg("operation");
        if let Some(seconds) = seconds {
            command.args(["-d", &seconds.to_string()]);
        }
        command
    }

    fn probe(&self, pid: u32) -> Command {
        // Without a bound: more than there are cores.
        let budget = self.budget.map_or(100.0, |budget| if budget < 100.0 { budget } else { 10_000.0 });
        let mut command = Command::new(&self.binary);
        command.args(["latency", "--json", "-p", &pid.to_string(), "--max-overhead", &budget.to_string()]);
        command
    }

    /// What it says when it begins, or shortly before.
    pub fn begins(&self) -> &'static str {
        match self.kind {
            Kind::Probe => "timing ",
            Kind::Funclatency => "Tracing",
            Kind::Bpftrace => "Attaching",
        }
    }

    /// Reads what it said.
    pub fn seen(&self, said: &str, seconds: u32) -> Result<Seen> {
        let simple = |calls: f64| Seen { calls, rate: calls / f64::from(seconds), share: 1.0, p50: None, p99: None };
        Ok(match self.kind {
            Kind::Probe => {
                let json = said.find("\n[").and_then(|from| said.get(from..=said.rfind(']')?));
                let rows: Value = serde_json::from_str(json.with_context(|| format!("no rows: {said}"))?)?;
                let number = |name: &str| rows[0][name].as_f64();
                let wanted = |name: &str| number(name).with_context(|| format!("no {name}: {said}"));
                let (calls, rate, share) = (wanted("calls")?, wanted("rate")?, wanted("attached_share")?);
                Seen { calls, rate, share, p50: number("p50_ns"), p99: number("p99_ns") }
            }
            // Lines `low -> high : count |****|`.
            Kind::Funclatency => {
                let counts = said.lines().filter(|line| line.contains("->")).filter_map(|line| {
                    let count = line.split(':').nth(1)?.split_whitespace().next()?;
                    count.parse::<f64>().ok()
                });
                simple(counts.sum())
            }
            Kind::Bpftrace => {
                let line = said.lines().find_map(|line| line.strip_prefix("@malloc_calls:"));
                simple(line.with_context(|| format!("no count: {said}"))?.trim().parse()?)
            }
        })
    }
}

/// The C library of a process.
fn libc_of(pid: u32) -> Result<String> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let path = maps.lines().find(|line| line.ends_with("/libc.so.6")).and_then(|line| line.split_whitespace().last());
    Ok(path.context("the program has no libc.so.6")?.to_owned())
}
