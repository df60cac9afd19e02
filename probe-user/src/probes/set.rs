//! `ProbeSet`: probes that are set and taken away together, as a governor says.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::governor::{Governor, Verdict};
use super::traps::Traps;
use crate::kernel::{Probe, Role, Sampler};
use crate::target::monotonic_ns;

/// A probe that is to be set.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The file.
    pub file: PathBuf,
    /// Where in the file.
    pub offset: u64,
    /// What it is for.
    pub role: Role,
    /// What the programs know it by.
    pub number: u32,
}

/// What has become of the probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing new.
    Nothing,
    /// They are gone: whatever was going on when they went, nobody has seen its end.
    Gone,
    /// They are set again.
    Set,
}

/// Probes in a process.
pub struct ProbeSet {
    pid: u32,
    /// In the order in which they are set.
    wanted: Vec<Wanted>,
    governor: Governor,
    state: State,
    /// They are to be set again as soon as they are gone.
    is_due: bool,
    started: Instant,
    looked: Instant,
    hits: u64,
    /// Hits a second when the probes were last set.
    rate: f64,
    /// What they had cost besides hits.
    besides: Duration,
    /// Time in which the probes were set.
    attached: Duration,
    /// The same in pieces: one or two a second at most.
    windows: Vec<Window>,
}

/// A time in which probes were set, `CLOCK_MONOTONIC` in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Its beginning.
    pub from_ns: u64,
    /// Its end.
    pub to_ns: u64,
}

enum State {
    Set(Vec<Probe>),
    /// They are on their way out; the channel tells when the kernel began to take them away, `CLOCK_MONOTONIC`, and by being
    /// closed that it is done, which is later than when they are gone from the code.
    Leaving(Receiver<u64>, Option<Traps>),
    Away,
}

impl ProbeSet {
    /// Sets the probes, in their order. `hits` is what their counter tells of now.
    pub fn set(sampler: &mut Sampler, pid: u32, wanted: Vec<Wanted>, governor: Governor, hits: u64) -> Result<Self> {
        let now = Instant::now();
        let mut set = Self {
            pid,
            wanted,
            governor,
            state: State::Away,
            is_due: false,
            started: now,
            looked: now,
            hits,
            rate: 0.0,
            besides: Duration::ZERO,
            attached: Duration::ZERO,
            windows: Vec::new(),
        };
        set.set_all(sampler)?;
        set.started = Instant::now();
        set.looked = set.started;
        Ok(set)
    }

    /// Since when they are watched over.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// True while the probes are set.
    pub fn is_set(&self) -> bool {
        matches!(self.state, State::Set(_))
    }

    /// The share of the time in which they were set, from 0 to 1.
    pub fn attached_share(&self) -> f64 {
        (self.attached.as_secs_f64() / self.elapsed().as_secs_f64()).min(1.0)
    }

    /// The times in which they were set, `CLOCK_MONOTONIC`, oldest first. The last one may go on.
    pub fn windows(&self) -> &[Window] {
        &self.windows
    }

    /// Keeps the budget: to be called every few milliseconds, because until then more than the budget may be spent.
    pub fn look(&mut self, sampler: &mut Sampler) -> Result<Change> {
        let hits = sampler.hits()?;
        self.look_at(sampler, hits, Duration::ZERO)
    }

    /// The same for probes that have a counter of their own: the hits that it tells of so far, and what else they have cost.
    pub fn look_at(&mut self, sampler: &mut Sampler, hits: u64, besides: Duration) -> Result<Change> {
        let new = hits.saturating_sub(self.hits);
        let elapsed = self.looked.elapsed();
        let more = besides.saturating_sub(self.besides);
        (self.hits, self.besides, self.looked) = (hits, besides, Instant::now());
        let (mut cost, mut change) = (new, Change::Nothing);
        let state = std::mem::replace(&mut self.state, State::Away);
        self.state = match state {
            State::Set(probes) => {
                self.attach_until(monotonic_ns());
                // Some were there while the others were set.
                self.rate = new as f64 / elapsed.as_secs_f64().max(1e-3);
                State::Set(probes)
            }
            // The kernel first takes the program from a probe, then waits some 100 ms, then takes the probe: meanwhile it
            // costs what it did, and nobody counts (kernel/trace/bpf_trace.c, perf_event_detach_bpf_prog).
            State::Leaving(kernel, traps) => {
                let mut told = kernel.try_recv();
                while let Ok(began_ns) = told {
                    self.attach_until(began_ns);
                    told = kernel.try_recv();
                }
                if told == Err(TryRecvError::Disconnected) {
                    change = Change::Gone;
                    State::Away
                } else {
                    if traps.as_ref().is_none_or(|traps| traps.are_there() == Some(true)) {
                        cost = new.max((self.rate * elapsed.as_secs_f64()) as u64);
                    }
                    State::Leaving(kernel, traps)
                }
            }
            State::Away => State::Away,
        };
        let verdict = self.governor.observe(cost, more, elapsed);
        if verdict != Verdict::AsTheyAre || change != Change::Nothing {
            tracing::debug!(pid = self.pid, hits, ?besides, ?verdict, ?change, rate = self.rate as u64, "probes");
        }
        match verdict {
            Verdict::TakeAway => self.take_away(),
            Verdict::SetAgain => self.is_due = true,
            Verdict::AsTheyAre => {}
        }
        // Whoever is told that they are gone has until the next look to forget what they saw last.
        if self.is_due && change == Change::Nothing && matches!(self.state, State::Away) {
            self.is_due = false;
            self.set_all(sampler)?;
            change = Change::Set;
        }
        Ok(change)
    }

    /// They have seen everything until now.
    fn attach_until(&mut self, now_ns: u64) {
        if let Some(window) = self.windows.last_mut() {
            self.attached += Duration::from_nanos(now_ns.saturating_sub(window.to_ns));
            window.to_ns = window.to_ns.max(now_ns);
        }
    }

    fn set_all(&mut self, sampler: &mut Sampler) -> Result<()> {
        let mut probes = Vec::new();
        for alike in self.wanted.chunk_by(|one, other| one.role == other.role && one.file == other.file) {
            let places: Vec<(u64, u64)> = alike.iter().map(|wanted| (wanted.offset, wanted.number.into())).collect();
            probes.extend(sampler.probe_many(self.pid, &alike[0].file, alike[0].role, &places)?);
        }
        // What setting them took is no time in which they could see.
        self.looked = Instant::now();
        let now_ns = monotonic_ns();
        self.windows.push(Window { from_ns: now_ns, to_ns: now_ns });
        self.state = State::Set(probes);
        Ok(())
    }

    /// Takes them away for good.
    pub fn end(&mut self) {
        self.is_due = false;
        self.take_away();
    }

    /// Off this thread, and all at once: the kernel waits some 100 ms for each.
    fn take_away(&mut self) {
        let State::Set(probes) = std::mem::replace(&mut self.state, State::Away) else { return };
        let (tell, done) = channel();
        for probe in probes {
            let tell = tell.clone();
            std::thread::spawn(move || {
                let _ = tell.send(monotonic_ns());
                drop(probe);
                drop(tell);
            });
        }
        drop(tell);
        self.state = State::Leaving(done, Traps::of(self.pid, &self.wanted));
    }
}
