//! `probe daemon`: watches the processes of its targets, and when a rule breaks keeps the scene and tells of it. Wiring
//! only: what samples is behind [`Scene`], what decides is in `monitor`, what stores in `snapshot`, what sends in `alert`.
//!
//! Four threads do the work, so that neither a slow disk nor a large symbol table delays the watching or an alert: the caller's
//! watches (`watcher`), another keeps (`keeper`), a third tells (`announce`), a fourth has allocations followed while somebody
//! needs that (`heap`).

mod announce;
mod answers;
mod blame;
mod bounds;
mod call_times;
mod calm;
mod causes;
mod changes;
mod chronicle;
mod collector;
mod compared;
mod control;
mod demand;
mod evidence;
mod figures;
mod floods;
mod functions;
mod heap;
mod holdings;
mod holds;
mod inbox;
mod keeper;
mod limits;
mod measure;
mod memory;
mod merge;
mod narrow;
mod pins;
mod reload;
mod roster;
mod settings;
mod standing;
mod timeline;
mod watcher;

#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeSet;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};

use crate::alert::Journal;
use crate::config::Config;
use crate::control::transport::{Listener, Peers};
use crate::latency::Registry;
use crate::record::{InUse, Lifecycle, Makings, Recording, Stats, Stretch};
use crate::snapshot::{Options, Store};
use crate::supervise::Beat;
use crate::symbolize::Profile;
use crate::target::Stat;
use announce::{Announcer, News};
use answers::Answers;
pub use causes::Waits;
use chronicle::Chronicle;
pub use collector::collect;
pub use control::Control;
use demand::Demand;
use heap::Heaps;
use holds::Holds;
use keeper::Keeper;
pub use settings::Settings;
use standing::Standings;
use watcher::Watcher;

/// What the daemon needs from whoever samples. Times are nanoseconds of the monotonic clock.
pub trait Scene: Send + Sync {
    /// Processes of which something was seen since the last call: they were at work, waited or took memory.
    fn active(&self) -> Result<BTreeSet<u32>> {
        Ok(BTreeSet::new())
    }

    /// Starts sampling a process, under the name of its service, and following these waits of it. Watching a process again
    /// is no error.
    fn watch(&self, pid: u32, name: &str, waits: Waits) -> Result<()>;

    /// Ends sampling a process and forgets it. That it is gone is no error.
    fn unwatch(&self, pid: u32) -> Result<()>;

    /// Samples a process that is watched more often from now on, or at the usual rate again.
    fn hurry(&self, pid: u32, is_hurried: bool) -> Result<()>;

    /// What was recorded of a process in `from_ns..to_ns`, with names. The process may be gone; the recording may begin
    /// later than `from_ns`.
    fn profile(&self, pid: u32, from_ns: u64, to_ns: u64) -> Result<Profile>;

    /// Follows these waits of a process that is watched from now on.
    fn follow_waits(&self, pid: u32, waits: Waits) -> Result<()>;

    /// What was recorded of these processes in `from_ns..to_ns` was calm: it is kept to compare breaches with.
    fn remember(&self, calm: &BTreeSet<u32>, from_ns: u64, to_ns: u64) -> Result<()>;

    /// How many calm stretches of a process are kept.
    fn calm_stretches(&self, pid: u32) -> usize;

    /// The calm stretch of a process that suits best, among equals the typical one, with names: since when, and what was
    /// recorded. `None` if there is none yet.
    fn baseline(&self, pid: u32, suits: &dyn Fn(&Stretch) -> f64) -> Option<(u64, Profile)>;

    /// Every thread of a process now, without names.
    fn dump(&self, pid: u32) -> Result<Recording>;

    /// Names what [`Self::dump`] or [`Self::in_use`] has found; the process may be gone.
    fn name(&self, dump: &Recording) -> Profile;

    /// Follows what a process allocates from now on until it is freed, at a cost of at most `budget`, a share of one core. It
    /// may take a second.
    fn follow(&self, pid: u32, budget: f64) -> Result<()>;

    /// Follows it no longer, and forgets what was seen. A process that is not followed is no error.
    fn unfollow(&self, pid: u32) -> Result<()>;

    /// What a process allocated since it has been followed and what of it is in use, without names. It may be gone.
    fn in_use(&self, pid: u32) -> Result<InUse>;

    /// Asks of a process that is watched who starts its threads and who opens its descriptors, from now on, or no longer.
    fn ask_origins(&self, pid: u32, threads: bool, descriptors: bool) -> Result<()> {
        let _ = (pid, threads, descriptors);
        Ok(())
    }

    /// What a process has made since that is asked for and holds still, as far as was seen, without names.
    fn makings(&self, pid: u32) -> Result<Makings> {
        let _ = pid;
        Ok(Makings::default())
    }

    /// Samples at other rates, and keeps at most so many bytes, from now on.
    fn pace(&self, pace: limits::Pace) -> Result<()> {
        let _ = pace;
        Ok(())
    }

    /// Something of a process is not recorded, for this reason.
    fn lose(&self, pid: u32, reason: String, count: u64) -> Result<()> {
        let _ = (pid, reason, count);
        Ok(())
    }

    /// Figures about the sampling itself.
    fn stats(&self) -> Result<Stats> {
        Ok(Stats::default())
    }

    /// Now.
    fn now_ns(&self) -> u64;
}

/// How long stopping waits for the keeper: with the watcher's tick, and what taking probes away takes, under five seconds.
const KEEPER_PATIENCE: Duration = Duration::from_millis(3000);
/// How long the collector waits for another one to end: its supervisor may have been killed a moment ago.
const OTHER_DAEMON: Duration = Duration::from_secs(10);
/// The folder of the journal of alerts, in the store.
pub const JOURNAL: &str = "journal";

/// Processes may end while no daemon sees it: their alerts are over.
fn end_alerts_of_the_gone(journal: &Journal) {
    for alert in journal.firing().into_iter().filter(|alert| Stat::read(alert.process.pid).is_none()) {
        tracing::info!("{}: pid {} left while no daemon ran", alert.rule, alert.process.pid);
        journal.append(&alert.over(None));
    }
}

/// Runs until it is to stop. `events` is what happens to all processes of the host; it may miss some. `functions` takes
/// those of the configuration in; others may be added to it and changed meanwhile.
pub fn run(
    config: &Config,
    peers: Peers,
    scene: Arc<dyn Scene>,
    functions: Arc<Registry>,
    events: Receiver<Lifecycle>,
    control: &Arc<Control>,
) -> Result<()> {
    let store = Store::open(
        &config.store.path,
        Options { limits: config.store.limits, group: peers.gid, patience: OTHER_DAEMON },
    )?;
    let journal = Arc::new(Journal::open(&config.store.path.join(JOURNAL), peers.gid)?);
    let path = config.store.path.join(standing::FILE);
    let Standings { rules: standings, open, .. } = Standings::read(&path);
    let holds = Arc::new(Holds::new(Arc::clone(&scene)));
    let heaps = Arc::new(Heaps::start(Arc::clone(&scene), config.sampling.max_overhead)?);
    let (tell, told) = channel();
    let chronicle = Arc::new(Chronicle::new());
    let (inform, news) = channel();
    let mut announcer = Announcer::new(Arc::clone(&scene), Arc::clone(&journal), Arc::clone(&chronicle), path);
    announcer.catch_up(open, |id| store.sidecar(id).ok());
    end_alerts_of_the_gone(&journal);
    let announcer = std::thread::Builder::new()
        .name("announcer".into())
        .spawn(move || announcer.run(&news))
        .context("cannot start the thread that tells of breaches")?;
    let keeper = Keeper::new(Arc::clone(&scene), Arc::clone(&holds), store, inform.clone(), Arc::clone(&chronicle));
    let keeper = std::thread::Builder::new()
        .name("keeper".into())
        .spawn(move || keeper.run(&told))
        .context("cannot start the keeper thread")?;
    let answers = Answers {
        control: Arc::clone(control),
        scene: Arc::clone(&scene),
        functions: Arc::clone(&functions),
        holds: Arc::clone(&holds),
        chronicle: Arc::clone(&chronicle),
        store: config.store.path.clone(),
        started_at: SystemTime::now(),
        demand: Demand::default(),
        threads: Mutex::default(),
    };
    let tell = (tell, inform.clone());
    let mut watcher = Watcher::new(config, scene, holds, Arc::clone(&heaps), Arc::clone(&functions), tell, chronicle);
    let (inbox, heard) = inbox::join(events)?;
    control.listen(inbox);
    let listener = Listener::start(&config.collector.socket, peers, Arc::new(answers));
    let listener = listener.inspect_err(|error| tracing::error!("the server will know nothing: {error:#}"));
    control.beat(Beat::Ready);
    // Whoever supervises the daemon starts it again when one of its threads has died.
    let is_dead = || keeper.is_finished() || announcer.is_finished() || heaps.is_dead() || functions.is_dead();
    watcher.run(standings, &heard, control, is_dead);
    let is_lame = heaps.is_dead() || functions.is_dead();
    drop(listener);
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
    // What has no evidence yet is told without.
    let _ = inform.send(News::Stop);
    let has_panicked = announcer.join().is_err() || has_panicked;
    // The last snapshots have needed them. Whoever is being answered may still hold them.
    heaps.end();
    // It waits a second for its probes.
    functions.end();
    ensure!(!has_panicked, "a thread that keeps snapshots or tells of breaches has died");
    ensure!(!is_lame, "a thread that follows allocations or times functions has died");
    Ok(())
}
