//! A collector that answers from memory, and a store with snapshots.

use std::path::Path;
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant, SystemTime};

use probe::control::{
    Collector, Cursor, Definition, DumpRequest, Event, EventKind, Events, Firing, FunctionState, IsWanted, Origin,
    ProcessState, Put, RecordRequest, Refusal, RuleProcess, RuleState, State, Status, TargetState, Thread, Unattached,
};
use probe::export::{self, Format, Options};
use probe::latency::Row;
use probe::snapshot::{Limits, Profiles, Sidecar, Store};
use probe::symbolize::Profile;
use probe::target::ThreadState;
use serde_json::json;
use ulid::Ulid;

/// What the collector has.
#[derive(Default)]
pub struct Fake {
    pub functions: Mutex<Vec<FunctionState>>,
    pub rules: Mutex<Vec<RuleState>>,
    pub events: Mutex<Vec<Event>>,
    pub happened: Condvar,
    pub is_down: Mutex<bool>,
    pub removed: Mutex<Vec<Ulid>>,
    /// What was recorded: target and request.
    pub recorded: Mutex<Vec<(String, RecordRequest)>>,
}

pub const LIFE: u64 = 0xabc;

impl Fake {
    pub fn new() -> Self {
        let fake = Self::default();
        let function = json!({"name": "push", "target": "checkout", "symbol": "send_to_vendor", "threshold": "20ms"});
        fake.functions.lock().unwrap().push(FunctionState {
            definition: definition(function),
            origin: Origin::File,
            figures: vec![Row {
                name: "push".into(),
                pid: 42,
                calls: 100,
                rate: 10.0,
                errors: 25,
                p50_ns: Some(2_000_000),
                p99_ns: Some(40_000_000),
                attainment: Some(0.75),
                in_flight: 3,
                attached_share: 1.0,
                ..Row::default()
            }],
            unattached: vec![Unattached { pid: 43, reason: "no such symbol".into() }],
        });
        let rule = json!({"name": "hot", "target": "checkout", "metric": "cpu", "above": 80.0, "notify": ["ops"]});
        fake.rules.lock().unwrap().push(RuleState {
            definition: definition(rule),
            origin: Origin::File,
            breaches: 7,
            processes: vec![
                RuleProcess { pid: Some(42), state: State::Firing, since: Some(now()), value: Some(97.5) },
                RuleProcess { pid: Some(43), ..RuleProcess::default() },
            ],
        });
        fake
    }

    /// Something happens.
    pub fn happen(&self, kind: EventKind, rule: &str) {
        let mut events = self.events.lock().unwrap();
        let number = events.len() as u64 + 1;
        events.push(Event {
            id: Cursor { life: LIFE, number },
            at: now(),
            kind,
            rule: rule.into(),
            target: "checkout".into(),
            pid: Some(42),
            metric: "cpu".into(),
            function: None,
            value: Some(97.5),
            threshold: 80.0,
            unit: "percent of one core".into(),
            snapshot: None,
            culprit: String::new(),
        });
        self.happened.notify_all();
    }

    fn up(&self) -> Result<(), Refusal> {
        let is_down = *self.is_down.lock().unwrap();
        if is_down { Err(Refusal::Unavailable { reason: "nobody answers at the socket".into() }) } else { Ok(()) }
    }

    fn target(&self, name: &str) -> Result<(), Refusal> {
        self.up()?;
        if name == "checkout" { Ok(()) } else { Err(missing("target", name)) }
    }
}

fn missing(what: &str, name: &str) -> Refusal {
    Refusal::NotFound { what: format!("there is no {what} named `{name}`") }
}

fn now() -> probe::snapshot::Timestamp {
    SystemTime::now().into()
}

pub fn definition(value: serde_json::Value) -> Definition {
    Definition(value.as_object().unwrap().clone())
}

fn named(definition: &Definition, name: &str) -> Definition {
    let mut definition = definition.clone();
    definition.0.insert("name".into(), name.into());
    definition
}

impl Collector for Fake {
    fn status(&self) -> Result<Status, Refusal> {
        self.up()?;
        Ok(Status {
            version: "9.9".into(),
            started_at: now(),
            cpu_seconds: 1.5,
            frequency: 19,
            samples: 1000,
            losses: [("ring buffer full".to_owned(), 3)].into(),
            firing: vec![Firing { rule: "hot".into(), pid: Some(42), ..Firing::default() }],
            ..Status::default()
        })
    }

    fn targets(&self) -> Result<Vec<TargetState>, Refusal> {
        self.up()?;
        let process = |pid, cpu| ProcessState {
            pid,
            exe: "/usr/bin/checkout".into(),
            started_at: Some(now_fixed()),
            container: Some("c0ffee".into()),
            threads: 9,
            metrics: [("cpu".to_owned(), cpu), ("memory.rss".to_owned(), 1e6)].into(),
            ..ProcessState::default()
        };
        Ok(vec![TargetState { name: "checkout".into(), processes: vec![process(42, 97.5), process(43, 2.5)] }])
    }

    fn threads(&self, target: &str) -> Result<Vec<Thread>, Refusal> {
        self.target(target)?;
        let state = Some(ThreadState::Running);
        Ok(vec![Thread { pid: 42, tid: 4250, name: "push worker 1".into(), state, cpu_percent: Some(90.0) }])
    }

    fn record(&self, target: &str, request: &RecordRequest, is_wanted: IsWanted<'_>) -> Result<Vec<u8>, Refusal> {
        self.target(target)?;
        if request.event != "cpu" {
            let reason = format!("there is no event `{}`", request.event);
            return Err(Refusal::Invalid { field: Some("event".into()), reason, hint: "try cpu".into() });
        }
        self.recorded.lock().unwrap().push((target.into(), request.clone()));
        let end = Instant::now() + request.duration.0;
        while is_wanted() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(pprof())
    }

    fn dump(&self, target: &str, _: &DumpRequest) -> Result<Vec<u8>, Refusal> {
        self.target(target)?;
        Ok(pprof())
    }

    fn functions(&self, _: Option<&str>) -> Result<Vec<FunctionState>, Refusal> {
        self.up()?;
        Ok(self.functions.lock().unwrap().clone())
    }

    fn put_function(&self, name: &str, wanted: &Definition) -> Result<Put, Refusal> {
        if !wanted.0.contains_key("symbol") {
            let reason = "[[function]] needs `symbol`".to_owned();
            return Err(Refusal::Invalid { field: Some("symbol".into()), reason, hint: String::new() });
        }
        let mut functions = self.functions.lock().unwrap();
        let before = functions.len();
        functions.retain(|function| function.definition.0["name"] != name);
        let put = if functions.len() < before { Put::Replaced } else { Put::Created };
        let state = FunctionState { definition: named(wanted, name), origin: Origin::Api, ..FunctionState::default() };
        functions.push(state);
        Ok(put)
    }

    fn remove_function(&self, name: &str) -> Result<(), Refusal> {
        if name == "push" {
            return Err(Refusal::Conflict { reason: "the rule `slow` is about the function `push`".into() });
        }
        let mut functions = self.functions.lock().unwrap();
        let before = functions.len();
        functions.retain(|function| function.definition.0["name"] != name);
        if functions.len() < before { Ok(()) } else { Err(missing("function", name)) }
    }

    fn rules(&self, _: Option<&str>) -> Result<Vec<RuleState>, Refusal> {
        self.up()?;
        Ok(self.rules.lock().unwrap().clone())
    }

    fn put_rule(&self, name: &str, wanted: &Definition) -> Result<Put, Refusal> {
        let mut rules = self.rules.lock().unwrap();
        let put = match rules.iter().position(|rule| rule.definition.0["name"] == name) {
            Some(at) => {
                rules.remove(at);
                Put::Replaced
            }
            None => Put::Created,
        };
        rules.push(RuleState { definition: named(wanted, name), origin: Origin::Api, ..RuleState::default() });
        Ok(put)
    }

    fn remove_rule(&self, name: &str) -> Result<(), Refusal> {
        let mut rules = self.rules.lock().unwrap();
        let at = rules.iter().position(|rule| rule.definition.0["name"] == name);
        at.map(|at| drop(rules.remove(at))).ok_or_else(|| missing("rule", name))
    }

    fn events(&self, after: Option<Cursor>, wait: Duration) -> Result<Events, Refusal> {
        self.up()?;
        let mut events = self.events.lock().unwrap();
        let end = |events: &[Event]| Cursor { life: LIFE, number: events.len() as u64 };
        let Some(after) = after else {
            return Ok(Events { events: Vec::new(), next: end(&events), missed: false });
        };
        let missed = after.life != LIFE;
        let from = if missed { 0 } else { after.number as usize };
        if events.len() <= from && !missed {
            // Short, so that threads of tests end.
            events = self.happened.wait_timeout(events, wait.min(Duration::from_millis(200))).unwrap().0;
        }
        Ok(Events { events: events.get(from..).unwrap_or_default().to_vec(), next: end(&events), missed })
    }

    fn remove_snapshot(&self, id: Ulid) -> Result<(), Refusal> {
        self.up()?;
        self.removed.lock().unwrap().push(id);
        Ok(())
    }
}

fn now_fixed() -> probe::snapshot::Timestamp {
    probe::snapshot::Timestamp(1_700_000_000_000_000_000)
}

/// The profile of the golden files: 23 samples, of which thread 4250 has some.
pub fn profile() -> Profile {
    export::read(include_bytes!("../golden/profile.json"), "profile.json").unwrap()
}

pub fn pprof() -> Vec<u8> {
    let mut bytes = Vec::new();
    export::write(&profile(), Format::Pprof, &Options::default(), &mut bytes).unwrap();
    bytes
}

/// The id of the snapshot of a second.
pub fn id(second: u64) -> Ulid {
    Ulid::from_parts((1_700_000_000 + second) * 1000, 7)
}

/// A store with five snapshots, of the seconds 0 to 4; the odd ones are of the target `search`.
pub fn store(path: &Path) -> Store {
    let store = Store::open(path, Limits { max_age: Duration::from_secs(1 << 40), ..Limits::default() }).unwrap();
    for second in 0..5 {
        let mut breach = profile();
        breach.samples[0].count += 77;
        let mut bytes = Vec::new();
        export::write(&breach, Format::Pprof, &Options::default(), &mut bytes).unwrap();
        let profiles = Profiles { before: pprof(), breach: bytes, ..Profiles::default() };
        store.put(&sidecar(second), &profiles).unwrap();
    }
    store
}

fn sidecar(second: u64) -> Sidecar {
    let at = |after: u64| probe::snapshot::Timestamp((1_700_000_000 + second + after) * 1_000_000_000);
    serde_json::from_value(json!({
        "id": id(second),
        "version": 1,
        "target": if second.is_multiple_of(2) { "checkout" } else { "search" },
        "rule": "hot",
        "metric": "cpu",
        "value": 97.5,
        "threshold": 80.0,
        "unit": "percent of one core",
        "started_at": at(0),
        "exceeded_at": at(0),
        "breached_at": at(0),
        "ended_at": at(5),
        "host": {"name": "node", "ip": "192.0.2.7", "cpus": 4, "cpu_percent": 31.0, "kernel": "6.1.0"},
        "process": {
            "pid": 42, "exe": "/usr/bin/checkout", "cmdline": "checkout", "cpu_percent": 97.5,
            "cpu_percent_of_host": 24.0, "rss_bytes": 1 << 20, "threads": 9, "container": null,
        },
        "threads": [{"tid": 4250, "name": "push worker 1", "samples": 18, "cpu_percent": 90.0}],
        "culprits": [{
            "function": "match_rules", "module": "/usr/bin/checkout", "file": "rules.c", "line": 41, "thread": "matcher",
            "share": 88.0, "baseline_share": 0.0, "change": 88.0,
        }],
        "losses": {"ring buffer full": 2},
        "profiles": [],
    }))
    .unwrap()
}
