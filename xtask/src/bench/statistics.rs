//! The kernel's own statistics about BPF programs: off by default, because they cost a little; switched on for as long
//! as a benchmark runs.

use std::fs;

use anyhow::{Context, Result};

const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// Statistics are on as long as this lives; then the switch is as it was.
pub struct Enabled {
    before: String,
}

impl Enabled {
    /// Switches them on.
    pub fn new() -> Result<Self> {
        let before = fs::read_to_string(SWITCH).with_context(|| format!("cannot read {SWITCH}"))?;
        fs::write(SWITCH, "1").with_context(|| format!("cannot write {SWITCH}; it needs root"))?;
        Ok(Self { before })
    }
}

impl Drop for Enabled {
    fn drop(&mut self) {
        if let Err(error) = fs::write(SWITCH, &self.before) {
            eprintln!("xtask: {SWITCH} stays on: {error}");
        }
    }
}
