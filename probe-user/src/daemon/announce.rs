//! The announcer: has alerts told, in time. A breach is announced with what is known of it at once; what its evidence says,
//! above all the culprit, comes from the keeper when that has named it. An alert waits for that for a bounded time, and
//! otherwise leaves without, so that nothing a target has on its disk holds it back. What comes later is told later.
//! Nothing here reads what a target can name.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use ulid::Ulid;

use super::Scene;
use super::chronicle::Chronicle;
use super::evidence::wall_ahead_ns;
use super::standing::{OfProcess, OpenAlert, Standings};
use crate::alert::{Journal, Links, Notice, sentence};
use crate::monitor::{Breach, Over};
use crate::snapshot::{Sidecar, Timestamp};
use crate::supervise::Pulse;

/// How long an alert of an earlier daemon has time to fire again: the longest that rules usually wait.
const GRACE: Duration = Duration::from_secs(600);

/// How often it is looked whether the disk takes what it has refused.
const RETRY: Duration = Duration::from_secs(5);

/// Longest time without looking.
const LOOK: Duration = Duration::from_secs(60);

/// A round of this thread writes some small files. Whoever does that for longer hangs.
const DEADLINE: Duration = Duration::from_secs(60);

const FOLLOWS: &str = "its functions are not named yet: the culprit follows in a second message";

/// What the announcer is told.
#[derive(Debug)]
pub(super) enum News {
    /// A rule was broken. The notice says all but the culprit; it is told then at the latest.
    Breach { notice: Box<Notice>, due_ns: u64 },
    /// All that is known of a breach that was announced; it has the same snapshot.
    Evidence { id: Ulid, notice: Box<Notice> },
    /// There is no evidence of a breach that was announced.
    Lost { id: Ulid, reason: String },
    /// Something that is told as it is.
    Notice(Box<Notice>),
    /// A breach is over.
    Over(Box<Over>),
    /// How rules stand now, to be kept.
    Standing(Vec<OfProcess>),
    /// Nothing more will come.
    Stop,
}

/// A breach whose evidence is not there yet.
#[derive(Debug)]
struct Open {
    id: Ulid,
    notice: Notice,
    due_ns: u64,
    is_told: bool,
    /// It was told, is over, and that was told.
    end: Option<Notice>,
}

/// See the head of this file.
pub(super) struct Announcer {
    scene: Arc<dyn Scene>,
    pub(super) journal: Arc<Journal>,
    chronicle: Arc<Chronicle>,
    open: Vec<Open>,
    /// Alerts that an earlier daemon has told of, since when they are known. Those that do not fire again are over.
    inherited: Option<(Instant, Vec<Notice>)>,
    /// Alerts that the disk has refused so far.
    held: usize,
    /// Where it is kept how things stand.
    path: PathBuf,
    standings: Vec<OfProcess>,
    /// That is not what is on the disk.
    has_changed: bool,
}

impl Announcer {
    /// One with nothing to tell.
    pub(super) fn new(scene: Arc<dyn Scene>, journal: Arc<Journal>, chronicle: Arc<Chronicle>, path: PathBuf) -> Self {
        let inherited = Some((Instant::now(), journal.firing())).filter(|(_, alerts)| !alerts.is_empty());
        let (open, standings) = (Vec::new(), Vec::new());
        Self { scene, journal, chronicle, open, inherited, held: 0, path, standings, has_changed: false }
    }

    /// Tells what an earlier collector had no time for. Of its evidence there is what it has stored.
    pub(super) fn catch_up(&mut self, alerts: Vec<OpenAlert>, stored: impl Fn(Ulid) -> Option<Sidecar>) {
        for OpenAlert { id, notice, is_told } in alerts {
            let news = match stored(id) {
                Some(sidecar) => {
                    let folder = notice.snapshot.as_ref().map(|snapshot| snapshot.path.clone());
                    News::Evidence { id, notice: Box::new(Notice::of_snapshot(&sidecar, folder, &notice.channels)) }
                }
                None => News::Lost { id, reason: "the collector has ended before its evidence was kept".to_owned() },
            };
            self.open.push(Open { id, notice, due_ns: u64::MAX, is_told, end: None });
            self.hear(news);
        }
    }

    /// Works until it is to stop; then tells what there is.
    pub(super) fn run(mut self, news: &Receiver<News>) {
        let pulse = Pulse::new("announcer", DEADLINE);
        loop {
            let heard = news.recv_timeout(self.idle_time());
            let _busy = pulse.begin();
            match heard {
                Ok(News::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(first) => [first].into_iter().chain(news.try_iter()).for_each(|news| self.hear(news)),
                Err(RecvTimeoutError::Timeout) => {}
            }
            self.work();
        }
        news.try_iter().for_each(|news| self.hear(news));
        for index in 0..self.open.len() {
            self.tell_without(index, "the daemon was stopped before its evidence was kept");
        }
        (self.has_changed, self.open) = (true, Vec::new());
        self.work();
    }

    pub(super) fn hear(&mut self, news: News) {
        match news {
            News::Breach { notice, due_ns } => {
                let id = notice.snapshot.as_ref().map_or(Ulid::nil(), |snapshot| snapshot.id);
                // Nobody has looked for it yet.
                let notice = Notice { culprit: String::new(), ..*notice };
                self.open.push(Open { id, notice, due_ns, is_told: false, end: None });
                self.has_changed = true;
            }
            News::Evidence { id, notice } => match self.take(id) {
                Some(open) if open.is_told => self.complete(open, *notice),
                Some(open) => self.tell(&Notice { resolved_at: open.notice.resolved_at, ..*notice }),
                None => self.tell(&notice),
            },
            News::Lost { id, reason } => {
                let Some(open) = self.take(id) else { return };
                let notice = Notice { snapshot: None, note: reason, ..open.notice.clone() };
                match open.is_told {
                    true => self.complete(open, notice),
                    false => self.tell(&notice),
                }
            }
            News::Notice(notice) => _ = self.journal.append(&notice),
            News::Over(over) => self.end(&over),
            News::Standing(standings) => {
                self.has_changed |= standings != self.standings;
                self.standings = standings;
            }
            News::Stop => {}
        }
    }

    /// Until when there is nothing to do but to listen.
    pub(super) fn idle_time(&self) -> Duration {
        let now = self.scene.now_ns();
        let due = self.open.iter().filter(|open| !open.is_told).map(|open| open.due_ns).min();
        let due = due.map(|due_ns| Duration::from_nanos(due_ns.saturating_sub(now)));
        let held = (self.held > 0).then_some(RETRY);
        [due, held].into_iter().flatten().min().unwrap_or(LOOK)
    }

    /// Does everything that is due.
    pub(super) fn work(&mut self) {
        let now = self.scene.now_ns();
        for index in 0..self.open.len() {
            if self.open[index].due_ns <= now {
                self.tell_without(index, FOLLOWS);
            }
        }
        self.end_inherited();
        self.held = self.journal.flush();
        self.save();
    }

    fn save(&mut self) {
        if !self.has_changed {
            return;
        }
        let open = self.open.iter().map(|Open { id, notice, is_told, .. }| {
            let (id, notice, is_told) = (*id, notice.clone(), *is_told);
            OpenAlert { id, notice, is_told }
        });
        match Standings::new(self.standings.clone(), open.collect()).write(&self.path) {
            Ok(()) => self.has_changed = false,
            // The disk is full, or the like: that is told where snapshots are stored.
            Err(error) => tracing::debug!("{}: {error}", self.path.display()),
        }
    }

    fn take(&mut self, id: Ulid) -> Option<Open> {
        let index = self.open.iter().position(|open| open.id == id)?;
        self.has_changed = true;
        Some(self.open.remove(index))
    }

    /// The one log line of a breach, and its alert.
    fn tell(&self, notice: &Notice) {
        tracing::warn!("{}", sentence(notice, &Links::default()));
        self.journal.append(notice);
    }

    fn tell_without(&mut self, index: usize, why: &str) {
        let open = &mut self.open[index];
        if !std::mem::replace(&mut open.is_told, true) {
            self.has_changed = true;
            let notice = Notice { note: why.to_owned(), ..open.notice.clone() };
            self.tell(&notice);
        }
    }

    /// What was not known when the alert left.
    fn complete(&self, open: Open, notice: Notice) {
        if notice.culprit.is_empty() && notice.note.is_empty() {
            tracing::debug!("{}: there is no culprit", notice.rule);
            return;
        }
        // One that was over before it was told ends here as it would have ended then.
        let end = open.end.or_else(|| open.notice.is_brief().then(|| open.notice.split()).map(|[_, end]| end));
        let notice = match end {
            Some(Notice { kind, resolved_at, compared, value, .. }) => {
                Notice { kind, resolved_at, compared, value, ..notice }
            }
            None => notice,
        };
        self.tell(&Notice { is_completion: true, ..notice });
    }

    /// A breach is over. One that was told is ended; one that was not is told with its end, in one message. What is heard comes in
    /// the order in which it happened, so that the end is that of the latest which had begun by now.
    fn end(&mut self, over: &Over) {
        let Over { breach: Breach { rule, pid, .. }, until_ns, value, .. } = over;
        let is_meant = |notice: &Notice| notice.rule == *rule && notice.process.pid == *pid;
        let mut latest = self.open.iter_mut().rev().filter(|open| is_meant(&open.notice));
        if let Some(open) = latest.next().filter(|open| !open.is_told && open.notice.resolved_at.is_none()) {
            let until_ns = until_ns.saturating_add(wall_ahead_ns(self.scene.now_ns()));
            open.notice.resolved_at = Some(Timestamp(until_ns).max(open.notice.breached_at));
            self.has_changed = true;
            return;
        }
        for alert in self.journal.firing_of(rule, *pid) {
            let end = alert.over(*value);
            self.journal.append(&end);
            for open in self.open.iter_mut().filter(|open| open.is_told && open.notice.is_of_breach(&alert)) {
                // Also for the next daemon, if this one ends before the evidence is there.
                open.notice.resolved_at = open.notice.resolved_at.or(end.resolved_at);
                open.end.get_or_insert_with(|| end.clone());
                self.has_changed = true;
            }
        }
    }

    /// Ends alerts of an earlier daemon that do not fire again.
    fn end_inherited(&mut self) {
        if self.inherited.as_ref().is_some_and(|(since, _)| since.elapsed() >= GRACE)
            && let Some((_, alerts)) = self.inherited.take()
        {
            let (firing, ..) = self.chronicle.totals();
            let is_over = |alert: &&Notice| {
                !firing.iter().any(|now| now.rule == alert.rule && now.pid.is_none_or(|pid| pid == alert.process.pid))
            };
            let still = self.journal.firing();
            for alert in alerts.iter().filter(is_over).filter(|alert| still.iter().any(|now| now.id == alert.id)) {
                self.journal.append(&alert.over(None));
            }
        }
    }
}
