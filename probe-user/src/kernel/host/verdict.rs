//! What the facts about a host mean for profiling, line by line, and what to do about what is missing. Pure: facts in,
//! lines out.

use serde::Serialize;

use super::{Capability, Host, Lockdown, deadlock};
use crate::problem::PARANOID;

/// How well one thing stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Nothing to do.
    Ok,
    /// Recording works, with less than it could have.
    Warn,
    /// Recording cannot work.
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// What was looked at, in a few words.
    pub name: &'static str,
    /// How it stands.
    pub status: Status,
    /// What was found and what it means.
    pub detail: String,
    /// What to do about it; empty when there is nothing to do.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub hint: &'static str,
}

/// The oldest kernel that has all of what recording uses.
const OLDEST_KERNEL: (u32, u32) = (6, 1);

const PRIVILEGES: &str = "run as root, or grant the binary its capabilities: \
     setcap cap_bpf,cap_perfmon,cap_sys_ptrace,cap_dac_read_search,cap_checkpoint_restore,cap_syslog+ep";

/// Whether recording can work at all.
pub fn can_record(lines: &[Line]) -> bool {
    lines.iter().all(|line| line.status != Status::Fail)
}

/// Judges a host, the decisive things first.
pub fn judge(host: &Host) -> Vec<Line> {
    let mut lines = vec![kernel(host), deadlock(host), btf(host), bpf(host), walking(host)];
    lines.extend([cpu_clock(host), cpu_cycles(host), lockdown(host)]);
    lines.extend(CAPABILITIES.iter().map(|need| capability(host, need)));
    lines.extend([paranoid(host), unprivileged_bpf(host), kernel_symbols(host), pid_namespace(host)]);
    lines.extend([sample_rate(host), kernel_stack(host), locked_memory(host)]);
    lines.extend([tracefs(host), functions(host), uprobes(host)]);
    lines
}

fn line(name: &'static str, status: Status, detail: impl Into<String>, hint: &'static str) -> Line {
    Line { name, status, detail: detail.into(), hint }
}

fn ok(name: &'static str, detail: impl Into<String>) -> Line {
    line(name, Status::Ok, detail, "")
}

fn kernel(host: &Host) -> Line {
    let (major, minor) = OLDEST_KERNEL;
    let detail = format!("{}; at least {major}.{minor} is needed", host.release);
    match version(&host.release) {
        Some(version) if version >= OLDEST_KERNEL => ok("kernel", detail),
        Some(_) => line("kernel", Status::Fail, detail, "boot a newer kernel; Debian 12 and Ubuntu 24.04 have one"),
        None => line("kernel", Status::Warn, detail, "the version was not understood; the lines below tell more"),
    }
}

fn deadlock(host: &Host) -> Line {
    let name = "sampling is safe";
    match (host.deadlock, host.is_deadlock_allowed) {
        (None, _) => ok(name, "this kernel reads the memory of processes without a known deadlock"),
        (Some(version), false) => line(name, Status::Fail, deadlock::describe(version), deadlock::HINT),
        (Some(version), true) => {
            line(name, Status::Warn, format!("{}; it is allowed", deadlock::describe(version)), "update the kernel")
        }
    }
}

/// `6.1.0-23-amd64` as (6, 1).
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn btf(host: &Host) -> Line {
    if host.btf {
        return ok("kernel types (BTF)", "/sys/kernel/btf/vmlinux can be read");
    }
    let hint = "use a kernel built with CONFIG_DEBUG_INFO_BTF, and mount /sys in the container";
    line(
        "kernel types (BTF)",
        Status::Fail,
        "/sys/kernel/btf/vmlinux cannot be read: programs do not fit the kernel",
        hint,
    )
}

fn bpf(host: &Host) -> Line {
    let both = host.ring_buffer.as_ref().and(host.perf_program.as_ref());
    match both {
        Ok(()) => ok("BPF", "ring buffers and perf programs load"),
        Err(why) => line("BPF", Status::Fail, format!("programs do not load: {why}"), PRIVILEGES),
    }
}

fn walking(host: &Host) -> Line {
    let name = "stack walking";
    match (&host.bpf_loop, &host.perf_program) {
        (Ok(()), _) => ok(name, "bpf_loop is there: stacks of up to 1,024 frames"),
        (Err(why), Ok(())) => line(name, Status::Fail, format!("no bpf_loop: {why}"), "boot a kernel of at least 6.1"),
        (Err(why), Err(_)) => line(name, Status::Warn, format!("not known ({why})"), "see BPF"),
    }
}

fn cpu_clock(host: &Host) -> Line {
    match &host.cpu_clock {
        Ok(()) => ok("perf events", "a timer event opens on a CPU"),
        Err(why) => {
            let hint = if host.is_paranoid() { PARANOID } else { PRIVILEGES };
            line("perf events", Status::Fail, format!("no timer event opens on a CPU: {why}"), hint)
        }
    }
}

fn cpu_cycles(host: &Host) -> Line {
    match (&host.cpu_cycles, &host.cpu_clock) {
        (Ok(()), _) => ok("cycle counter", "samples come from the hardware's counter"),
        (Err(why), Ok(())) => line(
            "cycle counter",
            Status::Warn,
            format!("none ({why}): samples come from the CPU clock, and code with interrupts off is seen late"),
            "virtual machines hide it; let the hypervisor pass the performance counters through",
        ),
        (Err(why), Err(_)) => line("cycle counter", Status::Warn, format!("not known ({why})"), "see perf events"),
    }
}

fn lockdown(host: &Host) -> Line {
    let name = "kernel lockdown";
    let lower = "boot with lockdown=integrity or lower; secure boot may force it";
    match (host.lockdown, &host.read_kernel) {
        (Lockdown::Confidentiality, _) => {
            line(name, Status::Fail, "confidentiality: programs may not read the kernel's memory", lower)
        }
        (Lockdown::Integrity, Ok(())) => ok(name, "integrity: not in the way of profiling"),
        (Lockdown::None, Ok(())) => ok(name, "none"),
        (_, Err(why)) if host.perf_program.is_ok() => {
            line(name, Status::Fail, format!("programs may not read the kernel's memory: {why}"), lower)
        }
        (_, Err(why)) => line(name, Status::Warn, format!("not known ({why})"), "see BPF"),
    }
}

/// A capability, what it is for and how much depends on it.
struct Need {
    name: &'static str,
    capability: Capability,
    purpose: &'static str,
    /// What lacking it means.
    lacking: Status,
    /// Whether CAP_SYS_ADMIN stands in for it.
    in_admin: bool,
}

const fn need(
    name: &'static str,
    capability: Capability,
    lacking: Status,
    in_admin: bool,
    purpose: &'static str,
) -> Need {
    Need { name, capability, purpose, lacking, in_admin }
}

const CAPABILITIES: [Need; 8] = [
    need("CAP_BPF", Capability::Bpf, Status::Fail, true, "loads programs and creates maps"),
    need("CAP_PERFMON", Capability::Perfmon, Status::Fail, true, "samples every process and walks its stack"),
    need("CAP_SYS_PTRACE", Capability::SysPtrace, Status::Warn, false, "reads the mappings of other users' processes"),
    need(
        "CAP_DAC_READ_SEARCH",
        Capability::DacReadSearch,
        Status::Warn,
        false,
        "opens other users' binaries to name functions",
    ),
    need(
        "CAP_CHECKPOINT_RESTORE",
        Capability::CheckpointRestore,
        Status::Warn,
        true,
        "opens binaries that were deleted or replaced",
    ),
    need("CAP_SYSLOG", Capability::Syslog, Status::Warn, false, "names kernel functions"),
    need(
        "CAP_SYS_RESOURCE",
        Capability::SysResource,
        Status::Ok,
        false,
        "raises limits, which kernels since 5.11 do not need",
    ),
    need(
        "CAP_IPC_LOCK",
        Capability::IpcLock,
        Status::Ok,
        false,
        "locks memory beyond the limit, which ring buffers do not need",
    ),
];

fn capability(host: &Host, need: &Need) -> Line {
    if host.has(need.capability) {
        return ok(need.name, format!("held: {}", need.purpose));
    }
    if need.in_admin && host.has(Capability::SysAdmin) {
        return ok(need.name, format!("held through CAP_SYS_ADMIN: {}", need.purpose));
    }
    let hint = if need.lacking == Status::Ok { "" } else { PRIVILEGES };
    line(need.name, need.lacking, format!("not held: {}", need.purpose), hint)
}

fn paranoid(host: &Host) -> Line {
    let name = "perf_event_paranoid";
    match host.perf_event_paranoid {
        None => line(name, Status::Warn, "not known: perf events may not be compiled in", "see perf events"),
        Some(level) if level <= 0 => ok(name, format!("{level}: everybody may sample every process")),
        Some(level) if host.cpu_clock.is_ok() => {
            ok(name, format!("{level}: only privileged processes may, and this one does"))
        }
        Some(level) => {
            let hint = if host.is_paranoid() { PARANOID } else { PRIVILEGES };
            line(name, Status::Warn, format!("{level}: only privileged processes may sample others"), hint)
        }
    }
}

fn unprivileged_bpf(host: &Host) -> Line {
    let name = "unprivileged_bpf_disabled";
    match host.unprivileged_bpf_disabled {
        Some(0) => ok(name, "0: everybody may load some programs, though not those of a profiler"),
        Some(level) => ok(name, format!("{level}: only privileged processes may load programs, as it should be")),
        None => line(name, Status::Warn, "not known: BPF may not be compiled in", "see BPF"),
    }
}

fn kernel_symbols(host: &Host) -> Line {
    let restrict = host.kptr_restrict.map_or_else(|| "unknown".to_owned(), |level| level.to_string());
    if host.kernel_symbols {
        return ok("kernel symbols", format!("/proc/kallsyms has addresses (kptr_restrict is {restrict})"));
    }
    let detail = format!("/proc/kallsyms has no addresses (kptr_restrict is {restrict}): kernel frames have no names");
    line("kernel symbols", Status::Warn, detail, "grant CAP_SYSLOG, and set kernel.kptr_restrict to 1 or 0")
}

fn pid_namespace(host: &Host) -> Line {
    match host.host_pid_namespace {
        Some(true) => ok("pid namespace", "the host's own: process ids mean the same here and in the kernel"),
        Some(false) => line(
            "pid namespace",
            Status::Warn,
            "a container's: process ids here are not those of the kernel, and other containers are not seen",
            "share the host's: hostPID: true in Kubernetes, --pid=host in Docker and Podman",
        ),
        None => line("pid namespace", Status::Warn, "not known: /proc is not mounted", "mount /proc"),
    }
}

fn sample_rate(host: &Host) -> Line {
    match host.perf_event_max_sample_rate {
        Some(rate) if rate < 999 => line(
            "sampling rate",
            Status::Warn,
            format!("at most {rate} samples a second and CPU"),
            "the kernel lowers it when interrupts take long; raise kernel.perf_event_max_sample_rate",
        ),
        Some(rate) => ok("sampling rate", format!("up to {rate} samples a second and CPU")),
        None => line("sampling rate", Status::Warn, "the highest rate is not known", ""),
    }
}

fn kernel_stack(host: &Host) -> Line {
    let name = "perf_event_max_stack";
    match host.perf_event_max_stack {
        Some(frames) if frames < 127 => line(
            name,
            Status::Warn,
            format!("kernel stacks are cut at {frames} frames; user stacks are not"),
            "set kernel.perf_event_max_stack to 127",
        ),
        Some(frames) => ok(name, format!("kernel stacks of up to {frames} frames; user stacks do not depend on it")),
        None => line(name, Status::Warn, "not known", ""),
    }
}

fn locked_memory(host: &Host) -> Line {
    let limit = match host.locked_memory {
        None => "not known".to_owned(),
        Some(u64::MAX) => "no limit".to_owned(),
        Some(bytes) => format!("at most {} KiB", bytes >> 10),
    };
    ok("locked memory", format!("{limit}; kernels since 5.11 do not count maps against it"))
}

fn tracefs(host: &Host) -> Line {
    if host.tracefs {
        return ok("tracefs", "mounted: tracepoints can be looked up");
    }
    let hint = "mount -t tracefs tracefs /sys/kernel/tracing";
    line("tracefs", Status::Warn, "not mounted or not readable: only classic tracepoints need it", hint)
}

fn functions(host: &Host) -> Line {
    let name = "kernel functions";
    match (&host.tracing_program, host.ftrace_enabled) {
        (Ok(()), Some(1)) => ok(name, "can be traced (fentry)"),
        (Ok(()), Some(_)) => line(
            name,
            Status::Warn,
            "function tracing is switched off; sampling works",
            "set kernel.ftrace_enabled to 1",
        ),
        (Ok(()), None) => line(
            name,
            Status::Warn,
            "the kernel was built without function tracing; sampling works",
            "use a kernel built with CONFIG_FUNCTION_TRACER",
        ),
        (Err(why), _) if host.perf_program.is_ok() => {
            line(name, Status::Warn, format!("cannot be traced (fentry: {why}); sampling and tracepoints work"), "")
        }
        (Err(why), _) => line(name, Status::Warn, format!("not known ({why})"), "see BPF"),
    }
}

fn uprobes(host: &Host) -> Line {
    let kprobes = if host.kprobes { "kernel probes too" } else { "kernel probes not: tracepoints are used instead" };
    if host.uprobes {
        return ok("user-space probes", format!("compiled in; {kprobes}"));
    }
    let hint = "use a kernel built with CONFIG_UPROBE_EVENTS, and mount /sys in the container";
    line("user-space probes", Status::Warn, "not compiled in: functions cannot be timed; sampling works", hint)
}

#[cfg(test)]
mod tests {
    use super::super::trial::Trial;
    use super::*;

    fn denied() -> Trial {
        Err("Operation not permitted (os error 1)".to_owned())
    }

    fn good() -> Host {
        Host {
            release: "6.1.0-23-amd64".to_owned(),
            deadlock: None,
            is_deadlock_allowed: false,
            btf: true,
            ring_buffer: Ok(()),
            perf_program: Ok(()),
            tracing_program: Ok(()),
            bpf_loop: Ok(()),
            read_kernel: Ok(()),
            cpu_clock: Ok(()),
            cpu_cycles: Ok(()),
            capabilities: Some(u64::MAX),
            lockdown: Lockdown::None,
            perf_event_paranoid: Some(2),
            perf_event_max_stack: Some(127),
            perf_event_max_sample_rate: Some(100_000),
            unprivileged_bpf_disabled: Some(2),
            kptr_restrict: Some(1),
            ftrace_enabled: Some(1),
            kernel_symbols: true,
            tracefs: true,
            uprobes: true,
            kprobes: true,
            host_pid_namespace: Some(true),
            locked_memory: Some(8 << 20),
        }
    }

    /// The lines of a host that are not ok, as `status name`.
    fn complaints(host: &Host) -> Vec<String> {
        let lines = judge(host).into_iter().filter(|line| line.status != Status::Ok);
        lines.map(|line| format!("{:?} {}", line.status, line.name)).collect()
    }

    #[test]
    fn a_good_host_has_nothing_to_complain_about() {
        assert_eq!(complaints(&good()), [""; 0]);
        assert!(can_record(&judge(&good())));
    }

    #[test]
    fn a_user_without_privileges_cannot_record_and_is_told_how_to() {
        let host = Host {
            ring_buffer: denied(),
            perf_program: denied(),
            tracing_program: denied(),
            bpf_loop: denied(),
            read_kernel: denied(),
            cpu_clock: denied(),
            cpu_cycles: denied(),
            capabilities: Some(0),
            kernel_symbols: false,
            tracefs: false,
            ..good()
        };
        let lines = judge(&host);
        assert!(!can_record(&lines));
        for line in lines.iter().filter(|line| line.status == Status::Fail) {
            assert!(!line.hint.is_empty(), "{line:?}");
        }
        let bpf = lines.iter().find(|line| line.name == "BPF").unwrap();
        assert!(bpf.detail.contains("Operation not permitted") && bpf.hint.contains("setcap"), "{bpf:?}");
    }

    #[test]
    fn where_a_kernel_is_more_paranoid_than_linux_it_is_told_how_to_change_that() {
        let without_admin = Some(!(1 << Capability::SysAdmin as u8));
        let host = Host { perf_event_paranoid: Some(3), capabilities: without_admin, cpu_clock: denied(), ..good() };
        let line = judge(&host).into_iter().find(|line| line.name == "perf_event_paranoid").unwrap();
        assert!(line.status == Status::Warn && line.hint.contains("kernel.perf_event_paranoid=2"), "{line:?}");
        assert!(!Host { capabilities: Some(u64::MAX), ..host.clone() }.is_paranoid());
        assert!(!Host { perf_event_paranoid: Some(2), ..host }.is_paranoid());
    }

    #[test]
    fn what_makes_recording_impossible_is_told_from_what_makes_it_poorer() {
        let poorer = Host { cpu_cycles: denied(), host_pid_namespace: Some(false), tracefs: false, ..good() };
        assert_eq!(complaints(&poorer), ["Warn cycle counter", "Warn pid namespace", "Warn tracefs"]);
        assert!(can_record(&judge(&poorer)));
        for impossible in [
            Host { release: "5.15.0-91-generic".to_owned(), ..good() },
            Host { deadlock: Some((6, 1, 25)), ..good() },
            Host { btf: false, ..good() },
            Host { lockdown: Lockdown::Confidentiality, ..good() },
            Host { cpu_clock: denied(), ..good() },
            Host { capabilities: Some(!(1 << Capability::Bpf as u8) & !(1 << Capability::SysAdmin as u8)), ..good() },
        ] {
            assert!(!can_record(&judge(&impossible)), "{impossible:?}");
        }
    }

    #[test]
    fn sys_admin_stands_in_for_the_capabilities_that_were_cut_out_of_it() {
        let admin = Host { capabilities: Some(1 << Capability::SysAdmin as u8), ..good() };
        assert!(can_record(&judge(&admin)));
        let held = |name| judge(&admin).into_iter().find(|line| line.name == name).unwrap();
        assert!(held("CAP_BPF").detail.contains("through CAP_SYS_ADMIN"));
        assert_eq!(held("CAP_SYS_PTRACE").status, Status::Warn);
    }

    #[test]
    fn kernel_releases_are_compared_as_numbers() {
        assert_eq!(version("6.18.44-fc-v669"), Some((6, 18)));
        assert_eq!(version("5.4"), Some((5, 4)));
        assert_eq!(version("strange"), None);
        assert!(version("6.10.0") > Some(OLDEST_KERNEL));
    }
}
