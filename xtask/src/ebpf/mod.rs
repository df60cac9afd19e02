//! `cargo xtask ebpf`: compiles what runs in the kernel into `probe-ebpf/dist/`, reproducibly. The object is committed,
//! so that building `probe` needs no BPF toolchain; `--check` proves that it is what the sources produce.

mod toolchain;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::shell;
use toolchain::Toolchain;

/// Flags of `cargo xtask ebpf`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Build apart and compare with the committed object, changing nothing
    #[arg(long)]
    check: bool,
    /// Use what is on this machine and install nothing
    #[arg(long)]
    no_install: bool,
}

/// The committed object, and the note of which tools made it.
const OBJECT: &str = "probe-ebpf/dist/probe.bpf.o";
const MADE_BY: &str = "probe-ebpf/dist/toolchain.txt";

/// Runs `cargo xtask ebpf`.
pub fn run(args: &Args) -> Result<()> {
    let tools = toolchain::find(!args.no_install)?;
    if args.check { check(&tools) } else { build(&tools) }
}

fn build(tools: &Toolchain) -> Result<()> {
    let built = compile(tools, &shell::target_dir().join("ebpf"), false)?;
    let object = shell::checkout().join(OBJECT);
    let folder = object.parent().context("the object has no folder")?;
    std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let changed = std::fs::read(&object).ok().as_ref() != Some(&built);
    if changed {
        write(&object, &built)?;
    }
    write(&shell::checkout().join(MADE_BY), tools.describe().as_bytes())?;
    let state = if changed { "written" } else { "unchanged" };
    println!("{OBJECT}: {} bytes, {state} ({})", built.len(), tools.name);
    Ok(())
}

fn check(tools: &Toolchain) -> Result<()> {
    let object = shell::checkout().join(OBJECT);
    let committed = std::fs::read(&object)
        .with_context(|| format!("cannot read {OBJECT}; run `cargo xtask ebpf` and commit the result"))?;
    let made_by = std::fs::read_to_string(shell::checkout().join(MADE_BY))
        .with_context(|| format!("cannot read {MADE_BY}; run `cargo xtask ebpf` and commit the result"))?;
    let here = tools.describe();
    if made_by != here {
        bail!(
            "{OBJECT} was made by other tools than those found here, so its bytes cannot be compared.\n\
             made by:\n{}\nfound here:\n{}\n\
             Install the tools it was made by, or run `cargo xtask ebpf` with those found here and commit the result.",
            indent(&made_by),
            indent(&here)
        );
    }
    // Built apart and from nothing but the host's macros, so that no earlier build can stand in for the sources.
    let apart = shell::target_dir().join("ebpf-check");
    let _ = std::fs::remove_dir_all(apart.join(TARGET));
    let built = compile(tools, &apart, true)?;
    if built != committed {
        let at = built.iter().zip(&committed).position(|(a, b)| a != b).unwrap_or(built.len().min(committed.len()));
        bail!(
            "{OBJECT} is not what the sources produce: {} bytes committed, {} built, first difference at byte {at}.\n\
             Run `cargo xtask ebpf` and commit the result.",
            committed.len(),
            built.len()
        );
    }
    println!("{OBJECT}: the sources produce exactly these {} bytes ({})", built.len(), tools.name);
    Ok(())
}

/// Builds the object in a target folder of its own and returns its bytes, without debug sections but with BTF.
fn compile(tools: &Toolchain, target: &Path, locked: bool) -> Result<Vec<u8>> {
    let mut cargo = tools.cargo();
    cargo.args(["build", "--quiet", "--profile", "kernel", "--package", "probe-ebpf", "--bin", "probe"]);
    cargo.args(["--features", "kernel", "--target", TARGET, "--target-dir"]).arg(target);
    if locked {
        cargo.arg("--locked");
    }
    cargo.env("CARGO_ENCODED_RUSTFLAGS", rust_flags());
    shell::run(&mut cargo).with_context(|| format!("the kernel programs do not build with {}", tools.name))?;

    let linked = target.join(TARGET).join("kernel/probe");
    let stripped = target.join("probe.bpf.o");
    shell::run(shell::command(&tools.strip).arg("--strip-debug").arg("-o").arg(&stripped).arg(&linked))?;
    std::fs::read(&stripped).with_context(|| format!("cannot read {}", stripped.display()))
}

const TARGET: &str = "bpfel-unknown-none";

/// Flags by which two checkouts on two machines give the same bytes. Joined as cargo wants them, so that folders may
/// have spaces in their names.
fn rust_flags() -> OsString {
    let flags =
        ["-C", "linker=bpf-linker", "-C", "link-arg=--btf", "-C", "debuginfo=2"].map(OsString::from).into_iter();
    let folders: [(PathBuf, &str); 3] =
        [(shell::rustup_home(), "/rustup"), (shell::cargo_home(), "/cargo"), (shell::checkout(), "/probe")];
    let remapped = folders.into_iter().map(|(folder, name)| {
        let mut flag = OsString::from("--remap-path-prefix=");
        flag.push(folder);
        flag.push("=");
        flag.push(name);
        flag
    });
    flags.chain(remapped).collect::<Vec<_>>().join(&OsString::from("\x1f"))
}

/// Writes a file whole or not at all.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().context("a file needs a folder")?;
    let whole = || -> std::io::Result<()> {
        let file = tempfile::Builder::new()
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
            .tempfile_in(folder)?;
        std::fs::write(file.path(), bytes)?;
        file.persist(path)?;
        Ok(())
    };
    whole().with_context(|| format!("cannot write {}", path.display()))
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}
