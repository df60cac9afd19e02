//! `probe daemon`: the supervisor, and by `--only collector` the collector.

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};

use super::config::{Place, readable, serviceable};
use super::log::Verbosity;
use super::{Descriptors, folders, process, readers};
use crate::config::{Config, Log};
use crate::control::transport::Peers;
use crate::daemon::{self, Control, Settings};
use crate::kernel::closer;
use crate::latency::Registry;
use crate::sandbox::{self, User};
use crate::supervise::{self, Beat, Heart};

/// How often it is looked whether a collector that was told to read its configuration again can.
const SOON: Duration = Duration::from_millis(100);

/// Flags of `probe daemon`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    place: Place,
    /// Run one process only, unsupervised: the collector. The other is `probe serve`
    #[arg(long, value_enum, value_name = "PROCESS")]
    only: Option<Process>,
    /// Tell a supervisor on standard output how one is
    #[arg(long, hide = true)]
    supervised: bool,
    /// Say whether both processes could go on by the configuration, and end
    #[arg(long, hide = true)]
    check: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Process {
    /// Watches, records and keeps: with privileges and without a network
    Collector,
}

/// Runs `probe daemon`.
pub fn run(args: Args, verbosity: Verbosity) -> Result<ExitCode> {
    if args.check {
        return check(&args, verbosity);
    }
    let config = args.place.load_file()?;
    verbosity.start_service(config.log, if args.only.is_some() { "collector" } else { "supervisor" });
    match args.only {
        Some(Process::Collector) => collect(args),
        None => supervise(&config, &args, verbosity),
    }
}

/// What is wrong is in the log.
fn check(args: &Args, verbosity: Verbosity) -> Result<ExitCode> {
    let config = args.place.load_file();
    verbosity.start_service(config.as_ref().map_or_else(|_| Log::default(), |config| config.log), "supervisor");
    let checked = config.and_then(|config| {
        readable(&config, args.place.path())?;
        serviceable(&config)
    });
    Ok(match checked {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            process::refuse(&error);
            ExitCode::FAILURE
        }
    })
}

/// Starts both processes of the daemon by the same flags.
fn supervise(config: &Config, args: &Args, verbosity: Verbosity) -> Result<ExitCode> {
    // What is wrong for both is said once, by this one.
    readable(config, args.place.path())?;
    folders::prepare(config, &User::choose(config.serve.user.as_deref())?)?;
    folders::expect_store(config)?;
    if config.rules.is_empty() {
        tracing::warn!("the configuration has no [[rule]]: nothing will be kept");
    }
    let job = |command: &[&str]| {
        let mut arguments: Vec<OsString> = command.iter().map(Into::into).collect();
        arguments.push("--supervised".into());
        arguments.extend(verbosity.arguments());
        arguments.extend(args.place.arguments());
        arguments
    };
    let jobs = vec![("collector", job(&["daemon", "--only", "collector"])), ("server", job(&["serve"]))];
    let mut check: Vec<OsString> = vec!["daemon".into(), "--check".into()];
    check.extend(verbosity.arguments());
    check.extend(args.place.arguments());
    let done = supervise::run(jobs, check)?;
    if done == ExitCode::SUCCESS {
        tracing::info!("stopped");
    }
    Ok(done)
}

/// The collector.
fn collect(args: Args) -> Result<ExitCode> {
    let settings = Arc::new(Settings::open(args.place.read()?)?);
    let config = &settings.config();
    process::set_name(c"probe-collector");
    let heart = Heart::new(args.supervised);
    let user = User::choose(config.serve.user.as_deref())?;
    let is_other = user.uid != rustix::process::geteuid().as_raw();
    let peers = Peers { uid: Some(user.uid), gid: is_other.then_some(user.gid) };
    Descriptors::raise();
    folders::prepare_shared(config, &user)?;
    folders::expect_store(config)?;
    readers::start();
    sandbox::collector(peers.gid)?;
    closer::start();
    let control = Arc::new(Control::new(heart, Some(Arc::clone(&settings))));
    listen(Arc::clone(&control), args)?;
    let (scene, events) = daemon::collect(&config.sampling)?;
    let functions = Arc::new(Registry::start(config.sampling.max_overhead)?);
    daemon::run(config, peers, scene, functions, events, &control)?;
    tracing::info!("the collector has stopped");
    Ok(ExitCode::SUCCESS)
}

/// Stops at the first SIGTERM or SIGINT; without a supervisor, which has its own patience and hears of SIGINT itself, the
/// second ends the process at once. SIGHUP reads the configuration again: with a supervisor that is to check it, and SIGUSR1
/// to go on by it, or SIGUSR2 to forget it.
fn listen(control: Arc<Control>, args: Args) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start tokio")?;
    let (mut terminate, mut interrupt, mut hangup, mut switch, mut forget) = {
        let _guard = runtime.enter();
        let signal = |kind| signal(kind).context("cannot listen to signals");
        let stops = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let (hangup, switch) = (signal(SignalKind::hangup())?, signal(SignalKind::user_defined1())?);
        (stops.0, stops.1, hangup, switch, signal(SignalKind::user_defined2())?)
    };
    let listen = async move {
        let mut is_due = false;
        loop {
            // Not refused because it comes early: the server takes the same file over.
            if is_due && control.is_ready() {
                is_due = false;
                reload(&control, &args);
            }
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => if args.supervised { continue },
                _ = hangup.recv() => {
                    is_due = true;
                    continue;
                }
                _ = switch.recv() => {
                    answer(&control, control.switch().map(|()| Beat::Reloaded));
                    continue;
                }
                _ = forget.recv() => {
                    control.forget();
                    continue;
                }
                () = tokio::time::sleep(SOON), if is_due => continue,
            }
            if control.stop() && !args.supervised {
                std::process::exit(130);
            }
            tracing::debug!("stopping");
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(move || runtime.block_on(listen))?;
    Ok(())
}

/// What is wrong leaves the daemon as it is.
fn reload(control: &Control, args: &Args) {
    let prepared = args.place.read().and_then(|source| control.prepare(source));
    match prepared {
        Ok(_) if !args.supervised => answer(control, control.switch().map(|()| Beat::Reloaded)),
        prepared => answer(control, prepared.map(Beat::Prepared)),
    }
}

fn answer(control: &Control, done: Result<Beat>) {
    control.beat(done.unwrap_or_else(|error| {
        process::refuse(&error);
        Beat::Refused
    }));
}
