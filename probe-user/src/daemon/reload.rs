//! Going on by another configuration: what is the same goes on undisturbed, what is new begins, what is gone ends.

use super::watcher::Watcher;
use crate::config::{Config, Sampling};
use crate::latency::{Definition, Registry};

impl Watcher {
    /// Takes over targets, functions and rules.
    pub(super) fn reload(&mut self, config: Config) {
        for section in restarts(&self.config, &config) {
            tracing::warn!("{section} has changed, which takes effect when the daemon is started again");
        }
        let Config { targets, functions, rules, sampling, .. } = &config;
        for gone in &self.config.functions {
            if !functions.iter().any(|function| function.name == gone.name) {
                self.functions.remove(&gone.name);
            }
        }
        for function in functions {
            if self.functions.get(&function.name).as_ref() != Some(function) {
                put(&self.functions, function);
            }
        }
        self.functions.set_budget(sampling.max_overhead);
        self.engine.replace(rules.iter().map(|rule| rule.rule.clone()).collect());
        self.rules.clone_from(rules);
        let (left, moved) = self.roster.replace(targets.clone());
        for pid in left {
            self.let_go(pid);
        }
        for (pid, recorded_as) in moved {
            let targets = self.roster.targets_of(pid);
            if let Some(name) = targets.first().filter(|name| **name != recorded_as)
                && let Err(error) = self.holds.watch(pid, name)
            {
                tracing::warn!("pid {pid} is still recorded as {recorded_as}: {error:#}");
            }
            self.functions.join(pid, targets);
        }
        let (targets, functions, rules) = (targets.len(), functions.len(), rules.len());
        self.config = config;
        self.rescan();
        tracing::info!("the configuration was read again: targets {targets}, functions {functions}, rules {rules}");
    }
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
        ("[[notify]]", before.channels != after.channels),
    ];
    changes.into_iter().filter(|(_, has_changed)| *has_changed).map(|(section, _)| section).collect()
}
