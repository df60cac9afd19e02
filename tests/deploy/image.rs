//! The image: whether what its build is given is all that the binary is made of.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use probe_tests::probe;
use probe_tests::trial::{Skip, unprivileged};

use crate::files;

pub fn tests() -> Vec<Trial> {
    vec![unprivileged("image::its_build_is_given_all_that_the_binary_is_made_of", context)]
}

/// Whether a path below the checkout is given to the build: the last pattern that matches it decides
/// (`deploy/Dockerfile.dockerignore`, of which this understands as much as it has).
fn is_given(patterns: &str, path: &Path) -> bool {
    let mut is_given = true;
    for pattern in patterns.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (gives, pattern) = pattern.strip_prefix('!').map_or((false, pattern), |pattern| (true, pattern));
        let matches = match (pattern.strip_prefix("**/"), pattern.strip_suffix('*')) {
            _ if pattern == "**" => true,
            (Some(name), _) => path.iter().any(|part| part == name),
            (None, Some(begin)) => path.to_string_lossy().starts_with(begin),
            (None, None) => path.starts_with(pattern),
        };
        if matches {
            is_given = gives;
        }
    }
    is_given
}

fn context() -> Result<()> {
    let checkout = fs::canonicalize(files::path(".."))?;
    let patterns = files::read("Dockerfile.dockerignore")?;
    // Cargo says there what it was built from, embedded files too.
    let list = probe::binary().with_extension("d");
    let list = fs::read_to_string(&list).map_err(|_| Skip(format!("there is no {}", list.display())))?;
    let (_, list) = list.split_once(": ").context("no list of files")?;
    let listed = list.split_whitespace().map(PathBuf::from).filter_map(|path| fs::canonicalize(path).ok());
    let mut sources: Vec<PathBuf> =
        listed.filter_map(|path| Some(path.strip_prefix(&checkout).ok()?.to_owned())).collect();
    for embedded in ["ui/dist/index.html.br", "probe-ebpf/dist/probe.bpf.o", "probe-user/src/main.rs"] {
        ensure!(sources.iter().any(|path| path == Path::new(embedded)), "the list has no {embedded}");
    }
    // What the build itself has made.
    sources.retain(|path| !path.starts_with("target"));
    sources
        .extend(["Cargo.toml", "Cargo.lock", "LICENSE-MIT", "xtask/Cargo.toml", "tests/Cargo.toml"].map(PathBuf::from));
    let missing: Vec<_> = sources.iter().filter(|path| !is_given(&patterns, path)).collect();
    ensure!(missing.is_empty(), "the build of the image is not given {missing:?}");
    for left in ["target/release/probe", "ui/node_modules/vue/index.js", ".git/HEAD", "docs/images/demo.svg"] {
        ensure!(!is_given(&patterns, Path::new(left)), "the build of the image is given {left}");
    }
    Ok(())
}
