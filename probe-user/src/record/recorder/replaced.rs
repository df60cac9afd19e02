//! `Replaced`: code that took the place of other code in a process. Until the kernel is told of it, it unwinds the new code
//! by the table of the other.

use std::ops::Range;

use crate::kernel::{End, RawStack};

/// Stacks that were taken before the kernel was told have come after this time, in nanoseconds.
const LATE_NS: u64 = 10_000_000_000;

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Replaced(Vec<Place>);

#[derive(Debug)]
struct Place {
    addresses: Range<u64>,
    /// When the kernel was told, `CLOCK_MONOTONIC`, nanoseconds.
    told_ns: Option<u64>,
}

impl Replaced {
    /// There is other code at these addresses now.
    pub fn add(&mut self, addresses: Range<u64>) {
        // Where something is replaced again and again, one is enough until the kernel is told.
        if !self.0.iter().any(|place| place.told_ns.is_none() && place.addresses == addresses) {
            self.0.push(Place { addresses, told_ns: None });
        }
    }

    /// The kernel was told of all of them, at the latest now.
    pub fn told(&mut self, now_ns: u64) {
        self.0.retain_mut(|place| now_ns.saturating_sub(*place.told_ns.get_or_insert(now_ns)) < LATE_NS);
    }

    /// Cuts a stack above the first frame that the kernel crossed by the table of other code. True if there was one.
    pub fn cut(&self, stack: &mut RawStack) -> bool {
        let is_early = |place: &&Place| place.told_ns.is_none_or(|told_ns| stack.time_ns <= told_ns);
        let places: Vec<&Place> = self.0.iter().filter(is_early).collect();
        let is_replaced = |address: &u64| places.iter().any(|place| place.addresses.contains(address));
        let Some(at) = stack.frames.iter().position(is_replaced) else { return false };
        stack.frames.truncate(at + 1);
        stack.end = End::NewCode;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::StackId;

    #[test]
    fn what_was_crossed_by_the_table_of_other_code_is_cut() {
        let taken = |time_ns| {
            let frames = vec![0x1000, 0x2010, 0x3000];
            RawStack {
                id: StackId::NONE,
                time_ns,
                pid: Some(1),
                end: End::Root,
                guessed: false,
                derived: false,
                frames,
            }
        };
        let mut replaced = Replaced::default();
        replaced.add(0x2000..0x3000);
        let cut = |replaced: &Replaced, time_ns| {
            let mut stack = taken(time_ns);
            (replaced.cut(&mut stack), stack.frames.len(), stack.end)
        };
        assert_eq!(cut(&replaced, 9), (true, 2, End::NewCode), "the frame itself is known, its caller is not");
        replaced.told(10);
        assert_eq!(cut(&replaced, 9), (true, 2, End::NewCode), "it comes late");
        assert_eq!(cut(&replaced, 11), (false, 3, End::Root));
        replaced.told(10 + LATE_NS);
        assert!(replaced.0.is_empty());
    }
}
