//! How well rows are derived from code: `cargo bench -p probe-user --bench derive -- FILE…`. Two lines for each file, with
//! their values separated by tabs. `trial`: code that has tables is derived as if it had none; instructions, such with the
//! same CFA, with another, with another where the table contradicts itself, without an answer, and milliseconds of processor
//! time. `gaps`: bytes of code without tables, but for padding; bytes that rows were derived for, and milliseconds.

use std::error::Error;
use std::fs::File;

use probe::unwind::derive::trial;

fn main() -> Result<(), Box<dyn Error>> {
    // Cargo adds flags of its own.
    for path in std::env::args().skip(1).filter(|argument| !argument.starts_with("--")) {
        let tried = trial::of_file(&File::open(&path)?)?;
        println!(
            "trial\t{path}\t{}\t{}\t{}\t{}\t{}\t{:.1}",
            tried.instructions,
            tried.same,
            tried.different,
            tried.table_wrong,
            tried.unknown,
            tried.seconds * 1e3
        );
        let found = trial::coverage(&File::open(&path)?)?;
        println!("gaps\t{path}\t{}\t{}\t{:.1}", found.bytes - found.padding, found.derived, found.seconds * 1e3);
    }
    Ok(())
}
