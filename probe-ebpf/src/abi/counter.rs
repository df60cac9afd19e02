//! Counters, most of them of what was lost.

/// Index into the per-CPU counters.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// Samples taken of targets.
    Samples = 0,
    /// Samples that found the ring buffer full, or in an NMI its lock taken.
    SamplesLost = 1,
    /// Stacks that found the ring buffer full; they travel at their next sample.
    StacksLost = 2,
    /// Process events (exec, fork, exit) that found the ring buffer full.
    ProcessEventsLost = 3,
    /// New processes that did not fit into the table of targets.
    TargetsFull = 4,
    /// Stacks of 32-bit code, of which only the leaf is taken.
    Compat = 5,
    /// Waits whose sum found the ring buffer full when its place was needed.
    WaitsLost = 6,
    /// Waits of threads that did not fit into the table of waiting threads.
    WaitersFull = 7,
    /// Slow calls that found the ring buffer full.
    CallsLost = 8,
    /// Page faults that took memory and were looked at.
    Faults = 9,
    /// Changes of memory that found the ring buffer full.
    MemoryLost = 10,
    /// Changes of mappings beyond the budget of a CPU.
    MappingsSkipped = 11,
    /// Sampled allocations that found the ring buffer full.
    AllocationsLost = 12,
    /// Sampled allocations that could not be followed: their table was full.
    LiveFull = 13,
    /// Descriptors and threads that found the ring buffer full when it was told who made them.
    OriginsLost = 14,
}

impl Counter {
    /// Number of counters.
    pub const COUNT: u32 = 15;
    /// All of them with the name under which a loss is reported; `None` for what is no loss.
    pub const ALL: [(Self, Option<&'static str>); Self::COUNT as usize] = [
        (Self::Samples, None),
        (Self::SamplesLost, Some("samples lost: ring buffer full or busy")),
        (Self::StacksLost, Some("stacks lost: ring buffer full or busy")),
        (Self::ProcessEventsLost, Some("process events lost: ring buffer full or busy")),
        (Self::TargetsFull, Some("processes not followed: table of targets full")),
        (Self::Compat, Some("32-bit code: leaf only")),
        (Self::WaitsLost, Some("waits lost: ring buffer full or busy")),
        (Self::CallsLost, Some("slow calls lost: ring buffer full or busy")),
        (Self::AllocationsLost, Some("sampled allocations lost: ring buffer full or busy")),
        (Self::LiveFull, Some("sampled allocations not followed: table full")),
        (Self::OriginsLost, Some("descriptors and threads of unknown origin: ring buffer full or busy")),
        (Self::WaitersFull, Some("waits lost: table of waiting threads full")),
        (Self::Faults, None),
        (Self::MemoryLost, Some("changes of memory lost: ring buffer full or busy")),
        (Self::MappingsSkipped, Some("changes of mappings lost: too many at once")),
    ];
}
