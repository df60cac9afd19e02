//! The watcher: keeps the roster current, measures its members every second and hands breaches to the keeper.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use ulid::Ulid;

use super::announce::News;
use super::calm::Calm;
use super::causes::{Cause, Waits};
use super::chronicle::Chronicle;
use super::evidence::headline;
use super::floods::Floods;
use super::heap::Heaps;
use super::holdings::Censuses;
use super::holds::Holds;
use super::inbox::Heard;
use super::keeper::{Job, Told};
use super::limits::Watch;
use super::reload::{prefer, put};
use super::roster::{Look, Member, Roster};
use super::standing::OfProcess;
use super::{Control, Scene};
use crate::alert::{Notice, NoticeKind};
use crate::config::{Config, Rule};
use crate::kernel::Newcomer;
use crate::latency::Registry;
use crate::monitor::{Breach, Engine, Observation, Over, Subject, Transition};
use crate::record::{Lifecycle, Makings};
use crate::snapshot;
use crate::supervise::{Beat, Pulse, stuck};
use crate::target::{Host, HostCpu, pids};

/// How often members are measured.
const TICK: Duration = Duration::from_secs(1);

/// How often all processes are looked at, for those whose events were missed.
const RESCAN: Duration = Duration::from_secs(10);
/// At one in so many of these looks, members are looked at as well: that they have run another program is told at once, and
/// that they have ended is seen when they are measured.
const MEMBERS_EVERY: u32 = 6;

/// What one look at all members takes at most, with dumps of all that break a rule.
const DEADLINE: Duration = Duration::from_secs(30);

/// Breaches that wait for the keeper with a dump of their threads. There is at most one for each rule and process in a cooldown,
/// so that more than this at once is a host on which everything breaks; the others wait with little more than their name.
const MAX_DUMPS: usize = 256;

/// See the head of this file.
pub(super) struct Watcher {
    pub(super) config: Config,
    pub(super) rules: Vec<Rule>,
    pub(super) engine: Engine,
    pub(super) roster: Roster,
    pub(super) scene: Arc<dyn Scene>,
    pub(super) holds: Arc<Holds>,
    pub(super) heaps: Arc<Heaps>,
    pub(super) functions: Arc<Registry>,
    /// When functions were last seen.
    pub(super) seen_ns: u64,
    tell: Sender<Told>,
    news: Sender<News>,
    pub(super) chronicle: Arc<Chronicle>,
    pub(super) limits: Watch,
    /// Processes (pid, start) that could not be watched, of which the log knows already.
    refused: BTreeSet<(u32, u64)>,
    floods: Floods,
    pub(super) host: Host,
    pub(super) host_cpu: Option<HostCpu>,
    pub(super) host_percent: f64,
    /// When it began, and when it measured last.
    pub(super) started_ns: u64,
    pub(super) measured_ns: u64,
    /// Processes that are sampled more often.
    pub(super) hurried: BTreeSet<u32>,
    calm: Calm,
    /// What processes hold when all is well.
    censuses: Censuses,
    /// How often all processes were looked at.
    rescans: u32,
    /// How often members were measured.
    pub(super) turn: u32,
    /// How rules stand is not what the announcer keeps.
    pub(super) has_changed: Cell<bool>,
}

impl Watcher {
    /// A watcher of nothing yet.
    pub(super) fn new(
        config: &Config,
        scene: Arc<dyn Scene>,
        holds: Arc<Holds>,
        heaps: Arc<Heaps>,
        functions: Arc<Registry>,
        (tell, news): (Sender<Told>, Sender<News>),
        chronicle: Arc<Chronicle>,
    ) -> Self {
        for function in &config.functions {
            put(&functions, function);
        }
        prefer(&functions, &config.rules);
        let started_ns = scene.now_ns();
        let calm = Calm::new(config.sampling.window.as_nanos() as u64, started_ns);
        Self {
            config: config.clone(),
            rules: config.rules.clone(),
            engine: Engine::new(config.rules.iter().map(|rule| rule.rule.clone()).collect()),
            roster: Roster::new(config.targets.clone()),
            scene,
            holds,
            heaps,
            functions,
            seen_ns: 0,
            tell,
            news,
            chronicle,
            limits: Watch::new(config.limits, config.sampling),
            refused: BTreeSet::new(),
            floods: Floods::new(),
            host: called(config),
            host_cpu: HostCpu::read(),
            host_percent: 0.0,
            started_ns,
            measured_ns: started_ns,
            hurried: BTreeSet::new(),
            calm,
            censuses: Censuses::default(),
            rescans: 0,
            turn: 0,
            has_changed: Cell::new(false),
        }
    }

    /// Watches until it is to stop, from time to time by another configuration.
    pub(super) fn run(
        &mut self,
        standings: Vec<OfProcess>,
        heard: &Receiver<Heard>,
        control: &Control,
        is_over: impl Fn() -> bool,
    ) {
        self.rescan();
        self.introduce();
        self.resume(standings);
        let (mut tick, mut rescan) = (Instant::now() + TICK, Instant::now() + RESCAN);
        let pulse = Pulse::new("watcher", DEADLINE);
        while !control.is_stopping() && !is_over() {
            let busy = pulse.begin();
            let now = Instant::now();
            if now >= tick {
                self.measure();
                self.measure_functions();
                self.follow_heat();
                self.remember();
                self.count_holdings();
                let is_incident = !self.hurried.is_empty() || self.holds.snapshots() > 0;
                self.limits.look(self.scene.now_ns(), is_incident, &*self.scene, control);
                // A process of which a thread hangs is not well: its supervisor is to start it anew.
                if stuck().is_empty() {
                    control.beat(Beat::Alive);
                }
                // After a stall the missed ticks are not made up for: the interval is measured, not assumed.
                tick = Instant::now().max(tick + TICK);
            }
            if now >= rescan {
                self.rescan();
                rescan = Instant::now() + RESCAN;
            }
            if self.has_changed.take() {
                self.inform(News::Standing(self.standings()));
            }
            let wait = tick.saturating_duration_since(Instant::now());
            drop(busy);
            let next = heard.recv_timeout(wait);
            let _busy = pulse.begin();
            match next {
                Ok(Heard::Lifecycle(event)) => self.follow(event),
                Ok(Heard::Ask(ask)) => ask(self),
                Err(RecvTimeoutError::Timeout) => {}
                // Without events the re-scan finds them.
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(wait),
            }
        }
    }

    /// Where rules of a process are explained by who waits, it has to be known.
    pub(super) fn waits_of(&self, pid: u32) -> Waits {
        let targets = self.roster.targets_of(pid);
        let applies = |rule: &&Rule| targets.iter().any(|target| rule.rule.applies_to(target));
        self.rules.iter().filter(applies).map(|rule| Waits::of(rule.rule.metric)).max().unwrap_or_default()
    }

    /// What rules of a process ask of what it holds: of its threads, of its descriptors.
    fn asked_of_holdings(&self, pid: u32) -> [bool; 2] {
        let targets = self.roster.targets_of(pid);
        let applies = |rule: &&Rule| targets.iter().any(|target| rule.rule.applies_to(target));
        let asks = |cause: Cause| self.rules.iter().filter(applies).any(|rule| Cause::of(rule.rule.metric) == cause);
        [Cause::Threads, Cause::Descriptors].map(asks)
    }

    /// Where rules are about what a process holds, it has to be known who made that.
    fn ask_origins(&mut self, pid: u32) {
        let asked = self.asked_of_holdings(pid);
        let Some(member) = self.roster.members.get_mut(&pid) else { return };
        let was_asked = std::mem::replace(&mut member.holdings, asked);
        if was_asked == [false; 2] && asked == [false; 2] {
            return;
        }
        let [threads, descriptors] = asked;
        if let Err(error) = self.scene.ask_origins(pid, threads, descriptors) {
            tracing::warn!("who starts threads and opens descriptors of pid {pid} will not be known: {error:#}");
        }
    }

    /// Counts what a calm process holds, one each second at most.
    fn count_holdings(&mut self) {
        let calm = self.roster.members.iter().filter(|(pid, _)| !self.hurried.contains(pid));
        let asked = calm.flat_map(|(&pid, member)| {
            let asked = [Cause::Threads, Cause::Descriptors].into_iter().zip(member.holdings);
            asked.filter(|(_, is_asked)| *is_asked).map(move |(cause, _)| (pid, cause))
        });
        let now_ns = self.scene.now_ns();
        if let Some((pid, cause)) = self.censuses.next(asked, now_ns) {
            self.censuses.look(pid, cause, now_ns);
        }
    }

    /// The rules are others by now.
    pub(super) fn follow_waits(&mut self) {
        let pids: Vec<u32> = self.roster.members.keys().copied().collect();
        for pid in pids {
            self.ask_origins(pid);
            let waits = self.waits_of(pid);
            let Some(member) = self.roster.members.get_mut(&pid).filter(|member| member.waits != waits) else {
                continue;
            };
            match self.scene.follow_waits(pid, waits) {
                Ok(()) => member.waits = waits,
                Err(error) => tracing::error!("where threads of pid {pid} wait: {error:#}"),
            }
        }
    }

    /// Has calm stretches kept.
    fn remember(&mut self) {
        let now_ns = self.scene.now_ns();
        for &pid in &self.hurried {
            self.calm.disturb(pid, now_ns);
        }
        if let Some((from_ns, calm)) = self.calm.stretch(now_ns)
            && let Err(error) = self.scene.remember(&calm, from_ns, now_ns)
        {
            tracing::warn!("a calm time is not kept: {error:#}");
        }
    }

    /// One line for each target: what it is at the start.
    fn introduce(&self) {
        for index in 0..self.roster.target_count() {
            let members = self.roster.members.values().filter(|member| member.targets.contains(&index));
            let pids: Vec<String> = members.map(|member| member.who.pid.to_string()).collect();
            let name = self.roster.target_name(index);
            if pids.is_empty() {
                tracing::info!("target {name}: no process matches yet");
            } else {
                tracing::info!("target {name}: watching pid {}", pids.join(", "));
            }
        }
    }

    fn follow(&mut self, event: Lifecycle) {
        match event {
            Lifecycle::Exec { pid } => {
                self.heaps.executed(pid);
                self.look(pid, true);
            }
            // None is watched with its children: these are newcomers.
            Lifecycle::Fork { .. } => {}
            Lifecycle::Newcomer(newcomer) => self.greet(newcomer),
            Lifecycle::SetAside { pid } => {
                self.lose(pid, 1, |target| format!("processes not sampled: {target} replaces its program too often"));
                self.end(pid);
            }
            Lifecycle::Exit { pid } => self.end(pid),
        }
    }

    pub(super) fn rescan(&mut self) {
        let mut all: BTreeSet<u32> = pids().into_iter().collect();
        self.refused.retain(|(pid, _)| all.contains(pid));
        let has_members = self.rescans.is_multiple_of(MEMBERS_EVERY);
        self.rescans = self.rescans.wrapping_add(1);
        if has_members {
            all.extend(self.roster.members.keys());
        } else {
            all.retain(|pid| !self.roster.members.contains_key(pid));
        }
        for pid in all {
            self.look(pid, false);
        }
    }

    fn end(&mut self, pid: u32) {
        if self.roster.members.remove(&pid).is_some() {
            self.let_go(pid);
        }
    }

    /// A process has come. Whoever starts too many has them looked at later, when all processes are.
    fn greet(&mut self, Newcomer { pid, parent, passed_over }: Newcomer) {
        if passed_over > 0 {
            let reason = |target: &str| format!("processes not sampled from their start: {target} starts too many");
            self.lose(parent, passed_over.into(), reason);
        }
        if self.floods.may_look(parent, self.scene.now_ns()) {
            self.look_at(pid, parent, true);
        }
    }

    /// Counts that something of a member is not recorded, for a reason that the name of its target belongs to.
    fn lose(&self, pid: u32, count: u64, reason: impl FnOnce(&str) -> String) {
        let Some(member) = self.roster.members.get(&pid) else { return };
        let reason = reason(self.roster.target_name(member.targets[0]));
        if let Err(error) = self.scene.lose(pid, reason, count) {
            tracing::error!("a loss is not counted: {error:#}");
        }
    }

    fn look(&mut self, pid: u32, has_execed: bool) {
        self.look_at(pid, 0, has_execed);
    }

    /// The parent is 0 where it is not known.
    fn look_at(&mut self, pid: u32, parent: u32, has_execed: bool) {
        let was_member = self.roster.members.contains_key(&pid);
        match self.roster.look(pid, self.scene.now_ns(), has_execed) {
            Look::Same => {}
            Look::Left => self.let_go(pid),
            Look::Joined => {
                if was_member {
                    self.let_go(pid);
                }
                if self.may_join(pid, parent) {
                    self.join(pid);
                } else {
                    self.roster.members.remove(&pid);
                }
            }
        }
    }

    /// Whether there is room for another process of its target. One that is not watched now is tried again when all processes
    /// are looked at.
    fn may_join(&mut self, pid: u32, parent: u32) -> bool {
        let now_ns = self.scene.now_ns();
        let Some(member) = self.roster.members.get(&pid) else { return false };
        let index = member.targets[0];
        let name = self.roster.target_name(index).to_owned();
        // Those that were there before we were are no flood.
        if self.rescans <= 1 || self.floods.may_join(&name, now_ns) {
            return true;
        }
        if self.floods.is_news(&name, now_ns) {
            tracing::warn!("target {name} starts too many processes: some are watched later, or not at all");
        }
        // The recordings that lack it are those of its target.
        let others =
            self.roster.members.iter().filter(|(other, member)| **other != pid && member.targets.contains(&index));
        let lacking = others
            .clone()
            .find(|(other, _)| **other == parent)
            .or_else(|| others.clone().next())
            .map_or(pid, |(&other, _)| other);
        self.lose(lacking, 1, |_| format!("processes not watched: {name} starts too many"));
        false
    }

    fn join(&mut self, pid: u32) {
        let waits = self.waits_of(pid);
        if let Some(member) = self.roster.members.get_mut(&pid) {
            member.waits = waits;
        }
        let Some(member) = self.roster.members.get(&pid) else { return };
        let name = self.roster.target_name(member.targets[0]);
        match self.holds.watch(pid, name, waits) {
            Ok(()) => {
                tracing::debug!("target {name}: pid {pid} ({}) joined", member.who.exe);
                self.functions.join(pid, self.roster.targets_of(pid));
                self.heaps.always(pid, self.roster.is_live(pid));
                self.ask_origins(pid);
                self.calm.disturb(pid, self.scene.now_ns());
            }
            Err(error) => {
                if self.refused.insert((pid, member.stat.start_ticks)) {
                    tracing::warn!("target {name}: cannot watch pid {pid}: {error:#}");
                }
                // The next re-scan tries again.
                self.roster.members.remove(&pid);
            }
        }
    }

    pub(super) fn let_go(&mut self, pid: u32) {
        tracing::debug!("pid {pid} left");
        self.functions.leave(pid);
        self.heaps.leave(pid);
        self.hurried.remove(&pid);
        for over in self.engine.forget(pid, self.scene.now_ns()) {
            self.resolved(&over);
        }
        self.chronicle.forget(pid);
        self.has_changed.set(true);
        self.calm.forget(pid);
        self.censuses.forget(pid);
        // First, so that a snapshot that waits for more of the process waits no longer.
        if self.holds.has_snapshots(pid) {
            self.send(Told::Gone { pid, at_ns: self.scene.now_ns() });
        }
        self.holds.release(pid);
    }

    /// However long the keeper waits for the disk: that a breach has begun, and that it is over, is told in the end. There
    /// are at most as many as rules and processes.
    fn send(&self, told: Told) {
        if self.tell.send(told).is_err() {
            tracing::error!("the keeper has died"); // and the daemon ends, see `run`
        }
    }

    /// The same, of alerts.
    fn inform(&self, news: News) {
        if self.news.send(news).is_err() {
            tracing::error!("the announcer has died");
        }
    }

    /// Has a breach told: at once if there will be no evidence, else with that, or when it takes too long.
    fn announce(&self, job: &Job, is_skipped: bool) {
        let sidecar = match headline(job, self.scene.now_ns()) {
            Ok(sidecar) => sidecar,
            Err(error) => return tracing::error!("{}: the alert is not sent: {error:#}", job.breach.rule),
        };
        if is_skipped {
            let notice = Notice::of_snapshot(&sidecar, None, &job.notify);
            return self.inform(News::Notice(Box::new(Notice { kind: NoticeKind::Skipped, ..notice })));
        }
        let folder = self.config.store.path.join(job.id.to_string());
        let notice = Box::new(Notice::of_snapshot(&sidecar, Some(folder), &job.notify));
        let wait = self.config.collector.culprit_wait.as_nanos() as u64;
        self.inform(News::Breach { notice, due_ns: job.end_ns().saturating_add(wait) });
    }

    pub(super) fn observe(&mut self, seen: &Observation<'_>) {
        if let Some(Rule { rule, .. }) = self.rules.get(seen.rule) {
            self.chronicle.seen(rule, seen);
            self.chronicle.timeline.rules(seen.pid, seen.at_ns, [(rule.name.as_str(), seen.value)].into_iter());
        }
        self.decide(seen);
    }

    /// What follows from an observation that was told already.
    pub(super) fn decide(&mut self, seen: &Observation<'_>) {
        let Observation { rule, pid, value, .. } = *seen;
        let Some(change) = self.engine.observe(seen) else { return };
        self.has_changed.set(true);
        let Some(rule) = self.rules.get(rule) else { return };
        self.chronicle.changed(&change, &rule.rule, seen);
        let name = &rule.rule.name;
        if rule.rule.metric.is_memory() {
            self.heaps.hear(pid, name, &seen.subject, &change);
        }
        match change {
            Transition::Firing(breach) => {
                if let Some(member) = self.roster.members.get(&breach.pid) {
                    self.hand_over(rule, member, breach, &seen.subject);
                }
            }
            Transition::Skipped(breach) => {
                self.skipped(&breach);
                if let Some(member) = self.roster.members.get(&breach.pid) {
                    self.announce(&self.job(rule, member, breach), true);
                }
            }
            Transition::Resolved(over) => self.resolved(&over),
            Transition::Pending => tracing::debug!("{name}: pid {pid} is pending, {value:?}"),
            Transition::Recovering => tracing::debug!("{name}: pid {pid} is recovering, {value:?}"),
            Transition::Relapsed => tracing::debug!("{name}: pid {pid} is still firing, {value:?}"),
            Transition::Normal => tracing::debug!("{name}: pid {pid} is back to normal"),
        }
    }

    /// A breach of a process that is too hot to be looked at: all that is kept of it is that it was there.
    fn skipped(&self, breach: &Breach) {
        let Breach { rule, target, pid, metric, value, threshold, side, .. } = breach;
        let compared = metric.compare(*value, *side, *threshold);
        tracing::warn!("{rule}: {target} (pid {pid}): {} {compared}; too busy to be profiled", metric.name());
    }

    /// A breach is over. Whoever is to be told of it is told from here.
    pub(super) fn resolved(&self, over: &Over) {
        self.has_changed.set(true);
        self.chronicle.resolved(over);
        self.inform(News::Over(Box::new(over.clone())));
        self.holds.pins.resolve(&over.breach.rule, over.breach.pid);
        let Over { breach: Breach { rule, target, pid, .. }, since_ns, until_ns, .. } = over;
        let lasted = Duration::from_secs(until_ns.saturating_sub(*since_ns).div_ceil(1_000_000_000));
        tracing::info!("{rule}: {target} (pid {pid}): resolved after {}", humantime::format_duration(lasted));
    }

    /// What is known of a breach, without evidence.
    fn job(&self, rule: &Rule, member: &Member, breach: Breach) -> Job {
        let cpu_percent = member.cpu_percent;
        let Host { name, ip, cpus, kernel } = &self.host;
        let host = snapshot::Host {
            name: name.clone(),
            ip: ip.map(|ip| ip.to_string()).unwrap_or_default(),
            cpus: *cpus,
            cpu_percent: super::evidence::tenth(self.host_percent),
            kernel: kernel.clone(),
        };
        let process = snapshot::Process {
            pid: breach.pid,
            exe: member.who.exe.clone(),
            cmdline: member.who.cmdline.clone(),
            cpu_percent: super::evidence::tenth(cpu_percent),
            cpu_percent_of_host: super::evidence::tenth(cpu_percent / f64::from((*cpus).max(1))),
            rss_bytes: member.stat.rss_bytes,
            threads: member.stat.threads,
            container: member.container.id.clone(),
            container_name: member.container_name.clone(),
            pod: member.container.pod.clone(),
        };
        let (function, notify) = (self.function(&breach), rule.notify.clone());
        let evidence = rule.evidence;
        let breached_at_ns = breach.breached_at_ns.saturating_add(super::evidence::wall_ahead_ns(self.scene.now_ns()));
        let id = Ulid::from_datetime(snapshot::Timestamp(breached_at_ns).system());
        let (dump, heap, holdings, makings, gone_at_ns) = (None, None, None, Makings::default(), None);
        Job { id, breach, evidence, notify, host, process, function, dump, heap, holdings, makings, gone_at_ns }
    }

    fn hand_over(&self, rule: &Rule, member: &Member, breach: Breach, subject: &Subject) {
        let is_full = self.holds.snapshots() >= MAX_DUMPS;
        let mut job = self.job(rule, member, breach);
        self.announce(&job, false);
        let Breach { rule, pid, metric, .. } = &job.breach;
        self.holds.begin(*pid);
        job.heap = metric.is_memory().then(|| self.heaps.hold(*pid, rule, subject));
        self.holds.pins.fire(rule, *pid);
        let cause = Cause::of(*metric);
        if cause.is_of_holdings() && !is_full {
            job.holdings = self.censuses.holdings(*pid, cause);
            job.makings = self.scene.makings(*pid).unwrap_or_default();
        }
        if is_full {
            tracing::error!(
                "{rule}: no dump of the threads of pid {pid}: {MAX_DUMPS} snapshots are to be written first"
            );
        } else {
            // Now: a moment later it is another scene.
            let dump = self.scene.dump(*pid).inspect_err(|error| {
                tracing::error!("{rule}: no dump of the threads of pid {pid}: {error:#}");
            });
            job.dump = dump.ok();
        }
        self.send(Told::Breach(Box::new(job)));
    }
}

/// This host, as it is to be called.
fn called(config: &Config) -> Host {
    let (host, collector) = (Host::read(), &config.collector);
    Host { name: collector.host.clone().unwrap_or(host.name), ip: collector.address.or(host.ip), ..host }
}
