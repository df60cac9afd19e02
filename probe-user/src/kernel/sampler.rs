//! `Sampler`: the loaded programs, their settings, and the stream of events they produce.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use aya::maps::{Array, HashMap, MapData, PerCpuArray, RingBuf};
use aya::{Ebpf, EbpfLoader};
use probe_ebpf::abi::{Counter, MAX_MADE, MAX_NEWCOMERS, Settings, StackId, Target, generation, target_flags};
use probe_ebpf::heap::MAX_LIVE;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::attach;
use super::boundary::OfKernel;
use super::btf::Btf;
use super::calls::Calls;
use super::dump::{Dumper, RawThread, Whom};
use super::event::RawWait;
use super::heap::{HeapOptions, Heaps, Layouts};
use super::hits::{self, Hits};
use super::host::{self, Host};
use super::mappings::MappingEvents;
use super::memory::Memory;
use super::newcomers::{Newcomer, Newcomers};
use super::origins::Origins;
use super::pace::Pace;
use super::prober::Prober;
use super::tables::{MappingTable, UnwindTables};
use super::uprobes::{Probes, Uprobes, Wanted};
use super::waits::{OpenWait, WaitFilter, Waits};
use super::{Event, offsets};
use crate::problem::{Exit, PARANOID, PRIVILEGES, Problem};
use crate::target::monotonic_ns;

/// The kernel programs, built by `cargo xtask ebpf`.
static OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/../probe-ebpf/dist/probe.bpf.o"));

/// Events that are put in order at once; the rest is read next. The ring holds fewer samples than that.
const MAX_EVENTS: usize = 64 * 1024;

/// What the programs shall do; fixed once they are loaded.
#[derive(Clone, Debug)]
pub struct Options {
    /// Samples per second and CPU.
    pub frequency: u64,
    /// The same of targets that are looked at closely; 0 where none will be.
    pub fast_frequency: u64,
    /// Sample every process, not only the watched ones.
    pub all: bool,
    /// Tell of processes that may have to be watched: they have replaced their program, or are children of a target without
    /// [`target_flags::INHERIT`]. In a flood see [`Sampler::take_newcomers`].
    pub newcomers: bool,
    /// Take user stacks.
    pub user_stacks: bool,
    /// Take kernel stacks.
    pub kernel_stacks: bool,
    /// Which waits are reported.
    pub waits: WaitFilter,
    /// Page faults a second and CPU that are looked at, on average; 0 where memory is not followed.
    pub faults: u64,
    /// How many functions can be timed.
    pub functions: u32,
    /// How allocations are sampled.
    pub heap: HeapOptions,
    /// It may be asked who opens descriptors and starts threads.
    pub origins: bool,
}

/// What makes a CPU sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// The hardware cycle counter: samples where interrupts are disabled, too.
    CpuCycles,
    /// A timer, where there is no hardware counter.
    CpuClock,
}

impl Clock {
    /// The event's name as perf spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::CpuCycles => "cpu-cycles",
            Self::CpuClock => "cpu-clock",
        }
    }
}

/// The programs in the kernel. Dropping it detaches all of them.
pub struct Sampler {
    ebpf: Ebpf,
    events: RingBuf<MapData>,
    targets: HashMap<MapData, u32, [u32; 2]>,
    seen: HashMap<MapData, [u64; 2], u8>,
    counters: PerCpuArray<MapData, u64>,
    mappings: MappingEvents,
    newcomers: Newcomers,
    /// The targets, where nothing becomes one without being asked for; `None` where children of targets are followed.
    watched: Option<BTreeSet<u32>>,
    mapping_table: MappingTable,
    unwind_tables: UnwindTables,
    waits: Waits,
    dumper: Dumper,
    generations: Array<MapData, u64>,
    calls: Calls,
    uprobes: Uprobes,
    hits: Hits,
    memory: Memory,
    origins: Origins,
    heaps: Heaps,
    layouts: Arc<Mutex<Layouts>>,
    pace: Pace,
}

impl Sampler {
    /// Loads the programs and attaches those that follow processes. Sampling begins with [`Self::start`].
    pub fn load(options: &Options) -> Result<Self> {
        host::deadlock::refuse()?;
        let btf = Btf::of_kernel().map_err(|error| {
            let hint = "probe needs a kernel of 6.1 or later with CONFIG_DEBUG_INFO_BTF; `probe check` tells more";
            Problem::new(Exit::NotPermitted, format!("{error:#}"), hint)
        })?;
        let hits_per_cpu = hits::per_cpu(options.functions);
        let settings = OfKernel(Settings {
            all: options.all.into(),
            newcomers: options.newcomers.into(),
            user_stacks: options.user_stacks.into(),
            kernel_stacks: options.kernel_stacks.into(),
            min_wait_ns: options.waits.min_ns,
            max_wait_ns: options.waits.max_ns,
            each_wait: options.waits.each.into(),
            fault_gap_ns: 1_000_000_000u64.checked_div(options.faults).unwrap_or(0),
            follow_live: options.heap.live.into(),
            hits_per_cpu,
            offsets: offsets::look_up(&btf)?,
        });
        drop(btf);
        let log_level = if tracing::enabled!(tracing::Level::TRACE) { u8::MAX } else { 0 };
        let mut ebpf = EbpfLoader::new()
            .override_global("SETTINGS", &settings, true)
            .override_global(aya_log::LEVEL, &log_level, false)
            .map_max_entries("FIGURES", options.functions.max(1))
            .map_max_entries("JUDGEMENTS", options.functions.max(1))
            .map_max_entries("SINCE", options.functions.max(1))
            .map_max_entries("SPAN_KEYS", options.functions.max(1))
            .map_max_entries("HITS", hits::entries(hits_per_cpu)?)
            .map_max_entries("NEWCOMERS", if options.newcomers { MAX_NEWCOMERS } else { 1 })
            .map_max_entries("MADE", if options.origins { MAX_MADE } else { LEAST_MADE })
            .map_max_entries("LIVE", if options.heap.live { MAX_LIVE } else { 1 })
            .load(OBJECT)
            .map_err(|error| permission("load the kernel programs", error))?;
        if log_level > 0 {
            log_in_background(&mut ebpf);
        }
        attach_process_events(&mut ebpf)?;
        let mappings = MappingEvents::open().map_err(|error| permission("open perf events for mappings", error))?;
        let uprobes = Uprobes::new(OBJECT, &ebpf);
        let calls = Calls::new(&mut ebpf)?;
        let mut take = |name| ebpf.take_map(name).with_context(|| format!("the kernel object has no map {name}"));
        Ok(Self {
            events: RingBuf::try_from(take("EVENTS")?)?,
            targets: HashMap::try_from(take("TARGETS")?)?,
            seen: HashMap::try_from(take("SEEN")?)?,
            watched: options.newcomers.then(BTreeSet::new),
            newcomers: Newcomers::new(take("NEWCOMERS")?)?,
            counters: PerCpuArray::try_from(take("COUNTERS")?)?,
            mapping_table: MappingTable::new(take("MAPPINGS")?, take("FILES")?)?,
            unwind_tables: UnwindTables::new(take("TABLES")?)?,
            waits: Waits::new(take("WAITING")?, take("PLACES")?, take("WOKEN")?)?,
            generations: Array::try_from(take("GENERATIONS")?)?,
            calls,
            memory: Memory::new(take("BREAKS")?)?,
            origins: Origins::new(take("MADE")?)?,
            layouts: Arc::new(Mutex::new(Layouts::new(take("LAYOUTS")?)?)),
            heaps: Heaps::new(take("HEAP_COSTS")?, take("HEAP_MEANS")?, take("PENDING")?, take("LIVE")?)?,
            pace: Pace::new(options.fast_frequency, Array::try_from(take("PERIODS")?)?),
            dumper: Dumper::new(Array::try_from(take("DUMP")?)?),
            hits: Hits::new(take("HITS")?, hits_per_cpu)?,
            uprobes,
            mappings,
            ebpf,
        })
    }

    /// Begins to sample on every CPU; says what makes the samples.
    pub fn start(&mut self, frequency: u64) -> Result<Clock> {
        self.pace.start(&mut self.ebpf, frequency)
    }

    /// Samples at another rate than that of [`Self::start`] from now on.
    pub fn set_frequency(&mut self, frequency: u64) -> Result<()> {
        self.pace.change(&mut self.ebpf, frequency)
    }

    /// The same of the targets of [`Self::set_fast`].
    pub fn set_fast_frequency(&mut self, frequency: u64) -> Result<()> {
        self.pace.change_fast(&mut self.ebpf, frequency)
    }

    /// To be called once a second, so that no program stays in step with the samples.
    pub fn vary_periods(&mut self, now_ns: u64) -> Result<()> {
        self.pace.vary(&mut self.ebpf, now_ns)
    }

    /// Samples a target at the fast rate, at first [`Options::fast_frequency`], from now on, or at the usual rate again. One that is none is left alone.
    pub fn set_fast(&mut self, pid: u32, is_fast: bool) -> Result<()> {
        if is_fast == self.pace.is_fast(pid) {
            return Ok(());
        }
        // First, so that there is no time without samples; and last when it is over.
        if is_fast {
            self.pace.set(&mut self.ebpf, pid, true)?;
        }
        if let Ok([_, flags]) = self.targets.get(&pid, 0) {
            let flags = if is_fast { flags | target_flags::FAST } else { flags & !target_flags::FAST };
            // It may have gone meanwhile, and is not to come back.
            let _ = self.targets.insert(pid, [epoch(), flags], BPF_EXIST);
        }
        if is_fast { Ok(()) } else { self.pace.set(&mut self.ebpf, pid, false) }
    }

    /// Follows the waits of a target from now on as these [`super::target_flags`] say.
    pub fn set_waits(&mut self, pid: u32, waits: u32) -> Result<()> {
        if let Ok([_, flags]) = self.targets.get(&pid, 0) {
            // As above.
            let _ = self.targets.insert(pid, [epoch(), flags & !OF_WAITS | waits & OF_WAITS], BPF_EXIST);
        }
        self.next_generation(generation::TARGETS)
    }

    /// Asks of a target who starts its threads and who opens its descriptors, from now on, or no longer.
    pub fn set_origins(&mut self, pid: u32, threads: bool, descriptors: bool) -> Result<()> {
        self.origins.start(&mut self.ebpf, threads, descriptors)?;
        let wanted = [(threads, target_flags::THREADS), (descriptors, target_flags::DESCRIPTORS)];
        let wanted = wanted.iter().filter(|(is_wanted, _)| *is_wanted).fold(0, |all, (_, flag)| all | flag);
        if let Ok([_, flags]) = self.targets.get(&pid, 0)
            && flags & OF_ORIGINS != wanted
        {
            // As above.
            let _ = self.targets.insert(pid, [epoch(), flags & !OF_ORIGINS | wanted], BPF_EXIST);
        }
        Ok(())
    }

    /// What is known of descriptors and threads.
    pub fn origins(&self) -> &Origins {
        &self.origins
    }

    /// Whether the waits of a target in this state (`task_struct.__state`) are followed.
    pub fn follows_waits(&self, pid: u32, state: u32) -> bool {
        self.targets.get(&pid, 0).is_ok_and(|[_, flags]| {
            let is_meant = flags & target_flags::BLOCKED_WAITS == 0 || state & TASK_UNINTERRUPTIBLE != 0;
            is_meant && flags & target_flags::NO_WAITS == 0
        })
    }

    /// Begins to follow the waits of targets; `wakers` also asks who ends them.
    pub fn start_waits(&mut self, wakers: bool) -> Result<()> {
        // Those that wait already are asked for as soon as this has begun.
        self.dumper.load(&mut self.ebpf)?;
        self.waits.start(&mut self.ebpf, wakers)
    }

    /// Begins to tell where targets' memory becomes resident, and with `mappings` where it is mapped and unmapped.
    pub fn start_memory(&mut self, mappings: bool) -> Result<()> {
        self.memory.start(&mut self.ebpf, mappings)
    }

    /// Tells of a wait that began before they were followed.
    pub fn insert_wait(&mut self, wait: &OpenWait) -> Result<()> {
        self.waits.insert(wait)
    }

    /// Waits that have not ended, while they are followed.
    pub fn open_waits(&self) -> Result<Vec<OpenWait>> {
        self.waits.open()
    }

    /// Ends following waits. Returns what was not handed over yet: those that have ended, and those that have not.
    pub fn stop_waits(&mut self) -> Result<(Vec<RawWait>, Vec<OpenWait>)> {
        self.waits.stop(&mut self.ebpf)?;
        self.waits.drain()
    }

    /// Every thread of a process now, or of all targets; `stacks` asks for those of the threads that do not run.
    pub fn dump(&mut self, whom: Whom, stacks: bool) -> Result<Vec<RawThread>> {
        self.dumper.dump(&mut self.ebpf, whom, stacks)
    }

    /// Hits of probes since they were first set, by the number of what is timed. Without a system call.
    pub fn hits(&self) -> Vec<u64> {
        let mut hits = Vec::new();
        self.read_hits(&mut hits);
        hits
    }

    /// The same, in the place of what was there.
    pub fn read_hits(&self, hits: &mut Vec<u64>) {
        self.hits.read(hits);
    }

    /// What is known of the calls of timed functions.
    pub fn calls(&mut self) -> &mut Calls {
        &mut self.calls
    }

    /// Allocations.
    pub fn heaps(&mut self) -> &mut Heaps {
        &mut self.heaps
    }

    /// Sampled allocations that could not be followed because the table was full, since start.
    pub fn heaps_refused(&self) -> Result<u64> {
        Ok(self.counters.get(&(Counter::LiveFull as u32), 0)?.iter().sum())
    }

    /// Sets probes in their order into a process. Fails with [`super::Refused`] where it runs something else than its file has.
    pub fn probe(&mut self, pid: u32, wanted: &[Wanted]) -> Result<Vec<Probes>> {
        self.uprobes.set(&mut self.ebpf, pid, wanted)
    }

    /// Whether one system call sets many probes (Linux 6.6).
    pub fn sets_many_at_once(&self) -> bool {
        self.uprobes.multi().is_some()
    }

    /// What sets probes on another thread, as it is done from now on.
    pub fn prober(&self) -> Prober {
        Prober { multi: self.uprobes.multi(), elsewhere: self.uprobes.elsewhere(), layouts: self.layouts.clone() }
    }

    /// Takes probes away that children of a process have inherited. To be dropped where nobody waits.
    pub fn sweep(&mut self, pid: u32, wanted: &[Wanted]) -> Vec<Probes> {
        self.uprobes.sweep(pid, wanted)
    }

    /// From now on sets probes one by one, as old kernels do; false if it does already.
    pub fn probe_one_by_one(&mut self) -> bool {
        self.uprobes.one_by_one()
    }

    /// Makes a process a target, or changes its [`super::target_flags`].
    pub fn watch(&mut self, pid: u32, flags: u32) -> Result<()> {
        let flags = if self.pace.is_fast(pid) { flags | target_flags::FAST } else { flags };
        let target = Target { epoch: epoch(), flags };
        self.memory.watch(pid);
        if let Some(watched) = &mut self.watched {
            watched.insert(pid);
        }
        self.targets
            .insert(pid, [target.epoch, target.flags], 0)
            .with_context(|| format!("cannot watch pid {pid}: the table of targets is full"))?;
        self.next_generation(generation::TARGETS)
    }

    /// Lets a process go; one that is no target is no error.
    pub fn unwatch(&mut self, pid: u32) {
        let _ = self.targets.remove(&pid);
        if let Some(watched) = &mut self.watched {
            watched.remove(&pid);
        }
        if self.pace.is_fast(pid)
            && let Err(error) = self.pace.set(&mut self.ebpf, pid, false)
        {
            tracing::error!(error = format!("{error:#}"), pid, "the fast sampler cannot be ended");
        }
        // Without it, threads that wait would be followed on.
        if let Err(error) = self.next_generation(generation::TARGETS) {
            tracing::error!(%error, pid, "cannot tell the kernel that a process is let go");
        }
    }

    /// The newcomers that were too many to tell of each, and have stayed for `age`.
    pub fn take_newcomers(&mut self, age: Duration) -> Result<Vec<Newcomer>> {
        self.newcomers.take(age)
    }

    /// The mappings by which processes are unwound.
    pub fn mapping_table(&mut self) -> &mut MappingTable {
        &mut self.mapping_table
    }

    /// The tables by which code is unwound.
    pub fn unwind_tables(&self) -> &UnwindTables {
        &self.unwind_tables
    }

    /// Has every stack unwound again: what was remembered of them may mean something else by now, or is forgotten here.
    pub fn unwind_again(&mut self) -> Result<()> {
        self.next_generation(generation::STACKS)
    }

    fn next_generation(&mut self, index: u32) -> Result<()> {
        let number = self.generations.get(&index, 0)?;
        Ok(self.generations.set(index, number + 1, 0)?)
    }

    /// Makes the kernel send these stacks again when it sees them next, after [`Self::unwind_again`].
    pub fn forget_stack(&mut self, id: StackId) {
        let _ = self.seen.remove(&[id.lo, id.hi]);
    }

    /// Waits for process events, new mappings, the timeout or `alarm` to become readable, then hands over all events that are
    /// there. Samples alone do not end the wait unless they fill a quarter of the buffer.
    pub fn read(&mut self, timeout: Duration, alarm: BorrowedFd<'_>, mut handle: impl FnMut(Event)) -> Result<()> {
        let timeout = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: i64::from(timeout.subsec_nanos()) };
        let (fd, now_ns) = (self.events.as_fd(), monotonic_ns());
        let mapped = self.mappings.alarm(now_ns);
        let mut fds = vec![PollFd::new(&fd, PollFlags::IN), PollFd::new(&alarm, PollFlags::IN)];
        fds.extend(mapped.as_ref().map(|mapped| PollFd::new(mapped, PollFlags::IN)));
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("cannot wait for events"),
        }
        if fds.get(2).is_some_and(|mapped| !mapped.revents().is_empty()) {
            self.mappings.has_woken(now_ns);
        }
        // Everything that is in the ring now was preceded by the mappings that are in the other buffers after that.
        let mut events = Vec::new();
        while let Some(item) = self.events.next() {
            match Event::decode(&item) {
                Some(event) => events.push(event),
                None => tracing::error!(bytes = item.len(), "a record of the ring buffer is not understood"),
            }
            if events.len() >= MAX_EVENTS {
                break;
            }
        }
        let watched = &self.watched;
        self.mappings.read(|pid| watched.as_ref().is_none_or(|watched| watched.contains(&pid)), &mut events);
        events.sort_by_key(|(time_ns, _)| *time_ns);
        events.into_iter().for_each(|(_, event)| handle(event));
        Ok(())
    }

    /// Mappings and execs of any process that were lost since start.
    pub fn mappings_lost(&self) -> u64 {
        self.mappings.lost()
    }

    /// What was read last was worth being woken for.
    pub fn has_helped(&mut self) {
        self.mappings.has_helped();
    }

    /// Samples taken since start, and what was lost by reason.
    pub fn counters(&self) -> Result<(u64, BTreeMap<&'static str, u64>)> {
        let mut losses = BTreeMap::new();
        if self.mappings.lost() > 0 {
            losses.insert("mappings and execs lost: buffer full", self.mappings.lost());
        }
        let mut samples = 0;
        for (counter, loss) in Counter::ALL {
            let total = self.counters.get(&(counter as u32), 0)?.iter().sum();
            match loss {
                None if counter == Counter::Samples => samples = total,
                None => {}
                Some(reason) if total > 0 => drop(losses.insert(reason, total)),
                Some(_) => {}
            }
        }
        Ok((samples, losses))
    }
}

/// The flag of a map's update for what is there already (include/uapi/linux/bpf.h).
const BPF_EXIST: u64 = 2;

/// What nothing may interrupt (include/linux/sched.h).
const TASK_UNINTERRUPTIBLE: u32 = 2;

/// What says how far the waits of a target are followed.
const OF_WAITS: u32 = target_flags::NO_WAITS | target_flags::BLOCKED_WAITS;

/// What says of which of a target's makings it is told.
const OF_ORIGINS: u32 = target_flags::THREADS | target_flags::DESCRIPTORS;

/// The table of what was made where nobody asks.
const LEAST_MADE: u32 = 64;

/// Where the epochs of a target begin depends on the time, so that a process id that is used again does not meet the stacks
/// of its former owner.
fn epoch() -> u32 {
    (monotonic_ns() >> 10) as u32
}

fn attach_process_events(ebpf: &mut Ebpf) -> Result<()> {
    let types = attach::types()?;
    for name in ["exec", "fork", "exit"] {
        attach::tracepoint(ebpf, &types, &format!("on_{name}"), &format!("sched_process_{name}"))?;
    }
    Ok(())
}

/// An error of the kernel boundary, with what to do if it is one of privileges.
pub(super) fn permission(what: &str, error: impl std::error::Error + Send + Sync + 'static) -> anyhow::Error {
    let error = anyhow::Error::new(error);
    let denied = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>()).any(|cause| {
        matches!(cause.kind(), std::io::ErrorKind::PermissionDenied) || cause.raw_os_error() == Some(libc::EPERM)
    });
    let message = format!("cannot {what}: {error:#}");
    if denied {
        let hint = if Host::is_paranoid_now() { PARANOID } else { PRIVILEGES };
        Problem::new(Exit::NotPermitted, message, hint).into()
    } else {
        Problem::new(Exit::Failure, message, "`probe check` tells what this host allows").into()
    }
}

/// What the kernel programs log goes to our own log.
fn log_in_background(ebpf: &mut Ebpf) {
    let mut logger = match aya_log::EbpfLogger::init(ebpf) {
        Ok(logger) => logger,
        Err(error) => return tracing::warn!(%error, "the kernel programs cannot log"),
    };
    std::thread::spawn(move || {
        loop {
            logger.flush();
            std::thread::sleep(Duration::from_millis(100));
        }
    });
}
