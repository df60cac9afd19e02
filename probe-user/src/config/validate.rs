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
use super::{Config, Rule, Sampling, Store, Target};
use crate::latency::Definition;
use crate::monitor::ANY_TARGET;
use crate::problem::Problem;
use crate::snapshot;
use crate::target::{Matcher, On};

/// Most of what there is once for each table: every rule is looked at every second, for each process that it applies to, and
/// each channel has a thread.
const MAX_TARGETS: usize = 500;
const MAX_FUNCTIONS: usize = 500;
const MAX_RULES: usize = 500;
const MAX_CHANNELS: usize = 100;

pub(super) type Checked<T> = Result<T, Problem>;

/// Checks everything; the first thing that is wrong is the error.
pub(super) fn validate(raw: &Raw, layers: &Layers) -> Checked<Config> {
    let check = Check { layers };
    let store = check.store(&raw.store)?;
    let sampling = check.sampling(&raw.sampling)?;
    let collector = check.collector(&raw.collector, &store.path)?;
    let serve = check.serve(&raw.serve, &store.path)?;
    let (limits, log) = (check.limits(&raw.limits)?, check.log(&raw.log)?);
    let http = check.http(&raw.serve)?;
    check.count("[[target]]", MAX_TARGETS, raw.targets.iter().map(Spanned::span))?;
    check.count("[[function]]", MAX_FUNCTIONS, raw.functions.iter().map(Spanned::span))?;
    check.count("[[rule]]", MAX_RULES, raw.rules.iter().map(Spanned::span))?;
    check.count("[[notify]]", MAX_CHANNELS, raw.channels.iter().map(Spanned::span))?;
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
    let mut functions = Vec::new();
    let mut names = BTreeSet::new();
    for function in &raw.functions {
        functions.push(check.function(function, &mut names, &targets)?);
    }
    let mut rules = Vec::new();
    let mut names = BTreeSet::new();
    for rule in &raw.rules {
        rules.push(check.rule(rule, &mut names, (&targets, &functions, &channels), &sampling)?);
    }
    Ok(Config { store, sampling, http, collector, serve, limits, log, targets, functions, rules, channels })
}

/// Checks a rule that is to come to these.
pub(super) fn another_rule(rule: &Spanned<raw::Rule>, config: &Config, layers: &Layers) -> Checked<Rule> {
    let check = Check { layers };
    check.count("[[rule]]", MAX_RULES, std::iter::repeat_n(rule.span(), config.rules.len() + 1))?;
    let known = (&*config.targets, &*config.functions, &*config.channels);
    check.rule(rule, &mut BTreeSet::new(), known, &config.sampling)
}

/// The same with a function.
pub(super) fn another_function(
    function: &Spanned<raw::Function>,
    config: &Config,
    layers: &Layers,
) -> Checked<Definition> {
    let check = Check { layers };
    check.count("[[function]]", MAX_FUNCTIONS, std::iter::repeat_n(function.span(), config.functions.len() + 1))?;
    check.function(function, &mut BTreeSet::new(), &config.targets)
}

pub(super) struct Check<'a> {
    layers: &'a Layers,
}

impl Check<'_> {
    fn count(&self, section: &str, most: usize, mut spans: impl Iterator<Item = Range<usize>>) -> Checked<()> {
        match spans.nth(most) {
            Some(span) => Err(self.error(&span, format!("there are more than {most} {section}"))),
            None => Ok(()),
        }
    }

    fn store(&self, raw: &raw::Store) -> Checked<Store> {
        let raw::Store { path, max_bytes, max_age, max_snapshots } = raw;
        let limits = snapshot::Limits::default();
        let path = match path {
            Some(path) if !path.get_ref().starts_with('/') => {
                return Err(self.error(&path.span(), "`path` must be an absolute path, beginning with `/`"));
            }
            Some(path) => PathBuf::from(path.get_ref()),
            None => PathBuf::from(super::processes::STORE),
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
        let raw::Sampling { frequency, pending_frequency, memory, window, max_overhead } = raw;
        let slow = self.integer(frequency.as_ref(), "frequency", 1..=10_000, 19)?;
        let sampling = Sampling {
            frequency: slow,
            pending_frequency: self.integer(
                pending_frequency.as_ref(),
                "pending_frequency",
                slow..=10_000,
                slow.max(99),
            )?,
            memory: self.size(memory.as_ref(), 64 << 20)?,
            window: self.duration(window.as_ref(), Duration::from_secs(60))?,
            max_overhead: self.max_overhead(max_overhead.as_ref())?,
        };
        if let Some(memory) = memory.as_ref().filter(|_| sampling.memory < 1 << 20) {
            return Err(self.error(&memory.span(), "`memory` must be at least 1MiB"));
        }
        if let Some(window) = window.as_ref().filter(|_| sampling.window < Duration::from_secs(1)) {
            return Err(self.error(&window.span(), "`window` must be at least one second"));
        }
        Ok(sampling)
    }

    fn target(&self, table: &Spanned<raw::Target>, names: &mut BTreeSet<String>) -> Checked<Target> {
        let raw::Target { name, matches, live } = table.get_ref();
        let name = self.name("[[target]]", &table.span(), name.as_ref(), names)?;
        if name == ANY_TARGET {
            return Err(self.error(&table.span(), "no [[target]] is named `*`: rules mean every target by it"));
        }
        let matches = self.required("[[target]]", "match", &table.span(), matches.as_ref())?;
        let raw::Match { pid, exe, comm, cmdline, cgroup, container, pod, namespace } = matches.get_ref();
        let mut matcher = Matcher::default();
        if let Some(pid) = pid {
            let number = self.integer(Some(pid), "pid", 1..=u32::MAX, 0)?;
            matcher = matcher.pid(number).map_err(|error| self.error(&pid.span(), error))?;
        }
        let globs = [
            (On::Exe, exe),
            (On::Comm, comm),
            (On::Cgroup, cgroup),
            (On::Container, container),
            (On::Pod, pod),
            (On::Namespace, namespace),
        ];
        for (on, glob) in globs {
            let Some(glob) = glob else { continue };
            let wrong = |error| self.error(&glob.span(), format!("{}: {error}", on.key()));
            matcher = matcher.glob(on, glob.get_ref()).map_err(wrong)?;
        }
        if let Some(regex) = cmdline {
            matcher = matcher.cmdline(regex.get_ref()).map_err(|error| self.error(&regex.span(), error))?;
        }
        if matcher.is_empty() {
            return Err(self.error(
                &matches.span(),
                "`match` needs one of pid, exe, comm, cmdline, cgroup, container, pod and namespace",
            ));
        }
        Ok(Target { name, matcher, live: live.as_ref().is_some_and(|live| *live.get_ref()) })
    }

    pub(super) fn name(
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

    pub(super) fn known<'a>(
        &self,
        key: &str,
        name: &Spanned<String>,
        known: impl Iterator<Item = &'a str>,
    ) -> Checked<()> {
        let known: Vec<&str> = known.collect();
        if known.contains(&name.get_ref().as_str()) {
            return Ok(());
        }
        let near = nearest(name.get_ref(), &known).map_or(String::new(), |near| format!("; did you mean `{near}`?"));
        Err(self.error(&name.span(), format!("there is no [[{key}]] named `{}`{near}", name.get_ref())))
    }

    pub(super) fn one_of(
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

    pub(super) fn required<'a, T>(
        &self,
        section: &str,
        key: &str,
        table: &Range<usize>,
        value: Option<&'a T>,
    ) -> Checked<&'a T> {
        value.ok_or_else(|| self.error(table, format!("{section} needs `{key}`")))
    }

    pub(super) fn duration(&self, value: Option<&Spanned<Scalar>>, default: Duration) -> Checked<Duration> {
        let Some(value) = value else { return Ok(default) };
        parse_duration(&value.get_ref().0).map_err(|error| self.error(&value.span(), error))
    }

    pub(super) fn size(&self, value: Option<&Spanned<Scalar>>, default: u64) -> Checked<u64> {
        let Some(value) = value else { return Ok(default) };
        parse_size(&value.get_ref().0).map_err(|error| self.error(&value.span(), error))
    }

    pub(super) fn integer<T: TryFrom<i64> + Copy + Display + PartialOrd>(
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

    pub(super) fn error(&self, span: &Range<usize>, message: impl Display) -> Problem {
        self.layers.error(span, message)
    }
}
