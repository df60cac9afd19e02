//! Whether threads go on: each says when it begins with a piece of work and when it is done. One that has been at it for
//! longer than its work can take hangs; then its process is not well, though its other threads are.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

/// All threads of this process that are looked after.
static PULSES: Mutex<Vec<Weak<Inner>>> = Mutex::new(Vec::new());

/// The pulse of a thread, or of what is done by one thread after the other.
#[derive(Clone, Debug)]
pub struct Pulse(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    deadline: Duration,
    since: Mutex<Option<Instant>>,
    /// The log knows that it hangs.
    is_told: AtomicBool,
}

/// A piece of work, until this is dropped.
#[derive(Debug)]
pub struct Busy<'a>(&'a Inner);

/// A thread that hangs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stuck {
    /// What it is.
    pub thread: String,
    /// For how long it has been at the same piece of work.
    pub since: Duration,
}

impl Pulse {
    /// Of a thread, a piece of whose work never takes longer than `deadline`.
    pub fn new(name: impl Into<String>, deadline: Duration) -> Self {
        let (name, since) = (name.into(), Mutex::default());
        let inner = Arc::new(Inner { name, deadline, since, is_told: AtomicBool::default() });
        let mut pulses = lock(&PULSES);
        pulses.retain(|pulse| pulse.strong_count() > 0);
        pulses.push(Arc::downgrade(&inner));
        Self(inner)
    }

    /// A piece of work begins.
    pub fn begin(&self) -> Busy<'_> {
        *lock(&self.0.since) = Some(Instant::now());
        Busy(&self.0)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        *lock(&self.0.since) = None;
        if self.0.is_told.swap(false, Ordering::Relaxed) {
            tracing::info!("the {} thread goes on", self.0.name);
        }
    }
}

/// The threads of this process that hang. The log is told of each once.
pub fn stuck() -> Vec<Stuck> {
    let pulses: Vec<Arc<Inner>> = lock(&PULSES).iter().filter_map(Weak::upgrade).collect();
    let stuck = pulses.iter().filter_map(|pulse| {
        let since = lock(&pulse.since).map(|since| since.elapsed()).filter(|since| *since > pulse.deadline)?;
        if !pulse.is_told.swap(true, Ordering::Relaxed) {
            let (name, seconds) = (&pulse.name, since.as_secs());
            tracing::error!("the {name} thread has made no progress for {seconds} s: it seems to hang");
        }
        Some(Stuck { thread: pulse.name.clone(), since })
    });
    stuck.collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_stuck(name: &str) -> bool {
        stuck().iter().any(|stuck| stuck.thread == name)
    }

    #[test]
    fn who_is_at_it_for_too_long_hangs_until_it_is_done() {
        let (slow, quick) = (Pulse::new("slow", Duration::ZERO), Pulse::new("quick", Duration::from_secs(3600)));
        assert!(!is_stuck("slow"), "it has nothing to do");
        let busy = (slow.begin(), quick.begin());
        std::thread::sleep(Duration::from_millis(2));
        assert!(is_stuck("slow") && !is_stuck("quick"));
        drop(busy);
        assert!(!is_stuck("slow"));
    }
}
