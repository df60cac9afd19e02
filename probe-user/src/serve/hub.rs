//! Events for many listeners: one thread asks the collector, and keeps the latest; each listener reads on from its place.
//! One that is too slow misses events and is told so.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::control::{Collector, Cursor, Event, Events};

/// Events that are kept for slow listeners: some hundreds of bytes each.
const KEPT: usize = 1024;
/// How long one question to the collector waits.
const WAIT: Duration = Duration::from_secs(10);
/// How long to wait after a question that was refused.
const PAUSE: Duration = Duration::from_secs(1);
/// Questions for what a listener has missed.
const QUESTIONS: usize = 64;

/// What a listener gets.
#[derive(Clone, Debug)]
pub enum Item {
    /// Something happened.
    Event(Arc<Event>),
    /// Something happened that is forgotten.
    Missed,
}

/// Hands events on.
pub struct Hub {
    shared: Arc<Shared>,
    listeners: Arc<Semaphore>,
    most: usize,
}

struct Shared {
    collector: Arc<dyn Collector>,
    ring: Mutex<Ring>,
    /// Number of the item after the last.
    end: watch::Sender<u64>,
}

#[derive(Default)]
struct Ring {
    items: VecDeque<Item>,
    /// Number of the first item.
    first: u64,
}

impl Ring {
    fn end(&self) -> u64 {
        self.first + self.items.len() as u64
    }

    fn push(&mut self, item: Item) {
        if self.items.len() == KEPT {
            self.items.pop_front();
            self.first += 1;
        }
        self.items.push_back(item);
    }
}

impl Hub {
    /// For at most so many listeners at once.
    pub fn start(collector: Arc<dyn Collector>, listeners: usize) -> Result<Self> {
        let shared = Arc::new(Shared { collector, ring: Mutex::default(), end: watch::Sender::new(0) });
        let weak = Arc::downgrade(&shared);
        let thread = std::thread::Builder::new().name("events".into());
        thread.spawn(move || ask(&weak)).context("cannot start the thread for events")?;
        Ok(Self { shared, listeners: Arc::new(Semaphore::new(listeners)), most: listeners })
    }

    /// Listens from now on, or from an event on. `None`: there are too many listeners. Asks the collector, so it blocks.
    pub fn listen(&self, after: Option<Cursor>) -> Option<Listener> {
        let permit = Arc::clone(&self.listeners).try_acquire_owned().ok()?;
        let changed = self.shared.end.subscribe();
        let ring = self.shared.ring();
        let mut listener = Listener {
            shared: Arc::clone(&self.shared),
            changed,
            before: VecDeque::new(),
            next: ring.end(),
            seen: None,
            _permit: permit,
        };
        let Some(after) = after else { return Some(listener) };
        let is_last = |item: &Item| matches!(item, Item::Event(event) if event.id == after);
        if let Some(at) = ring.items.iter().rposition(is_last) {
            listener.next = ring.first + at as u64 + 1;
            return Some(listener);
        }
        listener.next = ring.first;
        drop(ring);
        self.catch_up(&mut listener, after);
        Some(listener)
    }

    /// Asks for what happened after an event that is not kept here.
    fn catch_up(&self, listener: &mut Listener, after: Cursor) {
        let mut after = after;
        for _ in 0..QUESTIONS {
            let Ok(Events { events, next, missed }) = self.shared.collector.events(Some(after), Duration::ZERO) else {
                listener.before.push_back(Item::Missed);
                break;
            };
            if missed {
                listener.before.push_back(Item::Missed);
            }
            let is_over = events.is_empty();
            listener.before.extend(events.into_iter().map(|event| Item::Event(Arc::new(event))));
            after = next;
            if is_over {
                break;
            }
        }
        listener.seen = Some(after);
    }

    /// How many listen.
    pub fn listeners(&self) -> usize {
        self.most - self.listeners.available_permits()
    }
}

impl Shared {
    fn ring(&self) -> std::sync::MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks the collector until the hub is gone.
fn ask(hub: &Weak<Shared>) {
    let mut after = None;
    while let Some(collector) = hub.upgrade().map(|shared| Arc::clone(&shared.collector)) {
        match collector.events(after, WAIT) {
            Ok(Events { events, next, missed }) => {
                after = Some(next);
                let Some(shared) = hub.upgrade() else { return };
                let mut ring = shared.ring();
                if missed {
                    ring.push(Item::Missed);
                }
                for event in events {
                    ring.push(Item::Event(Arc::new(event)));
                }
                let end = ring.end();
                drop(ring);
                shared.end.send_if_modified(|known| std::mem::replace(known, end) != end);
            }
            // It is starting, or gone: what is asked next says whether anything was missed.
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

/// A place in the events.
pub struct Listener {
    shared: Arc<Shared>,
    changed: watch::Receiver<u64>,
    /// What comes before the items of the ring.
    before: VecDeque<Item>,
    next: u64,
    /// Events up to here were in `before`.
    seen: Option<Cursor>,
    _permit: OwnedSemaphorePermit,
}

impl Listener {
    /// The next item; waits for it. `None`: the hub is gone.
    pub async fn next(&mut self) -> Option<Item> {
        loop {
            if let Some(item) = self.before.pop_front() {
                return Some(item);
            }
            match self.read() {
                Some(Item::Event(event)) if self.seen.is_some_and(|seen| is_up_to(event.id, seen)) => {}
                Some(item) => return Some(item),
                None => self.changed.changed().await.ok()?,
            }
        }
    }

    fn read(&mut self) -> Option<Item> {
        let ring = self.shared.ring();
        if self.next < ring.first {
            self.next = ring.first;
            return Some(Item::Missed);
        }
        let item = ring.items.get((self.next - ring.first) as usize).cloned()?;
        self.next += 1;
        Some(item)
    }
}

fn is_up_to(event: Cursor, seen: Cursor) -> bool {
    event.life == seen.life && event.number <= seen.number
}
