//! The kernel's own statistics about BPF programs: off by default, because they cost a little; switched on for as long
//! as a benchmark runs.

use std::fs;
use std::os::fd::{FromRawFd as _, OwnedFd};

use anyhow::{Context, Result};

/// Where the numbers come from: they compare with no others.
pub fn host() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    format!("Kernel {}, {cpus} CPUs", release.trim())
}

/// Statistics are on as long as this lives. The descriptor is the switch, rather than `kernel.bpf_stats_enabled`: nobody
/// else can turn it off meanwhile, and it is off again however this process ends.
pub struct Enabled {
    _switch: OwnedFd,
}

/// `BPF_ENABLE_STATS` (include/uapi/linux/bpf.h).
const BPF_ENABLE_STATS: libc::c_int = 32;
/// `BPF_STATS_RUN_TIME`, all that there is to switch on.
static RUN_TIME: u32 = 0;

impl Enabled {
    /// Switches them on.
    #[expect(unsafe_code, reason = "the kernel boundary: the standard library has no such call")]
    pub fn new() -> Result<Self> {
        // SAFETY: the call reads the four bytes of its argument and returns a new descriptor, which nobody else has.
        let switch = unsafe {
            let done = libc::syscall(libc::SYS_bpf, BPF_ENABLE_STATS, &raw const RUN_TIME, size_of_val(&RUN_TIME));
            (done >= 0).then(|| OwnedFd::from_raw_fd(done as libc::c_int))
        };
        let error = std::io::Error::last_os_error;
        let switch = switch.ok_or_else(error).context("cannot switch the kernel's statistics on; it needs root")?;
        Ok(Self { _switch: switch })
    }
}
