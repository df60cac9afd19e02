//! What is right of the sections on the daemon's own processes: `[collector]`, `[serve]`, `[limits]` and `[log]`.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::{Spanned, Value};

use super::Http;
use super::raw::{self, Scalar};
use super::thresholds;
use super::units::format_size;
use super::validate::{Check, Checked};
use crate::alert;

/// The default of `[store] path`. What stands elsewhere has all else next to it, so that several daemons get on.
pub(super) const STORE: &str = "/var/lib/probe";

/// The process with the privileges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collector {
    /// Where the server asks it.
    pub socket: PathBuf,
    /// What this host is called; `None` for its own name.
    pub host: Option<String>,
    /// Its address; `None` for the one that traffic leaves by.
    pub address: Option<IpAddr>,
    /// How long an alert waits for its culprit once its evidence is complete.
    pub culprit_wait: Duration,
}

/// The process with the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Serve {
    /// The address by which people reach it; `None` if they cannot.
    pub external_url: Option<String>,
    /// Whom it runs as; `None` for the usual.
    pub user: Option<String>,
    /// The folder that it writes to.
    pub state: PathBuf,
}

/// What the collector may take of the host.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Processor time, as a share of one core.
    pub cpu: f64,
    /// The same on top of that while a rule is pending or firing.
    pub incident_overhead: f64,
    /// Resident memory with that of its kernel maps, in bytes.
    pub memory: u64,
}

impl Default for Log {
    fn default() -> Self {
        Self { is_json: false, level: tracing::Level::INFO }
    }
}

/// How it is told what happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// One JSON object a line, instead of text.
    pub is_json: bool,
    /// The least that is told.
    pub level: tracing::Level,
}

impl Check<'_> {
    pub(super) fn collector(&self, raw: &raw::Collector, store: &Path) -> Checked<Collector> {
        let raw::Collector { socket, host, address, culprit_wait } = raw;
        let socket = self.place("socket", socket.as_ref(), store, "/run/probe/collector.sock", ".sock")?;
        if let Some(host) = host.as_ref().filter(|host| host.get_ref().trim().is_empty()) {
            return Err(self.error(&host.span(), "`host` is empty"));
        }
        let parse = |text: &Spanned<String>| {
            let wrong = || format!("`address` is an IP address such as 192.0.2.1, not `{}`", text.get_ref());
            text.get_ref().parse().map_err(|_| self.error(&text.span(), wrong()))
        };
        let address = address.as_ref().map(parse).transpose()?;
        let culprit_wait = self.duration(culprit_wait.as_ref(), Duration::from_secs(5))?;
        Ok(Collector { socket, host: host.as_ref().map(|host| host.get_ref().clone()), address, culprit_wait })
    }

    pub(super) fn serve(&self, raw: &raw::Serve, store: &Path) -> Checked<Serve> {
        let raw::Serve { external_url, user, state, .. } = raw;
        if let Some(url) = external_url {
            let is_plain = |c: char| c.is_ascii_graphic() && !"<>()[]|\"'`\\".contains(c);
            if alert::check_url(url.get_ref()).is_err() || !url.get_ref().chars().all(is_plain) {
                return Err(
                    self.error(&url.span(), "`external_url` must be a URL that begins with http:// or https://")
                );
            }
        }
        let external_url = external_url.as_ref().map(|url| url.get_ref().clone());
        if let Some(user) = user.as_ref().filter(|user| user.get_ref().is_empty()) {
            return Err(self.error(&user.span(), "`user` is a name or a number, not empty"));
        }
        let user = user.as_ref().map(|user| user.get_ref().clone());
        let folder = self.place("state", state.as_ref(), store, "/var/lib/probe-server", "-server")?;
        if folder.starts_with(store) || store.starts_with(&folder) {
            let span = state.as_ref().map_or(0..0, Spanned::span);
            return Err(self.error(
                &span,
                "`state` is the server's own folder, apart from `path` of [store], which it only reads",
            ));
        }
        Ok(Serve { external_url, user, state: folder })
    }

    /// A path that is given, or the usual one, which for a store in another place is next to that.
    fn place(
        &self,
        key: &str,
        path: Option<&Spanned<String>>,
        store: &Path,
        usual: &str,
        ending: &str,
    ) -> Checked<PathBuf> {
        match path {
            Some(path) if path.get_ref().starts_with('/') => Ok(path.get_ref().into()),
            Some(path) => {
                Err(self.error(&path.span(), format!("`{key}` must be an absolute path, beginning with `/`")))
            }
            None if store == Path::new(STORE) => Ok(usual.into()),
            None => {
                let mut path = store.as_os_str().to_owned();
                path.push(ending);
                Ok(path.into())
            }
        }
    }

    pub(super) fn limits(&self, raw: &raw::Limits) -> Checked<Limits> {
        let raw::Limits { cpu, incident_overhead, memory } = raw;
        let share = |key: &str, value: Option<&Spanned<Scalar>>, usual: f64| {
            let Some(value) = value else { return Ok(usual) };
            let text = &value.get_ref().0;
            let percent = thresholds::number(text, &["%"]).filter(|percent| *percent > 0.0 && *percent <= 10_000.0);
            let wrong = || format!("`{key}` is a number of percent of one core above 0, not `{text}`");
            percent.map(|percent| percent / 100.0).ok_or_else(|| self.error(&value.span(), wrong()))
        };
        let limits = Limits {
            cpu: share("cpu", cpu.as_ref(), 0.02)?,
            incident_overhead: share("incident_overhead", incident_overhead.as_ref(), 0.05)?,
            memory: self.size(memory.as_ref(), 150 << 20)?,
        };
        if let Some(memory) = memory.as_ref().filter(|_| limits.memory < 32 << 20) {
            return Err(self.error(&memory.span(), "`memory` must be at least 32MiB"));
        }
        Ok(limits)
    }

    pub(super) fn log(&self, raw: &raw::Log) -> Checked<Log> {
        let raw::Log { format, level } = raw;
        if format.is_some() {
            self.one_of("[log]", "format", &(0..0), format.as_ref(), &["text", "json"])?;
        }
        if level.is_some() {
            self.one_of("[log]", "level", &(0..0), level.as_ref(), &["error", "warn", "info", "debug", "trace"])?;
        }
        let level = level.as_ref().and_then(|level| level.get_ref().parse().ok());
        Ok(Log {
            is_json: format.as_ref().is_some_and(|format| format.get_ref() == "json"),
            level: level.unwrap_or(tracing::Level::INFO),
        })
    }
}

/// A section as it is shown.
type Section = (&'static str, Vec<(&'static str, Value)>);

/// These sections as TOML.
pub(super) fn sections(
    collector: &Collector,
    (http, serve): (&Http, &Serve),
    limits: Limits,
    log: Log,
) -> [Section; 4] {
    let path = |path: &Path| Value::from(path.display().to_string());
    let text = |key, value: &Option<String>| value.iter().map(|text| (key, text.as_str().into())).collect::<Vec<_>>();
    let user = [text("external_url", &serve.external_url), text("user", &serve.user)].concat().into_iter();
    let wait = humantime::format_duration(collector.culprit_wait).to_string();
    let socket = vec![("socket", path(&collector.socket)), ("culprit_wait", wait.into())];
    let address = collector.address.map(|address| address.to_string());
    let host = [text("host", &collector.host), text("address", &address)].concat();
    let format = if log.is_json { "json" } else { "text" };
    [
        ("[collector]", socket.into_iter().chain(host).collect()),
        ("[serve]", http.entries().into_iter().chain(user).chain([("state", path(&serve.state))]).collect()),
        (
            "[limits]",
            vec![
                ("cpu", (100.0 * limits.cpu).into()),
                ("incident_overhead", (100.0 * limits.incident_overhead).into()),
                ("memory", format_size(limits.memory).into()),
            ],
        ),
        ("[log]", vec![("format", format.into()), ("level", log.level.as_str().to_ascii_lowercase().into())]),
    ]
}
