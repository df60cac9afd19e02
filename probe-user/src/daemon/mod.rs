//! `probe daemon`: watches the processes of its targets, and when a rule breaks keeps the scene and tells of it. Wiring
//! only: what samples is behind [`Scene`], what decides is in `monitor`, what stores in `snapshot`, what sends in `alert`.
//!
//! Two threads do the work, so that neither a slow disk nor a large symbol table delays the watching: the caller's watches
//! (`watcher`), another keeps (`keeper`).

mod collector;
mod evidence;
mod functions;
mod holds;
mod keeper;
mod memory;
mod narrow;
mod reload;
mod roster;
mod watcher;

#[cfg(test)]
pub(crate) mod tests;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::alert::{Outbox, Sender};
use crate::config::Config;
use crate::latency::Registry;
use crate::record::{Lifecycle, Recording};
use crate::snapshot::Store;
use crate::symbolize::Profile;
pub use collector::collect;
use holds::Holds;
use keeper::Keeper;
use watcher::Watcher;

/// What the daemon needs from whoever samples. Times are nanoseconds of the monotonic clock.
pub trait Scene: Send + Sync {
    /// Starts sampling a process, under the name of its service. Watching a process again is no error.
    fn watch(&self, pid: u32, name: &str) -> Result<()>;

    /// Ends sampling a process and forgets it. That it is gone is no error.
    fn unwatch(&self, pid: u32) -> Result<()>;

    /// What was recorded of a process in `from_ns..to_ns`, with names. The process may be gone; the recording may begin
    /// later than `from_ns`.
    fn profile(&self, pid: u32, from_ns: u64, to_ns: u64) -> Result<Profile>;

    /// Every thread of a process now, without names.
    fn dump(&self, pid: u32) -> Result<Recording>;

    /// Names what [`Self::dump`] has found; the process may be gone.
    fn name(&self, dump: &Recording) -> Profile;

    /// Now.
    fn now_ns(&self) -> u64;
}

/// What others ask of a running daemon.
#[derive(Debug, Default)]
pub struct Control {
    is_stopping: AtomicBool,
    config: Mutex<Option<Config>>,
}

impl Control {
    /// Ends it. True if that was asked for before.
    pub fn stop(&self) -> bool {
        self.is_stopping.swap(true, Ordering::Relaxed)
    }

    /// Has it go on by another configuration.
    pub fn reload(&self, config: Config) {
        *self.config.lock().unwrap_or_else(PoisonError::into_inner) = Some(config);
    }

    fn take_config(&self) -> Option<Config> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Breaches that may wait for the keeper. Each is a few hundred bytes; there is at most one for each rule and process in
/// a cooldown, so that more than this at once is a host on which everything breaks.
const WAITING_BREACHES: usize = 256;

/// How long stopping waits for the keeper, and then for deliveries under way: together with the watcher's tick under five
/// seconds.
const KEEPER_PATIENCE: Duration = Duration::from_millis(3000);
const SENDER_PATIENCE: Duration = Duration::from_millis(500);

/// Runs until it is to stop. `events` is what happens to all processes of the host; it may miss some. `functions` takes
/// those of the configuration in; others may be added to it and changed meanwhile.
pub fn run(
    config: &Config,
    scene: Arc<dyn Scene>,
    functions: Arc<Registry>,
    events: &Receiver<Lifecycle>,
    control: &Control,
) -> Result<()> {
    let store = Store::open(&config.store.path, config.store.limits)?;
    let outbox = Arc::new(Outbox::open(&config.store.path.join("outbox")));
    let sender = Sender::start(Arc::clone(&outbox), &config.channels).context("cannot start the alert threads")?;
    let holds = Arc::new(Holds::new(Arc::clone(&scene)));
    let (tell, told) = sync_channel(WAITING_BREACHES);
    let keeper = Keeper::new(Arc::clone(&scene), Arc::clone(&holds), store, outbox);
    let keeper = std::thread::Builder::new()
        .name("keeper".into())
        .spawn(move || keeper.run(&told))
        .context("cannot start the keeper thread")?;
    let mut watcher = Watcher::new(config, scene, holds, Arc::clone(&functions), tell);
    let is_over = || control.is_stopping.load(Ordering::Relaxed) || keeper.is_finished();
    watcher.run(events, is_over, || control.take_config());
    // Its end of the channel goes with it, which tells the keeper to finish.
    drop(watcher);
    let end = Instant::now() + KEEPER_PATIENCE;
    while !keeper.is_finished() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(10));
    }
    let has_panicked = if keeper.is_finished() {
        keeper.join().is_err()
    } else {
        tracing::error!("a snapshot took too long to finish and is lost");
        false
    };
    sender.stop(SENDER_PATIENCE);
    // It waits a second for its probes, unless others need it.
    drop(functions);
    // Whoever supervises the daemon starts it again.
    ensure!(!has_panicked, "the thread that keeps snapshots has died");
    Ok(())
}
