//! Measuring: once a second what the rules ask of the host, of each member, and of the members of a service together.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use super::evidence::wall_ahead_ns;
use super::figures::{Asked, Known};
use super::roster::Member;
use super::timeline::Reading;
use super::watcher::Watcher;
use crate::monitor::{ANY_TARGET, Fold, Metric, Observation, Per, Scope, Subject};
use crate::target::{HostCpu, OfGroups, host_memory_percent};

/// Shortest interval that is measured: CPU time has a grain of 10 ms, which would be 10 percent of 100 ms.
const MIN_INTERVAL: Duration = Duration::from_millis(500);

/// Processes that are looked at every second even if they are far from breaking a rule and nothing was seen of them; where
/// there are more, each of these is looked at every second to fifth second.
const AT_ONCE: usize = 100;
const MAX_TURNS: u32 = 5;

/// Times of what is observed in a tick.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tick {
    pub(super) from_ns: u64,
    pub(super) at_ns: u64,
}

/// What holds for all processes that are measured one after the other.
struct Round {
    /// By targets, as indexes.
    asked: HashMap<Vec<usize>, OfTargets>,
    groups: OfGroups,
    wall_ahead_ns: u64,
}

/// What is asked of processes that belong to the same targets.
struct OfTargets {
    asked: BTreeSet<Asked>,
    /// Each rule with the target for which they break it.
    rules: Vec<(usize, String)>,
}

impl Watcher {
    pub(super) fn measure(&mut self) {
        if let Some(cpu) = HostCpu::read() {
            self.host_percent = self.host_cpu.map_or(0.0, |earlier| cpu.percent_since(&earlier));
            self.host_cpu = Some(cpu);
        }
        let turns = (self.roster.members.len().div_ceil(AT_ONCE) as u32).clamp(1, MAX_TURNS);
        self.turn = self.turn.wrapping_add(1);
        let active = if turns == 1 { BTreeSet::new() } else { self.scene.active().unwrap_or_default() };
        // Where there are many, those that are far from any breach and at rest are looked at by turns.
        let is_due = |(pid, member): &(&u32, &Member)| {
            let is_at_rest = member.is_far && !self.hurried.contains(pid) && !active.contains(pid);
            !is_at_rest || pid.wrapping_add(self.turn).is_multiple_of(turns)
        };
        let pids: Vec<u32> = self.roster.members.iter().filter(is_due).map(|(pid, _)| *pid).collect();
        let now_ns = self.scene.now_ns();
        let mut round = Round { asked: HashMap::new(), groups: OfGroups::now(), wall_ahead_ns: wall_ahead_ns(now_ns) };
        for pid in pids {
            self.measure_member(pid, &mut round);
        }
        let at_ns = self.scene.now_ns();
        self.chronicle.timeline.trim(at_ns);
        let tick = Tick { from_ns: self.measured_ns, at_ns };
        if at_ns.saturating_sub(self.measured_ns) >= MIN_INTERVAL.as_nanos() as u64 {
            self.measured_ns = at_ns;
            self.measure_host(tick);
            self.measure_services(tick);
        }
    }

    fn measure_member(&mut self, pid: u32, round: &mut Round) {
        let Some(member) = self.roster.members.get_mut(&pid) else { return };
        let at_ns = self.scene.now_ns();
        let Some(stat) = member.files.stat().filter(|stat| stat.start_ticks == member.stat.start_ticks) else {
            self.roster.members.remove(&pid);
            self.let_go(pid);
            return;
        };
        let elapsed = Duration::from_nanos(at_ns.saturating_sub(member.read_ns));
        if elapsed < MIN_INTERVAL {
            return;
        }
        let value = stat.cpu_percent_since(&member.stat, elapsed);
        let from_ns = std::mem::replace(&mut member.read_ns, at_ns);
        (member.stat, member.cpu_percent) = (stat, value.unwrap_or_default());
        let reading = Reading {
            at_ns,
            cpu_percent: member.cpu_percent,
            rss_bytes: member.stat.rss_bytes,
            threads: member.stat.threads,
            host_cpu_percent: self.host_percent,
        };
        self.chronicle.timeline.process(pid, reading);
        let started_ns = member.started_ns;
        let Round { asked, groups, wall_ahead_ns } = round;
        let indexes = member.targets.clone();
        let of_targets = asked.entry(indexes).or_insert_with(|| self.of_targets(pid));
        let OfTargets { asked, rules } = of_targets;
        let Some(member) = self.roster.members.get_mut(&pid) else { return };
        member.bounds.read(pid, asked, groups);
        if asked.iter().any(|(metric, _)| metric.is_memory()) {
            member.memory.add(at_ns, member.files.resident_bytes(), member.bounds.memory);
        }
        let Member { files, bounds, figures, stat, .. } = member;
        let known = Known { bounds, stat, cpu_percent: value, cpus: self.host.cpus, elapsed };
        figures.read(files, known, asked, groups);
        let of_service = |index: &usize| self.rules[*index].rule.per == Per::Service;
        let values = rules.iter().filter(|(index, _)| !of_service(index));
        let values: Vec<(usize, &String, Option<f64>)> =
            values.map(|(index, target)| (*index, target, self.value(pid, *index))).collect();
        let named = values.iter().map(|(index, _, value)| (self.rules[*index].rule.name.as_str(), *value));
        let is_new = self.chronicle.timeline.rules(pid, at_ns, named);
        let is_far = values.iter().all(|(index, _, value)| self.rules[*index].rule.condition.is_far_from(*value));
        if let Some(member) = self.roster.members.get_mut(&pid) {
            member.is_far = is_far;
        }
        for (rule, target, value) in values {
            let seen = Observation {
                rule,
                subject: Subject::Process(pid),
                pid,
                target,
                from_ns,
                at_ns,
                wall_ns: at_ns.saturating_add(*wall_ahead_ns),
                started_ns,
                value,
            };
            if is_new {
                self.chronicle.seen(&self.rules[rule].rule, &seen);
            }
            self.decide(&seen);
        }
    }

    /// What is asked of the processes that belong to the same targets as this one.
    fn of_targets(&self, pid: u32) -> OfTargets {
        let targets = self.roster.targets_of(pid);
        let applies = |index: &usize| {
            let rule = &self.rules[*index].rule;
            rule.metric.scope() == Scope::Process && targets.iter().any(|target| rule.applies_to(target))
        };
        let rules: Vec<usize> = (0..self.rules.len()).filter(applies).collect();
        OfTargets {
            asked: rules.iter().map(|&index| self.asked(index)).collect(),
            rules: rules.into_iter().map(|index| (index, self.target_for(index, &targets))).collect(),
        }
    }

    /// What a rule asks of a process.
    fn asked(&self, rule: usize) -> Asked {
        let rule = &self.rules[rule].rule;
        (rule.metric, rule.per == Per::Thread)
    }

    /// The latest value of a process for a rule.
    fn value(&self, pid: u32, rule: usize) -> Option<f64> {
        let member = self.roster.members.get(&pid)?;
        let asked = self.asked(rule);
        if asked.0.is_memory() { member.memory.value(asked.0) } else { member.figures.value(asked) }
    }

    /// The target for which a process breaks a rule.
    pub(super) fn target_for(&self, rule: usize, targets: &[String]) -> String {
        let rule = &self.rules[rule].rule;
        targets.iter().find(|target| rule.applies_to(target)).unwrap_or(&rule.target).clone()
    }

    /// Members of a target, or of all.
    pub(super) fn members_of(&self, target: &str) -> impl Iterator<Item = u32> {
        let is_its = move |&index: &usize| self.roster.target_name(index) == target;
        let is_member = move |(_, member): &(&u32, &Member)| target == ANY_TARGET || member.targets.iter().any(is_its);
        self.roster.members.iter().filter(is_member).map(|(pid, _)| *pid)
    }

    fn measure_host(&mut self, tick: Tick) {
        for index in 0..self.rules.len() {
            let rule = &self.rules[index].rule;
            let (value, of_member): (_, fn(&Member) -> f64) = match rule.metric {
                Metric::HostCpu => (Some(self.host_percent), |member| member.cpu_percent),
                Metric::HostMemory => (host_memory_percent(), |member| member.stat.rss_bytes as f64),
                _ => continue,
            };
            let target = rule.target.clone();
            let weight = |pid: &u32| self.roster.members.get(pid).map_or(0.0, of_member);
            let busiest = self.members_of(&target).max_by(|one, other| weight(one).total_cmp(&weight(other)));
            let of = busiest.map(|pid| self.target_for(index, &self.roster.targets_of(pid)));
            // Without a process there is nothing to be shown.
            let value = busiest.and(value).map(|value| (busiest.unwrap_or_default(), value));
            self.observe_service(index, target.clone(), &of.unwrap_or(target), value, self.started_ns, tick);
        }
    }

    fn measure_services(&mut self, tick: Tick) {
        for index in 0..self.rules.len() {
            let rule = &self.rules[index].rule;
            if rule.per != Per::Service || rule.metric.scope() != Scope::Process {
                continue;
            }
            let fold = rule.metric.fold();
            for target in self.services(index) {
                let values = self.warm_members(index, &target, tick.at_ns);
                let values = values.into_iter().filter_map(|pid| Some((pid, self.value(pid, index)?)));
                let value = together(fold, values);
                self.observe_service(index, target.clone(), &target, value, 0, tick);
            }
        }
    }

    /// The services that a rule looks at.
    pub(super) fn services(&self, rule: usize) -> Vec<String> {
        let rule = &self.rules[rule].rule;
        let names = (0..self.roster.target_count()).map(|index| self.roster.target_name(index));
        names.filter(|name| rule.applies_to(name)).map(str::to_owned).collect()
    }

    /// The members of a service that have warmed up.
    pub(super) fn warm_members(&self, rule: usize, target: &str, now_ns: u64) -> Vec<u32> {
        let warm_up = self.rules[rule].rule.warm_up_ns;
        let is_warm = |pid: &u32| {
            self.roster.members.get(pid).is_some_and(|member| now_ns >= member.started_ns.saturating_add(warm_up))
        };
        self.members_of(target).filter(is_warm).collect()
    }

    /// A value of all processes of a service, with the process that has most part in it.
    pub(super) fn observe_service(
        &mut self,
        rule: usize,
        service: String,
        target: &str,
        value: Option<(u32, f64)>,
        started_ns: u64,
        Tick { from_ns, at_ns }: Tick,
    ) {
        self.observe(&Observation {
            rule,
            subject: Subject::Service(service),
            pid: value.map_or(0, |(pid, _)| pid),
            target,
            from_ns,
            at_ns,
            wall_ns: at_ns.saturating_add(wall_ahead_ns(at_ns)),
            started_ns,
            value: value.map(|(_, value)| value),
        });
    }

    /// Processes of which something may become a breach, or is one, are sampled more often.
    pub(super) fn follow_heat(&mut self) {
        let hot = self.engine.hot();
        let members = &self.roster.members;
        let hot: BTreeSet<u32> = hot.into_iter().filter(|pid| members.contains_key(pid)).collect();
        let changed: BTreeMap<u32, bool> =
            hot.symmetric_difference(&self.hurried).map(|pid| (*pid, hot.contains(pid))).collect();
        for (pid, is_hurried) in changed {
            match self.scene.hurry(pid, is_hurried) {
                Ok(()) => {
                    tracing::debug!("pid {pid}: sampled {}", if is_hurried { "faster" } else { "as usual again" })
                }
                Err(error) => tracing::warn!("pid {pid} is sampled as before: {error:#}"),
            }
        }
        self.hurried = hot;
    }
}

/// The values of a service's processes as one, with the process that has most part in it.
pub(super) fn together(fold: Fold, values: impl Iterator<Item = (u32, f64)>) -> Option<(u32, f64)> {
    let by_value = |one: &(u32, f64), other: &(u32, f64)| one.1.total_cmp(&other.1);
    match fold {
        Fold::Highest => values.max_by(by_value),
        Fold::Lowest => values.min_by(by_value),
        Fold::Sum => {
            let values: Vec<(u32, f64)> = values.collect();
            let (pid, _) = *values.iter().max_by(|one, other| by_value(one, other))?;
            Some((pid, values.iter().map(|(_, value)| value).sum()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_a_service_become_one() {
        let values = || [(7, 10.0), (8, 30.0), (9, 20.0)].into_iter();
        assert_eq!(together(Fold::Sum, values()), Some((8, 60.0)));
        assert_eq!(together(Fold::Highest, values()), Some((8, 30.0)));
        assert_eq!(together(Fold::Lowest, values()), Some((7, 10.0)));
        assert_eq!(together(Fold::Sum, std::iter::empty()), None);
    }
}
