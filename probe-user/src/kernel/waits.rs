//! Waits: the programs that follow threads off their CPUs and back, and the table in which they add them up.

use anyhow::{Context, Result};
use aya::maps::{HashMap, Map, MapData, MapError};
use aya::programs::BtfTracePoint;
use aya::programs::tp_btf::BtfTracePointLinkId;
use aya::{Ebpf, Pod};
use probe_ebpf::abi::{COMM_LEN, MEMOS_PER_THREAD, Memo, StackId, WAITS_PER_THREAD, Wait, WaitingThread, Waker};

use super::event::RawWait;
use super::sampler::permission;
use crate::target::ThreadState;

/// Which waits are reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitFilter {
    /// Shorter ones are left out, in nanoseconds.
    pub min_ns: u64,
    /// Longer ones are left out, in nanoseconds.
    pub max_ns: u64,
}

impl Default for WaitFilter {
    fn default() -> Self {
        Self { min_ns: 0, max_ns: u64::MAX }
    }
}

impl WaitFilter {
    /// True for a wait that is to be reported.
    pub fn admits(&self, waited_ns: u64) -> bool {
        (self.min_ns..=self.max_ns).contains(&waited_ns)
    }
}

/// A wait that has not ended.
#[derive(Clone, Copy, Debug)]
pub struct OpenWait {
    /// Process.
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// Since when, `CLOCK_MONOTONIC`, nanoseconds.
    pub since_ns: u64,
    /// `task_struct.__state`.
    pub state: u32,
    /// User stack.
    pub user_stack: StackId,
    /// Kernel stack.
    pub kernel_stack: StackId,
    /// The thread's name.
    pub comm: [u8; COMM_LEN],
}

/// The table of threads that wait or have waited.
pub struct Waits {
    threads: HashMap<MapData, u32, Thread>,
    link: Option<BtfTracePointLinkId>,
}

#[derive(Clone, Copy)]
#[repr(transparent)]
struct Thread(WaitingThread);

// SAFETY: integers only and no implicit padding, which `probe_ebpf::abi` asserts.
#[expect(unsafe_code, reason = "the kernel boundary")]
unsafe impl Pod for Thread {}

/// Fails if the entry is there.
const BPF_NOEXIST: u64 = 1;

impl Waits {
    pub(super) fn new(map: Map) -> Result<Self> {
        Ok(Self { threads: HashMap::try_from(map)?, link: None })
    }

    /// Follows every target's threads from now on; `wakers` also asks who wakes them.
    pub(super) fn start(&mut self, ebpf: &mut Ebpf, wakers: bool) -> Result<()> {
        let btf = aya::Btf::from_sys_fs().context("cannot read the kernel's BTF")?;
        if wakers {
            attach(ebpf, &btf, "on_waking", "sched_waking")?;
        }
        self.link = Some(attach(ebpf, &btf, "on_switch", "sched_switch")?);
        Ok(())
    }

    /// Follows no thread any more.
    pub(super) fn stop(&mut self, ebpf: &mut Ebpf) -> Result<()> {
        let Some(link) = self.link.take() else { return Ok(()) };
        Ok(program(ebpf, "on_switch")?.detach(link)?)
    }

    /// Tells of a wait that began before they were followed, unless the thread has been seen to wait since.
    pub(super) fn insert(&mut self, wait: &OpenWait) -> Result<()> {
        let OpenWait { pid, tid, since_ns, state, user_stack, kernel_stack, comm } = *wait;
        let waits = [Wait::default(); WAITS_PER_THREAD];
        let (waker, memos) = (Waker::default(), [Memo::default(); MEMOS_PER_THREAD]);
        let thread = WaitingThread { since_ns, tgid: pid, state, user_stack, kernel_stack, waker, comm, waits, memos };
        match self.threads.insert(tid, Thread(thread), BPF_NOEXIST) {
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
            inserted => inserted.context("cannot tell the kernel who waits"),
        }
    }

    /// What has not been handed over: waits that have ended, then those that have not. To be called when nothing is
    /// followed any more, once.
    pub(super) fn drain(&mut self) -> Result<(Vec<RawWait>, Vec<OpenWait>)> {
        let (mut ended, mut open) = (Vec::new(), Vec::new());
        let tids: Vec<u32> = self.threads.keys().collect::<Result<_, _>>().context("cannot list who waits")?;
        for tid in tids {
            // It may have exited.
            let Ok(Thread(thread)) = self.threads.get(&tid, 0) else { continue };
            let WaitingThread { since_ns, tgid: pid, state, user_stack, kernel_stack, comm, waits, .. } = thread;
            ended.extend(waits.iter().filter(|wait| wait.count > 0).map(|wait| RawWait::new(tid, pid, wait, comm)));
            if since_ns > 0 {
                open.push(OpenWait { pid, tid, since_ns, state, user_stack, kernel_stack, comm });
            }
            let _ = self.threads.remove(&tid);
        }
        Ok((ended, open))
    }
}

impl OpenWait {
    /// The part of it until `now_ns`.
    pub fn until(&self, now_ns: u64) -> RawWait {
        let Self { pid, tid, since_ns, state, user_stack, kernel_stack, comm } = *self;
        RawWait {
            time_ns: now_ns,
            pid,
            tid,
            state: ThreadState::waiting(state),
            count: 1,
            total_ns: now_ns.saturating_sub(since_ns),
            user_stack,
            kernel_stack,
            waker: None,
            comm,
        }
    }
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut BtfTracePoint> {
    Ok(ebpf.program_mut(name).with_context(|| format!("no program {name}"))?.try_into()?)
}

fn attach(ebpf: &mut Ebpf, btf: &aya::Btf, name: &str, tracepoint: &str) -> Result<BtfTracePointLinkId> {
    let program = program(ebpf, name)?;
    program.load(tracepoint, btf).map_err(|error| permission(&format!("load the program for {tracepoint}"), error))?;
    program.attach().map_err(|error| permission(&format!("attach to {tracepoint}"), error))
}
