//! Growth of memory on its way into a profile.

use super::profile::{Allocated, Measure, Sample};
use super::symbolizer::Builder;
use crate::record::{Grown, Growth, Recording};
use crate::target::ThreadState;

impl Builder {
    pub(super) fn add_growth(&mut self, recording: &Recording, growth: &Growth) {
        let Growth { time_ns, pid, tid, grown, count, bytes, user } = *growth;
        let thread = self.thread(recording, pid, tid);
        let stack = self.stack(user, None);
        self.count_losses(stack, user, 1);
        let measure = match grown {
            Grown::Resident => Measure::Resident,
            Grown::Mapped => Measure::Mapped,
        };
        let time_ns = time_ns.saturating_sub(recording.from_ns);
        let state = ThreadState::Running;
        let allocated = Allocated::default();
        let value = bytes;
        self.profile.samples.push(Sample { thread, stack, time_ns, count, value, state, measure, allocated });
    }
}
