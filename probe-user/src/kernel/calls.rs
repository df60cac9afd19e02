//! Timed functions: the probes at their entries and returns, and what the kernel programs make of them.

use anyhow::{Context, Result};
use aya::maps::{Array, HashMap, MapData, PerCpuArray, PerCpuValues, Queue};
use aya::{Ebpf, Pod};
pub use probe_ebpf::abi::{Judgement, Site, error_test, feature};
pub use probe_ebpf::calls::Caller;
use probe_ebpf::calls::{BUCKETS, Figures as RawFigures, ThreadCalls, middle, was_left};
use probe_ebpf::span::OpenSpan as RawSpan;
pub use probe_ebpf::span::{MAX_READS, Operand, SpanKeys, source};

/// The maps of timed functions.
pub struct Calls {
    figures: PerCpuArray<MapData, PodFigures>,
    judgements: Array<MapData, PodJudgement>,
    threads: HashMap<MapData, PodCaller, PodThread>,
    new_sites: Queue<MapData, PodSite>,
    sites: HashMap<MapData, PodSite, u8>,
    span_keys: Array<MapData, PodSpanKeys>,
    spans: HashMap<MapData, PodSpan, u64>,
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

/// Makes a type of the kernel boundary known to aya.
macro_rules! pod {
    ($($name:ident($type:ty);)*) => {$(
        #[derive(Clone, Copy)]
        #[repr(transparent)]
        struct $name($type);
        // SAFETY: integers only and no implicit padding, which `probe_ebpf` asserts.
        #[expect(unsafe_code, reason = "the kernel boundary")]
        unsafe impl Pod for $name {}
    )*};
}

pod! {
    PodFigures(RawFigures);
    PodJudgement(Judgement);
    PodCaller(Caller);
    PodThread(ThreadCalls);
    PodSite(Site);
    PodSpanKeys(SpanKeys);
    PodSpan(RawSpan);
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
        Ok(Self {
            figures: PerCpuArray::try_from(take("FIGURES")?)?,
            judgements: Array::try_from(take("JUDGEMENTS")?)?,
            threads: HashMap::try_from(take("CALLS")?)?,
            new_sites: Queue::try_from(take("NEW_SITES")?)?,
            sites: HashMap::try_from(take("SITES")?)?,
            span_keys: Array::try_from(take("SPAN_KEYS")?)?,
            spans: HashMap::try_from(take("SPANS")?)?,
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

    /// Says by which values a span is paired.
    pub fn pair(&mut self, function: u32, keys: SpanKeys) -> Result<()> {
        self.span_keys.set(function, PodSpanKeys(keys), 0).context("cannot tell the kernel of a span")
    }

    /// Places that functions with [`feature::SITES`] return to, which have turned up since the last call.
    pub fn new_sites(&mut self) -> Vec<Site> {
        std::iter::from_fn(|| self.new_sites.pop(0).ok()).map(|PodSite(site)| site).collect()
    }

    /// A place has its probe: calls that return there are seen from now on.
    pub fn site_is_set(&mut self, site: Site) -> Result<()> {
        self.sites.insert(PodSite(site), 1, 0).context("cannot tell the kernel of a place that a function returns to")
    }

    /// Every call that has begun and of which nothing else is known; those of a thread from the outermost on.
    pub fn open(&self) -> Result<Vec<OpenCall>> {
        let mut open = Vec::new();
        for entry in self.threads.iter() {
            // It may have exited meanwhile.
            let Ok((PodCaller(caller), PodThread(thread))) = entry else { continue };
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
        let span = |(PodSpan(span), since_ns)| OpenSpan { pid: span.tgid, function: span.function, since_ns };
        self.spans.iter().flatten().map(span).collect()
    }

    /// Forgets what is going on in functions whose probes were taken away, because nobody sees it end. A thread that is in
    /// calls of other functions, too, keeps all of them: the kernel programs may change them at this moment, and recognise by
    /// the stack what is over.
    pub fn forget_open(&mut self, functions: &[u32]) {
        let is_gone = |PodThread(thread): &PodThread| {
            thread.calls.iter().take(thread.depth as usize).all(|call| functions.contains(&call.function))
        };
        let callers = self.threads.iter().flatten().filter(|(_, thread)| is_gone(thread)).map(|(caller, _)| caller);
        for caller in callers.collect::<Vec<PodCaller>>() {
            let _ = self.threads.remove(&caller);
        }
        let spans = self.spans.keys().flatten().filter(|PodSpan(span)| functions.contains(&span.function));
        for span in spans.collect::<Vec<PodSpan>>() {
            let _ = self.spans.remove(&span);
        }
    }
}

impl Calls {
    /// Makes a number ready for another function: nothing is known of its calls. Its probes are gone.
    pub fn clear(&mut self, function: u32) -> Result<()> {
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| error).context("cannot count the CPUs")?;
        let none = vec![PodFigures(RawFigures::NONE); cpus];
        self.figures.set(function, PerCpuValues::try_from(none)?, 0).context("cannot clear a function")?;
        self.forget_open(&[function]);
        let sites = self.sites.keys().flatten().filter(|PodSite(site)| site.function == function);
        for site in sites.collect::<Vec<PodSite>>() {
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
