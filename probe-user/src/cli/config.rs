//! `probe config`, and the flags by which commands find their configuration.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};

use super::print;
use crate::config::{Config, DEFAULT_PATH};

/// Where the configuration is.
#[derive(Debug, clap::Args)]
pub struct Source {
    /// The configuration [default: /etc/probe/probe.toml]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Source {
    /// Reads the file, which must be there. `store` beats what it says of the store's folder.
    pub fn load_file(&self, store: Option<PathBuf>) -> Result<Config> {
        Config::load(self.path(), &flags(store)?)
    }

    /// Reads the file if there is one or one was named; else the defaults hold.
    pub fn load(&self, store: Option<PathBuf>) -> Result<Config> {
        if self.config.is_none() && !self.path().exists() {
            return Config::without_file(&flags(store)?);
        }
        self.load_file(store)
    }

    fn path(&self) -> &Path {
        self.config.as_deref().unwrap_or(Path::new(DEFAULT_PATH))
    }
}

fn flags(store: Option<PathBuf>) -> Result<Vec<(&'static str, &'static str, String)>> {
    let Some(store) = store else { return Ok(Vec::new()) };
    let path = std::path::absolute(&store).with_context(|| format!("--store {}", store.display()))?;
    let text = path.to_str().with_context(|| format!("--store {} is not UTF-8", store.display()))?;
    Ok(vec![("--store", "store.path", text.to_owned())])
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
            let config = source.load_file(None)?;
            for channel in &config.channels {
                channel.url().with_context(|| format!("channel {}", channel.name))?;
            }
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
        Command::Show(source) => print(&source.load(None)?.to_string())?,
    }
    Ok(ExitCode::SUCCESS)
}

fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}
