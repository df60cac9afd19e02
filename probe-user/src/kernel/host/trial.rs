//! Trials: doing the smallest thing of each kind that recording does, to see whether the kernel lets us.

use std::os::fd::{FromRawFd, OwnedFd};

use aya::maps::MapType;
use aya::programs::{ProgramError, ProgramType};
use aya::sys::{self, BpfHelper};

/// What became of a trial: an error says why not, in the kernel's words.
pub type Trial = Result<(), String>;

/// Creates a ring buffer.
pub fn ring_buffer() -> Trial {
    outcome(sys::is_map_supported(MapType::RingBuf).map_err(|error| error.io_error.to_string()))
}

/// Loads a program for a perf event.
pub fn perf_program() -> Trial {
    outcome(sys::is_program_supported(ProgramType::PerfEvent).map_err(reason))
}

/// Loads a program for a traced kernel function.
pub fn tracing_program() -> Trial {
    outcome(sys::is_program_supported(ProgramType::Tracing).map_err(reason))
}

/// Loads a program that calls `bpf_loop`.
pub fn bpf_loop() -> Trial {
    helper(BpfHelper::BPF_FUNC_loop)
}

/// Loads a program that reads kernel memory.
pub fn read_kernel() -> Trial {
    helper(BpfHelper::BPF_FUNC_probe_read_kernel)
}

/// Opens the timer of CPU 0.
pub fn cpu_clock() -> Trial {
    const SOFTWARE: u32 = 1;
    perf_event(SOFTWARE)
}

/// Opens the cycle counter of CPU 0.
pub fn cpu_cycles() -> Trial {
    const HARDWARE: u32 = 0;
    perf_event(HARDWARE)
}

fn helper(helper: BpfHelper) -> Trial {
    outcome(sys::is_helper_supported(ProgramType::PerfEvent, helper).map_err(reason))
}

fn outcome(supported: Result<bool, String>) -> Trial {
    if supported? { Ok(()) } else { Err("not supported by this kernel".to_owned()) }
}

/// The innermost error is the kernel's own.
fn reason(error: ProgramError) -> String {
    let mut cause: &dyn std::error::Error = &error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// Opens event 0 of a type (the CPU clock, the cycle counter) on CPU 0, for every process, and closes it again.
fn perf_event(kind: u32) -> Trial {
    const SIZE: u32 = 64;
    const DISABLED: u64 = 1;
    // The first version of `struct perf_event_attr`, which every kernel takes, as eight words: type and size, config,
    // period, sample type, read format, flags, wake-up, address.
    let attributes = [u64::from(kind) | u64::from(SIZE) << 32, 0, 0, 0, 0, DISABLED, 0, 0];
    let (every_process, first_cpu, no_group, close_on_exec) = (-1, 0, -1, 8u64);
    #[expect(unsafe_code, reason = "the standard library has no perf_event_open")]
    // SAFETY: the attributes are a live array of exactly the size that they name; the kernel only reads them.
    let opened = unsafe {
        libc::syscall(libc::SYS_perf_event_open, attributes.as_ptr(), every_process, first_cpu, no_group, close_on_exec)
    };
    let Ok(file @ 0..) = i32::try_from(opened) else {
        return Err(std::io::Error::last_os_error().to_string());
    };
    #[expect(unsafe_code, reason = "a system call hands over a plain number")]
    // SAFETY: the kernel has just opened this descriptor for us, and nobody else knows it.
    drop(unsafe { OwnedFd::from_raw_fd(file) });
    Ok(())
}
