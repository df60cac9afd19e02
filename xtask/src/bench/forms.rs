//! `cargo xtask bench forms`: which forms the unwind tables of this machine's programs and libraries have, and how many rows
//! `probe` cannot follow.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::shell;

/// Flags of `cargo xtask bench forms`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folders that are searched for programs and libraries
    #[arg(default_values = ["/usr/lib", "/usr/libexec", "/usr/bin", "/usr/sbin", "/opt"])]
    folders: Vec<PathBuf>,
}

/// What `probe` wants of itself: the share of rows that it cannot follow.
const MOST_LEFT: f64 = 0.0001;

/// Runs `cargo xtask bench forms`.
pub fn run(args: &Args) -> Result<()> {
    let mut files = Vec::new();
    for folder in &args.folders {
        collect(folder, &mut files);
    }
    let list = tempfile::NamedTempFile::new()?;
    let lines: Vec<String> = files.iter().filter_map(|path| Some(format!("{}\n", path.to_str()?))).collect();
    fs::write(list.path(), lines.concat())?;
    let mut cargo = shell::cargo();
    cargo.args(["bench", "--quiet", "--package", "probe-user", "--bench", "forms"]).stdin(File::open(list.path())?);
    let output = shell::output(&mut cargo).context("the census of unwind tables fails")?;
    let mut forms: Vec<(&str, u64, &str)> = Vec::new();
    for line in output.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let &[form, rows, files] = fields.as_slice() else { continue };
        forms.push((form, rows.parse()?, files));
    }
    forms.sort_by_key(|&(_, rows, _)| std::cmp::Reverse(rows));
    let is_row = |form: &str| !["files", "entries that cannot be read"].contains(&form);
    let rows = |wanted: &dyn Fn(&str) -> bool| {
        forms.iter().filter(|(form, ..)| wanted(form)).map(|(_, rows, _)| rows).sum::<u64>()
    };
    let all = rows(&is_row);
    println!("Forms of unwind tables");
    for (form, rows, files) in &forms {
        let share =
            if is_row(form) { format!("{:.4} %", 100.0 * *rows as f64 / all.max(1) as f64) } else { String::new() };
        println!("  {form:<45} {rows:>10} {share:>10}  {files}");
    }
    let left = rows(&|form| form.starts_with("no: ")) as f64 / all.max(1) as f64;
    let verdict = if left < MOST_LEFT { "reached" } else { "missed" };
    println!(
        "  rows that cannot be followed: {:.4} %, wanted under {:.4} %: {verdict}",
        100.0 * left,
        100.0 * MOST_LEFT
    );
    Ok(())
}

/// Adds what may be a program or a library, and follows no links.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, Ok(kind)) = (entry.path(), entry.file_type()) else { continue };
        let is_executable = || entry.metadata().is_ok_and(|metadata| metadata.permissions().mode() & 0o111 != 0);
        let is_library = || path.file_name().is_some_and(|name| name.to_string_lossy().contains(".so"));
        if kind.is_dir() {
            collect(&path, files);
        } else if kind.is_file() && (is_library() || is_executable()) {
            files.push(path);
        }
    }
}
