//! `probe alert`.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::config::Source;
use super::print;
use crate::alert::{Channel, Failure, Links, NoticeHost};
use crate::problem::{Exit, Problem};
use crate::sandbox::User;
use crate::target::{Host, HostCpu};
use crate::text::sanitize;

/// Flags of `probe alert`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Send a test through a channel, now, once, and say what happened
    Test(Test),
}

#[derive(Debug, clap::Args)]
struct Test {
    /// The name of the [[notify]]
    name: String,
    #[command(flatten)]
    source: Source,
}

/// Runs `probe alert`.
pub fn run(args: Args) -> Result<ExitCode> {
    let Command::Test(Test { name, source }) = args.command;
    let config = source.load_file()?;
    let Some(channel) = config.channels.iter().find(|channel| channel.name == name) else {
        let known: Vec<&str> = config.channels.iter().map(|channel| channel.name.as_str()).collect();
        let hint = match known.as_slice() {
            [] => "the configuration has no [[notify]]".to_owned(),
            known => format!("known: {}", known.join(", ")),
        };
        let message = format!("there is no [[notify]] named `{}`", sanitize(&name));
        return Err(Problem::new(Exit::Usage, message, hint).into());
    };
    let links = Links { external_url: config.serve.external_url.clone() };
    let start = Instant::now();
    // As the server would: what only root may read is no secret that it knows.
    let user = User::choose(config.serve.user.as_deref())?;
    match user.act(|| channel.test(host(), &links))? {
        Ok(()) => {
            let milliseconds = start.elapsed().as_millis();
            let kind = channel.kind.name();
            print(&format!("{name}: a test was sent to this {kind} and taken, in {milliseconds} ms\n"))?;
            Ok(ExitCode::SUCCESS)
        }
        Err(failure) => Err(problem(channel, &failure).into()),
    }
}

fn problem(channel: &Channel, failure: &Failure) -> Problem {
    let hint = match failure {
        Failure::Refused { .. } => "the service does not take such a message: compare what it says with docs/alerts.md",
        Failure::Later { after: Some(_), .. } => "the service takes no more messages now: try again later",
        Failure::Later { after: None, .. } => {
            "see whether the address, its file and the secret are right, and whether this host may reach it"
        }
    };
    let (name, kind) = (&channel.name, channel.kind.name());
    Problem::new(Exit::Failure, format!("the test to {name} ({kind}) was not taken: {failure}"), hint)
}

/// This host, its processors looked at for a moment.
fn host() -> NoticeHost {
    let before = HostCpu::read();
    std::thread::sleep(Duration::from_millis(100));
    let cpu_percent = before.zip(HostCpu::read()).map_or(0.0, |(before, now)| now.percent_since(&before));
    let Host { name, ip, .. } = Host::read();
    NoticeHost { name, ip: ip.map(|ip| ip.to_string()).unwrap_or_default(), cpu_percent }
}
