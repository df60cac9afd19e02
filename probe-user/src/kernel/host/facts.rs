//! The facts about a host that decide whether it can be profiled, as the kernel tells them. No judgement here.

use std::path::Path;

use super::deadlock;
use super::trial::{self, Trial};

/// What a host allows, as far as it could be found out; `None` is "it does not say".
#[derive(Clone, Debug)]
pub struct Host {
    /// The kernel's release, such as `6.1.0-23-amd64`.
    pub release: String,
    /// The version of a kernel that may lock up when stacks are sampled.
    pub deadlock: Option<deadlock::Version>,
    /// Whether such a kernel is to be used all the same.
    pub is_deadlock_allowed: bool,
    /// Whether the kernel's own type information can be read.
    pub btf: bool,
    /// Creating a ring buffer by the bpf system call.
    pub ring_buffer: Trial,
    /// Loading the smallest program for a perf event.
    pub perf_program: Trial,
    /// Attaching the smallest program to a kernel function.
    pub tracing_program: Trial,
    /// Loops in programs, by which long stacks are walked.
    pub bpf_loop: Trial,
    /// Reading kernel memory in a program; kernel lockdown forbids it.
    pub read_kernel: Trial,
    /// Opening a timer event on a CPU, for every process.
    pub cpu_clock: Trial,
    /// Opening the hardware's cycle counter on a CPU, for every process.
    pub cpu_cycles: Trial,
    /// Effective capabilities of this process, as a bit set.
    pub capabilities: Option<u64>,
    /// Kernel lockdown.
    pub lockdown: Lockdown,
    /// `kernel.perf_event_paranoid`.
    pub perf_event_paranoid: Option<i64>,
    /// `kernel.perf_event_max_stack`.
    pub perf_event_max_stack: Option<i64>,
    /// `kernel.perf_event_max_sample_rate`.
    pub perf_event_max_sample_rate: Option<i64>,
    /// `kernel.unprivileged_bpf_disabled`.
    pub unprivileged_bpf_disabled: Option<i64>,
    /// `kernel.kptr_restrict`.
    pub kptr_restrict: Option<i64>,
    /// `kernel.ftrace_enabled`; absent when the kernel has no function tracing.
    pub ftrace_enabled: Option<i64>,
    /// Whether the addresses of kernel functions can be read.
    pub kernel_symbols: bool,
    /// Whether the folder that describes tracepoints is mounted and readable.
    pub tracefs: bool,
    /// Whether user-space probes are compiled in.
    pub uprobes: bool,
    /// Whether kernel probes are compiled in.
    pub kprobes: bool,
    /// Whether process ids seen here are those that the kernel's programs see.
    pub host_pid_namespace: Option<bool>,
    /// The limit on locked memory in bytes; `u64::MAX` is none.
    pub locked_memory: Option<u64>,
}

/// How far the kernel is locked down against its own root user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lockdown {
    /// Not at all, or the kernel has no lockdown.
    None,
    /// Root may not change the running kernel; profiling works.
    Integrity,
    /// Root may not read the running kernel either: programs cannot read its memory.
    Confidentiality,
}

/// A capability by its number in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Capability {
    /// Read any file.
    DacReadSearch = 2,
    /// Lock memory beyond the limit.
    IpcLock = 14,
    /// Look into other users' processes.
    SysPtrace = 19,
    /// Nearly everything.
    SysAdmin = 21,
    /// Raise limits.
    SysResource = 24,
    /// Read kernel addresses.
    Syslog = 34,
    /// Measure all of the machine.
    Perfmon = 38,
    /// Load programs into the kernel.
    Bpf = 39,
    /// Open the mapped files of other processes.
    CheckpointRestore = 40,
}

impl Host {
    /// Asks the kernel. Changes nothing: every trial undoes itself.
    pub fn inspect() -> Self {
        let event_source = |name: &str| Path::new("/sys/bus/event_source/devices").join(name).exists();
        let tracefs = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];
        Self {
            release: read("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
            deadlock: deadlock::of_this_kernel(),
            is_deadlock_allowed: deadlock::is_allowed(),
            btf: std::fs::File::open("/sys/kernel/btf/vmlinux").is_ok(),
            ring_buffer: trial::ring_buffer(),
            perf_program: trial::perf_program(),
            tracing_program: trial::tracing_program(),
            bpf_loop: trial::bpf_loop(),
            read_kernel: trial::read_kernel(),
            cpu_clock: trial::cpu_clock(),
            cpu_cycles: trial::cpu_cycles(),
            capabilities: capabilities(),
            lockdown: read("/sys/kernel/security/lockdown").map_or(Lockdown::None, |text| lockdown(&text)),
            perf_event_paranoid: sysctl("perf_event_paranoid"),
            perf_event_max_stack: sysctl("perf_event_max_stack"),
            perf_event_max_sample_rate: sysctl("perf_event_max_sample_rate"),
            unprivileged_bpf_disabled: sysctl("unprivileged_bpf_disabled"),
            kptr_restrict: sysctl("kptr_restrict"),
            ftrace_enabled: sysctl("ftrace_enabled"),
            kernel_symbols: kernel_symbols(),
            tracefs: tracefs.iter().any(|folder| Path::new(folder).join("events").is_dir()),
            uprobes: event_source("uprobe"),
            kprobes: event_source("kprobe"),
            host_pid_namespace: std::fs::read_link("/proc/self/ns/pid")
                .ok()
                .map(|ns| ns == Path::new(FIRST_PID_NAMESPACE)),
            locked_memory: read("/proc/self/limits").as_deref().and_then(locked_memory),
        }
    }

    /// Whether perf events need CAP_SYS_ADMIN in spite of CAP_PERFMON, which this process holds: Debian and Ubuntu have
    /// levels above those of Linux itself, and theirs are the defaults there.
    pub fn is_paranoid(&self) -> bool {
        is_paranoid(self.perf_event_paranoid, self.capabilities)
    }

    /// The same for this process now, without any trial: for whoever has just been refused.
    pub fn is_paranoid_now() -> bool {
        is_paranoid(sysctl("perf_event_paranoid"), capabilities())
    }

    /// Whether this process holds a capability. Unknown counts as held: the trials tell the truth then.
    pub fn has(&self, capability: Capability) -> bool {
        has(self.capabilities, capability)
    }
}

/// The pid namespace that the kernel starts with has this fixed number.
const FIRST_PID_NAMESPACE: &str = "pid:[4026531836]";

fn read(path: impl AsRef<Path>) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

fn sysctl(name: &str) -> Option<i64> {
    read(format!("/proc/sys/kernel/{name}"))?.trim().parse().ok()
}

fn capabilities() -> Option<u64> {
    read("/proc/self/status").as_deref().and_then(effective_capabilities)
}

fn has(held: Option<u64>, capability: Capability) -> bool {
    held.is_none_or(|held| held & (1 << capability as u8) != 0)
}

fn is_paranoid(level: Option<i64>, held: Option<u64>) -> bool {
    const MOST_PARANOID: i64 = 2;
    level.unwrap_or_default() > MOST_PARANOID && has(held, Capability::Perfmon) && !has(held, Capability::SysAdmin)
}

/// The line `CapEff:` of `/proc/self/status`.
fn effective_capabilities(status: &str) -> Option<u64> {
    let set = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(set.trim(), 16).ok()
}

/// `none [integrity] confidentiality`: the word in brackets holds.
fn lockdown(text: &str) -> Lockdown {
    if text.contains("[confidentiality]") {
        Lockdown::Confidentiality
    } else if text.contains("[integrity]") {
        Lockdown::Integrity
    } else {
        Lockdown::None
    }
}

/// The soft limit of `Max locked memory` in `/proc/self/limits`.
fn locked_memory(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max locked memory"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        bytes => bytes.parse().ok(),
    }
}

/// Whether the first kernel symbol has an address; they read as zero to those who may not know.
fn kernel_symbols() -> bool {
    use std::io::{BufRead, BufReader};
    // The first ones are offsets in the per-CPU area and may be zero in spite of all privileges.
    const ENOUGH: usize = 4096;
    let Ok(file) = std::fs::File::open("/proc/kallsyms") else { return false };
    let has_address = |line: String| line.bytes().take_while(|&byte| byte != b' ').any(|digit| digit != b'0');
    BufReader::new(file).lines().take(ENOUGH).map_while(Result::ok).any(has_address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_writes_is_read() {
        assert_eq!(effective_capabilities("Name:\tx\nCapEff:\t000001fffeffffff\n"), Some(0x1ff_feff_ffff));
        assert_eq!(effective_capabilities("Name:\tx\n"), None);
        assert_eq!(lockdown("none [integrity] confidentiality\n"), Lockdown::Integrity);
        assert_eq!(lockdown("none integrity [confidentiality]\n"), Lockdown::Confidentiality);
        assert_eq!(lockdown("[none] integrity confidentiality\n"), Lockdown::None);
        let limits = "Limit   Soft Limit  Hard Limit  Units\nMax locked memory         8388608      unlimited bytes\n";
        assert_eq!(locked_memory(limits), Some(8 << 20));
        assert_eq!(locked_memory("Max locked memory  unlimited unlimited bytes\n"), Some(u64::MAX));
    }

    #[test]
    fn the_host_that_runs_the_tests_says_something() {
        let host = Host::inspect();
        assert!(!host.release.is_empty() && host.capabilities.is_some(), "{host:?}");
    }
}
