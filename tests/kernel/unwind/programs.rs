//! Large programs as distributions build them.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use libtest_mimic::Trial;
use probe_tests::poll;
use probe_tests::running::Running;
use probe_tests::trial::{require, trial};

use super::{LARGE, whole, whole_of};

pub fn tests() -> Vec<Trial> {
    vec![
        trial("unwind::an_interpreter", python),
        trial("unwind::a_compiler_at_run_time_beside_native_code", node),
        trial("unwind::a_database", sqlite),
    ]
}

fn workloads() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("workloads")
}

pub(super) fn python_running() -> Result<Running> {
    Running::ready(Command::new(require("python3")?).arg(workloads().join("busy.py")))
}

fn python() -> Result<()> {
    whole(&python_running()?, LARGE)?.expect("Py_BytesMain", LARGE)
}

fn node() -> Result<()> {
    let target = Running::ready(Command::new(require("node")?).arg(workloads().join("busy.mjs")))?;
    let folded = whole(&target, LARGE)?;
    folded.expect("node::Start", 0.9)?;
    folded.expect("deflate", 0.1)
}

/// A query without end, in `sqlite3` as it is installed.
pub(super) fn sqlite_running() -> Result<Running> {
    const QUERY: &str = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) \
                         SELECT count(hex(x) || printf('%d', x)) FROM c;";
    let target = Running::start(Command::new(require("sqlite3")?).args([":memory:", QUERY]))?;
    poll::until("the query", Duration::from_secs(20), || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", target.pid())).ok()?;
        // The eleventh field behind the name is the processor time, in hundredths of a second.
        let ticks: u64 = stat.rsplit(')').next()?.split_whitespace().nth(11)?.parse().ok()?;
        (ticks > 10).then_some(())
    })?;
    Ok(target)
}

fn sqlite() -> Result<()> {
    let target = sqlite_running()?;
    let folded = whole_of(target.pid(), LARGE)?;
    folded.expect("sqlite3_step", LARGE)?;
    folded.expect("__libc_start", LARGE)
}
