//! Node and npm, which build the pages: those of this machine if they are new enough, else a Node out of npm's own
//! registry, in the target folder.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell;

/// The oldest that the tools of the pages run on, and the package of npm that has one.
const OLDEST: (u32, u32) = (20, 19);
const PACKAGE: &str = "node@22";

/// Node, and the folder of its program if it is not on the path.
pub struct Node {
    folder: Option<PathBuf>,
}

/// Finds Node and npm, and installs what is missing.
pub fn find(install: bool) -> Result<Node> {
    if install {
        shell::install_missing(&[("node", "nodejs"), ("npm", "npm")]);
    }
    if shell::find("npm").is_none() {
        bail!("npm, which builds the pages, is not here: `apt-get install nodejs npm`");
    }
    if version("node".into()).is_some_and(|version| version >= OLDEST) {
        return Ok(Node { folder: None });
    }
    let prefix = shell::target_dir().join("node");
    let folder = prefix.join("node_modules/node/bin");
    let is_new = || version(folder.join("node")).is_some_and(|version| version >= OLDEST);
    if !is_new() {
        if !install {
            bail!("the pages are built by Node {}.{} or later, which is not here", OLDEST.0, OLDEST.1);
        }
        eprintln!("xtask: npm install {PACKAGE}, as the one here is older than {}.{}", OLDEST.0, OLDEST.1);
        let mut npm = shell::command("npm");
        shell::run(npm.arg("install").arg("--prefix").arg(&prefix).args([
            "--no-save",
            "--no-fund",
            "--no-audit",
            PACKAGE,
        ]))?;
    }
    if !is_new() {
        bail!("{PACKAGE} does not run from {}", folder.display());
    }
    Ok(Node { folder: Some(folder) })
}

fn version(program: PathBuf) -> Option<(u32, u32)> {
    let text = shell::output(Command::new(program).arg("--version"))?;
    let mut numbers = text.trim_start_matches('v').split('.').map_while(|number| number.parse().ok());
    Some((numbers.next()?, numbers.next()?))
}

impl Node {
    /// Installs what `package-lock.json` names, unless that is what is there.
    pub fn install(&self) -> Result<()> {
        let ui = shell::checkout().join("ui");
        let lock = std::fs::read(ui.join("package-lock.json")).context("cannot read ui/package-lock.json")?;
        let done = ui.join("node_modules/.probe-lock");
        if std::fs::read(&done).ok().as_ref() == Some(&lock) {
            return Ok(());
        }
        shell::run(self.npm()?.args(["ci", "--no-fund", "--no-audit", "--loglevel", "error"]))?;
        std::fs::write(&done, lock).with_context(|| format!("cannot write {}", done.display()))
    }

    /// Runs a script of `package.json`.
    pub fn script(&self, name: &str, arguments: &[&str]) -> Result<()> {
        shell::run(self.npm()?.args(["run", "--silent", name, "--"]).args(arguments))
    }

    fn npm(&self) -> Result<Command> {
        let mut npm = shell::command("npm");
        npm.current_dir(shell::checkout().join("ui"));
        if let Some(folder) = &self.folder {
            let path = std::env::var_os("PATH").unwrap_or_default();
            npm.env("PATH", std::env::join_paths([folder.clone()].into_iter().chain(std::env::split_paths(&path)))?);
        }
        Ok(npm)
    }
}
