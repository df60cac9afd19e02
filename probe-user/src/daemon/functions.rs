//! Rules over functions: what the registry has seen of them is measured against their thresholds.

use std::sync::Arc;

use super::evidence::wall_ahead_ns;
use super::measure::{Tick, together};
use super::watcher::Watcher;
use crate::latency::Definition;
use crate::monitor::{self, Breach, Observation, Per, Subject, of_function};
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
        let rows = seen.rows.iter().map(|(key, seen)| (key, seen.row.calls, seen.row.avg_ns));
        self.chronicle.call_times.add(seen.at_ns, rows);
        let (at_ns, tick) = (seen.at_ns, Tick { from_ns, at_ns: seen.at_ns });
        for index in 0..self.rules.len() {
            let monitor::Rule { metric, target, function: Some(function), per, .. } = &self.rules[index].rule else {
                continue;
            };
            let (metric, target, is_of_service) = (*metric, target.clone(), *per == Per::Service);
            let function: Arc<str> = function.as_str().into();
            let row = |pid: u32| seen.rows.get(&(pid, Arc::clone(&function)));
            let value = |pid: u32| row(pid).and_then(|row| of_function(metric, row));
            if is_of_service {
                let pids = self.warm_members(index, &target, at_ns);
                let values = pids.into_iter().filter_map(|pid| Some((pid, value(pid)?)));
                let value = together(metric.fold(), values);
                self.observe_service(index, target.clone(), &target, value, 0, tick);
                continue;
            }
            let is_member = |pid: &u32| self.roster.targets_of(*pid).contains(&target);
            let pids: Vec<u32> = self.roster.members.keys().copied().filter(is_member).collect();
            for pid in pids {
                let started_ns = self.roster.members.get(&pid).map_or(0, |member| member.started_ns);
                self.observe(&Observation {
                    rule: index,
                    subject: Subject::Process(pid),
                    pid,
                    target: &target,
                    from_ns,
                    at_ns,
                    wall_ns: at_ns.saturating_add(wall_ahead_ns(at_ns)),
                    started_ns,
                    value: value(pid),
                });
            }
        }
    }

    /// The function of a breach, with its figures.
    pub(super) fn function(&self, breach: &Breach) -> Option<snapshot::Function> {
        let name = breach.function.clone()?;
        let Definition { group, symbol, .. } = self.functions.get(&name)?;
        let seen = self.functions.seen();
        let row = seen.rows.get(&(breach.pid, name.as_str().into())).map(|seen| seen.row.clone()).unwrap_or_default();
        Some(snapshot::Function { name, group, symbol, row })
    }
}
