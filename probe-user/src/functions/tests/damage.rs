//! Hostile files: cut and damaged. Nothing panics, and everything ends soon.

use std::time::{Duration, Instant};

use fastrand::Rng;

use super::*;

const SPECS: [&str; 8] =
    ["*", "push_one", "ns::nothing", "push_one+4", "made@0x1140", "[made+0x1140]", "usdt:*:*", "tiny"];

/// Looks for everything in these bytes.
fn look(bytes: &[u8]) {
    let made = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(made.path(), bytes).unwrap();
    let started = Instant::now();
    let Ok(finder) = Finder::of_files(&[made.path()]) else { return };
    for spec in SPECS {
        match finder.find(&spec.parse().unwrap()) {
            Ok(found) => {
                for place in found.places.iter().take(20) {
                    assert!(place.file_offset < bytes.len() as u64);
                    let _ = (finder.returns(place), place.to_string());
                }
            }
            Err(missing) => drop((missing.to_string(), missing.hint())),
        }
    }
    assert!(started.elapsed() < Duration::from_secs(20), "not bounded");
}

fn samples() -> Vec<Vec<u8>> {
    let workshop = Workshop::new();
    let source = "static inline __attribute__((always_inline)) int tiny(int n) { return n * 3 + 1; }\n\
                  int push_one(int n) { return tiny(n); }\n\
                  static int (*choose(void))(int) { return push_one; }\n\
                  int work(int) __attribute__((ifunc(\"choose\")));\n\
                  int main(int n, char **v) { return push_one(n) + work(n); }";
    let options: [&[&str]; 2] = [&["-O2", "-g"], &["-O2", "-g", "-gz=zlib", "-shared", "-fPIC"]];
    let made = options.iter().filter_map(|options| workshop.compile("cc", source, "made", options));
    made.map(|path| std::fs::read(path).unwrap()).collect()
}

#[test]
fn a_file_cut_anywhere_is_survived() {
    for bytes in samples() {
        let mut random = Rng::with_seed(1);
        (0..200).step_by(3).for_each(|length| look(&bytes[..length]));
        (0..100).for_each(|_| look(&bytes[..random.usize(..bytes.len())]));
    }
}

#[test]
fn a_damaged_file_is_survived() {
    for bytes in samples() {
        let mut random = Rng::with_seed(2);
        // The headers at both ends, and anything.
        let parts = [(0..0x400, 200), (bytes.len() - 64 * 40..bytes.len(), 200), (0..bytes.len(), 200)];
        for (part, times) in parts {
            for _ in 0..times {
                let mut damaged = bytes.clone();
                for _ in 0..=random.usize(..8) {
                    let at = part.start + random.usize(..part.len());
                    damaged[at] = [damaged[at] ^ 1 << random.usize(..8), random.u8(..), 0, 0xff][random.usize(..4)];
                }
                look(&damaged);
            }
        }
    }
}

#[test]
fn claims_of_gigabytes_are_refused() {
    let Some(mut bytes) = samples().into_iter().next() else { return };
    bytes[56..58].copy_from_slice(&0xfffe_u16.to_le_bytes());
    look(&bytes);
    let made = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(made.path(), &bytes).unwrap();
    // A file with holes is as long as it likes to be.
    made.as_file().set_len(1 << 40).unwrap();
    assert!(Finder::of_files(&[made.path()]).is_err() || find(made.path(), "x").is_err());
}
