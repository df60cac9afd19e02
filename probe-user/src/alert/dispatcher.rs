//! The dispatcher: reads the journal, gives each notice to the lanes of the channels it names, and has a thread for each
//! lane that sends. It may be killed at any instant: what a channel has not acknowledged is sent after the next start.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;

use super::lane::{DeadLetters, Lane, folder_name};
use super::{Channel, Links, Notice, Reader};
use crate::supervise::Pulse;

/// How often the journal is looked at.
const POLL: Duration = Duration::from_millis(200);

/// What a round of reading takes at most, and a message: with all the timeouts of its service, and as many events as go
/// together.
const ROUND: Duration = Duration::from_secs(60);
const DELIVERY: Duration = Duration::from_secs(300);

/// Notices that are read at once.
const READ: usize = 256;

/// Sends what is in a journal. Dropping it stops it without waiting.
#[derive(Debug)]
pub struct Dispatcher {
    shared: Arc<Shared>,
    reader: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    /// The folder of the lanes.
    lanes: PathBuf,
    channels: Mutex<BTreeMap<String, Running>>,
    links: RwLock<Links>,
    is_stopping: AtomicBool,
    /// Has the journal been read to its end? Before, nothing is sent: what was sent already must be known first.
    is_caught_up: AtomicBool,
    unrouted: AtomicU64,
    /// Has a lane been opened that may not know all ends?
    is_unchecked: AtomicBool,
}

/// A channel at work.
#[derive(Debug)]
struct Running {
    channel: Channel,
    lane: Arc<Lane>,
    worker: Option<Worker>,
}

#[derive(Debug)]
struct Worker {
    thread: JoinHandle<()>,
    stop: Arc<AtomicBool>,
}

/// What a channel has done since the start, and what waits for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ChannelFigures {
    /// Its name.
    pub channel: String,
    /// Its type.
    pub kind: &'static str,
    /// Notices that it has taken.
    pub sent: u64,
    /// Messages that it has taken; one may hold several notices.
    pub messages: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Attempts that were not the first.
    pub retried: u64,
    /// Notices that were given up.
    pub dead: u64,
    /// Notices that said what was known.
    pub deduplicated: u64,
    /// Notices that wait.
    pub queued: usize,
    /// How long the oldest of them has, in seconds.
    pub oldest_seconds: u64,
}

impl Dispatcher {
    /// Starts it on the journal in a folder, which need not be there yet. In the folder `state` it keeps the queues and
    /// how far it has come; only one dispatcher may use it.
    pub fn start(journal: &Path, state: &Path, channels: &[Channel], links: Links) -> Result<Self> {
        let mut reader = Reader::open(journal, state)?;
        let shared = Arc::new(Shared {
            lanes: state.join("channels"),
            channels: Mutex::default(),
            links: RwLock::new(links.clone()),
            is_stopping: AtomicBool::new(false),
            is_caught_up: AtomicBool::new(false),
            unrouted: AtomicU64::new(0),
            is_unchecked: AtomicBool::new(true),
        });
        shared.replace(channels, links)?;
        shared.warn_of_strangers();
        let follower = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("alerts".into()).spawn(move || follow(&mut reader, &follower));
        Ok(Self { reader: Some(thread.context("cannot start the thread that reads alerts")?), shared })
    }

    /// Goes on with other channels. Those that stay keep their queues; those that go keep them on the disk.
    pub fn replace(&self, channels: &[Channel], links: Links) -> Result<()> {
        self.shared.replace(channels, links)
    }

    /// The figures of all channels, by name.
    pub fn figures(&self) -> Vec<ChannelFigures> {
        self.shared.channels().values().map(figures).collect()
    }

    /// Notices for channels that there are not.
    pub fn unrouted(&self) -> u64 {
        self.shared.unrouted.load(Ordering::Relaxed)
    }

    /// Stops: waits at most `patience` for deliveries that are under way. They are repeated after the next start if they
    /// take longer.
    pub fn stop(mut self, patience: Duration) {
        let reader = self.reader.take();
        self.halt_within(patience);
        drop(reader);
    }

    /// The same for one that others still look at.
    pub fn halt_within(&self, patience: Duration) {
        let threads = self.halt();
        let end = Instant::now() + patience;
        while threads.iter().any(|thread| !thread.is_finished()) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn halt(&self) -> Vec<JoinHandle<()>> {
        self.shared.is_stopping.store(true, Ordering::Relaxed);
        let mut channels = self.shared.channels();
        channels.values_mut().filter_map(Running::stop).collect()
    }
}

impl Drop for Dispatcher {
    fn drop(&mut self) {
        self.halt();
    }
}

impl Running {
    fn stop(&mut self) -> Option<JoinHandle<()>> {
        let worker = self.worker.take()?;
        worker.stop.store(true, Ordering::Relaxed);
        self.lane.wake();
        Some(worker.thread)
    }
}

fn figures(running: &Running) -> ChannelFigures {
    let (queued, oldest) = running.lane.queued();
    let counts = &running.lane.counts;
    let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
    ChannelFigures {
        channel: running.channel.name.clone(),
        kind: running.channel.kind.name(),
        sent: read(&counts.sent),
        messages: read(&counts.messages),
        failed: read(&counts.failed),
        retried: read(&counts.retried),
        dead: read(&counts.dead),
        deduplicated: read(&counts.deduplicated),
        queued,
        oldest_seconds: oldest.as_secs(),
    }
}

impl Shared {
    fn replace(self: &Arc<Self>, wanted: &[Channel], links: Links) -> Result<()> {
        *self.links.write().unwrap_or_else(PoisonError::into_inner) = links;
        let mut done = Ok(());
        let mut channels = self.channels();
        channels.retain(|name, running| {
            let stays = wanted.iter().any(|channel| channel.name == *name);
            if !stays {
                running.stop();
            }
            stays
        });
        for channel in wanted {
            match channels.get_mut(&channel.name) {
                Some(running) if running.channel == *channel => {}
                Some(running) => {
                    // A delivery that is under way keeps its notices from the next worker.
                    running.stop();
                    running.channel = channel.clone();
                    running.lane.set_policy(channel.policy, channel.kind.group());
                }
                None => match Lane::open(&self.lanes, &channel.name, channel.policy, channel.kind.group()) {
                    Ok(lane) => {
                        let running = Running { channel: channel.clone(), lane: Arc::new(lane), worker: None };
                        channels.insert(channel.name.clone(), running);
                        self.is_unchecked.store(true, Ordering::Relaxed);
                    }
                    Err(error) => done = Err(error),
                },
            }
        }
        drop(channels);
        self.start_workers().and(done)
    }

    /// Starts a thread for each channel that has none.
    fn start_workers(self: &Arc<Self>) -> Result<()> {
        if !self.is_caught_up.load(Ordering::Relaxed) || self.is_stopping.load(Ordering::Relaxed) {
            return Ok(());
        }
        for running in self.channels().values_mut().filter(|running| running.worker.is_none()) {
            let stop = Arc::new(AtomicBool::new(false));
            let (shared, channel, lane) = (Arc::clone(self), running.channel.clone(), Arc::clone(&running.lane));
            let is_over = Arc::clone(&stop);
            let pulse = Pulse::new(format!("channel {}", channel.name), DELIVERY);
            let work = move || {
                while let Some(batch) = lane.next(&is_over) {
                    let _busy = pulse.begin();
                    let notices: Vec<Notice> = batch.iter().map(|entry| entry.message()).collect();
                    let links = shared.links.read().unwrap_or_else(PoisonError::into_inner).clone();
                    lane.settle(&batch, channel.deliver(&notices, &links));
                }
            };
            let thread = std::thread::Builder::new().name("alert".into()).spawn(work);
            let thread = thread.context("cannot start a thread that sends alerts")?;
            running.worker = Some(Worker { thread, stop });
        }
        Ok(())
    }

    /// Gives a notice to all channels it names.
    fn route(&self, notice: &Notice) {
        let channels = self.channels();
        for name in notice.channels.iter().collect::<BTreeSet<_>>() {
            match channels.get(name) {
                Some(running) if notice.is_brief() && running.channel.kind.keeps_state() => {
                    notice.split().iter().for_each(|part| running.lane.accept(part));
                }
                Some(running) => running.lane.accept(notice),
                None => {
                    let folder = self.lanes.join(folder_name(name)).join("dead");
                    let why = format!("unknown channel `{name}`");
                    let place = match DeadLetters::keep_stray(&folder, notice, &why) {
                        Ok(()) => format!("it is kept in {}", folder.display()),
                        Err(error) => format!("it cannot be kept in {}: {error}", folder.display()),
                    };
                    tracing::error!("an alert of {} is for the unknown channel `{name}`: {place}", notice.rule);
                    self.unrouted.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    /// Ends the alerts of new lanes that fire no longer. The journal must have been read to its end.
    fn check(&self, reader: &Reader) {
        if !self.is_unchecked.swap(false, Ordering::Relaxed) {
            return;
        }
        match reader.firing() {
            Ok(firing) => self.channels().values().for_each(|running| running.lane.end_all_but(&firing)),
            // It will be there, or be shared, later.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => {
                self.is_unchecked.store(true, Ordering::Relaxed);
            }
            Err(error) => tracing::warn!("ends of alerts may have been missed: {error}"),
        }
    }

    /// Is all that was given to channels on the disk?
    fn flush(&self) -> bool {
        // Each of them, not only up to the first that is not.
        self.channels().values().filter(|running| !running.lane.flush()).count() == 0
    }

    /// What waits for channels that there are no longer is left alone: a name may come back.
    fn warn_of_strangers(&self) {
        let known: BTreeSet<String> = self.channels().keys().map(|name| folder_name(name)).collect();
        for entry in std::fs::read_dir(&self.lanes).into_iter().flatten().flatten() {
            let waiting = super::disk::ids(&entry.path().join("queue")).unwrap_or_default().len();
            if waiting > 0 && !known.contains(&*entry.file_name().to_string_lossy()) {
                let path = entry.path();
                tracing::warn!("{waiting} alerts wait in {} for a channel that no longer exists", path.display());
            }
        }
    }

    fn channels(&self) -> MutexGuard<'_, BTreeMap<String, Running>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads the journal until it is to stop.
fn follow(reader: &mut Reader, shared: &Arc<Shared>) {
    let mut is_saved = true;
    let pulse = Pulse::new("alerts", ROUND);
    while !shared.is_stopping.load(Ordering::Relaxed) {
        let busy = pulse.begin();
        let notices = reader.read(READ);
        let has_more = notices.len() == READ;
        for (id, notice) in notices {
            if let Some(notice) = notice {
                shared.route(&notice);
            }
            reader.advance(id);
            is_saved = false;
        }
        // Not before everything is in the queues: what is lost in between is read again.
        if !is_saved && shared.flush() {
            match reader.save() {
                Ok(()) => is_saved = true,
                Err(error) => tracing::debug!("{error:#}"),
            }
        }
        if has_more {
            continue;
        }
        shared.check(reader);
        if !shared.is_caught_up.swap(true, Ordering::Relaxed)
            && let Err(error) = shared.start_workers()
        {
            tracing::error!("{error:#}");
        }
        drop(busy);
        std::thread::sleep(POLL);
    }
}
