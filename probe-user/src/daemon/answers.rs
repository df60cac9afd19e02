//! What the collector answers when the server asks. Nothing here decides: what changes something goes through the settings
//! and the watcher, what is asked is looked up.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use ulid::Ulid;

use super::chronicle::Chronicle;
use super::demand::Demand;
use super::holds::Holds;
use super::merge::merge;
use super::settings::Section;
use super::watcher::Watcher;
use super::{Control, Scene};
use crate::config::{Config, Table};
use crate::control::{
    Collector, Cursor, Definition, DumpRequest, Events, FunctionState, IsWanted, ProcessState, Put, RecordRequest,
    Refusal, RuleState, Status, StuckThread, TargetState, Thread, Unattached,
};
use crate::export;
use crate::latency::{InProcess, Registry, Row};
use crate::monitor::Metric;
use crate::snapshot::{Store, Timestamp};
use crate::symbolize::Profile;
use crate::target::{self, Stat, ThreadState};

/// Longest time that somebody may wait for events.
const MAX_WAIT: Duration = Duration::from_secs(60);
/// Processes of a target that are dumped at a time: each is a pass over the kernel's tasks.
const MAX_DUMPED: usize = 64;

/// See the head of this file.
pub(super) struct Answers {
    pub(super) control: Arc<Control>,
    pub(super) scene: Arc<dyn Scene>,
    pub(super) functions: Arc<Registry>,
    pub(super) holds: Arc<Holds>,
    pub(super) chronicle: Arc<Chronicle>,
    pub(super) store: PathBuf,
    pub(super) started_at: SystemTime,
    pub(super) demand: Demand,
    /// Readings of threads (pid, tid), for what they have used since.
    pub(super) threads: Mutex<HashMap<(u32, u32), (Stat, Instant)>>,
}

impl Answers {
    /// Has the watcher go on by another configuration.
    fn apply(&self, config: Config) -> Result<(), Refusal> {
        self.control.ask(move |watcher| watcher.reload(config))
    }

    /// Name and processes of a target, or one of them.
    fn processes(&self, target: &str, pid: Option<u32>) -> Result<Vec<u32>, Refusal> {
        let name = target.to_owned();
        let found = self.control.ask(move |watcher| {
            let has = (0..watcher.roster.target_count()).any(|index| watcher.roster.target_name(index) == name);
            has.then(|| watcher.members_of(&name).collect::<Vec<u32>>())
        })?;
        let missing = |what: String| Refusal::NotFound { what };
        let pids = found.ok_or_else(|| missing(format!("there is no target named `{target}`")))?;
        match pid {
            Some(pid) if pids.contains(&pid) => Ok(vec![pid]),
            Some(pid) => Err(missing(format!("pid {pid} is not a process of the target `{target}`"))),
            None if pids.is_empty() => Err(missing(format!("the target `{target}` has no process now"))),
            None => Ok(pids),
        }
    }

    fn put(&self, section: Section, name: &str, definition: &Definition) -> Result<Put, Refusal> {
        self.control.settings()?.put(section, name, &definition.0, |config| self.apply(config))
    }

    fn remove(&self, section: Section, name: &str) -> Result<(), Refusal> {
        self.control.settings()?.remove(section, name, |config| self.apply(config))
    }
}

fn failed(error: impl std::fmt::Display) -> Refusal {
    Refusal::Failed { reason: format!("{error:#}") }
}

fn pprof(profile: &Profile) -> Result<Vec<u8>, Refusal> {
    let mut bytes = Vec::new();
    export::write(profile, export::Format::Pprof, &export::Options::default(), &mut bytes).map_err(failed)?;
    Ok(bytes)
}

fn name_of(table: &Table) -> &str {
    table.get("name").and_then(|name| name.as_str()).unwrap_or_default()
}

impl Collector for Answers {
    fn status(&self) -> Result<Status, Refusal> {
        let (firing, snapshots_stored, snapshots_failed) = self.chronicle.totals();
        let own = Stat::read(std::process::id());
        let stats = self.scene.stats().map_err(failed)?;
        let load = self.control.load();
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").into(),
            started_at: Timestamp::from(self.started_at),
            cpu_seconds: load.cpu_seconds,
            rss_bytes: own.map_or(0, |stat| stat.rss_bytes),
            map_bytes: load.map_bytes,
            frequency: load.frequency,
            samples: stats.samples,
            losses: stats.losses,
            snapshots_stored,
            snapshots_failed,
            stuck: StuckThread::here("collector"),
            firing,
        })
    }

    fn targets(&self) -> Result<Vec<TargetState>, Refusal> {
        self.control.ask(|watcher| {
            let states = (0..watcher.roster.target_count()).map(|index| {
                let members = watcher.roster.members.values().filter(|member| member.targets.contains(&index));
                let processes = members.map(|member| watcher.process(member)).collect();
                TargetState { name: watcher.roster.target_name(index).to_owned(), processes }
            });
            states.collect()
        })
    }

    fn threads(&self, target: &str) -> Result<Vec<Thread>, Refusal> {
        let pids = self.processes(target, None)?;
        let mut readings = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        let mut threads = Vec::new();
        for pid in pids {
            for (tid, stat) in target::threads(pid) {
                let earlier = readings.get(&(pid, tid));
                let cpu_percent = earlier.and_then(|(earlier, at)| stat.cpu_percent_since(earlier, at.elapsed()));
                let state = ThreadState::of_letter(stat.state);
                threads.push(Thread { pid, tid, name: stat.comm.clone(), state, cpu_percent });
                readings.insert((pid, tid), (stat, Instant::now()));
            }
        }
        // Threads that nobody has asked for of late are most often gone.
        readings.retain(|_, (_, at)| at.elapsed() < Duration::from_secs(600));
        let share = |thread: &Thread| thread.cpu_percent.unwrap_or(-1.0);
        threads.sort_by(|a, b| share(b).total_cmp(&share(a)).then((a.pid, a.tid).cmp(&(b.pid, b.tid))));
        Ok(threads)
    }

    fn record(&self, target: &str, request: &RecordRequest, is_wanted: IsWanted<'_>) -> Result<Vec<u8>, Refusal> {
        let pids = self.processes(target, request.pid)?;
        let usual = self.control.load().frequency.max(1);
        let is_over = || self.control.is_stopping();
        pprof(&self.demand.record(&pids, target, request, usual, is_over, is_wanted)?)
    }

    fn dump(&self, target: &str, request: &DumpRequest) -> Result<Vec<u8>, Refusal> {
        let _running = self.demand.begin_dump()?;
        let pids = self.processes(target, request.pid)?;
        let mut profiles = Vec::new();
        let mut last = None;
        for &pid in pids.iter().take(MAX_DUMPED) {
            match self.scene.dump(pid) {
                Ok(dump) => profiles.push(self.scene.name(&dump)),
                Err(error) => last = Some(error),
            }
        }
        if let Some(error) = last.filter(|_| profiles.is_empty()) {
            return Err(failed(error));
        }
        let mut profile = merge(profiles);
        if pids.len() > MAX_DUMPED {
            let left_out = (pids.len() - MAX_DUMPED) as u64;
            profile.losses.insert("processes left out of a dump".into(), left_out);
        }
        pprof(&profile)
    }

    fn functions(&self, name: Option<&str>) -> Result<Vec<FunctionState>, Refusal> {
        let settings = self.control.settings()?;
        let tables = settings.look(|config| config.function_tables(name));
        let seen = self.functions.seen();
        let mut rows: BTreeMap<&str, Vec<Row>> = BTreeMap::new();
        for ((_, function), seen) in
            seen.rows.iter().filter(|((_, function), _)| name.is_none_or(|name| **function == *name))
        {
            rows.entry(function).or_default().push(seen.row.clone());
        }
        let mut known: BTreeMap<String, _> = self
            .functions
            .list(name)
            .into_iter()
            .map(|status| (status.definition.name.clone(), status.processes))
            .collect();
        let state = |table: Table| {
            let name = name_of(&table).to_owned();
            let processes = known.remove(&name).unwrap_or_default();
            let unattached = processes.iter().filter_map(|(pid, state)| {
                let reason = match state {
                    InProcess::Timed { .. } => return None,
                    InProcess::Looking => "it is looked for".to_owned(),
                    InProcess::Missing(reason) => reason.clone(),
                };
                Some(Unattached { pid: *pid, reason })
            });
            FunctionState {
                origin: settings.origin(Section::Function, &name),
                figures: rows.remove(&*name).unwrap_or_default(),
                unattached: unattached.collect(),
                definition: Definition(table),
            }
        };
        Ok(tables.into_iter().map(state).collect())
    }

    fn put_function(&self, name: &str, definition: &Definition) -> Result<Put, Refusal> {
        self.put(Section::Function, name, definition)
    }

    fn remove_function(&self, name: &str) -> Result<(), Refusal> {
        self.remove(Section::Function, name)
    }

    fn rules(&self, name: Option<&str>) -> Result<Vec<RuleState>, Refusal> {
        let settings = self.control.settings()?;
        let tables = settings.look(|config| config.rule_tables(name));
        let state = |table: Table| {
            let name = name_of(&table);
            let (breaches, processes) = self.chronicle.rule(name);
            let origin = settings.origin(Section::Rule, name);
            RuleState { origin, breaches, processes, definition: Definition(table) }
        };
        Ok(tables.into_iter().map(state).collect())
    }

    fn put_rule(&self, name: &str, definition: &Definition) -> Result<Put, Refusal> {
        self.put(Section::Rule, name, definition)
    }

    fn remove_rule(&self, name: &str) -> Result<(), Refusal> {
        self.remove(Section::Rule, name)
    }

    fn events(&self, after: Option<Cursor>, wait: Duration) -> Result<Events, Refusal> {
        Ok(self.chronicle.events(after, wait.min(MAX_WAIT)))
    }

    fn remove_snapshot(&self, id: Ulid) -> Result<(), Refusal> {
        let store = Store::read(&self.store, crate::snapshot::Limits::default());
        if !store.folder(id).exists() {
            return Err(Refusal::NotFound { what: format!("there is no snapshot {id}") });
        }
        if self.holds.pins.has(id) {
            return Err(Refusal::Conflict { reason: format!("the alert of the snapshot {id} is firing") });
        }
        store.remove(id).map_err(failed)
    }
}

impl Watcher {
    fn process(&self, member: &super::roster::Member) -> ProcessState {
        // What rules ask for is known, and what costs nothing.
        let known = |metric: &Metric| member.memory.value(*metric).or_else(|| member.figures.value((*metric, false)));
        let mut metrics: BTreeMap<String, f64> =
            Metric::ALL.iter().filter_map(|metric| Some((metric.name().to_owned(), known(metric)?))).collect();
        metrics.insert(Metric::Cpu.name().into(), member.cpu_percent);
        metrics.insert(Metric::MemoryRss.name().into(), member.stat.rss_bytes as f64);
        ProcessState {
            pid: member.who.pid,
            exe: member.who.exe.clone(),
            cmdline: member.who.cmdline.clone(),
            started_at: target::started_at(&member.stat).map(Timestamp::from),
            container: member.container.id.clone(),
            container_name: member.container_name.clone(),
            pod: member.container.pod.clone(),
            threads: member.stat.threads,
            calm_stretches: self.scene.calm_stretches(member.who.pid),
            metrics,
        }
    }
}
