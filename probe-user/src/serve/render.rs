//! Profiles in the formats that are served.

use std::borrow::Cow;
use std::collections::BTreeSet;

use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;

use super::problem::Problem;
use crate::export::flamegraph::{self, Shape};
use crate::export::{self, Format, Options};
use crate::symbolize::{Profile, narrow};

/// The media type of [`ProfileFormat::Packed`].
pub const PACKED: &str = "application/vnd.probe.flamegraph";

/// A format, by its name in the query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ProfileFormat {
    /// Gzip pprof.
    #[default]
    Pprof,
    /// One line per distinct stack.
    Folded,
    /// An image.
    Svg,
    /// An interactive page.
    Html,
    /// For speedscope.app.
    Speedscope,
    /// For profiler.firefox.com.
    Firefox,
    /// A tree to draw, as JSON.
    Flamegraph,
    /// The same in binary, for pages.
    Packed,
    /// Everything there is, as JSON.
    Json,
}

/// Which samples, by their name in the query.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EventName {
    /// On which code CPU time was spent.
    Cpu,
    /// Where memory grew.
    PageFault,
}

/// What of a profile is wanted, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct View {
    pub format: ProfileFormat,
    /// This thread only.
    pub thread: Option<u32>,
    /// A frame for each thread, where the format merges them.
    pub threads: bool,
    /// Memory rather than time; what there is when `None`.
    pub memory: Option<bool>,
    /// Weights by stretches of so many milliseconds as well, in `flamegraph`.
    pub stretch_ms: Option<u32>,
}

impl ProfileFormat {
    fn exported(self) -> Option<Format> {
        match self {
            Self::Pprof => Some(Format::Pprof),
            Self::Folded => Some(Format::Folded),
            Self::Svg => Some(Format::Svg),
            Self::Html => Some(Format::Html),
            Self::Speedscope => Some(Format::Speedscope),
            Self::Firefox => Some(Format::Firefox),
            Self::Json => Some(Format::Json),
            Self::Flamegraph | Self::Packed => None,
        }
    }

    /// How it is written, if it is a tree to draw.
    fn shape(self) -> Option<Shape> {
        match self {
            Self::Flamegraph => Some(Shape::Json),
            Self::Packed => Some(Shape::Packed),
            _ => None,
        }
    }

    /// Its media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Packed => PACKED,
            _ => self.exported().map_or("application/json", Format::media_type),
        }
    }

    /// The ending of its files.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Packed => ".flamegraph",
            _ => self.exported().map_or(".flamegraph.json", Format::extension),
        }
    }

    /// Is it for the browser itself?
    pub fn is_shown(self) -> bool {
        matches!(self, Self::Svg | Self::Html | Self::Flamegraph | Self::Packed)
    }
}

/// The profile that a gzip pprof holds. `what` says in problems whose it is.
pub fn read(pprof: &[u8], what: &str) -> Result<Profile, Problem> {
    Ok(export::read(pprof, what)?)
}

/// A gzip pprof as it is wanted.
pub fn render(pprof: Vec<u8>, what: &str, view: View) -> Result<Vec<u8>, Problem> {
    if view.format == ProfileFormat::Pprof && view.thread.is_none() {
        return Ok(pprof);
    }
    render_profile(&read(&pprof, what)?, what, view)
}

/// A profile as it is wanted.
pub fn render_profile(profile: &Profile, what: &str, view: View) -> Result<Vec<u8>, Problem> {
    let mut profile = Cow::Borrowed(profile);
    if let Some(tid) = view.thread {
        profile = Cow::Owned(narrow(&profile, &BTreeSet::from([tid])));
        if profile.samples.is_empty() {
            return Err(Problem::not_found(format!("there is no sample of thread {tid} in {what}"))
                .hint("the snapshot's `threads` are those that were kept"));
        }
    }
    let options =
        Options { threads: view.threads, memory: view.memory, stretch_ms: view.stretch_ms, ..Options::default() };
    let mut bytes = Vec::new();
    if view.format == ProfileFormat::Svg && profile.samples.is_empty() {
        let detail = format!("there is no sample in {what}, so there is nothing to draw");
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail).hint("ask for another format"));
    }
    if let Some(shape) = view.format.shape() {
        flamegraph::write(&profile, &options, shape, &mut bytes)?;
    } else if let Some(format) = view.format.exported() {
        export::write(&profile, format, &options, &mut bytes)?;
    }
    Ok(bytes)
}
