//! `Bounds`: what the control groups of a process allow it, as far as rules ask for that.

use std::collections::BTreeSet;

use super::figures::Asked;
use crate::monitor::Metric;
use crate::target::{Groups, OfGroups};

/// They are read again after so many looks: somebody may change them.
const SELDOM: u32 = 10;

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Bounds {
    looks: u32,
    pub(super) groups: Groups,
    /// How many cores it may use; `None` for all.
    pub(super) cores: Option<f64>,
    /// How much memory it may have, in bytes; `None` where that is not known.
    pub(super) memory: Option<u64>,
}

impl Bounds {
    /// Looks at a process, for what is asked of it.
    pub(super) fn read(&mut self, pid: u32, asked: &BTreeSet<Asked>, groups: &mut OfGroups) {
        // Not those of all processes in the same second.
        let is_due = self.looks == 0 || self.looks.wrapping_add(pid).is_multiple_of(SELDOM);
        self.looks = self.looks.wrapping_add(1);
        if !is_due {
            return;
        }
        let has = |metric: &Metric| asked.contains(&(*metric, false));
        let asks_for_memory = has(&Metric::MemoryRssPercent);
        let asks_for_group =
            [Metric::CpuQuota, Metric::PressureCpu, Metric::PressureMemory, Metric::PressureIo].iter().any(has);
        if !asks_for_memory && !asks_for_group {
            return;
        }
        self.groups = Groups::read(pid).unwrap_or_default();
        if has(&Metric::CpuQuota) {
            self.cores = groups.cores(&self.groups);
        }
        if asks_for_memory {
            self.memory = groups.memory(&self.groups);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_asks_for_is_not_read() {
        let (pid, mut groups) = (std::process::id(), OfGroups::now());
        let mut bounds = Bounds::default();
        bounds.read(pid, &BTreeSet::from([(Metric::Cpu, false)]), &mut groups);
        assert_eq!((bounds.memory, bounds.groups), (None, Groups::default()));
        let mut bounds = Bounds::default();
        bounds.read(pid, &BTreeSet::from([(Metric::MemoryRssPercent, false)]), &mut groups);
        assert!(bounds.memory.expect("read") > 1 << 20);
    }
}
