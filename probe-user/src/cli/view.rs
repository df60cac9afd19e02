//! `probe view`: opens a saved profile or a stored snapshot as an interactive page on this machine.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail};

use super::config::Place;
use super::snapshots::{EventName, WindowName, stored_profile};
use crate::export::{self, Options};
use crate::problem::{Exit, Problem};
use crate::serve::{self, Page};
use crate::snapshot;
use crate::symbolize::Profile;
use crate::text::sanitize;

/// Largest file that is opened, in bytes. `export::read` has its own bound for what it decompresses to.
const MAX_FILE: u64 = 256 << 20;
/// How a page begins.
const PAGE: &[u8] = b"<!doctype html>";

/// Flags of `probe view`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A file (a page, pprof, probe's JSON or folded stacks; - is stdin) or the id of a snapshot
    #[arg(value_name = "FILE|ID")]
    what: String,
    /// Where to serve the page; loopback addresses only, port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    #[command(flatten)]
    place: Place,
    /// Which profile of a snapshot
    #[arg(long, value_enum, default_value_t = WindowName::Breach)]
    window: WindowName,
    /// Which samples [default: page-fault for snapshots of rules on memory, else cpu where there is both]
    #[arg(short, long, value_enum)]
    event: Option<EventName>,
}

/// Runs `probe view`: prints the page's address and serves it until Ctrl-C.
pub fn run(args: Args) -> Result<ExitCode> {
    if !args.listen.ip().is_loopback() {
        bail!(Problem::new(
            Exit::Usage,
            format!(
                "--listen {}: a profile is served on this machine only, and that is not a loopback address",
                args.listen
            ),
            format!("give 127.0.0.1:{0}; from elsewhere, `ssh -L {0}:127.0.0.1:{0}` leads to it", port(args.listen)),
        ));
    }
    let page = |profile, memory| {
        let name = Path::new(&args.what).file_name().unwrap_or_default().to_string_lossy().into_owned();
        Page { name, profile: Arc::new(profile), options: Options { memory, ..Options::default() } }
    };
    let is_id = args.what.len() <= ulid::ULID_LEN && args.what.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let stored = if is_id && !Path::new(&args.what).exists() {
        let store = args.place.open()?;
        let id = store.id_of(&args.what).map_err(|error| match error.downcast::<Problem>() {
            Ok(problem) => {
                let message = format!("there is no file `{}`, and {}", sanitize(&args.what), problem.message);
                Problem { message, ..problem }.into()
            }
            Err(error) => error,
        })?;
        Some((store, id))
    } else {
        None
    };
    let router = match stored {
        Some((store, id)) => {
            let memory = EventName::shows_memory(args.event, Some(&store.sidecar(id)?));
            let profile = stored_profile(&store, id, args.window.into())?;
            let window = snapshot::Window::from(args.window);
            let event = args.event.map(|event| format!("&event={}", event.name())).unwrap_or_default();
            serve::view_snapshot(page(profile, memory), store, id, &format!("?window={}{event}", window.name()))?
        }
        None => match load(&args.what)? {
            File::Page(html) => serve::view_html(html),
            File::Profile(profile) => serve::view(page(*profile, EventName::shows_memory(args.event, None))),
        },
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(serve_page(router, args.listen))?;
    Ok(ExitCode::SUCCESS)
}

fn port(listen: SocketAddr) -> u16 {
    if listen.port() == 0 { 7117 } else { listen.port() }
}

async fn serve_page(router: axum::Router, listen: SocketAddr) -> Result<()> {
    let listener = tokio::net::TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    let address = listener.local_addr()?;
    let mut out = std::io::stdout();
    writeln!(out, "http://{address}/").and_then(|()| out.flush()).context("cannot write to stdout")?;
    eprintln!("Ctrl-C ends it");
    let stop = async {
        // Where Ctrl-C cannot be waited for, the signal's own way ends the process.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        served = axum::serve(listener, router).into_future() => served.context("cannot serve the page"),
        // Browsers keep connections open, so waiting for them to close could last for ever.
        () = stop => Ok(()),
    }
}

/// What a file holds.
enum File {
    /// A page of `probe record`, which shows itself.
    Page(Vec<u8>),
    Profile(Box<Profile>),
}

fn load(what: &str) -> Result<File> {
    let mut bytes = Vec::new();
    let read = match what {
        "-" => std::io::stdin().lock().take(MAX_FILE + 1).read_to_end(&mut bytes),
        path => std::fs::File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes)),
    };
    let problem = |message| {
        let hint = "give a file that `probe record -o` wrote (.html, .pb.gz, .json, .folded) or the id of a snapshot";
        Problem::new(Exit::Failure, message, hint)
    };
    read.map_err(|error| problem(format!("cannot read {what}: {error}")))?;
    if bytes.len() as u64 > MAX_FILE {
        bail!(problem(format!("cannot read {what}: it is larger than {} MiB", MAX_FILE >> 20)));
    }
    if bytes.get(..PAGE.len()).is_some_and(|start| start.eq_ignore_ascii_case(PAGE)) {
        return Ok(File::Page(bytes));
    }
    let profile = export::read(&bytes, what).map_err(|error| problem(format!("{error:#}")))?;
    Ok(File::Profile(Box::new(profile)))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Harness {
        #[command(flatten)]
        args: Args,
    }

    fn run_with(what: &str, listen: &str) -> Problem {
        let args = Harness::parse_from(["view", what, "--listen", listen, "--store", "/nowhere/store"]).args;
        run(args).unwrap_err().downcast::<Problem>().unwrap()
    }

    #[test]
    fn other_addresses_than_loopback_are_refused_with_a_way_out() {
        for listen in ["0.0.0.0:7117", "10.0.0.1:7117", "[::]:7117"] {
            let problem = run_with("x.pb.gz", listen);
            assert_eq!(problem.exit, Exit::Usage);
            assert!(problem.message.contains(listen) && problem.hint.contains("ssh -L 7117"), "{problem:?}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_and_a_snapshot_say_what_to_give() {
        let problem = run_with("/nowhere/x.pb.gz", "127.0.0.1:0");
        assert!(problem.message.contains("/nowhere/x.pb.gz") && problem.hint.contains(".pb.gz"), "{problem:?}");
        let problem = run_with("/proc/self/exe", "127.0.0.1:0");
        assert!(problem.message.contains("/proc/self/exe") && problem.hint.contains(".pb.gz"), "{problem:?}");
        let problem = run_with("01ARZ3NDEKTSV4RRFFQ69G5FAV", "127.0.0.1:0");
        assert_eq!(problem.exit, Exit::NoTarget);
        assert!(problem.message.contains("01ARZ3NDEKTSV4RRFFQ69G5FAV in /nowhere/store"), "{problem:?}");
    }

    #[test]
    fn a_page_is_shown_as_it_is() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "<!DOCTYPE html>\n<html>").expect("written");
        assert!(matches!(load(file.path().to_str().expect("text")), Ok(File::Page(_))));
    }

    #[test]
    fn a_saved_profile_is_loaded() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/profile.json");
        let File::Profile(profile) = load(path).unwrap() else { panic!("it is no page") };
        assert_eq!(profile.header.host, "node-7");
    }
}
