//! What the collector knows, as metrics: of itself, of targets, functions and rules. Processes of a target are added up
//! (of times the worst is taken), because an id of a process is no label.

use std::collections::BTreeMap;

use serde_json::Value;

use super::exposition::{Exposition, Kind};
use crate::control::{Definition, FunctionState, RuleState, State, Status, TargetState};
use crate::latency::Row;

/// What was asked of the collector at once.
pub struct Live {
    pub status: Status,
    pub targets: Vec<TargetState>,
    pub functions: Vec<FunctionState>,
    pub rules: Vec<RuleState>,
}

impl Live {
    pub fn write(&self, text: &mut Exposition) {
        self.status(text);
        self.targets(text);
        self.functions(text);
        self.rules(text);
    }

    fn status(&self, text: &mut Exposition) {
        use Kind::{Counter, Gauge};
        let Status {
            version,
            started_at,
            cpu_seconds,
            rss_bytes,
            map_bytes,
            frequency,
            samples,
            losses,
            snapshots_stored,
            snapshots_failed,
            stuck,
            firing: _,
        } = &self.status;
        let mut info = text.family("probe_collector_info", Gauge, "The version of the collector.");
        info.add(&[("version", version)], 1.0);
        let start = started_at.0 as f64 / 1e9;
        text.value(
            "probe_collector_start_time_seconds",
            Gauge,
            "When the collector was started, since the epoch.",
            start,
        );
        let help = "Processor time that the collector took.";
        text.value("probe_collector_cpu_seconds_total", Counter, help, *cpu_seconds);
        let help = "Resident memory of the collector.";
        text.value("probe_collector_resident_memory_bytes", Gauge, help, *rss_bytes as f64);
        let help = "Memory of its kernel maps.";
        text.value("probe_collector_map_memory_bytes", Gauge, help, *map_bytes as f64);
        let help = "Samples a second and processor, at present.";
        text.value("probe_sampling_frequency_hertz", Gauge, help, (*frequency).into());
        let help = "Threads of the collector that hang.";
        text.value("probe_collector_stuck_threads", Gauge, help, stuck.len() as f64);
        text.value("probe_samples_total", Counter, "Samples that were taken.", *samples as f64);
        let mut family =
            text.family("probe_samples_lost_total", Counter, "Samples that are missing or cut, by reason.");
        for (reason, count) in losses {
            family.add(&[("reason", reason)], *count as f64);
        }
        let help = "Snapshots that were stored.";
        text.value("probe_snapshots_stored_total", Counter, help, *snapshots_stored as f64);
        let help = "Snapshots that could not be stored.";
        text.value("probe_snapshots_failed_total", Counter, help, *snapshots_failed as f64);
    }

    fn targets(&self, text: &mut Exposition) {
        let sum = |target: &TargetState, metric: &str| -> f64 {
            target.processes.iter().filter_map(|process| process.metrics.get(metric)).sum()
        };
        let mut each = |name, help, value: &dyn Fn(&TargetState) -> f64| {
            let mut family = text.family(name, Kind::Gauge, help);
            for target in &self.targets {
                family.add(&[("target", &target.name)], value(target));
            }
        };
        each("probe_target_processes", "Processes of a target.", &|target| target.processes.len() as f64);
        each("probe_target_threads", "Threads of its processes.", &|target| {
            target.processes.iter().map(|process| process.threads as f64).sum()
        });
        let help = "Processes of which a calm stretch is known, to compare a breach with.";
        each("probe_target_baselines", help, &|target| {
            target.processes.iter().filter(|process| process.calm_stretches > 0).count() as f64
        });
        each("probe_target_cpu_cores", "Cores at work for its processes.", &|target| sum(target, "cpu") / 100.0);
        each("probe_target_resident_memory_bytes", "Resident memory of its processes.", &|target| {
            sum(target, "memory.rss")
        });
    }

    fn functions(&self, text: &mut Exposition) {
        let mut each = |name, help, labels: &[(&str, &str)], value: &dyn Fn(&[Row]) -> Option<f64>| {
            let mut family = text.family(name, Kind::Gauge, help);
            for state in &self.functions {
                let [function, target] = ["name", "target"].map(|key| named(&state.definition, key));
                if let Some(value) = value(&state.figures) {
                    let own = [("function", function.as_str()), ("target", target.as_str())];
                    family.add(&[&own, labels].concat(), value);
                }
            }
        };
        let seconds = |time: fn(&Row) -> Option<u64>| {
            move |rows: &[Row]| rows.iter().filter_map(time).max().map(|nanoseconds| nanoseconds as f64 / 1e9)
        };
        each("probe_function_processes", "Processes in which a function is timed.", &[], &|rows| {
            Some(rows.len() as f64)
        });
        each("probe_function_calls_per_second", "Its calls a second, of late.", &[], &|rows| {
            Some(rows.iter().map(|row| row.rate).sum())
        });
        each("probe_function_errors_per_second", "Of these, those that failed.", &[], &|rows| {
            let share = |row: &Row| if row.calls == 0 { 0.0 } else { row.errors as f64 / row.calls as f64 };
            Some(rows.iter().map(|row| row.rate * share(row)).sum())
        });
        each("probe_function_in_flight", "Its calls that have not returned.", &[], &|rows| {
            Some(rows.iter().map(|row| row.in_flight as f64).sum())
        });
        let help = "The time within which half of its calls of late ended, in its slowest process.";
        each("probe_function_duration_p50_seconds", help, &[], &seconds(|row| row.p50_ns));
        let help = "The same of 99 % of them.";
        each("probe_function_duration_p99_seconds", help, &[], &seconds(|row| row.p99_ns));
        let help = "How long its oldest call in flight has been going on.";
        each("probe_function_oldest_seconds", help, &[], &seconds(|row| row.oldest_ns));
        let help = "The share of its calls of late within the threshold, in its worst process.";
        each("probe_function_attainment_ratio", help, &[], &|rows| {
            rows.iter().filter_map(|row| row.attainment).min_by(f64::total_cmp)
        });
    }

    fn rules(&self, text: &mut Exposition) {
        let mut family =
            text.family("probe_rule_processes", Kind::Gauge, "Processes that a rule applies to, by its state.");
        for rule in &self.rules {
            let [name, target] = ["name", "target"].map(|key| named(&rule.definition, key));
            let mut counts = BTreeMap::from(State::ALL.map(|state| (state, 0u32)));
            for process in &rule.processes {
                *counts.entry(process.state).or_default() += 1;
            }
            for (state, count) in counts {
                family.add(&[("rule", &name), ("target", &target), ("state", state.name())], count.into());
            }
        }
        let mut family = text.family("probe_rule_breaches_total", Kind::Counter, "Breaches of a rule.");
        for rule in &self.rules {
            let [name, target] = ["name", "target"].map(|key| named(&rule.definition, key));
            family.add(&[("rule", &name), ("target", &target)], rule.breaches as f64);
        }
    }
}

fn named(definition: &Definition, key: &str) -> String {
    definition.0.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}
