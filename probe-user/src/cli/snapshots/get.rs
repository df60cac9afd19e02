//! `probe snapshots get`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use ulid::Ulid;

use super::Place;
use crate::cli::foreign;
use crate::cli::{print, print_bytes};
use crate::export::{self, Format};
use crate::problem::{Exit, Problem};
use crate::snapshot::{Sidecar, Store, Window};
use crate::symbolize::Profile;
use crate::text::{count, mebibytes};

/// Flags of `probe snapshots get`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The snapshot's id
    id: String,
    #[command(flatten)]
    place: Place,
    /// Print the sidecar as JSON
    #[arg(long, conflicts_with = "output")]
    json: bool,
    /// Write the profile to this file; - is stdout
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The file's format [default: by its name]
    #[arg(short, long, value_enum, requires = "output")]
    format: Option<Format>,
    /// Which profile
    #[arg(long, value_enum, default_value_t = WindowName::Breach, requires = "output")]
    window: WindowName,
    /// Which samples, in the formats that show one unit [default: page-fault for rules on memory, else cpu]
    #[arg(short, long, value_enum, requires = "output")]
    event: Option<EventName>,
}

/// A part of the evidence, by its name on the command line.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum WindowName {
    /// From when the value went above the threshold until the rule was broken
    Breach,
    /// From then on
    After,
    /// A calm stretch, the typical one of those before
    Baseline,
    /// Until the value went above the threshold
    Before,
    /// Every thread in the moment of the breach
    Dump,
    /// Of rules on memory: what was allocated and not freed, in bytes in use
    Live,
}

/// Which samples of a profile, by their name on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum EventName {
    /// On which code CPU time was spent
    Cpu,
    /// Where memory grew
    PageFault,
}

impl EventName {
    /// As the API has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::PageFault => "page-fault",
        }
    }

    /// Whether memory is shown, for [`export::Options`]: as asked for, else what the snapshot is about.
    pub(crate) fn shows_memory(asked: Option<Self>, snapshot: Option<&Sidecar>) -> Option<bool> {
        let about = snapshot.filter(|sidecar| sidecar.metric.is_memory());
        asked.map(|event| event == Self::PageFault).or_else(|| about.map(|_| true))
    }
}

impl From<WindowName> for Window {
    fn from(name: WindowName) -> Self {
        match name {
            WindowName::Breach => Self::Breach,
            WindowName::After => Self::After,
            WindowName::Baseline => Self::Baseline,
            WindowName::Before => Self::Before,
            WindowName::Dump => Self::Dump,
            WindowName::Live => Self::Live,
        }
    }
}

/// Runs `probe snapshots get`.
pub(super) fn run(args: Args) -> Result<()> {
    let Args { id, place, json, output, format, window, event } = args;
    let store = place.open()?;
    let id = store.id_of(&id)?;
    let sidecar = store.sidecar(id)?;
    match output {
        Some(output) => write_profile(&store, &sidecar, (window.into(), event), &output, format),
        None if json => print(&format!("{}\n", serde_json::to_string_pretty(&sidecar)?)),
        None => print(&summary(&sidecar, &store.folder(id))),
    }
}

fn summary(snapshot: &Sidecar, folder: &Path) -> String {
    let Sidecar { process, host, other_threads: others, .. } = snapshot;
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<10}{value}");
    };
    let of = snapshot.function.as_ref().map_or(String::new(), |function| format!(" of {}", function.name));
    line("snapshot", snapshot.id.to_string());
    line("folder", folder.display().to_string());
    line(
        "rule",
        format!(
            "{}: {}{of} {}",
            snapshot.rule,
            snapshot.metric.name(),
            snapshot.metric.compare(snapshot.value, snapshot.side, snapshot.threshold)
        ),
    );
    line("target", format!("{} (pid {}, {})", snapshot.target, process.pid, process.exe));
    line("command", process.cmdline.clone());
    line(snapshot.side.name(), format!("since {}, breached at {}", snapshot.exceeded_at, snapshot.breached_at));
    line("evidence", format!("{} to {}", snapshot.started_at, snapshot.ended_at));
    line(
        "process",
        format!(
            "{:.1} % of one core, {:.1} % of the host, {:.1} MiB resident, {}",
            process.cpu_percent,
            process.cpu_percent_of_host,
            process.rss_bytes as f64 / f64::from(1 << 20),
            count(process.threads, "threads")
        ),
    );
    line(
        "host",
        format!(
            "{} ({}), {} at {:.1} %, Linux {}",
            host.name,
            host.ip,
            count(host.cpus.into(), "cpus"),
            host.cpu_percent,
            host.kernel
        ),
    );
    for thread in &snapshot.threads {
        let (name, tid) = (&thread.name, thread.tid);
        let state = thread.state.map_or_else(String::new, |state| format!(", {} at the breach", state.name()));
        let (samples, percent) = (thread.samples, thread.cpu_percent);
        line("thread", format!("{name} ({tid}): {}, {percent:.1} % of one core{state}", count(samples, "samples")));
    }
    if others.threads > 0 {
        let (before, breach) = (others.before_samples, others.breach_samples);
        line(
            "left out",
            format!(
                "{} with {} before and {breach} during",
                count(others.threads, "threads"),
                count(before, "samples")
            ),
        );
    }
    for culprit in snapshot.culprits.iter().take(5) {
        line("culprit", culprit.sentence());
    }
    if snapshot.culprits.is_empty() && !snapshot.cause().is_empty() {
        line("cause", snapshot.cause());
    }
    if let Some(live) = &snapshot.live {
        let followed = snapshot.ended_at.system().duration_since(live.since.system()).unwrap_or_default().as_secs();
        let interval = live.in_use_interval.map(|interval| interval.map(mebibytes));
        let interval = interval.map_or_else(String::new, |[low, high]| format!(" ({low} to {high})"));
        let (bytes, since, one_in) = (mebibytes(live.in_use_bytes), live.since, live.sample_bytes >> 10);
        let how = format!("one sample in {one_in} KiB, attached {:.1} % of the time", 100.0 * live.attached_share);
        line(
            "live",
            format!(
                "{bytes}{interval} in use of what was allocated since {since} ({followed} s before the end), {how}"
            ),
        );
    }
    for (reason, &lost) in &snapshot.losses {
        line("losses", count(lost, reason));
    }
    text
}

/// Reads a stored profile.
pub(crate) fn stored_profile(store: &Store, id: Ulid, window: Window) -> Result<Profile> {
    let path = store.folder(id).join(window.file());
    export::read(&store.profile(id, window)?, &path.display().to_string())
}

/// Writes a stored profile in any format.
fn write_profile(
    store: &Store,
    sidecar: &Sidecar,
    (window, event): (Window, Option<EventName>),
    output: &Path,
    format: Option<Format>,
) -> Result<()> {
    let is_stdout = output.as_os_str() == "-";
    let format = match format {
        Some(format) => format,
        None if is_stdout => bail!(Problem::new(Exit::Usage, "-o - needs a format", "add -f, for example -f folded")),
        None => Format::from_path(output)?,
    };
    if !sidecar.profiles.is_empty() && !sidecar.profiles.iter().any(|profile| profile.window == window) {
        let windows = sidecar.profiles.iter().map(|profile| profile.window.name()).collect::<Vec<_>>().join(", ");
        let message = format!("the snapshot {} has no window `{}`", sidecar.id, window.name());
        bail!(Problem::new(Exit::Failure, message, format!("it has {windows}; what is lost says why")));
    }
    let profile = stored_profile(store, sidecar.id, window)?;
    let title = format!("{}: {} {}, {}", sidecar.target, sidecar.rule, sidecar.breached_at, window.name());
    let memory = EventName::shows_memory(event, Some(sidecar));
    let options = export::Options { threads: true, memory, title: Some(title), ..export::Options::default() };
    let mut bytes = Vec::new();
    export::write(&profile, format, &options, &mut bytes)?;
    if is_stdout {
        return print_bytes(&bytes);
    }
    foreign::write(output, &bytes).with_context(|| format!("cannot write {}", output.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::tests::sidecar;
    use crate::snapshot::{Limits, Profiles};

    #[test]
    fn the_summary_says_who_and_what_is_missing() {
        let text = summary(&sidecar(Ulid::from_parts(1_700_000_035_000, 7)), Path::new("/store/X"));
        for part in [
            "rule      checkout-cpu: cpu 97.5 above 80 percent of one core",
            "thread    matcher (43): 180 samples, 94.7 % of one core",
            "left out  8 threads with 11 samples before and 3 during",
            "culprit   match_rules went from 0 % to 88 % of the process",
            "losses    2 ring buffer full",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }

    #[test]
    fn a_stored_profile_is_written_in_every_format() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(&folder.path().join("store"), Limits::default()).expect("opens");
        let mut breach = Vec::new();
        let profile = crate::daemon::tests::profile(7, 10, &[("matcher", "match_rules", 880), ("main", "serve", 20)]);
        export::write(&profile, Format::Pprof, &export::Options::default(), &mut breach).expect("written");
        let kept = sidecar(Ulid::from_parts(1_700_000_035_000, 7));
        store.put(&kept, &Profiles { before: breach.clone(), breach, ..Profiles::default() }).expect("stored");
        for format in Format::ALL {
            let output = folder.path().join(format!("out{}", format.extension()));
            write_profile(&store, &kept, (Window::Breach, None), &output, None).expect("written");
            let bytes = std::fs::read(&output).expect("there");
            let names = |bytes: &[u8]| String::from_utf8_lossy(bytes).contains("match_rules");
            let is_packed = matches!(format, Format::Pprof | Format::Html);
            assert!(!bytes.is_empty() && (is_packed || names(&bytes)), "{format:?}");
        }
        let folded = std::fs::read_to_string(folder.path().join("out.folded")).expect("there");
        assert!(folded.contains("app;matcher-7;match_rules 880\n"), "{folded}");
        assert!(write_profile(&store, &kept, (Window::Breach, None), Path::new("-"), None).is_err());
    }
}
