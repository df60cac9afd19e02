//! Timed functions: the probes at their entries and returns, and what the kernel programs make of them.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use aya::Ebpf;
use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray, PerCpuValues, Queue};

use super::lookup;
pub use probe_ebpf::abi::{Judgement, Site, Tally, TallyKey, error_test, feature};
pub use probe_ebpf::calls::Caller;
use probe_ebpf::calls::{BUCKETS, Figures as RawFigures, ThreadCalls, middle, was_left};
use probe_ebpf::span::OpenSpan as RawSpan;
pub use probe_ebpf::span::{MAX_READS, Operand, SpanKeys, source};

use super::boundary::OfKernel;

/// The maps of timed functions.
pub struct Calls {
    /// [`RawFigures`] by CPU.
    figures: Map,
    /// Where the figures of a function are read to: for each CPU, one after the other.
    desk: Vec<OfKernel<RawFigures>>,
    judgements: Array<MapData, OfKernel<Judgement>>,
    since: Array<MapData, u64>,
    threads: HashMap<MapData, OfKernel<Caller>, OfKernel<ThreadCalls>>,
    new_sites: Queue<MapData, OfKernel<Site>>,
    sites: HashMap<MapData, OfKernel<Site>, u8>,
    tallies: HashMap<MapData, OfKernel<TallyKey>, OfKernel<Tally>>,
    span_keys: Array<MapData, OfKernel<SpanKeys>>,
    spans: HashMap<MapData, OfKernel<RawSpan>, u64>,
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
    /// Calls that ended because their thread did, or became another program; they are among `calls`.
    pub thread_ended: u64,
    /// Calls by how long they took: buckets in their order, with the calls in each. Most buckets are empty, and left out.
    pub histogram: Vec<(u16, u64)>,
}

/// A call that has not returned, as far as the kernel has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenCall {
    /// Whose it is.
    pub caller: Caller,
    /// Number of the function.
    pub function: u32,
    /// Since when, `CLOCK_MONOTONIC`, nanoseconds.
    pub since_ns: u64,
    /// Where its return address is; of a goroutine relative to the end of its stack.
    pub position: u64,
    /// That return address.
    pub return_address: u64,
}

/// A span that has not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenSpan {
    /// Process.
    pub pid: u32,
    /// Number of the span, among those of functions.
    pub function: u32,
    /// Since when, `CLOCK_MONOTONIC`, nanoseconds.
    pub since_ns: u64,
}

impl OpenCall {
    /// True if a thread whose stack pointer is this has left the call by a jump or an exception.
    pub fn was_left(&self, stack_pointer: u64) -> bool {
        was_left(self.position, stack_pointer)
    }
}

impl Calls {
    pub(super) fn new(ebpf: &mut Ebpf) -> Result<Self> {
        let mut take = |name| ebpf.take_map(name).with_context(|| format!("the kernel object has no map {name}"));
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| error).context("cannot count the CPUs")?;
        Ok(Self {
            figures: take("FIGURES")?,
            desk: vec![OfKernel(RawFigures::NONE); cpus],
            judgements: Array::try_from(take("JUDGEMENTS")?)?,
            since: Array::try_from(take("SINCE")?)?,
            threads: HashMap::try_from(take("CALLS")?)?,
            new_sites: Queue::try_from(take("NEW_SITES")?)?,
            sites: HashMap::try_from(take("SITES")?)?,
            tallies: HashMap::try_from(take("TALLIES")?)?,
            span_keys: Array::try_from(take("SPAN_KEYS")?)?,
            spans: HashMap::try_from(take("SPANS")?)?,
        })
    }

    /// Says how the calls of a function are judged.
    pub fn judge(&mut self, function: u32, judgement: Judgement) -> Result<()> {
        self.judgements.set(function, OfKernel(judgement), 0).context("cannot tell the kernel of a function")
    }

    /// Has the calls of a function looked at that begin from a time on (`CLOCK_MONOTONIC` in nanoseconds), or none of them
    /// while its probes come and go: then those that are going on are nobody's.
    pub fn switch(&mut self, function: u32, since_ns: Option<u64>) -> Result<()> {
        self.since.set(function, since_ns.unwrap_or(u64::MAX), 0).context("cannot switch a function on or off")
    }

    /// The figures of a function, of all CPUs together.
    pub fn figures(&mut self, function: u32) -> Result<Figures> {
        let Map::PerCpuArray(map) = &self.figures else { bail!("figures are not kept by CPU") };
        lookup::of_cpus(map, function, &mut self.desk).context("cannot read the figures of a function")?;
        Ok(Figures::sum(&self.desk))
    }

    /// What threads did with the probes of a function that has [`feature::TALLY`], since this was asked last: by thread id.
    pub fn take_tallies(&mut self, function: u32) -> Vec<(u32, Tally)> {
        let keys = self.tallies.keys().flatten().filter(|OfKernel(key)| key.function == function);
        let keys: Vec<OfKernel<TallyKey>> = keys.collect();
        let mut taken = Vec::with_capacity(keys.len());
        for key in keys {
            if let Ok(OfKernel(tally)) = self.tallies.get(&key, 0) {
                let _ = self.tallies.remove(&key);
                taken.push((key.0.tid, tally));
            }
        }
        taken
    }

    /// Says by which values a span is paired.
    pub fn pair(&mut self, function: u32, keys: SpanKeys) -> Result<()> {
        self.span_keys.set(function, OfKernel(keys), 0).context("cannot tell the kernel of a span")
    }

    /// Places that functions with [`feature::SITES`] return to, which have turned up since the last call.
    pub fn new_sites(&mut self) -> Vec<Site> {
        std::iter::from_fn(|| self.new_sites.pop(0).ok()).map(|OfKernel(site)| site).collect()
    }

    /// A place has its probe: calls that return there are seen from now on.
    pub fn site_is_set(&mut self, site: Site) -> Result<()> {
        self.sites.insert(OfKernel(site), 1, 0).context("cannot tell the kernel of a place that a function returns to")
    }

    /// Every call that has begun and of which nothing else is known; those of a thread from the outermost on.
    pub fn open(&self) -> Result<Vec<OpenCall>> {
        let mut open = Vec::new();
        for entry in self.threads.iter() {
            // It may have exited meanwhile.
            let Ok((OfKernel(caller), OfKernel(thread))) = entry else { continue };
            let calls = thread.calls.iter().take(thread.depth as usize);
            open.extend(calls.map(|call| OpenCall {
                caller,
                function: call.function,
                since_ns: call.since_ns,
                position: call.position,
                return_address: call.return_address,
            }));
        }
        Ok(open)
    }

    /// Every span that has begun and not ended.
    pub fn open_spans(&self) -> Vec<OpenSpan> {
        let span = |(OfKernel(span), since_ns): (OfKernel<RawSpan>, u64)| OpenSpan {
            pid: span.tgid,
            function: span.function,
            since_ns,
        };
        self.spans.iter().flatten().map(span).collect()
    }

    /// Forgets the spans that are going on of functions whose probes were taken away, because nobody sees them end.
    pub fn forget_spans(&mut self, functions: &[u32]) {
        let spans = self.spans.keys().flatten().filter(|OfKernel(span)| functions.contains(&span.function));
        for span in spans.collect::<Vec<OfKernel<RawSpan>>>() {
            let _ = self.spans.remove(&span);
        }
    }

    /// Forgets whoever was in calls in processes that have no probes any more. Threads are forgotten when they exit, but
    /// nothing tells of the end of a goroutine.
    pub fn forget_callers(&mut self, has_probes: impl Fn(u32) -> bool) {
        let callers = self.threads.keys().flatten().filter(|OfKernel(caller)| !has_probes(caller.tgid));
        for caller in callers.collect::<Vec<OfKernel<Caller>>>() {
            let _ = self.threads.remove(&caller);
        }
    }

    /// Makes a number ready for another function, which is switched off: nothing is known of its calls. Its probes are gone.
    pub fn clear(&mut self, function: u32) -> Result<()> {
        self.switch(function, None)?;
        let none = vec![OfKernel(RawFigures::NONE); self.desk.len()];
        let mut figures = PerCpuArray::<_, OfKernel<RawFigures>>::try_from(&mut self.figures)?;
        figures.set(function, PerCpuValues::try_from(none)?, 0).context("cannot clear a function")?;
        self.forget_spans(&[function]);
        self.take_tallies(function);
        let sites = self.sites.keys().flatten().filter(|OfKernel(site)| site.function == function);
        for site in sites.collect::<Vec<OfKernel<Site>>>() {
            let _ = self.sites.remove(&site);
        }
        Ok(())
    }
}

/// How many functions can be timed at once by programs whose figures take so many bytes of the kernel's memory.
pub fn functions_within(bytes: usize) -> Result<usize> {
    let cpus = aya::util::nr_cpus().map_err(|(_, error)| error).context("cannot count the CPUs")?;
    Ok(bytes / (size_of::<RawFigures>() * cpus.max(1)))
}

/// The shorter of two times, of which 0 is none.
fn shortest(one: u64, other: u64) -> u64 {
    if one == 0 || other == 0 { one.max(other) } else { one.min(other) }
}

/// Buckets that are looked at together: nearly all of them are empty.
const TOGETHER: usize = 16;

impl Figures {
    fn sum(cpus: &[OfKernel<RawFigures>]) -> Self {
        // What most functions have, of one to three speeds.
        let mut sum = Self { histogram: Vec::with_capacity(64), ..Self::default() };
        cpus.iter().for_each(|OfKernel(cpu)| sum.add(cpu));
        for first in (0..BUCKETS).step_by(TOGETHER) {
            let of = |cpu: &RawFigures| cpu.histogram[first..first + TOGETHER].iter().fold(0, |all, count| all | count);
            if cpus.iter().all(|OfKernel(cpu)| of(cpu) == 0) {
                continue;
            }
            for bucket in first..first + TOGETHER {
                let count: u64 = cpus.iter().map(|OfKernel(cpu)| u64::from(cpu.histogram[bucket])).sum();
                if count > 0 {
                    sum.histogram.push((bucket as u16, count));
                }
            }
        }
        sum
    }

    fn add(&mut self, cpu: &RawFigures) {
        let RawFigures {
            calls,
            entered,
            errors,
            total_ns,
            max_ns,
            min_ns,
            within,
            left,
            missed,
            thread_ended,
            histogram: _,
        } = cpu;
        let counts = Self {
            calls: *calls,
            entered: *entered,
            errors: *errors,
            total_ns: *total_ns,
            min_ns: *min_ns,
            max_ns: *max_ns,
            within: *within,
            left: *left,
            missed: *missed,
            thread_ended: *thread_ended,
            histogram: Vec::new(),
        };
        self.join(&counts);
    }

    /// Adds what was seen of the same elsewhere.
    pub fn join(&mut self, other: &Self) {
        let Self { calls, entered, errors, total_ns, min_ns, max_ns, within, left, missed, thread_ended, histogram } =
            other;
        self.min_ns = shortest(self.min_ns, *min_ns);
        self.calls += calls;
        self.entered += entered;
        self.errors += errors;
        self.total_ns += total_ns;
        self.max_ns = self.max_ns.max(*max_ns);
        self.within += within;
        self.left += left;
        self.missed += missed;
        self.thread_ended += thread_ended;
        if histogram.is_empty() {
            return;
        }
        let mut buckets: BTreeMap<u16, u64> = self.histogram.iter().copied().collect();
        for (bucket, calls) in histogram {
            *buckets.entry(*bucket).or_default() += calls;
        }
        self.histogram = buckets.into_iter().collect();
    }

    /// The time within which this share of the calls ended, in nanoseconds: at most 1.6 % off; `None` without calls.
    pub fn quantile(&self, share: f64) -> Option<u64> {
        let total: u64 = self.histogram.iter().map(|(_, count)| count).sum();
        let rank = ((total as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        let (bucket, _) = self.histogram.iter().find(|(_, count)| {
            seen += count;
            seen >= rank
        })?;
        Some(middle(usize::from(*bucket)).clamp(self.min_ns, self.max_ns))
    }

    /// The calls by how long they took, in few steps: nanoseconds (a power of the fourth root of two, up to which they
    /// took) and calls; only steps with calls, the shortest first.
    pub fn steps(&self) -> Vec<(u64, u64)> {
        let mut steps: Vec<(u64, u64)> = Vec::new();
        for &(bucket, calls) in &self.histogram {
            let step = (4.0 * (middle(usize::from(bucket)).max(1) as f64).log2()).floor() + 1.0;
            let up_to_ns = (step / 4.0).exp2().round() as u64;
            match steps.last_mut() {
                Some((last, sum)) if *last == up_to_ns => *sum += calls,
                _ => steps.push((up_to_ns, calls)),
            }
        }
        steps
    }
}

#[cfg(test)]
mod tests {
    use probe_ebpf::calls::bucket;

    use super::*;

    #[test]
    fn quantiles_are_those_of_the_calls() {
        assert_eq!(Figures::default().quantile(0.5), None);
        let mut cpus = vec![OfKernel(RawFigures::NONE); 2];
        for (cpu, ns, count) in [(0, 2_000_000, 60), (1, 2_000_000, 30), (1, 20_000_000, 10)] {
            let figures = &mut cpus[cpu].0;
            figures.histogram[bucket(ns)] = count;
            (figures.min_ns, figures.max_ns) = (2_000_000, figures.max_ns.max(ns));
        }
        let figures = Figures::sum(&cpus);
        assert_eq!(figures.histogram.iter().map(|(_, count)| *count).collect::<Vec<_>>(), [90, 10]);
        for (share, expected) in [(0.0, 2e6), (0.5, 2e6), (0.9, 2e6), (0.91, 20e6), (0.99, 20e6), (1.0, 20e6)] {
            let found = figures.quantile(share).unwrap() as f64;
            assert!((found - expected).abs() <= expected * 0.016, "{share}: {found}");
        }
    }

    #[test]
    fn figures_of_several_processes_are_added_up() {
        let one = Figures {
            calls: 2,
            total_ns: 30,
            min_ns: 10,
            max_ns: 20,
            histogram: vec![(5, 1), (9, 1)],
            ..Figures::default()
        };
        let other =
            Figures { calls: 1, total_ns: 7, min_ns: 7, max_ns: 7, histogram: vec![(3, 1)], ..Figures::default() };
        let mut all = Figures::default();
        for figures in [&one, &Figures::default(), &other, &one] {
            all.join(figures);
        }
        assert_eq!((all.calls, all.total_ns, all.min_ns, all.max_ns), (5, 67, 7, 20));
        assert_eq!(all.histogram, [(3, 1), (5, 2), (9, 2)]);
    }

    #[test]
    fn steps_have_every_call_once_and_grow() {
        let times = [0, 1, 3, 700, 701, 1_000_000, 1_010_000, 40_000_000_000];
        let histogram = times.iter().map(|&ns| (bucket(ns) as u16, 1)).collect();
        let figures = Figures { histogram, ..Figures::default() };
        let steps = figures.steps();
        assert_eq!(steps.iter().map(|(_, calls)| calls).sum::<u64>(), times.len() as u64);
        assert!(steps.windows(2).all(|pair| pair[0].0 < pair[1].0), "{steps:?}");
        let near = |ns: u64| steps.iter().any(|&(up_to, _)| up_to >= ns && up_to as f64 <= ns as f64 * 1.21);
        assert!(near(700) && near(1_010_000) && near(40_000_000_000), "{steps:?}");
    }
}
