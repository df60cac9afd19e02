//! Flamegraphs as data, for pages that draw them: a profile, or two compared.

mod compare;
mod data;
mod packed;
mod texts;
mod times;
mod tree;

use std::borrow::Cow;
use std::io::Write;

use anyhow::{Context, Result};

use super::{Options, intake, kinds};
use crate::symbolize::Profile;

pub use compare::{Comparison, compare};
pub use data::{Data, data};

/// How the data are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// For anyone.
    Json,
    /// The same in binary, for pages.
    Packed,
}

/// Writes the [`Data`] of `profile`.
pub fn write(profile: &Profile, options: &Options, shape: Shape, out: &mut dyn Write) -> Result<()> {
    let profile = prepared(profile, options)?;
    let data = data(&profile, options);
    match shape {
        Shape::Json => serde_json::to_writer(out, &data).map_err(Into::into),
        Shape::Packed => data.pack(out),
    }
    .context("cannot write the flamegraph")
}

/// Writes the [`Comparison`] of two profiles. Fails when they have no unit in common.
pub fn write_comparison(a: &Profile, b: &Profile, options: &Options, shape: Shape, out: &mut dyn Write) -> Result<()> {
    let (a, b) = (prepared(a, options)?, prepared(b, options)?);
    let comparison = compare(&a, &b)?;
    match shape {
        Shape::Json => serde_json::to_writer(out, &comparison).map_err(Into::into),
        Shape::Packed => comparison.pack(out),
    }
    .context("cannot write the comparison")
}

/// A profile that is safe to show, with one unit.
fn prepared<'a>(profile: &'a Profile, options: &Options) -> Result<Cow<'a, Profile>> {
    intake::check(profile)?;
    Ok(kinds::select(intake::scrubbed(profile), options.memory))
}
