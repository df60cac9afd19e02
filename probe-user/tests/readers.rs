//! What `export` writes, read by programs that were not written here: `go tool pprof`, `xmllint`, and Chromium through
//! `tests/browser`. A reader that is not installed is skipped, with a message that says how to get it.

use std::path::{Path, PathBuf};
use std::process::Command;

use probe::export::{self, Format, Options};

/// The profile with everything in it, hostile names included, written in `format` to a file in `folder`.
fn exported(folder: &Path, format: Format) -> PathBuf {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/profile.json");
    let profile = export::read(&std::fs::read(golden).unwrap(), "profile.json").unwrap();
    let path = folder.join(format!("profile{}", format.extension()));
    let mut file = std::fs::File::create(&path).unwrap();
    export::write(&profile, format, &Options::default(), &mut file).unwrap();
    path
}

/// Standard output of a command that must succeed; `None`, after saying so, when the program is not there.
fn output(command: &mut Command, how_to_get_it: &str) -> Option<String> {
    match command.output() {
        Ok(output) => {
            let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            assert!(output.status.success(), "{command:?}: {}\n{stdout}\n{stderr}", output.status);
            Some(stdout.into_owned())
        }
        Err(error) => {
            eprintln!("skipped: {:?} cannot be run ({error}); {how_to_get_it}", command.get_program());
            None
        }
    }
}

#[test]
fn go_reads_the_pprof() {
    let folder = tempfile::tempdir().unwrap();
    let path = exported(folder.path(), Format::Pprof);
    let pprof = |arguments: &[&str]| {
        let mut command = Command::new("go");
        command.args(["tool", "pprof"]).args(arguments).arg(&path).env("PPROF_TMPDIR", folder.path());
        output(&mut command, "apt-get install golang-go")
    };
    let Some(top) = pprof(&["-top", "-sample_index=samples"]) else { return };
    let row = |name: &str| -> Vec<String> {
        let row = top.lines().find(|line| line.contains(name)).unwrap_or_else(|| panic!("no {name} in\n{top}"));
        row.split_whitespace().map(str::to_owned).collect()
    };
    // Flat and cumulative samples; inlined functions count for themselves.
    assert_eq!((row("price::round")[0].as_str(), row("price::round")[3].as_str()), ("12", "12"), "{top}");
    assert_eq!((row("price::total")[0].as_str(), row("price::total")[3].as_str()), ("0", "12"), "{top}");
    assert_eq!(row("vfs_read")[0], "5", "{top}");
    assert_eq!(row("no frame pointer")[3], "1", "{top}");
    assert!(top.contains("Build ID: 8f3c2a11d0"), "{top}");

    let nanoseconds = pprof(&["-top", "-sample_index=cpu"]).unwrap();
    assert!(nanoseconds.contains("Duration: 2s, Total samples = 232.32ms"), "{nanoseconds}");
    let raw = pprof(&["-raw"]).unwrap();
    for part in [
        "thread:[push worker 1]",
        "process:[checkout]",
        "tid:[4250]",
        "pid:[4242]",
        "Period: 10101010",
        "samples/count cpu/nanoseconds",
        "0x555555556533 M=1 price::round /src/checkout/price.rs:7",
        "/usr/lib/x86_64-linux-gnu/libc.so.6 c289da5071",
        "lost 3: ring buffer full",
    ] {
        assert!(raw.contains(part), "no {part:?} in\n{raw}");
    }
}

#[test]
fn an_xml_parser_reads_the_svg() {
    let folder = tempfile::tempdir().unwrap();
    let path = exported(folder.path(), Format::Svg);
    output(Command::new("xmllint").args(["--noout", "--nonet"]).arg(&path), "apt-get install libxml2-utils");
}

#[test]
fn a_browser_shows_the_page() {
    let folder = tempfile::tempdir().unwrap();
    let path = exported(folder.path(), Format::Html);
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/browser");
    let browser = std::env::var("CHROMIUM").unwrap_or_else(|_| "/usr/bin/chromium".into());
    if !tests.join("node_modules/playwright-core").exists() || !Path::new(&browser).exists() {
        eprintln!("skipped: no {browser}, or no modules in tests/browser; apt-get install chromium, npm ci there");
        return;
    }
    let mut command = Command::new("node");
    output(command.arg(tests.join("flamegraph.mjs")).arg(&path), "apt-get install nodejs npm");
}
