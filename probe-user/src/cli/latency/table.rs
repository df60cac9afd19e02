//! The figures for people.

use std::fmt::Write as _;
use std::time::Duration;

use crate::latency::Row;
use crate::text::short_time;

/// Probes that were set for less of the time were not set all the time.
const PART: f64 = 0.995;

/// A line for each function, times in the unit that fits.
pub fn render(rows: &[Row], elapsed: Duration) -> String {
    let head = [
        "FUNCTION", "CALLS", "RATE/s", "ERRORS", "AVG", "P50", "P90", "P99", "P99.9", "MAX", "WITHIN", "OPEN", "OLDEST",
    ];
    let mut lines = vec![head.map(str::to_owned).to_vec()];
    let has_several = rows.iter().any(|row| row.pid != rows[0].pid);
    for row in rows {
        let time = |time: Option<u64>| time.map_or_else(|| "-".to_owned(), short_time);
        lines.push(vec![
            if has_several { format!("{}:{}", row.pid, row.name) } else { row.name.clone() },
            row.calls.to_string(),
            format!("{:.1}", row.rate),
            row.errors.to_string(),
            time(row.avg_ns),
            time(row.p50_ns),
            time(row.p90_ns),
            time(row.p99_ns),
            time(row.p999_ns),
            time(row.max_ns),
            row.attainment.map_or_else(|| "-".to_owned(), |share| format!("{:.2} %", 100.0 * share)),
            row.in_flight.to_string(),
            time(row.oldest_ns),
        ]);
    }
    let widths: Vec<usize> =
        (0..head.len()).map(|at| lines.iter().map(|line| line[at].chars().count()).max().unwrap_or(0)).collect();
    let mut text = String::new();
    for line in &lines {
        for (at, (cell, width)) in line.iter().zip(&widths).enumerate() {
            let _ = if at == 0 { write!(text, "{cell:width$}") } else { write!(text, "  {cell:>width$}") };
        }
        text.push('\n');
    }
    let _ = write!(text, "{:.1} s", elapsed.as_secs_f64());
    let part = |row: &&Row| row.attached_share < PART;
    if let Some(least) = rows.iter().filter(part).map(|row| row.attached_share).min_by(f64::total_cmp) {
        let (count, percent) = (rows.iter().filter(part).count(), 100.0 * least);
        let plural = if count == 1 { "" } else { "s" };
        let _ = write!(
            text,
            "; probes of {count} function{plural} were set for a part of the time ({percent:.1} % at least) to stay within the \
             budget, counts are scaled"
        );
    }
    for row in rows.iter().filter(|row| row.attached_share < PART && row.load >= Row::MUCH) {
        let _ = write!(text, "; {} is called so often that its probes slow it down: more calls than these", row.name);
    }
    let sum = |figure: fn(&Row) -> u64| rows.iter().map(figure).sum::<u64>();
    for (count, what) in
        [(sum(|row| row.left), "left by an exception or a jump"), (sum(|row| row.missed), "not followed")]
    {
        if count > 0 {
            let _ = write!(text, "; {count} calls {what}");
        }
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_said() {
        let row = Row { name: "f".into(), calls: 3, attached_share: 0.25, left: 2, ..Row::default() };
        let text = render(&[row], Duration::from_secs(2));
        assert!(
            text.contains("2.0 s; probes of 1 function were set for a part of the time (25.0 % at least)"),
            "{text}"
        );
        assert!(text.contains("2 calls left by an exception") && !text.contains("not followed"), "{text}");
    }
}
