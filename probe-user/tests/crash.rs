//! Writers of a store that are killed at any instant: what they were told is stored stays, nothing half-written is
//! listed, and the index agrees with the folders. The writer is this same program, started again.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use fastrand::Rng;
use probe::snapshot::{Limits, Profiles, Query, Sidecar, Store, Window};
use ulid::Ulid;

/// Names the store to the writer.
const STORE: &str = "PROBE_CRASH_STORE";
/// And whether its limits are tight.
const TIGHT: &str = "PROBE_CRASH_TIGHT";

/// How often a writer is killed, if the time suffices; on slow disks it is less often.
const KILLS: usize = 100;
const TIME: Duration = Duration::from_secs(30);
const AT_LEAST: usize = 20;

fn limits(is_tight: bool) -> Limits {
    Limits { max_snapshots: if is_tight { 5 } else { 1_000_000 }, ..Limits::default() }
}

/// The profiles of a snapshot, which follow from its id, so that whoever reads them knows what they were.
fn profiles(id: Ulid) -> Profiles {
    let bytes = |salt: u64| {
        let mut random = Rng::with_seed(u64::try_from(u128::from(id) & u128::from(u64::MAX)).expect("masked") ^ salt);
        let length = random.u64(..40_000);
        (0..length).map(|_| random.u8(..)).collect::<Vec<u8>>()
    };
    Profiles { before: bytes(1), breach: bytes(2), dump: bytes(3), ..Profiles::default() }
}

fn target(id: Ulid) -> &'static str {
    if u128::from(id) % 3 == 0 { "search" } else { "checkout" }
}

/// The writer: stores, pins and removes as fast as it can, and says what it has done when it is done.
#[test]
fn writer() {
    let Some(path) = std::env::var_os(STORE) else { return };
    let is_tight = std::env::var_os(TIGHT).is_some();
    let golden = include_str!("golden/store/version-2/snapshot.json");
    let golden: Sidecar = serde_json::from_str(golden).expect("a sidecar");
    let say = |word: &str, id: Ulid| {
        let mut out = std::io::stdout();
        out.write_all(format!("\n{word} {id}\n").as_bytes()).and_then(|()| out.flush()).expect("somebody reads");
    };
    let store = Store::open(Path::new(&path), limits(is_tight)).expect("opens");
    let mut random = Rng::with_seed(u64::from(std::process::id()) << 20 | 1);
    let mut ids = Vec::new();
    loop {
        let id = Ulid::from_parts(
            u64::try_from(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("later").as_millis())
                .expect("short"),
            u128::from(random.u64(..)),
        );
        let is_pinned = random.u64(..8) == 0;
        if is_pinned {
            store.pin(id).expect("pinned");
        }
        let sidecar = Sidecar { id, target: target(id).into(), ..golden.clone() };
        store.put(&sidecar, &profiles(id)).expect("stored");
        say(if is_pinned { "pinned" } else { "stored" }, id);
        ids.push(id);
        if random.u64(..3) == 0 {
            let id = ids.swap_remove(random.usize(..ids.len()));
            say("removing", id);
            // The limits may have been faster.
            let _ = store.remove(id);
        }
        if random.u64(..5) == 0 {
            store.maintain();
        }
    }
}

/// What the writers have said so far.
#[derive(Default)]
struct Told {
    stored: BTreeSet<Ulid>,
    pinned: BTreeSet<Ulid>,
    /// These may be there or not.
    removing: BTreeSet<Ulid>,
}

impl Told {
    fn hear(&mut self, line: &str) {
        let Some((word, id)) = line.split_once(' ') else { return };
        let Ok(id) = Ulid::from_string(id) else { return };
        match word {
            "stored" => drop(self.stored.insert(id)),
            "pinned" => drop((self.stored.insert(id), self.pinned.insert(id))),
            "removing" => drop((self.removing.insert(id), self.stored.remove(&id), self.pinned.remove(&id))),
            _ => {}
        }
    }

    /// A reader finds all that must be there, whole, and nothing damaged.
    fn check(&self, store: &Store, must: &BTreeSet<Ulid>) {
        let listing = store.list().expect("listed");
        assert!(listing.damaged.is_empty(), "half-written: {:?}", listing.damaged);
        let listed: BTreeSet<Ulid> = listing.snapshots.iter().map(|sidecar| sidecar.id).collect();
        let lost: Vec<_> = must.difference(&listed).collect();
        assert!(lost.is_empty(), "lost: {lost:?}");
        for wanted in ["checkout", "search"] {
            let query = Query { target: Some(wanted.into()), ..Query::all() };
            let found: BTreeSet<Ulid> = store.query(&query).expect("read").snapshots.iter().map(|s| s.id).collect();
            let expected = listed.iter().copied().filter(|id| target(*id) == wanted).collect();
            assert_eq!(found, expected, "{wanted}");
            assert_eq!(store.count(&query).expect("counted").snapshots, found.len() as u64);
        }
    }
}

#[test]
fn writers_that_are_killed_lose_nothing_and_leave_nothing_half_done() {
    let folder = tempfile::tempdir().expect("a folder");
    let begun = Instant::now();
    let mut random = Rng::with_seed(u64::from(std::process::id()) << 20 | 7);
    let (mut kills, mut acknowledged) = (0, 0);
    for is_tight in [false, true] {
        let path = folder.path().join(if is_tight { "tight" } else { "wide" });
        let mut told = Told::default();
        for round in 0..KILLS / 2 {
            if begun.elapsed() > TIME && kills >= AT_LEAST / 2 * (1 + usize::from(is_tight)) {
                break;
            }
            harm_index(&path, round);
            let before = told.stored.len() + told.removing.len();
            run_and_kill(&path, is_tight, &mut random, &mut told);
            acknowledged += told.stored.len() + told.removing.len() - before;
            kills += 1;
            let must = if is_tight { &told.pinned } else { &told.stored };
            told.check(&Store::read(&path, limits(is_tight)), must);
        }
        // The next daemon puts it in order.
        let must = if is_tight { &told.pinned } else { &told.stored };
        let store = Store::open(&path, limits(is_tight)).expect("opens");
        told.check(&store, must);
        let hidden = |name: &str| name.starts_with('.') && name != ".lock";
        let names =
            std::fs::read_dir(&path).expect("read").map(|e| e.expect("entry").file_name().into_string().expect("text"));
        assert_eq!(names.filter(|name| hidden(name)).collect::<Vec<_>>(), Vec::<String>::new());
        for &id in must {
            let expected = profiles(id);
            assert_eq!(store.profile(id, Window::Breach).expect("there"), expected.breach);
            assert_eq!(store.profile(id, Window::Dump).expect("there"), expected.dump);
        }
        let pinned: BTreeSet<Ulid> = store.pinned().expect("read").into_iter().collect();
        assert!(told.pinned.is_subset(&pinned), "pins were lost");
        if is_tight {
            let others = store.list().expect("listed").snapshots.len() - pinned.len();
            assert!(others <= 5, "the limits hold: {others}");
        }
    }
    println!("{kills} kills in {:?}, {acknowledged} snapshots acknowledged", begun.elapsed());
    assert!(kills >= AT_LEAST && acknowledged > kills, "{kills} kills, {acknowledged} snapshots");
}

/// Some writers find no index, or one that is none, so that others are killed while they build it.
fn harm_index(store: &Path, round: usize) {
    let index = store.join("index.sqlite");
    match round % 5 {
        1 => drop(std::fs::remove_file(index)),
        3 if index.exists() => std::fs::write(index, "torn").expect("written"),
        _ => {}
    }
}

/// Starts a writer, reads beside it, and kills it at some instant.
fn run_and_kill(path: &Path, is_tight: bool, random: &mut Rng, told: &mut Told) {
    let mut command = Command::new(std::env::current_exe().expect("known"));
    command.args(["--exact", "writer", "--nocapture"]).env(STORE, path).stdout(Stdio::piped()).stderr(Stdio::null());
    if is_tight {
        command.env(TIGHT, "1");
    }
    let mut writer = command.spawn().expect("starts");
    let lives = Duration::from_micros(20_000 + random.u64(..180_000));
    let begun = Instant::now();
    // What is there while it is written is whole, too.
    let reader = Store::read(path, limits(is_tight));
    while begun.elapsed() < lives {
        let page = reader.query(&Query { limit: 5, ..Query::default() }).expect("read");
        assert!(page.damaged.is_empty(), "half-written: {:?}", page.damaged);
        std::thread::sleep(Duration::from_millis(2).min(lives.saturating_sub(begun.elapsed())));
    }
    writer.kill().expect("killed");
    let output = BufReader::new(writer.stdout.take().expect("piped"));
    for line in output.lines() {
        told.hear(&line.expect("text"));
    }
    writer.wait().expect("ended");
}
