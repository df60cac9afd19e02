//! Origins: the programs that tell who opens descriptors and starts threads, and the table of what they have told of that is
//! still what it was.

use anyhow::{Context, Result};
use aya::maps::{HashMap, Map, MapData};
use aya::programs::{BtfTracePoint, FEntry};
use aya::{Btf, Ebpf};
use probe_ebpf::abi::{COMM_LEN, StackId, made_by, made_key};

use super::sampler::permission;

/// How a descriptor or a thread comes to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum How {
    /// A thread is started.
    Thread,
    /// `open` and its kind.
    Open,
    /// `socket`, `socketpair`.
    Socket,
    /// `accept`, `accept4`.
    Accept,
    /// `pipe`, `pipe2`.
    Pipe,
    /// `eventfd`, `epoll_create` and other calls that open what has no file.
    Anonymous,
    /// `dup` and its kind.
    Copy,
}

impl How {
    pub(super) fn of_kernel(number: u32) -> Option<Self> {
        Some(match number {
            made_by::THREAD => Self::Thread,
            made_by::OPEN => Self::Open,
            made_by::SOCKET => Self::Socket,
            made_by::ACCEPT => Self::Accept,
            made_by::PIPE => Self::Pipe,
            made_by::ANONYMOUS => Self::Anonymous,
            made_by::COPY => Self::Copy,
            _ => return None,
        })
    }

    /// A thread, not a descriptor.
    pub fn is_thread(self) -> bool {
        self == Self::Thread
    }
}

/// A descriptor that was opened, or a thread that was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawOrigin {
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub time_ns: u64,
    /// How.
    pub how: How,
    /// Process.
    pub pid: u32,
    /// Thread that did it.
    pub tid: u32,
    /// The descriptor, or the id of the new thread.
    pub number: u32,
    /// How many like this one it stands for.
    pub weight: u32,
    /// User stack.
    pub user_stack: StackId,
    /// The thread's name.
    pub comm: [u8; COMM_LEN],
}

/// See the head of this file.
pub struct Origins {
    made: HashMap<MapData, u64, u64>,
    tells_of: [bool; 2],
}

impl Origins {
    pub(super) fn new(made: Map) -> Result<Self> {
        Ok(Self { made: HashMap::try_from(made)?, tells_of: [false; 2] })
    }

    /// Begins to tell of threads, of descriptors: those of targets of which that is asked. Neither begins before, because other
    /// processes may be slowed down a little as well.
    pub(super) fn start(&mut self, ebpf: &mut Ebpf, threads: bool, descriptors: bool) -> Result<()> {
        let [tells_of_threads, tells_of_descriptors] = &mut self.tells_of;
        if threads && !*tells_of_threads {
            attach(ebpf, "on_thread", "sched_process_fork")?;
            *tells_of_threads = true;
        }
        if descriptors && !*tells_of_descriptors {
            match trace(ebpf) {
                Ok(()) => tracing::debug!("descriptors are seen where they are installed"),
                Err(error) => {
                    tracing::debug!("descriptors are seen at the end of system calls: {error:#}");
                    attach(ebpf, "on_descriptor_call", "sys_exit")?;
                }
            }
            *tells_of_descriptors = true;
        }
        Ok(())
    }

    /// True if a process has made nothing else of this number since then, as far as is known.
    pub fn is_latest(&self, pid: u32, how: How, number: u32, time_ns: u64) -> bool {
        let how = if how.is_thread() { made_by::THREAD } else { made_by::OPEN };
        self.made.get(&made_key(pid, how, number), 0).is_ok_and(|made_ns| made_ns == time_ns)
    }
}

fn attach(ebpf: &mut Ebpf, name: &str, tracepoint: &str) -> Result<()> {
    let program = ebpf.program_mut(name).with_context(|| format!("no program {name}"))?;
    let program: &mut BtfTracePoint = program.try_into()?;
    let failed = |error| permission(&format!("load the program for {tracepoint}"), error);
    program.load(tracepoint, &Btf::from_sys_fs().context("cannot read the kernel's BTF")?).map_err(failed)?;
    program.attach().map_err(|error| permission(&format!("attach to {tracepoint}"), error))?;
    Ok(())
}

/// Where descriptors are installed; fails where the kernel lets no functions be traced.
fn trace(ebpf: &mut Ebpf) -> Result<()> {
    let btf = Btf::from_sys_fs().context("cannot read the kernel's BTF")?;
    // All are loaded before one is attached, and that which tells comes last: without the others it might tell of what has
    // given way.
    let programs = [("on_dup3", "__x64_sys_dup3"), ("on_dup2", "__x64_sys_dup2"), ("on_descriptor", "fd_install")];
    for (name, function) in programs {
        let program = ebpf.program_mut(name).with_context(|| format!("no program {name}"))?;
        let program: &mut FEntry = program.try_into()?;
        program.load(function, &btf).with_context(|| format!("cannot load the program for {function}"))?;
    }
    for (name, function) in programs {
        let program = ebpf.program_mut(name).with_context(|| format!("no program {name}"))?;
        let program: &mut FEntry = program.try_into()?;
        program.attach().with_context(|| format!("cannot attach to {function}"))?;
    }
    Ok(())
}
