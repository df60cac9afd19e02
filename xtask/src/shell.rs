//! Running other programs: with an environment in which the outer cargo left no trace, and with the privileges that
//! are there. What every command of xtask shares, and no more.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// The checkout: the folder of the workspace's `Cargo.toml`.
pub fn checkout() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// Where this workspace's builds go.
pub fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| checkout().join("target"), PathBuf::from)
}

/// Cargo's home, where it keeps registries and installed programs.
pub fn cargo_home() -> PathBuf {
    home_of("CARGO_HOME", ".cargo")
}

/// Rustup's home, where it keeps toolchains.
pub fn rustup_home() -> PathBuf {
    home_of("RUSTUP_HOME", ".rustup")
}

fn home_of(variable: &str, folder: &str) -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(folder);
    std::env::var_os(variable).map_or_else(home, PathBuf::from)
}

/// A command in the checkout that sees nothing of the cargo, compiler and flags which started xtask: those choose the
/// toolchain of the caller, not of what xtask builds.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(checkout());
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(leaks) {
            command.env_remove(name);
        }
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let with_cargo = std::iter::once(cargo_home().join("bin")).chain(std::env::split_paths(&path));
    if let Ok(path) = std::env::join_paths(with_cargo) {
        command.env("PATH", path);
    }
    command
}

/// Whether a variable is one by which the outer cargo or rustup speaks to what it starts.
fn leaks(name: &str) -> bool {
    const KEPT: [&str; 6] =
        ["CARGO_HOME", "CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTRIES_", "CARGO_TERM_", "RUSTUP_DIST"];
    let of_rust = name.starts_with("CARGO") || name.starts_with("RUST") || name == "LD_LIBRARY_PATH";
    of_rust && name != "RUSTUP_HOME" && name != "RUSTUP_AUTO_INSTALL" && !KEPT.iter().any(|kept| name.starts_with(kept))
}

/// The cargo that started xtask, for what is built with the same compiler and flags as xtask itself. What it said about
/// the package of xtask is taken away: build scripts that look at it would make every other build compile anew.
pub fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(checkout());
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(is_of_package) {
            cargo.env_remove(name);
        }
    }
    cargo
}

/// Whether a variable is one by which cargo describes the package that it runs.
fn is_of_package(name: &str) -> bool {
    const PREFIXES: [&str; 4] = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"];
    PREFIXES.iter().any(|prefix| name.starts_with(prefix)) || ["OUT_DIR", "CARGO_PRIMARY_PACKAGE"].contains(&name)
}

/// Builds the release binary of `probe` and says where it is.
pub fn build_probe() -> Result<PathBuf> {
    run(cargo().args(["build", "--release", "--package", "probe-user", "--bin", "probe"]))?;
    Ok(target_dir().join("release/probe"))
}

/// Runs a command, its output going where xtask's goes; anything but success is an error that names the command.
pub fn run(command: &mut Command) -> Result<()> {
    let shown = show(command);
    let status = command.status().with_context(|| format!("cannot run `{shown}`"))?;
    if !status.success() {
        bail!("`{shown}` failed: {status}");
    }
    Ok(())
}

/// The standard output of a command that succeeds, trimmed; `None` when it is not there or fails.
pub fn output(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The command as one would type it.
pub fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().replace('\x1f', " ")).collect::<Vec<_>>().join(" ")
}

/// Where a program is, as the shell would find it; the folder of cargo's installed programs is looked at first.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let admin = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let folders = std::iter::once(cargo_home().join("bin")).chain(std::env::split_paths(&path)).chain(admin);
    folders.map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// Whether this process is root.
pub fn is_root() -> bool {
    output(Command::new("id").arg("-u")).as_deref() == Some("0")
}

/// A command that runs as root: itself when we are root, through `sudo` when it asks for no password.
pub fn as_root(program: impl AsRef<OsStr>) -> Option<Command> {
    if is_root() {
        return Some(command(program));
    }
    output(Command::new("sudo").args(["-n", "true"]))?;
    let mut sudo = command("sudo");
    sudo.arg("-n").arg(program);
    Some(sudo)
}

/// Installs the packages of those programs that are missing; a program that is still missing afterwards is a matter of
/// who needs it. Pairs of program and package.
pub fn install_missing(programs: &[(&str, &'static str)]) {
    let mut packages: Vec<_> =
        programs.iter().filter(|(program, _)| find(program).is_none()).map(|(_, package)| *package).collect();
    packages.sort_unstable();
    packages.dedup();
    // One that the distribution does not have must not keep the others away.
    if !packages.is_empty() && apt_install(&packages).is_err() && packages.len() > 1 {
        for package in packages {
            if let Err(error) = apt_install(&[package]) {
                eprintln!("xtask: {package} is not installed: {error:#}");
            }
        }
    }
}

/// Installs Debian packages, never at the price of removing others. Says what it does.
pub fn apt_install(packages: &[&str]) -> Result<()> {
    if find("apt-get").is_none() {
        bail!("there is no apt-get here to install {}", packages.join(" "));
    }
    let apt = || as_root("apt-get").context("installing packages needs root, or sudo without a password");
    eprintln!("xtask: apt-get install {}", packages.join(" "));
    let arguments = ["install", "-y", "-qq", "--no-install-recommends", "--no-remove"];
    let mut install = apt()?;
    install.args(arguments).args(packages).stdout(Stdio::null());
    if run(&mut install).is_ok() {
        return Ok(());
    }
    run(apt()?.args(["update", "-qq"]))?;
    run(apt()?.args(arguments).args(packages).stdout(Stdio::null()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outer_cargo_does_not_leak_but_its_homes_and_network_settings_stay() {
        for name in ["CARGO", "RUSTC", "RUSTUP_TOOLCHAIN", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET"]
        {
            assert!(leaks(name), "{name}");
        }
        for name in ["CARGO_HOME", "RUSTUP_HOME", "CARGO_HTTP_PROXY", "CARGO_NET_OFFLINE", "PATH", "HTTPS_PROXY"] {
            assert!(!leaks(name), "{name}");
        }
    }
}
