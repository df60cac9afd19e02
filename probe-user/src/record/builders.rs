//! The threads that have unwind tables built, by readers, and put them into the kernel.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::Result;

use crate::kernel::UnwindTables;
use crate::target::Module;
use crate::unwind::{Effort, Packed};

/// Threads. Publishing a table waits for the kernel, so that more of them than CPUs help.
const BUILDERS: usize = 8;

/// Of these, such as build the tables that take long: nobody is to wait for them who wants another.
const PATIENT: usize = 1;

/// The threads. They end when this is dropped.
pub struct Builders {
    requests: Sender<Request>,
    /// For the patient ones.
    long_requests: Sender<Request>,
    built: Receiver<Built>,
}

/// A table in the kernel.
#[derive(Clone, Copy)]
pub struct Ready {
    /// As in [`MappedRange::table`].
    pub table: u32,
    /// Number of its first page of 64 KiB.
    pub first_page: u64,
    pub pages: u32,
    pub bytes: usize,
    /// There may be a better one, with [`Effort::Full`].
    pub is_partial: bool,
}

enum Request {
    Build {
        module: Arc<Module>,
        table: u32,
        effort: Effort,
    },
    /// Frees a place that no mapping refers to any more.
    Clear {
        table: u32,
    },
}

/// What has been done.
pub enum Built {
    /// A table was built, or not.
    Table { module: Arc<Module>, table: u32, effort: Effort, result: Result<Ready> },
    /// A place is free again, and this is what the next table there is called.
    Place { table: u32 },
}

impl Builders {
    /// Starts them.
    pub fn start(tables: &UnwindTables) -> Result<Self> {
        // Queues hold at most one entry for each place, of which there are a fixed number.
        let (requests, inbox) = channel::<Request>();
        let (long_requests, long_inbox) = channel::<Request>();
        let (outbox, built) = channel();
        let (inbox, long_inbox) = (Arc::new(Mutex::new(inbox)), Arc::new(Mutex::new(long_inbox)));
        for number in 0..BUILDERS {
            let inbox = if number < PATIENT { &long_inbox } else { &inbox };
            let (inbox, outbox, mut tables) = (inbox.clone(), outbox.clone(), tables.try_clone()?);
            std::thread::Builder::new().name("unwind".into()).spawn(move || {
                loop {
                    let request = inbox.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let sent = match request {
                        Err(_) => return,
                        Ok(Request::Build { module, table, effort }) => {
                            let result = build(&module, table, effort, &mut tables);
                            outbox.send(Built::Table { module, table, effort, result })
                        }
                        Ok(Request::Clear { table }) => {
                            if let Err(error) = tables.clear(table % UnwindTables::PLACES) {
                                tracing::warn!(error = format!("{error:#}"), "an unwind table stays in memory");
                            }
                            outbox.send(Built::Place { table: next_in_place(table) })
                        }
                    };
                    if sent.is_err() {
                        return;
                    }
                }
            })?;
        }
        Ok(Self { requests, long_requests, built })
    }

    /// Asks for the table of a module, to be called `table`.
    pub fn build(&self, module: Arc<Module>, table: u32, effort: Effort) {
        let requests = match effort {
            Effort::Quick => &self.requests,
            Effort::Full => &self.long_requests,
        };
        // The builders live as long as this does.
        let _ = requests.send(Request::Build { module, table, effort });
    }

    /// Frees the place of a table that no mapping refers to any more.
    pub fn clear(&self, table: u32) {
        let _ = self.requests.send(Request::Clear { table });
    }

    /// What was done since the last call, one thing at a time.
    pub fn next(&self) -> Option<Built> {
        self.built.try_recv().ok()
    }
}

fn build(module: &Module, table: u32, effort: Effort, tables: &mut UnwindTables) -> Result<Ready> {
    let begin = Instant::now();
    let built = Packed::of_module(module, effort)?;
    let made = begin.elapsed();
    let bytes = tables.put(table % UnwindTables::PLACES, &built.words)?;
    let (made_us, put_us) = (made.as_micros() as u64, (begin.elapsed() - made).as_micros() as u64);
    tracing::debug!(path = module.path, ?effort, bytes, made_us, put_us, "an unwind table");
    let Packed { first_page, pages, is_partial, .. } = built;
    Ok(Ready { table, first_page, pages, bytes, is_partial })
}

/// What the next table in the same place is called.
fn next_in_place(table: u32) -> u32 {
    // One bit less than there is, so that it never is `NO_TABLE`.
    table.wrapping_add(UnwindTables::PLACES) & i32::MAX as u32
}
