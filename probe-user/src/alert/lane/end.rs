//! How alerts end in a lane.

use std::collections::BTreeSet;

use super::{Lane, State};
use crate::alert::Notice;
use crate::alert::journal::next_id;

impl Lane {
    /// Ends what fires no longer by the journal, though its end did not come here: it was written while nobody read, or the
    /// channel was away.
    pub(in crate::alert) fn end_all_but(&self, firing: &BTreeSet<String>) {
        let mut state = self.state();
        for notice in state.active.others(firing) {
            tracing::warn!("{} has missed the end of {} ({})", self.name, notice.rule, notice.fingerprint);
            self.end(&mut state, &notice.over(None));
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Tells the end of an alert that the channel knows. One that is not from the journal gets its id here.
    pub(super) fn end(&self, state: &mut State, end: &Notice) {
        // A repetition of what is over is none.
        state.waiting.retain(|id, waiting| {
            let entry = &waiting.entry;
            waiting.is_busy || *id == entry.notice.id || entry.notice.fingerprint != end.fingerprint
        });
        if state.policy.send_resolved {
            let last = state.waiting.last_key_value().map(|(&id, _)| id);
            let id = if end.id.is_nil() { next_id(last) } else { end.id };
            self.push(state, id, &Notice { id, ..end.clone() });
        }
        // Not before it waits: what is interrupted in between is done again.
        state.active.remove(&end.fingerprint);
    }
}
