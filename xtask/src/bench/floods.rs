//! `cargo xtask bench floods`: what `probe` takes while programs start, replace and map things all the time, as a daemon and as
//! a recording of the whole host; next to `perf record -a`, and to `execsnoop`, which follows programs and nothing else.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::daemon::usage;
use super::recording::{self, Recording};
use super::{procfs, statistics, tools, workload};
use crate::shell;

/// Flags of `cargo xtask bench floods`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Seconds over which each is measured
    #[arg(long, default_value_t = 10)]
    seconds: u32,
    /// Measure this `probe` instead of building one
    #[arg(long, value_name = "PATH")]
    probe: Option<PathBuf>,
    /// Install nothing
    #[arg(long)]
    no_install: bool,
}

/// What `probe` wants of itself as a daemon, in percent of one core.
const MOST_CPU: f64 = 2.0;
/// What is done once, such as reading symbols, is not measured. A flood has its full allowance at first.
const SETTLE: Duration = Duration::from_secs(8);

/// A flood: what it is called, its arguments (`FOLDER` is one of its own), and whether the daemon watches it.
struct Flood {
    name: &'static str,
    arguments: &'static [&'static str],
    is_watched: bool,
}

const FLOODS: [Flood; 6] = [
    Flood { name: "nothing", arguments: &[], is_watched: true },
    Flood { name: "1,600 forks a second", arguments: &["forks", "1600"], is_watched: true },
    Flood { name: "640 children that exec", arguments: &["execs", "640"], is_watched: true },
    Flood { name: "640 execs of one process", arguments: &["self", "640"], is_watched: true },
    Flood { name: "640 execs of strangers", arguments: &["execs", "640", "/bin/true"], is_watched: false },
    Flood { name: "1,000 files mapped a second", arguments: &["maps", "1000", "FOLDER"], is_watched: true },
];

/// Runs `cargo xtask bench floods`.
pub fn run(args: &Args) -> Result<()> {
    ensure!(shell::is_root(), "the daemon needs root: run this command as root");
    if !args.no_install {
        shell::install_missing(&[("gcc", "gcc")]);
    }
    let probe = args.probe.clone().map_or_else(shell::build_probe, Ok)?;
    let perf = tools::debian("perf", "linux-perf", !args.no_install);
    let execsnoop = tools::debian("execsnoop", "libbpf-tools", !args.no_install);
    let folder = recording::folder()?.join("floods");
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error).context("the old files stay"),
        _ => fs::create_dir_all(folder.join("files"))?,
    }
    let binary = folder.join("flood");
    let source = shell::checkout().join("tests/workloads/floods.c");
    shell::run(Command::new("gcc").args(["-O1", "-g", "-o"]).arg(&binary).arg(source))?;
    let measuring = statistics::Enabled::new()?.cost()?;
    println!(
        "{}; {} s each; load average {}. Percent of one core: processes + programs in the kernel, without the {:.0} ns by which \
         the kernel's statistics make each run of a program longer.\n",
        statistics::host(),
        args.seconds,
        usage::load_average(),
        1e9 * measuring
    );
    println!("| | daemon | `record -a` | `perf record -a -g` | execsnoop |\n| --- | --- | --- | --- | --- |");
    let mut missed = Vec::new();
    for flood in &FLOODS {
        let _running = flood.start(&binary, &folder)?;
        let mut daemon = Command::new(&probe);
        daemon.args(["daemon", "--config"]).arg(configuration(&folder, flood.is_watched, &binary)?);
        let taken = take("probe daemon", daemon, args.seconds, measuring)?;
        if taken.0 + taken.1 > MOST_CPU {
            missed.push(flood.name);
        }
        let mut row = format!("| {} | {}", flood.name, shown(taken));
        let limit = (args.seconds + 60).to_string();
        let mut record = Command::new(&probe);
        record.args(["record", "-a", "-d", &limit, "-o"]).arg(folder.join("out.folded"));
        row += &format!(" | {}", shown(take("probe record", record, args.seconds, measuring)?));
        let mut others = Vec::new();
        if let Ok(perf) = &perf {
            let mut record = Command::new(perf);
            record.args(["record", "-q", "-a", "-g", "-F", "99", "-e", "cpu-clock", "-o"]);
            record.arg(folder.join("perf.data")).args(["--", "sleep", &limit]);
            others.push(Some(("perf record", record)));
        } else {
            others.push(None);
        }
        others.push(execsnoop.as_ref().ok().map(|path| ("execsnoop", tools::with_tracepoints(path))));
        for other in others {
            match other {
                Some((name, command)) => row += &format!(" | {}", shown(take(name, command, args.seconds, measuring)?)),
                None => row += " | not there",
            }
        }
        println!("{row} |");
    }
    println!();
    for name in &missed {
        println!("MISSED: the daemon takes more than {MOST_CPU} % while there is: {name}");
    }
    Ok(())
}

impl Flood {
    fn start(&self, binary: &Path, folder: &Path) -> Result<Option<workload::Running>> {
        if self.arguments.is_empty() {
            return Ok(None);
        }
        let files = folder.join("files");
        let mut command = Command::new(binary);
        for argument in self.arguments {
            match *argument {
                "FOLDER" => command.arg(&files),
                argument => command.arg(argument),
            };
        }
        workload::ready(&mut command).map(Some)
    }
}

/// A daemon's configuration: its target is the flood, or what is not there.
fn configuration(folder: &Path, is_watched: bool, binary: &Path) -> Result<PathBuf> {
    let (file, place) = (folder.join("probe.toml"), folder.display());
    let exe = if is_watched { binary.display().to_string() } else { format!("{place}/nothing") };
    let text = format!(
        "[store]\npath = '{place}/store'\n[serve]\nlisten = '127.0.0.1:0'\nstate = '{place}/state'\n\
         [limits]\ncpu = 100\n\
         [[target]]\nname = 'flood'\nmatch = {{ exe = '{exe}' }}\n\
         [[rule]]\nname = 'cpu'\ntarget = 'flood'\nmetric = 'cpu'\nabove = 100000\n"
    );
    fs::write(&file, text).context("cannot write the daemon's configuration")?;
    Ok(file)
}

/// What a command takes while it runs: its processes, and their programs in the kernel; in percent of one core. First the
/// processes, and then, for as long, the programs: the kernel's statistics take time themselves, which nobody pays who does not
/// measure, and which is taken off (`measuring`, in seconds for each run).
fn take(name: &str, command: Command, seconds: u32, measuring: f64) -> Result<(f64, f64)> {
    let recording = Recording::start(name, command)?;
    std::thread::sleep(SETTLE);
    let processes = || usage::processes(recording.pid());
    let cpu = share_of_time(seconds, || processes().into_iter().filter_map(procfs::cpu_seconds).sum());
    let statistics = statistics::Enabled::new()?;
    let run_s = |pid| {
        let procfs::Programs { run_ns, runs } = procfs::all_programs(pid);
        run_ns as f64 / 1e9 - runs as f64 * measuring
    };
    let programs = share_of_time(seconds, || processes().into_iter().map(run_s).sum());
    drop(statistics);
    ensure!(!processes().is_empty() && (cpu > 0.0 || programs > 0.0), "{name} has ended");
    // As a user does; what it says at the end is nobody's matter, and some end by the signal.
    recording.interrupt()?;
    let _ = recording.finish(Duration::from_secs(90), |_| {});
    Ok((100.0 * cpu, 100.0 * programs))
}

/// By how much a number of seconds grows in a second.
fn share_of_time(seconds: u32, now: impl Fn() -> f64) -> f64 {
    let (before, began) = (now(), Instant::now());
    std::thread::sleep(Duration::from_secs(seconds.into()));
    (now() - before) / began.elapsed().as_secs_f64()
}

fn shown((process, programs): (f64, f64)) -> String {
    format!("{:.1} ({process:.1} + {programs:.1})", process + programs)
}
