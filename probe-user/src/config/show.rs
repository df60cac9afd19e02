//! The configuration that results from file, environment, flags and defaults, as TOML again.

use std::fmt;
use std::time::Duration;

use toml::{Table, Value};

use super::units::format_size;
use super::{Config, thresholds};
use crate::alert::Address;

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { store, sampling, targets, rules, channels } = self;
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
                ("memory", format_size(sampling.memory).into()),
                ("window", time(sampling.window)),
            ],
        )?;
        for target in targets {
            let conditions =
                target.matcher.conditions().into_iter().map(|(key, text)| match (key, text.parse::<i64>()) {
                    ("pid", Ok(pid)) => (key.to_owned(), pid.into()),
                    _ => (key.to_owned(), text.into()),
                });
            let conditions: Table = conditions.collect();
            section(f, "[[target]]", &[("name", target.name.clone().into()), ("match", conditions.into())])?;
        }
        for rule in rules {
            let evidence: Table = [
                ("threads".to_owned(), whole(rule.evidence.threads)),
                ("before".to_owned(), time(rule.evidence.before)),
                ("after".to_owned(), time(rule.evidence.after)),
            ]
            .into_iter()
            .collect();
            let notify: Vec<Value> = rule.notify.iter().map(|name| name.as_str().into()).collect();
            section(
                f,
                "[[rule]]",
                &[
                    ("name", rule.rule.name.clone().into()),
                    ("target", rule.rule.target.clone().into()),
                    ("metric", rule.rule.metric.name().into()),
                    ("above", thresholds::show(rule.rule.metric, rule.rule.above)),
                    ("for", time(Duration::from_nanos(rule.rule.for_ns))),
                    ("cooldown", time(Duration::from_nanos(rule.rule.cooldown_ns))),
                    ("snapshot", evidence.into()),
                    ("notify", notify.into()),
                ],
            )?;
        }
        for channel in channels {
            let address: (&str, Value) = match &channel.address {
                Address::Url(url) => ("url", url.as_str().into()),
                Address::File(path) => ("url_file", path.display().to_string().into()),
            };
            section(f, "[[notify]]", &[("name", channel.name.clone().into()), ("type", "webhook".into()), address])?;
        }
        Ok(())
    }
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
