//! Threads in which probes are dropped: the kernel waits for each, which nobody else has to. A process that ends before
//! they are done would leave its traps in the code of others: the kernel takes none away on behalf of a thread that is being
//! killed, as all are when a process exits (`fatal_signal_pending` in `get_user_pages`; it says "leaking uprobe").

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The kernel lets many wait together; a thousand threads would be more than a service may have.
const MAX_THREADS: usize = 64;

static LEAVING: Mutex<Leaving> = Mutex::new(Leaving { jobs: VecDeque::new(), threads: 0, count: 0 });
static DONE: Condvar = Condvar::new();

type Job = Box<dyn FnOnce() + Send>;

struct Leaving {
    /// What no thread has begun with.
    jobs: VecDeque<Job>,
    threads: usize,
    /// How many are not done.
    count: usize,
}

fn lock() -> MutexGuard<'static, Leaving> {
    LEAVING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Does this, which drops probes, in a thread that has nothing else to do.
pub(super) fn elsewhere(leave: impl FnOnce() + Send + 'static) {
    let mut leaving = lock();
    leaving.jobs.push_back(Box::new(leave));
    leaving.count += 1;
    if leaving.threads == MAX_THREADS {
        return;
    }
    leaving.threads += 1;
    drop(leaving);
    if std::thread::Builder::new().name("leaving".into()).spawn(work).is_err() {
        // There may be no more threads: then it is this one that waits.
        work();
    }
}

/// Until nothing is left to do.
fn work() {
    loop {
        let mut leaving = lock();
        let Some(job) = leaving.jobs.pop_front() else {
            leaving.threads -= 1;
            return;
        };
        drop(leaving);
        // The panic has been told; the others are to go nevertheless.
        let _ = catch_unwind(AssertUnwindSafe(job));
        lock().count -= 1;
        DONE.notify_all();
    }
}

/// Waits until all probes that were taken away are gone, but at most so long. False if some are not. What ends the process
/// calls it last.
pub fn settle(patience: Duration) -> bool {
    let (leaving, _) =
        DONE.wait_timeout_while(lock(), patience, |leaving| leaving.count > 0).unwrap_or_else(PoisonError::into_inner);
    leaving.count == 0
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn many_leave_and_one_that_panics_holds_nobody_up() {
        let done = Arc::new(AtomicUsize::new(0));
        for number in 0..4 * MAX_THREADS {
            let done = Arc::clone(&done);
            elsewhere(move || {
                std::thread::sleep(Duration::from_millis(1));
                assert_ne!(number, 7, "as a test");
                done.fetch_add(1, Ordering::Relaxed);
            });
        }
        assert!(settle(Duration::from_secs(60)));
        assert_eq!(done.load(Ordering::Relaxed), 4 * MAX_THREADS - 1);
        assert!(lock().threads <= MAX_THREADS);
    }
}
