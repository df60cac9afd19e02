//! The thresholds of rules, each in the unit of its metric.

use std::time::Duration;

use toml::Value;

use super::units::parse_duration;
use crate::monitor::Metric;

/// What may be written, for people.
pub(super) fn kind(metric: Metric) -> &'static str {
    match metric {
        Metric::Cpu => "a number of percent of one core",
        Metric::FunctionP99 | Metric::FunctionAvg | Metric::FunctionOldest => {
            "a duration such as `40ms`, or a number of seconds"
        }
        Metric::FunctionAttainment => "a percentage such as `95%`, or a share up to 1 such as `0.95`",
        Metric::FunctionInFlight => "a number of calls",
        Metric::FunctionRate | Metric::FunctionErrors => "a number of calls a second, such as `100` or `100/s`",
    }
}

/// A threshold in the metric's unit; `None` if that is not what is written.
pub(super) fn parse(metric: Metric, text: &str) -> Option<f64> {
    match metric {
        Metric::Cpu => number(text, &["%"]),
        Metric::FunctionP99 | Metric::FunctionAvg | Metric::FunctionOldest => {
            parse_duration(text).ok().map(|duration| duration.as_nanos() as f64)
        }
        Metric::FunctionAttainment => {
            let is_share = !text.contains('%');
            let value = number(text, &["%"])?;
            let percent = if is_share && value <= 1.0 { 100.0 * value } else { value };
            Some(percent).filter(|percent| *percent <= 100.0)
        }
        Metric::FunctionInFlight => number(text, &[]),
        Metric::FunctionRate | Metric::FunctionErrors => number(text, &["/s"]),
    }
}

/// The same as it is written.
pub(super) fn show(metric: Metric, threshold: f64) -> Value {
    match metric {
        Metric::FunctionP99 | Metric::FunctionAvg | Metric::FunctionOldest => {
            humantime::format_duration(Duration::from_nanos(threshold as u64)).to_string().into()
        }
        Metric::FunctionAttainment => format!("{threshold}%").into(),
        _ => threshold.into(),
    }
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
        ] {
            assert_eq!(parse(metric, text), expected, "{} {text}", metric.name());
            let Some(value) = expected else { continue };
            let shown = show(metric, value);
            let shown = shown.as_str().map_or_else(|| shown.to_string(), str::to_owned);
            assert_eq!(parse(metric, &shown), expected, "{shown}");
        }
    }
}
