//! Processes that begin and end while they are recorded.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use probe_tests::folded::Folded;
use probe_tests::running::Running;
use probe_tests::trial::trial;
use probe_tests::{poll, probe, workload};

pub fn tests() -> Vec<Trial> {
    vec![
        trial("lifetime::a_process_that_exits_while_it_is_recorded_keeps_its_names", exits),
        trial("lifetime::a_command_is_recorded_from_its_start_to_its_end", command),
        trial("lifetime::children_of_a_command_are_recorded", children),
        trial("lifetime::short_lived_processes_keep_their_names", short_lived),
        trial("lifetime::children_that_run_already_are_recorded", children_before),
        trial("lifetime::a_process_that_nobody_waits_for_ends_the_recording", zombie),
        trial("lifetime::a_command_is_ended_with_the_recording", command_ends),
        trial("lifetime::a_profile_on_stdout_is_not_mixed_with_the_output_of_the_command", stdout),
        trial("lifetime::whoever_quits_leaves_nothing_behind", quit),
        trial("lifetime::the_exit_code_and_output_of_a_command_are_its_own", output_of_command),
        trial("lifetime::an_interrupt_ends_the_recording_and_writes_it", interrupt),
    ]
}

fn exits() -> Result<()> {
    let target = Running::ready(Command::new(workload::c("short.c", &[])?).arg("1500"))?;
    probe::record(target.pid(), 6, &[])?.expect("short_work", 0.95)
}

fn record_command(arguments: &[&str]) -> Result<Folded> {
    let short = workload::c("short.c", &[])?;
    let mut command = vec!["-F", "199", "--", short.to_str().context("a readable path")?];
    command.extend(arguments);
    probe::record_with(&command)
}

fn command() -> Result<()> {
    let begun = Instant::now();
    let folded = record_command(&["700"])?;
    ensure!(begun.elapsed() < Duration::from_secs(20), "the recording does not end with the command");
    folded.expect("short_work", 0.8)?;
    // 0.7 s of processor time at 199 samples a second.
    let samples = folded.total();
    ensure!((120..=160).contains(&samples), "{samples} samples instead of about 139:\n{}", folded.show());
    Ok(())
}

fn children() -> Result<()> {
    let folded = record_command(&["700", "fork"])?;
    folded.expect("child_work", 0.9)?;
    let samples = folded.total();
    ensure!((240..=320).contains(&samples), "{samples} samples of two children instead of about 279");
    Ok(())
}

fn children_before() -> Result<()> {
    let child = workload::c("short.c", &[])?;
    let script = format!("{} 60000 & wait", child.display());
    // The child says that it is ready, so it runs when the recording begins.
    let parent = Running::ready(Command::new("sh").args(["-c", &script]))?;
    probe::record(parent.pid(), 2, &[])?.expect("short_work", 0.95)
}

fn zombie() -> Result<()> {
    let begun = Instant::now();
    let child = workload::c("short.c", &[])?;
    // `exec` leaves a parent that never asks for its child.
    let script = format!("{} 3000 & exec sleep 60", child.display());
    let parent = Running::ready(Command::new("sh").args(["-c", &script]))?;
    probe::record(parent.descendant("short")?, 40, &[])?.expect("short_work", 0.95)?;
    ensure!(begun.elapsed() < Duration::from_secs(30), "the recording does not end with the process");
    Ok(())
}

fn command_ends() -> Result<()> {
    let folder = workload::scratch()?;
    let pid = folder.path().join("pid");
    let script = format!("echo $$ > {}; while :; do :; done", pid.display());
    probe::record_with(&["-d", "1", "--", "sh", "-c", &script])?;
    let pid = std::fs::read_to_string(&pid)?;
    ensure!(!std::path::Path::new(&format!("/proc/{}", pid.trim())).exists(), "the command still runs");
    Ok(())
}

fn stdout() -> Result<()> {
    let script = "echo to-stdout; i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
    let output = probe::run(["record", "-F", "199", "-o", "-", "--", "sh", "-c", script])?.expect(0)?;
    ensure!(!output.stdout.contains("to-stdout"), "{output:#?}");
    Folded::parse(&output.stdout)?;
    output.expect_stderr("to-stdout")?;
    Ok(())
}

fn quit() -> Result<()> {
    let folder = workload::scratch()?;
    let pid = folder.path().join("pid");
    let script = format!("echo $$ > {}; while :; do :; done", pid.display());
    let mut command = Command::new(probe::binary());
    command.args(["record", "-o"]).arg(folder.path().join("out.svg")).args(["--", "sh", "-c", &script]);
    let mut recording = Running::start(command.stderr(Stdio::null()))?;
    poll::until("the command", Duration::from_secs(20), || std::fs::metadata(&pid).ok().filter(|pid| pid.len() > 1))?;
    recording.signal("INT")?;
    recording.signal("TERM")?;
    let status = recording.wait(Duration::from_secs(15))?;
    ensure!(status.code() == Some(130), "ended with {status}");
    ensure!(std::fs::read_dir(folder.path())?.count() == 1, "a file is left");
    let command = format!("/proc/{}/stat", std::fs::read_to_string(&pid)?.trim());
    poll::until("the end of the command", Duration::from_secs(5), || match std::fs::read_to_string(&command) {
        Ok(stat) if !stat.contains(") Z ") => None,
        _ => Some(()),
    })
}

fn output_of_command() -> Result<()> {
    let folder = workload::scratch()?;
    let file = folder.path().join("out.folded");
    let file = file.to_str().context("a readable path")?;
    let script = "echo to-stdout; i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
    let output = probe::run(["record", "-F", "199", "-o", file, "--", "sh", "-c", script])?.expect(0)?;
    ensure!(output.stdout == "to-stdout\n", "{output:#?}");
    Ok(())
}

fn interrupt() -> Result<()> {
    let target = Running::workload(&workload::c("split.c", &[])?)?;
    let folder = workload::scratch()?;
    let file = folder.path().join("out.folded");
    let pid = target.pid().to_string();
    let mut command = Command::new(probe::binary());
    command.args(["record", "-p", &pid, "-F", "199", "-d", "50", "-o"]).arg(&file);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut recording = Running::start(&mut command)?;
    // It must have taken samples; how long it takes to begin is not known from outside.
    let begun = Instant::now();
    poll::until("three seconds", Duration::from_secs(5), || (begun.elapsed().as_secs() >= 3).then_some(()))?;
    recording.signal("INT")?;
    let status = recording.wait(Duration::from_secs(15))?;
    ensure!(status.success(), "ended with {status}");
    Folded::parse(&std::fs::read_to_string(&file)?)?.expect("takes_three_quarters", 0.5)
}

/// A thousand processes of a millisecond each: most are gone before anything of them can be read.
fn short_lived() -> Result<()> {
    let script = "i=0; while [ $i -lt 1000 ]; do /bin/true; i=$((i+1)); done";
    let folded = probe::record_with(&["-F", "999", "--", "sh", "-c", script])?;
    let nowhere = folded.share(|frames| frames.iter().any(|frame| frame.starts_with("[unknown+")));
    ensure!(nowhere <= 0.02, "{nowhere:.3} of the samples are in no known file:\n{}", folded.show());
    Ok(())
}
