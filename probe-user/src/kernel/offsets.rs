//! The kernel fields that the programs read, looked up once at start.

use anyhow::Result;
use probe_ebpf::abi::Offsets;

use super::btf::Btf;

/// Looks all of them up; fails on a kernel that lacks one.
pub fn look_up(btf: &Btf) -> Result<Offsets> {
    Ok(Offsets {
        task_flags: btf.offset("task_struct", "flags")?,
        task_pid: btf.offset("task_struct", "pid")?,
        task_tgid: btf.offset("task_struct", "tgid")?,
        task_signal: btf.offset("task_struct", "signal")?,
        signal_live: btf.offset("signal_struct", "live")?,
        binprm_filename: btf.offset("linux_binprm", "filename")?,
    })
}
