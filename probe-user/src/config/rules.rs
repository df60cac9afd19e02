//! What is right of `[[rule]]`.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

use toml::Spanned;

use super::layers::nearest;
use super::raw::{self, Scalar};
use super::validate::{Check, Checked};
use super::{Evidence, Rule, Sampling, Target, thresholds};
use crate::latency::Definition;
use crate::monitor::{ANY_TARGET, Condition, Metric, Per, Quiet, Scope, Side};
use crate::{alert, monitor};

/// How many values the average of a rule for changes is made of: a minute.
const WINDOWS: usize = 60;

impl Check<'_> {
    pub(super) fn rule(
        &self,
        table: &Spanned<raw::Rule>,
        names: &mut BTreeSet<String>,
        (targets, functions, channels): (&[Target], &[Definition], &[alert::Channel]),
        sampling: &Sampling,
    ) -> Checked<Rule> {
        let raw = table.get_ref();
        let table = &table.span();
        let name = self.name("[[rule]]", table, raw.name.as_ref(), names)?;
        let target = self.required("[[rule]]", "target", table, raw.target.as_ref())?;
        if target.get_ref() != ANY_TARGET {
            self.known("target", target, targets.iter().map(|target| target.name.as_str()))?;
        }
        let metric = self.metric(table, raw.metric.as_ref())?;
        let function = self.function_of_rule(table, raw.function.as_ref(), metric, target.get_ref(), functions)?;
        let per = self.per(metric, raw.per.as_ref())?;
        let condition = self.condition(table, metric, raw)?;
        let clear = self.clear(metric, condition, raw)?;
        let max = self.max(metric, condition, raw.max.as_ref())?;
        let for_time = self.duration(raw.lasting.as_ref(), Duration::from_secs(5))?;
        let cooldown = self.duration(raw.cooldown.as_ref(), Duration::from_secs(300))?;
        let rule = monitor::Rule {
            target: target.get_ref().clone(),
            metric,
            function,
            per,
            condition,
            max,
            for_ns: nanoseconds(for_time),
            clear,
            keep_firing_for_ns: nanoseconds(self.duration(raw.keep_firing_for.as_ref(), Duration::ZERO)?),
            cooldown_ns: nanoseconds(cooldown),
            warm_up_ns: nanoseconds(self.duration(raw.warm_up.as_ref(), Duration::ZERO)?),
            quiet: self.quiet(raw)?,
            ..monitor::Rule::new(&name)
        };
        let evidence = self.evidence(table, raw.snapshot.as_ref(), for_time, sampling)?;
        let mut notify = Vec::new();
        for channel in raw.notify.as_ref().map_or(&[][..], |list| list.get_ref()) {
            self.known("notify", channel, channels.iter().map(|channel| channel.name.as_str()))?;
            notify.push(channel.get_ref().clone());
        }
        Ok(Rule { rule, evidence, notify })
    }

    fn metric(&self, table: &Range<usize>, metric: Option<&Spanned<String>>) -> Checked<Metric> {
        let metric = self.required("[[rule]]", "metric", table, metric)?;
        let known = Metric::ALL.iter().find(|known| known.name() == metric.get_ref());
        known.copied().ok_or_else(|| {
            let names: Vec<&str> = Metric::ALL.iter().map(|metric| metric.name()).collect();
            let near = nearest(metric.get_ref(), &names).unwrap_or_default();
            let text = format!("unknown metric `{}`; did you mean `{near}`?", metric.get_ref());
            let mut problem = self.error(&metric.span(), text);
            problem.hint = format!("known: {}", names.join(", "));
            problem
        })
    }

    fn per(&self, metric: Metric, per: Option<&Spanned<String>>) -> Checked<Per> {
        let Some(per) = per else { return Ok(Per::Process) };
        let all = [Per::Process, Per::Service, Per::Thread];
        let wrong = |text: String| Err(self.error(&per.span(), text));
        let Some(known) = all.into_iter().find(|known| known.name() == per.get_ref()) else {
            return wrong(format!("`per` is process, service or thread, not `{}`", per.get_ref()));
        };
        let name = metric.name();
        match (known, metric.scope()) {
            (_, Scope::Host) => wrong(format!("`{name}` is of the whole host: `per` says nothing of it")),
            (Per::Thread, _) if !metric.is_of_threads() => {
                let those: Vec<&str> =
                    Metric::ALL.iter().filter(|metric| metric.is_of_threads()).map(|metric| metric.name()).collect();
                wrong(format!("threads have no `{name}` of their own; `per = \"thread\"` is for {}", those.join(", ")))
            }
            _ => Ok(known),
        }
    }

    /// `above`, `below` or `change`: one of them, with what belongs to it.
    fn condition(&self, table: &Range<usize>, metric: Metric, raw: &raw::Rule) -> Checked<Condition> {
        let given = [("above", &raw.above), ("below", &raw.below), ("change", &raw.change)];
        let mut given = given.into_iter().filter_map(|(key, value)| Some((key, value.as_ref()?)));
        let Some((key, value)) = given.next() else {
            return Err(self.error(table, "[[rule]] needs `above`, `below` or `change`"));
        };
        if let Some((other, second)) = given.next() {
            return Err(self.error(&second.span(), format!("`{key}` and `{other}` cannot be used together")));
        }
        if key != "change" {
            for (extra, span) in
                [("windows", raw.windows.as_ref().map(Spanned::span)), ("min", raw.min.as_ref().map(Spanned::span))]
            {
                if let Some(span) = span {
                    return Err(self.error(&span, format!("`{extra}` belongs to `change`, not to `{key}`")));
                }
            }
            let side = if key == "above" { Side::Above } else { Side::Below };
            return Ok(Condition::Level { side, threshold: self.value(key, metric, value)? });
        }
        let text = &value.get_ref().0;
        let percent = text.trim().trim_end_matches('%').trim_end().parse().ok();
        let percent = percent.filter(|percent: &f64| percent.is_finite() && *percent != 0.0 && *percent >= -100.0);
        let wrong = || format!("`change` is a number of percent such as `50`, or `-50` for less, not `{text}`");
        Ok(Condition::Change {
            percent: percent.ok_or_else(|| self.error(&value.span(), wrong()))?,
            windows: self.integer(raw.windows.as_ref(), "windows", 2..=3600, WINDOWS)?,
            min: raw.min.as_ref().map_or(Ok(0.0), |min| self.value("min", metric, min))?,
        })
    }

    /// Where a breach is over, if that is not at the threshold.
    fn clear(&self, metric: Metric, condition: Condition, raw: &raw::Rule) -> Checked<Option<f64>> {
        let keys = [("clear_below", &raw.clear_below, Side::Above), ("clear_above", &raw.clear_above, Side::Below)];
        let mut clear = None;
        for (key, value, of) in keys {
            let Some(value) = value else { continue };
            let wrong = |text: String| Err(self.error(&value.span(), text));
            let Condition::Level { side, threshold } = condition else {
                return wrong(format!("`{key}` is for thresholds: what changes is compared with its own average"));
            };
            if side != of {
                return wrong(format!("`{key}` is for rules with `{}`, and this one has `{}`", of.name(), side.name()));
            }
            let number = self.value(key, metric, value)?;
            if side.is_broken(number, threshold) {
                return wrong(format!(
                    "`{key}` is {} `{}`: such a breach would be over before it begins",
                    side.name(),
                    side.name()
                ));
            }
            clear = Some(number);
        }
        Ok(clear)
    }

    fn max(&self, metric: Metric, condition: Condition, max: Option<&Spanned<Scalar>>) -> Checked<Option<f64>> {
        let Some(max) = max else { return Ok(None) };
        let number = self.value("max", metric, max)?;
        let wrong = |text: &str| Err(self.error(&max.span(), text));
        match condition {
            Condition::Level { side: Side::Below, .. } => wrong("`max` is for rules that are broken by high values"),
            Condition::Change { percent, .. } if percent < 0.0 => {
                wrong("`max` is for rules that are broken by high values")
            }
            Condition::Level { threshold, .. } if number <= threshold => {
                wrong("`max` is not above `above`: every breach would be too high to be profiled")
            }
            _ => Ok(Some(number)),
        }
    }

    fn quiet(&self, raw: &raw::Rule) -> Checked<Quiet> {
        if let (Some(zone), None) = (&raw.timezone, &raw.quiet) {
            return Err(self.error(&zone.span(), "`timezone` needs `quiet`"));
        }
        let zone = raw.timezone.as_ref().map(|zone| zone.get_ref().as_str());
        let hours = raw.quiet.as_ref().map_or(&[][..], |list| list.get_ref());
        // Each by itself first, for the place of the error.
        for one in hours {
            Quiet::parse([one.get_ref().as_str()], None).map_err(|error| self.error(&one.span(), error))?;
        }
        let wrong = |error| match &raw.timezone {
            Some(zone) => self.error(&zone.span(), error),
            None => self.error(&(0..0), error),
        };
        Quiet::parse(hours.iter().map(|one| one.get_ref().as_str()), zone).map_err(wrong)
    }

    /// A value in the metric's unit.
    fn value(&self, key: &str, metric: Metric, value: &Spanned<Scalar>) -> Checked<f64> {
        let text = &value.get_ref().0;
        let wrong = || format!("`{key}` is {}, not `{text}`", thresholds::kind(metric));
        thresholds::parse(metric, text).ok_or_else(|| self.error(&value.span(), wrong()))
    }

    fn evidence(
        &self,
        table: &Range<usize>,
        raw: Option<&Spanned<raw::Snapshot>>,
        for_time: Duration,
        sampling: &Sampling,
    ) -> Checked<Evidence> {
        let empty = raw::Snapshot::default();
        let raw::Snapshot { threads, before, after } = raw.map_or(&empty, |raw| raw.get_ref());
        let evidence = Evidence {
            threads: self.integer(threads.as_ref(), "threads", 1..=1000, 2)?,
            before: self.duration(before.as_ref(), Duration::from_secs(30))?,
            after: self.duration(after.as_ref(), Duration::from_secs(5))?,
        };
        let needed = evidence.before + for_time + evidence.after;
        if needed > sampling.window {
            let place = before.as_ref().map_or_else(|| table.clone(), Spanned::span);
            let [before, lasting, after, needed, window] =
                [evidence.before, for_time, evidence.after, needed, sampling.window].map(humantime::format_duration);
            return Err(self.error(
                &place,
                format!(
                    "`before` ({before}) with `for` ({lasting}) and `after` ({after}) takes {needed}, \
                     more than sampling.window ({window})"
                ),
            ));
        }
        Ok(evidence)
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
