//! `probe serve`: the server, with the network and without privileges.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::config::{Place, readable, serviceable};
use super::log::Verbosity;
use super::{folders, http, process};
use crate::alert::{Dispatcher, Links};
use crate::config::Config;
use crate::daemon::{JOURNAL, Settings};
use crate::sandbox::{self, Files, User};
use crate::supervise::{Beat, Heart, stuck};

/// How long stopping waits for deliveries that are under way.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often it tells that it is alive.
const LOOK: Duration = Duration::from_secs(1);

/// Flags of `probe serve`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    place: Place,
    /// Tell a supervisor on standard output how one is
    #[arg(long, hide = true)]
    supervised: bool,
}

/// Runs `probe serve`.
pub fn run(args: &Args, verbosity: Verbosity) -> Result<ExitCode> {
    verbosity.start_service(args.place.load_file()?.log, "server");
    let settings = Settings::open(args.place.read()?)?;
    let config = settings.config();
    process::set_name(c"probe-server");
    let heart = Heart::new(args.supervised);
    let user = User::choose(config.serve.user.as_deref())?;
    if !args.supervised {
        readable(&config, args.place.path())?;
    }
    let files = files(&config, args);
    folders::prepare(&config, &user)?;
    sandbox::server(&user, &files)?;
    heart.renew();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start tokio")?;
    runtime.block_on(serve(&settings, args, &files, heart))?;
    tracing::info!("the server has stopped");
    Ok(ExitCode::SUCCESS)
}

/// What the server sees of the host's files.
fn files(config: &Config, args: &Args) -> Files {
    let folder = |file: &Path| file.parent().map(Path::to_path_buf);
    let socket = folder(&config.collector.socket);
    let named = config.files();
    let named = named.iter().filter_map(|file| folder(file));
    let read = folder(args.place.path()).into_iter().chain(socket).chain([config.store.path.clone()]).chain(named);
    Files {
        read: read.collect(),
        write: vec![config.serve.state.clone()],
        listen: Some(config.http.listen.port()).filter(|port| *port != 0),
    }
}

/// Where alerts link to.
fn links(config: &Config) -> Links {
    Links { external_url: config.serve.external_url.clone() }
}

/// What cannot be read may be put right while the server runs: it is tried again whenever it is needed.
fn warn_of(config: &Config) {
    if let Err(error) = serviceable(config) {
        tracing::error!("{error:#}");
    }
}

async fn serve(settings: &Settings, args: &Args, files: &Files, heart: Heart) -> Result<()> {
    let mut config = settings.config();
    let listen = |kind| signal(kind).context("cannot listen to signals");
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let mut hangup = listen(SignalKind::hangup())?;
    let (mut switch, mut forget) = (listen(SignalKind::user_defined1())?, listen(SignalKind::user_defined2())?);
    // Before anything is told.
    let _lock = folders::take(&config.serve.state)?;
    warn_of(&config);
    let journal = config.store.path.join(JOURNAL);
    let dispatcher = Dispatcher::start(&journal, &config.serve.state, &config.channels, links(&config))?;
    let dispatcher = Arc::new(dispatcher);
    let (stop, is_stopping) = watch::channel(false);
    let http = tokio::spawn(http::run(config.clone(), Arc::clone(&dispatcher), is_stopping));
    let mut look = tokio::time::interval(LOOK);
    let place = place(&config.store.path);
    let mut is_alive = heart.beat(Beat::Ready);
    while is_alive {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => if !heart.is_supervised() { break },
            // With a supervisor it is only checked: both processes go on by it, or none.
            _ = hangup.recv() => {
                let prepared = args.place.read().and_then(|source| settings.prepare(source, true));
                is_alive = match prepared {
                    Ok(number) if heart.is_supervised() => heart.beat(Beat::Prepared(number)),
                    Ok(_) => match self::switch(settings, args, files, &mut config, &dispatcher) {
                        Ok(goes_on) => goes_on,
                        Err(error) => refuse(heart, &error),
                    },
                    Err(error) => refuse(heart, &error),
                };
            },
            _ = switch.recv() => match self::switch(settings, args, files, &mut config, &dispatcher) {
                Ok(true) => is_alive = heart.beat(Beat::Reloaded),
                // Its end is the answer.
                Ok(false) => break,
                Err(error) => is_alive = refuse(heart, &error),
            },
            _ = forget.recv() => settings.forget(),
            _ = look.tick() => {
                if heart.is_supervised() && self::place(&config.store.path).is_some_and(|now| place != Some(now)) {
                    tracing::warn!("the store was created again: the server restarts to see it");
                    break;
                }
                // One of which a thread hangs is to be started anew.
                if stuck().is_empty() {
                    is_alive = heart.beat(Beat::Alive);
                }
            }
        }
    }
    stop.send_replace(true);
    let _ = http.await;
    // What is under way is sent again after the next start, if it is not acknowledged by then.
    dispatcher.halt_within(PATIENCE);
    Ok(())
}

/// Goes on by the configuration that was checked. False if that takes a new process.
fn switch(
    settings: &Settings,
    args: &Args,
    files: &Files,
    config: &mut Config,
    dispatcher: &Arc<Dispatcher>,
) -> Result<bool> {
    let mut goes_on = true;
    settings.switch(|new| {
        if self::files(new, args) != *files || new.serve != config.serve || new.http != config.http {
            tracing::info!("what the server may access has changed: it restarts");
            goes_on = false;
            return Ok(());
        }
        warn_of(new);
        dispatcher.replace(&new.channels, links(new))
    })?;
    *config = settings.config();
    Ok(goes_on)
}

fn refuse(heart: Heart, error: &anyhow::Error) -> bool {
    process::refuse(error);
    heart.beat(Beat::Refused)
}

/// Device and inode of a folder: a process may be confined to that one.
fn place(folder: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(folder).map(|data| (data.dev(), data.ino())).ok()
}
