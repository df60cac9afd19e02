//! What is known of an alert later than that it fires: its culprit.

use super::{Lane, State};
use crate::alert::Notice;

impl Lane {
    /// Takes in what an alert was told without. Where the alert still waits, it is told with it; else it is a message of its
    /// own. Returns whether it is news.
    pub(super) fn complete(&self, state: &mut State, notice: &Notice) -> bool {
        // From now on it is the alert itself: that is what is repeated, and what its end is written from.
        let whole = Notice { is_completion: false, ..notice.clone() };
        let is_firing = !notice.is_resolved();
        if is_firing {
            if !state.active.lacks(notice) {
                return false;
            }
            state.active.insert(&whole);
        }
        let is_first = |entry: &Notice| !entry.is_resolved() && !entry.is_completion && entry.is_of_breach(notice);
        let mut waiting = state.waiting.values_mut().filter(|waiting| !waiting.is_busy);
        if let Some(first) = waiting.find(|waiting| is_first(&waiting.entry.notice)) {
            let before = &first.entry.notice;
            first.entry.notice = Notice { id: before.id, kind: before.kind, resolved_at: before.resolved_at, ..whole };
            first.is_saved = false;
            self.save(first);
            return true;
        }
        self.push(state, notice.id, notice);
        true
    }
}
