//! JSON: the profile with all its tables, in an envelope that says what it is.

use std::borrow::Cow;
use std::io::Write;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::intake;
use crate::symbolize::Profile;

const FORMAT: &str = "probe-profile";
/// Raised when a reader of the version before would misunderstand the file.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Envelope<'a> {
    format: Cow<'a, str>,
    version: u32,
    profile: Cow<'a, Profile>,
}

/// Writes the profile as one JSON object.
pub fn write(profile: &Profile, out: &mut dyn Write) -> Result<()> {
    let envelope = Envelope { format: FORMAT.into(), version: VERSION, profile: Cow::Borrowed(profile) };
    serde_json::to_writer(&mut *out, &envelope)?;
    Ok(writeln!(out)?)
}

/// Reads what [`write`] wrote. Fails on other JSON, on newer versions and on indexes out of range.
pub fn read(bytes: &[u8]) -> Result<Profile> {
    #[derive(Deserialize)]
    struct Head {
        format: String,
        version: u32,
    }
    let head: Head = serde_json::from_slice(bytes).context("it is not a JSON profile of probe")?;
    ensure!(head.format == FORMAT, "it is JSON of another format: {:?}", crate::text::sanitize(&head.format));
    ensure!(head.version == VERSION, "its version is {}; this probe reads {VERSION}", head.version);
    let envelope: Envelope<'_> = serde_json::from_slice(bytes).context("it is a damaged JSON profile of probe")?;
    let mut profile = envelope.profile.into_owned();
    intake::check(&profile)?;
    intake::scrub(&mut profile);
    Ok(profile)
}

#[cfg(test)]
mod tests {
    use super::super::{Format, Options, fixture, golden};
    use super::*;

    #[test]
    fn everything_is_in_it() {
        golden::check(&fixture::profile(), Format::Json, &Options::default(), "profile.json");
    }

    #[test]
    fn what_was_written_reads_back_equal() {
        let profile = fixture::clean();
        let mut bytes = Vec::new();
        write(&profile, &mut bytes).unwrap();
        assert_eq!(read(&bytes).unwrap(), profile);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let error = |text: &str| format!("{:#}", read(text.as_bytes()).unwrap_err());
        assert!(error(r#"{"format":"other","version":1}"#).contains("other"));
        assert!(error(r#"{"format":"probe-profile","version":9}"#).contains("version is 9"));
        assert!(error(r#"{"format":"probe-profile","version":1,"profile":{}}"#).contains("damaged"));
        let mut profile = fixture::clean();
        profile.locations[0].module = Some(99);
        let mut bytes = Vec::new();
        write(&profile, &mut bytes).unwrap();
        assert!(read(&bytes).unwrap_err().to_string().contains("module"));
    }
}
