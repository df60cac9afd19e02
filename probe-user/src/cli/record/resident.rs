//! What the targets of a recording grow by, as the kernel counts it: what of it was not seen to be taken has to be said.

use std::collections::BTreeMap;

use crate::cli::tell;
use crate::symbolize::{Measure, Profile};
use crate::target::Stat;
use crate::text::mebibytes;

/// What is less than this, or than this part of the growth, is within what the kernel's count and samples tell.
const LEAST_BYTES: u64 = 2 << 20;
const LEAST: f64 = 0.2;

/// Resident memory of processes, in bytes: when they were looked at first, and last.
#[derive(Debug, Default)]
pub struct Resident {
    of: BTreeMap<u32, (u64, u64)>,
}

impl Resident {
    /// Looks at a process, which had `first` before it was looked at, if that is known.
    pub fn look(&mut self, pid: u32, first: Option<u64>) {
        // One that is ending has nothing any more.
        if let Some(Stat { rss_bytes: rss_bytes @ 1.., .. }) = Stat::read(pid) {
            self.of.entry(pid).or_insert((first.unwrap_or(rss_bytes), rss_bytes)).1 = rss_bytes;
        }
    }

    /// Tells people what of the growth is missing from a profile.
    pub fn tell(&self, profile: &Profile) {
        if let Some((missing, grown)) = self.missing(profile) {
            let (missing, grown) = (mebibytes(missing), mebibytes(grown));
            tell(&format!(
                "  {missing} of the {grown} that the targets grew by were not seen to be taken; pages of mapped files that are \
                 cached already are not followed"
            ));
        }
    }

    /// How many bytes of how many are missing; `None` if that is nothing to speak of.
    fn missing(&self, profile: &Profile) -> Option<(u64, u64)> {
        let grown = self.of.values().map(|(first, last)| last.saturating_sub(*first)).sum::<u64>();
        let is_of_these = |thread: u32| {
            let thread = profile.threads.get(thread as usize);
            thread.is_some_and(|thread| self.of.contains_key(&profile.processes[thread.process as usize].pid))
        };
        let seen = profile.samples.iter().filter(|s| s.measure == Measure::Resident && is_of_these(s.thread));
        let missing = grown.saturating_sub(seen.map(|sample| sample.value).sum());
        (missing > LEAST_BYTES.max((LEAST * grown as f64) as u64)).then_some((missing, grown))
    }
}
