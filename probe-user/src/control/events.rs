//! Events: what happened to rules, in an order that one can go on from.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::snapshot::Timestamp;

/// A place in the order of events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Which life of the collector: a number that is another one after each start.
    pub life: u64,
    /// Number of the event, from 1; 0 is before all.
    pub number: u64,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{}", self.life, self.number)
    }
}

impl FromStr for Cursor {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "the id of an event is two numbers with a hyphen between";
        let (life, number) = text.split_once('-').ok_or(wrong)?;
        Ok(Self { life: u64::from_str_radix(life, 16).map_err(|_| wrong)?, number: number.parse().map_err(|_| wrong)? })
    }
}

/// Events in their order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Events {
    /// What happened, oldest first: a bounded number, more follows with the next question.
    pub events: Vec<Event>,
    /// Where to go on: the place of the last of them, or where one was.
    pub next: Cursor,
    /// Events between the cursor and these are forgotten.
    pub missed: bool,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// Its place in the order, as `Last-Event-ID` has it.
    #[schemars(with = "String")]
    #[serde(with = "as_text")]
    pub id: Cursor,
    /// When.
    pub at: Timestamp,
    /// What.
    pub kind: EventKind,
    /// Name of the rule.
    pub rule: String,
    /// Name of the target.
    pub target: String,
    /// The process; `None` for metrics of the host or of the service as a whole.
    pub pid: Option<u32>,
    /// Name of the metric.
    pub metric: String,
    /// Name of the function, for metrics of functions.
    pub function: Option<String>,
    /// The value; `None` if it cannot be measured.
    pub value: Option<f64>,
    /// What it is compared with.
    pub threshold: f64,
    /// The unit of both.
    pub unit: String,
    /// Id of the snapshot, when that was stored.
    #[schemars(with = "Option<String>")]
    pub snapshot: Option<ulid::Ulid>,
    /// With a snapshot: who did it, in one sentence; empty when that is not known.
    #[serde(default)]
    pub culprit: String,
}

/// What happened to a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EventKind {
    /// The value crossed the threshold.
    Pending,
    /// It stayed there for long enough: a breach.
    Firing,
    /// It is back for long enough, or the process has ended.
    Resolved,
    /// It went back before it was a breach.
    Normal,
    /// The evidence of the breach is stored.
    Snapshot,
    /// The evidence of the breach could not be stored.
    Lost,
}

impl EventKind {
    /// Its name, as that of a server-sent event.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Firing => "firing",
            Self::Resolved => "resolved",
            Self::Normal => "normal",
            Self::Snapshot => "snapshot",
            Self::Lost => "lost",
        }
    }
}

mod as_text {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    use super::Cursor;

    pub fn serialize<S: Serializer>(cursor: &Cursor, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(cursor)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Cursor, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_back_from_its_text() {
        let cursor = Cursor { life: 0xfeed, number: 12 };
        assert_eq!(cursor.to_string(), "feed-12");
        assert_eq!("feed-12".parse(), Ok(cursor));
        for wrong in ["", "12", "-", "x-1", "1-x", "1-2-3", "1--2"] {
            assert!(wrong.parse::<Cursor>().is_err(), "{wrong}");
        }
    }
}
