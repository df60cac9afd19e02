//! Waits: the programs that follow threads off their CPUs and back, and the table in which they add them up.

use anyhow::{Context, Result};
use aya::Ebpf;
use aya::maps::{HashMap, Map, MapData, MapError};
use aya::programs::BtfTracePoint;
use aya::programs::tp_btf::BtfTracePointLinkId;
use probe_ebpf::abi::{
    COMM_LEN, PLACES_PER_SET, PLACES_PER_THREAD, Place, PlaceSet, SETS_PER_THREAD, SetKey, StackId, Wait,
    WaitingThread, Waker, WokenThread,
};

use super::attach;
use super::boundary::OfKernel;
use super::event::RawWait;
use crate::target::ThreadState;

/// Which waits are reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitFilter {
    /// Shorter ones are left out, in nanoseconds.
    pub min_ns: u64,
    /// Longer ones are left out, in nanoseconds.
    pub max_ns: u64,
    /// Each is reported by itself, with its time; otherwise those of one second are added up.
    pub each: bool,
}

impl Default for WaitFilter {
    fn default() -> Self {
        Self { min_ns: 0, max_ns: u64::MAX, each: false }
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
    threads: HashMap<MapData, u32, OfKernel<WaitingThread>>,
    sets: HashMap<MapData, OfKernel<SetKey>, OfKernel<PlaceSet>>,
    woken: HashMap<MapData, u32, OfKernel<WokenThread>>,
    link: Option<BtfTracePointLinkId>,
}

/// Fails if the entry is there.
const BPF_NOEXIST: u64 = 1;

impl Waits {
    pub(super) fn new(threads: Map, sets: Map, woken: Map) -> Result<Self> {
        Ok(Self {
            threads: HashMap::try_from(threads)?,
            sets: HashMap::try_from(sets)?,
            woken: HashMap::try_from(woken)?,
            link: None,
        })
    }

    /// Follows every target's threads from now on; `wakers` also asks who wakes them.
    pub(super) fn start(&mut self, ebpf: &mut Ebpf, wakers: bool) -> Result<()> {
        let types = attach::types()?;
        if wakers {
            attach::tracepoint(ebpf, &types, "on_waking", "sched_waking")?;
        }
        self.link = Some(attach::tracepoint(ebpf, &types, "on_switch", "sched_switch")?);
        Ok(())
    }

    /// Follows no thread any more.
    pub(super) fn stop(&mut self, ebpf: &mut Ebpf) -> Result<()> {
        let Some(link) = self.link.take() else { return Ok(()) };
        let program: &mut BtfTracePoint = ebpf.program_mut("on_switch").context("no program on_switch")?.try_into()?;
        Ok(program.detach(link)?)
    }

    /// Tells of a wait that began before they were followed, unless the thread has been seen to wait since.
    pub(super) fn insert(&mut self, wait: &OpenWait) -> Result<()> {
        let OpenWait { pid, tid, since_ns, state, user_stack, kernel_stack, comm } = *wait;
        let mut places = [Place::NONE; PLACES_PER_THREAD];
        places[0].user_stack = user_stack;
        places[0].kernel_stack = kernel_stack;
        places[0].sum.state = state;
        let thread = WaitingThread {
            since_ns,
            handed_over_ns: since_ns,
            targets_generation: 0,
            goroutine: 0,
            tgid: pid,
            epoch: 0,
            place: 0,
            sets: 0,
            is_woken: 0,
            has_wakers: 0,
            waker: Waker::default(),
            comm,
            places,
        };
        match self.threads.insert(tid, OfKernel(thread), BPF_NOEXIST) {
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
            inserted => inserted.context("cannot tell the kernel who waits"),
        }
    }

    /// Waits that have not ended, while they are followed.
    pub(super) fn open(&self) -> Result<Vec<OpenWait>> {
        let mut open = Vec::new();
        if self.link.is_none() {
            return Ok(open);
        }
        for tid in self.tids()? {
            // It may have exited.
            let Ok(OfKernel(thread)) = self.threads.get(&tid, 0) else { continue };
            open.extend(open_wait(tid, &thread, &self.places(tid, &thread)));
        }
        Ok(open)
    }

    /// What has not been handed over: waits that have ended, then those that have not. To be called when nothing is
    /// followed any more, once.
    pub(super) fn drain(&mut self) -> Result<(Vec<RawWait>, Vec<OpenWait>)> {
        let (mut ended, mut open) = (Vec::new(), Vec::new());
        for tid in self.tids()? {
            let Ok(OfKernel(thread)) = self.threads.get(&tid, 0) else { continue };
            let all = self.places(tid, &thread);
            let WaitingThread { tgid: pid, sets, has_wakers, comm, .. } = thread;
            for set in sets_of(sets) {
                let _ = self.sets.remove(&OfKernel(SetKey { tid, set }));
            }
            let mut waits: Vec<Wait> = all.iter().map(wait_at).collect();
            if has_wakers != 0 {
                waits.extend(self.woken.get(&tid, 0).map_or(Vec::new(), |OfKernel(woken)| woken.waits.to_vec()));
                let _ = self.woken.remove(&tid);
            }
            let is_new = |wait: &&Wait| wait.sum.count > 0;
            ended.extend(waits.iter().filter(is_new).map(|wait| RawWait::new(tid, pid, wait, comm)));
            open.extend(open_wait(tid, &thread, &all));
            let _ = self.threads.remove(&tid);
        }
        Ok((ended, open))
    }

    fn tids(&self) -> Result<Vec<u32>> {
        self.threads.keys().collect::<Result<_, _>>().context("cannot list who waits")
    }

    /// All places where a thread has waited, by their numbers.
    fn places(&self, tid: u32, thread: &WaitingThread) -> Vec<Place> {
        let mut all = thread.places.to_vec();
        for set in sets_of(thread.sets) {
            let none = PlaceSet { places: [Place::NONE; PLACES_PER_SET] };
            all.resize(PLACES_PER_THREAD + set as usize * PLACES_PER_SET, Place::NONE);
            all.extend(self.sets.get(&OfKernel(SetKey { tid, set }), 0).unwrap_or(OfKernel(none)).0.places);
        }
        all
    }
}

fn sets_of(sets: u32) -> impl Iterator<Item = u32> {
    (0..SETS_PER_THREAD as u32).filter(move |set| sets >> set & 1 != 0)
}

/// The wait in which a thread is, if it is in one.
fn open_wait(tid: u32, thread: &WaitingThread, places: &[Place]) -> Option<OpenWait> {
    let WaitingThread { since_ns, tgid: pid, place, comm, .. } = *thread;
    let Place { user_stack, kernel_stack, sum, .. } = *places.get(place as usize).filter(|_| since_ns > 0)?;
    Some(OpenWait { pid, tid, since_ns, state: sum.state, user_stack, kernel_stack, comm })
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
            goroutine: 0,
            user_stack,
            kernel_stack,
            waker: None,
            comm,
        }
    }
}

/// Waits that nobody is known to have ended.
fn wait_at(place: &Place) -> Wait {
    let Place { user_stack, kernel_stack, sum, memo: _ } = *place;
    Wait { user_stack, kernel_stack, waker: Waker::default(), sum }
}
