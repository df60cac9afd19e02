//! The watcher: keeps the roster current, measures its members every second and hands breaches to the keeper.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::time::{Duration, Instant};

use super::Scene;
use super::holds::Holds;
use super::keeper::{Job, Told};
use super::reload::put;
use super::roster::{Look, Member, Roster};
use crate::config::{Config, Rule};
use crate::latency::Registry;
use crate::monitor::{Breach, Engine, Metric, Observation, Transition};
use crate::record::Lifecycle;
use crate::snapshot;
use crate::target::{Host, HostCpu, Stat, pids};

/// How often members are measured.
const TICK: Duration = Duration::from_secs(1);

/// How often all processes are looked at, for those whose events were missed.
const RESCAN: Duration = Duration::from_secs(10);

/// Shortest interval that is measured: CPU time has a grain of 10 ms, which would be 10 percent of 100 ms.
const MIN_INTERVAL: Duration = Duration::from_millis(500);

/// See the head of this file.
pub(super) struct Watcher {
    pub(super) config: Config,
    pub(super) rules: Vec<Rule>,
    pub(super) engine: Engine,
    pub(super) roster: Roster,
    scene: Arc<dyn Scene>,
    pub(super) holds: Arc<Holds>,
    pub(super) functions: Arc<Registry>,
    /// When functions were last seen.
    pub(super) seen_ns: u64,
    tell: SyncSender<Told>,
    /// Processes (pid, start) that could not be watched, of which the log knows already.
    refused: BTreeSet<(u32, u64)>,
    host: Host,
    host_cpu: Option<HostCpu>,
    host_percent: f64,
}

impl Watcher {
    /// A watcher of nothing yet.
    pub(super) fn new(
        config: &Config,
        scene: Arc<dyn Scene>,
        holds: Arc<Holds>,
        functions: Arc<Registry>,
        tell: SyncSender<Told>,
    ) -> Self {
        for function in &config.functions {
            put(&functions, function);
        }
        Self {
            config: config.clone(),
            rules: config.rules.clone(),
            engine: Engine::new(config.rules.iter().map(|rule| rule.rule.clone()).collect()),
            roster: Roster::new(config.targets.clone()),
            scene,
            holds,
            functions,
            seen_ns: 0,
            tell,
            refused: BTreeSet::new(),
            host: Host::read(),
            host_cpu: HostCpu::read(),
            host_percent: 0.0,
        }
    }

    /// Watches until it is to stop, from time to time by another configuration.
    pub(super) fn run(
        &mut self,
        events: &Receiver<Lifecycle>,
        is_over: impl Fn() -> bool,
        new_config: impl Fn() -> Option<Config>,
    ) {
        self.rescan();
        self.introduce();
        let (mut tick, mut rescan) = (Instant::now() + TICK, Instant::now() + RESCAN);
        while !is_over() {
            if let Some(config) = new_config() {
                self.reload(config);
            }
            let now = Instant::now();
            if now >= tick {
                self.measure();
                self.measure_functions();
                // After a stall the missed ticks are not made up for: the interval is measured, not assumed.
                tick = Instant::now().max(tick + TICK);
            }
            if now >= rescan {
                self.rescan();
                rescan = Instant::now() + RESCAN;
            }
            let wait = tick.saturating_duration_since(Instant::now());
            match events.recv_timeout(wait) {
                Ok(event) => self.follow(event),
                Err(RecvTimeoutError::Timeout) => {}
                // Without events the re-scan finds them.
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(wait),
            }
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
            Lifecycle::Exec { pid } => self.look(pid, true),
            // A child of a stranger is a stranger until it runs another program.
            Lifecycle::Fork { parent, child } if self.roster.members.contains_key(&parent) => self.look(child, false),
            Lifecycle::Fork { .. } => {}
            Lifecycle::Exit { pid } => {
                if self.roster.members.remove(&pid).is_some() {
                    self.let_go(pid);
                }
            }
        }
    }

    pub(super) fn rescan(&mut self) {
        let mut all: BTreeSet<u32> = pids().into_iter().collect();
        self.refused.retain(|(pid, _)| all.contains(pid));
        all.extend(self.roster.members.keys());
        for pid in all {
            self.look(pid, false);
        }
    }

    fn look(&mut self, pid: u32, has_execed: bool) {
        let was_member = self.roster.members.contains_key(&pid);
        match self.roster.look(pid, self.scene.now_ns(), has_execed) {
            Look::Same => {}
            Look::Left => self.let_go(pid),
            Look::Joined => {
                if was_member {
                    self.let_go(pid);
                }
                self.join(pid);
            }
        }
    }

    fn join(&mut self, pid: u32) {
        let Some(member) = self.roster.members.get(&pid) else { return };
        let name = self.roster.target_name(member.targets[0]);
        match self.holds.watch(pid, name) {
            Ok(()) => {
                tracing::debug!("target {name}: pid {pid} ({}) joined", member.who.exe);
                self.functions.join(pid, self.roster.targets_of(pid));
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
        self.engine.forget(pid);
        // First, so that a snapshot that waits for more of the process waits no longer.
        self.send(Told::Gone { pid, at_ns: self.scene.now_ns() });
        self.holds.release(pid);
    }

    fn send(&self, told: Told) {
        let (told, reason) = match self.tell.try_send(told) {
            Ok(()) => return,
            Err(TrySendError::Full(told)) => (told, "too many breaches at once"),
            Err(TrySendError::Disconnected(told)) => (told, "the keeper has died"),
        };
        if let Told::Breach(job) = told {
            self.holds.end(job.breach.pid);
            tracing::error!("{reason}: lost one of {}", job.breach.rule);
        }
    }

    fn measure(&mut self) {
        if let Some(cpu) = HostCpu::read() {
            self.host_percent = self.host_cpu.map_or(0.0, |earlier| cpu.percent_since(&earlier));
            self.host_cpu = Some(cpu);
        }
        let pids: Vec<u32> = self.roster.members.keys().copied().collect();
        for pid in pids {
            self.measure_member(pid);
        }
    }

    fn measure_member(&mut self, pid: u32) {
        let Some(member) = self.roster.members.get_mut(&pid) else { return };
        let at_ns = self.scene.now_ns();
        let Some(stat) = Stat::read(pid).filter(|stat| stat.start_ticks == member.stat.start_ticks) else {
            self.roster.members.remove(&pid);
            self.let_go(pid);
            return;
        };
        let elapsed = Duration::from_nanos(at_ns.saturating_sub(member.read_ns));
        if elapsed < MIN_INTERVAL {
            return;
        }
        let value = stat.cpu_percent_since(&member.stat, elapsed);
        let from_ns = std::mem::replace(&mut member.read_ns, at_ns);
        (member.stat, member.cpu_percent) = (stat, value.unwrap_or_default());
        let applies =
            |rule: &Rule| !rule.rule.metric.is_of_function() && self.roster.targets_of(pid).contains(&rule.rule.target);
        let rules: Vec<usize> = (0..self.rules.len()).filter(|&index| applies(&self.rules[index])).collect();
        let Some(member) = self.roster.members.get_mut(&pid) else { return };
        if rules.iter().any(|&index| self.rules[index].rule.metric.is_memory()) {
            member.memory.read(pid, at_ns);
        }
        for index in rules {
            let metric = self.rules[index].rule.metric;
            let Some(member) = self.roster.members.get(&pid) else { return };
            let value = if metric == Metric::Cpu { value } else { member.memory.value(metric) };
            self.observe(Observation { rule: index, pid, from_ns, at_ns, value });
        }
    }

    pub(super) fn observe(&mut self, seen: Observation) {
        let Observation { rule, pid, value, .. } = seen;
        let (Some(change), Some(rule)) = (self.engine.observe(seen), self.rules.get(rule)) else { return };
        let Some(member) = self.roster.members.get(&pid) else { return };
        match change {
            Transition::Breach(breach) => self.hand_over(rule, member, breach),
            Transition::Pending => {
                tracing::debug!("{}: pid {pid} is {}, {value:?}", rule.rule.name, rule.rule.side.name());
            }
            Transition::Normal => tracing::debug!("{}: pid {pid} is normal again", rule.rule.name),
        }
    }

    fn hand_over(&self, rule: &Rule, member: &Member, breach: Breach) {
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
            container: None,
        };
        let function = self.function(&breach);
        self.holds.begin(breach.pid);
        // Now: a moment later it is another scene.
        let dump = self.scene.dump(breach.pid).inspect_err(|error| {
            tracing::error!("{}: no dump of the threads of pid {}: {error:#}", breach.rule, breach.pid);
        });
        let (evidence, notify, dump) = (rule.evidence, rule.notify.clone(), dump.ok());
        let job = Job { breach, evidence, notify, host, process, function, dump, gone_at_ns: None };
        self.send(Told::Breach(Box::new(job)));
    }
}
