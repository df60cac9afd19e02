//! pprof: the format of `go tool pprof` and of most profile stores, gzip-compressed protocol buffers. It keeps all that a
//! [`Profile`] has, so snapshots are stored in it: what the format has no field for travels as labels and comments.
//!
//! | here | in pprof |
//! | --- | --- |
//! | thread and process of a sample | labels `thread`, `tid`, `process`, `pid` |
//! | what the thread did, if it did not run | label `state` |
//! | memory that was allocated, where the value is what is in use | `alloc_objects`, `alloc_space` |
//! | time of a sample since the start | label `time`, in nanoseconds |
//! | the reason why a stack was cut | a root frame `[truncated: reason]` without an address |
//! | growth of memory | sample types `resident_space` and `mapped_space` beside that of time |
//! | header, losses, executables | comments `key: value` |

mod columns;
mod decode;
mod encode;
mod proto;
mod size;

use std::io::Write;

use anyhow::Result;
use flate2::{Compression, GzBuilder};
use prost::Message;

use super::{Options, intake};
use crate::symbolize::Profile;

/// Writes `profile` as gzip-compressed pprof. The same profile always gives the same bytes.
pub fn write(profile: &Profile, options: &Options, out: &mut dyn Write) -> Result<()> {
    let message = encode::encode(profile, options);
    let mut gzip = GzBuilder::new().mtime(0).write(out, Compression::default());
    gzip.write_all(&message.encode_to_vec())?;
    gzip.finish()?;
    Ok(())
}

/// Reads pprof, compressed or not, by probe or by others. Bounded: fails on what is larger than 128 MiB, has too many
/// records, refers to what is not there, or is no pprof at all.
pub fn decode(bytes: &[u8]) -> Result<Profile> {
    let raw = intake::inflate(bytes)?;
    let mut profile = decode::decode(&raw)?;
    intake::check(&profile)?;
    intake::scrub(&mut profile);
    Ok(profile)
}

/// Names that the writer and the reader agree on.
mod key {
    pub const THREAD: &str = "thread";
    pub const TID: &str = "tid";
    pub const PROCESS: &str = "process";
    pub const PID: &str = "pid";
    pub const TIME: &str = "time";
    pub const STATE: &str = "state";

    /// The header's event, where pprof has other names for what was measured.
    pub const EVENT: &str = "event";
    pub const SAMPLER: &str = "sampler";
    pub const FREQUENCY: &str = "frequency";
    pub const HOST: &str = "host";
    pub const KERNEL: &str = "kernel";
    /// `lost COUNT: reason`.
    pub const LOST: &str = "lost";
    /// `exe PID: path`.
    pub const EXE: &str = "exe";
    /// `cmdline PID: words`.
    pub const CMDLINE: &str = "cmdline";
}

#[cfg(test)]
mod tests {
    use super::super::{Format, fixture, golden, write as export};
    use super::*;
    use crate::symbolize::Sample;

    fn bytes(profile: &Profile, options: &Options) -> Vec<u8> {
        let mut bytes = Vec::new();
        export(profile, Format::Pprof, options, &mut bytes).unwrap();
        bytes
    }

    /// Samples with everything that they refer to spelled out, whatever the order of the tables.
    fn spelled(profile: &Profile) -> Vec<String> {
        let spell = |sample: &Sample| {
            let thread = &profile.threads[sample.thread as usize];
            let process = &profile.processes[thread.process as usize];
            let cut = &profile.stacks[sample.stack as usize].truncated;
            let frames: Vec<_> = profile.frames(sample.stack).into_iter().map(|frame| format!("{frame:?}")).collect();
            format!("{} {} {} {process:?} {thread:?} {cut:?} {frames:?}", sample.time_ns, sample.count, sample.value)
        };
        profile.samples.iter().map(spell).collect()
    }

    #[test]
    fn what_was_written_reads_back_whole() {
        let profile = fixture::clean();
        let back = decode(&bytes(&profile, &Options::default())).unwrap();
        assert_eq!(back.header, profile.header);
        assert_eq!(back.processes, profile.processes);
        assert_eq!(back.threads, profile.threads);
        assert_eq!(back.modules, profile.modules);
        assert_eq!(back.locations, profile.locations);
        assert_eq!(back.losses, profile.losses);
        assert_eq!(spelled(&back), spelled(&profile));
    }

    #[test]
    fn aggregated_samples_keep_their_sums() {
        let profile = fixture::clean();
        let back = decode(&bytes(&profile, &Options { aggregate: true, ..Options::default() })).unwrap();
        assert_eq!(spelled(&back), spelled(&Profile { samples: profile.totals(), ..profile }));
    }

    #[test]
    fn the_messages_are_the_same_every_time() {
        let profile = fixture::profile();
        assert_eq!(bytes(&profile, &Options::default()), bytes(&profile, &Options::default()));
        let raw = intake::inflate(&bytes(&profile, &Options::default())).unwrap().into_owned();
        golden::check_bytes(&raw, "profile.pb");
    }

    #[test]
    fn whatever_can_be_read_can_be_written() {
        let raw = intake::inflate(&bytes(&fixture::profile(), &Options::default())).unwrap().into_owned();
        let mut read = 0;
        for at in (0..raw.len()).step_by(29) {
            let mut damaged = raw.clone();
            damaged[at] ^= 1 << (at % 8);
            let Ok(profile) = decode(&damaged) else { continue };
            read += 1;
            for format in Format::ALL {
                // An SVG of no samples is an error; a panic would end the test.
                let _ = export(&profile, format, &Options::default(), &mut std::io::sink());
            }
        }
        assert!(read > 20, "{read} were read at all");
    }

    #[test]
    fn a_profile_with_nothing_in_it_is_still_one() {
        assert_eq!(decode(&bytes(&Profile::default(), &Options::default())).unwrap().samples, []);
    }
}
