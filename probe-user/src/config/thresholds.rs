//! The thresholds of rules, each in the unit of its metric.

use toml::Value;

use super::units::{format_size, parse_size};
use crate::monitor::Metric;

/// What may be written, for people.
pub(super) fn kind(metric: Metric) -> &'static str {
    match metric {
        Metric::Cpu => "a number of percent of one core",
        Metric::MemoryRssPercent => "a number of percent",
        Metric::MemoryRss => "a size such as `60MiB`, or a number of bytes",
        Metric::MemoryGrowth => "a size a minute such as `60MiB` or `60MiB/min`, or a number of bytes",
    }
}

/// A threshold in the metric's unit; `None` if that is not what is written.
pub(super) fn parse(metric: Metric, text: &str) -> Option<f64> {
    match metric {
        Metric::Cpu | Metric::MemoryRssPercent => number(text, &["%"]),
        Metric::MemoryRss => size(text),
        Metric::MemoryGrowth => size(text.trim().strip_suffix("/min").unwrap_or(text)),
    }
}

/// The same as it is written.
pub(super) fn show(metric: Metric, threshold: f64) -> Value {
    match metric {
        Metric::MemoryRss | Metric::MemoryGrowth => format_size(threshold as u64).into(),
        Metric::Cpu | Metric::MemoryRssPercent => threshold.into(),
    }
}

fn size(text: &str) -> Option<f64> {
    parse_size(text).ok().map(|bytes| bytes as f64)
}

/// A number that is not negative, with one of the units behind it or none.
fn number(text: &str, units: &[&str]) -> Option<f64> {
    let text = text.trim();
    let bare = units.iter().find_map(|unit| text.strip_suffix(unit)).unwrap_or(text).trim_end();
    bare.parse().ok().filter(|value: &f64| value.is_finite() && *value >= 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_have_the_unit_of_their_metric() {
        for (metric, text, expected) in [
            (Metric::Cpu, "80 %", Some(80.0)),
            (Metric::Cpu, "80MiB", None),
            (Metric::MemoryRss, "60MiB", Some(62_914_560.0)),
            (Metric::MemoryRss, "4096", Some(4096.0)),
            (Metric::MemoryRss, "80%", None),
            (Metric::MemoryRss, "-1", None),
            (Metric::MemoryRssPercent, "90%", Some(90.0)),
            (Metric::MemoryRssPercent, "90.5", Some(90.5)),
            (Metric::MemoryGrowth, "1GiB/min", Some(1_073_741_824.0)),
            (Metric::MemoryGrowth, "10MB", Some(1e7)),
            (Metric::MemoryGrowth, "fast", None),
        ] {
            assert_eq!(parse(metric, text), expected, "{} {text}", metric.name());
            let Some(value) = expected else { continue };
            let shown = show(metric, value);
            let shown = shown.as_str().map_or_else(|| shown.to_string(), str::to_owned);
            assert_eq!(parse(metric, &shown), expected, "{shown}");
        }
    }
}
