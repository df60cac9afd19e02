//! `cargo xtask ui`: builds the pages into `ui/dist/`, compressed ahead of time. The result is committed, so that building
//! `probe` needs no Node; `--check` proves that it is what the sources produce, and that types, lints and tests hold.

mod dist;
mod node;

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::shell;
use dist::Dist;

/// Flags of `cargo xtask ui`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Check types, lints and tests, build apart and compare with what is committed; changes nothing
    #[arg(long)]
    check: bool,
    /// Use what is on this machine and install nothing but the packages of `ui/package-lock.json`
    #[arg(long)]
    no_install: bool,
}

/// The most that the first page may load, compressed by brotli: what its HTML names, in bytes.
const FIRST_PAGE: usize = 150 << 10;

const COMMITTED: &str = "ui/dist";

/// Runs `cargo xtask ui`.
pub fn run(args: &Args) -> Result<()> {
    let node = node::find(!args.no_install)?;
    node.install()?;
    if args.check {
        for script in ["check", "lint", "test"] {
            node.script(script, &[])?;
        }
    }
    let apart = shell::target_dir().join("ui");
    let _ = std::fs::remove_dir_all(&apart);
    let out = apart.to_str().context("the target folder has no plain name")?;
    node.script("build", &["--outDir", out, "--emptyOutDir", "--logLevel", "warn"])?;
    // The script of exported pages, which the exporter puts into them.
    node.script("build", &["--mode", "export", "--outDir", out, "--logLevel", "warn"])?;
    let mut built = Dist::read(&apart)?;
    built.compress()?;
    weigh(&built)?;
    let committed = shell::checkout().join(COMMITTED);
    if args.check { compare(&committed, &built) } else { built.write(&committed) }
}

/// Says what the first page loads, and fails if that is too much.
fn weigh(built: &Dist) -> Result<()> {
    let (names, bytes) = built.first_page()?;
    println!(
        "{COMMITTED}: the first page loads {:.1} KiB in {} files, all pages {:.1} KiB (brotli)",
        kib(bytes),
        names,
        kib(built.compressed_bytes())
    );
    if bytes > FIRST_PAGE {
        bail!("the first page loads {:.1} KiB of scripts and styles, and may load {:.0}", kib(bytes), kib(FIRST_PAGE));
    }
    Ok(())
}

fn kib(bytes: usize) -> f64 {
    bytes as f64 / 1024.0
}

fn compare(committed: &Path, built: &Dist) -> Result<()> {
    let there = Dist::read(committed).with_context(|| hint("it cannot be read"))?;
    let different = built.difference(&there);
    if !different.is_empty() {
        bail!(hint(&format!("these files differ: {}", different.join(", "))));
    }
    println!("{COMMITTED}: the sources produce exactly these {} files", built.len());
    Ok(())
}

fn hint(what: &str) -> String {
    format!("{COMMITTED} is not what the sources produce: {what}.\nRun `cargo xtask ui` and commit the result.")
}
