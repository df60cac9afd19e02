//! What rules ask of a process's memory, measured once a second, of the processes that have such rules only.

use crate::monitor::{Metric, Trend};
use crate::target::{memory_limit, resident_bytes};

/// The limit is read again after so many readings: somebody may change it.
const LIMIT_EVERY: u32 = 10;

/// The memory of a process.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    resident: Option<u64>,
    limit: Option<u64>,
    readings: u32,
    trend: Trend,
}

impl Memory {
    /// Reads what a process has now.
    pub(super) fn read(&mut self, pid: u32, at_ns: u64) {
        self.resident = resident_bytes(pid);
        if let Some(resident) = self.resident {
            self.trend.add(at_ns, resident as f64);
        }
        if self.readings.is_multiple_of(LIMIT_EVERY) {
            self.limit = memory_limit(pid);
        }
        self.readings = self.readings.wrapping_add(1);
    }

    /// The value of a metric, in its unit; `None` for other metrics and for what could not be read.
    pub(super) fn value(&self, metric: Metric) -> Option<f64> {
        let resident = self.resident.map(|bytes| bytes as f64);
        match metric {
            Metric::MemoryRss => resident,
            Metric::MemoryRssPercent => {
                self.limit.filter(|limit| *limit > 0).and_then(|limit| Some(100.0 * resident? / limit as f64))
            }
            Metric::MemoryGrowth => self.trend.per_minute(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_measured_against_its_limit() {
        let mut memory = Memory::default();
        assert_eq!(memory.value(Metric::MemoryRss), None);
        memory.read(std::process::id(), 1);
        let (rss, percent) = (memory.value(Metric::MemoryRss), memory.value(Metric::MemoryRssPercent));
        assert!(rss.expect("read") > 1e5);
        assert!((1e-4..100.0).contains(&percent.expect("read")), "{percent:?}");
        assert_eq!(memory.value(Metric::MemoryGrowth), None, "too early");
        assert_eq!(memory.value(Metric::Cpu), None);
    }
}
