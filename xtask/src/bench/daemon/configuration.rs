//! The daemon's configuration: targets, rules and functions as an operator of many services would have them. Only the
//! first rule is ever broken.

use std::fmt::Write as _;
use std::path::Path;

/// Rules that there are.
pub(super) const RULES: usize = 1 + QUIET.len();
/// Functions that are timed.
pub(super) const FUNCTIONS: usize = 50;
/// Processes in which they are: those called `front`.
pub(super) const FRONT: usize = 10;

/// Target, metric, threshold and what else there is to a rule.
const QUIET: [(&str, &str, &str, &str); 19] = [
    ("*", "cpu", "100000", ""),
    ("*", "cpu.quota", "100000", ""),
    ("*", "memory.rss", "'1TiB'", ""),
    ("*", "memory.rss_percent", "100000", ""),
    ("*", "memory.growth", "'1TiB'", ""),
    ("*", "threads", "100000", ""),
    ("*", "fds", "1000000", ""),
    ("*", "io", "'1TiB'", ""),
    ("*", "pressure.cpu", "1000", ""),
    ("*", "pressure.memory", "1000", ""),
    ("*", "host.cpu", "1000", ""),
    ("*", "host.memory", "1000", ""),
    ("idle", "cpu", "100000", "per = 'service'"),
    ("busy", "memory.rss", "'1TiB'", "per = 'service'"),
    ("busy", "cpu", "100000", "per = 'thread'"),
    ("front", "offcpu.runqueue", "100000", ""),
    ("front", "function.p99", "'1000s'", "function = 'step-00'"),
    ("front", "function.rate", "1000000", "function = 'step-01'\nper = 'service'"),
    ("front", "function.oldest", "'1000s'", "function = 'step-02'"),
];

/// The file. What the daemon may take of the host is not bounded: it is to be seen what it would take.
pub(super) fn text(folder: &Path) -> String {
    let folder = folder.display();
    let mut text = format!(
        "[store]\npath = '{folder}/store'\n[sampling]\nfrequency = 19\n[limits]\ncpu = 100\nmemory = '1GiB'\n\
         [serve]\nlisten = '127.0.0.1:0'\n"
    );
    for target in ["front", "busy", "idle"] {
        let _ = write!(text, "[[target]]\nname = '{target}'\nmatch = {{ exe = '**/services*', comm = '{target}' }}\n");
    }
    let _ = write!(
        text,
        "[[rule]]\nname = 'hot'\ntarget = 'front'\nmetric = 'cpu'\nabove = 30\nfor = '1s'\ncooldown = '1s'\n\
         snapshot = {{ before = '30s', after = '2s' }}\n"
    );
    for (number, (target, metric, threshold, more)) in QUIET.iter().enumerate() {
        let _ = write!(
            text,
            "[[rule]]\nname = 'quiet-{number}'\ntarget = '{target}'\nmetric = '{metric}'\nabove = {threshold}\n{more}\n"
        );
    }
    for number in 0..FUNCTIONS {
        let _ =
            write!(text, "[[function]]\nname = 'step-{number:02}'\ntarget = 'front'\nsymbol = 'step_{number:02}'\n");
    }
    text
}
