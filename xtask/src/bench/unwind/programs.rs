//! The programs whose stacks are taken: two that are made for it, and large ones as they are installed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::super::recording;
use super::super::workload::{self, Running};
use crate::shell;

/// A program to be measured.
pub struct Program {
    /// What it is, for the table.
    pub name: &'static str,
    start: fn() -> Result<Running>,
}

impl Program {
    /// Starts it and waits until it is at work.
    pub fn start(&self) -> Result<Running> {
        (self.start)().with_context(|| format!("cannot start {}", self.name))
    }
}

/// All of them. Those in C, C++ and Rust are compiled without frame pointers.
pub const ALL: [Program; 7] = [
    Program { name: "C, 20 frames", start: || frames(20) },
    Program { name: "C, 100 frames", start: || frames(100) },
    Program { name: "C++ exceptions", start: || compiled("g++", &["-O2", "-fomit-frame-pointer"], "throws.cpp") },
    Program { name: "Rust", start: || compiled("rustc", &["--edition=2024", "-O"], "rusty.rs") },
    Program { name: "python3", start: python },
    Program { name: "sqlite3", start: sqlite },
    Program { name: "node", start: node },
];

/// A query that keeps the shell busy for minutes without growing.
const QUERY: &str = "WITH RECURSIVE r(x, y) AS \
     (SELECT 1, 7 UNION ALL SELECT x + 1, (y * 16807) % 2147483647 FROM r LIMIT 400000000) \
     SELECT count(*), sum(length(printf('%d-%s', x, hex(y)))), max(substr(hex(y), 2)) FROM r WHERE y % 3 = 1;";

/// Recursion, the runtime's own code and code that is compiled while it runs.
const SCRIPT: &str = "\
const fibonacci = n => n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2);
console.log('ready');
for (;;) {
    fibonacci(18);
    JSON.parse(JSON.stringify([...Array(1000).keys()]));
    [...Array(2000).keys()].map(String).sort();
}";

fn frames(depth: u32) -> Result<Running> {
    workload::start(&workload::build(false)?, depth)
}

/// A program of the tests, optimised.
fn compiled(compiler: &str, flags: &[&str], source: &str) -> Result<Running> {
    let binary = recording::folder()?.join(source).with_extension("");
    let mut command = shell::command(compiler);
    command.args(flags).arg("-o").arg(&binary);
    shell::run(command.arg(shell::checkout().join("tests/workloads").join(source)))?;
    workload::ready(&mut Command::new(binary))
}

fn python() -> Result<Running> {
    workload::ready(Command::new(installed("python3")?).arg(shell::checkout().join("tests/workloads/busy.py")))
}

fn sqlite() -> Result<Running> {
    workload::ready(Command::new(installed("sqlite3")?).args([":memory:", ".system echo ready", QUERY]))
}

fn node() -> Result<Running> {
    workload::ready(Command::new(installed("node")?).args(["-e", SCRIPT]))
}

/// The distribution's own, rather than one that comes first in the path.
pub fn installed(program: &str) -> Result<PathBuf> {
    let path = Path::new("/usr/bin").join(program);
    ensure!(path.exists(), "{} is not installed", path.display());
    Ok(path)
}
