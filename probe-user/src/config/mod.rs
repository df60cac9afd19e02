//! The configuration: one TOML file, overridden by environment variables, overridden by flags. As it is written (`raw`)
//! and as it was found to be right (here) are two sets of types; whoever holds a [`Config`] need check nothing.

mod changes;
mod functions;
mod layers;
mod notify;
mod processes;
mod raw;
mod reference;
mod rules;
mod schema;
mod serve;
mod show;
mod thresholds;
mod units;
mod validate;

use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

use crate::latency::Definition;
use crate::problem::{Exit, Problem};
use crate::target::Matcher;
use crate::{alert, monitor, snapshot};
use layers::{Layers, Origin, nearest};
use raw::Raw;

pub use changes::{Changes, Source, Table};
pub use processes::{Collector, Limits, Log, Serve};
pub use reference::reference;
pub use schema::definitions;
pub use serve::Http;
pub use units::{format_size, parse_duration, parse_size};

/// Where the configuration is looked for.
pub const DEFAULT_PATH: &str = "/etc/probe/probe.toml";

/// A configuration that was found to be right.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where snapshots go.
    pub store: Store,
    /// How targets are sampled.
    pub sampling: Sampling,
    /// How HTTP is served.
    pub http: Http,
    /// The process with the privileges.
    pub collector: Collector,
    /// The process with the network.
    pub serve: Serve,
    /// What the collector may take of the host.
    pub limits: Limits,
    /// The log.
    pub log: Log,
    /// The services, with unique names.
    pub targets: Vec<Target>,
    /// The functions that are timed, with unique names.
    pub functions: Vec<Definition>,
    /// The rules, with unique names.
    pub rules: Vec<Rule>,
    /// The channels, with unique names.
    pub channels: Vec<alert::Channel>,
}

/// Where snapshots go, and how many are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    /// The folder.
    pub path: PathBuf,
    /// What is kept in it.
    pub limits: snapshot::Limits,
}

/// How targets are sampled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Samples per second and processor, 1 to 10,000.
    pub frequency: u32,
    /// The same for processes of which a rule is pending, firing or recovering.
    pub pending_frequency: u32,
    /// Memory for the flight recorder, in bytes.
    pub memory: u64,
    /// How far back it reaches.
    pub window: Duration,
    /// What timing functions may cost a target, and following its allocations a process, as a share of one core.
    pub max_overhead: f64,
}

/// A service.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its name.
    pub name: String,
    /// Which processes belong to it.
    pub matcher: Matcher,
    /// Follow what its processes allocate always.
    pub live: bool,
}

impl PartialEq for Target {
    /// The same is written of both.
    fn eq(&self, other: &Self) -> bool {
        let Self { name, matcher, live } = self;
        (name, live, matcher.conditions()) == (&other.name, &other.live, other.matcher.conditions())
    }
}

/// A rule, what to keep of its breaches and whom to tell.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// When it is broken.
    pub rule: monitor::Rule,
    /// What is kept.
    pub evidence: Evidence,
    /// Names of the channels that are told.
    pub notify: Vec<String>,
}

/// What is kept of a breach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// How many threads, at least 1.
    pub threads: usize,
    /// How far back before the value went above the threshold.
    pub before: Duration,
    /// How long after the breach.
    pub after: Duration,
}

/// Settings by flags, which beat everything else: (flag, `section.key`, value).
pub type Flags<'a> = &'a [(&'static str, &'static str, String)];

/// Reads a file. A named pipe is refused: to open one waits for whoever writes into it, and it can be read once only.
fn read_file(path: &Path) -> std::io::Result<String> {
    let is_ours = path.starts_with("/dev") || path.starts_with("/proc");
    if !is_ours && std::fs::metadata(path)?.file_type().is_fifo() {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "it is a named pipe"));
    }
    std::fs::read_to_string(path)
}

impl Config {
    /// Reads and checks a configuration. Errors are [`Problem`]s with the file and the line, or with the variable or flag.
    pub fn load(path: &Path, flags: Flags<'_>) -> Result<Self> {
        Ok(Self::read(path, flags)?.config(&Changes::default())?)
    }

    /// Reads a configuration, to be checked with changes to it.
    pub fn read(path: &Path, flags: Flags<'_>) -> Result<Source> {
        let text = read_file(path).map_err(|error| {
            let hint = match error.kind() {
                std::io::ErrorKind::NotFound => "name a file with --config; docs/configuration.md has an example",
                std::io::ErrorKind::IsADirectory => "name the file in it with --config",
                std::io::ErrorKind::InvalidInput => "name a regular file with --config",
                std::io::ErrorKind::InvalidData => "write it in UTF-8, as TOML demands",
                std::io::ErrorKind::PermissionDenied => "run as a user who may read it, or name another by --config",
                _ => "",
            };
            Problem::new(Exit::Usage, format!("cannot read the configuration {}: {error}", path.display()), hint)
        })?;
        Ok(Source::new(path.display().to_string(), text, flags))
    }

    /// The defaults with what the environment and flags say, for commands that can do without a file.
    pub fn without_file(flags: Flags<'_>) -> Result<Self> {
        Ok(Self::parse("defaults", "", std::env::vars_os(), flags, &Changes::default())?)
    }

    /// Checks a configuration from its parts: a file's name and text, the environment and flags.
    fn parse(
        name: &str,
        text: &str,
        environment: impl IntoIterator<Item = (std::ffi::OsString, std::ffi::OsString)>,
        flags: Flags<'_>,
        changes: &Changes,
    ) -> Result<Self, Problem> {
        let mut layers = Layers::default();
        let mut raw: Raw = layers.add(Origin::File(name.to_owned()), text)?;
        let mut settings: Vec<(String, String, String)> = Vec::new();
        for (variable, value) in environment {
            let (Some(variable), Some(value)) = (variable.to_str(), value.to_str()) else { continue };
            if let Some(key) = variable.strip_prefix("PROBE__") {
                settings.push((variable.to_owned(), key.to_ascii_lowercase().replace("__", "."), value.to_owned()));
            }
        }
        settings.sort();
        settings.extend(flags.iter().map(|(flag, key, value)| ((*flag).to_owned(), (*key).to_owned(), value.clone())));
        for (name, key, value) in settings {
            let upper: Raw = layers.add(Origin::Setting(name.clone()), &setting(&name, &key, &value)?)?;
            raw.store.overlay(upper.store);
            raw.sampling.overlay(upper.sampling);
            raw.collector.overlay(upper.collector);
            raw.serve.overlay(upper.serve);
            raw.limits.overlay(upper.limits);
            raw.log.overlay(upper.log);
        }
        changes.apply(&mut raw, &mut layers)?;
        validate::validate(&raw, &layers)
    }
}

/// A setting as a line of TOML. Only sections that exist once can be set so.
fn setting(name: &str, key: &str, value: &str) -> Result<String, Problem> {
    let sections = [
        ("store", raw::Store::KEYS),
        ("sampling", raw::Sampling::KEYS),
        ("collector", raw::Collector::KEYS),
        ("serve", raw::Serve::KEYS),
        ("limits", raw::Limits::KEYS),
        ("log", raw::Log::KEYS),
    ];
    let known: Vec<String> = sections
        .iter()
        .flat_map(|(section, keys)| keys.iter().map(move |key| format!("{section}.{}", key.name)))
        .collect();
    if !known.iter().any(|other| other == key) {
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        // The section first: a wrong one must not lead to a key of the same name elsewhere.
        let names = sections.map(|(section, _)| section);
        let near = nearest(key.split('.').next().unwrap_or_default(), &names).unwrap_or_default();
        let known: Vec<&str> = known.into_iter().filter(|known| known.split('.').next() == Some(near)).collect();
        let near = nearest(key, &known).unwrap_or_default();
        let hint = format!("known: {}", known.iter().map(|key| variable(key)).collect::<Vec<_>>().join(", "));
        let near = if name.starts_with("--") { near.to_owned() } else { variable(near) };
        return Err(Problem::new(Exit::Usage, format!("{name}: no such setting; did you mean `{near}`?"), hint));
    }
    // Integers as they are, everything else as text: the keys that take either accept both.
    let value = match value.trim().parse::<i64>() {
        Ok(number) if !["store.path", "serve.user"].contains(&key) => number.to_string(),
        _ => toml::Value::from(value).to_string(),
    };
    Ok(format!("{key} = {value}"))
}

/// The environment variable of a key: `store.path` is `PROBE__STORE__PATH`.
fn variable(key: &str) -> String {
    format!("PROBE__{}", key.replace('.', "__").to_ascii_uppercase())
}

#[cfg(test)]
mod tests;
