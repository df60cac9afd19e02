//! The figures for people.

use std::fmt::Write as _;
use std::time::Duration;

use crate::cli::columns;
use crate::latency::Row;
use crate::text::short_time;

/// A line for each function, times in the unit that fits.
pub fn render(rows: &[Row], elapsed: Duration) -> String {
    let head = [
        "FUNCTION", "CALLS", "RATE/s", "SEEN", "ERRORS", "AVG", "P50", "P90", "P99", "P99.9", "MAX", "WITHIN", "OPEN",
        "OLDEST",
    ];
    let mut lines = vec![head.map(str::to_owned).to_vec()];
    let has_several = rows.iter().any(|row| row.pid != rows[0].pid);
    for row in rows {
        let time = |time: Option<u64>| time.map_or_else(|| "-".to_owned(), short_time);
        let name = columns::fit(&row.name);
        let name = if has_several { format!("{}:{name}", row.pid) } else { name };
        // A zero would say that nobody calls it.
        if row.is_refused() {
            let mut line = vec!["-".to_owned(); head.len()];
            line[0] = name;
            lines.push(line);
            continue;
        }
        lines.push(vec![
            name,
            counted(row, row.calls as f64, row.calls_low as f64),
            counted(row, row.rate, row.rate_low),
            share(row),
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
        (0..head.len()).map(|at| lines.iter().map(|line| columns::width(&line[at])).max().unwrap_or(0)).collect();
    let mut text = String::new();
    for line in &lines {
        for (at, (cell, width)) in line.iter().zip(&widths).enumerate() {
            if at == 0 {
                text.push_str(&columns::left(cell, *width));
            } else {
                text.push_str("  ");
                text.push_str(&columns::right(cell, *width));
            }
        }
        text.push('\n');
    }
    let _ = write!(text, "{:.1} s", elapsed.as_secs_f64());
    let timed = || rows.iter().filter(|row| !row.is_refused());
    if timed().any(|row| !row.is_exact()) {
        text.push_str("; SEEN is the share of the time in which probes were set: they go to stay within the budget, and new processes have none at first");
        if timed().any(|row| row.mark() == "~") {
            text.push_str("; ~ is an estimate from it");
        }
        if timed().any(|row| row.mark() == "≥") {
            text.push_str(
                "; ≥ is a lower bound: too few calls were seen to say more, or the probes cost much more than they",
            );
        }
    }
    let sum = |figure: fn(&Row) -> u64| rows.iter().map(figure).sum::<u64>();
    for (count, what) in [
        (sum(|row| row.thread_ended), "ended with the thread or its program"),
        (sum(|row| row.left), "left by an exception or a jump"),
        (sum(|row| row.missed), "not followed"),
    ] {
        if count > 0 {
            let plural = if count == 1 { "" } else { "s" };
            let _ = write!(text, "; {count} call{plural} {what}");
        }
    }
    text.push('\n');
    for row in rows.iter().filter(|row| !row.problem.is_empty()) {
        let not = if row.is_refused() { "not timed" } else { "no longer timed" };
        let _ = writeln!(text, "{}: {not}: {}", row.name, row.problem);
    }
    text
}

/// A number of calls as far as it is known: with its mark, and no more digits than an estimate has.
fn counted(row: &Row, number: f64, low: f64) -> String {
    let shown = |number: f64| if number < 100.0 { format!("{number:.1}") } else { format!("{number:.0}") };
    match row.mark() {
        "" if number.fract() == 0.0 && number == row.calls as f64 => format!("{number:.0}"),
        "" => format!("{number:.1}"),
        "≥" => format!("≥{}", shown(rounded(low, f64::floor))),
        mark => format!("{mark}{}", shown(rounded(number, f64::round))),
    }
}

/// To three digits.
fn rounded(number: f64, round: fn(f64) -> f64) -> f64 {
    if number <= 0.0 {
        return 0.0;
    }
    let unit = 10f64.powf(number.log10().floor() - 2.0).min(1.0e15);
    round(number / unit) * unit
}

/// The share of the time in which a function was looked at.
fn share(row: &Row) -> String {
    let percent = 100.0 * row.attached_share;
    match percent {
        _ if row.is_exact() => "100 %".to_owned(),
        10.0.. => format!("{percent:.0} %"),
        1.0.. => format!("{percent:.1} %"),
        _ => format!("{percent:.2} %"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_said() {
        let row = Row {
            name: "f".into(),
            calls: 41_523,
            calls_low: 39_999,
            calls_high: Some(43_000),
            rate: 20_761.5,
            rate_low: 19_999.5,
            attached_share: 0.0512,
            left: 2,
            thread_ended: 1,
            ..Row::default()
        };
        let text = render(std::slice::from_ref(&row), Duration::from_secs(2));
        assert!(text.contains(" ~41500 ") && text.contains(" ~20800 ") && text.contains(" 5.1 % "), "{text}");
        assert!(text.contains("2.0 s; SEEN is the share") && !text.contains("lower bound"), "{text}");
        assert!(text.contains("1 call ended with the thread") && text.contains("2 calls left by an exc"), "{text}");
        assert!(!text.contains("not followed"), "{text}");
        let text = render(&[Row { calls_high: None, ..row.clone() }], Duration::from_secs(2));
        assert!(text.contains(" ≥39900 ") && text.contains(" ≥19900 ") && text.contains("≥ is a lower"), "{text}");
        let text = render(&[Row { attached_share: 1.0, ..row }], Duration::from_secs(2));
        assert!(text.contains(" 41523 ") && text.contains(" 20761.5 ") && text.contains(" 100 % "), "{text}");
    }

    #[test]
    fn what_may_not_be_timed_has_no_figures_and_a_reason() {
        let timed = Row { name: "f".into(), calls: 3, attached_share: 1.0, ..Row::default() };
        let text = render(&[timed, Row::refused(0, "g", "it is patched")], Duration::from_secs(2));
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[2].starts_with("g ") && !lines[2].contains('0'), "{text}");
        assert_eq!(lines[3..], ["2.0 s", "g: not timed: it is patched"]);
    }
}
