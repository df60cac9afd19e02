//! Processes that are killed at any instant: what the journal has acknowledged is there, and what is there is sent.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use probe::alert::{Dispatcher, Journal, Reader};
use probe::config::Config;
use probe_tests::poll;
use probe_tests::trial::unprivileged;
use std::sync::{Arc, Mutex};

use crate::fake::{Reply, Request, Server};
use crate::scene::{Files, firing, links};

pub fn tests() -> Vec<Trial> {
    vec![
        unprivileged("kill::a_dispatcher_that_is_killed_again_and_again_loses_nothing", dispatcher),
        unprivileged("kill::a_collector_that_is_killed_has_what_it_acknowledged_in_the_journal", collector),
    ]
}

/// How often a process is killed.
const KILLS: u32 = 20;

/// The process that sends: arguments are the journal, the state and the configuration. It runs until it is killed.
pub fn dispatch(arguments: &[String]) {
    let [journal, state, config] = arguments else { panic!("three arguments") };
    let channels = Config::load(Path::new(config), &[]).expect("a configuration").channels;
    let _dispatcher = Dispatcher::start(Path::new(journal), Path::new(state), &channels, links()).expect("starts");
    // It ends by itself should nobody kill it.
    std::thread::sleep(Duration::from_secs(120));
}

/// The process that writes: the argument is the journal. It says what is written, and runs until it is killed.
pub fn append(arguments: &[String]) {
    let journal = Journal::open(Path::new(&arguments[0]), None).expect("opens");
    for pid in 1..100_000 {
        let id = journal.append(&firing(pid, &["ops"]));
        if writeln!(std::io::stdout(), "{id}").is_err() {
            return;
        }
    }
}

/// A process of this program, killed when it is dropped.
struct Process(Child);

impl Process {
    fn start(arguments: &[&Path], mode: &str) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(mode).args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        Ok(Self(command.spawn()?))
    }

    fn kill(&mut self) -> Result<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

fn dispatcher() -> Result<()> {
    // A third of the requests fails, some after the notices were taken; that is a delivery nobody knows of.
    let acknowledged: Arc<Mutex<BTreeMap<String, u32>>> = Arc::default();
    let taken = Arc::clone(&acknowledged);
    let server = Server::start(move |request: &Request, number| {
        if number % 3 == 2 {
            return Reply::status(503);
        }
        let body = request.json();
        for alert in body["alerts"].as_array().into_iter().flatten() {
            let pid = alert["labels"]["pid"].as_str().unwrap_or_default().to_owned();
            *taken.lock().expect("no panic").entry(pid).or_default() += 1;
        }
        Reply::status(200)
    })?;
    let files = Files::new(&[])?;
    let [journal, state] = ["journal", "state"].map(|name| files.folder.path().join(name));
    let url = server.url("/");
    let config = files
        .write("probe.toml", &format!("[[notify]]\nname = 'ops'\ntype = 'webhook'\nurl = '{url}'\ngroup_wait = 0\n"))?;
    let writer = Journal::open(&journal, None)?;
    let mut appended = 0;
    for round in 0..KILLS {
        let mut process = Process::start(&[&journal, &state, &config], "--dispatch")?;
        for _ in 0..10 {
            appended += 1;
            writer.append(&firing(appended, &["ops"]));
            std::thread::sleep(Duration::from_millis(u64::from(round * 7 % 40)));
        }
        process.kill()?;
    }
    let _process = Process::start(&[&journal, &state, &config], "--dispatch")?;
    let missing = || {
        let taken = acknowledged.lock().expect("no panic");
        (1..=appended).filter(|pid| !taken.contains_key(&pid.to_string())).count()
    };
    let done = poll::until("every alert taken", Duration::from_secs(90), || (missing() == 0).then_some(()));
    done.with_context(|| format!("{} of {appended} are missing", missing()))?;
    let deliveries: u32 = acknowledged.lock().expect("no panic").values().sum();
    // Each kill can repeat the one message that was under way.
    ensure!(deliveries - appended <= KILLS * 50, "{deliveries} deliveries of {appended} alerts");
    println!("{appended} alerts, {KILLS} kills, {} delivered twice", deliveries - appended);
    Ok(())
}

fn collector() -> Result<()> {
    let files = Files::new(&[])?;
    let journal = files.folder.path().join("journal");
    let mut acknowledged = Vec::new();
    for round in 0..KILLS {
        let mut process = Process::start(&[&journal], "--append")?;
        let output = process.0.stdout.take().context("the output is piped")?;
        let mut lines = BufReader::new(output).lines();
        // So many are acknowledged at least; then it dies in the middle of something.
        acknowledged.extend(lines.by_ref().take(5).collect::<Result<Vec<String>, _>>()?);
        std::thread::sleep(Duration::from_millis(u64::from(round % 10)));
        process.kill()?;
        acknowledged.extend(lines.map_while(Result::ok).filter(|line| line.len() == 26));
    }
    let mut reader = Reader::open(&journal, &files.folder.path().join("state"))?;
    let read = reader.read(1_000_000);
    ensure!(read.iter().all(|(_, notice)| notice.is_some()), "half-written notices are listed");
    let ids: Vec<String> = read.iter().map(|(id, _)| id.to_string()).collect();
    ensure!(ids.is_sorted() && acknowledged.is_sorted(), "in their order");
    let lost: Vec<&String> = acknowledged.iter().filter(|id| ids.binary_search(id).is_err()).collect();
    ensure!(acknowledged.len() >= 5 * KILLS as usize && lost.is_empty(), "{lost:?} of {}", acknowledged.len());
    println!("{} notices acknowledged, {} there", acknowledged.len(), ids.len());
    Ok(())
}
