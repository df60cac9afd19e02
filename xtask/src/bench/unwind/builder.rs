//! How fast `probe` makes unwind tables of `.eh_frame`, on large files of this machine.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::programs::installed;
use crate::shell;

/// Where the distribution has its libraries.
const LIBRARIES: &str = "/usr/lib/x86_64-linux-gnu";
/// A browser is where people have one.
const BROWSER: &str = "/usr/lib/chromium/chromium";

/// Prints a line for each file; returns the lowest speed, in bytes per second.
pub fn run() -> Result<Option<f64>> {
    let files = files();
    if files.is_empty() {
        eprintln!("xtask: no large files here to make unwind tables of");
        return Ok(None);
    }
    let mut cargo = shell::cargo();
    cargo.args(["bench", "--quiet", "--package", "probe-user", "--bench", "tables", "--"]).args(&files);
    let output = shell::output(&mut cargo).context("the benchmark of the table builder fails")?;
    println!("\nBuilding unwind tables, files in the page cache, best of 7");
    println!("  {:<40} {:>12} {:>9} {:>10} {:>8} {:>6}", "", ".eh_frame", "rows", "table", "time", "MB/s");
    let mut lowest: Option<f64> = None;
    for line in output.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let &[path, eh_frame, rows, table, microseconds] = fields.as_slice() else { continue };
        let (eh_frame, time): (f64, f64) = (eh_frame.parse()?, microseconds.parse()?);
        let (table, speed): (f64, f64) = (table.parse()?, eh_frame / time);
        println!(
            "  {path:<40} {:>9.1} MB {rows:>9} {:>7.1} MB {:>5.1} ms {speed:>6.0}",
            eh_frame / 1e6,
            table / 1e6,
            time / 1e3
        );
        lowest = Some(lowest.map_or(speed, |lowest| lowest.min(speed)));
    }
    Ok(lowest.map(|speed| speed * 1e6))
}

/// Programs that are measured otherwise, a browser, and the two largest libraries.
fn files() -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = ["node", "python3"].iter().filter_map(|name| installed(name).ok()).collect();
    files.extend(Some(PathBuf::from(BROWSER)).filter(|path| path.exists()));
    let mut libraries: Vec<(u64, PathBuf)> =
        fs::read_dir(LIBRARIES).into_iter().flatten().flatten().filter_map(sized).collect();
    libraries.sort_unstable();
    files.extend(libraries.into_iter().rev().take(2).map(|(_, path)| path));
    files
}

/// A library's size and path; not of links, which lead to one that is there as well.
fn sized(entry: fs::DirEntry) -> Option<(u64, PathBuf)> {
    let path = entry.path();
    let is_library = Path::new(path.file_name()?).to_str()?.contains(".so") && entry.file_type().ok()?.is_file();
    is_library.then_some((entry.metadata().ok()?.len(), path))
}
