//! HTML: stub.
use std::io::Write;

use anyhow::Result;

use super::Options;
use crate::symbolize::Profile;

pub(super) fn write(_profile: &Profile, _options: &Options, _out: &mut dyn Write) -> Result<()> {
    Ok(())
}
