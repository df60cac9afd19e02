//! Query parameters that are no plain texts.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};
use ulid::Ulid;

use crate::serve::problem::Problem;
use crate::snapshot::Window;

/// The query as `T`; a problem names what is wrong with it.
pub struct Parameters<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Parameters<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let wrong = |error: axum::extract::rejection::QueryRejection| {
            let text = error.body_text();
            let reason = text.trim_start_matches("Failed to deserialize query string: ").to_owned();
            // `limit: invalid digit` names the parameter; an unknown one is named in the text.
            match reason.split_once(": ").filter(|(field, _)| !field.contains(' ')) {
                Some((field, reason)) => Problem::parameter(field, reason),
                None => Problem::new(axum::http::StatusCode::BAD_REQUEST, reason),
            }
        };
        Query::try_from_uri(&parts.uri).map(|Query(query)| Self(query)).map_err(wrong)
    }
}

/// A point in time: RFC 3339, seconds since the Unix epoch, or how long ago (`24h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct When(pub SystemTime);

impl<'de> Deserialize<'de> for When {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let text = text.trim();
        let at = humantime::parse_rfc3339_weak(text).ok();
        let epoch = || {
            let since = Duration::try_from_secs_f64(text.parse().ok()?).ok()?;
            UNIX_EPOCH.checked_add(since)
        };
        let ago = || SystemTime::now().checked_sub(humantime::parse_duration(text).ok()?);
        let wrong =
            || D::Error::custom("a time like 2026-02-03T04:05:06Z, seconds since 1970, or how long ago like 24h");
        at.or_else(epoch).or_else(ago).map(When).ok_or_else(wrong)
    }
}

impl schemars::JsonSchema for When {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "When".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "RFC 3339, seconds since the Unix epoch, or how long ago: `24h`.",
        })
    }
}

/// The id in a path.
pub fn id(text: &str) -> Result<Ulid, Problem> {
    Ulid::from_string(text).map_err(|_| {
        Problem::parameter("id", "an id has 26 letters and digits").hint("`GET /api/v1/snapshots` lists them")
    })
}

/// A stored profile: `ID`, or `ID:WINDOW`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    pub id: Ulid,
    pub window: Window,
}

impl<'de> Deserialize<'de> for Stored {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let (id, window) = text.split_once(':').unwrap_or((&text, Window::Breach.name()));
        let id = Ulid::from_string(id).map_err(|_| D::Error::custom("an id has 26 letters and digits"))?;
        let window = serde_json::from_value(window.into()).map_err(D::Error::custom)?;
        Ok(Self { id, window })
    }
}

impl fmt::Display for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the window {} of snapshot {}", self.window.name(), self.id)
    }
}

impl schemars::JsonSchema for Stored {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "StoredProfile".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "The id of a snapshot, of which it is the window `breach`; or `ID:WINDOW`.",
        })
    }
}
