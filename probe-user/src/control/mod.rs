//! Room: control. What the server asks of the collector, and what it answers: the boundary between the process that has
//! the privileges and the one that has the network. Types and one trait; whoever carries them (a Unix socket) and
//! whoever answers (the daemon) are elsewhere.

mod absent;
mod definition;
mod events;
mod refusal;
mod request;
mod seconds;
pub mod transport;
mod types;

pub use absent::Absent;
pub use definition::{
    Definition, FUNCTION_SCHEMA, FunctionState, Origin, Put, RULE_SCHEMA, RuleProcess, RuleState, State, Unattached,
    function_schema, rule_schema,
};
pub use events::{Cursor, Event, EventKind, Events};
pub use refusal::Refusal;
pub use request::{Answer, Reply, Request, answer};
pub use seconds::Seconds;
pub use types::{DumpRequest, Firing, ProcessState, RecordRequest, Status, StuckThread, TargetState, Thread};

use std::time::Duration;

use ulid::Ulid;

/// Whether somebody waits for an answer still; asked some ten times a second while it is worked out.
pub type IsWanted<'a> = &'a dyn Fn() -> bool;

/// What the server asks of the collector. Calls block, [`Self::record`] for as long as is recorded; they may be made
/// from many threads at once.
pub trait Collector: Send + Sync {
    /// How the collector itself is.
    fn status(&self) -> Result<Status, Refusal>;

    /// Every target with its processes, in the order of the configuration.
    fn targets(&self) -> Result<Vec<TargetState>, Refusal>;

    /// The threads of a target's processes, the busiest first.
    fn threads(&self, target: &str) -> Result<Vec<Thread>, Refusal>;

    /// Records a target's processes and returns a gzip pprof. Ends with a refusal when nobody waits for the answer any more.
    fn record(&self, target: &str, request: &RecordRequest, is_wanted: IsWanted<'_>) -> Result<Vec<u8>, Refusal>;

    /// Takes the stack of every thread of a target's processes, now, and returns a gzip pprof.
    fn dump(&self, target: &str, request: &DumpRequest) -> Result<Vec<u8>, Refusal>;

    /// Every function that is timed, in the order of the configuration; or that of this name, if there is one.
    fn functions(&self, name: Option<&str>) -> Result<Vec<FunctionState>, Refusal>;

    /// Has a function timed. The configuration with the change is checked as a whole; if it is wrong nothing changes.
    /// The definition need not have a `name`; another one than `name` is invalid.
    fn put_function(&self, name: &str, definition: &Definition) -> Result<Put, Refusal>;

    /// Ends the timing of a function. One that a rule names is a conflict.
    fn remove_function(&self, name: &str) -> Result<(), Refusal>;

    /// Every rule, in the order of the configuration; or that of this name, if there is one.
    fn rules(&self, name: Option<&str>) -> Result<Vec<RuleState>, Refusal>;

    /// Takes a rule in, as [`Self::put_function`] does with functions.
    fn put_rule(&self, name: &str, definition: &Definition) -> Result<Put, Refusal>;

    /// Removes a rule.
    fn remove_rule(&self, name: &str) -> Result<(), Refusal>;

    /// What happened after `after`, oldest first; waits for something to happen, at most for `wait`, and then returns
    /// none. Without a cursor it returns at once, no event and a cursor that stands for now. A cursor whose following
    /// events are forgotten, or of an earlier life of the collector, gets what there is and [`Events::missed`].
    fn events(&self, after: Option<Cursor>, wait: Duration) -> Result<Events, Refusal>;

    /// Removes a snapshot from the store, which the server cannot write. That of a firing alert is a conflict.
    fn remove_snapshot(&self, id: Ulid) -> Result<(), Refusal>;
}
