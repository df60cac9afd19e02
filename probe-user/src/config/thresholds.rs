//! The thresholds of rules, each in the unit of its metric.

use std::time::Duration;

use toml::Value;

use super::units::{format_size, parse_duration, parse_size};
use crate::monitor::{Metric, Unit};

/// What may be written, for people.
pub(super) fn kind(metric: Metric) -> &'static str {
    match metric.kind() {
        Unit::PercentOfCore => "a number of percent of one core",
        Unit::Percent(_) => "a number of percent",
        Unit::Nanoseconds => "a duration such as `40ms`, or a number of seconds",
        Unit::PercentOfCalls => "a percentage such as `95%`, or a share up to 1 such as `0.95`",
        Unit::Count("calls") => "a number of calls",
        Unit::Count(_) => "a number",
        Unit::PerSecond("calls a second") => "a number of calls a second, such as `100` or `100/s`",
        Unit::PerSecond(_) => "a number a second, such as `100` or `100/s`",
        Unit::Bytes => "a size such as `60MiB`, or a number of bytes",
        Unit::BytesPerMinute => "a size a minute such as `60MiB` or `60MiB/min`, or a number of bytes",
        Unit::BytesPerSecond => "a size a second such as `60MiB` or `60MiB/s`, or a number of bytes",
    }
}

/// A threshold in the metric's unit; `None` if that is not what is written.
pub(super) fn parse(metric: Metric, text: &str) -> Option<f64> {
    match metric.kind() {
        Unit::Nanoseconds => parse_duration(text).ok().map(|duration| duration.as_nanos() as f64),
        Unit::PercentOfCalls => {
            let is_share = !text.contains('%');
            let value = number(text, &["%"])?;
            let percent = if is_share && value <= 1.0 { 100.0 * value } else { value };
            Some(percent).filter(|percent| *percent <= 100.0)
        }
        Unit::Count(_) => number(text, &[]),
        Unit::PerSecond(_) => number(text, &["/s"]),
        Unit::PercentOfCore | Unit::Percent(_) => number(text, &["%"]),
        Unit::Bytes => size(text),
        Unit::BytesPerMinute => size(text.trim().strip_suffix("/min").unwrap_or(text)),
        Unit::BytesPerSecond => size(text.trim().strip_suffix("/s").unwrap_or(text)),
    }
}

/// The same as it is written.
pub(super) fn show(metric: Metric, threshold: f64) -> Value {
    match metric.kind() {
        Unit::Nanoseconds => humantime::format_duration(Duration::from_nanos(threshold as u64)).to_string().into(),
        Unit::PercentOfCalls => format!("{threshold}%").into(),
        Unit::Bytes | Unit::BytesPerMinute | Unit::BytesPerSecond => format_size(threshold as u64).into(),
        _ => threshold.into(),
    }
}

fn size(text: &str) -> Option<f64> {
    parse_size(text).ok().map(|bytes| bytes as f64)
}

/// A number that is not negative, with one of the units behind it or none.
pub(super) fn number(text: &str, units: &[&str]) -> Option<f64> {
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
            (Metric::Cpu, "80ms", None),
            (Metric::FunctionP99, "40ms", Some(4e7)),
            (Metric::FunctionP99, "0.5", Some(5e8)),
            (Metric::FunctionP99, "40%", None),
            (Metric::FunctionAttainment, "95%", Some(95.0)),
            (Metric::FunctionAttainment, "95", Some(95.0)),
            (Metric::FunctionAttainment, "0.95", Some(95.0)),
            (Metric::FunctionAttainment, "0.95%", Some(0.95)),
            (Metric::FunctionAttainment, "1", Some(100.0)),
            (Metric::FunctionAttainment, "101%", None),
            (Metric::FunctionInFlight, "3", Some(3.0)),
            (Metric::FunctionInFlight, "-3", None),
            (Metric::FunctionRate, "100/s", Some(100.0)),
            (Metric::FunctionErrors, "NaN", None),
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
            (Metric::IoRead, "10MiB/s", Some(10_485_760.0)),
            (Metric::IoWrite, "10%", None),
            (Metric::Fds, "900", Some(900.0)),
            (Metric::Threads, "9/s", None),
            (Metric::SwitchesVoluntary, "5000/s", Some(5000.0)),
            (Metric::CpuQuota, "90%", Some(90.0)),
            (Metric::PressureIo, "10ms", None),
        ] {
            assert_eq!(parse(metric, text), expected, "{} {text}", metric.name());
            let Some(value) = expected else { continue };
            let shown = show(metric, value);
            let shown = shown.as_str().map_or_else(|| shown.to_string(), str::to_owned);
            assert_eq!(parse(metric, &shown), expected, "{shown}");
        }
    }
}
