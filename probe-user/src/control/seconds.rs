//! `Seconds`: a length of time as the command line and the configuration write it, `"30s"` or a bare number of seconds.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A length of time; written as `"1m 30s"`, read as that or as a number of seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seconds(pub Duration);

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(self.0))
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl de::Visitor<'_> for Any {
            type Value = Seconds;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration like \"30s\", or a number of seconds")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Seconds, E> {
                if let Ok(seconds) = text.trim().parse::<f64>() {
                    return self.visit_f64(seconds);
                }
                let wrong = || E::custom(format!("`{text}` is not a duration; write \"30s\", or a number of seconds"));
                humantime::parse_duration(text.trim()).map(Seconds).map_err(|_| wrong())
            }

            fn visit_f64<E: de::Error>(self, seconds: f64) -> Result<Seconds, E> {
                Duration::try_from_secs_f64(seconds).map(Seconds).map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<Seconds, E> {
                Ok(Seconds(Duration::from_secs(seconds)))
            }

            fn visit_i64<E: de::Error>(self, seconds: i64) -> Result<Seconds, E> {
                self.visit_f64(seconds as f64)
            }
        }
        deserializer.deserialize_any(Any)
    }
}

impl schemars::JsonSchema for Seconds {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": ["string", "number"],
            "minimum": 0,
            "description": "A length of time: \"30s\", \"1m 30s\", or a number of seconds.",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_they_are_written_elsewhere() {
        let read = |json: &str| serde_json::from_str::<Seconds>(json).ok().map(|seconds| seconds.0);
        for (json, milliseconds) in
            [("\"30s\"", 30_000), ("30", 30_000), ("0.5", 500), ("\"2\"", 2000), ("\"1m 5s\"", 65_000)]
        {
            assert_eq!(read(json), Some(Duration::from_millis(milliseconds)), "{json}");
        }
        for json in ["-1", "\"soon\"", "\"\"", "null", "1e300", "\"-3s\""] {
            assert_eq!(read(json), None, "{json}");
        }
        let written = serde_json::to_string(&Seconds(Duration::from_millis(90_500))).expect("serializes");
        assert_eq!(written, "\"1m 30s 500ms\"");
        assert_eq!(read(&written), Some(Duration::from_millis(90_500)));
    }
}
