//! Room: export. A [`Profile`] in, the bytes of a file format out; and back again for the formats that keep enough.
//! One file per format; what the flat formats share is in `flat`, what protects readers in `intake`.

mod firefox;
pub mod flamegraph;
mod flat;
pub mod folded;
pub mod html;
mod intake;
mod json;
mod kinds;
pub mod pprof;
mod speedscope;
mod svg;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod golden;

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::problem::{Exit, Problem};
use crate::symbolize::Profile;

/// A file format that a profile can be written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub enum Format {
    /// One line per distinct stack, for flamegraph tools
    Folded,
    /// A flamegraph as an image, zoomable in a browser
    Svg,
    /// An interactive flamegraph in one self-contained page
    Html,
    /// Gzip pprof, for `go tool pprof` and profile stores
    Pprof,
    /// For speedscope.app
    Speedscope,
    /// For profiler.firefox.com
    Firefox,
    /// Everything probe knows, for scripts
    Json,
}

/// File name endings; a longer one stands before one that it ends in.
const EXTENSIONS: [(&str, Format); 7] = [
    (".speedscope.json", Format::Speedscope),
    (".firefox.json", Format::Firefox),
    (".json", Format::Json),
    (".pb.gz", Format::Pprof),
    (".folded", Format::Folded),
    (".html", Format::Html),
    (".svg", Format::Svg),
];

impl Format {
    /// Every format, in the order in which they are documented.
    pub const ALL: [Self; 7] =
        [Self::Folded, Self::Svg, Self::Html, Self::Pprof, Self::Speedscope, Self::Firefox, Self::Json];

    /// The format that a file name asks for by its ending. An unknown ending is a usage error that lists the known ones.
    pub fn from_path(path: &Path) -> Result<Self> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        if let Some((_, format)) = EXTENSIONS.iter().find(|(extension, _)| name.ends_with(extension)) {
            return Ok(*format);
        }
        let known = EXTENSIONS.map(|(extension, _)| extension).join(" ");
        bail!(Problem::new(
            Exit::Usage,
            format!("cannot tell the format of {} from its name", path.display()),
            format!("end it in one of {known}, or name the format (record: -f)"),
        ))
    }

    /// The file name ending of this format, with its dot.
    pub fn extension(self) -> &'static str {
        EXTENSIONS.iter().find(|(_, format)| *format == self).map_or("", |(extension, _)| extension)
    }

    /// True for the formats that can hold times and bytes side by side.
    pub fn has_units(self) -> bool {
        matches!(self, Self::Pprof | Self::Json)
    }

    /// The media type to serve this format with.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Folded => "text/plain; charset=utf-8",
            Self::Svg => "image/svg+xml",
            Self::Html => "text/html; charset=utf-8",
            Self::Pprof => "application/octet-stream",
            Self::Speedscope | Self::Firefox | Self::Json => "application/json",
        }
    }
}

/// How to write a profile.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Put a frame for the thread under the process, in the formats that merge threads (folded, SVG).
    pub threads: bool,
    /// Put a frame for what the thread did (running, sleeping, …) under the process, in the formats that merge threads.
    pub states: bool,
    /// Title, in the formats that have one; what was measured and where when `None`.
    pub title: Option<String>,
    /// In the formats that show one unit: memory rather than time. What the profile has when `None`; time if it has both.
    pub memory: Option<bool>,
    /// Add samples up by thread and stack in pprof, instead of keeping when each of them was taken.
    pub aggregate: bool,
    /// In flamegraphs as data: also weights by stretches of so many milliseconds; `None` without times.
    pub stretch_ms: Option<u32>,
}

/// Writes `profile` to `out` in `format`. Fails when `out` does, when an index in the profile is out of range, or when
/// the format cannot express an empty profile (SVG).
pub fn write(profile: &Profile, format: Format, options: &Options, out: &mut dyn Write) -> Result<()> {
    intake::check(profile)?;
    let mut clean = intake::scrubbed(profile);
    if !format.has_units() {
        clean = kinds::select(clean, options.memory);
    }
    let profile = &*clean;
    match format {
        Format::Folded => folded::write(profile, options, out),
        Format::Svg => svg::write(profile, options, out),
        Format::Html => html::write(profile, options, out),
        Format::Pprof => pprof::write(profile, options, out),
        Format::Speedscope => speedscope::write(profile, options, out),
        Format::Firefox => firefox::write(profile, options, out),
        Format::Json => json::write(profile, out),
    }
    .with_context(|| format!("cannot write the profile as {format:?}"))
}

/// Reads a saved profile: pprof (gzip or bare), probe's JSON, or folded stacks, told apart by content. `name` says in
/// errors what was read. The bytes may come from anyone: they are bounded, checked and sanitized.
pub fn read(bytes: &[u8], name: &str) -> Result<Profile> {
    let parse = || {
        let bytes = intake::inflate(bytes)?;
        let start = bytes.trim_ascii_start();
        if start.is_empty() {
            bail!("it is empty");
        } else if start.starts_with(b"{") {
            json::read(&bytes)
        } else if folded::looks_like(&bytes) {
            folded::read(&bytes)
        } else {
            pprof::decode(&bytes)
        }
    };
    parse().with_context(|| format!("cannot read {name} as a profile"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_follows_the_file_name() {
        for format in Format::ALL {
            let name = format!("/tmp/a.b/out{}", format.extension());
            assert_eq!(Format::from_path(Path::new(&name)).unwrap(), format, "{name}");
        }
        assert_eq!(Format::from_path(Path::new("A.SVG")).unwrap(), Format::Svg);
    }

    #[test]
    fn an_unknown_file_name_is_a_usage_error_that_lists_the_known_ones() {
        let error = Format::from_path(Path::new("out.png")).unwrap_err();
        let problem = error.downcast_ref::<Problem>().unwrap();
        assert_eq!(problem.exit, Exit::Usage);
        assert!(problem.message.contains("out.png"));
        assert!(EXTENSIONS.iter().all(|(extension, _)| problem.hint.contains(extension)), "{}", problem.hint);
    }

    #[test]
    fn what_was_written_is_recognized_by_content() {
        let profile = fixture::profile();
        for format in [Format::Pprof, Format::Json, Format::Folded] {
            let mut bytes = Vec::new();
            write(&profile, format, &Options::default(), &mut bytes).unwrap();
            let back = read(&bytes, "test").unwrap();
            let samples = |profile: &Profile| profile.samples.iter().map(|s| s.count).sum::<u64>();
            assert_eq!(samples(&back), samples(&profile), "{format:?}");
        }
    }

    #[test]
    fn what_is_no_profile_is_refused_by_name() {
        for bytes in [&b""[..], b"\n\n", b"{\"a\":1}", b"\x7fELF\x02\x01\x01\0\0\0", b"hello world", b"\xff\xfe\0\0"] {
            let error = format!("{:#}", read(bytes, "x.bin").unwrap_err());
            assert!(error.contains("x.bin"), "{error}");
        }
    }

    #[test]
    fn hostile_names_are_harmless_in_every_format() {
        let mut profile = fixture::profile();
        profile.processes[0].name = "\x1b[2J\u{202e}\nevil".into();
        let written = |profile: &Profile, format| {
            let mut bytes = Vec::new();
            write(profile, format, &Options { threads: true, ..Options::default() }, &mut bytes).unwrap();
            match format {
                Format::Pprof => format!("{:?}", read(&bytes, "test").unwrap()),
                _ => String::from_utf8(bytes).unwrap(),
            }
        };
        for format in Format::ALL {
            let (text, harmless) = (written(&profile, format), written(&fixture::profile(), format));
            for hostile in ["\x1b", "\u{202e}", "\\u001b", "\\u202e", "\\u{202e}"] {
                // The script of a page has to know what it makes visible.
                let count = |text: &str| text.matches(hostile).count();
                assert_eq!(count(&text), count(&harmless), "{format:?}: {hostile:?}");
                assert!(format == Format::Html || count(&text) == 0, "{format:?}: {hostile:?}");
            }
        }
    }

    #[test]
    fn a_profile_with_a_bad_index_is_refused_by_every_format() {
        let mut profile = fixture::profile();
        profile.samples[0].stack = 1 << 20;
        for format in Format::ALL {
            assert!(write(&profile, format, &Options::default(), &mut Vec::new()).is_err(), "{format:?}");
        }
    }
}
