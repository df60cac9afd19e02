//! Durations and sizes as people write them: `30s`, `1h 30m`, `500ms`, a bare number of seconds; `64MiB`, `1GB`, a bare
//! number of bytes.

use std::time::Duration;

use anyhow::{Result, anyhow, bail};

/// Longest duration that is accepted: ten years. It keeps every sum of times far from overflowing.
const MAX_SECONDS: u64 = 10 * 365 * 86_400;

/// Parses a duration.
pub fn parse_duration(text: &str) -> Result<Duration> {
    let bad = || anyhow!("`{text}` is not a duration; write `30s`, `5m`, `500ms`, or a number of seconds");
    let trimmed = text.trim();
    let duration = match trimmed.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).map_err(|_| bad())?,
        Err(_) => humantime::parse_duration(trimmed).map_err(|_| bad())?,
    };
    if duration.as_secs() > MAX_SECONDS {
        bail!("`{text}` is longer than ten years");
    }
    Ok(duration)
}

/// Parses a size; the result is in bytes.
pub fn parse_size(text: &str) -> Result<u64> {
    let bad = || anyhow!("`{text}` is not a size; write `64MiB`, `1GB`, or a number of bytes");
    let trimmed = text.trim();
    let split = trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(split);
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "ki" | "kib" => 1 << 10,
        "m" | "mi" | "mib" => 1 << 20,
        "g" | "gi" | "gib" => 1 << 30,
        "t" | "ti" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return Err(bad()),
    };
    number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor)).ok_or_else(bad)
}

/// Writes a size with the largest binary unit that holds it exactly.
pub fn format_size(bytes: u64) -> String {
    for (factor, unit) in [(1u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")] {
        if bytes >= factor && bytes.is_multiple_of(factor) {
            return format!("{}{unit}", bytes / factor);
        }
    }
    bytes.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, millis) in [
            ("30s", 30_000),
            ("5m", 300_000),
            ("500ms", 500),
            ("7", 7_000),
            ("0.5", 500),
            ("1h 30m", 5_400_000),
            ("0", 0),
        ] {
            assert_eq!(parse_duration(text).expect(text), Duration::from_millis(millis), "{text}");
        }
        for text in ["", "x", "-1", "5 parsecs", "NaN", "inf", "1e30", "11years"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in
            [("64MiB", 64 << 20), ("1GB", 1_000_000_000), ("512", 512), ("2 KiB", 2048), ("1g", 1 << 30)]
        {
            assert_eq!(parse_size(text).expect(text), bytes, "{text}");
            assert_eq!(parse_size(&format_size(bytes)).expect(text), bytes, "{text}");
        }
        for text in ["", "MiB", "-1", "1.5GiB", "5 parsecs", "99999999999999999999", "18446744073709551615KiB"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
