//! `probe snapshots`: what is in the store.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use ulid::Ulid;

use super::config::Source;
use super::print;
use crate::export::{self, Format};
use crate::problem::{Exit, Problem};
use crate::snapshot::{Listing, Sidecar, Store, Window};
use crate::symbolize::Profile;

/// Flags of `probe snapshots`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List the snapshots, newest first
    Ls {
        #[command(flatten)]
        place: Place,
        /// Print the sidecars as a JSON list
        #[arg(long)]
        json: bool,
    },
    /// Show a snapshot, or write one of its profiles to a file
    Get {
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
    },
    /// Remove snapshots
    Rm {
        /// Their ids
        #[arg(required = true, value_name = "ID")]
        ids: Vec<String>,
        #[command(flatten)]
        place: Place,
    },
}

/// Where the store is.
#[derive(Debug, clap::Args)]
pub(super) struct Place {
    #[command(flatten)]
    source: Source,
    /// The folder of the snapshots, instead of the configured one
    #[arg(long, value_name = "PATH")]
    store: Option<PathBuf>,
}

impl Place {
    /// Opens it for looking and removing.
    pub(super) fn open(self) -> Result<Store> {
        let store = self.source.load(self.store)?.store;
        Ok(Store::read(&store.path, store.limits))
    }
}

/// A part of the evidence, by its name on the command line.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(super) enum WindowName {
    /// From when the value went above the threshold
    Breach,
    /// Until then
    Before,
    /// Every thread in the moment of the breach
    Dump,
}

/// Which samples of a profile, by their name on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum EventName {
    /// On which code CPU time was spent
    Cpu,
    /// Where memory grew
    PageFault,
}

impl EventName {
    /// Whether memory is shown, for [`export::Options`]: as asked for, else what the snapshot is about.
    pub(super) fn shows_memory(asked: Option<Self>, snapshot: Option<&Sidecar>) -> Option<bool> {
        let about = snapshot.filter(|sidecar| sidecar.metric.is_memory());
        asked.map(|event| event == Self::PageFault).or_else(|| about.map(|_| true))
    }
}

impl From<WindowName> for Window {
    fn from(name: WindowName) -> Self {
        match name {
            WindowName::Breach => Self::Breach,
            WindowName::Before => Self::Before,
            WindowName::Dump => Self::Dump,
        }
    }
}

/// Runs `probe snapshots`.
pub fn run(args: Args) -> Result<ExitCode> {
    match args.command {
        Command::Ls { place, json } => list(&place.open()?, json)?,
        Command::Get { id, place, json, output, format, window, event } => {
            let (store, id) = (place.open()?, parse_id(&id)?);
            let sidecar = store.get(id)?;
            match output {
                Some(output) => {
                    write_profile(&store, &sidecar, (window.into(), event), &output, format)?;
                }
                None if json => print(&format!("{}\n", serde_json::to_string_pretty(&sidecar)?))?,
                None => print(&summary(&sidecar, &store.folder(id)))?,
            }
        }
        Command::Rm { ids, place } => {
            let store = place.open()?;
            let ids = ids.iter().map(|id| parse_id(id)).collect::<Result<Vec<_>>>()?;
            for id in ids {
                store.remove(id)?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn parse_id(text: &str) -> Result<Ulid> {
    Ulid::from_string(text).map_err(|_| {
        let message = format!("`{}` is not the id of a snapshot", crate::text::sanitize(text));
        Problem::new(Exit::Usage, message, "ids have 26 letters and digits; `probe snapshots ls` lists them").into()
    })
}

fn list(store: &Store, json: bool) -> Result<()> {
    let Listing { snapshots, damaged } = store.list()?;
    for (path, reason) in &damaged {
        tracing::debug!("{}: {reason}", path.display());
    }
    if !damaged.is_empty() {
        tracing::warn!(
            "{} damaged snapshots in {} are not listed; -v names them",
            damaged.len(),
            store.path().display()
        );
    }
    if json {
        return print(&format!("{}\n", serde_json::to_string_pretty(&snapshots)?));
    }
    print(&table(&snapshots))
}

fn table(snapshots: &[Sidecar]) -> String {
    let mut rows = vec![["ID", "TIME", "TARGET", "RULE", "VALUE", "TOP CULPRIT"].map(str::to_owned)];
    for snapshot in snapshots {
        let culprit = snapshot.culprits.first();
        rows.push([
            snapshot.id.to_string(),
            humantime::format_rfc3339_seconds(snapshot.breached_at.system()).to_string(),
            snapshot.target.clone(),
            snapshot.rule.clone(),
            format!("{} {}", snapshot.metric.name(), snapshot.metric.show(snapshot.value)),
            culprit.map_or("-".to_owned(), |culprit| format!("{} {:.0} %", culprit.function, culprit.share)),
        ]);
    }
    let mut widths = [0; 6];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        let _ = writeln!(text, "{}", cells.join("  ").trim_end());
    }
    text
}

fn summary(snapshot: &Sidecar, folder: &std::path::Path) -> String {
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
            "{:.1} % of one core, {:.1} % of the host, {:.1} MiB resident, {} threads",
            process.cpu_percent,
            process.cpu_percent_of_host,
            process.rss_bytes as f64 / f64::from(1 << 20),
            process.threads
        ),
    );
    line(
        "host",
        format!("{} ({}), {} cpus at {:.1} %, Linux {}", host.name, host.ip, host.cpus, host.cpu_percent, host.kernel),
    );
    for thread in &snapshot.threads {
        let (name, tid) = (&thread.name, thread.tid);
        let state = thread.state.map_or_else(String::new, |state| format!(", {} at the breach", state.name()));
        let (samples, percent) = (thread.samples, thread.cpu_percent);
        line("thread", format!("{name} ({tid}): {samples} samples, {percent:.1} % of one core{state}"));
    }
    if others.threads > 0 {
        let (before, breach) = (others.before_samples, others.breach_samples);
        line("left out", format!("{} threads with {before} samples before and {breach} during", others.threads));
    }
    for culprit in snapshot.culprits.iter().take(5) {
        line("culprit", culprit.sentence());
    }
    for (reason, count) in &snapshot.losses {
        line("lost", format!("{count}: {reason}"));
    }
    text
}

/// Reads a stored profile.
pub(super) fn stored_profile(store: &Store, id: Ulid, window: Window) -> Result<Profile> {
    let path = store.folder(id).join(window.file());
    export::read(&store.profile(id, window)?, &path.display().to_string())
}

/// Writes a stored profile in any format.
fn write_profile(
    store: &Store,
    sidecar: &Sidecar,
    (window, event): (Window, Option<EventName>),
    output: &std::path::Path,
    format: Option<Format>,
) -> Result<()> {
    let is_stdout = output.as_os_str() == "-";
    let format = match format {
        Some(format) => format,
        None if is_stdout => bail!(Problem::new(Exit::Usage, "-o - needs a format", "add -f, for example -f folded")),
        None => Format::from_path(output)?,
    };
    let profile = stored_profile(store, sidecar.id, window)?;
    let title = format!("{}: {} {}, {}", sidecar.target, sidecar.rule, sidecar.breached_at, window.name());
    let memory = EventName::shows_memory(event, Some(sidecar));
    let options = export::Options { threads: true, memory, title: Some(title), ..export::Options::default() };
    let mut bytes = Vec::new();
    export::write(&profile, format, &options, &mut bytes)?;
    if is_stdout {
        return super::print_bytes(&bytes);
    }
    std::fs::write(output, &bytes).with_context(|| format!("cannot write {}", output.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::tests::sidecar;
    use crate::snapshot::{Limits, Profiles};

    #[test]
    fn the_table_has_a_line_for_each_snapshot() {
        let text = table(&[sidecar(Ulid::from_parts(1_700_000_035_000, 7))]);
        let expected = "\
ID                          TIME                  TARGET    RULE          VALUE     TOP CULPRIT
01HF7YBW5R0000000000000007  2023-11-14T22:13:55Z  checkout  checkout-cpu  cpu 97.5  match_rules 88 %
";
        assert_eq!(text, expected);
    }

    #[test]
    fn the_summary_says_who_and_what_is_missing() {
        let text = summary(&sidecar(Ulid::from_parts(1_700_000_035_000, 7)), std::path::Path::new("/store/X"));
        for part in [
            "rule      checkout-cpu: cpu 97.5 above 80 percent of one core",
            "thread    matcher (43): 180 samples, 94.7 % of one core",
            "left out  8 threads with 11 samples before and 3 during",
            "culprit   match_rules went from 0 % to 88 % of the process",
            "lost      2: ring buffer full",
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
        assert!(write_profile(&store, &kept, (Window::Breach, None), std::path::Path::new("-"), None).is_err());
    }

    #[test]
    fn what_is_no_id_is_a_usage_error() {
        let error = parse_id("../../etc").expect_err("no id");
        assert_eq!(error.downcast_ref::<Problem>().map(|problem| problem.exit), Some(Exit::Usage));
    }
}
