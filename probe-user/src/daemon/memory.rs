//! What rules ask of a process's memory, measured once a second, of the processes that have such rules only.

use crate::monitor::{Metric, Trend};

/// The memory of a process.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    resident: Option<u64>,
    limit: Option<u64>,
    trend: Trend,
}

impl Memory {
    /// Takes what a process has now, and may have.
    pub(super) fn add(&mut self, at_ns: u64, resident: Option<u64>, limit: Option<u64>) {
        (self.resident, self.limit) = (resident, limit);
        if let Some(resident) = self.resident {
            self.trend.add(at_ns, resident as f64);
        }
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
        memory.add(1, Some(1 << 20), Some(4 << 20));
        let (rss, percent) = (memory.value(Metric::MemoryRss), memory.value(Metric::MemoryRssPercent));
        assert_eq!((rss, percent), (Some(1_048_576.0), Some(25.0)));
        assert_eq!(memory.value(Metric::MemoryGrowth), None, "too early");
        assert_eq!(memory.value(Metric::Cpu), None);
    }
}
