//! Calls of functions that are timed: the calls a thread is in, and the histogram of how long they took.
//!
//! A thread's calls are a stack, as they are in the thread itself. A call is found again at its return by where its frame
//! was; calls whose frames the thread has left by another way (longjmp, an exception, a return that nobody saw) are
//! recognised by the stack pointer, which then is above them, and are taken away.

use crate::abi::assert_packed;

/// Calls that one thread can be in at once; deeper ones are counted as missed.
pub const MAX_DEPTH: usize = 32;

/// Who is in a call: a thread, or what a runtime makes of it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Caller {
    /// Process.
    pub tgid: u32,
    /// 1 for a goroutine, which may go on in another thread.
    pub is_goroutine: u32,
    /// Thread id, or address of the goroutine's `runtime.g`.
    pub id: u64,
}

/// A call that has begun.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Call {
    /// When, `CLOCK_MONOTONIC` in nanoseconds.
    pub since_ns: u64,
    /// Where the return address is: the stack pointer at the function's first instruction. Of a goroutine, whose stack
    /// moves, it is relative to the end of that stack.
    pub position: u64,
    /// The return address.
    pub return_address: u64,
    /// Number of the function.
    pub function: u32,
    /// Bits of [`call_flags`].
    pub flags: u32,
}

/// Values of [`Call::flags`].
pub mod call_flags {
    /// There was no probe where it returns to when it began: its end may not be seen.
    pub const NEW_SITE: u32 = 1;
}

/// Key: [`Caller`]. The calls that a thread is in, outermost first.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct ThreadCalls {
    /// How many of `calls` are in use.
    pub depth: u32,
    /// Zero.
    pub padding: u32,
    /// The calls.
    pub calls: [Call; MAX_DEPTH],
}

/// What became of a call that begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entered {
    /// It is followed.
    Followed,
    /// It is the innermost call once more: Go begins a function again after its stack has grown.
    Again,
    /// There are too many already.
    TooDeep,
}

/// Timed functions that jump to each other, one after the other, and are still told apart.
const MAX_JUMPS: usize = 3;

/// Frames this far apart are on different stacks: coroutines, signal handlers. The default limit of a thread's stack.
const SAME_STACK: u64 = 8 << 20;

/// An index that the verifier sees to be within bounds: the compiler must not leave the mask out because it has compared
/// some other copy of the number.
#[inline(always)]
fn index(at: usize) -> usize {
    core::hint::black_box(at) & (MAX_DEPTH - 1)
}

/// True for a call at a position that a thread has left whose stack pointer is `position` now.
#[inline(always)]
pub fn was_left(call: u64, position: u64) -> bool {
    let above = position.wrapping_sub(call);
    above != 0 && above < SAME_STACK
}

impl ThreadCalls {
    /// A function is entered. Returns what became of the call; `unseen` is told which others turned out to have ended. A call
    /// that began at `again_since` or later may begin again.
    #[inline(always)]
    pub fn enter(&mut self, call: Call, again_since: u64, mut unseen: impl FnMut(&Call)) -> Entered {
        self.leave_above(call.position, &mut unseen);
        let at = self.depth as usize;
        if let Some(last) = at.checked_sub(1).filter(|last| *last < MAX_DEPTH) {
            let last = &self.calls[index(last)];
            if last.position == call.position {
                let is_same = last.function == call.function && last.return_address == call.return_address;
                if is_same && last.since_ns >= again_since {
                    return Entered::Again;
                }
                // A frame takes the place of one that was left, unless one function has jumped to the other.
                if last.return_address != call.return_address || last.function == call.function {
                    unseen(last);
                    self.calls[index(at - 1)] = call;
                    return Entered::Followed;
                }
            }
        }
        if at >= MAX_DEPTH {
            return Entered::TooDeep;
        }
        self.calls[index(at)] = call;
        self.depth = at as u32 + 1;
        Entered::Followed
    }

    /// A function returns, its return address being at `position`. Returns the call, if its beginning was seen; `unseen` is
    /// told which others turned out to have ended.
    #[inline(always)]
    pub fn leave(&mut self, function: u32, position: u64, mut unseen: impl FnMut(&Call)) -> Option<Call> {
        self.leave_above(position, &mut unseen);
        // Functions that have jumped to each other are at one position, and each has its own end: only this one is taken out.
        for back in 1..=MAX_JUMPS {
            let at = (self.depth as usize).wrapping_sub(back);
            if at >= MAX_DEPTH {
                break;
            }
            let call = self.calls[index(at)];
            if call.position != position {
                break;
            }
            if call.function != function {
                continue;
            }
            for above in 1..MAX_JUMPS {
                if above < back {
                    self.calls[index(at + above - 1)] = self.calls[index(at + above)];
                }
            }
            self.depth -= 1;
            return Some(call);
        }
        None
    }

    /// Takes away the innermost calls that a thread has left whose stack pointer is `position` now.
    #[inline(always)]
    pub fn leave_above(&mut self, position: u64, unseen: &mut impl FnMut(&Call)) {
        for _ in 0..MAX_DEPTH {
            let at = (self.depth as usize).wrapping_sub(1);
            if at >= MAX_DEPTH || !was_left(self.calls[index(at)].position, position) {
                break;
            }
            unseen(&self.calls[index(at)]);
            self.depth = at as u32;
        }
    }
}

/// Buckets of an octave: a bucket is a 32nd of its lower bound wide, so that its middle is at most 1.6 % from any value.
const PER_OCTAVE: u32 = 32;
/// 2 to the power of this is [`PER_OCTAVE`].
const OCTAVE_BITS: u32 = PER_OCTAVE.ilog2();
/// Values of 2^this nanoseconds (18 minutes) and more share the last bucket.
const MAX_BITS: u32 = 40;
/// Buckets of a histogram.
pub const BUCKETS: usize = ((MAX_BITS - OCTAVE_BITS + 1) * PER_OCTAVE) as usize;

/// What is known of the calls of one function on one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Calls whose beginning and end were seen.
    pub calls: u64,
    /// Calls that began.
    pub entered: u64,
    /// Calls that ended as an error.
    pub errors: u64,
    /// Time of all calls together, in nanoseconds.
    pub total_ns: u64,
    /// Longest call.
    pub max_ns: u64,
    /// Shortest call; 0 before the first.
    pub min_ns: u64,
    /// Calls within the threshold.
    pub within: u64,
    /// Calls that were left without a return.
    pub left: u64,
    /// Calls that could not be followed: too many at once.
    pub missed: u64,
    /// Calls that ended because their thread did, or became another program; they are among `calls`.
    pub thread_ended: u64,
    /// Calls by how long they took: see [`bucket`].
    pub histogram: [u32; BUCKETS],
}

impl Figures {
    /// Nothing is known.
    pub const NONE: Self = Self {
        calls: 0,
        entered: 0,
        errors: 0,
        total_ns: 0,
        max_ns: 0,
        min_ns: 0,
        within: 0,
        left: 0,
        missed: 0,
        thread_ended: 0,
        histogram: [0; BUCKETS],
    };
}

/// The bucket of a time in nanoseconds: linear up to 64, from there on 32 in each octave.
#[inline(always)]
pub fn bucket(nanoseconds: u64) -> usize {
    let value = nanoseconds.min((1 << MAX_BITS) - 1) | 1 << OCTAVE_BITS;
    let octave = 63 - value.leading_zeros() - OCTAVE_BITS;
    let bucket = if nanoseconds < u64::from(PER_OCTAVE) {
        nanoseconds
    } else {
        u64::from(octave * PER_OCTAVE) + (nanoseconds.min((1 << MAX_BITS) - 1) >> octave)
    };
    (bucket as usize).min(BUCKETS - 1)
}

/// The middle of a bucket in nanoseconds.
pub fn middle(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let per_octave = u64::from(PER_OCTAVE);
    if bucket < 2 * per_octave {
        return bucket;
    }
    let octave = bucket / per_octave - 1;
    let low = (bucket - octave * per_octave) << octave;
    low + (1 << octave) / 2
}

assert_packed! {
    Caller { tgid, is_goroutine, id }
    Call { since_ns, position, return_address, function, flags }
    ThreadCalls { depth, padding, calls }
    Figures { calls, entered, errors, total_ns, max_ns, min_ns, within, left, missed, thread_ended, histogram }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A call whose frame is there, from a site of its own.
    fn call(function: u32, position: u64) -> Call {
        Call { since_ns: position, position, return_address: u64::from(function), function, flags: 0 }
    }

    fn enter(thread: &mut ThreadCalls, call: Call) -> (Entered, u32) {
        let mut left = 0;
        (thread.enter(call, u64::MAX, |_| left += 1), left)
    }

    fn leave(thread: &mut ThreadCalls, function: u32, position: u64) -> (Option<Call>, u32) {
        let mut left = 0;
        (thread.leave(function, position, |_| left += 1), left)
    }

    fn within(calls: &[(u32, u64)]) -> ThreadCalls {
        let mut thread = ThreadCalls::default();
        for &(function, position) in calls {
            assert_eq!(enter(&mut thread, call(function, position)), (Entered::Followed, 0));
        }
        thread
    }

    #[test]
    fn recursion_returns_in_order() {
        let mut thread = within(&[(1, 0x900), (1, 0x800), (1, 0x700)]);
        for position in [0x700, 0x800, 0x900] {
            assert_eq!(leave(&mut thread, 1, position), (Some(call(1, position)), 0));
        }
        assert_eq!(thread.depth, 0);
    }

    #[test]
    fn what_was_jumped_over_is_no_ghost() {
        let mut thread = within(&[(1, 0x900), (2, 0x800), (3, 0x700)]);
        let mut left = std::vec::Vec::new();
        let outermost = thread.leave(1, 0x900, |call| left.push(call.function));
        assert_eq!(
            (outermost, left),
            (Some(call(1, 0x900)), std::vec![3, 2]),
            "longjmp to the outermost, which returns"
        );
        let mut thread = within(&[(1, 0x900), (2, 0x800), (3, 0x700)]);
        assert_eq!(enter(&mut thread, call(4, 0x880)), (Entered::Followed, 2), "or goes on");
        assert_eq!(leave(&mut thread, 4, 0x880), (Some(call(4, 0x880)), 0));
        assert_eq!(enter(&mut thread, call(5, 0x900)), (Entered::Followed, 1), "at the very place of another");
        assert_eq!(enter(&mut thread, call(5, 0x900)), (Entered::Followed, 1), "or of its own");
        assert_eq!(thread.depth, 1);
    }

    #[test]
    fn functions_that_jump_to_each_other_end_each_for_itself() {
        let jumped = |function| Call { return_address: 1, ..call(function, 0x900) };
        for order in [[3, 2, 1], [1, 2, 3], [2, 1, 3]] {
            let mut thread = within(&[(1, 0x900)]);
            assert_eq!(enter(&mut thread, jumped(2)), (Entered::Followed, 0), "from the same return address");
            assert_eq!(enter(&mut thread, jumped(3)), (Entered::Followed, 0));
            for function in order {
                assert_eq!(leave(&mut thread, function, 0x900), (Some(jumped(function)), 0));
            }
            assert_eq!(thread.depth, 0);
        }
    }

    #[test]
    fn a_goroutine_begins_a_function_again() {
        let mut thread = ThreadCalls::default();
        let first = call(1, 0x900);
        assert_eq!(thread.enter(first, 0, |_| panic!("nothing has ended")), Entered::Followed);
        let later = Call { since_ns: first.since_ns + 7, ..first };
        assert_eq!(thread.enter(later, first.since_ns, |_| panic!("nothing has ended")), Entered::Again);
        let mut left = 0;
        let other = Call { since_ns: first.since_ns + 9, ..first };
        assert_eq!(thread.enter(other, first.since_ns + 1, |_| left += 1), Entered::Followed, "too old to be the same");
        assert_eq!((left, thread.depth), (1, 1));
        let first = other;
        assert_eq!(leave(&mut thread, 1, 0x900), (Some(first), 0));
    }

    #[test]
    fn a_return_whose_call_was_not_seen_is_nobodys() {
        let mut thread = within(&[(1, 0x900)]);
        assert_eq!(leave(&mut thread, 2, 0x700), (None, 0));
        assert_eq!(leave(&mut thread, 2, 0x900), (None, 0), "of another function");
        assert_eq!(leave(&mut ThreadCalls::default(), 1, 0x900), (None, 0));
    }

    #[test]
    fn another_stack_leaves_this_one_alone() {
        let mut thread = within(&[(1, 0x900)]);
        assert_eq!(enter(&mut thread, call(2, 0x7f00_0000_0000)), (Entered::Followed, 0));
        assert_eq!(leave(&mut thread, 2, 0x7f00_0000_0000).0, Some(call(2, 0x7f00_0000_0000)));
        assert_eq!(leave(&mut thread, 1, 0x900).0, Some(call(1, 0x900)));
    }

    #[test]
    fn too_deep_a_recursion_is_missed_and_does_no_harm() {
        let mut thread = ThreadCalls::default();
        let position = |depth: u64| 0x10_0000 - depth * 0x100;
        for depth in 0..40 {
            let expected = if depth < MAX_DEPTH as u64 { Entered::Followed } else { Entered::TooDeep };
            assert_eq!(enter(&mut thread, call(1, position(depth))), (expected, 0));
        }
        for depth in (0..40).rev() {
            assert_eq!(leave(&mut thread, 1, position(depth)).0.is_some(), depth < MAX_DEPTH as u64, "{depth}");
        }
    }

    #[test]
    fn buckets_are_narrow_and_in_order() {
        let mut last = 0;
        for value in
            (0..4096).chain((12..45).flat_map(|bits| [(1 << bits) - 1, 1 << bits, (1 << bits) + (1 << (bits - 2))]))
        {
            let at = bucket(value);
            assert!(at >= last && at < BUCKETS, "{value} is in {at} after {last}");
            last = at;
            if value < 1 << MAX_BITS {
                let error = middle(at).abs_diff(value) as f64 / value.max(1) as f64;
                assert!(error <= 0.016, "{value} becomes {}", middle(at));
            }
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }
}
