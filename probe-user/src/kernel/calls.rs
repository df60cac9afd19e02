//! Timed functions: the probes at their entries and returns, and what the kernel programs make of them.

use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context, Result};
use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray};
use aya::programs::UProbe;
use aya::programs::uprobe::{UProbeAttachLocation, UProbeAttachPoint, UProbeLink, UProbeScope};
use aya::{Ebpf, Pod};
pub use probe_ebpf::abi::{Judgement, error_test};
use probe_ebpf::calls::{BUCKETS, Figures as RawFigures, ThreadCalls, middle, was_left};

use super::multi::Multi;
use super::sampler::permission;

/// The maps of timed functions.
pub struct Calls {
    figures: PerCpuArray<MapData, PodFigures>,
    judgements: Array<MapData, PodJudgement>,
    threads: HashMap<MapData, u32, PodThread>,
}

/// Where a probe stands in its function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// At its first instruction.
    Enter,
    /// At one of its return instructions.
    Leave,
    /// At whatever it returns to: the kernel replaces the return address on the stack, which unwinders of exceptions and
    /// runtimes that move stacks do not bear.
    Returned,
    /// At the first instruction of a function of an allocator.
    Allocate,
    /// As [`Self::Leave`], of such a function.
    AllocateLeave,
    /// At whatever such a function returns to: the kernel replaces the return address on the stack.
    AllocateReturned,
}

impl Role {
    fn program(self) -> &'static str {
        match self {
            Self::Enter => "enter",
            Self::Leave => "leave",
            Self::Returned => "returned",
            Self::Allocate => "allocate",
            Self::AllocateLeave => "allocate_leave",
            Self::AllocateReturned => "allocate_returned",
        }
    }
}

/// A probe in a process. Dropping it takes the kernel some 100 ms: not where anybody waits.
pub struct Probe(#[expect(dead_code, reason = "held for its drop")] Link);

enum Link {
    /// A perf event.
    Event(#[expect(dead_code, reason = "as above")] UProbeLink),
    /// One link for many.
    Multi(#[expect(dead_code, reason = "as above")] OwnedFd),
}

/// What is known of the calls of a function, since the probes were first there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    /// Calls whose beginning and end were seen.
    pub calls: u64,
    /// Calls that began.
    pub entered: u64,
    /// Calls that ended as an error.
    pub errors: u64,
    /// Time of all calls together, in nanoseconds.
    pub total_ns: u64,
    /// Shortest and longest call; 0 without one.
    pub min_ns: u64,
    /// As above.
    pub max_ns: u64,
    /// Calls within the threshold.
    pub within: u64,
    /// Calls that were left without a return: longjmp, exceptions.
    pub left: u64,
    /// Calls that could not be followed: too many at once in one thread, or too many threads.
    pub missed: u64,
    /// Calls by how long they took.
    pub histogram: Vec<u64>,
}

/// A call that has not returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenCall {
    /// Process.
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// Number of the function.
    pub function: u32,
    /// Since when, `CLOCK_MONOTONIC`, nanoseconds.
    pub since_ns: u64,
    /// Stack pointer at the function's first instruction.
    pub sp: u64,
}

#[derive(Clone, Copy)]
#[repr(transparent)]
struct PodFigures(RawFigures);
#[derive(Clone, Copy)]
#[repr(transparent)]
struct PodJudgement(Judgement);
#[derive(Clone, Copy)]
#[repr(transparent)]
struct PodThread(ThreadCalls);

// SAFETY: integers only and no implicit padding, which `probe_ebpf` asserts.
#[expect(unsafe_code, reason = "the kernel boundary")]
unsafe impl Pod for PodFigures {}
// SAFETY: as above.
#[expect(unsafe_code, reason = "the kernel boundary")]
unsafe impl Pod for PodJudgement {}
// SAFETY: as above.
#[expect(unsafe_code, reason = "the kernel boundary")]
unsafe impl Pod for PodThread {}

impl OpenCall {
    /// True if a thread whose stack pointer is `sp` has left the call by a jump or an exception.
    pub fn was_left(&self, sp: u64) -> bool {
        was_left(self.sp, sp)
    }
}

impl Calls {
    pub(super) fn new(figures: Map, judgements: Map, threads: Map) -> Result<Self> {
        Ok(Self {
            figures: PerCpuArray::try_from(figures)?,
            judgements: Array::try_from(judgements)?,
            threads: HashMap::try_from(threads)?,
        })
    }

    /// Says how the calls of a function are judged.
    pub fn judge(&mut self, function: u32, judgement: Judgement) -> Result<()> {
        self.judgements.set(function, PodJudgement(judgement), 0).context("cannot tell the kernel of a function")
    }

    /// The figures of a function, of all CPUs together.
    pub fn figures(&self, function: u32) -> Result<Figures> {
        let mut sum = Figures { histogram: vec![0; BUCKETS], ..Figures::default() };
        for PodFigures(cpu) in self.figures.get(&function, 0).context("cannot read the figures of a function")?.iter() {
            sum.add(cpu);
        }
        Ok(sum)
    }

    /// Every call that has begun and of which nothing else is known.
    pub fn open(&self) -> Result<Vec<OpenCall>> {
        let mut open = Vec::new();
        for entry in self.threads.iter() {
            // It may have exited meanwhile.
            let Ok((tid, PodThread(thread))) = entry else { continue };
            let calls = thread.calls.iter().take(thread.depth as usize);
            open.extend(calls.map(|call| OpenCall {
                pid: thread.tgid,
                tid,
                function: call.function,
                since_ns: call.since_ns,
                sp: call.sp,
            }));
        }
        Ok(open)
    }

    /// Forgets the calls that threads are in: when probes are taken away, nobody sees them return.
    pub fn forget_open(&mut self) {
        let tids: Vec<u32> = self.threads.keys().flatten().collect();
        for tid in tids {
            let _ = self.threads.remove(&tid);
        }
    }
}

impl Figures {
    fn add(&mut self, cpu: &RawFigures) {
        let RawFigures { calls, entered, errors, total_ns, max_ns, min_ns, within, left, missed, histogram } = cpu;
        self.min_ns = match (self.min_ns, *min_ns) {
            (0, min_ns) | (min_ns, 0) => min_ns,
            (one, other) => one.min(other),
        };
        self.calls += calls;
        self.entered += entered;
        self.errors += errors;
        self.total_ns += total_ns;
        self.max_ns = self.max_ns.max(*max_ns);
        self.within += within;
        self.left += left;
        self.missed += missed;
        for (sum, count) in self.histogram.iter_mut().zip(histogram) {
            *sum += u64::from(*count);
        }
    }

    /// The time within which this share of the calls ended, in nanoseconds: at most 1.6 % off; `None` without calls.
    pub fn quantile(&self, share: f64) -> Option<u64> {
        let total: u64 = self.histogram.iter().sum();
        let rank = ((total as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        let bucket = self.histogram.iter().position(|count| {
            seen += count;
            seen >= rank
        })?;
        Some(middle(bucket).clamp(self.min_ns, self.max_ns))
    }
}

/// Sets a probe into a process: at a place of a file, for a function by its number.
pub(super) fn attach(ebpf: &mut Ebpf, pid: u32, file: &Path, offset: u64, function: u32, role: Role) -> Result<Probe> {
    let name = role.program();
    let program: &mut UProbe = ebpf.program_mut(name).with_context(|| format!("no program {name}"))?.try_into()?;
    if program.fd().is_err() {
        program.load().map_err(|error| permission("load the program for functions", error))?;
    }
    let location = UProbeAttachLocation::AbsoluteOffset(offset);
    let point = UProbeAttachPoint { location, cookie: Some(function.into()) };
    let scope = NonZeroU32::new(pid).map_or(UProbeScope::AllProcesses, UProbeScope::OneProcess);
    let link = program
        .attach(point, file, scope)
        .map_err(|error| permission(&format!("set a probe at {}+{offset:#x}", file.display()), error))?;
    Ok(Probe(Link::Event(program.take_link(link)?)))
}

/// Sets probes of one role into one file at once; `None` where that does not work.
pub(super) fn attach_many(
    multi: &mut Multi,
    pid: u32,
    file: &Path,
    role: Role,
    places: &[(u64, u64)],
) -> Option<Probe> {
    let at_return = matches!(role, Role::Returned | Role::AllocateReturned);
    let link = multi.attach(role.program(), at_return, pid, file, places);
    let link = link.inspect_err(|error| tracing::debug!(file = %file.display(), "no link for many probes: {error:#}"));
    Some(Probe(Link::Multi(link.ok()?)))
}

#[cfg(test)]
mod tests {
    use probe_ebpf::calls::bucket;

    use super::*;

    #[test]
    fn quantiles_are_those_of_the_calls() {
        let mut figures =
            Figures { histogram: vec![0; BUCKETS], min_ns: 2_000_000, max_ns: 20_000_000, ..Figures::default() };
        assert_eq!(figures.quantile(0.5), None);
        figures.histogram[bucket(2_000_000)] = 90;
        figures.histogram[bucket(20_000_000)] = 10;
        for (share, expected) in [(0.0, 2e6), (0.5, 2e6), (0.9, 2e6), (0.91, 20e6), (0.99, 20e6), (1.0, 20e6)] {
            let found = figures.quantile(share).unwrap() as f64;
            assert!((found - expected).abs() <= expected * 0.016, "{share}: {found}");
        }
    }
}
