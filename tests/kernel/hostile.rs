//! What a target names may be a pipe, claim more than there is, be cut while it is read: a recording of it ends in time, with
//! all names that can be known, and costs little memory.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use probe_tests::folded::Folded;
use probe_tests::running::Running;
use probe_tests::trial::{Skip, require, trial};
use probe_tests::{probe, workload};

/// A recording of a second, the time after which reading a file is given up, and patience with a busy machine.
const IN_TIME: Duration = Duration::from_secs(40);

pub fn tests() -> Vec<Trial> {
    vec![
        trial("hostile::a_pipe_where_split_debug_information_is_looked_for", pipe_as_package),
        trial("hostile::a_pipe_and_a_sparse_file_where_a_debug_link_leads", debug_links),
        trial("hostile::a_section_that_claims_a_petabyte", petabyte),
        trial("hostile::a_library_that_is_cut_costs_only_its_own_names", cut),
        trial("hostile::a_file_system_that_answers_no_more", deaf),
    ]
}

fn recorded(target: &Running) -> Result<Folded> {
    let begin = Instant::now();
    let folded = probe::record(target.pid(), 1, &[])?;
    ensure!(begin.elapsed() < IN_TIME, "it took {:?}", begin.elapsed());
    Ok(folded)
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(require(program)?).args(arguments).output()?;
    ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn copy(folder: &Path, name: &str) -> Result<String> {
    let path = folder.join(name);
    fs::copy(workload::c("split.c", &[])?, &path)?;
    Ok(path.to_str().context("a path that is text")?.to_owned())
}

fn pipe_as_package() -> Result<()> {
    let folder = workload::scratch()?;
    let binary = copy(folder.path(), "piped")?;
    run("mkfifo", &[&format!("{binary}.dwp")])?;
    recorded(&Running::workload(Path::new(&binary))?)?.expect("takes_three_quarters", 0.5)
}

fn debug_links() -> Result<()> {
    let folder = workload::scratch()?;
    for (name, is_pipe) in [("piped", true), ("sparse", false)] {
        let (binary, debug) = (copy(folder.path(), name)?, format!("{name}.debug"));
        let debug = folder.path().join(debug).to_str().context("a path that is text")?.to_owned();
        run("objcopy", &["--only-keep-debug", &binary, &debug])?;
        run("objcopy", &["--strip-debug", "--remove-section=.note.gnu.build-id", &binary])?;
        run("objcopy", &[&format!("--add-gnu-debuglink={debug}"), &binary])?;
        fs::remove_file(&debug)?;
        if is_pipe {
            run("mkfifo", &[&debug])?;
        } else {
            File::create(&debug)?.set_len(1 << 40)?;
        }
        recorded(&Running::workload(Path::new(&binary))?)?.expect("takes_three_quarters", 0.5)?;
    }
    Ok(())
}

fn petabyte() -> Result<()> {
    let folder = workload::scratch()?;
    let binary = copy(folder.path(), "claims")?;
    run("objcopy", &["--compress-debug-sections=zlib", &binary])?;
    let mut bytes = fs::read(&binary)?;
    let (headers, count) = (word(&bytes, 0x28), word(&bytes, 0x3c) & 0xffff);
    let compressed: Vec<usize> = (0..count)
        .map(|index| headers + index * 64)
        .filter(|&header| word(&bytes, header + 8) & 0x800 != 0)
        .map(|header| word(&bytes, header + 24))
        .collect();
    ensure!(!compressed.is_empty(), "no section was compressed");
    for section in compressed {
        bytes[section + 8..section + 16].copy_from_slice(&(1_u64 << 50).to_le_bytes());
    }
    fs::write(&binary, bytes)?;
    recorded(&Running::workload(Path::new(&binary))?)?.expect("takes_three_quarters", 0.5)
}

/// What is mapped stays; debug information, symbols and section headers, which lie behind it, are gone.
fn cut() -> Result<()> {
    let folder = workload::scratch()?;
    let plugin = folder.path().join("plugin.so");
    fs::copy(workload::c("plugin.c", &["-shared", "-fPIC"])?, &plugin)?;
    let target = Running::ready(Command::new(workload::c("dlopen.c", &[])?).arg(&plugin))?;
    File::options().write(true).open(&plugin)?.set_len(end_of_segments(&fs::read(&plugin)?) as u64)?;
    recorded(&target)?.expect("main", 0.5)
}

/// Who opens the library cannot even be killed.
fn deaf() -> Result<()> {
    if !Path::new("/dev/fuse").exists() {
        return Err(Skip("this kernel has no FUSE".into()).into());
    }
    let folder = workload::scratch()?;
    let plugin = workload::c("plugin.c", &["-shared", "-fPIC"])?;
    let target = Running::ready(Command::new(workload::c("deaf.c", &[])?).arg(plugin).arg(folder.path()))?;
    recorded(&target)?.expect("own_work", 0.25)?;
    let begin = Instant::now();
    let pid = target.pid().to_string();
    let rows = probe::run(["latency", "-p", &pid, "own_work", "-d", "1", "--json"])?.expect(0)?.json()?;
    ensure!(rows[0]["calls"].as_u64() > Some(0), "{rows:#}");
    ensure!(begin.elapsed() < IN_TIME, "it took {:?}", begin.elapsed());
    Ok(())
}

fn word(bytes: &[u8], at: usize) -> usize {
    bytes[at..at + 8].iter().rev().fold(0, |sum, &byte| sum << 8 | usize::from(byte))
}

/// Where the last loadable segment ends in an ELF file.
fn end_of_segments(bytes: &[u8]) -> usize {
    let (headers, count) = (word(bytes, 0x20), word(bytes, 0x38) & 0xffff);
    let segments = (0..count).map(|index| headers + index * 56);
    let loaded = segments.filter(|&header| word(bytes, header) & 0xffff_ffff == 1);
    loaded.map(|header| word(bytes, header + 8) + word(bytes, header + 32)).max().unwrap_or(bytes.len())
}
