//! From what is written to what is right. Every refusal says where: the file and line, the variable or the flag.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;

use super::layers::{Layers, nearest};
use super::raw::{self, Raw, Scalar};
use super::units::{parse_duration, parse_size};
use super::{Config, Evidence, Rule, Sampling, Store, Target, thresholds};
use crate::problem::Problem;
use crate::target::Matcher;
use crate::{alert, monitor, snapshot};

type Checked<T> = Result<T, Problem>;

/// Checks everything; the first thing that is wrong is the error.
pub(super) fn validate(raw: &Raw, layers: &Layers) -> Checked<Config> {
    let check = Check { layers };
    let store = check.store(&raw.store)?;
    let sampling = check.sampling(&raw.sampling)?;
    let mut targets = Vec::new();
    let mut names = BTreeSet::new();
    for target in &raw.targets {
        targets.push(check.target(target, &mut names)?);
    }
    let mut channels = Vec::new();
    let mut names = BTreeSet::new();
    for channel in &raw.channels {
        channels.push(check.channel(channel, &mut names)?);
    }
    let mut rules = Vec::new();
    let mut names = BTreeSet::new();
    for rule in &raw.rules {
        rules.push(check.rule(rule, &mut names, &targets, &channels, &sampling)?);
    }
    Ok(Config { store, sampling, targets, rules, channels })
}

struct Check<'a> {
    layers: &'a Layers,
}

impl Check<'_> {
    fn store(&self, raw: &raw::Store) -> Checked<Store> {
        let raw::Store { path, max_bytes, max_age, max_snapshots } = raw;
        let limits = snapshot::Limits::default();
        let path = match path {
            Some(path) if !path.get_ref().starts_with('/') => {
                return Err(self.error(&path.span(), "`path` must be absolute: it begins with `/`"));
            }
            Some(path) => PathBuf::from(path.get_ref()),
            None => PathBuf::from("/var/lib/probe"),
        };
        let limits = snapshot::Limits {
            max_bytes: self.size(max_bytes.as_ref(), limits.max_bytes)?,
            max_age: self.duration(max_age.as_ref(), limits.max_age)?,
            max_snapshots: self.integer(
                max_snapshots.as_ref(),
                "max_snapshots",
                1..=1_000_000,
                limits.max_snapshots,
            )?,
        };
        Ok(Store { path, limits })
    }

    fn sampling(&self, raw: &raw::Sampling) -> Checked<Sampling> {
        let raw::Sampling { frequency, memory, window } = raw;
        let sampling = Sampling {
            frequency: self.integer(frequency.as_ref(), "frequency", 1..=10_000, 19)?,
            memory: self.size(memory.as_ref(), 64 << 20)?,
            window: self.duration(window.as_ref(), Duration::from_secs(60))?,
        };
        if let Some(memory) = memory.as_ref().filter(|_| sampling.memory < 1 << 20) {
            return Err(self.error(&memory.span(), "`memory` is below 1MiB, which records nothing"));
        }
        if let Some(window) = window.as_ref().filter(|_| sampling.window < Duration::from_secs(1)) {
            return Err(self.error(&window.span(), "`window` is below one second"));
        }
        Ok(sampling)
    }

    fn target(&self, table: &Spanned<raw::Target>, names: &mut BTreeSet<String>) -> Checked<Target> {
        let raw::Target { name, matches } = table.get_ref();
        let name = self.name("[[target]]", &table.span(), name.as_ref(), names)?;
        let matches = self.required("[[target]]", "match", &table.span(), matches.as_ref())?;
        let raw::Match { pid, exe, comm, cmdline } = matches.get_ref();
        let mut matcher = Matcher::default();
        if let Some(pid) = pid {
            let number = self.integer(Some(pid), "pid", 1..=u32::MAX, 0)?;
            matcher = matcher.pid(number).map_err(|error| self.error(&pid.span(), error))?;
        }
        if let Some(glob) = exe {
            matcher = matcher.exe(glob.get_ref()).map_err(|error| self.error(&glob.span(), format!("exe: {error}")))?;
        }
        if let Some(glob) = comm {
            matcher =
                matcher.comm(glob.get_ref()).map_err(|error| self.error(&glob.span(), format!("comm: {error}")))?;
        }
        if let Some(regex) = cmdline {
            matcher = matcher.cmdline(regex.get_ref()).map_err(|error| self.error(&regex.span(), error))?;
        }
        if matcher.is_empty() {
            return Err(self.error(&matches.span(), "`match` needs one of pid, exe, comm and cmdline"));
        }
        Ok(Target { name, matcher })
    }

    fn channel(&self, table: &Spanned<raw::Notify>, names: &mut BTreeSet<String>) -> Checked<alert::Channel> {
        let raw::Notify { name, kind, url, url_file } = table.get_ref();
        let name = self.name("[[notify]]", &table.span(), name.as_ref(), names)?;
        self.one_of("[[notify]]", "type", &table.span(), kind.as_ref(), &["webhook"])?;
        let address = match (url, url_file) {
            (Some(url), None) => {
                let text = url.get_ref();
                alert::check_url(text).map_err(|error| self.error(&url.span(), error))?;
                alert::Address::Url(text.clone())
            }
            (None, Some(file)) if file.get_ref().starts_with('/') => alert::Address::File(file.get_ref().into()),
            (None, Some(file)) => {
                return Err(self.error(&file.span(), "`url_file` must be absolute: it begins with `/`"));
            }
            (None, None) => {
                return Err(self.error(&table.span(), format!("[[notify]] `{name}` needs `url` or `url_file`")));
            }
            (Some(_), Some(file)) => return Err(self.error(&file.span(), "`url` and `url_file` exclude each other")),
        };
        Ok(alert::Channel { name, address })
    }

    fn rule(
        &self,
        table: &Spanned<raw::Rule>,
        names: &mut BTreeSet<String>,
        targets: &[Target],
        channels: &[alert::Channel],
        sampling: &Sampling,
    ) -> Checked<Rule> {
        let raw::Rule { name, target, metric, above, lasting, cooldown, snapshot, notify } = table.get_ref();
        let name = self.name("[[rule]]", &table.span(), name.as_ref(), names)?;
        let target = self.required("[[rule]]", "target", &table.span(), target.as_ref())?;
        self.known("target", target, targets.iter().map(|target| target.name.as_str()))?;
        let metric = self.metric(&table.span(), metric.as_ref())?;
        let above = self.required("[[rule]]", "above", &table.span(), above.as_ref())?;
        let threshold = thresholds::parse(metric, &above.get_ref().0).ok_or_else(|| {
            let kind = thresholds::kind(metric);
            self.error(&above.span(), format!("`above` is {kind}, not `{}`", above.get_ref().0))
        })?;
        let for_time = self.duration(lasting.as_ref(), Duration::from_secs(5))?;
        let cooldown = self.duration(cooldown.as_ref(), Duration::from_secs(300))?;
        let evidence = self.evidence(&table.span(), snapshot.as_ref(), for_time, sampling)?;
        let mut told = Vec::new();
        for channel in notify.as_ref().map_or(&[][..], |list| list.get_ref()) {
            self.known("notify", channel, channels.iter().map(|channel| channel.name.as_str()))?;
            told.push(channel.get_ref().clone());
        }
        let rule = monitor::Rule {
            name,
            target: target.get_ref().clone(),
            metric,
            above: threshold,
            for_ns: nanoseconds(for_time),
            cooldown_ns: nanoseconds(cooldown),
        };
        Ok(Rule { rule, evidence, notify: told })
    }

    fn metric(&self, table: &Range<usize>, metric: Option<&Spanned<String>>) -> Checked<monitor::Metric> {
        let metric = self.required("[[rule]]", "metric", table, metric)?;
        let found = monitor::Metric::ALL.iter().find(|known| known.name() == metric.get_ref());
        found.copied().ok_or_else(|| {
            let known: Vec<&str> = monitor::Metric::ALL.iter().map(|known| known.name()).collect();
            let message = format!("`metric` is one of {}, not `{}`", known.join(", "), metric.get_ref());
            self.error(&metric.span(), message)
        })
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

    fn name(
        &self,
        section: &str,
        table: &Range<usize>,
        name: Option<&Spanned<String>>,
        names: &mut BTreeSet<String>,
    ) -> Checked<String> {
        let name = self.required(section, "name", table, name)?;
        let text = name.get_ref();
        if text.is_empty() || text.len() > 200 || *text != crate::text::sanitize(text) {
            return Err(self.error(&name.span(), "a name has 1 to 200 bytes and no control characters"));
        }
        if !names.insert(text.clone()) {
            return Err(self.error(&name.span(), format!("a second {section} is named `{text}`")));
        }
        Ok(text.clone())
    }

    fn known<'a>(&self, key: &str, name: &Spanned<String>, known: impl Iterator<Item = &'a str>) -> Checked<()> {
        let known: Vec<&str> = known.collect();
        if known.contains(&name.get_ref().as_str()) {
            return Ok(());
        }
        let near = nearest(name.get_ref(), &known).map_or(String::new(), |near| format!("; did you mean `{near}`?"));
        Err(self.error(&name.span(), format!("there is no [[{key}]] named `{}`{near}", name.get_ref())))
    }

    fn one_of(
        &self,
        section: &str,
        key: &str,
        table: &Range<usize>,
        value: Option<&Spanned<String>>,
        allowed: &[&str],
    ) -> Checked<()> {
        let value = self.required(section, key, table, value)?;
        if allowed.contains(&value.get_ref().as_str()) {
            return Ok(());
        }
        Err(self.error(&value.span(), format!("`{key}` is {}, not `{}`", allowed.join(" or "), value.get_ref())))
    }

    fn required<'a, T>(&self, section: &str, key: &str, table: &Range<usize>, value: Option<&'a T>) -> Checked<&'a T> {
        value.ok_or_else(|| self.error(table, format!("{section} needs `{key}`")))
    }

    fn duration(&self, value: Option<&Spanned<Scalar>>, default: Duration) -> Checked<Duration> {
        let Some(value) = value else { return Ok(default) };
        parse_duration(&value.get_ref().0).map_err(|error| self.error(&value.span(), error))
    }

    fn size(&self, value: Option<&Spanned<Scalar>>, default: u64) -> Checked<u64> {
        let Some(value) = value else { return Ok(default) };
        parse_size(&value.get_ref().0).map_err(|error| self.error(&value.span(), error))
    }

    fn integer<T: TryFrom<i64> + Copy + Display + PartialOrd>(
        &self,
        value: Option<&Spanned<i64>>,
        key: &str,
        allowed: std::ops::RangeInclusive<T>,
        default: T,
    ) -> Checked<T> {
        let Some(value) = value else { return Ok(default) };
        T::try_from(*value.get_ref()).ok().filter(|number| allowed.contains(number)).ok_or_else(|| {
            let (low, high) = (allowed.start(), allowed.end());
            self.error(&value.span(), format!("`{key}` is between {low} and {high}, not {}", value.get_ref()))
        })
    }

    fn error(&self, span: &Range<usize>, message: impl Display) -> Problem {
        self.layers.error(span, message)
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
