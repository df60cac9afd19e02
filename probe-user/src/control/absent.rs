//! `Absent`: the collector where there is none, for those who look at a store alone.

use std::time::Duration;

use ulid::Ulid;

use super::{
    Collector, Cursor, Definition, DumpRequest, Events, FunctionState, IsWanted, Put, RecordRequest, Refusal,
    RuleState, Status, TargetState, Thread,
};

/// Refuses everything.
#[derive(Clone, Copy, Debug)]
pub struct Absent;

fn refusal<T>() -> Result<T, Refusal> {
    Err(Refusal::Unavailable { reason: "there is no collector: only stored snapshots are shown here".into() })
}

impl Collector for Absent {
    fn status(&self) -> Result<Status, Refusal> {
        refusal()
    }

    fn targets(&self) -> Result<Vec<TargetState>, Refusal> {
        refusal()
    }

    fn threads(&self, _: &str) -> Result<Vec<Thread>, Refusal> {
        refusal()
    }

    fn record(&self, _: &str, _: &RecordRequest, _: IsWanted<'_>) -> Result<Vec<u8>, Refusal> {
        refusal()
    }

    fn dump(&self, _: &str, _: &DumpRequest) -> Result<Vec<u8>, Refusal> {
        refusal()
    }

    fn functions(&self, _: Option<&str>) -> Result<Vec<FunctionState>, Refusal> {
        refusal()
    }

    fn put_function(&self, _: &str, _: &Definition) -> Result<Put, Refusal> {
        refusal()
    }

    fn remove_function(&self, _: &str) -> Result<(), Refusal> {
        refusal()
    }

    fn rules(&self, _: Option<&str>) -> Result<Vec<RuleState>, Refusal> {
        refusal()
    }

    fn put_rule(&self, _: &str, _: &Definition) -> Result<Put, Refusal> {
        refusal()
    }

    fn remove_rule(&self, _: &str) -> Result<(), Refusal> {
        refusal()
    }

    fn events(&self, _: Option<Cursor>, _: Duration) -> Result<Events, Refusal> {
        refusal()
    }

    fn remove_snapshot(&self, _: Ulid) -> Result<(), Refusal> {
        refusal()
    }
}
