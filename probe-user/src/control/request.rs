//! The questions as values, for whoever carries them from one process to another.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use ulid::Ulid;

use super::{
    Collector, Cursor, Definition, DumpRequest, Events, FunctionState, IsWanted, Put, RecordRequest, Refusal,
    RuleState, Status, TargetState, Thread,
};

/// A call of a method of [`Collector`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
#[allow(missing_docs, reason = "the fields are the arguments of the methods")]
pub enum Request {
    /// [`Collector::status`].
    Status,
    /// [`Collector::targets`].
    Targets,
    /// [`Collector::threads`].
    Threads { target: String },
    /// [`Collector::record`].
    Record { target: String, request: RecordRequest },
    /// [`Collector::dump`].
    Dump { target: String, request: DumpRequest },
    /// [`Collector::functions`].
    Functions { name: Option<String> },
    /// [`Collector::put_function`].
    PutFunction { name: String, definition: Definition },
    /// [`Collector::remove_function`].
    RemoveFunction { name: String },
    /// [`Collector::rules`].
    Rules { name: Option<String> },
    /// [`Collector::put_rule`].
    PutRule { name: String, definition: Definition },
    /// [`Collector::remove_rule`].
    RemoveRule { name: String },
    /// [`Collector::events`].
    Events { after: Option<Cursor>, wait_ms: u64 },
    /// [`Collector::remove_snapshot`].
    RemoveSnapshot { id: Ulid },
}

/// What a method of [`Collector`] returned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", content = "is", rename_all = "snake_case")]
pub enum Answer {
    /// To [`Request::Status`].
    Status(Box<Status>),
    /// To [`Request::Targets`].
    Targets(Vec<TargetState>),
    /// To [`Request::Threads`].
    Threads(Vec<Thread>),
    /// To [`Request::Record`] and [`Request::Dump`]; the profile is in [`Reply::body`].
    Profile,
    /// To [`Request::Functions`].
    Functions(Vec<FunctionState>),
    /// To [`Request::PutFunction`] and [`Request::PutRule`].
    Put(Put),
    /// To what removes something.
    Removed,
    /// To [`Request::Rules`].
    Rules(Vec<RuleState>),
    /// To [`Request::Events`].
    Events(Events),
    /// To anything.
    Refused(Refusal),
}

/// An answer with what is not worth being JSON.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// The answer.
    pub answer: Answer,
    /// A gzip pprof; empty but for [`Answer::Profile`].
    pub body: Vec<u8>,
}

/// Makes the call that `request` is.
pub fn answer(collector: &dyn Collector, request: &Request, is_wanted: IsWanted<'_>) -> Reply {
    let mut body = Vec::new();
    let mut profile = |bytes| {
        body = bytes;
        Answer::Profile
    };
    let answer = match request {
        Request::Status => collector.status().map(|status| Answer::Status(Box::new(status))),
        Request::Targets => collector.targets().map(Answer::Targets),
        Request::Threads { target } => collector.threads(target).map(Answer::Threads),
        Request::Record { target, request } => collector.record(target, request, is_wanted).map(&mut profile),
        Request::Dump { target, request } => collector.dump(target, request).map(&mut profile),
        Request::Functions { name } => collector.functions(name.as_deref()).map(Answer::Functions),
        Request::PutFunction { name, definition } => collector.put_function(name, definition).map(Answer::Put),
        Request::RemoveFunction { name } => collector.remove_function(name).map(|()| Answer::Removed),
        Request::Rules { name } => collector.rules(name.as_deref()).map(Answer::Rules),
        Request::PutRule { name, definition } => collector.put_rule(name, definition).map(Answer::Put),
        Request::RemoveRule { name } => collector.remove_rule(name).map(|()| Answer::Removed),
        Request::Events { after, wait_ms } => {
            collector.events(*after, Duration::from_millis(*wait_ms)).map(Answer::Events)
        }
        Request::RemoveSnapshot { id } => collector.remove_snapshot(*id).map(|()| Answer::Removed),
    };
    let answer = answer.unwrap_or_else(Answer::Refused);
    Reply { answer, body }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{Event, EventKind};
    use crate::snapshot::Timestamp;

    #[test]
    fn what_is_carried_arrives_as_it_was_sent() {
        let definition = Definition(serde_json::Map::from_iter([("above".to_owned(), 80.5.into())]));
        let (target, name, id) = ("checkout".to_owned(), "push".to_owned(), Ulid::from_parts(7, 7));
        for request in [
            Request::Status,
            Request::Record { target: target.clone(), request: RecordRequest::default() },
            Request::Dump { target, request: DumpRequest { pid: Some(7) } },
            Request::PutRule { name: name.clone(), definition },
            Request::RemoveFunction { name },
            Request::Events { after: Some(Cursor { life: u64::MAX, number: 9 }), wait_ms: 500 },
            Request::RemoveSnapshot { id },
        ] {
            let json = serde_json::to_string(&request).expect("serializes");
            assert_eq!(serde_json::from_str::<Request>(&json).expect(&json), request);
        }
        let event = Event {
            id: Cursor { life: 1, number: 2 },
            at: Timestamp(1_700_000_000_000_000_000),
            kind: EventKind::Snapshot,
            rule: "hot".into(),
            target: "checkout".into(),
            pid: None,
            metric: "cpu".into(),
            function: None,
            value: Some(97.5),
            threshold: 80.0,
            unit: "percent of one core".into(),
            snapshot: Some(id),
            culprit: String::new(),
        };
        for answer in [
            Answer::Status(Box::default()),
            Answer::Profile,
            Answer::Removed,
            Answer::Put(Put::Created),
            Answer::Functions(vec![FunctionState::default()]),
            Answer::Events(Events { events: vec![event], next: Cursor { life: 1, number: 2 }, missed: true }),
            Answer::Refused(Refusal::Busy { reason: "two recordings".into(), retry_after_s: 5 }),
        ] {
            let json = serde_json::to_string(&answer).expect("serializes");
            assert_eq!(serde_json::from_str::<Answer>(&json).expect(&json), answer);
        }
    }
}
