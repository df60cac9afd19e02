//! What the tests share: notices, channels as the configuration has them, a journal with its dispatcher.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use probe::alert::{
    Channel, ChannelFigures, Dispatcher, Journal, Links, Notice, NoticeHost, NoticeKind, NoticeProcess, SnapshotLink,
};
use probe::config::Config;
use probe::snapshot::Timestamp;
use probe_tests::{poll, workload};

/// How long a message may take on a busy machine.
pub const SOON: Duration = Duration::from_secs(30);

/// Names as a hostile target would have them.
pub const HOSTILE: &str =
    "<!channel> <@all> @all [click](http://evil.example) <at user_id=\"all\"></at> & \"\\'` größer 😀";

/// A breach of a process.
pub fn firing(pid: u32, channels: &[&str]) -> Notice {
    let now = SystemTime::now();
    let notice = Notice {
        kind: NoticeKind::Firing,
        target: "checkout".into(),
        rule: "checkout-cpu".into(),
        metric: "cpu".into(),
        value: 97.5,
        threshold: 80.0,
        unit: "percent of one core".into(),
        compared: "97.5 above 80 percent of one core".into(),
        host: NoticeHost { name: "node-1".into(), ip: "192.0.2.7".into(), cpu_percent: 31.0 },
        process: NoticeProcess {
            pid,
            exe: "/usr/bin/checkout".into(),
            container: Some("c0ffee".into()),
            pod: Some("checkout-7d9".into()),
            cpu_percent: 97.5,
            cpu_percent_of_host: 24.4,
        },
        culprit: "match_rules (rules.c:41) went from 0 % to 88 % of the process, in thread matcher".into(),
        started_at: Timestamp::from(now - Duration::from_secs(5)),
        breached_at: Timestamp::from(now),
        snapshot: Some(SnapshotLink {
            id: "01HF7YBW5R0000000000000007".parse().expect("an id"),
            path: "/var/lib/probe/01HF7YBW5R0000000000000007".into(),
        }),
        channels: channels.iter().map(|&name| name.to_owned()).collect(),
        ..Notice::default()
    };
    notice.identify()
}

/// Its end.
pub fn resolved(firing: &Notice) -> Notice {
    let resolved_at = Some(Timestamp::from(SystemTime::now()));
    Notice { kind: NoticeKind::Resolved, value: 3.0, resolved_at, ..firing.clone() }
}

/// The same of a hostile target, with far too long a story.
pub fn hostile(firing: Notice) -> Notice {
    Notice { culprit: format!("{HOSTILE} {}", "x<&\"größer ".repeat(3000)), target: HOSTILE.into(), ..firing }
        .identify()
}

/// Where snapshots are seen.
pub fn links() -> Links {
    Links { external_url: Some("https://probe.example.org".into()) }
}

pub const LINK: &str = "https://probe.example.org/snapshots/01HF7YBW5R0000000000000007";

/// A folder with files and the configuration that names them; `DIR` in both is the folder.
pub struct Files {
    pub folder: tempfile::TempDir,
}

impl Files {
    pub fn new(files: &[(&str, &str)]) -> Result<Self> {
        let new = Self { folder: workload::scratch()? };
        for (name, text) in files {
            new.write(name, text)?;
        }
        Ok(new)
    }

    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.folder.path().join(name);
        fs::write(&path, text.replace("DIR", &self.folder.path().display().to_string()))?;
        Ok(path)
    }

    /// The channels of a configuration.
    pub fn channels(&self, text: &str) -> Result<Vec<Channel>> {
        let path = self.write("probe.toml", text)?;
        Ok(Config::load(&path, &[])?.channels)
    }

    /// The one channel of a configuration.
    pub fn channel(&self, text: &str) -> Result<Channel> {
        self.channels(text)?.pop().context("a channel")
    }
}

/// A journal and what sends from it.
pub struct Bench {
    pub files: Files,
    pub journal: Journal,
    dispatcher: Option<Dispatcher>,
}

impl Bench {
    pub fn new(channels: &str) -> Result<Self> {
        Self::with(Files::new(&[])?, channels)
    }

    pub fn with(files: Files, channels: &str) -> Result<Self> {
        let journal = Journal::open(&files.folder.path().join("journal"), None)?;
        let channels = files.channels(channels)?;
        let state = files.folder.path().join("state");
        let dispatcher = Some(Dispatcher::start(journal.path(), &state, &channels, links())?);
        Ok(Self { files, journal, dispatcher })
    }

    /// Goes on with other channels.
    pub fn replace(&self, channels: &str) -> Result<()> {
        let channels = self.files.channels(channels)?;
        self.dispatcher.as_ref().context("it runs")?.replace(&channels, links())
    }

    /// The figures of a channel.
    pub fn figures(&self, channel: &str) -> ChannelFigures {
        let figures = self.dispatcher.iter().flat_map(Dispatcher::figures);
        figures.into_iter().find(|figures| figures.channel == channel).unwrap_or_default()
    }

    /// Waits until a channel's figures are as they should be.
    pub fn wait(
        &self,
        channel: &str,
        what: &str,
        is_right: impl Fn(&ChannelFigures) -> bool,
    ) -> Result<ChannelFigures> {
        let found = poll::until(what, SOON, || Some(self.figures(channel)).filter(|figures| is_right(figures)));
        found.with_context(|| format!("{:?}", self.figures(channel)))
    }

    /// Stops what sends.
    pub fn stop(&mut self) {
        if let Some(dispatcher) = self.dispatcher.take() {
            dispatcher.stop(Duration::from_secs(2));
        }
    }

    /// Stops, and starts again as after a restart.
    pub fn restart(&mut self, channels: &str) -> Result<()> {
        self.stop();
        let channels = self.files.channels(channels)?;
        let state = self.files.folder.path().join("state");
        self.dispatcher = Some(Dispatcher::start(self.journal.path(), &state, &channels, links())?);
        Ok(())
    }
}
