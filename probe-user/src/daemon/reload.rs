//! Going on by another configuration: what is the same goes on undisturbed, what is new begins, what is gone ends.

use std::collections::{BTreeMap, BTreeSet};

use super::roster::Roster;
use super::watcher::Watcher;
use crate::config::{Config, Rule, Sampling};
use crate::latency::{Definition, Registry};
use crate::monitor::{self, Subject};

impl Watcher {
    /// Takes over targets, functions and rules.
    pub(super) fn reload(&mut self, config: Config) {
        for section in restarts(&self.config, &config) {
            tracing::warn!("{section} has changed, which takes effect when the daemon is started again");
        }
        let Config { targets, functions, rules, sampling, .. } = &config;
        let named: BTreeSet<&str> = functions.iter().map(|function| &*function.name).collect();
        for gone in self.config.functions.iter().filter(|gone| !named.contains(&*gone.name)) {
            self.functions.remove(&gone.name);
        }
        for function in functions {
            if self.functions.get(&function.name).as_ref() != Some(function) {
                put(&self.functions, function);
            }
        }
        self.functions.set_budget(sampling.max_overhead);
        self.heaps.set_budget(sampling.max_overhead);
        let old: BTreeMap<&str, &Rule> = self.rules.iter().map(|rule| (&*rule.rule.name, rule)).collect();
        let is_same = |rule: &&Rule| old.get(&*rule.rule.name).is_some_and(|old| old.rule == rule.rule);
        let same: BTreeSet<&str> = rules.iter().filter(is_same).map(|rule| rule.rule.name.as_str()).collect();
        self.holds.pins.keep_rules(|name| same.contains(name));
        let monitored: Vec<_> = rules.iter().map(|rule| rule.rule.clone()).collect();
        let now_ns = self.scene.now_ns();
        for over in self.engine.replace(monitored.clone(), now_ns) {
            self.resolved(&over);
        }
        self.limits.replace(config.limits);
        self.rules.clone_from(rules);
        prefer(&self.functions, rules);
        let has_other_targets = !self.config.targets.iter().eq(targets);
        let (left, moved) = if has_other_targets { self.roster.replace(targets.clone()) } else { Default::default() };
        for pid in left {
            self.let_go(pid);
        }
        // A process may belong to other targets by now, and a service may be gone, under a rule that is the same.
        let roster = &self.roster;
        for over in self.engine.keep(|rule, subject| applies(roster, rule, subject), now_ns) {
            self.resolved(&over);
        }
        let by_name: BTreeMap<&str, &monitor::Rule> = monitored.iter().map(|rule| (&*rule.name, rule)).collect();
        let applies = |name: &str, subject: &Subject| {
            let rule = by_name.get(name).filter(|_| same.contains(name));
            rule.is_some_and(|rule| applies(&self.roster, rule, subject))
        };
        self.heaps.keep(applies);
        self.chronicle.keep_only(&monitored, applies);
        for (pid, recorded_as) in moved {
            let targets = self.roster.targets_of(pid);
            if let Some(name) = targets.first().filter(|name| **name != recorded_as)
                && let Err(error) = self.holds.watch(pid, name, self.waits_of(pid))
            {
                tracing::warn!("pid {pid} is still recorded as {recorded_as}: {error:#}");
            }
            self.functions.join(pid, targets);
        }
        self.follow_waits();
        for &pid in self.roster.members.keys() {
            self.heaps.always(pid, self.roster.is_live(pid));
        }
        let (targets, functions, rules) = (targets.len(), functions.len(), rules.len());
        self.config = config;
        if has_other_targets {
            self.rescan();
        }
        tracing::info!("the configuration has changed: targets {targets}, functions {functions}, rules {rules}");
    }
}

/// Whether a rule looks at something, as targets are now.
pub(super) fn applies(roster: &Roster, rule: &monitor::Rule, subject: &Subject) -> bool {
    match subject {
        Subject::Process(pid) => roster.targets_of(*pid).iter().any(|target| rule.applies_to(target)),
        // A rule about the host has one for all.
        Subject::Service(name) => *name == rule.target || rule.applies_to(name) && roster.has_target(name),
    }
}

/// What rules look at has to be new every second.
pub(super) fn prefer(registry: &Registry, rules: &[Rule]) {
    registry.prefer(rules.iter().filter_map(|rule| rule.rule.function.clone()).collect());
}

/// Has a function timed that is known to be right.
pub(super) fn put(registry: &Registry, function: &Definition) {
    if let Err(error) = registry.put(function.clone()) {
        tracing::error!("function {}: {error:#}", function.name);
    }
}

/// Sections that are only read at the start.
fn restarts(before: &Config, after: &Config) -> Vec<&'static str> {
    let without_budget = |sampling: Sampling| Sampling { max_overhead: 0.0, ..sampling };
    let changes = [
        ("[store]", before.store != after.store),
        ("[sampling]", without_budget(before.sampling) != without_budget(after.sampling)),
        ("[collector]", before.collector != after.collector),
    ];
    changes.into_iter().filter(|(_, has_changed)| *has_changed).map(|(section, _)| section).collect()
}

#[cfg(test)]
mod tests;
