//! `cargo xtask test`: everything that is tested, in one command: installs what the tests need, runs those that need
//! nothing, then those on the real kernel and in a browser, and ends with what passed, failed and was skipped, and why.

mod tally;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::shell;
use tally::Tally;

/// Flags of `cargo xtask test`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Install nothing; tests that lack something are skipped
    #[arg(long)]
    no_install: bool,
    /// Only tests whose name has this text
    filter: Option<String>,
}

/// What the tests on the real kernel use, and the Debian package that has it.
const PROGRAMS: [(&str, &str); 18] = [
    ("gcc", "gcc"),
    ("g++", "g++"),
    ("clang", "clang"),
    ("musl-gcc", "musl-tools"),
    ("strip", "binutils"),
    ("unshare", "util-linux"),
    ("setpriv", "util-linux"),
    ("xmllint", "libxml2-utils"),
    ("go", "golang-go"),
    ("python3", "python3-minimal"),
    ("node", "nodejs"),
    ("sqlite3", "sqlite3"),
    ("perf", "linux-perf"),
    ("crun", "crun"),
    ("dtrace", "systemtap-sdt-dev"),
    ("chromium", "chromium"),
    ("openssl", "openssl"),
    ("prometheus-alertmanager", "prometheus-alertmanager"),
];

/// Runs `cargo xtask test`.
pub fn run(args: &Args) -> Result<()> {
    if !args.no_install {
        install();
    }
    let mut tally = Tally::default();
    println!("== Tests that need nothing");
    let mut cargo = shell::cargo();
    cargo.args(["test", "--workspace", "--exclude", "probe-tests", "--no-fail-fast"]).args(&args.filter);
    follow(&mut cargo, &mut tally)?;

    let probe = shell::build_probe()?;
    println!("\n== Tests with real servers");
    let mut servers = Command::new(build_tests("alerts")?);
    follow(servers.env("PROBE_BIN", &probe).args(&args.filter), &mut tally)?;

    println!("\n== Tests of what is deployed");
    as_root("deploy", &probe, args, &mut tally)?;
    println!("\n== Tests on the real kernel");
    as_root("kernel", &probe, args, &mut tally)?;

    println!("\n== Tests in a browser");
    in_browser(&probe, args, &mut tally)?;

    println!("\n{}", tally.report());
    if !tally.is_good() {
        bail!("not all tests passed");
    }
    Ok(())
}

/// Runs a program of tests as root where that is possible; else some of them are skipped.
fn as_root(name: &str, probe: &Path, args: &Args, tally: &mut Tally) -> Result<()> {
    let tests = build_tests(name)?;
    match shell::as_root("env") {
        Some(mut root) => {
            // sudo clears the environment; PATH is what finds compilers, and the rest is where cargo keeps things.
            let path = std::env::var("PATH").unwrap_or_default();
            root.arg(format!("PATH={}/bin:{path}", shell::cargo_home().display()));
            for (name, value) in [
                ("CARGO_HOME", shell::cargo_home()),
                ("RUSTUP_HOME", shell::rustup_home()),
                ("CARGO_TARGET_DIR", shell::target_dir()),
                ("PROBE_BIN", probe.to_owned()),
            ] {
                root.arg(format!("{name}={}", value.display()));
            }
            root.arg(&tests).args(&args.filter);
            follow(&mut root, tally)
        }
        None => {
            // Each test that needs root says so.
            let mut tests = Command::new(tests);
            follow(tests.env("PROBE_BIN", probe).args(&args.filter), tally)
        }
    }
}

/// Runs the viewer's tests, as root where that is possible.
fn in_browser(probe: &Path, args: &Args, tally: &mut Tally) -> Result<()> {
    let folder = shell::checkout().join("tests/browser");
    let Some(node) = shell::find("node") else {
        tally.skip("viewer", "node is not installed");
        return Ok(());
    };
    if !folder.join("node_modules/axe-core").exists() {
        tally.skip("viewer", "tests/browser/node_modules is not complete: run `npm ci` there");
        return Ok(());
    }
    let mut command = shell::as_root("env").unwrap_or_else(|| Command::new("env"));
    command.arg(format!("PROBE_BIN={}", probe.display()));
    // sudo clears the environment.
    for name in ["PATH", "CHROMIUM"] {
        if let Ok(value) = std::env::var(name) {
            command.arg(format!("{name}={value}"));
        }
    }
    command.arg(node).arg(folder.join("viewer.mjs")).args(&args.filter);
    follow(&mut command, tally)
}

fn install() {
    shell::install_missing(&PROGRAMS);
    let browser = shell::checkout().join("tests/browser");
    if browser.join("package-lock.json").exists() && !browser.join("node_modules/axe-core").exists() {
        if shell::find("npm").is_none() {
            shell::install_missing(&[("npm", "npm")]);
        }
        let installed = shell::run(Command::new("npm").args(["ci", "--no-fund", "--no-audit"]).current_dir(&browser));
        if let Err(error) = installed {
            eprintln!("xtask: the tests in a browser will be skipped: {error:#}");
        }
    }
}

/// Runs a program of tests, shows what it says and counts it.
fn follow(command: &mut Command, tally: &mut Tally) -> Result<()> {
    let shown = shell::show(command);
    let child = command.current_dir(shell::checkout()).stdout(Stdio::piped()).spawn();
    let mut child = child.with_context(|| format!("cannot run `{shown}`"))?;
    let output = child.stdout.take().context("the output is piped")?;
    for line in BufReader::new(output).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        println!("{line}");
        tally.read(&line);
    }
    tally.ended(&shown, child.wait()?.success());
    Ok(())
}

/// Compiles a program of tests as the user who asks, so that nothing in the target folder becomes root's.
fn build_tests(name: &str) -> Result<PathBuf> {
    let mut cargo = shell::cargo();
    cargo.args(["test", "--package", "probe-tests", "--test", name, "--no-run"]);
    cargo.arg("--message-format=json-render-diagnostics");
    let output = cargo.stderr(Stdio::inherit()).output().context("cannot run cargo")?;
    let messages = String::from_utf8_lossy(&output.stdout);
    let executable = messages.lines().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let is_ours = message["target"]["name"] == name && message["profile"]["test"] == true;
        is_ours.then(|| message["executable"].as_str().map(|path| Path::new(path).to_path_buf())).flatten()
    });
    executable.with_context(|| format!("the tests `{name}` do not build"))
}
