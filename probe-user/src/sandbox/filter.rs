//! System calls that a process never makes are refused with EPERM, by filters that also hold for all its later threads. What
//! is refused is what would undo a promise: a collector that opens no network and does nothing to other processes, a
//! server that runs no program.

use std::collections::BTreeMap;
use std::mem::offset_of;

use anyhow::{Context, Result, anyhow};
use libc::{AF_INET, AF_INET6, AF_NETLINK, AF_UNIX, c_int, c_long};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, sock_filter,
};

/// What neither process does: running other programs, reaching around this filter (what io_uring is told to do is not seen
/// by filters), changing other processes, the kernel or what is mounted.
const NEVER: &[c_long] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_io_uring_setup,
    libc::SYS_ptrace,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_process_mrelease,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    libc::SYS_pidfd_getfd,
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_pidfd_send_signal,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
];

/// What only the collector does.
const COLLECTORS: &[c_long] = &[libc::SYS_bpf, libc::SYS_perf_event_open, libc::SYS_process_vm_readv];

/// The calls that each process makes for itself, with the argument that says whose: zero is the caller's.
const OWN: &[(c_long, u8)] = &[
    (libc::SYS_prlimit64, 0),
    (libc::SYS_setpriority, 1),
    (libc::SYS_ioprio_set, 1),
    (libc::SYS_sched_setaffinity, 0),
    (libc::SYS_sched_setscheduler, 0),
    (libc::SYS_sched_setparam, 0),
    (libc::SYS_sched_setattr, 0),
];

/// New namespaces by `clone`, which has its flags in the first argument: in one of users a process has every capability.
const NAMESPACES: &[c_int] = &[
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWCGROUP,
];

/// Ways to have the kernel send a signal to whom one names, by the second argument of a call: the owner of a descriptor, and
/// which signal that gets.
const SIGNALLED: &[(c_long, u32)] = &[
    (libc::SYS_fcntl, libc::F_SETOWN.unsigned_abs()),
    (libc::SYS_fcntl, F_SETSIG),
    (libc::SYS_fcntl, F_SETOWN_EX),
    (libc::SYS_ioctl, FIOSETOWN),
    (libc::SYS_ioctl, SIOCSPGRP),
];
/// From `include/uapi/asm-generic/fcntl.h` and `sockios.h` of the kernel.
const F_SETSIG: u32 = 10;
const F_SETOWN_EX: u32 = 15;
const FIOSETOWN: u32 = 0x8901;
const SIOCSPGRP: u32 = 0x8902;

/// From here on are the numbers of the x32 interface, which has its own for some of the same calls.
const X32: u32 = 0x4000_0000;

/// All that a process calls that reads files, besides those whose arguments are looked at.
const READERS: &[c_long] = &[
    libc::SYS_read,
    libc::SYS_pread64,
    libc::SYS_readv,
    libc::SYS_preadv,
    libc::SYS_close,
    libc::SYS_dup,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_lseek,
    libc::SYS_readlinkat,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_getdents64,
    libc::SYS_getcwd,
    libc::SYS_fadvise64,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_getrandom,
    libc::SYS_clock_gettime,
    libc::SYS_gettimeofday,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_ppoll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_stat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lstat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_access,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
];

/// No network: sockets within this host only.
pub(super) fn collector() -> Result<()> {
    apply(&program(NEVER.iter().copied(), &[AF_UNIX])?)
}

/// The network, but nothing of the kernel. Netlink is how the C library sorts the addresses of a name.
pub(super) fn server() -> Result<()> {
    let calls = NEVER.iter().chain(COLLECTORS).copied();
    apply(&program(calls, &[AF_UNIX, AF_INET, AF_INET6, AF_NETLINK])?)
}

/// Reading, and the sockets that are open already. All other calls are refused.
pub(super) fn reader() -> Result<()> {
    let masked = |argument: u8, mask: c_int, value: c_int| {
        let mask = SeccompCmpOp::MaskedEq(mask.unsigned_abs().into());
        let is = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, mask, value.unsigned_abs().into())?;
        SeccompRule::new(vec![is])
    };
    let is = |argument: u8, value: u32| {
        let is = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value.into())?;
        SeccompRule::new(vec![is])
    };
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = READERS.iter().map(|&call| (call, vec![])).collect();
    // For reading, and never made.
    let writing = libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC;
    rules.insert(libc::SYS_openat, vec![masked(2, writing, libc::O_RDONLY)?]);
    #[cfg(target_arch = "x86_64")]
    rules.insert(libc::SYS_open, vec![masked(1, writing, libc::O_RDONLY)?]);
    // Nothing that was read becomes code.
    rules.insert(libc::SYS_mmap, vec![masked(2, libc::PROT_EXEC, 0)?]);
    rules.insert(libc::SYS_mprotect, vec![masked(2, libc::PROT_EXEC, 0)?]);
    let fcntl = [libc::F_DUPFD_CLOEXEC, libc::F_GETFD, libc::F_SETFD, libc::F_GETFL];
    rules.insert(libc::SYS_fcntl, fcntl.iter().map(|command| is(1, command.unsigned_abs())).collect::<Result<_, _>>()?);
    rules.insert(libc::SYS_tgkill, vec![is(0, std::process::id())?]);
    rules.insert(libc::SYS_prlimit64, vec![is(0, 0)?]);
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(|error| anyhow!("{error}"))?;
    let refused = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let program: BpfProgram = SeccompFilter::new(rules, refused, SeccompAction::Allow, arch)?.try_into()?;
    apply(&program)
}

fn apply(program: &BpfProgram) -> Result<()> {
    seccompiler::apply_filter_all_threads(program).context("cannot set a filter for system calls")
}

/// Refuses these calls, and sockets of other families than these.
fn program(calls: impl Iterator<Item = c_long>, families: &[c_int]) -> Result<BpfProgram> {
    let is_not = |argument: u8, value: u32| {
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, value.into())
    };
    let own = std::process::id();
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = calls.map(|call| (call, vec![])).collect();
    let others = families.iter().map(|family| is_not(0, family.unsigned_abs())).collect::<Result<Vec<_>, _>>()?;
    rules.insert(libc::SYS_socket, vec![SeccompRule::new(others)?]);
    // How a process that fails ends itself.
    rules.insert(libc::SYS_tgkill, vec![SeccompRule::new(vec![is_not(0, own)?])?]);
    for &(call, whose) in OWN {
        rules.insert(call, vec![SeccompRule::new(vec![is_not(whose, 0)?, is_not(whose, own)?])?]);
    }
    let is = |argument: u8, value: u32| {
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value.into())
    };
    for &flag in NAMESPACES {
        let flag = u64::from(flag.unsigned_abs());
        let has = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(flag), flag)?;
        rules.entry(libc::SYS_clone).or_default().push(SeccompRule::new(vec![has])?);
    }
    for &(call, command) in SIGNALLED {
        rules.entry(call).or_default().push(SeccompRule::new(vec![is(1, command)?])?);
    }
    // Zero is the caller itself only where a process is meant, and not a group or a user.
    let (process, process_io) = (libc::PRIO_PROCESS, 1);
    rules.entry(libc::SYS_setpriority).or_default().push(SeccompRule::new(vec![is_not(0, process)?])?);
    rules.entry(libc::SYS_ioprio_set).or_default().push(SeccompRule::new(vec![is_not(0, process_io)?])?);
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(|error| anyhow!("{error}"))?;
    // Calls by another architecture's numbers end the process.
    let refused = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let mut program = BpfProgram::new();
    // Its flags are behind a pointer, where no filter sees them; the C library takes `clone` where there is none.
    program.extend(refuse(libc::BPF_JEQ, u32::try_from(libc::SYS_clone3)?, SeccompAction::Errno(libc::ENOSYS as u32)));
    if cfg!(target_arch = "x86_64") {
        // All numbers of the x32 interface.
        program.extend(refuse(libc::BPF_JGE, X32, refused.clone()));
    }
    let rest: BpfProgram = SeccompFilter::new(rules, SeccompAction::Allow, refused, arch)?.try_into()?;
    program.extend(rest);
    Ok(program)
}

/// Instructions that end with `action` for calls whose number compares so with another, and go on for all others.
fn refuse(comparison: u32, number: u32, action: SeccompAction) -> [sock_filter; 3] {
    let instruction = |code: u32, jf, k| sock_filter { code: code as u16, jt: 0, jf, k };
    [
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, offset_of!(libc::seccomp_data, nr) as u32),
        instruction(libc::BPF_JMP | comparison | libc::BPF_K, 1, number),
        instruction(libc::BPF_RET | libc::BPF_K, 0, action.into()),
    ]
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::{TcpListener, UdpSocket};
    use std::os::unix::net::UnixDatagram;
    use std::process::Command;

    use super::*;

    /// In a thread of its own, for which alone the filter holds.
    fn confined(families: &[c_int], look: impl FnOnce() + Send + 'static) {
        let program = program(NEVER.iter().copied(), families).expect("compiles");
        std::thread::spawn(move || {
            rustix::thread::set_no_new_privs(true).expect("set");
            seccompiler::apply_filter(&program).expect("applied");
            look();
        })
        .join()
        .expect("no panic");
    }

    #[test]
    fn sockets_stay_within_the_host() {
        confined(&[AF_UNIX], || {
            UnixDatagram::unbound().expect("allowed");
            for refused in [UdpSocket::bind("127.0.0.1:0").err(), UdpSocket::bind("[::1]:0").err()] {
                assert_eq!(refused.expect("refused").kind(), ErrorKind::PermissionDenied);
            }
            let tcp = TcpListener::bind("127.0.0.1:0");
            assert_eq!(tcp.expect_err("refused").kind(), ErrorKind::PermissionDenied);
        });
        UdpSocket::bind("127.0.0.1:0").expect("others are not concerned");
    }

    #[test]
    fn no_program_is_run_and_nobody_is_signalled() {
        confined(&[AF_UNIX, AF_INET], || {
            TcpListener::bind("127.0.0.1:0").expect("allowed");
            assert_eq!(Command::new("true").status().expect_err("refused").kind(), ErrorKind::PermissionDenied);
            assert_eq!(rustix::process::test_kill_process(rustix::process::getpid()), Err(rustix::io::Errno::PERM));
        });
    }

    /// What a call with these numbers fails with; 0 when it does not.
    #[expect(unsafe_code, reason = "calls that nothing wraps")]
    fn errno(call: c_long, arguments: [c_long; 4]) -> c_int {
        let [one, two, three, four] = arguments;
        // SAFETY: the tests name calls that do nothing with these arguments, or fail; no pointer is given but null.
        let done = unsafe { libc::syscall(call, one, two, three, four) };
        if done < 0 { std::io::Error::last_os_error().raw_os_error().unwrap_or_default() } else { 0 }
    }

    #[test]
    fn there_are_no_new_namespaces_and_no_signals_by_descriptors() {
        let (socket, other) = std::os::unix::net::UnixStream::pair().expect("made");
        let descriptor = c_long::from(std::os::fd::AsRawFd::as_raw_fd(&socket));
        let parent = c_long::from(std::os::unix::process::parent_id());
        confined(&[AF_UNIX], move || {
            for flag in NAMESPACES {
                assert_eq!(errno(libc::SYS_clone, [c_long::from(*flag), 0, 0, 0]), libc::EPERM, "{flag:x}");
            }
            assert_eq!(errno(libc::SYS_clone3, [0; 4]), libc::ENOSYS);
            // Which is what the C library lives with.
            std::thread::spawn(|| ()).join().expect("threads are started all the same");
            for &(call, command) in SIGNALLED {
                assert_eq!(errno(call, [descriptor, command.into(), parent, 0]), libc::EPERM, "{command:x}");
            }
            assert_eq!(errno(libc::SYS_fcntl, [descriptor, libc::F_GETFL.into(), 0, 0]), 0);
            drop(other);
        });
    }

    #[test]
    fn only_the_process_itself_is_changed() {
        let own = c_long::from(std::process::id());
        let other = c_long::from(std::os::unix::process::parent_id());
        let thread = rustix::thread::gettid().as_raw_nonzero().get().into();
        assert_eq!(errno(libc::SYS_tgkill, [other, other, 0, 0]), 0, "without the filter it is possible");
        confined(&[AF_UNIX], move || {
            assert_eq!(errno(libc::SYS_tgkill, [other, other, 0, 0]), libc::EPERM);
            assert_eq!(errno(libc::SYS_tgkill, [own, thread, 0, 0]), 0);
            for (call, process, io) in [
                (libc::SYS_prlimit64, None, 0),
                (libc::SYS_setpriority, Some(0), 0),
                (libc::SYS_ioprio_set, Some(1), 0),
                (libc::SYS_sched_setaffinity, None, 0),
                (libc::SYS_sched_setscheduler, None, 0),
                (libc::SYS_sched_setparam, None, 0),
                (libc::SYS_sched_setattr, None, 0),
            ] {
                let of = |whose| process.map_or([whose, io, 0, 0], |which| [which, whose, 0, 0]);
                assert_eq!(errno(call, of(other)), libc::EPERM, "call {call} of another process");
                for whose in [0, own] {
                    assert_ne!(errno(call, of(whose)), libc::EPERM, "call {call} of {whose}");
                }
            }
            assert_eq!(errno(libc::SYS_setpriority, [2, 0, 0, 0]), libc::EPERM, "of all processes of the user");
            for call in [libc::SYS_pidfd_getfd, libc::SYS_process_madvise, libc::SYS_process_vm_writev] {
                assert_eq!(errno(call, [-1, 0, 0, 0]), libc::EPERM, "call {call}");
            }
        });
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_numbers_of_x32_are_no_way_around() {
        const EXECVE: c_long = 520;
        const PTRACE: c_long = 521;
        confined(&[AF_UNIX], || {
            for call in [EXECVE, PTRACE, libc::SYS_kill, libc::SYS_socket, libc::SYS_getpid, 0x3fff_ffff] {
                assert_eq!(errno(call | c_long::from(X32), [0; 4]), libc::EPERM, "call {call}");
            }
            assert_eq!(errno(libc::SYS_getpid, [0; 4]), 0);
        });
    }
}
