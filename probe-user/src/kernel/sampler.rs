//! `Sampler`: the loaded programs, their settings, and the stream of events they produce.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use anyhow::{Context, Result};
use aya::maps::{Array, HashMap, MapData, PerCpuArray, RingBuf};
use aya::programs::perf_event::{HardwareEvent, PerfEventConfig, PerfEventScope, SamplePolicy, SoftwareEvent};
use aya::programs::{BtfTracePoint, PerfEvent};
use aya::{Ebpf, EbpfLoader, Pod};
use probe_ebpf::abi::{Counter, Settings, StackId, Target, generation};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::btf::Btf;
use super::calls::Calls;
use super::dump::{Dumper, RawThread, Whom};
use super::event::RawWait;
use super::heap::{HeapOptions, Heaps};
use super::hits::Hits;
use super::mappings::MappingEvents;
use super::memory::Memory;
use super::tables::{MappingTable, UnwindTables};
use super::uprobes::{Probes, Uprobes, Wanted};
use super::waits::{OpenWait, WaitFilter, Waits};
use super::{Event, offsets};
use crate::problem::{Exit, Problem};
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
    /// Sample every process, not only the watched ones.
    pub all: bool,
    /// Report exec, fork and exit of every process, not only of watched ones.
    pub all_lifecycle: bool,
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
    mapping_table: MappingTable,
    unwind_tables: UnwindTables,
    waits: Waits,
    dumper: Dumper,
    generations: Array<MapData, u64>,
    calls: Calls,
    uprobes: Uprobes,
    hits: Hits,
    memory: Memory,
    heaps: Heaps,
}

#[derive(Clone, Copy)]
#[repr(transparent)]
struct PodSettings(Settings);

// SAFETY: integers only and no implicit padding, which `probe_ebpf::abi` asserts.
#[expect(unsafe_code, reason = "the kernel boundary")]
unsafe impl Pod for PodSettings {}

impl Sampler {
    /// Loads the programs and attaches those that follow processes. Sampling begins with [`Self::start`].
    pub fn load(options: &Options) -> Result<Self> {
        let btf = Btf::of_kernel().map_err(|error| {
            let hint = "probe needs a kernel of 6.1 or later with CONFIG_DEBUG_INFO_BTF; `probe check` tells more";
            Problem::new(Exit::NotPermitted, format!("{error:#}"), hint)
        })?;
        let settings = PodSettings(Settings {
            all: options.all.into(),
            all_lifecycle: options.all_lifecycle.into(),
            user_stacks: options.user_stacks.into(),
            kernel_stacks: options.kernel_stacks.into(),
            min_wait_ns: options.waits.min_ns,
            max_wait_ns: options.waits.max_ns,
            each_wait: options.waits.each.into(),
            fault_gap_ns: 1_000_000_000u64.checked_div(options.faults).unwrap_or(0),
            follow_live: options.heap.live.into(),
            padding: 0,
            offsets: offsets::look_up(&btf)?,
        });
        drop(btf);
        let log_level = if tracing::enabled!(tracing::Level::TRACE) { u8::MAX } else { 0 };
        let mut ebpf = EbpfLoader::new()
            .override_global("SETTINGS", &settings, true)
            .override_global(aya_log::LEVEL, &log_level, false)
            .map_max_entries("FIGURES", options.functions.max(1))
            .map_max_entries("JUDGEMENTS", options.functions.max(1))
            .map_max_entries("SPAN_KEYS", options.functions.max(1))
            .map_max_entries("HITS", options.functions.max(1))
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
            counters: PerCpuArray::try_from(take("COUNTERS")?)?,
            mapping_table: MappingTable::new(take("MAPPINGS")?)?,
            unwind_tables: UnwindTables::new(take("TABLES")?)?,
            waits: Waits::new(take("WAITING")?, take("PLACES")?, take("WOKEN")?)?,
            generations: Array::try_from(take("GENERATIONS")?)?,
            calls,
            memory: Memory::new(take("BREAKS")?)?,
            heaps: Heaps::new(take("HEAP_COSTS")?, take("HEAP_MEANS")?, take("PENDING")?, take("LIVE")?)?,
            dumper: Dumper::new(Array::try_from(take("DUMP")?)?),
            hits: Hits::new(take("HITS")?)?,
            uprobes,
            mappings,
            ebpf,
        })
    }

    /// Begins to sample on every CPU; says what makes the samples.
    pub fn start(&mut self, frequency: u64) -> Result<Clock> {
        let program: &mut PerfEvent = self.ebpf.program_mut("sample").context("no program `sample`")?.try_into()?;
        program.load().map_err(|error| permission("load the sampler", error))?;
        let cpus = aya::util::online_cpus().map_err(|(_, error)| error).context("cannot list the CPUs")?;
        let hardware = PerfEventConfig::Hardware(HardwareEvent::CpuCycles);
        // A fixed period keeps the timer exact; the frequency mode of a timer only adds jitter.
        let timer =
            (PerfEventConfig::Software(SoftwareEvent::CpuClock), SamplePolicy::Period(1_000_000_000 / frequency));
        let mut choice = (Clock::CpuCycles, hardware, SamplePolicy::Frequency(frequency));
        for (index, &cpu) in cpus.iter().enumerate() {
            let scope = PerfEventScope::AllProcessesOneCpu { cpu };
            let attached = program.attach(choice.1, scope, choice.2, false);
            if index == 0 && attached.is_err() {
                // Virtual machines often have no hardware counter.
                choice = (Clock::CpuClock, timer.0, timer.1);
                program.attach(choice.1, scope, choice.2, false)
            } else {
                attached
            }
            .map_err(|error| permission(&format!("open a perf event on CPU {cpu}"), error))?;
        }
        tracing::debug!(clock = choice.0.name(), cpus = cpus.len(), frequency, "sampling");
        Ok(choice.0)
    }

    /// Begins to follow the waits of targets; `wakers` also asks who ends them.
    pub fn start_waits(&mut self, wakers: bool) -> Result<()> {
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

    /// Ends following waits. Returns what was not handed over yet: those that have ended, and those that have not.
    pub fn stop_waits(&mut self) -> Result<(Vec<RawWait>, Vec<OpenWait>)> {
        self.waits.stop(&mut self.ebpf)?;
        self.waits.drain()
    }

    /// Every thread of a process now, or of all targets; `stacks` asks for those of the threads that do not run.
    pub fn dump(&mut self, whom: Whom, stacks: bool) -> Result<Vec<RawThread>> {
        self.dumper.dump(&mut self.ebpf, whom, stacks)
    }

    /// Hits of probes since they were first set, by the number of what is timed.
    pub fn hits(&mut self) -> Result<Vec<u64>> {
        self.hits.read()
    }

    /// What is known of the calls of timed functions.
    pub fn calls(&mut self) -> &mut Calls {
        &mut self.calls
    }

    /// Allocations.
    pub fn heaps(&mut self) -> &mut Heaps {
        &mut self.heaps
    }

    /// Sets probes in their order into a process, 0 for all.
    pub fn probe(&mut self, pid: u32, wanted: &[Wanted]) -> Result<Vec<Probes>> {
        self.uprobes.set(&mut self.ebpf, pid, wanted)
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
        // Where the epochs begin depends on the time, so that a process id that is used again does not meet the stacks
        // of its former owner.
        let target = Target { epoch: (monotonic_ns() >> 10) as u32, flags };
        self.memory.watch(pid);
        self.targets
            .insert(pid, [target.epoch, target.flags], 0)
            .with_context(|| format!("cannot watch pid {pid}: the table of targets is full"))?;
        self.next_generation(generation::TARGETS)
    }

    /// Lets a process go; one that is no target is no error.
    pub fn unwatch(&mut self, pid: u32) {
        let _ = self.targets.remove(&pid);
        // Without it, threads that wait would be followed on.
        if let Err(error) = self.next_generation(generation::TARGETS) {
            tracing::error!(%error, pid, "cannot tell the kernel that a process is let go");
        }
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

    /// Waits for process events, the timeout or `alarm` to become readable, then hands over all events that are there.
    /// Samples alone do not end the wait unless they fill a quarter of the buffer.
    pub fn read(&mut self, timeout: Duration, alarm: BorrowedFd<'_>, mut handle: impl FnMut(Event)) -> Result<()> {
        let timeout = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: i64::from(timeout.subsec_nanos()) };
        let fd = self.events.as_fd();
        match poll(&mut [PollFd::new(&fd, PollFlags::IN), PollFd::new(&alarm, PollFlags::IN)], Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("cannot wait for events"),
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
        self.mappings.read(&mut events);
        events.sort_by_key(|(time_ns, _)| *time_ns);
        events.into_iter().for_each(|(_, event)| handle(event));
        Ok(())
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

fn attach_process_events(ebpf: &mut Ebpf) -> Result<()> {
    let btf = aya::Btf::from_sys_fs().context("cannot read the kernel's BTF")?;
    for name in ["exec", "fork", "exit"] {
        let program = ebpf.program_mut(&format!("on_{name}")).with_context(|| format!("no program on_{name}"))?;
        let program: &mut BtfTracePoint = program.try_into()?;
        let tracepoint = format!("sched_process_{name}");
        program.load(&tracepoint, &btf).map_err(|error| permission(&format!("load the program for {name}"), error))?;
        program.attach().map_err(|error| permission(&format!("attach to {tracepoint}"), error))?;
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
        let hint = "run as root, or give the binary CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH; \
                    `probe check` tells what is missing";
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
