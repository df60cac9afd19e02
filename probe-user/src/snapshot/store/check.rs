//! Is a stored snapshot as it was written? Its files have checksums, in a file of their own as `sha256sum` writes it.
//! Profiles are large and seldom change: when snapshots are merely listed, the checksum of a profile is looked at only if
//! the file is newer than the checksums, which were written last.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use ulid::Ulid;

use crate::snapshot::{Sidecar, VERSION};

/// What is known of the breach.
pub(super) const SIDECAR: &str = "snapshot.json";
/// The checksums.
pub(super) const SUMS: &str = "SHA256SUMS";

/// Since this version of the format there are checksums.
const VERSION_WITH_SUMS: u32 = 2;

/// Largest sidecar and list of checksums that are read, in bytes.
const MAX_SIDECAR: u64 = 16 << 20;
const MAX_SUMS: u64 = 64 << 10;

/// Reads a sidecar, if all of its snapshot is as it was written.
pub(super) fn load(folder: &Path, id: Ulid) -> Result<Sidecar> {
    let (sums, written) = match read(&folder.join(SUMS), MAX_SUMS) {
        Ok((bytes, metadata)) => (Some(Sums::parse(&bytes).context(SUMS)?), modified(&metadata)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => (None, (0, 0)),
        Err(error) => return Err(error).context(SUMS),
    };
    let (json, _) = read(&folder.join(SIDECAR), MAX_SIDECAR).context(SIDECAR)?;
    if let Some(sums) = &sums {
        sums.check(SIDECAR, &json)?;
    }
    let sidecar = parse(&json)?;
    ensure!(sidecar.id == id, "{SIDECAR} is of another snapshot, {}", sidecar.id);
    ensure!(sums.is_some() || sidecar.version < VERSION_WITH_SUMS, "{SUMS} is missing");
    for profile in &sidecar.profiles {
        let name = profile.window.file();
        let metadata = fs::metadata(folder.join(name)).context(name)?;
        let bytes = metadata.len();
        ensure!(bytes == profile.bytes, "{name} has {bytes} bytes, not {}", profile.bytes);
        if let Some(sums) = sums.as_ref().filter(|_| modified(&metadata) > written) {
            sums.check(name, &fs::read(folder.join(name)).context(name)?)?;
        }
    }
    Ok(sidecar)
}

/// Is a profile that was read as it was written?
pub(super) fn profile(folder: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    match read(&folder.join(SUMS), MAX_SUMS) {
        Ok((sums, _)) => Sums::parse(&sums).context(SUMS)?.check(name, bytes),
        // Of a version without: gzip has a checksum of its own, which whoever unpacks it looks at.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).context(SUMS),
    }
}

fn parse(json: &[u8]) -> Result<Sidecar> {
    #[derive(Deserialize)]
    struct Head {
        version: u32,
    }
    serde_json::from_slice(json).map_err(|error| {
        let later = serde_json::from_slice::<Head>(json).ok().filter(|head| head.version > VERSION);
        let why = later.map_or(String::new(), |head| format!(", of the later format {}", head.version));
        anyhow::Error::new(error).context(format!("{SIDECAR}{why}"))
    })
}

fn read(path: &Path, at_most: u64) -> io::Result<(Vec<u8>, fs::Metadata)> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    let mut bytes = Vec::new();
    file.take(at_most).read_to_end(&mut bytes)?;
    Ok((bytes, metadata))
}

fn modified(metadata: &fs::Metadata) -> (i64, i64) {
    (metadata.mtime(), metadata.mtime_nsec())
}

/// Checksums by file name.
#[derive(Debug, Default)]
pub(super) struct Sums(BTreeMap<String, String>);

impl Sums {
    pub(super) fn add(&mut self, name: &str, bytes: &[u8]) {
        self.0.insert(name.to_owned(), hex(bytes));
    }

    fn parse(bytes: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(bytes).context("no text")?;
        let end = text.rfind(OWN).context("it is cut off")?;
        let (text, own) = text.split_at(end);
        ensure!(own == own_line(text), "it has another checksum than it was written with");
        let line = |line: &str| {
            let (sum, name) = line.split_once("  ")?;
            (sum.len() == 64).then(|| (name.to_owned(), sum.to_owned()))
        };
        let sums = text.lines().map(|text| line(text).context("a line is not a checksum and a name"));
        Ok(Self(sums.collect::<Result<_>>()?))
    }

    fn check(&self, name: &str, bytes: &[u8]) -> Result<()> {
        match self.0.get(name) {
            Some(sum) if *sum == hex(bytes) => Ok(()),
            Some(_) => bail!("{name} has another checksum than it was written with"),
            None => bail!("{SUMS} has no checksum of {name}"),
        }
    }
}

impl fmt::Display for Sums {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: String = self.0.iter().map(|(name, sum)| format!("{sum}  {name}\n")).collect();
        write!(f, "{lines}{}", own_line(&lines))
    }
}

/// How the last line begins: for `sha256sum` it is a comment, for us the checksum of the others.
const OWN: &str = "# ";

fn own_line(lines: &str) -> String {
    format!("{OWN}{}\n", hex(lines.as_bytes()))
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::with_capacity(64), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
