//! `probe daemon`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};

use super::Descriptors;
use super::config::Source;
use crate::daemon::{self, Control};
use crate::latency::Registry;
use crate::problem::Problem;

/// Flags of `probe daemon`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    source: Source,
    /// The folder of the snapshots, instead of the configured one
    #[arg(long, value_name = "PATH")]
    store: Option<PathBuf>,
}

/// Runs `probe daemon`.
pub fn run(args: Args) -> Result<ExitCode> {
    let config = args.source.load_file(args.store.clone())?;
    for channel in &config.channels {
        if let Err(error) = channel.url() {
            tracing::warn!("channel {}: {error:#}", channel.name);
        }
    }
    if config.rules.is_empty() {
        tracing::warn!("the configuration has no [[rule]]: nothing will be kept");
    }
    Descriptors::raise();
    let control = Arc::new(Control::default());
    listen(Arc::clone(&control), args)?;
    let (scene, events) = daemon::collect(&config.sampling)?;
    let functions = Arc::new(Registry::start(config.sampling.max_overhead)?);
    daemon::run(&config, scene, functions, &events, &control)?;
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// Stops at the first SIGTERM or SIGINT; the second ends the process at once. SIGHUP reads the configuration again.
fn listen(control: Arc<Control>, args: Args) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start tokio")?;
    let (mut terminate, mut interrupt, mut hangup) = {
        let _guard = runtime.enter();
        let failed = "cannot listen to signals";
        let signal = |kind| signal(kind).context(failed);
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?, signal(SignalKind::hangup())?)
    };
    let listen = async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                _ = hangup.recv() => {
                    reload(&control, &args);
                    continue;
                }
            }
            if control.stop() {
                std::process::exit(130);
            }
            tracing::info!("stopping");
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(move || runtime.block_on(listen))?;
    Ok(())
}

/// What is wrong leaves the daemon as it is.
fn reload(control: &Control, args: &Args) {
    match args.source.load_file(args.store.clone()) {
        Ok(config) => control.reload(config),
        Err(error) => {
            tracing::error!("the configuration stays as it was: {error:#}");
            if let Some(problem) = error.downcast_ref::<Problem>().filter(|problem| !problem.hint.is_empty()) {
                tracing::error!("hint: {}", problem.hint);
            }
        }
    }
}
