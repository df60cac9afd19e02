//! `Meter`: observes functions whose probes are not set all the time: which threads call them, how much processor time these
//! have while the probes are set and while they are not. What comes of it is an [`Account`] for each function.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::estimate::{Account, Mode, Sums};
use super::timing::Slot;
use crate::kernel::{Judgement, Sampler, ThreadClock, ThreadTime, feature};
use crate::probes::Moment;
use crate::target::monotonic_ns;

/// Threads of one function that are observed, and of all: each needs two descriptors.
const MAX_THREADS: usize = 64;
const MAX_ALL: usize = 512;
/// Of a longer window only so much is observed: windows begin at random, but end when there are many calls, so that most of a
/// long one is a time of few.
const OBSERVED: Duration = Duration::from_millis(20);
/// For so long calls are timed before they are counted only.
const TIMED: Duration = Duration::from_millis(4);

/// Shared by whoever sets probes and whoever reads.
#[derive(Clone, Default)]
pub struct Meter(Arc<Mutex<BTreeMap<Slot, Observed>>>);

/// A function that is observed.
struct Observed {
    pid: u32,
    judgement: Judgement,
    account: Account,
    clocks: BTreeMap<u32, ThreadClock>,
    /// Its probes have gone at least once.
    is_throttled: bool,
    /// Its beginnings and its ends have had probes apart.
    has_parts: bool,
    mode: Mode,
    window: Option<Stint>,
    clean: Option<Stint>,
}

/// A time that is being observed.
struct Stint {
    since: Instant,
    /// By thread, at its beginning.
    times: BTreeMap<u32, ThreadTime>,
}

impl Meter {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Slot, Observed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A function of a process has probes now.
    pub fn begin(&self, slot: Slot, pid: u32, judgement: Judgement, hit_cost: Duration) {
        let account = Account { hit_cost: hit_cost.as_secs_f64(), ..Account::default() };
        let observed = Observed {
            pid,
            judgement,
            account,
            clocks: BTreeMap::new(),
            is_throttled: false,
            has_parts: false,
            mode: Mode::Timed,
            window: None,
            clean: None,
        };
        self.lock().insert(slot, observed);
    }

    /// It is not observed any more.
    pub fn end(&self, slot: Slot) {
        self.lock().remove(&slot);
    }

    /// Its calls are judged in another way from now on.
    pub fn judge(&self, sampler: &mut Sampler, slot: Slot, judgement: Judgement) -> Result<()> {
        match self.lock().get_mut(&slot) {
            Some(observed) => {
                observed.judgement = judgement;
                sampler.calls().judge(slot, observed.judgement_now())
            }
            None => sampler.calls().judge(slot, judgement),
        }
    }

    /// Something becomes of its probes.
    pub fn hear(&self, sampler: &mut Sampler, slot: Slot, moment: Moment) -> Result<()> {
        let mut functions = self.lock();
        let others: usize = functions.values().map(|observed| observed.clocks.len()).sum();
        let Some(observed) = functions.get_mut(&slot) else {
            let since_ns = if let Moment::Set(since_ns) = moment { Some(since_ns) } else { None };
            return sampler.calls().switch(slot, since_ns);
        };
        match moment {
            Moment::Before(part) => {
                observed.end_clean();
                observed.mode = part.into();
                observed.has_parts |= observed.mode != Mode::Timed;
                sampler.calls().judge(slot, observed.judgement_now())
            }
            Moment::Set(since_ns) => {
                sampler.calls().switch(slot, Some(since_ns))?;
                observed.window = observed.is_throttled.then(|| observed.stint());
                Ok(())
            }
            Moment::Leaving => {
                sampler.calls().switch(slot, None)?;
                observed.end_window(sampler, slot, others);
                observed.is_throttled = true;
                Ok(())
            }
            Moment::Clean => {
                observed.clean = Some(observed.stint());
                Ok(())
            }
            Moment::Gone => Ok(()),
        }
    }

    /// Of windows that go on for long, the beginning is enough: at first calls are timed, then they are counted only, so that it can
    /// be told what probes cost that do nothing else; and from then on they are timed again.
    pub fn look(&self, sampler: &mut Sampler) -> Result<()> {
        let mut functions = self.lock();
        let others: usize = functions.values().map(|observed| observed.clocks.len()).sum();
        for (slot, observed) in functions.iter_mut() {
            let Some(age) = observed.window.as_ref().map(|window| window.since.elapsed()) else { continue };
            let is_to_count = observed.mode == Mode::Timed && observed.has_parts;
            if age < if is_to_count { TIMED } else { OBSERVED } {
                continue;
            }
            observed.end_window(sampler, *slot, others);
            if is_to_count {
                observed.mode = Mode::Counted;
                sampler.calls().judge(*slot, observed.judgement_now())?;
                observed.window = Some(observed.stint());
            } else if observed.mode == Mode::Counted {
                observed.mode = Mode::Timed;
                sampler.calls().judge(*slot, observed.judgement_now())?;
                // The ends of calls that were under way have no beginning.
                sampler.calls().switch(*slot, Some(monotonic_ns()))?;
            }
        }
        Ok(())
    }

    /// What is known of a function, whose probes were gone for so long.
    pub fn account(&self, slot: Slot, clean: Duration) -> Account {
        let mut functions = self.lock();
        let Some(observed) = functions.get_mut(&slot) else { return Account::default() };
        if observed.end_clean() {
            observed.clean = Some(observed.stint());
        }
        Account { clean, ..observed.account.clone() }
    }
}

impl Observed {
    fn judgement_now(&self) -> Judgement {
        let mut features = self.judgement.features;
        if self.is_throttled {
            features |= feature::TALLY;
        }
        if self.mode != Mode::Timed {
            features |= feature::COSTS;
        }
        if self.mode == Mode::Ends {
            features |= feature::ONLY_ENDS;
        }
        Judgement { features, ..self.judgement }
    }

    fn times(&mut self) -> BTreeMap<u32, ThreadTime> {
        self.clocks.iter_mut().filter_map(|(tid, clock)| Some((*tid, clock.read().ok()?))).collect()
    }

    fn stint(&mut self) -> Stint {
        let times = self.times();
        Stint { since: Instant::now(), times }
    }

    fn end_window(&mut self, sampler: &mut Sampler, slot: Slot, others: usize) {
        let (now, window) = (self.stint(), self.window.take());
        let tallies: BTreeMap<u32, _> = sampler.calls().take_tallies(slot).into_iter().collect();
        if self.mode != Mode::Timed {
            self.account.passed += tallies.values().map(|tally| tally.calls).sum::<u64>();
        }
        if let Some(window) = window {
            let wall = (now.since - window.since).as_secs_f64();
            let of = |tid: u32| Some((window.times.get(&tid)?, now.times.get(&tid)?));
            for &tid in now.times.keys() {
                let Some((before, after)) = of(tid) else { continue };
                let tally = tallies.get(&tid).copied().unwrap_or_default();
                let on_cpu = after.on_cpu.saturating_sub(before.on_cpu).as_secs_f64();
                let waiting = after.waiting.saturating_sub(before.waiting).as_secs_f64();
                let sums = Sums::one(tally.calls, tally.hits, wall, on_cpu, waiting);
                self.account.window(tid, self.mode, &sums);
            }
            let unknown = || tallies.iter().filter(|(tid, _)| of(**tid).is_none()).map(|(_, tally)| tally);
            let (calls, hits) = (unknown().map(|tally| tally.calls).sum(), unknown().map(|tally| tally.hits).sum());
            if self.mode == Mode::Timed {
                self.account.window_of_others(&Sums::one(calls, hits, wall, 0.0, 0.0));
            }
        }
        self.follow(tallies.keys().copied(), others);
    }

    /// Opens the clocks of threads that have called it.
    fn follow(&mut self, tids: impl Iterator<Item = u32>, others: usize) {
        let had = self.clocks.len();
        for tid in tids {
            if self.clocks.len() >= MAX_THREADS || others + self.clocks.len() - had >= MAX_ALL {
                return;
            }
            if self.clocks.contains_key(&tid) {
                continue;
            }
            match ThreadClock::of(self.pid, tid) {
                Ok(clock) => drop(self.clocks.insert(tid, clock)),
                Err(error) => tracing::debug!(tid, "the processor time of a thread cannot be read: {error}"),
            }
        }
    }

    /// False if there was none.
    fn end_clean(&mut self) -> bool {
        let Some(clean) = self.clean.take() else { return false };
        let now = self.stint();
        let wall = (now.since - clean.since).as_secs_f64();
        for (tid, after) in &now.times {
            let Some(before) = clean.times.get(tid) else { continue };
            let waiting = after.waiting.saturating_sub(before.waiting).as_secs_f64();
            self.account.clean(*tid, after.on_cpu.saturating_sub(before.on_cpu).as_secs_f64(), waiting, wall);
        }
        self.clocks.retain(|_, clock| clock.is_running());
        true
    }
}
