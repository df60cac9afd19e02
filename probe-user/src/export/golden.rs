//! Golden files: what a format must write for the fixture, byte for byte. `PROBE_BLESS=1 cargo test` rewrites them.

use std::fs;
use std::path::Path;

use super::{Format, Options, write};
use crate::symbolize::Profile;

/// Compares what `format` writes with the golden file `name`.
pub fn check(profile: &Profile, format: Format, options: &Options, name: &str) {
    let mut bytes = Vec::new();
    write(profile, format, options, &mut bytes).unwrap();
    check_bytes(&bytes, name);
}

/// Compares `bytes` with the golden file `name`.
pub fn check_bytes(bytes: &[u8], name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("PROBE_BLESS").is_some_and(|value| value == "1") {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
    }
    let golden = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}; PROBE_BLESS=1 writes it", path.display()));
    if golden != bytes {
        let (golden, bytes) = (String::from_utf8_lossy(&golden), String::from_utf8_lossy(bytes));
        let differing = golden.lines().zip(bytes.lines()).find(|(golden, now)| golden != now);
        panic!("{} differs (PROBE_BLESS=1 rewrites it); first differing line: {differing:#?}", path.display());
    }
}
