//! How fast unwind tables are built: `cargo bench -p probe-user --bench tables -- FILE…`. A line for each file: bytes of
//! `.eh_frame`, rows, bytes of the table, and the shortest time in microseconds, separated by tabs. Files are read again each
//! time, out of the page cache.

use std::error::Error;
use std::fs::{self, File};
use std::hint::black_box;
use std::time::{Duration, Instant};

use object::{Object as _, ObjectSection as _};
use probe::unwind::{Effort, Table};

/// Of so many runs one is not disturbed by what else the machine does.
const RUNS: usize = 7;

fn main() -> Result<(), Box<dyn Error>> {
    // Cargo adds flags of its own.
    for path in std::env::args().skip(1).filter(|argument| !argument.starts_with("--")) {
        let eh_frame = eh_frame_bytes(&path)?;
        let table = Table::of_file(&File::open(&path)?, Effort::Full)?;
        let times: Vec<Duration> = (0..RUNS).map(|_| time(&path)).collect::<Result<_, _>>()?;
        let best = times.into_iter().min().unwrap_or_default();
        println!("{path}\t{eh_frame}\t{}\t{}\t{}", table.rows.len(), table.bytes(), best.as_micros());
    }
    Ok(())
}

fn time(path: &str) -> Result<Duration, Box<dyn Error>> {
    let begin = Instant::now();
    black_box(Table::of_file(&File::open(path)?, Effort::Full)?);
    Ok(begin.elapsed())
}

fn eh_frame_bytes(path: &str) -> Result<u64, Box<dyn Error>> {
    let bytes = fs::read(path)?;
    let file = object::File::parse(bytes.as_slice())?;
    Ok(file.section_by_name(".eh_frame").map_or(0, |section| section.size()))
}
