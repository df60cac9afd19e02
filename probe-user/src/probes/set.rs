//! `ProbeSet`: the probes in a process, in groups that are set and taken away as a governor says.

use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::cost::setting_time;
use super::governor::{Governor, Verdict};
use super::group::{Group, Part, Passed, Window};
use super::leaving;
use crate::kernel::closer::hurry;
use crate::kernel::{Probes, Refused, Sampler, Wanted};
use crate::target::{descendants, latest_pid, monotonic_ns};

/// For so long only one end of a group's calls has probes, at most.
const LONGEST_PART: Duration = Duration::from_millis(200);
/// How often it is looked for children that have inherited probes.
const SWEEP: Duration = Duration::from_secs(1);

/// To take probes away takes as much processor time as to set them, and the threads that do so as much again.
const TO_AND_FRO: u32 = 3;

/// Probes in a process. Dropping it waits until they are gone.
pub struct ProbeSet {
    pid: u32,
    /// By the names that they were given, in the order of the governor.
    groups: Vec<(u32, Group)>,
    governor: Governor,
    hit_cost: Duration,
    started: Instant,
    looked: Instant,
    /// All probes were set then, and stay.
    is_at_rest: bool,
    /// Descendants of the process, and when they were looked for.
    children: Vec<u32>,
    swept: Instant,
    /// The latest pid of the host at the last two of these times.
    latest_pids: [Option<u32>; 2],
    /// What they had cost besides hits, where that is told.
    besides: Duration,
    /// Whoever switches what the probes of a group see on and off.
    switch: Option<Switch>,
    /// Groups that are not set again, and why.
    refused: Vec<(u32, Refused)>,
}

/// Told of each [`Moment`] in the life of the probes of a group, by its name.
pub type Switch = Box<dyn FnMut(&mut Sampler, u32, Moment) -> Result<()> + Send>;

/// What becomes of the probes of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// These of them are about to be set.
    Before(Part),
    /// They are set, since then (`CLOCK_MONOTONIC` in nanoseconds).
    Set(u64),
    /// They are about to be taken away: nobody is to see a part of what goes on meanwhile.
    Leaving,
    /// None of their traps is in the code any more.
    Clean,
    /// They are gone.
    Gone,
}

/// What has become of the probes of a set of one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing new.
    Nothing,
    /// They are gone: whatever was going on when they went, nobody has seen its end.
    Gone,
    /// They are set again.
    Set,
}

impl ProbeSet {
    /// No probes yet. `budget` is a share of one core, for all of them together; `hit_cost` is what a hit costs here. From
    /// now on this thread comes before others: windows have to end in time.
    pub fn new(pid: u32, budget: f64, hit_cost: Duration) -> Self {
        hurry();
        let (now, children) = (Instant::now(), descendants(pid));
        let governor = Governor::new(budget, 0, monotonic_ns());
        let (groups, besides) = (Vec::new(), Duration::ZERO);
        Self {
            pid,
            groups,
            governor,
            hit_cost,
            started: now,
            looked: now,
            is_at_rest: false,
            children,
            swept: now,
            latest_pids: [None; 2],
            besides,
            switch: None,
            refused: Vec::new(),
        }
    }

    /// What its probes see is switched on and off.
    pub fn switched(mut self, switch: Switch) -> Self {
        self.switch = Some(switch);
        self
    }

    /// Sets the probes of each group, in their order; the groups are named by their numbers from 0 on.
    pub fn set(
        sampler: &mut Sampler,
        pid: u32,
        groups: Vec<Vec<Wanted>>,
        budget: f64,
        hit_cost: Duration,
    ) -> Result<Self> {
        let mut set = Self::new(pid, budget, hit_cost);
        for (name, wanted) in (0..).zip(groups) {
            set.add_group(sampler, name, wanted)?;
        }
        // What was seen before the last one was set is seen by few.
        (set.started, set.looked) = (Instant::now(), Instant::now());
        Ok(set)
    }

    /// Sets the probes of one more group, in their order.
    pub fn add_group(&mut self, sampler: &mut Sampler, name: u32, wanted: Vec<Wanted>) -> Result<()> {
        self.is_at_rest = false;
        let mut group = Group::new(wanted);
        group.begin(&sampler.hits());
        let begin = setting_time();
        group.set(sampler, self.pid)?;
        self.governor.changed(TO_AND_FRO * setting_time().saturating_sub(begin));
        tell(&mut self.switch, sampler, name, Moment::Set(group.set_ns))?;
        self.groups.push((name, group));
        self.governor.add();
        Ok(())
    }

    /// Has the beginnings and the ends of a group's calls probed apart by turns, when its probes cannot stay all the time.
    pub fn set_in_parts(&mut self, name: u32) {
        for (_, group) in self.groups.iter_mut().filter(|(known, _)| *known == name) {
            group.has_parts = true;
        }
    }

    /// Takes over probes that were set elsewhere, as the only group, or as more of it. `set_ns` is when they were
    /// (`CLOCK_MONOTONIC`, nanoseconds), `paid` the hits that there were before and what they had cost besides.
    pub fn adopt(&mut self, name: u32, wanted: Vec<Wanted>, probes: Vec<Probes>, set_ns: u64, paid: (u64, Duration)) {
        if let Some((_, group)) = self.groups.iter_mut().find(|(known, _)| *known == name) {
            return group.adopt_more(wanted, probes);
        }
        let mut group = Group::new(wanted);
        group.adopt(probes, set_ns, paid.0);
        self.besides = paid.1;
        self.groups.push((name, group));
        self.governor.add();
    }

    /// More probes of a group, from now on; they are set before the others.
    pub fn add(&mut self, sampler: &mut Sampler, name: u32, wanted: Vec<Wanted>) -> Result<()> {
        self.is_at_rest = false;
        match self.groups.iter_mut().find(|(known, _)| *known == name) {
            Some((_, group)) => group.add(sampler, self.pid, wanted),
            None => Ok(()),
        }
    }

    /// Takes the probes of a group away, for good. The channel is closed when the kernel is done with it.
    pub fn remove(&mut self, name: u32) -> Option<Receiver<Instant>> {
        let at = self.groups.iter().position(|(known, _)| *known == name)?;
        self.governor.remove(at);
        Some(self.groups.remove(at).1.end(self.pid))
    }

    /// Takes all away, for good, without waiting; the channels are closed when the kernel is done.
    pub fn end(mut self) -> Vec<Receiver<Instant>> {
        std::mem::take(&mut self.groups).into_iter().map(|(_, group)| group.end(self.pid)).collect()
    }

    /// True without any group.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Another share of one core that all may cost.
    pub fn set_budget(&mut self, budget: f64) {
        self.governor.set_budget(budget);
    }

    /// Since when they are watched over.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    fn group(&self, name: u32) -> Option<&Group> {
        self.groups.iter().find(|(known, _)| *known == name).map(|(_, group)| group)
    }

    /// True while much is left of what all probes may cost.
    pub fn has_reserve(&self) -> bool {
        self.governor.has_reserve()
    }

    /// When it was looked at last, if all probes were set then and stay as long as nothing hits them: nothing is missed
    /// if it is not looked at again before.
    pub fn at_rest_since(&self) -> Option<Instant> {
        self.is_at_rest.then_some(self.looked)
    }

    /// True unless probes are on their way out.
    pub fn is_steady(&self) -> bool {
        self.groups.iter().all(|(_, group)| group.is_set() || group.is_away())
    }

    /// Since when all of a group's probes are set, `CLOCK_MONOTONIC` in nanoseconds; `None` if they are not.
    pub fn set_since(&self, name: u32) -> Option<u64> {
        self.group(name).filter(|group| group.is_set() && group.is_whole()).map(|group| group.set_ns)
    }

    /// True if a group's probes have been set ever since: everything was seen.
    pub fn is_always_set(&self, name: u32) -> bool {
        self.group(name).is_some_and(Group::is_always_set)
    }

    /// For how long a group's probes were set.
    pub fn attached(&self, name: u32) -> Duration {
        self.group(name).map(Group::attached).unwrap_or_default()
    }

    /// For how long there was no trap of a group in the target's code.
    pub fn clean(&self, name: u32) -> Duration {
        self.group(name).map(Group::clean).unwrap_or_default()
    }

    /// The share of the time in which a group's probes were set, from 0 to 1.
    pub fn attached_share(&self, name: u32) -> f64 {
        let elapsed = self.looked.saturating_duration_since(self.started).as_secs_f64();
        if elapsed > 0.0 { (self.attached(name).as_secs_f64() / elapsed).min(1.0) } else { 1.0 }
    }

    /// What a group's probes cost while calls were counted: a share of one core. If that is much they slow down what they
    /// count.
    pub fn load(&self, name: u32) -> f64 {
        self.group(name).map_or(0.0, Group::rate_of_hits) * self.hit_cost.as_secs_f64()
    }

    /// Keeps the budget: to be called every few milliseconds, because until then more than the budget may be spent. Returns
    /// the groups whose probes are gone now: whatever was going on when they went, nobody has seen its end.
    pub fn look(&mut self, sampler: &mut Sampler) -> Result<Vec<u32>> {
        let hits = sampler.hits();
        self.observe(sampler, &hits, Instant::now())
    }

    /// The same for a set of one group whose hits are counted elsewhere: how many there were so far, and what they have cost
    /// besides.
    pub fn look_at(&mut self, sampler: &mut Sampler, hits: u64, besides: Duration) -> Result<Change> {
        let more = besides.saturating_sub(self.besides);
        self.besides = besides;
        let was_set = self.groups.first().map(|(_, group)| group.set_ns);
        let gone = self.govern(sampler, Instant::now(), more, |group, now| group.pass_all(hits, now))?;
        if let Some((_, refused)) = self.refused.pop() {
            return Err(refused.into());
        }
        Ok(match was_set == self.groups.first().map(|(_, group)| group.set_ns) {
            false => Change::Set,
            true if gone.is_empty() => Change::Nothing,
            true => Change::Gone,
        })
    }

    /// Groups whose probes are away for good since the last call, because the process has patched its code meanwhile.
    pub fn take_refused(&mut self) -> Vec<(u32, Refused)> {
        std::mem::take(&mut self.refused)
    }

    /// The times in which a group's probes were set, oldest first; the last one may go on. Only where [`Self::keep_windows`]
    /// was asked for.
    pub fn windows(&self, name: u32) -> &[Window] {
        self.group(name).map(Group::windows).unwrap_or_default()
    }

    /// Remembers from now on when probes were set: one or two times a second at most.
    pub fn keep_windows(&mut self) {
        for (_, group) in &mut self.groups {
            group.keep_windows();
        }
    }

    /// The same for one of several sets, with the hits that [`Sampler::hits`] has told, and when.
    pub fn observe(&mut self, sampler: &mut Sampler, hits: &[u64], now: Instant) -> Result<Vec<u32>> {
        self.govern(sampler, now, Duration::ZERO, |group, now| group.pass(hits, now))
    }

    /// Asks the governor, with what each group has paid since the last time, and `besides` for each of them.
    fn govern(
        &mut self,
        sampler: &mut Sampler,
        now: Instant,
        besides: Duration,
        pass: impl Fn(&mut Group, Instant) -> Passed,
    ) -> Result<Vec<u32>> {
        let elapsed = now.saturating_duration_since(self.looked);
        self.looked = now;
        let (mut clean, mut gone, mut costs) = (Vec::new(), Vec::new(), Vec::with_capacity(self.groups.len()));
        for (name, group) in &mut self.groups {
            let passed = pass(group, now);
            costs.push(self.hit_cost.mul_f64(passed.hits as f64) + besides);
            clean.extend(passed.is_clean.then_some(*name));
            gone.extend(passed.is_gone.then_some(*name));
        }
        for name in &clean {
            tell(&mut self.switch, sampler, *name, Moment::Clean)?;
        }
        for name in &gone {
            tell(&mut self.switch, sampler, *name, Moment::Gone)?;
        }
        for ((name, group), verdict) in self.groups.iter_mut().zip(self.governor.observe(&costs, elapsed)) {
            match verdict {
                Verdict::TakeAway => {
                    tell(&mut self.switch, sampler, *name, Moment::Leaving)?;
                    group.take_away(self.pid, self.switch.is_some());
                }
                Verdict::SetAgain => group.is_due = true,
                // Where the budget lasts, all of them stay: with probes at one end only no call is timed.
                Verdict::AsTheyAre if group.is_partial_for(LONGEST_PART) => {
                    tell(&mut self.switch, sampler, *name, Moment::Leaving)?;
                    group.take_away(self.pid, self.switch.is_some());
                    group.is_due = true;
                }
                Verdict::AsTheyAre => {}
            }
        }
        for (name, group) in &mut self.groups {
            // Whoever is told that they are gone has until the next look to forget what they saw last.
            if group.is_due && group.is_away() && !gone.contains(name) {
                tell(&mut self.switch, sampler, *name, Moment::Before(group.next_part()))?;
                let begin = setting_time();
                if let Err(error) = group.set(sampler, self.pid) {
                    let refused = error.downcast::<Refused>()?;
                    group.is_due = false;
                    self.refused.push((*name, refused));
                    continue;
                }
                self.governor.changed(TO_AND_FRO * setting_time().saturating_sub(begin));
                tell(&mut self.switch, sampler, *name, Moment::Set(group.set_ns))?;
            }
        }
        self.is_at_rest = self.governor.has_reserve()
            && self.groups.iter().all(|(_, group)| group.is_set() && !group.is_partial_for(Duration::ZERO));
        if now.saturating_duration_since(self.swept) >= SWEEP {
            self.swept = now;
            self.check(sampler)?;
            self.sweep(sampler);
        }
        Ok(gone)
    }

    /// Takes probes away for good where the process has patched its code since they were set: they would see nothing. What it
    /// has written stays, because the kernel takes nothing away where its trap is not.
    fn check(&mut self, sampler: &mut Sampler) -> Result<()> {
        for (name, group) in self.groups.iter_mut().filter(|(_, group)| group.is_set()) {
            let Err(refused) = group.is_as_it_was_set(self.pid) else { continue };
            tell(&mut self.switch, sampler, *name, Moment::Leaving)?;
            group.take_away(self.pid, self.switch.is_some());
            self.refused.push((*name, refused));
        }
        Ok(())
    }

    /// Frees new children of probes that came with their parent's memory: they would cost, and nobody would count that.
    fn sweep(&mut self, sampler: &mut Sampler) {
        // Twice: a child has its pid before its parent knows of it.
        let ([earlier, last], now) = (self.latest_pids, latest_pid());
        self.latest_pids = [last, now];
        if now.is_some() && earlier == now && last == now {
            return;
        }
        let children = descendants(self.pid);
        let is_new = children.iter().any(|child| !self.children.contains(child));
        self.children = children;
        if !is_new {
            return;
        }
        for (_, group) in self.groups.iter().filter(|(_, group)| group.is_set()) {
            let links = sampler.sweep(self.pid, group.wanted());
            leaving::elsewhere(move || drop(links));
        }
    }
}

fn tell(switch: &mut Option<Switch>, sampler: &mut Sampler, name: u32, moment: Moment) -> Result<()> {
    switch.as_mut().map_or(Ok(()), |switch| switch(sampler, name, moment))
}

impl Drop for ProbeSet {
    fn drop(&mut self) {
        for (_, group) in &mut self.groups {
            group.take_away(self.pid, false);
        }
        for (_, group) in &mut self.groups {
            group.wait();
        }
    }
}
