//! Never a wrong name, or no name where one is known: sources that are stale or missing, frames that a signal interrupted,
//! main threads that have ended, code that its program names.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use probe_tests::running::Running;
use probe_tests::trial::{require, trial};
use probe_tests::{probe, workload};

pub fn tests() -> Vec<Trial> {
    vec![
        trial("names::a_stale_debug_file_takes_no_name_away", stale),
        trial("names::functions_are_not_called_as_types_are", letters),
        trial("names::inlined_functions_of_split_debug_information", split),
        trial("names::what_a_signal_interrupted_at_its_first_instruction", instruction),
        trial("names::threads_whose_main_thread_has_ended", leader),
        trial("names::stripped_code_is_one_frame_for_each_function", stripped),
        trial("names::generated_code_by_its_perf_map", perf_map),
        trial("names::code_that_was_copied_to_its_own_address", copied),
        trial("names::who_waits_in_vfork", vfork),
        trial("names::children_that_live_for_a_moment", brief),
    ]
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("{command:?}"))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}

fn compile(folder: &Path, source: &str, name: &str, more: &[&str]) -> Result<PathBuf> {
    let workloads = Path::new(env!("CARGO_MANIFEST_DIR")).join("workloads");
    let gcc = require("gcc")?;
    run(Command::new(gcc)
        .current_dir(folder)
        .args(["-O2", "-g", "-pthread"])
        .args(more)
        .args(["-o", name])
        .arg(workloads.join(source)))?;
    Ok(folder.join(name))
}

/// Records for a second: the stacks, and what was said beside them.
fn recorded(pid: u32) -> Result<(String, String)> {
    let pid = pid.to_string();
    let output = probe::run(["record", "-p", &pid, "-d", "1", "-F", "499", "-f", "folded", "-o", "-"])?.expect(0)?;
    Ok((output.stdout, output.stderr))
}

fn stale() -> Result<()> {
    let folder = workload::scratch()?;
    let program = compile(folder.path(), "split.c", "program", &["-Wl,--build-id"])?;
    let other = compile(folder.path(), "deep.c", "other", &["-Wl,--build-id"])?;
    let debug = folder.path().join("program.debug");
    run(Command::new(require("objcopy")?).arg("--only-keep-debug").arg(&other).arg(&debug))?;
    run(Command::new(require("strip")?).arg("-g").arg(&program))?;
    run(Command::new(require("objcopy")?)
        .current_dir(folder.path())
        .arg("--add-gnu-debuglink=program.debug")
        .arg(&program))?;
    let (folded, said) = recorded(Running::workload(&program)?.pid())?;
    ensure!(folded.contains("main;takes_three_quarters"), "{folded}");
    ensure!(said.contains("the debug file is of another build"), "{said}");
    Ok(())
}

fn letters() -> Result<()> {
    let (folded, _) = recorded(Running::workload(&workload::c("letters.c", &[])?)?.pid())?;
    for name in ["f", "d", "w", "St", "PKc", "FvvE"] {
        ensure!(folded.contains(&format!("main;{name}")), "{name} in\n{folded}");
    }
    let wrong = ["float", "double", "wchar_t", "std", "char const"];
    ensure!(!wrong.iter().any(|name| folded.contains(&format!("main;{name}"))), "{folded}");
    Ok(())
}

fn split() -> Result<()> {
    let folder = workload::scratch()?;
    let program = compile(folder.path(), "inlined.c", "program", &["-gsplit-dwarf"])?;
    let (folded, _) = recorded(Running::workload(&program)?.pid())?;
    ensure!(folded.contains("outer;inlined_step"), "{folded}");
    let parts: Vec<_> = fs::read_dir(folder.path())?.flatten().map(|entry| entry.path()).collect();
    for part in parts.iter().filter(|path| path.extension().is_some_and(|end| end == "dwo")) {
        fs::remove_file(part)?;
    }
    let (folded, said) = recorded(Running::workload(&program)?.pid())?;
    ensure!(folded.contains("main;outer"), "{folded}");
    ensure!(said.contains("a .dwo file is missing"), "{said}");
    Ok(())
}

fn instruction() -> Result<()> {
    let (folded, _) = recorded(Running::workload(&workload::c("instruction.c", &[])?)?.pid())?;
    ensure!(folded.contains("is_interrupted;jumps_to_itself;__restore_rt;handle;in_the_handler"), "{folded}");
    Ok(())
}

fn leader() -> Result<()> {
    let target = Running::workload(&workload::c("leader.c", &[])?)?;
    let (folded, _) = recorded(target.pid())?;
    ensure!(folded.contains("work;goes_on"), "{folded}");
    Ok(())
}

fn stripped() -> Result<()> {
    let folder = workload::scratch()?;
    let program = compile(folder.path(), "split.c", "nameless", &["-s"])?;
    let (folded, _) = recorded(Running::workload(&program)?.pid())?;
    let mut names: Vec<&str> = folded.split([';', '\n', ' ']).filter(|name| name.starts_with("[nameless+")).collect();
    names.sort_unstable();
    names.dedup();
    // `_start`, `main`, two functions, and what they call to ask for the time.
    ensure!((3..=6).contains(&names.len()), "{names:?}");
    Ok(())
}

fn copied() -> Result<()> {
    let program = workload::c("copied.c", &["-O2", "-fomit-frame-pointer"])?;
    for again in [None, Some("again")] {
        let target = Running::ready(Command::new(&program).args(again))?;
        let (folded, _) = recorded(target.pid())?;
        ensure!(folded.contains("main;middle;inner_hot"), "{again:?}: {folded}");
        let is_lost = |line: &str| line.contains("inner_hot") && !line.contains("main;middle;inner_hot");
        ensure!(!folded.contains("[anon") && !folded.lines().any(is_lost), "{again:?}: {folded}");
    }
    Ok(())
}

fn vfork() -> Result<()> {
    let target = Running::workload(&workload::c("vforks.c", &["-O2", "-fomit-frame-pointer"])?)?;
    let folded = probe::record_with(&["-p", &target.pid().to_string(), "-e", "off-cpu", "-d", "1"])?;
    let at = |frames: &[String]| {
        frames.iter().position(|frame| ["vfork", "__vfork", "__libc_vfork"].contains(&frame.as_str()))
    };
    let is_whole = |frames: &[String]| {
        at(frames).is_some_and(|at| frames[..at].ends_with(&["main", "serve", "spawn_one"].map(str::to_owned)))
    };
    ensure!(folded.share(is_whole) > 0.2, "{}", folded.show());
    ensure!(folded.share(|frames| at(frames).is_some() && !is_whole(frames)) == 0.0, "{}", folded.show());
    Ok(())
}

/// Until it is known what a child has mapped it has what its parent has.
fn brief() -> Result<()> {
    let program = workload::c("vforks.c", &["-O2", "-fomit-frame-pointer"])?;
    let target = Running::ready(Command::new(program).arg("brief"))?;
    let folded = probe::record_with(&["-p", &target.pid().to_string(), "-d", "3"])?;
    let works = |frames: &[String]| frames.iter().any(|frame| frame == "child_work");
    let is_whole = |frames: &[String]| {
        ["spawn_one", "copy_one"].iter().any(|by| {
            let expected = ["main", "serve", by, "child_work"];
            frames.windows(4).any(|found| found.iter().zip(expected).all(|(frame, name)| frame == name))
        })
    };
    let (all, whole) = (folded.share(works), folded.share(is_whole));
    ensure!(all > 0.1 && whole > 0.99 * all, "{whole:.3} of {all:.3}: {}", folded.show());
    Ok(())
}

/// What node leaves behind.
struct Map(PathBuf);

impl Drop for Map {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn perf_map() -> Result<()> {
    const SCRIPT: &str = "function fibonacci(n) { return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2) }
        fibonacci(25); console.log('ready'); for (;;) fibonacci(30)";
    let mut command = Command::new(require("node")?);
    // It writes a log of its own where it is started.
    let folder = workload::scratch()?;
    command.current_dir(folder.path());
    let target =
        Running::ready(command.args(["--perf-basic-prof", "--interpreted-frames-native-stack", "-e", SCRIPT]))?;
    let _map = Map(PathBuf::from(format!("/tmp/perf-{}.map", target.pid())));
    let (folded, _) = recorded(target.pid())?;
    let count = |line: &str| line.rsplit(' ').next().and_then(|count| count.parse::<u64>().ok()).unwrap_or(0);
    let named: u64 = folded.lines().filter(|line| line.contains("fibonacci")).map(count).sum();
    let all: u64 = folded.lines().map(count).sum();
    ensure!(named * 10 > all * 8, "{named} of {all}:\n{folded}");
    Ok(())
}
