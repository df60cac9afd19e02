//! `cargo xtask bench daemon`: what `probe daemon` takes of a host with 500 processes and 5,000 threads as its targets, 20
//! rules and 50 functions: processor time of all its processes and of its programs in the kernel, memory with that of its
//! maps, and how long after a breach's last window the snapshot is on the disk.

mod breach;
mod configuration;
pub(super) mod usage;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use self::usage::Usage;
use super::recording::{self, Recording};
use super::workload::{self, Told};
use super::{procfs, statistics};
use crate::shell;

/// Flags of `cargo xtask bench daemon`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Processes that are watched
    #[arg(long, default_value_t = 500)]
    processes: u32,
    /// Threads of each process
    #[arg(long, default_value_t = 10)]
    threads: u32,
    /// Seconds over which the daemon is measured while nothing breaks
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Breaches
    #[arg(long, default_value_t = 5)]
    breaches: u32,
    /// Record where the daemon's processor time goes, by another `probe` after it was measured
    #[arg(long)]
    profile: bool,
    /// Install nothing
    #[arg(long)]
    no_install: bool,
}

/// What `probe` wants of itself: processor time in percent of one core, memory, and the time to a snapshot.
const MOST_CPU: f64 = 2.0;
const MOST_MEMORY: u64 = 150 << 20;
const LONGEST: Duration = Duration::from_secs(2);

/// Symbols are read, tables made and probes set in this time; what is done once is no steady cost.
const SETTLE: Duration = Duration::from_secs(20);

/// Runs `cargo xtask bench daemon`.
pub fn run(args: &Args) -> Result<()> {
    ensure!(shell::is_root(), "the daemon needs root: run this command as root");
    ensure!(args.seconds >= 10 && args.breaches > 0, "at least ten seconds, and one breach");
    if !args.no_install {
        shell::install_missing(&[("gcc", "gcc"), ("bpftool", "bpftool")]);
    }
    let probe = shell::build_probe()?;
    let binary = workload::compile("services", false)?;
    let folder = recording::folder()?.join("daemon");
    fs::create_dir_all(&folder)?;
    let store = folder.join("store");
    match fs::remove_dir_all(&store) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error).context("the old store stays"),
        _ => {}
    }
    let config = folder.join("probe.toml");
    fs::write(&config, configuration::text(&folder)).context("cannot write the daemon's configuration")?;

    let limit = SETTLE + Duration::from_secs(u64::from(args.seconds + 30 * args.breaches + 120));
    let numbers = [args.processes, args.threads, limit.as_secs() as u32].map(|number| number.to_string());
    let mut services = Told::start(Command::new(&binary).args(&numbers))?;
    let _statistics = statistics::Enabled::new()?;
    let mut command = Command::new(&probe);
    command.args(["daemon", "--config"]).arg(&config);
    let mut daemon = Recording::start("probe daemon", command)?;
    let begins = |pid| usage::processes(pid).iter().any(|pid| procfs::perf_programs(*pid).runs > 0);
    daemon.wait_until(Duration::from_secs(20), begins).context("probe daemon")?;
    std::thread::sleep(SETTLE);

    println!(
        "{}; {} processes of {} threads, {} rules, {} functions in {} processes; load average {}.",
        statistics::host(),
        args.processes,
        args.threads,
        configuration::RULES,
        configuration::FUNCTIONS,
        configuration::FRONT,
        usage::load_average()
    );
    let mut verdicts = measure(&daemon, args.seconds)?;
    if args.profile {
        profile(&probe, daemon.pid(), &folder)?;
    }
    let mut late = Vec::new();
    for _ in 0..args.breaches {
        late.push(breach::run(&mut services, &store)?);
    }
    let shown: Vec<String> = late.iter().map(|late| format!("{:.2}", late.as_secs_f64())).collect();
    println!("\nFrom the end of a breach's last window to its stored snapshot, in seconds: {}", shown.join(", "));
    let longest = late.into_iter().max().unwrap_or_default();
    verdicts.push((
        format!("{:.2} s to the stored snapshot, of {} s at most", longest.as_secs_f64(), LONGEST.as_secs()),
        longest < LONGEST,
    ));
    end(daemon)?;
    println!("\nTargets");
    for (what, is_met) in verdicts {
        println!("  {} {what}", if is_met { "met:   " } else { "MISSED:" });
    }
    Ok(())
}

/// What the daemon takes while nothing breaks.
fn measure(daemon: &Recording, seconds: u32) -> Result<Vec<(String, bool)>> {
    let (before, programs, began) = (usage::of(daemon.pid())?, usage::programs(daemon.pid()), Instant::now());
    std::thread::sleep(Duration::from_secs(u64::from(seconds)));
    let (after, elapsed) = (usage::of(daemon.pid())?, began.elapsed().as_secs_f64());
    println!("\nOver {seconds} s: percent of one core, and memory in MiB; load average {}", usage::load_average());
    println!("  {:<18} {:>8} {:>10} {:>10} {:>10}", "", "process", "programs", "resident", "maps");
    let mib = |bytes: u64| bytes as f64 / 1_048_576.0;
    let mut sum = Usage::default();
    for now in &after {
        let earlier = before.iter().find(|earlier| earlier.pid == now.pid).context("one of it was started anew")?;
        let (cpu, programs) = ((now.cpu - earlier.cpu) / elapsed, (now.programs - earlier.programs) / elapsed);
        println!(
            "  {:<18} {:>8.2} {:>10.2} {:>10.1} {:>10.1}",
            now.name,
            100.0 * cpu,
            100.0 * programs,
            mib(now.resident),
            mib(now.maps)
        );
        sum.cpu += cpu;
        sum.programs += programs;
        sum.resident += now.resident;
        sum.maps += now.maps;
    }
    println!("  of the programs:");
    let earlier: BTreeMap<u64, f64> = programs.into_iter().collect();
    for (id, seconds) in usage::programs(daemon.pid()) {
        let share = 100.0 * (seconds - earlier.get(&id).copied().unwrap_or_default()) / began.elapsed().as_secs_f64();
        if share >= 0.05 {
            println!("    {:<16} {share:>18.2}", usage::name_of(id));
        }
    }
    let (cpu, memory) = (100.0 * (sum.cpu + sum.programs), sum.resident + sum.maps);
    let (process, programs) = (100.0 * sum.cpu, 100.0 * sum.programs);
    println!("  {:<18} {process:>8.2} {programs:>10.2} {:>10.1} {:>10.1}", "all", mib(sum.resident), mib(sum.maps));
    Ok(vec![
        (format!("{cpu:.2} % of one core, of {MOST_CPU} % at most"), cpu < MOST_CPU),
        (format!("{:.1} MiB, of {:.0} MiB at most", mib(memory), mib(MOST_MEMORY)), memory < MOST_MEMORY),
    ])
}

/// Where the collector's processor time goes.
fn profile(probe: &Path, daemon: u32, folder: &Path) -> Result<()> {
    let all = usage::of(daemon)?;
    let busiest = all.iter().max_by(|one, other| one.cpu.total_cmp(&other.cpu)).context("the daemon has processes")?;
    let output = folder.join("collector.folded");
    let mut record = Command::new(probe);
    record.args(["record", "-p", &busiest.pid.to_string(), "-d", "30", "-F", "997", "-o"]).arg(&output);
    shell::run(&mut record)?;
    println!("\nThe profile of {} is {}", busiest.name, output.display());
    Ok(())
}

/// Ends the daemon as a service manager does, and waits for that.
fn end(daemon: Recording) -> Result<()> {
    shell::run(Command::new("kill").args(["-TERM", &daemon.pid().to_string()]))?;
    daemon.finish(Duration::from_secs(900), |_| {}).context("probe daemon")?;
    Ok(())
}
