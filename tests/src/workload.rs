//! Builds the programs of `workloads/`, each once for a source, a compiler and its flags.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};

use crate::trial;

/// Held while a program is built: a test beside this one would replace it while it runs.
static BUILDING: Mutex<()> = Mutex::new(());

/// Flags by which C and C++ keep frame pointers, and calls stay calls.
const FRAMES: [&str; 5] = ["-O1", "-g", "-fno-omit-frame-pointer", "-fno-optimize-sibling-calls", "-pthread"];

/// Builds a C program.
pub fn c(source: &str, more: &[&str]) -> Result<PathBuf> {
    c_by("gcc", source, more)
}

/// Builds a C program with a compiler of choice.
pub fn c_by(compiler: &str, source: &str, more: &[&str]) -> Result<PathBuf> {
    build(compiler, source, &[&FRAMES, more].concat())
}

/// Builds a Go program by this `go`.
pub(crate) fn go_by(go: &Path, source: &str, more: &[&str]) -> Result<PathBuf> {
    build(&go.to_string_lossy(), source, &[&["build"], more].concat())
}

/// Builds a C++ program, optimised, so that small functions are inlined.
pub fn cxx(source: &str, more: &[&str]) -> Result<PathBuf> {
    build("g++", source, &[&FRAMES[1..], &["-O2"], more].concat())
}

/// Builds a Rust program, optimised.
pub fn rust(source: &str, more: &[&str]) -> Result<PathBuf> {
    build("rustc", source, &[&["--edition=2024", "-O", "-g", "-Cforce-frame-pointers=yes"], more].concat())
}

fn build(compiler: &str, source: &str, flags: &[&str]) -> Result<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("workloads");
    let path = folder.join(source);
    let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let common = fs::read(folder.join("common.h")).context("cannot read common.h")?;
    let mut hasher = DefaultHasher::new();
    (compiler, flags, text, common).hash(&mut hasher);
    let name = source.split('.').next().unwrap_or(source);
    let out = target_dir().join("workloads").join(format!("{name}-{:08x}", hasher.finish() as u32)).join(name);
    let _building = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
    if out.exists() {
        return Ok(out);
    }
    let compiler = trial::require(compiler)?;
    let built = out.with_extension(std::process::id().to_string());
    fs::create_dir_all(out.parent().context("a workload has a folder")?)?;
    // What is meant is this release of Go, not one that it would download.
    let output =
        Command::new(&compiler).env("GOTOOLCHAIN", "local").args(flags).arg("-o").arg(&built).arg(&path).output()?;
    ensure!(output.status.success(), "{source} does not compile: {}", String::from_utf8_lossy(&output.stderr));
    fs::rename(&built, &out).with_context(|| format!("cannot write {}", out.display()))?;
    Ok(out)
}

/// Where builds go.
pub fn target_dir() -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(default, PathBuf::from)
}

/// A folder of its own for a test, removed with it. It is on a disk like any other, which `/tmp` need not be.
pub fn scratch() -> Result<tempfile::TempDir> {
    let parent = target_dir().join("scratch");
    fs::create_dir_all(&parent)?;
    tempfile::tempdir_in(parent.canonicalize()?).context("cannot create a folder for the test")
}
