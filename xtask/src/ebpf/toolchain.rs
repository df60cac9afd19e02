//! Which compiler and linker make the kernel object: the first usable one of Debian's prebuilt toolchain and a pinned
//! nightly, installed where that is possible. Versions are pinned here and nowhere else.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell;

/// The linker, from crates.io, and the LLVM it is built against: at least as new as the compiler's.
const LINKER_VERSION: &str = "0.13.0";
const LLVM: u32 = 22;
/// Debian's compiler with a prebuilt `core` for BPF: no nightly and no `build-std`.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CARGO: &str = "/usr/bin/cargo";
const DEBIAN_PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf"];
/// The nightly for everywhere else; its LLVM is [`LLVM`].
const NIGHTLY: &str = "nightly-2026-05-20";
/// The oldest compiler that builds the workspace (its `rust-version`).
const OLDEST: (u32, u32) = (1, 95);

/// A compiler, linker and strip that together make the object.
pub struct Toolchain {
    /// For people.
    pub name: &'static str,
    /// `llvm-strip`.
    pub strip: PathBuf,
    kind: Kind,
    rustc: String,
    linker: String,
}

#[derive(Clone, Copy)]
enum Kind {
    Debian,
    Nightly,
}

impl Toolchain {
    /// `cargo`, set up for this compiler; the caller adds the arguments that name what is built.
    pub fn cargo(&self) -> Command {
        match self.kind {
            Kind::Debian => {
                let mut cargo = shell::command(DEBIAN_CARGO);
                cargo.env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1");
                cargo
            }
            Kind::Nightly => {
                let mut cargo = shell::command("rustup");
                cargo.args(["run", NIGHTLY, "cargo", "-Zbuild-std=core"]);
                cargo
            }
        }
    }

    /// The versions that decide the bytes of the object; the committed object stands next to this text.
    pub fn describe(&self) -> String {
        format!("{}\n{}\n", self.rustc, self.linker)
    }
}

/// Finds a toolchain, installing what is missing when that is allowed.
pub fn find(install: bool) -> Result<Toolchain> {
    let (kind, rustc) = compiler(install)?;
    let linker = linker(install)?;
    let strip = strip(install)?;
    let name = match kind {
        Kind::Debian => "Debian's rustc",
        Kind::Nightly => NIGHTLY,
    };
    Ok(Toolchain { name, strip, kind, rustc, linker })
}

/// The first usable compiler, with its version.
fn compiler(install: bool) -> Result<(Kind, String)> {
    let found = || debian().map(|v| (Kind::Debian, v)).or_else(|| nightly().map(|v| (Kind::Nightly, v)));
    if let Some(found) = found() {
        return Ok(found);
    }
    if install {
        if let Err(error) = shell::apt_install(&DEBIAN_PACKAGES) {
            eprintln!("xtask: no prebuilt BPF toolchain from packages: {error:#}");
        }
        if debian().is_none() && shell::find("rustup").is_some() {
            let mut rustup = shell::command("rustup");
            rustup.args(["toolchain", "install", NIGHTLY, "--profile", "minimal", "--component", "rust-src"]);
            if let Err(error) = shell::run(&mut rustup) {
                eprintln!("xtask: no nightly from rustup: {error:#}");
            }
        }
    }
    found().with_context(|| {
        format!(
            "no compiler for the kernel programs: run `apt-get install {}` on Debian, or `rustup toolchain install \
             {NIGHTLY} --profile minimal --component rust-src` anywhere",
            DEBIAN_PACKAGES.join(" ")
        )
    })
}

/// The version of Debian's compiler, when it is new enough and has `core` for BPF.
fn debian() -> Option<String> {
    let rustc = |argument: &[&str]| shell::output(shell::command(DEBIAN_RUSTC).args(argument));
    let version = rustc(&["--version"])?;
    let libraries = rustc(&["--print", "target-libdir", "--target", super::TARGET])?;
    let has_core =
        std::fs::read_dir(libraries).ok()?.flatten().any(|f| f.file_name().as_encoded_bytes().starts_with(b"libcore-"));
    (has_core && Path::new(DEBIAN_CARGO).exists() && minor(&version)? >= OLDEST).then_some(version)
}

/// The version of the pinned nightly, when it is installed with the sources of `core`.
fn nightly() -> Option<String> {
    let rustc =
        |argument: &[&str]| shell::output(shell::command("rustup").args(["run", NIGHTLY, "rustc"]).args(argument));
    let version = rustc(&["--version"])?;
    let core = PathBuf::from(rustc(&["--print", "sysroot"])?).join("lib/rustlib/src/rust/library/core/Cargo.toml");
    core.exists().then_some(version)
}

/// `rustc 1.96.0 (…)` as (1, 96).
fn minor(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split_whitespace().nth(1)?.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// The linker's version, after installing it when it is another or none.
fn linker(install: bool) -> Result<String> {
    let wanted = format!("bpf-linker {LINKER_VERSION}");
    let found = || shell::output(shell::command("bpf-linker").arg("--version"));
    if found().as_ref() == Some(&wanted) {
        return Ok(wanted);
    }
    let arguments =
        ["install", "bpf-linker", "--locked", "--version", LINKER_VERSION, "--no-default-features", "--features"];
    let feature = format!("llvm-{LLVM}");
    let prefix = format!("/usr/lib/llvm-{LLVM}");
    if install {
        if !Path::new(&prefix).join("bin/llvm-config").exists() {
            shell::apt_install(&[&format!("llvm-{LLVM}-dev")])?;
        }
        let mut cargo = shell::command("cargo");
        shell::run(cargo.args(arguments).arg(&feature).env("LLVM_PREFIX", &prefix))?;
        if found().as_ref() == Some(&wanted) {
            return Ok(wanted);
        }
    }
    let have = found().map_or_else(|| "there is none".to_owned(), |found| format!("found {found}"));
    bail!("the kernel programs need {wanted} ({have}): LLVM_PREFIX={prefix} cargo {} {feature}", arguments.join(" "));
}

/// `llvm-strip`, the linker's own LLVM first.
fn strip(install: bool) -> Result<PathBuf> {
    let found = || {
        let own = PathBuf::from(format!("/usr/lib/llvm-{LLVM}/bin/llvm-strip"));
        own.exists().then_some(own).or_else(|| shell::find("llvm-strip"))
    };
    if found().is_none() && install {
        shell::apt_install(&[&format!("llvm-{LLVM}")])?;
    }
    found().with_context(|| format!("no llvm-strip here: run `apt-get install llvm-{LLVM}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compiler_versions_are_compared_as_numbers() {
        assert_eq!(minor("rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)"), Some((1, 96)));
        assert_eq!(minor("rustc 1.97.0-nightly (e50aa6fba 2026-05-19)"), Some((1, 97)));
        assert!(minor("rustc 1.100.0").unwrap() > OLDEST && minor("rustc 1.9.0").unwrap() < OLDEST);
        assert_eq!(minor("rustc"), None);
    }
}
