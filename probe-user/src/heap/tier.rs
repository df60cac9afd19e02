//! `Tier`: by which way allocations are seen; the cheaper ones have the lower numbers.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::allocators::Allocators;

/// See the head of this file. The first one is page faults, which see no allocations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// The allocator publishes samples of its own.
    Published = 2,
    /// Probes in the functions of the allocator.
    Functions = 3,
}

impl Tier {
    /// The files of allocators by the way in which they are seen, by their names without folder.
    pub fn files<'a>(allocators: impl IntoIterator<Item = &'a Allocators>) -> BTreeMap<Self, BTreeSet<String>> {
        let mut tiers = BTreeMap::<_, BTreeSet<_>>::new();
        for allocators in allocators {
            tiers.entry(allocators.tier()).or_default().extend(allocators.files());
        }
        tiers
    }

    /// In words, with the files in which it is used.
    pub fn within(self, files: &BTreeSet<String>) -> String {
        let files: Vec<&str> = files.iter().map(String::as_str).collect();
        format!("{self} in {} (tier {})", files.join(" and "), self as u32)
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Published => "USDT samples",
            Self::Functions => "uprobes",
        })
    }
}
