//! The programs whose stacks are taken: two that are made for it, and large ones as they are installed.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

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

/// All of them. Those in C, C++ and Rust are compiled without frame pointers. From musl on much of the code has no tables, or such
/// as few profilers follow.
pub const ALL: [Program; 13] = [
    Program { name: "C, 20 frames", start: || frames(20) },
    Program { name: "C, 100 frames", start: || frames(100) },
    Program { name: "C++ exceptions", start: || compiled("g++", &["-O2", "-fomit-frame-pointer"], "throws.cpp") },
    Program { name: "Rust", start: || compiled("rustc", &["--edition=2024", "-O"], "rusty.rs") },
    Program { name: "python3", start: python },
    Program { name: "sqlite3", start: sqlite },
    Program { name: "node", start: node },
    Program { name: "musl", start: || compiled("musl-gcc", &["-O2", "-fomit-frame-pointer", "-pthread"], "musl.c") },
    Program {
        name: "musl, static",
        start: || compiled("musl-gcc", &["-O2", "-fomit-frame-pointer", "-pthread", "-static"], "musl.c"),
    },
    Program { name: "chacha20", start: || shell_command("openssl speed -seconds 600 -evp chacha20-poly1305") },
    Program { name: "x264", start: || ffmpeg("-f lavfi -i testsrc2=size=640x360 -t 9999 -c:v libx264 -f null -") },
    Program { name: "dav1d", start: dav1d },
    Program { name: "numpy", start: numpy },
];

/// Products by OpenBLAS, whose kernels are assembly, and sorts.
const NUMPY: &str = "\
import numpy
print('ready', flush=True)
while True:
    one = numpy.random.rand(400, 400)
    numpy.sort((one @ one).ravel())
    numpy.linalg.svd(one[:100, :100])";

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

fn numpy() -> Result<Running> {
    workload::ready(Command::new(installed("python3")?).args(["-c", NUMPY]))
}

/// Decodes a film of two seconds again and again.
fn dav1d() -> Result<Running> {
    let film = recording::folder()?.join("film.ivf");
    if !film.exists() {
        let mut encode = Command::new(installed("ffmpeg")?);
        encode.args(["-v", "error", "-f", "lavfi", "-i", "testsrc2=size=640x360", "-t", "2"]);
        shell::run(encode.args(["-c:v", "libsvtav1", "-preset", "12"]).arg(&film))?;
    }
    ffmpeg(&format!("-stream_loop 9999 -c:v libdav1d -i {} -f null -", film.display()))
}

fn ffmpeg(arguments: &str) -> Result<Running> {
    shell_command(&format!("ffmpeg -v error -nostdin {arguments}"))
}

/// A program that does not say when it is at work, which it is after two seconds. What it writes is not read.
fn shell_command(command: &str) -> Result<Running> {
    let program = command.split(' ').next().unwrap_or_default();
    installed(program)?;
    let script = format!("echo ready; exec /usr/bin/{command} >/dev/null 2>&1");
    let running = workload::ready(Command::new("/bin/sh").args(["-c", &script]))?;
    std::thread::sleep(Duration::from_secs(2));
    Ok(running)
}

/// The distribution's own, rather than one that comes first in the path.
pub fn installed(program: &str) -> Result<PathBuf> {
    let path = Path::new("/usr/bin").join(program);
    ensure!(path.exists(), "{} is not installed", path.display());
    Ok(path)
}
