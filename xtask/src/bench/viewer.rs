//! `cargo xtask bench viewer`: how fast a profile of 200,000 nodes opens in the viewer, and how smoothly it is panned and
//! zoomed in a headless Chromium; next to speedscope, with the same file in the same run. `tests/browser/speed.mjs` measures.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::statistics;
use crate::shell;

/// Flags of `cargo xtask bench viewer`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Nodes of the profile's tree
    #[arg(long, default_value_t = 200_000)]
    nodes: u32,
    /// How often each viewer is opened
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Install nothing; what is not here is left out
    #[arg(long)]
    no_install: bool,
}

/// The peer, of npm.
const SPEEDSCOPE: &str = "speedscope@1.25.0";

/// Runs `cargo xtask bench viewer`.
pub fn run(args: &Args) -> Result<()> {
    let tests = shell::checkout().join("tests/browser");
    if !args.no_install {
        shell::install_missing(&[("chromium", "chromium"), ("node", "nodejs"), ("npm", "npm")]);
        if !tests.join("node_modules/axe-core").exists() {
            shell::run(shell::command("npm").args(["ci", "--no-fund", "--no-audit"]).current_dir(&tests))?;
        }
    }
    let node = shell::find("node").context("the browser is driven by Node, which is not here")?;
    let probe = shell::build_probe()?;
    println!("{}", statistics::host());
    let mut measure = shell::command(node);
    measure.arg(tests.join("speed.mjs")).arg("--probe").arg(probe);
    measure.arg("--nodes").arg(args.nodes.to_string()).arg("--rounds").arg(args.rounds.to_string());
    match speedscope(!args.no_install) {
        Ok(folder) => {
            measure.arg("--speedscope").arg(folder);
        }
        Err(error) => println!("speedscope is left out: {error:#}"),
    }
    shell::run(&mut measure)
}

/// The folder of speedscope's pages, which is in its package.
fn speedscope(install: bool) -> Result<PathBuf> {
    let prefix = shell::target_dir().join("bench-viewer");
    let pages = prefix.join("node_modules/speedscope/dist/release");
    if is_there(&pages) {
        return Ok(pages);
    }
    if !install {
        bail!("{SPEEDSCOPE} is not in {}", prefix.display());
    }
    std::fs::create_dir_all(&prefix).with_context(|| format!("cannot create {}", prefix.display()))?;
    let mut npm = shell::command("npm");
    npm.args(["install", "--no-save", "--no-fund", "--no-audit", "--ignore-scripts", "--prefix"]).arg(&prefix);
    shell::run(npm.arg(SPEEDSCOPE))?;
    if !is_there(&pages) {
        bail!("the package {SPEEDSCOPE} has no pages in {}", pages.display());
    }
    Ok(pages)
}

fn is_there(pages: &Path) -> bool {
    pages.join("index.html").exists()
}
