//! `Group`: probes that are set and taken away together, and the time in which they were there.

use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::leaving;
use crate::kernel::closer::hurry;
use crate::kernel::{Probes, Refused, Role, Sampler, Text, Wanted};
use crate::target::monotonic_ns;

/// Which of the probes of a group are set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Part {
    /// All.
    #[default]
    Whole,
    /// Those of beginnings.
    Begins,
    /// Those of ends.
    Ends,
}

impl Part {
    /// By turns, so that it can be told what the probes of either end cost.
    const TURNS: [Self; 4] = [Self::Whole, Self::Begins, Self::Whole, Self::Ends];

    fn has(self, role: Role) -> bool {
        let begins = matches!(role, Role::Enter | Role::Begin);
        match self {
            Self::Whole => true,
            Self::Begins => begins,
            Self::Ends => !begins,
        }
    }
}

/// See the head of this file.
pub(super) struct Group {
    /// In the order in which they are set.
    wanted: Vec<Wanted>,
    /// It is set in parts by turns.
    pub has_parts: bool,
    /// How often it was set.
    turn: usize,
    /// What is set, or was set last.
    part: Part,
    /// The numbers by which their hits are counted.
    numbers: Vec<u32>,
    state: State,
    /// They are to be set again as soon as they are gone.
    pub is_due: bool,
    /// They were taken away at some time.
    has_gone: bool,
    /// Hits until now, and at the beginning.
    hits: u64,
    first_hits: u64,
    /// Hits a second when the probes were last set.
    rate: f64,
    /// Time in which the probes were set, until `since`.
    attached: Duration,
    /// Time in which there was no trap, until `since`.
    clean: Duration,
    since: Instant,
    /// When they were set last, `CLOCK_MONOTONIC` in nanoseconds.
    pub set_ns: u64,
    /// The sum of the rates at all hits.
    rates: f64,
    /// When it was looked last, the process did not have them where they had been set.
    is_suspect: bool,
    /// When they were set, where that is asked for.
    windows: Option<Vec<Window>>,
}

enum State {
    Set(Vec<Probes>),
    Leaving(Leaving),
    Away,
}

/// Probes on their way out.
struct Leaving {
    /// Tells when the kernel began, and by being closed when it is done.
    kernel: Receiver<Instant>,
    /// The programs see nothing any more.
    has_begun: bool,
    /// No trap is left.
    is_clean: bool,
    /// Where the process has them; `None` where that cannot be told.
    text: Option<Text>,
}

/// Windows that are remembered: of an hour or so. Of older times neighbours become one.
const MAX_WINDOWS: usize = 8192;

/// Half as many windows, each as long as two and where the first was: what was seen in either stands for the time of both.
fn in_pairs(windows: &[Window]) -> Vec<Window> {
    let pair = |pair: &[Window]| {
        let length = pair.iter().map(|window| window.to_ns - window.from_ns).sum::<u64>();
        Window {
            from_ns: pair[0].from_ns,
            to_ns: pair[0].from_ns + length,
            is_joined: pair.len() > 1 || pair[0].is_joined,
        }
    };
    windows.chunks(2).map(pair).collect()
}

/// A time in which probes were set, `CLOCK_MONOTONIC` in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Its beginning.
    pub from_ns: u64,
    /// Its end.
    pub to_ns: u64,
    /// It was made of several, and is where the first of them was: some lie behind its end.
    pub is_joined: bool,
}

impl From<u64> for Window {
    /// One that begins.
    fn from(from_ns: u64) -> Self {
        Self { from_ns, to_ns: from_ns, is_joined: false }
    }
}

/// What a look at a group finds.
pub(super) struct Passed {
    /// Hits that were paid, counted or not.
    pub hits: u64,
    /// The last trap has just gone.
    pub is_clean: bool,
    /// The probes have just gone for good.
    pub is_gone: bool,
}

impl Group {
    pub fn new(wanted: Vec<Wanted>) -> Self {
        let mut numbers: Vec<u32> = wanted.iter().map(|wanted| wanted.number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let (state, rate, attached, since) = (State::Away, 0.0, Duration::ZERO, Instant::now());
        Self {
            wanted,
            has_parts: false,
            turn: 0,
            part: Part::Whole,
            numbers,
            state,
            is_due: false,
            has_gone: false,
            hits: 0,
            first_hits: 0,
            rate,
            attached,
            clean: Duration::ZERO,
            since,
            set_ns: 0,
            rates: 0.0,
            is_suspect: false,
            windows: None,
        }
    }

    /// Remembers from now on when the probes were set.
    pub fn keep_windows(&mut self) {
        self.windows.get_or_insert_with(|| vec![Window::from(self.set_ns)]);
    }

    /// When they were, oldest first.
    pub fn windows(&self) -> &[Window] {
        self.windows.as_deref().unwrap_or_default()
    }

    pub fn is_set(&self) -> bool {
        matches!(self.state, State::Set(_))
    }

    /// True if those that are set, or were set last, are all.
    pub fn is_whole(&self) -> bool {
        self.part == Part::Whole
    }

    /// True if they have been set ever since.
    pub fn is_always_set(&self) -> bool {
        self.is_set() && !self.has_gone
    }

    pub fn is_away(&self) -> bool {
        matches!(self.state, State::Away)
    }

    /// Time in which the probes were set, as far as was looked.
    pub fn attached(&self) -> Duration {
        self.attached
    }

    /// Time in which there was no trap in the target's code, as far as was looked.
    pub fn clean(&self) -> Duration {
        self.clean
    }

    /// What will be set next.
    pub fn next_part(&self) -> Part {
        if self.has_parts { Part::TURNS[self.turn % Part::TURNS.len()] } else { Part::Whole }
    }

    fn active(&self) -> Vec<Wanted> {
        self.wanted.iter().filter(|wanted| self.part.has(wanted.role)).cloned().collect()
    }

    /// Hits a second, as they were when a hit was counted, on average over the hits: a burst is not made small by the calm
    /// around it.
    pub fn rate_of_hits(&self) -> f64 {
        self.rates / ((self.hits - self.first_hits) as f64).max(1.0)
    }

    /// The probes, in their order.
    pub fn wanted(&self) -> &[Wanted] {
        &self.wanted
    }

    /// Hits that there were before any of its own.
    pub fn begin(&mut self, hits: &[u64]) {
        self.hits = self.sum(hits);
        self.first_hits = self.hits;
    }

    fn sum(&self, hits: &[u64]) -> u64 {
        self.numbers.iter().filter_map(|&number| hits.get(number as usize)).sum()
    }

    /// Sets the probes, in their order.
    pub fn set(&mut self, sampler: &mut Sampler, pid: u32) -> Result<()> {
        self.part = self.next_part();
        self.turn += 1;
        let probes = sampler.probe(pid, &self.active())?;
        self.state = State::Set(probes);
        // What setting them took is no time in which they could see.
        (self.since, self.set_ns) = (Instant::now(), monotonic_ns());
        self.is_due = false;
        if let Some(windows) = &mut self.windows {
            if windows.len() >= MAX_WINDOWS {
                *windows = in_pairs(windows);
            }
            windows.push(Window::from(self.set_ns));
        }
        Ok(())
    }

    /// Takes over probes that were set elsewhere at this time (`CLOCK_MONOTONIC`, nanoseconds), with so many hits since.
    pub fn adopt(&mut self, probes: Vec<Probes>, set_ns: u64, first_hits: u64) {
        self.state = State::Set(probes);
        let ago = Duration::from_nanos(monotonic_ns().saturating_sub(set_ns));
        (self.since, self.set_ns) = (Instant::now().checked_sub(ago).unwrap_or_else(Instant::now), set_ns);
        (self.hits, self.first_hits) = (first_hits, first_hits);
    }

    /// Takes over more probes, which are in the way while the others are away.
    pub fn adopt_more(&mut self, wanted: Vec<Wanted>, new: Vec<Probes>) {
        match &mut self.state {
            State::Set(probes) => drop(probes.splice(0..0, new)),
            State::Leaving(_) | State::Away => leaving::elsewhere(move || drop(new)),
        }
        self.wanted.splice(0..0, wanted);
    }

    /// More probes, from now on.
    pub fn add(&mut self, sampler: &mut Sampler, pid: u32, wanted: Vec<Wanted>) -> Result<()> {
        if let State::Set(probes) = &mut self.state {
            probes.splice(0..0, sampler.probe(pid, &wanted)?);
        }
        self.wanted.splice(0..0, wanted);
        Ok(())
    }

    /// Whether only one end has had probes for so long.
    pub fn is_partial_for(&self, time: Duration) -> bool {
        self.is_set() && self.part != Part::Whole && monotonic_ns().saturating_sub(self.set_ns) > time.as_nanos() as u64
    }

    /// Fails if the process has written over probes that are set. That is so when it is seen for the second time: one that has just
    /// become another program has none of them either, until that is heard of.
    pub fn is_as_it_was_set(&mut self, pid: u32) -> Result<(), Refused> {
        let result = self.has_traps(pid);
        let was_suspect = std::mem::replace(&mut self.is_suspect, result.is_err());
        if was_suspect { result } else { Ok(()) }
    }

    fn has_traps(&self, pid: u32) -> Result<(), Refused> {
        // It may have ended, which others tell of.
        let active = self.active();
        let Ok(text) = Text::of(pid, &active, &active) else { return Ok(()) };
        match text.without_trap()? {
            Some(at) => Err(Refused::patched(format!(
                "pid {pid} has taken the probe at {} away: it writes its own code",
                text.name(at)
            ))),
            None => Ok(()),
        }
    }

    /// Looks what there was since the last time, by the hits of all numbers.
    pub fn pass(&mut self, hits: &[u64], now: Instant) -> Passed {
        let hits = self.sum(hits);
        self.pass_all(hits, now)
    }

    /// The same with all hits of the group.
    pub fn pass_all(&mut self, hits: u64, now: Instant) -> Passed {
        let attached = self.attached;
        let passed = self.look(hits, now);
        if self.attached != attached
            && let Some(window) = self.windows.as_mut().and_then(|windows| windows.last_mut())
        {
            window.to_ns += (self.attached - attached).as_nanos() as u64;
        }
        passed
    }

    fn look(&mut self, hits: u64, now: Instant) -> Passed {
        let (new, elapsed) = (hits.saturating_sub(self.hits), now.saturating_duration_since(self.since));
        self.hits = hits;
        let mut passed = Passed { hits: new, is_clean: false, is_gone: false };
        match &mut self.state {
            State::Set(_) => {
                self.rate = new as f64 / elapsed.as_secs_f64().max(1e-6);
                self.attached += elapsed;
                self.rates += new as f64 * self.rate;
            }
            State::Leaving(leaving) => {
                let told = leaving.kernel.try_recv();
                if !leaving.has_begun {
                    let until = told.unwrap_or(now).min(now);
                    self.attached += until.saturating_duration_since(self.since);
                    leaving.has_begun = told.is_ok();
                }
                passed.is_gone = told == Err(TryRecvError::Disconnected);
                // From the moment when the program is taken from a probe to the one when the trap is taken from the code a
                // hit costs what it did, and nobody counts it.
                if !passed.is_gone && leaving.text.as_ref().is_none_or(|text| text.has_traps() == Some(true)) {
                    passed.hits = new.max((self.rate * elapsed.as_secs_f64()) as u64);
                } else {
                    self.clean += elapsed;
                    passed.is_clean = !std::mem::replace(&mut leaving.is_clean, true);
                }
                if passed.is_gone {
                    self.state = State::Away;
                }
            }
            State::Away => self.clean += elapsed,
        }
        self.since = now;
        passed
    }

    /// Takes the probes away, off this thread and all at once: the kernel waits for each. `is_off` if the programs see
    /// nothing already.
    pub fn take_away(&mut self, pid: u32, is_off: bool) {
        let State::Set(probes) = std::mem::replace(&mut self.state, State::Away) else { return };
        self.has_gone = true;
        let (tell, kernel) = channel();
        // The last first: a call whose beginning is seen has its end seen.
        for probes in probes.into_iter().rev() {
            let tell: Sender<Instant> = tell.clone();
            leaving::elsewhere(move || {
                hurry();
                let _ = tell.send(Instant::now());
                drop(probes);
                drop(tell);
            });
        }
        let active = self.active();
        let text = Text::of(pid, &active, &active).ok().filter(|text| !text.is_empty());
        self.state = State::Leaving(Leaving { kernel, has_begun: is_off, is_clean: false, text });
    }

    /// Takes the probes away, for good. The channel is closed when the kernel is done with it.
    pub fn end(mut self, pid: u32) -> Receiver<Instant> {
        self.take_away(pid, false);
        match self.state {
            State::Leaving(leaving) => leaving.kernel,
            State::Set(_) | State::Away => channel().1,
        }
    }

    /// Waits until they are gone.
    pub fn wait(&mut self) {
        if let State::Leaving(leaving) = &self.state {
            while leaving.kernel.recv().is_ok() {}
            self.state = State::Away;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_become_fewer_and_stand_for_as_much_time() {
        let window = |from_ns, to_ns| Window { from_ns, to_ns, is_joined: false };
        let pairs = in_pairs(&[window(10, 15), window(100, 110), window(200, 201)]);
        assert_eq!(pairs, [Window { is_joined: true, ..window(10, 25) }, window(200, 201)]);
    }
}
