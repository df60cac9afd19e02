//! `probe daemon`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};

use super::Descriptors;
use super::config::Source;
use crate::daemon;

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
    let config = args.source.load_file(args.store)?;
    for channel in &config.channels {
        if let Err(error) = channel.url() {
            tracing::warn!("channel {}: {error:#}", channel.name);
        }
    }
    if config.rules.is_empty() {
        tracing::warn!("the configuration has no [[rule]]: nothing will be kept");
    }
    Descriptors::raise();
    let stop = Arc::new(AtomicBool::new(false));
    stop_on_signal(Arc::clone(&stop))?;
    let (scene, events) = daemon::collect(&config.sampling)?;
    daemon::run(&config, scene, &events, &stop)?;
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// Sets `stop` at the first SIGTERM or SIGINT; the second ends the process at once.
fn stop_on_signal(stop: Arc<AtomicBool>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start tokio")?;
    let (mut terminate, mut interrupt) = {
        let _guard = runtime.enter();
        let failed = "cannot listen to signals";
        (signal(SignalKind::terminate()).context(failed)?, signal(SignalKind::interrupt()).context(failed)?)
    };
    let listen = async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if stop.swap(true, Ordering::Relaxed) {
                std::process::exit(130);
            }
            tracing::info!("stopping");
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(move || runtime.block_on(listen))?;
    Ok(())
}
