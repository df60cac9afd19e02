//! `Newcomers`: processes that may have to be watched; those that the kernel programs keep because there are too many to tell of each.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use aya::maps::{HashMap, Map, MapData};
use probe_ebpf::abi::MAX_NEWCOMERS;

use crate::target::monotonic_ns;

/// A process that has come, or has another program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Newcomer {
    /// Process.
    pub pid: u32,
    /// Process that made it; 0 where that is not known.
    pub parent: u32,
    /// How many of the same parent were passed over since one was told of at once.
    pub passed_over: u32,
}

/// See the head of this file.
pub(super) struct Newcomers(HashMap<MapData, u32, [u32; 4]>);

impl Newcomers {
    pub(super) fn new(map: Map) -> Result<Self> {
        Ok(Self(HashMap::try_from(map)?))
    }

    /// Takes those that have stayed for `age`.
    pub(super) fn take(&mut self, age: Duration) -> Result<Vec<Newcomer>> {
        let (now_ns, age_ns) = (monotonic_ns(), age.as_nanos() as u64);
        // Where the key is gone from which the next is asked for, the kernel begins anew.
        let keys = self.0.keys().take(MAX_NEWCOMERS as usize);
        let mut old = BTreeMap::new();
        for pid in keys {
            let pid = pid?;
            let Ok([parent, _, low, high]) = self.0.get(&pid, 0) else { continue };
            let since_ns = u64::from(high) << 32 | u64::from(low);
            if now_ns.saturating_sub(since_ns) >= age_ns {
                old.insert(pid, parent);
            }
        }
        for pid in old.keys() {
            let _ = self.0.remove(pid);
        }
        Ok(old.into_iter().map(|(pid, parent)| Newcomer { pid, parent, passed_over: 0 }).collect())
    }
}
