//! Rules over functions: what the registry has seen of them is measured against their thresholds.

use super::watcher::Watcher;
use crate::latency::Definition;
use crate::monitor::{self, Breach, Observation, of_function};
use crate::snapshot;

/// How often the registry publishes what it sees.
const SECOND_NS: u64 = 1_000_000_000;

impl Watcher {
    /// Functions are looked at by others, every second as well.
    pub(super) fn measure_functions(&mut self) {
        let seen = self.functions.seen();
        if seen.at_ns == self.seen_ns {
            return;
        }
        let from_ns = if self.seen_ns == 0 { seen.at_ns.saturating_sub(SECOND_NS) } else { self.seen_ns };
        self.seen_ns = seen.at_ns;
        for index in 0..self.rules.len() {
            let monitor::Rule { metric, target, function: Some(function), .. } = &self.rules[index].rule else {
                continue;
            };
            let (metric, function) = (*metric, function.clone());
            let is_member = |pid: &u32| self.roster.targets_of(*pid).contains(target);
            let pids: Vec<u32> = self.roster.members.keys().copied().filter(is_member).collect();
            for pid in pids {
                let value = seen.rows.get(&(pid, function.clone())).and_then(|row| of_function(metric, row));
                self.observe(Observation { rule: index, pid, from_ns, at_ns: seen.at_ns, value });
            }
        }
    }

    /// The function of a breach, with its figures.
    pub(super) fn function(&self, breach: &Breach) -> Option<snapshot::Function> {
        let name = breach.function.clone()?;
        let Definition { group, symbol, .. } = self.functions.get(&name)?;
        let seen = self.functions.seen();
        let row = seen.rows.get(&(breach.pid, name.clone())).map(|seen| seen.row.clone()).unwrap_or_default();
        Some(snapshot::Function { name, group, symbol, row })
    }
}
