//! The kernel's own statistics about BPF programs: off by default, because they cost a little; switched on for as long
//! as a benchmark runs.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use anyhow::{Context, Result};

use super::procfs;

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

/// Commands (include/uapi/linux/bpf.h).
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_TEST_RUN: libc::c_int = 10;
const BPF_ENABLE_STATS: libc::c_int = 32;

impl Enabled {
    /// Switches them on.
    pub fn new() -> Result<Self> {
        // `BPF_STATS_RUN_TIME`, all that there is to switch on.
        let mut run_time = [0_u32];
        let switch = bpf(BPF_ENABLE_STATS, &mut run_time);
        Ok(Self { _switch: descriptor(switch.context("cannot switch the kernel's statistics on; it needs root")?) })
    }

    /// What the statistics say that each run of a program takes which does nothing, in seconds: that is in what they say of
    /// every program, and is not there when they are off.
    pub fn cost(&self) -> Result<f64> {
        const RUNS: u64 = 200_000;
        let (instructions, license, mut packet) = ([0xb7_u64, 0x95], c"GPL", [0_u8; 64]);
        // A socket filter (type 1) of two instructions: `r0 = 0` and `exit`.
        let mut load = [0_u64; 16];
        load[..3].copy_from_slice(&[1 | 2 << 32, instructions.as_ptr() as u64, license.as_ptr() as u64]);
        let program = descriptor(bpf(BPF_PROG_LOAD, &mut load).context("cannot load an empty program")?);
        let mut run = [0_u64; 10];
        run[..3].copy_from_slice(&[program.as_raw_fd() as u64, packet.len() as u64, packet.as_mut_ptr() as u64]);
        run[4] = RUNS;
        bpf(BPF_PROG_TEST_RUN, &mut run).context("cannot run an empty program")?;
        let ran = procfs::busiest_program(std::process::id()).filter(|program| program.runs >= RUNS);
        let ran = ran.context("the kernel has no statistics about an empty program")?;
        Ok(ran.run_ns as f64 / 1e9 / ran.runs as f64)
    }
}

/// A call of `bpf` with an attribute of plain numbers.
#[expect(unsafe_code, reason = "the kernel boundary: the standard library has no such call")]
fn bpf<T>(command: libc::c_int, attribute: &mut [T]) -> io::Result<libc::c_int> {
    // SAFETY: the kernel reads and writes no more than the attribute; what addresses in it point to lives in the caller.
    let done = unsafe { libc::syscall(libc::SYS_bpf, command, attribute.as_mut_ptr(), size_of_val(attribute)) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(done as libc::c_int) }
}

/// What a call has just returned.
#[expect(unsafe_code, reason = "the kernel boundary: the standard library has no such call")]
fn descriptor(number: libc::c_int) -> OwnedFd {
    // SAFETY: new, so that nobody else has it.
    unsafe { OwnedFd::from_raw_fd(number) }
}
