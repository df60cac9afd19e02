//! Who explains a breach: what is compared depends on what was measured.

use crate::functions::Spec;
use crate::monitor::{Calls, Culprit, Metric, call_culprits, culprits, open_culprits, wait_culprits};
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
    /// Which threads there are more of, and who started them.
    Threads,
    /// What is open, and who opened it.
    Descriptors,
    /// Nothing that is recorded: to name whoever computes would be a guess.
    Unknown,
}

impl Cause {
    /// That of a metric.
    pub(super) fn of(metric: Metric) -> Self {
        match metric.name() {
            "threads" => Self::Threads,
            "fds" => Self::Descriptors,
            "switches.voluntary" | "pressure.memory" | "function.rate" | "function.errors" => Self::Unknown,
            name if name.starts_with("function.") => Self::Calls,
            _ if metric.is_memory() => Self::Memory,
            name if ["offcpu", "io", "pressure.io"].iter().any(|start| name.starts_with(start)) => Self::Waits,
            _ => Self::Cpu,
        }
    }

    /// What a process holds tells it, and who made that.
    pub(super) fn is_of_holdings(self) -> bool {
        matches!(self, Self::Threads | Self::Descriptors)
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
            Cause::Cpu | Cause::Memory | Cause::Threads | Cause::Descriptors | Cause::Unknown => Self::None,
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
    /// How long a call of the function takes, on average, and took when all was well; `None` where that is not known.
    pub(super) call_ns: Option<u64>,
    pub(super) calm_call_ns: Option<u64>,
}

/// The functions that explain a breach, most responsible first; `function` is the one that was measured. None where nothing is
/// known: what was recorded for something else does not stand in.
pub(super) fn explain(cause: Cause, metric: Metric, function: Option<&Function>, scenes: &Scenes<'_>) -> Vec<Culprit> {
    let Scenes { during, calm, .. } = scenes;
    match cause {
        // Without more threads than before, what they do is no cause.
        Cause::Memory | Cause::Threads | Cause::Descriptors | Cause::Unknown => Vec::new(),
        Cause::Cpu => culprits(during, calm),
        Cause::Waits => wait_culprits(during, calm),
        Cause::Calls => function.map_or_else(Vec::new, |function| slow_calls(metric, function, scenes)),
    }
}

/// Of calls that have not returned it is known where they are; of the others, where their time went.
fn slow_calls(metric: Metric, function: &Function, scenes: &Scenes<'_>) -> Vec<Culprit> {
    let Scenes { during, calm, dump, call_ns, calm_call_ns } = *scenes;
    let Ok(spec) = function.symbol.parse::<Spec>() else { return Vec::new() };
    let is_meant = |name: &str| spec.is_of(name);
    let oldest_ns = function.row.oldest_ns;
    let calls = Calls { name: &function.name, time_ns: call_ns, calm_ns: calm_call_ns, oldest_ns };
    let open = || dump.map_or_else(Vec::new, |dump| open_culprits(&calls, is_meant, dump));
    let ended = || call_culprits(&calls, is_meant, during, calm);
    let is_of_open = matches!(metric, Metric::FunctionInFlight | Metric::FunctionOldest);
    let found = if is_of_open { open() } else { ended() };
    match found.is_empty() {
        true if is_of_open => ended(),
        true => open(),
        false => found,
    }
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
        assert_eq!((of(Metric::Fds), of(Metric::SwitchesVoluntary)), (Cause::Descriptors, Cause::Unknown));
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
