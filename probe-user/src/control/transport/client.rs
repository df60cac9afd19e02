//! The server's end: the collector as if it were here.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ulid::Ulid;

use super::frame::{self, REPLY};
use crate::control::{
    Answer, Collector, Cursor, Definition, DumpRequest, Events, FunctionState, IsWanted, Put, RecordRequest, Refusal,
    Reply, Request, RuleState, Status, TargetState, Thread,
};

/// Connections that are kept for the next request.
const KEPT: usize = 4;
/// How long an answer may take that needs nothing but what the collector has.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long one may take that was recorded, after the recording: threads to stop, files to read, names to find.
const NAMING: Duration = Duration::from_secs(90);
/// How long it may take from its first byte to its last.
const TRANSFER: Duration = Duration::from_secs(30);

/// A collector in another process. It may end and come back: each call finds out.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
    kept: Mutex<Vec<UnixStream>>,
}

impl Client {
    /// Of the collector that listens at a path. Nothing is done before the first call.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), kept: Mutex::default() }
    }

    /// Asks, and returns what is no refusal.
    fn ask(&self, request: &Request, patience: Duration) -> Result<Reply, Refusal> {
        self.ask_while(None, request, patience)
    }

    /// The same, until the answer is not wanted any more: then the connection ends, which tells the collector.
    fn ask_while(
        &self,
        is_wanted: Option<IsWanted<'_>>,
        request: &Request,
        patience: Duration,
    ) -> Result<Reply, Refusal> {
        let unavailable = |error: io::Error| Refusal::Unavailable {
            reason: format!("the collector does not answer at {}: {error}", self.path.display()),
        };
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let asked = match kept.map(|stream| self.ask_at(stream, request, patience, is_wanted)) {
            // It has ended meanwhile, or the collector has: a new connection tells.
            Some(Err(error)) if is_ended(&error) => self.ask_anew(request, patience, is_wanted),
            Some(asked) => asked,
            None => self.ask_anew(request, patience, is_wanted),
        };
        let reply = asked.map_err(unavailable)?;
        match reply.answer {
            Answer::Refused(refusal) => Err(refusal),
            _ => Ok(reply),
        }
    }

    fn ask_anew(&self, request: &Request, patience: Duration, is_wanted: Option<IsWanted<'_>>) -> io::Result<Reply> {
        self.ask_at(UnixStream::connect(&self.path)?, request, patience, is_wanted)
    }

    fn ask_at(
        &self,
        mut stream: UnixStream,
        request: &Request,
        patience: Duration,
        is_wanted: Option<IsWanted<'_>>,
    ) -> io::Result<Reply> {
        let sent = frame::write(&mut stream, &serde_json::to_vec(request)?, &[], PATIENCE);
        if let Some(is_wanted) = is_wanted {
            frame::wait(&stream, patience, is_wanted)?;
        }
        // Who is shown the door is told why, though nobody has listened.
        let reply = frame::read(&mut stream, REPLY, patience, TRANSFER);
        if !matches!(reply, Ok(Some(_))) {
            sent?;
        }
        let (json, body) = reply?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let answer = serde_json::from_slice(&json)?;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT {
            kept.push(stream);
        }
        Ok(Reply { answer, body })
    }

    /// Asks for a profile.
    fn profile(
        &self,
        is_wanted: Option<IsWanted<'_>>,
        request: &Request,
        patience: Duration,
    ) -> Result<Vec<u8>, Refusal> {
        match self.ask_while(is_wanted, request, patience)? {
            Reply { answer: Answer::Profile, body } => Ok(body),
            other => Err(strange(&other)),
        }
    }
}

fn is_ended(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, NotConnected, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | NotConnected | UnexpectedEof)
}

/// An answer to another question: of another version, which a restart of both cures.
fn strange(reply: &Reply) -> Refusal {
    let mut answer = format!("{:?}", reply.answer);
    answer.truncate(answer.find(['(', '{', ' ']).unwrap_or(answer.len()));
    Refusal::Failed { reason: format!("the collector's answer `{answer}` is to another question") }
}

macro_rules! expect {
    ($asked:expr, $answer:pat => $value:expr) => {
        match $asked? {
            Reply { answer: $answer, .. } => Ok($value),
            other => Err(strange(&other)),
        }
    };
}

impl Collector for Client {
    fn status(&self) -> Result<Status, Refusal> {
        expect!(self.ask(&Request::Status, PATIENCE), Answer::Status(status) => *status)
    }

    fn targets(&self) -> Result<Vec<TargetState>, Refusal> {
        expect!(self.ask(&Request::Targets, PATIENCE), Answer::Targets(targets) => targets)
    }

    fn threads(&self, target: &str) -> Result<Vec<Thread>, Refusal> {
        let request = Request::Threads { target: target.to_owned() };
        expect!(self.ask(&request, PATIENCE), Answer::Threads(threads) => threads)
    }

    fn record(&self, target: &str, request: &RecordRequest, is_wanted: IsWanted<'_>) -> Result<Vec<u8>, Refusal> {
        let patience = request.duration.0.saturating_add(NAMING);
        let request = Request::Record { target: target.to_owned(), request: request.clone() };
        self.profile(Some(is_wanted), &request, patience)
    }

    fn dump(&self, target: &str, request: &DumpRequest) -> Result<Vec<u8>, Refusal> {
        self.profile(None, &Request::Dump { target: target.to_owned(), request: request.clone() }, NAMING)
    }

    fn functions(&self, name: Option<&str>) -> Result<Vec<FunctionState>, Refusal> {
        let request = Request::Functions { name: name.map(str::to_owned) };
        expect!(self.ask(&request, PATIENCE), Answer::Functions(functions) => functions)
    }

    fn put_function(&self, name: &str, definition: &Definition) -> Result<Put, Refusal> {
        let request = Request::PutFunction { name: name.to_owned(), definition: definition.clone() };
        expect!(self.ask(&request, PATIENCE), Answer::Put(put) => put)
    }

    fn remove_function(&self, name: &str) -> Result<(), Refusal> {
        let request = Request::RemoveFunction { name: name.to_owned() };
        expect!(self.ask(&request, PATIENCE), Answer::Removed => ())
    }

    fn rules(&self, name: Option<&str>) -> Result<Vec<RuleState>, Refusal> {
        let request = Request::Rules { name: name.map(str::to_owned) };
        expect!(self.ask(&request, PATIENCE), Answer::Rules(rules) => rules)
    }

    fn put_rule(&self, name: &str, definition: &Definition) -> Result<Put, Refusal> {
        let request = Request::PutRule { name: name.to_owned(), definition: definition.clone() };
        expect!(self.ask(&request, PATIENCE), Answer::Put(put) => put)
    }

    fn remove_rule(&self, name: &str) -> Result<(), Refusal> {
        let request = Request::RemoveRule { name: name.to_owned() };
        expect!(self.ask(&request, PATIENCE), Answer::Removed => ())
    }

    fn events(&self, after: Option<Cursor>, wait: Duration) -> Result<Events, Refusal> {
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let patience = wait.saturating_add(PATIENCE);
        expect!(self.ask(&Request::Events { after, wait_ms }, patience), Answer::Events(events) => events)
    }

    fn remove_snapshot(&self, id: Ulid) -> Result<(), Refusal> {
        expect!(self.ask(&Request::RemoveSnapshot { id }, PATIENCE), Answer::Removed => ())
    }
}
