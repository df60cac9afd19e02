//! `probe config`, and the flags by which commands find their configuration.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::builder::{PathBufValueParser, TypedValueParser};

use super::print;
use crate::config::{self, Config, DEFAULT_PATH};
use crate::problem::{Exit, Problem};
use crate::sandbox::User;
use crate::snapshot::Store;

/// Where the configuration is.
#[derive(Debug, clap::Args)]
pub struct Source {
    /// The configuration [default: /etc/probe/probe.toml]
    #[arg(short, long, value_name = "FILE", value_parser = absolute())]
    config: Option<PathBuf>,
}

/// The same, with what a flag says of the store.
#[derive(Debug, clap::Args)]
pub struct Place {
    #[command(flatten)]
    source: Source,
    /// The folder of the snapshots, instead of the configured one
    #[arg(long, value_name = "PATH", value_parser = absolute())]
    store: Option<PathBuf>,
}

/// Whatever folder a process is in later, and whatever it may still see: a path is what it was when it was given.
fn absolute() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(std::path::absolute)
}

/// A flag that beats a key: its name, the key, the value.
type Flag = (&'static str, &'static str, String);

impl Source {
    /// Reads the file, which must be there.
    pub fn load_file(&self) -> Result<Config> {
        Config::load(self.path(), &[])
    }

    fn load(&self, flags: &[Flag]) -> Result<Config> {
        if self.config.is_none() && !self.path().exists() {
            return Config::without_file(flags);
        }
        Config::load(self.path(), flags)
    }

    fn path(&self) -> &Path {
        self.config.as_deref().unwrap_or(Path::new(DEFAULT_PATH))
    }
}

impl Place {
    /// Reads the file, which must be there.
    pub fn load_file(&self) -> Result<Config> {
        Config::load(self.path(), &self.flags()?)
    }

    /// Reads the file, to be checked with changes to it.
    pub fn read(&self) -> Result<config::Source> {
        Config::read(self.path(), &self.flags()?)
    }

    /// Opens the store for looking and removing. Where there is no file and none was named, it is the default one.
    pub fn open(&self) -> Result<Store> {
        let store = self.source.load(&self.flags()?)?.store;
        Ok(Store::read(&store.path, store.limits))
    }

    /// As flags, for a process of the same program.
    pub fn arguments(&self) -> Vec<OsString> {
        let flags = [("--config", &self.source.config), ("--store", &self.store)];
        let given = flags.into_iter().filter_map(|(flag, path)| Some([flag.into(), path.clone()?.into()]));
        given.flatten().collect()
    }

    /// The file.
    pub fn path(&self) -> &Path {
        self.source.path()
    }

    fn flags(&self) -> Result<Vec<Flag>> {
        let Some(store) = &self.store else { return Ok(Vec::new()) };
        let text = store.to_str().with_context(|| format!("--store {} is not UTF-8", store.display()))?;
        Ok(vec![("--store", "store.path", text.to_owned())])
    }
}

/// Flags of `probe config`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Say whether the configuration is right, or where it is not
    Check(Source),
    /// Print what results from file, environment and defaults
    Show(Source),
}

/// Runs `probe config`.
pub fn run(args: Args) -> Result<ExitCode> {
    match args.command {
        Command::Check(source) => {
            let config = source.load_file()?;
            readable(&config, source.path())?;
            serviceable(&config)?;
            let Config { targets, functions, rules, channels, .. } = &config;
            print(&format!(
                "{}: right: {}, {}, {}, {}\n",
                source.path().display(),
                count(targets.len(), "target"),
                count(functions.len(), "function"),
                count(rules.len(), "rule"),
                count(channels.len(), "channel"),
            ))?;
        }
        Command::Show(source) => print(&source.load(&[])?.to_string())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether the server can read what it needs, as the user that it will be.
pub(super) fn serviceable(config: &Config) -> Result<()> {
    let user = User::choose(config.serve.user.as_deref())?;
    user.act(|| {
        for channel in &config.channels {
            channel.check().with_context(|| format!("channel {}, as the server's user {}", channel.name, user.name))?;
        }
        config.http.check().with_context(|| format!("[serve], as the server's user {}", user.name))
    })?
}

/// Whether the server can read the configuration itself, as the user that it will be: it does so whenever that changes.
pub(super) fn readable(config: &Config, path: &Path) -> Result<()> {
    let user = User::choose(config.serve.user.as_deref())?;
    user.act(|| File::open(path).map(drop))?.map_err(|error| {
        let (name, gid) = (&user.name, user.gid);
        let hint = "have it in a folder that everybody may pass through (mode 755), such as /etc/probe, and give the file to \
                    the server's group";
        let hint = format!("{hint}: chgrp {gid} {0} && chmod 640 {0}", path.display());
        let message = format!("the server's user {name} cannot read the configuration {}: {error}", path.display());
        Problem::new(Exit::Usage, message, hint).into()
    })
}

fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}
