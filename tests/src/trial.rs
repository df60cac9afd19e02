//! Tests that may find that they cannot run here: such a test is counted as ignored and says why; it never passes silently.
//! And tests that measure a machine which is never quite still: what fails once is run again, alone, and says so.

use std::fmt;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};

use anyhow::Result;
use libtest_mimic::{Arguments, Completion, Conclusion, Failed, Trial};

use crate::calm;

/// The reason why a test cannot run here. Return it as the error of the test.
#[derive(Debug)]
pub struct Skip(pub String);

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Skip {}

/// As much of a reason as fits into a report.
const REASON: usize = 300;
/// How often a test is run until it fails.
const ATTEMPTS: usize = 3;

/// Whether tests run beside each other: then the harness writes a test's line when it has ended.
static IN_COMPANY: AtomicBool = AtomicBool::new(false);
/// Read by a test that bears company, written by one that is run again.
static COMPANY: RwLock<()> = RwLock::new(());

/// Runs tests, several at a time where `threads` is more than one.
pub fn run(arguments: &Arguments, tests: Vec<Trial>, threads: usize) -> Conclusion {
    IN_COMPANY.store(threads > 1, Ordering::Relaxed);
    let arguments = Arguments { test_threads: Some(threads), ..arguments.clone() };
    libtest_mimic::run(&arguments, tests)
}

/// A test on the real kernel: skipped without root, and where the test finds that it cannot run.
pub fn trial(name: &str, test: impl Fn() -> Result<()> + Send + 'static) -> Trial {
    unprivileged(name, move || {
        require_root()?;
        test()
    })
}

/// A test that needs no root: skipped where it finds that it cannot run. What it measures, others on the machine may have
/// disturbed, the tests beside it not least: if it fails it is run again, alone and when the machine is calmer, which the line of its name tells, and the report of
/// `cargo xtask test`. What fails three times fails.
pub fn unprivileged(name: &str, test: impl Fn() -> Result<()> + Send + 'static) -> Trial {
    let shown = name.to_owned();
    Trial::ignorable_test(name, move || {
        let mut done = {
            let _shared = COMPANY.read().unwrap_or_else(PoisonError::into_inner);
            test()
        };
        for _ in 1..ATTEMPTS {
            let Some(error) = done.as_ref().err().filter(|error| !error.is::<Skip>()) else { break };
            // What has happened stands before what was done meanwhile, which may be a whole log.
            let reason = error.chain().rev().map(ToString::to_string).collect::<Vec<_>>().join(": ");
            let reason = reason.split_whitespace().collect::<Vec<_>>().join(" ");
            let reason: String = reason.chars().take(REASON).collect();
            if IN_COMPANY.load(Ordering::Relaxed) {
                println!("test {shown} ... failed once: {reason}");
            } else {
                // The harness has begun a line with the test's name, and ends the last one.
                print!("failed once: {reason}\ntest {shown} ... ");
            }
            // Without the line the test is as good.
            let _ = std::io::stdout().flush();
            let _alone = COMPANY.write().unwrap_or_else(PoisonError::into_inner);
            calm::wait();
            done = test();
        }
        done.map(|()| Completion::Completed).or_else(|error| match error.downcast_ref::<Skip>() {
            Some(Skip(reason)) => Ok(Completion::ignored_with(reason)),
            None => Err(Failed::from(format!("{error:#}"))),
        })
    })
}

/// Skips the test unless the process is root.
fn require_root() -> Result<()> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:")).and_then(|ids| ids.split_whitespace().nth(1));
    if uid == Some("0") { Ok(()) } else { Err(Skip("needs root".to_owned()).into()) }
}

/// The same for a program of a Debian package, which is installed if that is possible.
pub fn require_from(program: &str, package: &str) -> Result<PathBuf> {
    if require(program).is_err() && require_root().is_ok() {
        install(package);
    }
    require(program)
        .map_err(|_| Skip(format!("{program} is not installed, and the package {package} not to be had")).into())
}

/// Tries to install a Debian package, at need after asking which ones there are.
pub fn install(package: &str) {
    // One at a time: tests run beside each other, and apt-get refuses to.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let apt = |arguments: &[&str]| {
        let mut command = std::process::Command::new("apt-get");
        command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive").stdin(std::process::Stdio::null());
        let status = command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    let install = || apt(&["install", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=120", package]);
    // Whether it is there afterwards is looked at by whoever needs it.
    let _ = install() || apt(&["update", "-qq"]) && install();
}

/// Where a program is; skips the test when it is not installed.
pub fn require(program: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file());
    found.ok_or_else(|| Skip(format!("{program} is not installed")).into())
}
