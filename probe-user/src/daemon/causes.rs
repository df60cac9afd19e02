//! Who explains a breach: what is compared depends on what was measured.

use crate::functions::Spec;
use crate::monitor::{Culprit, Metric, call_culprits, culprits, thread_culprits, wait_culprits};
use crate::snapshot::Function;
use crate::symbolize::Profile;

/// What explains a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// Who computes.
    Cpu,
    /// Who waits.
    Waits,
    /// What calls of the function do.
    Calls,
    /// Who takes memory.
    Memory,
    /// What the threads are.
    Threads,
    /// Nothing that is recorded: to name whoever computes would be a guess.
    Unknown,
}

impl Cause {
    /// That of a metric.
    pub(super) fn of(metric: Metric) -> Self {
        match metric.name() {
            "threads" => Self::Threads,
            "fds" => Self::Unknown,
            name if name.starts_with("function.") => Self::Calls,
            _ if metric.is_memory() => Self::Memory,
            name if ["offcpu", "io", "pressure.io"].iter().any(|start| name.starts_with(start)) => Self::Waits,
            _ => Self::Cpu,
        }
    }

    /// True if it needs to be known where threads wait.
    pub(super) fn needs_waits(self) -> bool {
        matches!(self, Self::Waits | Self::Calls)
    }
}

/// Which waits of a process are to be followed; each also has those before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Waits {
    /// None.
    #[default]
    None,
    /// Those that nothing may interrupt: for storage mostly.
    Blocked,
    /// All.
    All,
}

impl Waits {
    /// Those that explain a metric.
    pub(super) fn of(metric: Metric) -> Self {
        let is_of_storage =
            matches!(metric, Metric::Io | Metric::IoRead | Metric::IoWrite | Metric::PressureIo | Metric::OffCpuIo);
        match Cause::of(metric) {
            Cause::Cpu | Cause::Memory | Cause::Threads | Cause::Unknown => Self::None,
            Cause::Waits if is_of_storage => Self::Blocked,
            Cause::Waits | Cause::Calls => Self::All,
        }
    }
}

/// What there is to compare.
pub(super) struct Scenes<'a> {
    /// From when the value crossed the threshold.
    pub(super) during: &'a Profile,
    /// When all was well.
    pub(super) calm: &'a Profile,
    /// Every thread.
    pub(super) dump: Option<&'a Profile>,
}

/// The functions that explain a breach, most responsible first; `function` is the one that was measured. What there is not
/// (a function that is in no stack, a dump) is made up for by who computes.
pub(super) fn explain(cause: Cause, function: Option<&Function>, scenes: &Scenes<'_>) -> Vec<Culprit> {
    let Scenes { during, calm, dump } = scenes;
    let found = match cause {
        Cause::Cpu | Cause::Memory | Cause::Unknown => Vec::new(),
        Cause::Waits => wait_culprits(during, calm),
        Cause::Calls => match function.map(|function| (function, function.symbol.parse::<Spec>())) {
            Some((function, Ok(spec))) => call_culprits(&function.name, |name| spec.is_of(name), during, calm),
            _ => Vec::new(),
        },
        Cause::Threads => dump.map_or_else(Vec::new, thread_culprits),
    };
    // What was recorded for something else does not stand in.
    let is_of_cpu = !matches!(cause, Cause::Unknown | Cause::Threads | Cause::Memory);
    if found.is_empty() && is_of_cpu { culprits(during, calm) } else { found }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_explained_by_what_they_measure() {
        let of = |metric| Cause::of(metric);
        assert_eq!(of(Metric::Cpu), Cause::Cpu);
        assert_eq!(of(Metric::MemoryGrowth), Cause::Memory);
        assert_eq!(of(Metric::FunctionP99), Cause::Calls);
        assert_eq!(of(Metric::Fds), Cause::Unknown);
    }

    #[test]
    fn waits_are_followed_as_far_as_they_explain_something() {
        for (metric, expected) in [
            (Metric::Cpu, Waits::None),
            (Metric::MemoryRss, Waits::None),
            (Metric::Io, Waits::Blocked),
            (Metric::PressureIo, Waits::Blocked),
            (Metric::OffCpuIo, Waits::Blocked),
            (Metric::OffCpu, Waits::All),
            (Metric::OffCpuRunqueue, Waits::All),
            (Metric::FunctionP99, Waits::All),
        ] {
            assert_eq!(Waits::of(metric), expected, "{metric:?}");
        }
    }
}
