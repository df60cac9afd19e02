//! How long a dump holds the target up: a thread of it does nothing but read the clock, and reports its longest gaps.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::super::workload::Told;
use super::dumpers::{Dumper, Kind};

/// What the thread has seen, in microseconds.
#[derive(Clone, Copy)]
pub struct Gaps {
    pub longest: f64,
    /// The longest in 999 of 1,000 milliseconds.
    pub permille: f64,
}

/// Where things run.
#[derive(Clone, Copy)]
pub struct Places {
    /// The CPU of the thread that reads the clock; `None` is where the scheduler likes.
    pub reader: Option<usize>,
    /// The CPU of who dumps.
    pub dumper: Option<usize>,
    /// How nice the thread is that reads the clock.
    pub nice: i32,
}

/// How often each is measured.
#[derive(Clone, Copy)]
pub struct Times {
    pub own: u32,
    /// Those who stop the process need longer.
    pub peers: u32,
}

/// Prints a line for each condition; returns the gaps during dumps of another process, and of this one, by `probe`.
pub fn run(
    binary: &Path,
    threads: u32,
    places: Places,
    times: Times,
    dumpers: &[Dumper],
    another: u32,
) -> Result<(Gaps, Gaps)> {
    let cpu = places.reader.map_or_else(|| "-1".into(), |cpu| cpu.to_string());
    let mut target = Told::start(Command::new(binary).args([&threads.to_string(), &cpu, &places.nice.to_string()]))?;
    println!(
        "  {:<28} {:>7} {:>10} {:>12} {:>12} {:>12}",
        "", "dumps", "seconds", "longest us", "99.9 % us", "us in a s"
    );
    let pid = target.pid();
    let probe = dumpers.iter().find(|dumper| dumper.kind == Kind::Probe).context("probe is one of them")?;
    let dump = |dumper: &Dumper, pid, count| -> Result<()> {
        (0..count).try_for_each(|_| dumper.dump(pid, places.dumper).map(drop))
    };
    let began = Instant::now();
    let elsewhere = during(&mut target, "probe, of another process", times.own, || dump(probe, another, times.own))?;
    let as_long = began.elapsed().max(Duration::from_secs(1));
    during(&mut target, "nobody", 0, || {
        std::thread::sleep(as_long);
        Ok(())
    })?;
    let here = during(&mut target, "probe", times.own, || dump(probe, pid, times.own))?;
    for dumper in dumpers.iter().filter(|dumper| dumper.kind != Kind::Probe) {
        if let Err(error) = during(&mut target, dumper.name, times.peers, || dump(dumper, pid, times.peers)) {
            eprintln!("xtask: {}: {error:#}", dumper.name);
        }
    }
    Ok((elsewhere, here))
}

fn during(target: &mut Told, name: &str, count: u32, what: impl FnOnce() -> Result<()>) -> Result<Gaps> {
    target.tell()?;
    let began = Instant::now();
    let done = what();
    let elapsed = began.elapsed();
    target.tell()?;
    let [longest, permille, sum] = target.numbers()?;
    done?;
    let seconds = elapsed.as_secs_f64();
    println!("  {name:<28} {count:>7} {seconds:>10.1} {longest:>12.0} {permille:>12.0} {sum:>12.0}");
    Ok(Gaps { longest, permille })
}
