//! Looking for functions in processes, on a thread of its own: large files take their time.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::choose::choose;
use super::definition::Definition;
use super::function::Function;
use crate::functions::Files;
use crate::target::{Module, Modules, Process};
use crate::text::sanitize;

/// Functions that one name may mean: setting their probes takes milliseconds for each, and all count as one.
const MAX_PLACES: usize = 64;
/// Results that are remembered: processes of a target mostly have the same files.
const MAX_REMEMBERED: usize = 64;

/// What is to be looked for in a process.
#[derive(Clone, Debug)]
pub struct Request {
    /// The process.
    pub pid: u32,
    /// Which of those with this pid.
    pub life: u64,
    /// The functions.
    pub definitions: Vec<Definition>,
}

/// What was found.
#[derive(Debug)]
pub struct Answer {
    /// The process.
    pub pid: u32,
    /// As in the request.
    pub life: u64,
    /// For each function what to time, or why there is nothing.
    pub found: Vec<(Definition, Found)>,
    /// How long that took.
    pub took: Duration,
}

/// What a symbol means in a process: all its places as one, or why there are none.
pub type Found = Result<Function, String>;

/// The thread.
#[derive(Debug)]
pub struct Search {
    requests: SyncSender<Request>,
    answers: Receiver<Answer>,
    is_busy: bool,
}

impl Search {
    /// Starts it. `tell` is called when there is an answer.
    pub fn start(tell: impl Fn() + Send + 'static) -> Result<Self> {
        // One at a time: nobody waits for a channel.
        let (requests, asked) = sync_channel::<Request>(1);
        let (answer, answers) = sync_channel(1);
        let work = move || {
            let mut memory = Memory::default();
            for request in asked {
                if answer.send(memory.look(request)).is_err() {
                    return;
                }
                tell();
            }
        };
        std::thread::Builder::new().name("search".into()).spawn(work).context("cannot start a thread")?;
        Ok(Self { requests, answers, is_busy: false })
    }

    /// Whether it works on a request.
    pub fn is_busy(&self) -> bool {
        self.is_busy
    }

    /// Looks for something else, unless it is busy.
    pub fn ask(&mut self, request: Request) {
        if !self.is_busy {
            self.is_busy = self.requests.try_send(request).is_ok();
        }
    }

    /// The answer, if it has come.
    pub fn answer(&mut self) -> Result<Option<Answer>> {
        match self.answers.try_recv() {
            Ok(answer) => {
                self.is_busy = false;
                Ok(Some(answer))
            }
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => anyhow::bail!("the thread that looks for functions has died"),
        }
    }
}

/// What was found in these files, whose addresses mean them as long as they are held here.
struct Remembered {
    _files: Vec<Arc<Module>>,
    found: Found,
}

#[derive(Default)]
struct Memory {
    modules: Modules,
    /// By symbol and files.
    found: HashMap<(String, Vec<usize>), Remembered>,
}

impl Memory {
    fn look(&mut self, Request { pid, life, definitions }: Request) -> Answer {
        let begin = Instant::now();
        let process = Process::read(pid, &mut self.modules);
        let mut files: Vec<Arc<Module>> = process.mappings.iter().map(|(_, _, _, module)| module.clone()).collect();
        files.sort_by_key(Arc::as_ptr);
        files.dedup_by(|one, other| Arc::ptr_eq(one, other));
        let key: Vec<usize> = files.iter().map(|file| Arc::as_ptr(file).addr()).collect();
        if self.found.len() + definitions.len() > MAX_REMEMBERED {
            self.found.clear();
        }
        let files_of_process = Files::of_process(&process);
        let mut look = |definition: &Definition| {
            if let Some(Remembered { found, .. }) = self.found.get(&(definition.symbol.clone(), key.clone())) {
                return as_defined(found.clone(), definition);
            }
            let found = find(&files_of_process, definition);
            self.found.insert(
                (definition.symbol.clone(), key.clone()),
                Remembered { _files: files.clone(), found: found.clone() },
            );
            as_defined(found, definition)
        };
        let found = definitions.into_iter().map(|definition| (look(&definition), definition));
        let found = found.map(|(found, definition)| (definition, found)).collect();
        self.modules.sweep();
        Answer { pid, life, found, took: begin.elapsed() }
    }
}

/// Several functions may be named the same.
fn as_defined(found: Found, definition: &Definition) -> Found {
    let (name, judgement) = (definition.name.clone(), definition.judgement());
    found.map(|function| Function { name, judgement, has_threshold: definition.threshold.is_some(), ..function })
}

fn find(files: &Files, definition: &Definition) -> Found {
    let spec = definition.spec().map_err(|error| format!("{error:#}"))?;
    let (functions, notes) =
        choose(files, &spec, definition.judgement(), definition.threshold.is_some()).map_err(|missing| {
            let hint = &missing.hint;
            if hint.is_empty() { missing.to_string() } else { format!("{missing}; {hint}") }
        })?;
    if functions.len() > MAX_PLACES {
        let (symbol, count) = (sanitize(&definition.symbol), functions.len());
        return Err(format!(
            "`{symbol}` means {count} functions, at most {MAX_PLACES} can be timed as one; name the library as well: \
             libpush.so:push_*"
        ));
    }
    let all = functions.into_iter().reduce(|mut all, function| {
        all.join(function);
        all
    });
    all.ok_or_else(|| notes.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(symbol: &str) -> Definition {
        Definition {
            name: "f".into(),
            group: String::new(),
            target: "t".into(),
            symbol: symbol.into(),
            threshold: None,
            errors: None,
        }
    }

    #[test]
    fn what_is_there_is_found_and_what_is_not_has_a_reason() {
        let pid = std::process::id();
        let mut memory = Memory::default();
        let definitions =
            vec![definition("libc.so.6:nanosleep"), definition("nanosleeep"), definition("libc:nanosleep")];
        let mut answer = memory.look(Request { pid, life: 3, definitions: definitions.clone() });
        assert_eq!((answer.pid, answer.life, answer.found.len()), (pid, 3, 3));
        let same = answer.found.pop().expect("three").1.expect("found");
        let missing = answer.found.pop().expect("two").1.expect_err("misspelt");
        assert!(missing.contains("did you mean") && missing.contains("nanosleep"), "{missing}");
        let found = answer.found.pop().expect("one").1.expect("found");
        assert!(found.same_place(&same) && found.name == "f" && !found.spots.is_empty());
        let many = memory.look(Request { pid, life: 3, definitions: vec![definition("libc.so.6:*s*")] });
        let too_many = many.found[0].1.as_ref().expect_err("hundreds");
        assert!(too_many.contains("at most 64 can be timed as one"), "{too_many}");
        // The second time from memory.
        let again = memory.look(Request { pid, life: 4, definitions });
        assert!(again.found[0].1.as_ref().expect("found").same_place(&found) && again.found[1].1.is_err());
        assert_eq!(memory.found.len(), 4);
    }
}
