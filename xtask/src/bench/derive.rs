//! `cargo xtask bench derive`: unwind rows that are derived from instructions. Where there are tables they are the truth: the
//! same code is derived as if it had none, and compared at every instruction. Where there are none it counts how much of the
//! code has rows, and how long that takes.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::shell;

/// Compilers', assemblers', and the product's own code, with tables.
const WITH_TABLES: [&str; 9] = [
    "/usr/lib/x86_64-linux-gnu/libc.so.6",
    "/usr/lib/x86_64-linux-gnu/libz.so.1",
    "/usr/lib/x86_64-linux-gnu/liblzma.so.5",
    "/usr/lib/x86_64-linux-gnu/libstdc++.so.6",
    "/usr/lib/x86_64-linux-gnu/libcrypto.so.3",
    "/usr/lib/x86_64-linux-gnu/libpython3.11.so.1.0",
    "/usr/bin/node",
    "/usr/bin/redis-server",
    "/usr/bin/openssl",
];
/// Files with much code that has none.
const WITHOUT: [&str; 5] = [
    "/usr/lib/x86_64-linux-musl/libc.so",
    "/usr/lib/x86_64-linux-gnu/libdav1d.so.6",
    "/usr/lib/x86_64-linux-gnu/libx264.so.164",
    "/usr/lib/x86_64-linux-gnu/libgmp.so.10",
    "/usr/lib/x86_64-linux-gnu/libopenblas.so.0",
];
/// Instructions in a hundred thousand that may have another answer than their table.
const MOST_DIFFERENT: f64 = 1.0;

/// Runs `cargo xtask bench derive`.
pub fn run() -> Result<()> {
    println!("Derived rows against tables, at every instruction");
    println!("  {:<42} {:>12} {:>9} {:>11} {:>9} {:>9}", "", "instructions", "same", "different", "unknown", "CPU");
    let mut worst: f64 = 0.0;
    for line in lines(&WITH_TABLES)?.iter().filter(|line| line[0] == "trial") {
        let [_, path, values @ ..] = line.as_slice() else { continue };
        let [all, same, different, _, unknown, time] = numbers(values)?;
        println!(
            "  {path:<42} {all:>12} {:>7.2} % {different:>11} {:>7.2} % {time:>6.0} ms",
            100.0 * same / all,
            100.0 * unknown / all
        );
        worst = worst.max(different / all * 1e5);
    }
    println!("\nCode without tables, of which rows were derived");
    println!("  {:<42} {:>12} {:>9} {:>9}", "", "bytes", "derived", "CPU");
    for line in lines(&WITHOUT)?.iter().filter(|line| line[0] == "gaps") {
        let [_, path, values @ ..] = line.as_slice() else { continue };
        let [all, derived, time] = numbers(values)?;
        println!("  {path:<42} {all:>12} {:>7.2} % {time:>6.0} ms", 100.0 * derived / all);
    }
    ensure!(worst <= MOST_DIFFERENT, "{worst:.2} of 100,000 instructions differ from their table");
    Ok(())
}

/// The lines that the benchmark of the library prints about those files that are there, as fields.
fn lines(files: &[&str]) -> Result<Vec<Vec<String>>> {
    let files = files.iter().filter(|path| Path::new(path).exists());
    let mut cargo = shell::cargo();
    cargo.args(["bench", "--quiet", "--package", "probe-user", "--bench", "derive", "--"]).args(files);
    let output = shell::output(&mut cargo).context("the benchmark of derived rows fails")?;
    Ok(output.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect())
}

fn numbers<const N: usize>(values: &[String]) -> Result<[f64; N]> {
    let numbers: Vec<f64> = values.iter().map(|value| value.parse()).collect::<Result<_, _>>()?;
    numbers.try_into().ok().context("another number of values than expected")
}
