//! The log, on standard error: for people, for the journal of systemd, or one JSON object a line.

use std::fmt;
use std::io::IsTerminal as _;
use std::os::unix::fs::MetadataExt as _;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{Format, Full, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::config;

/// The flags that say how much is told; commands that start others hand them on.
#[derive(Clone, Copy, Debug)]
pub struct Verbosity {
    /// How often `-v` was given.
    pub verbose: u8,
    /// Whether `-q` was.
    pub quiet: bool,
    /// Whether what people read is coloured.
    pub color: bool,
}

impl Verbosity {
    /// Starts the log of a command that people wait for.
    pub fn start(self) {
        let filter = self.filter("warn");
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(self.color).init();
    }

    /// Starts the log of a process that runs unwatched. Each line says which one it is from.
    pub fn start_service(self, log: config::Log, process: &'static str) {
        let level = match log.level {
            Level::DEBUG => "info,probe=debug".to_owned(),
            Level::TRACE => "debug,probe=trace".to_owned(),
            level => level.as_str().to_ascii_lowercase(),
        };
        let subscriber = tracing_subscriber::fmt().with_env_filter(self.filter(&level)).with_writer(std::io::stderr);
        if log.is_json {
            subscriber.json().flatten_event(true).map_event_format(|format| Json { process, format }).init();
        } else if is_journal() {
            let format = Format::default().with_ansi(false).with_timer(Mark { process, has_time: false });
            subscriber.with_ansi(false).event_format(Journal(format)).init();
        } else {
            subscriber.with_ansi(self.color).with_timer(Mark { process, has_time: true }).init();
        }
    }

    fn filter(self, usual: &str) -> EnvFilter {
        let level = match (self.quiet, self.verbose) {
            (true, _) => "error",
            (false, 0) => usual,
            (false, 1) => "info,probe=debug",
            (false, _) => "debug,probe=trace",
        };
        EnvFilter::try_from_env("PROBE_LOG").unwrap_or_else(|_| level.into())
    }

    /// As flags.
    pub fn arguments(self) -> Vec<std::ffi::OsString> {
        let color = if self.color { "--color=always" } else { "--color=never" };
        let verbose = (0..self.verbose).map(|_| "-v");
        verbose.chain(self.quiet.then_some("-q")).chain([color]).map(Into::into).collect()
    }

    /// Whether there are colours unless somebody says so.
    pub fn is_colorful() -> bool {
        std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
    }
}

/// Whether what is written to standard error goes to the journal: it says by which file it can be told.
fn is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    let stderr = std::fs::metadata("/proc/self/fd/2");
    stderr.is_ok_and(|file| stream == format!("{}:{}", file.dev(), file.ino()))
}

/// What stands before each line: the time, and which process it is from.
#[derive(Clone, Copy, Debug)]
struct Mark {
    process: &'static str,
    has_time: bool,
}

impl FormatTime for Mark {
    fn format_time(&self, out: &mut Writer<'_>) -> fmt::Result {
        if self.has_time {
            SystemTime.format_time(out)?;
            out.write_char(' ')?;
        }
        out.write_str(self.process)
    }
}

/// An object a line, of which the first field is the process.
struct Json<F> {
    process: &'static str,
    format: F,
}

impl<S, N, F> FormatEvent<S, N> for Json<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = String::new();
        self.format.format_event(context, Writer::new(&mut line), event)?;
        match line.strip_prefix('{') {
            Some(rest) => write!(out, "{{\"process\":\"{}\",{rest}", self.process),
            None => out.write_str(&line),
        }
    }
}

/// Lines as the journal wants them: the priority first, and no time, which it knows itself.
struct Journal(Format<Full, Mark>);

impl<S, N> FormatEvent<S, N> for Journal
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let priority = match *event.metadata().level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            _ => 7,
        };
        write!(out, "<{priority}>")?;
        self.0.format_event(context, out, event)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("no panic").write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_of_the_journal_begin_with_their_priority() {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .event_format(Journal(Format::default().with_timer(Mark { process: "server", has_time: false })))
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(pid = 7, "it is hot");
            tracing::info!("stopped");
        });
        let text = String::from_utf8(lines.0.lock().expect("no panic").clone()).expect("text");
        let [first, second] = text.lines().collect::<Vec<_>>()[..] else { panic!("{text}") };
        assert!(first.starts_with("<4>server ") && first.ends_with("it is hot pid=7"), "{first}");
        assert!(second.starts_with("<6>") && second.contains("INFO"), "{second}");
    }

    #[test]
    fn objects_say_which_process_they_are_from() {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).json().flatten_event(true);
        let subscriber = subscriber.map_event_format(|format| Json { process: "collector", format }).finish();
        tracing::subscriber::with_default(subscriber, || tracing::warn!(pid = 7, "it is hot"));
        let text = String::from_utf8(lines.0.lock().expect("no panic").clone()).expect("text");
        let line: serde_json::Value = serde_json::from_str(&text).expect("an object");
        assert_eq!(
            (&line["process"], &line["message"], &line["pid"]),
            (&"collector".into(), &"it is hot".into(), &7.into())
        );
    }
}
