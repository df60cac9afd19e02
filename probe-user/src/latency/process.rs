//! `Process`: a process and its functions, as they are: looked for, found, timed or missing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::definition::Definition;
use super::function::Function;
use super::registry::{Joined, Wanted};
use super::timer::Timer;
use super::timing::Slot;
use super::window::Window;

/// A function that a process does not have is looked for again when the process has mapped something, after this time,
const AGAIN: Duration = Duration::from_secs(1);
/// or anyway after this, should the mapping have been missed.
const ANYWAY: Duration = Duration::from_secs(15);
/// or after so many times what the search took, if that is longer: two percent of one core.
const SEARCHES: u32 = 50;

/// See the head of this file.
pub(super) struct Process {
    pub(super) joined: Joined,
    /// Changes with each program that it runs.
    pub(super) life: u64,
    pub(super) budget: f64,
    pub(super) pairs: BTreeMap<Arc<str>, Pair>,
    /// It has mapped something since it was searched.
    pub(super) has_mapped: bool,
    pub(super) searched: Instant,
    /// When it may be searched again.
    pub(super) again: Instant,
}

/// A function of a process.
pub(super) struct Pair {
    pub(super) definition: Definition,
    pub(super) state: PairState,
}

/// How far it has come.
pub(super) enum PairState {
    /// To be looked for.
    Wanted,
    /// To be timed.
    Found(Function),
    Timed(Slot, Window),
    Missing(String, Instant),
}

impl Process {
    /// A process in which nothing was looked for yet.
    pub(super) fn new(joined: &Joined, life: u64) -> Self {
        let now = Instant::now();
        Self {
            joined: joined.clone(),
            life,
            budget: 0.0,
            pairs: BTreeMap::new(),
            has_mapped: false,
            searched: now,
            again: now,
        }
    }

    /// It was searched, which took so long.
    pub(super) fn was_searched(&mut self, took: Duration) {
        self.again = Instant::now() + AGAIN.max(took * SEARCHES);
    }

    /// It is being searched.
    pub(super) fn is_searched(&mut self, now: Instant) {
        // Should there be no answer, it is not asked for at once again.
        (self.has_mapped, self.searched, self.again) = (false, now, now + AGAIN);
    }

    /// Everything in it is to be looked for again, as in another process.
    pub(super) fn start_over(&mut self, life: u64) {
        (self.life, self.again) = (life, Instant::now());
        for pair in self.pairs.values_mut() {
            pair.state = PairState::Wanted;
        }
    }

    pub(super) fn reconcile(&mut self, wanted: &Wanted, mut timer: Option<&mut Timer>) {
        let is_ours = |definition: &&Definition| self.joined.targets.contains(&definition.target);
        let ours = wanted.definitions.values().filter(is_ours);
        let definitions: BTreeMap<&str, &Definition> =
            ours.map(|definition| (definition.name.as_str(), definition)).collect();
        self.pairs.retain(|name, pair| {
            let stays = definitions.get(&**name).is_some_and(|definition| definition.has_same_places(&pair.definition));
            if let (false, PairState::Timed(slot, _), Some(timer)) = (stays, &pair.state, timer.as_deref_mut()) {
                timer.remove(*slot);
            }
            stays
        });
        for (name, definition) in definitions {
            match self.pairs.get_mut(name) {
                Some(pair) if pair.definition == *definition => {}
                Some(pair) => pair.change(definition, timer.as_deref_mut()),
                None => {
                    let pair = Pair { definition: definition.clone(), state: PairState::Wanted };
                    self.pairs.insert(name.into(), pair);
                }
            }
        }
    }

    /// Whether something is to be looked for in it now.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        let is_new = self.pairs.values().any(|pair| matches!(pair.state, PairState::Wanted));
        let is_missing = self.pairs.values().any(|pair| matches!(pair.state, PairState::Missing(..)));
        let may_have_it = self.has_mapped || now >= self.searched + ANYWAY;
        is_new || is_missing && may_have_it && now >= self.again
    }
}

impl Pair {
    pub(super) fn found(&mut self, found: Result<Function, String>) {
        let since = match &self.state {
            PairState::Wanted => Instant::now(),
            PairState::Missing(_, since) => *since,
            PairState::Found(_) | PairState::Timed(..) => return,
        };
        self.state = match found {
            // Its threshold may have changed since it was looked for.
            Ok(function) => PairState::Found(self.judged(function)),
            Err(reason) => PairState::Missing(reason, since),
        };
    }

    fn judged(&self, function: Function) -> Function {
        let has_threshold = self.definition.threshold.is_some();
        Function { judgement: self.definition.judgement(), has_threshold, ..function }
    }

    /// Another threshold, another test for errors, another group.
    fn change(&mut self, definition: &Definition, timer: Option<&mut Timer>) {
        self.definition = definition.clone();
        let (judgement, has_threshold) = (definition.judgement(), definition.threshold.is_some());
        match &mut self.state {
            PairState::Timed(slot, window) => {
                window.forget();
                let judged = timer.map(|timer| timer.judge(*slot, judgement, has_threshold)).transpose();
                if let Err(error) = judged {
                    tracing::error!("function {}: {error:#}", definition.name);
                }
            }
            PairState::Found(function) => (function.judgement, function.has_threshold) = (judgement, has_threshold),
            PairState::Wanted | PairState::Missing(..) => {}
        }
    }
}

/// What the probes of a process may cost: its share of what each of its targets may.
pub(super) fn budget(wanted: &Wanted, joined: &Joined) -> f64 {
    let with_functions: BTreeSet<&String> = wanted.definitions.values().map(|definition| &definition.target).collect();
    let targets = joined.targets.iter().filter(|target| with_functions.contains(target));
    let members =
        |target: &String| wanted.processes.values().filter(|joined| joined.targets.contains(target)).count().max(1);
    targets.map(|target| wanted.budget / members(target) as f64).sum()
}
