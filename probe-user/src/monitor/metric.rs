//! What rules look at: the metrics with their units and meanings, and how a service's processes are taken together.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rule::Side;
use crate::text::{mebibytes, short_time};

/// What a value counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Percent of one core.
    PercentOfCore,
    /// Percent of another whole, which the name says.
    Percent(&'static str),
    /// Percent of the calls of a function.
    PercentOfCalls,
    /// A size.
    Bytes,
    /// The growth of a size.
    BytesPerMinute,
    /// What flows.
    BytesPerSecond,
    /// A time.
    Nanoseconds,
    /// A number of things, which the name says.
    Count(&'static str),
    /// Events, by the second.
    PerSecond(&'static str),
}

impl Unit {
    /// Its name in snapshots and in alerts.
    pub fn name(self) -> &'static str {
        match self {
            Self::PercentOfCore => "percent of one core",
            Self::PercentOfCalls => "percent of the calls",
            Self::Bytes => "bytes",
            Self::BytesPerMinute => "bytes a minute",
            Self::BytesPerSecond => "bytes a second",
            Self::Nanoseconds => "nanoseconds",
            Self::Percent(name) | Self::Count(name) | Self::PerSecond(name) => name,
        }
    }
}

/// Whose figures a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Of a process.
    Process,
    /// Of a function in a process, which a rule has to name.
    Function,
    /// Of the whole host.
    Host,
}

/// How the values of a service's processes become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fold {
    /// They add up.
    Sum,
    /// The highest.
    Highest,
    /// The lowest.
    Lowest,
}

macro_rules! metrics {
    ($($(#[doc = $about:literal])* $metric:ident $name:literal $scope:ident $fold:ident $unit:expr, $meaning:literal;)*) => {
        /// What a rule looks at.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
        pub enum Metric { $($(#[doc = $about])* #[serde(rename = $name)] $metric,)* }

        impl Metric {
            /// All of them, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$metric),*];

            /// Its name in the configuration, in snapshots and in alerts.
            pub fn name(self) -> &'static str {
                match self { $(Self::$metric => $name,)* }
            }

            /// What its values count.
            pub fn kind(self) -> Unit {
                use Unit::*;
                match self { $(Self::$metric => $unit,)* }
            }

            /// Whose figures it is.
            pub fn scope(self) -> Scope {
                match self { $(Self::$metric => Scope::$scope,)* }
            }

            /// How the values of a service's processes become one.
            pub fn fold(self) -> Fold {
                match self { $(Self::$metric => Fold::$fold,)* }
            }

            /// What it is, for the documentation.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$metric => $meaning,)* }
            }
        }
    };
}

metrics! {
    /// CPU use of the process, all threads, in percent of one core.
    Cpu "cpu" Process Sum PercentOfCore, "CPU use of the process, all threads";
    /// The same in percent of all the host's cores.
    CpuHost "cpu.host" Process Sum Percent("percent of the host's cores"), "the same in percent of all the host's cores";
    /// The same in percent of the cores that its cgroups allow.
    CpuQuota "cpu.quota" Process Highest Percent("percent of the cores it may use"),
        "the same in percent of the cores it may use: the lowest quota of its cgroups, the processors of its cpuset, or all \
         of the host's, whichever is least";
    /// Resident memory of the process, in bytes.
    MemoryRss "memory.rss" Process Sum Bytes, "resident memory of the process";
    /// The same in percent of what its cgroup or the host has.
    MemoryRssPercent "memory.rss_percent" Process Highest Percent("percent of the memory it may have"),
        "the same in percent of the lowest limit of its cgroups, or of the host's memory where there is none";
    /// How fast resident memory grows, in bytes a minute.
    MemoryGrowth "memory.growth" Process Sum BytesPerMinute,
        "how fast resident memory grows: the median of all slopes between two of the last 60 seconds (Theil-Sen), \
         which outliers and short peaks do not move; no value in the first 10 seconds";
    /// Threads of the process.
    Threads "threads" Process Sum Count("threads"), "how many threads the process has";
    /// Open files of the process.
    Fds "fds" Process Sum Count("open files"), "how many file descriptors it has open";
    /// Time that threads were kept from running, in percent of one thread's time.
    OffCpu "offcpu" Process Sum Percent("percent of one thread's time"),
        "how much its threads were kept from running: `offcpu.runqueue` and `offcpu.io` together. Sleep that they chose, and \
         locks, are not counted";
    /// Time that threads were runnable without a CPU, in percent of one thread's time.
    OffCpuRunqueue "offcpu.runqueue" Process Sum Percent("percent of one thread's time"),
        "time that its threads were ready to run but waited for a CPU, added up: 100 if one was waiting all the time on \
         average. From each thread's `schedstat`, which costs some microseconds a thread and second";
    /// Threads blocked in uninterruptible sleep, in percent of one thread's time.
    OffCpuIo "offcpu.io" Process Sum Percent("percent of one thread's time"),
        "how many of its threads are in uninterruptible sleep (disk, network file systems, memory pressure), times 100; looked \
         at once a second, the average of the last 10 times. Costs as much";
    /// Bytes read from and written to storage, a second.
    Io "io" Process Sum BytesPerSecond, "what it reads from and writes to storage; the page cache is none";
    /// Bytes read from storage a second.
    IoRead "io.read" Process Sum BytesPerSecond, "of this, what it reads";
    /// Bytes written to storage a second.
    IoWrite "io.write" Process Sum BytesPerSecond, "of this, what it writes, when it dirties the page cache";
    /// Voluntary context switches a second.
    SwitchesVoluntary "switches.voluntary" Process Sum PerSecond("switches a second"),
        "how often its threads begin to wait; costs some ten microseconds a thread and second";
    /// Involuntary context switches a second.
    SwitchesInvoluntary "switches.involuntary" Process Sum PerSecond("switches a second"),
        "how often its threads are put aside for others; costs as much";
    /// Time that something in its cgroup waited for a CPU, in percent.
    PressureCpu "pressure.cpu" Process Highest Percent("percent of the time"),
        "pressure stall information of its cgroup (version 2): the share of the last 10 seconds in which some task waited for \
         a CPU; the host's for what is in no group, no value without";
    /// Time that something in its cgroup waited for memory, in percent.
    PressureMemory "pressure.memory" Process Highest Percent("percent of the time"), "the same for memory";
    /// Time that something in its cgroup waited for I/O, in percent.
    PressureIo "pressure.io" Process Highest Percent("percent of the time"), "the same for I/O";
    /// Share of all the host's processors at work, in percent.
    HostCpu "host.cpu" Host Highest Percent("percent of the host's cores"),
        "share of all the host's processors at work. A rule on the host breaks once, with the target's process that uses most \
         CPU as its evidence";
    /// Share of the host's memory that is not available, in percent.
    HostMemory "host.memory" Host Highest Percent("percent of the host's memory"),
        "share of the host's memory that is not available to programs; the process that has most is the evidence";
    /// The time within which 99 % of the calls of a function ended, in nanoseconds.
    FunctionP99 "function.p99" Function Highest Nanoseconds,
        "the time within which 99 % of the calls of the last 10 seconds ended; no value without calls";
    /// Average time of its calls, in nanoseconds.
    FunctionAvg "function.avg" Function Highest Nanoseconds, "the average time of these calls";
    /// The share of its calls within its threshold, in percent.
    FunctionAttainment "function.attainment" Function Lowest PercentOfCalls,
        "the share of these calls that ended within the function's `threshold`";
    /// Calls of it that have not returned.
    FunctionInFlight "function.in_flight" Function Sum Count("calls"), "calls that have not returned";
    /// How long the oldest of these has been going on, in nanoseconds.
    FunctionOldest "function.oldest" Function Highest Nanoseconds, "how long the oldest of them has been going on";
    /// Calls of it a second.
    FunctionRate "function.rate" Function Sum PerSecond("calls a second"),
        "calls a second that ended, in the last 10 seconds; 0 without calls";
    /// Calls of it a second that ended as an error.
    FunctionErrors "function.errors" Function Sum PerSecond("calls a second"),
        "of these, the calls that returned an error, as the function's `errors` says";
}

impl Metric {
    /// The name of the unit of its values.
    pub fn unit(self) -> &'static str {
        self.kind().name()
    }

    /// A value and the threshold it has broken, for people: `97.5 above 80 percent of one core`, `20.3ms above 10.0ms`.
    pub fn compare(self, value: f64, side: Side, threshold: f64) -> String {
        let (side, shown) = (side.name(), self.show(value));
        match self.kind() {
            Unit::Nanoseconds | Unit::Bytes => format!("{shown} {side} {}", self.show(threshold)),
            Unit::BytesPerMinute => format!("{shown} {side} {} a minute", self.show(threshold)),
            Unit::BytesPerSecond => format!("{shown} {side} {} a second", self.show(threshold)),
            // A threshold that follows from an average has more digits than it deserves.
            unit => format!("{shown} {side} {} {}", (10.0 * threshold).round() / 10.0, unit.name()),
        }
    }

    /// A value, for people.
    pub fn show(self, value: f64) -> String {
        match self.kind() {
            Unit::Nanoseconds => short_time(value as u64),
            Unit::Bytes | Unit::BytesPerMinute | Unit::BytesPerSecond => mebibytes(value as u64),
            Unit::Count(_) if value.fract() == 0.0 => format!("{value:.0}"),
            _ => format!("{value:.1}"),
        }
    }

    /// True for what is explained by who takes memory.
    pub fn is_memory(self) -> bool {
        matches!(self, Self::MemoryRss | Self::MemoryRssPercent | Self::MemoryGrowth | Self::HostMemory)
    }

    /// True for those of a function, which a rule has to name.
    pub fn is_of_function(self) -> bool {
        self.scope() == Scope::Function
    }

    /// True for those that single threads have as well.
    pub fn is_of_threads(self) -> bool {
        matches!(self, Self::Cpu | Self::CpuHost | Self::OffCpuRunqueue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_called_the_same_everywhere() {
        for metric in Metric::ALL {
            assert_eq!(serde_json::to_value(metric).expect("serializes"), metric.name());
        }
    }

    #[test]
    fn values_are_compared_in_their_unit() {
        for (metric, value, threshold, expected) in [
            (Metric::Cpu, 97.46, 80.0, "97.5 above 80 percent of one core"),
            (Metric::Cpu, 97.46, 33.333_333, "97.5 above 33.3 percent of one core"),
            (Metric::FunctionP99, 20_300_000.0, 10_000_000.0, "20.3ms above 10.0ms"),
            (Metric::IoRead, 2_097_152.0, 1_048_576.0, "2.0 MiB above 1.0 MiB a second"),
            (Metric::Fds, 1000.0, 900.0, "1000 above 900 open files"),
        ] {
            assert_eq!(metric.compare(value, Side::Above, threshold), expected);
        }
    }
}
