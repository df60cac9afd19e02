//! Calls of functions that are timed: the calls a thread is in, and the histogram of how long they took.
//!
//! A thread's calls are a stack, as they are in the thread itself. A call is found again at its return by where its frame
//! was; calls whose frames the thread has left by another way (longjmp, an exception, a return that nobody saw) are
//! recognised by the stack pointer, which then is above them, and are taken away.

use crate::abi::assert_packed;

/// Calls that one thread can be in at once; deeper ones are counted as missed.
pub const MAX_DEPTH: usize = 32;

/// A call that has begun.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Call {
    /// When, `CLOCK_MONOTONIC` in nanoseconds.
    pub since_ns: u64,
    /// Stack pointer at the function's first instruction: where the return address is.
    pub sp: u64,
    /// Number of the function.
    pub function: u32,
    /// Zero.
    pub padding: u32,
}

/// Key: tid. The calls that a thread is in, outermost first.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct ThreadCalls {
    /// The thread's process.
    pub tgid: u32,
    /// How many of `calls` are in use.
    pub depth: u32,
    /// The calls.
    pub calls: [Call; MAX_DEPTH],
}

/// Frames this far apart are on different stacks: coroutines, signal handlers. The default limit of a thread's stack.
const SAME_STACK: u64 = 8 << 20;

/// An index that the verifier sees to be within bounds: the compiler must not leave the mask out because it has compared
/// some other copy of the number.
#[inline(always)]
fn index(at: usize) -> usize {
    core::hint::black_box(at) & (MAX_DEPTH - 1)
}

/// True for a call whose frame a thread has left whose stack pointer is `sp` now.
#[inline(always)]
fn is_left(call: &Call, sp: u64) -> bool {
    was_left(call.sp, sp)
}

/// The same for the place of a call's return address.
#[inline(always)]
pub fn was_left(call_sp: u64, sp: u64) -> bool {
    sp > call_sp && sp - call_sp < SAME_STACK
}

impl ThreadCalls {
    /// A function is entered with the stack pointer at its return address. Returns how many calls turned out to be left,
    /// and whether there was room for this one.
    #[inline(always)]
    pub fn enter(&mut self, call: Call) -> (u32, bool) {
        // A frame at the same place takes the place of one that was left.
        let left = self.leave_above(call.sp.wrapping_add(1));
        let at = self.depth as usize;
        if at >= MAX_DEPTH {
            return (left, false);
        }
        self.calls[index(at)] = call;
        self.depth = at as u32 + 1;
        (left, true)
    }

    /// A function returns, with the stack pointer at its return address again. Returns the call, if its beginning was
    /// seen, and how many others turned out to be left.
    #[inline(always)]
    pub fn leave(&mut self, function: u32, at_return: u64) -> (Option<Call>, u32) {
        let left = self.leave_above(at_return);
        let at = (self.depth as usize).wrapping_sub(1);
        if at >= MAX_DEPTH {
            return (None, left);
        }
        let call = self.calls[index(at)];
        if call.sp != at_return || call.function != function {
            return (None, left);
        }
        self.depth = at as u32;
        (Some(call), left)
    }

    /// Takes away the innermost calls that a thread has left whose stack pointer is `sp` now; returns how many.
    #[inline(always)]
    pub fn leave_above(&mut self, sp: u64) -> u32 {
        let mut left = 0;
        for _ in 0..MAX_DEPTH {
            let at = (self.depth as usize).wrapping_sub(1);
            if at >= MAX_DEPTH || !is_left(&self.calls[index(at)], sp) {
                break;
            }
            self.depth = at as u32;
            left += 1;
        }
        left
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
    /// Calls by how long they took: see [`bucket`].
    pub histogram: [u32; BUCKETS],
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
    Call { since_ns, sp, function, padding }
    ThreadCalls { tgid, depth, calls }
    Figures { calls, entered, errors, total_ns, max_ns, min_ns, within, left, missed, histogram }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(function: u32, sp: u64) -> Call {
        Call { since_ns: sp, sp, function, padding: 0 }
    }

    fn within(calls: &[(u32, u64)]) -> ThreadCalls {
        let mut thread = ThreadCalls::default();
        for &(function, sp) in calls {
            assert_eq!(thread.enter(call(function, sp)), (0, true));
        }
        thread
    }

    #[test]
    fn recursion_returns_in_order() {
        let mut thread = within(&[(1, 0x900), (1, 0x800), (1, 0x700)]);
        for sp in [0x700, 0x800, 0x900] {
            assert_eq!(thread.leave(1, sp), (Some(call(1, sp)), 0));
        }
        assert_eq!(thread.depth, 0);
    }

    #[test]
    fn what_was_jumped_over_is_no_ghost() {
        let mut thread = within(&[(1, 0x900), (2, 0x800), (3, 0x700)]);
        assert_eq!(thread.leave(1, 0x900), (Some(call(1, 0x900)), 2), "longjmp to the outermost, which returns");
        let mut thread = within(&[(1, 0x900), (2, 0x800), (3, 0x700)]);
        assert_eq!(thread.enter(call(4, 0x880)), (2, true), "or goes on");
        assert_eq!(thread.leave(4, 0x880).0, Some(call(4, 0x880)));
        assert_eq!(thread.enter(call(5, 0x900)), (1, true), "at the very place of another");
    }

    #[test]
    fn a_return_whose_call_was_not_seen_is_nobodys() {
        let mut thread = within(&[(1, 0x900)]);
        assert_eq!(thread.leave(2, 0x700), (None, 0));
        assert_eq!(thread.leave(2, 0x900), (None, 0), "of another function");
        assert_eq!(ThreadCalls::default().leave(1, 0x900), (None, 0));
    }

    #[test]
    fn another_stack_leaves_this_one_alone() {
        let mut thread = within(&[(1, 0x900)]);
        assert_eq!(thread.enter(call(2, 0x7f00_0000_0000)), (0, true));
        assert_eq!(thread.leave(2, 0x7f00_0000_0000).0, Some(call(2, 0x7f00_0000_0000)));
        assert_eq!(thread.leave(1, 0x900).0, Some(call(1, 0x900)));
    }

    #[test]
    fn too_deep_a_recursion_is_missed_and_does_no_harm() {
        let mut thread = ThreadCalls::default();
        let sp = |depth: u64| 0x10_0000 - depth * 0x100;
        for depth in 0..40 {
            assert_eq!(thread.enter(call(1, sp(depth))), (0, depth < MAX_DEPTH as u64));
        }
        for depth in (0..40).rev() {
            assert_eq!(thread.leave(1, sp(depth)).0.is_some(), depth < MAX_DEPTH as u64, "{depth}");
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
