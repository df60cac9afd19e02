//! Every version of the format that was ever written is read: a folder of each is kept in `tests/golden/store`.

use super::super::check::{SUMS, Sums};
use super::*;
use crate::snapshot::VERSION;

fn golden(version: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/store/version-{version}"))
}

#[test]
fn every_version_is_read_back() {
    for version in 1..=VERSION {
        let folder = tempfile::tempdir().expect("a folder");
        let text = fs::read_to_string(golden(version).join("snapshot.json")).expect("there");
        let head: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let id = Ulid::from_string(head["id"].as_str().expect("text")).expect("an id");
        let kept = folder.path().join(id.to_string());
        fs::create_dir(&kept).expect("made");
        for name in names(&golden(version)) {
            fs::copy(golden(version).join(&name), kept.join(name)).expect("copied");
        }
        let forever = Limits { max_age: Duration::MAX, ..Limits::default() };
        let store = Store::open(folder.path(), forever).expect("opens");
        let sidecar = store.sidecar(id).expect("read");
        assert_eq!((sidecar.version, sidecar.target.as_str()), (version, "checkout"));
        assert_eq!((sidecar.rule.as_str(), sidecar.metric), ("checkout-cpu", crate::monitor::Metric::Cpu));
        assert!(sidecar.value > 30.0 && sidecar.culprits[0].function == "match_rules", "{sidecar:?}");
        assert_eq!((sidecar.threads[0].name.as_str(), sidecar.host.cpus), ("matcher", 2));
        for window in [Window::Before, Window::Breach, Window::Dump] {
            let bytes = store.profile(id, window).expect("there");
            let mut profile = Vec::new();
            io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&bytes[..]), &mut profile).expect("gzip");
            assert!(profile.windows(7).any(|part| part == b"checkou"), "{window:?}");
        }
        let query = Query { target: Some("checkout".into()), rule: Some("checkout-cpu".into()), ..Query::default() };
        assert_eq!(store.query(&query).expect("read").snapshots, [sidecar]);
        assert_eq!(store.count(&query).expect("counted").bytes, query::size_of(&kept));
        assert_eq!(kept.join(SUMS).exists(), version >= 2);
    }
}

#[test]
fn the_checksums_are_those_of_sha256sum() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path());
    let id = put(&store, &[1])[0];
    let checked = Command::new("sha256sum").args(["--check", "--strict", SUMS]).current_dir(store.folder(id)).output();
    let Ok(checked) = checked else {
        eprintln!("SKIPPED: there is no sha256sum");
        return;
    };
    let said = String::from_utf8_lossy(&checked.stdout);
    assert!(checked.status.success(), "{said}");
    assert_eq!(
        said.lines().collect::<Vec<_>>(),
        ["before.pb.gz: OK", "breach.pb.gz: OK", "dump.pb.gz: OK", "snapshot.json: OK"]
    );
}

#[test]
fn a_sidecar_of_a_later_version_is_read_as_far_as_it_is_known() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path());
    let ids = put(&store, &[2, 1]);
    for (id, change) in ids.iter().zip([r#""metric": "cpu""#, r#""metric": "weather""#]) {
        let path = store.folder(*id).join("snapshot.json");
        let text = fs::read_to_string(&path).expect("read");
        let text =
            text.replace(&format!("\"version\": {VERSION}"), "\"version\": 99").replace(r#""metric": "cpu""#, change);
        fs::write(&path, &text).expect("written");
        let mut sums = Sums::default();
        for name in names(&store.folder(*id)).iter().filter(|name| *name != SUMS) {
            sums.add(name, &fs::read(store.folder(*id).join(name)).expect("read"));
        }
        fs::write(store.folder(*id).join(SUMS), sums.to_string()).expect("written");
    }
    let listing = store.list().expect("listed");
    assert_eq!(listing.snapshots.iter().map(|s| (s.id, s.version)).collect::<Vec<_>>(), [(ids[0], 99)]);
    assert!(
        listing.damaged[0].reason.contains("snapshot.json, of the later format 99: unknown variant `weather`"),
        "{listing:?}"
    );
}
