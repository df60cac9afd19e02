//! Calls over the threshold: where they were called, and what their threads did meanwhile, as one profile.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Result, bail};
use serde::Serialize;

use crate::cli::record::{Output, Signals};
use crate::export::{self, Format};
use crate::latency::Row;
use crate::problem::{Exit, Problem};
use crate::record::Recording;
use crate::symbolize::{Profile, Symbolizer};

/// Callers that are told for each function.
const CALLERS: usize = 5;

/// The profile of slow calls, as it is to be written.
pub struct Destination {
    output: Output,
    format: Format,
}

/// A row with what is known of its slow calls.
#[derive(Debug, Serialize)]
pub struct SlowRow {
    #[serde(flatten)]
    pub row: Row,
    /// Most time first.
    pub slow: Vec<SlowStack>,
}

/// Slow calls from one place.
#[derive(Debug, Serialize)]
pub struct SlowStack {
    /// How many were seen.
    pub calls: u64,
    /// Their time together, in nanoseconds.
    pub total_ns: u64,
    /// The stack at their end, which below the function is that at their beginning; root first.
    pub frames: Vec<String>,
}

impl Destination {
    /// Proves that it can be written.
    pub fn open(path: &Path, format: Option<Format>) -> Result<Self> {
        let format = match format {
            Some(format) => format,
            None if path == Path::new("-") => bail!(Problem::new(
                Exit::Usage,
                "the figures are printed to stdout, and the profile cannot be as well",
                "name a file: --slow slow.html"
            )),
            None => Format::from_path(path)?,
        };
        Ok(Self { output: Output::open(path)?, format })
    }

    /// Writes what threads did inside slow calls. Says where to, and how much it is; `None` if there were no slow calls.
    pub fn write(self, recording: Recording, signals: &Signals) -> Result<Option<String>> {
        if recording.calls.is_empty() {
            return Ok(None);
        }
        let count = recording.calls.len();
        let profile = Symbolizer::new().symbolize(&recording.inside_calls());
        let options = export::Options::default();
        let written = self.output.write(signals, |out| export::write(&profile, self.format, &options, out))?;
        Ok(Some(format!("wrote {written}: what threads did inside {count} slow calls")))
    }
}

/// Adds to each row where its slow calls came from: those of the functions that have its numbers in the recording.
pub fn rows(rows: Vec<(Row, Vec<u32>)>, recording: &Recording) -> Vec<SlowRow> {
    let symbolizer = Symbolizer::new();
    let slow = |numbers: &[u32]| match numbers {
        [] => Vec::new(),
        numbers => stacks(&symbolizer.symbolize(&recording.calls_of(numbers))),
    };
    rows.into_iter().map(|(row, numbers)| SlowRow { slow: slow(&numbers), row }).collect()
}

fn stacks(profile: &Profile) -> Vec<SlowStack> {
    let mut sums: HashMap<u32, (u64, u64)> = HashMap::new();
    for sample in &profile.samples {
        let (calls, total_ns) = sums.entry(sample.stack).or_default();
        (*calls, *total_ns) = (*calls + sample.count, *total_ns + sample.value);
    }
    let stack = |(stack, (calls, total_ns))| SlowStack { calls, total_ns, frames: frames(profile, stack) };
    let mut stacks: Vec<SlowStack> = sums.into_iter().map(stack).collect();
    stacks.sort_by(|one, other| (other.total_ns, &one.frames).cmp(&(one.total_ns, &other.frames)));
    stacks.truncate(CALLERS);
    stacks
}

/// The names of a stack, root first.
fn frames(profile: &Profile, stack: u32) -> Vec<String> {
    let locations = profile.stacks[stack as usize].locations.iter().rev();
    let lines = locations.flat_map(|location| profile.locations[*location as usize].lines.iter().rev());
    lines.map(|line| line.function.clone()).collect()
}

/// For people: the callers of slow calls, a line each.
pub fn render(rows: &[SlowRow]) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    for SlowRow { row, slow } in rows.iter().filter(|row| !row.slow.is_empty()) {
        let _ = writeln!(text, "\nslow calls of {}:", row.name);
        for SlowStack { calls, total_ns, frames } in slow {
            let time = crate::text::short_time(*total_ns);
            let _ = writeln!(text, "{calls:>7} in {time:>7}  {}", frames.join(";"));
        }
    }
    text
}
