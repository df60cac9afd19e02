//! How much may be profiled on demand: how many at once, and how often.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::StatusCode;

use super::problem::Problem;

/// What is allowed of a kind.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    /// How many at once.
    pub at_once: usize,
    /// How many a minute on average; as many may come in a burst.
    pub a_minute: u32,
}

/// A kind of measurement.
#[derive(Debug)]
pub struct OnDemand {
    what: &'static str,
    allowance: Allowance,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    /// When those that run will be over.
    ends: Vec<(u64, Instant)>,
    next: u64,
    /// What is left of the burst.
    tokens: f64,
    filled_at: Instant,
}

/// As long as this lives, the measurement runs.
#[derive(Debug)]
pub struct Permit {
    id: u64,
    state: Arc<Mutex<State>>,
}

impl OnDemand {
    /// `what` is their name in problems: `recordings`.
    pub fn new(what: &'static str, allowance: Allowance) -> Self {
        let state = State { ends: Vec::new(), next: 0, tokens: allowance.a_minute.into(), filled_at: Instant::now() };
        Self { what, allowance, state: Arc::new(Mutex::new(state)) }
    }

    /// Lets a measurement begin that takes this long, or says when to try again.
    pub fn begin(&self, duration: Duration) -> Result<Permit, Problem> {
        self.begin_at(Instant::now(), duration)
    }

    fn begin_at(&self, now: Instant, duration: Duration) -> Result<Permit, Problem> {
        let Allowance { at_once, a_minute } = self.allowance;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (most, a_second) = (f64::from(a_minute), f64::from(a_minute) / 60.0);
        let since = now.saturating_duration_since(state.filled_at).as_secs_f64();
        state.tokens = (state.tokens + since * a_second).min(most);
        state.filled_at = now;
        let what = self.what;
        let busy = |detail: String, after: f64| {
            Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, detail).retry_after(after.ceil() as u64))
        };
        if state.ends.len() >= at_once {
            let first = state.ends.iter().map(|(_, end)| end.saturating_duration_since(now)).min().unwrap_or_default();
            return busy(format!("{} {what} are running, no more at once", state.ends.len()), first.as_secs_f64());
        }
        if state.tokens < 1.0 {
            let after = (1.0 - state.tokens) / a_second;
            return busy(format!("there were {a_minute} {what} within a minute, no more in that time"), after);
        }
        state.tokens -= 1.0;
        let id = state.next;
        state.next += 1;
        state.ends.push((id, now + duration));
        Ok(Permit { id, state: Arc::clone(&self.state) })
    }

    /// How many run.
    pub fn running(&self) -> usize {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).ends.len()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).ends.retain(|(id, _)| *id != self.id);
    }
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse as _;

    use super::*;

    fn refused(result: Result<Permit, Problem>) -> String {
        let response = result.expect_err("refused").into_response();
        assert_eq!(response.status(), 429);
        format!("{:?}", response.extensions().get::<Problem>())
    }

    #[test]
    fn so_many_at_once_and_so_many_a_minute() {
        let limits = OnDemand::new("recordings", Allowance { at_once: 2, a_minute: 3 });
        let now = Instant::now();
        let [first, second] = [10, 20].map(|seconds| limits.begin_at(now, Duration::from_secs(seconds)).unwrap());
        assert!(refused(limits.begin_at(now + Duration::from_secs(4), Duration::ZERO)).contains("\"6\""));
        assert_eq!(limits.running(), 2);
        drop(first);
        let third = limits.begin_at(now + Duration::from_secs(5), Duration::ZERO).unwrap();
        drop((second, third));
        assert_eq!(limits.running(), 0);
        // A quarter has come back since, which leaves 15 of the 20 seconds that one takes.
        assert!(refused(limits.begin_at(now + Duration::from_secs(5), Duration::ZERO)).contains("\"15\""));
        assert!(limits.begin_at(now + Duration::from_secs(20), Duration::ZERO).is_ok());
    }
}
