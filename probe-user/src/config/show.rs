//! The configuration that results from file, environment, flags and defaults, as TOML again.

use std::fmt;
use std::time::Duration;

use toml::{Table, Value};

use super::units::format_size;
use super::{Config, Rule, notify, processes, thresholds};
use crate::latency::Definition;
use crate::monitor::{self, Condition, Scope, Side};

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { store, sampling, http, collector, serve, limits: own, log, targets, functions, rules, channels } =
            self;
        let limits = &store.limits;
        section(
            f,
            "[store]",
            &[
                ("path", store.path.display().to_string().into()),
                ("max_bytes", format_size(limits.max_bytes).into()),
                ("max_age", time(limits.max_age)),
                ("max_snapshots", whole(limits.max_snapshots)),
            ],
        )?;
        section(
            f,
            "[sampling]",
            &[
                ("frequency", i64::from(sampling.frequency).into()),
                ("pending_frequency", i64::from(sampling.pending_frequency).into()),
                ("memory", format_size(sampling.memory).into()),
                ("window", time(sampling.window)),
                ("max_overhead", (100.0 * sampling.max_overhead).into()),
            ],
        )?;
        for (header, entries) in processes::sections(collector, (http, serve), *own, *log) {
            section(f, header, &entries)?;
        }
        for target in targets {
            let conditions =
                target.matcher.conditions().into_iter().map(|(key, text)| match (key, text.parse::<i64>()) {
                    ("pid", Ok(pid)) => (key.to_owned(), pid.into()),
                    _ => (key.to_owned(), text.into()),
                });
            let conditions: Table = conditions.collect();
            let mut entries: Vec<(&str, Value)> =
                vec![("name", target.name.clone().into()), ("match", conditions.into())];
            entries.extend(target.live.then(|| ("live", true.into())));
            section(f, "[[target]]", &entries)?;
        }
        for function in functions {
            section(f, "[[function]]", &of_function(function))?;
        }
        for rule in rules {
            section(f, "[[rule]]", &of_rule(rule))?;
        }
        for channel in channels {
            section(f, "[[notify]]", &notify::entries(channel))?;
        }
        Ok(())
    }
}

/// What a function says; what it leaves open is left out.
pub(super) fn of_function(function: &Definition) -> Vec<(&str, Value)> {
    let Definition { name, group, target, symbol, threshold, errors } = function;
    let mut entries: Vec<(&str, Value)> = vec![
        ("name", name.as_str().into()),
        ("group", group.as_str().into()),
        ("target", target.as_str().into()),
        ("symbol", symbol.as_str().into()),
    ];
    entries.extend(threshold.map(|threshold| ("threshold", time(threshold))));
    entries.extend(errors.map(|errors| ("errors", errors.to_string().into())));
    entries
}

/// The same of a rule.
pub(super) fn of_rule(rule: &Rule) -> Vec<(&str, Value)> {
    let Rule { rule, evidence, notify } = rule;
    let monitor::Rule {
        name,
        target,
        metric,
        function,
        per,
        condition,
        max,
        for_ns,
        clear,
        keep_firing_for_ns,
        cooldown_ns,
        warm_up_ns,
        quiet,
    } = rule;
    let value = |value: f64| thresholds::show(*metric, value);
    let nanoseconds = |ns: u64| time(Duration::from_nanos(ns));
    let mut entries: Vec<(&str, Value)> =
        vec![("name", name.as_str().into()), ("target", target.as_str().into()), ("metric", metric.name().into())];
    entries.extend(function.as_ref().map(|function| ("function", function.as_str().into())));
    entries.extend((metric.scope() != Scope::Host).then(|| ("per", per.name().into())));
    match *condition {
        Condition::Level { side, threshold } => {
            entries.push((side.name(), value(threshold)));
            let key = if side == Side::Above { "clear_below" } else { "clear_above" };
            entries.extend(clear.map(|clear| (key, value(clear))));
        }
        Condition::Change { percent, windows, min } => {
            entries.extend([("change", percent.into()), ("windows", whole(windows)), ("min", value(min))]);
        }
    }
    entries.extend(max.map(|max| ("max", value(max))));
    entries.extend([
        ("for", nanoseconds(*for_ns)),
        ("keep_firing_for", nanoseconds(*keep_firing_for_ns)),
        ("cooldown", nanoseconds(*cooldown_ns)),
        ("warm_up", nanoseconds(*warm_up_ns)),
    ]);
    let hours: Vec<Value> = quiet.written().map(Value::from).collect();
    entries.extend((!hours.is_empty()).then(|| ("quiet", hours.into())));
    entries.extend(quiet.zone().map(|zone| ("timezone", zone.into())));
    let evidence: Table = [
        ("threads".to_owned(), whole(evidence.threads)),
        ("before".to_owned(), time(evidence.before)),
        ("after".to_owned(), time(evidence.after)),
    ]
    .into_iter()
    .collect();
    let notify: Vec<Value> = notify.iter().map(|name| name.as_str().into()).collect();
    entries.extend([("snapshot", evidence.into()), ("notify", notify.into())]);
    entries
}

fn section(f: &mut fmt::Formatter<'_>, header: &str, entries: &[(&str, Value)]) -> fmt::Result {
    writeln!(f, "{header}")?;
    for (key, value) in entries {
        writeln!(f, "{key} = {value}")?;
    }
    writeln!(f)
}

fn time(duration: Duration) -> Value {
    humantime::format_duration(duration).to_string().into()
}

fn whole(number: usize) -> Value {
    i64::try_from(number).unwrap_or(i64::MAX).into()
}
