//! Timed functions: how their calls are judged, and what is told of slow ones.

use super::{COMM_LEN, StackId, assert_packed};

/// Threads and goroutines that can be in timed calls at once.
pub const MAX_CALLERS: u32 = 16 * 1024;
/// Places that timed functions return to, of which the kernel remembers to have told.
pub const MAX_SITES: u32 = 4096;
/// New places that wait for user space, which looks every few milliseconds.
pub const MAX_NEW_SITES: u32 = 256;
/// Processes of which it is known where their threads keep the goroutine that they run.
pub const MAX_GO_PROCESSES: u32 = 256;
/// Threads whose hits are counted, by function.
pub const MAX_TALLIES: u32 = 8 * 1024;
/// Spans that are going on at once.
pub const MAX_SPANS: u32 = 64 * 1024;

/// Key: number of the function. How its calls are judged.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// A call that takes longer is not within the threshold, in nanoseconds.
    pub threshold_ns: u64,
    /// What a returned value is compared with.
    pub operand: i64,
    /// [`error_test`]: when a returned value is an error.
    pub error_test: u32,
    /// How many low bits of the returned value count: 8, 16, 32 or 64.
    pub bits: u32,
    /// Bits of [`feature`]: which figures are wanted of it, and what is special about it.
    pub features: u32,
    /// Zero.
    pub padding: u32,
}

/// Values of [`Judgement::features`].
pub mod feature {
    /// It is Go's: calls belong to goroutines.
    pub const GO: u32 = 1;
    /// Its end is seen where it returns to: user space has to know the places.
    pub const SITES: u32 = 2;
    /// The distribution of times.
    pub const HISTOGRAM: u32 = 4;
    /// Calls within the threshold.
    pub const ATTAINMENT: u32 = 8;
    /// Returned values that are errors.
    pub const ERRORS: u32 = 16;
    /// Calls over the threshold are reported, with their stacks.
    pub const SLOW: u32 = 32;
    /// Hits are counted, and nothing else: a tracepoint, or an instruction in the middle of a function.
    pub const COUNT: u32 = 64;
    /// It is where goroutines wait: looked at only in those that are in other timed calls, and told of as a [`super::WaitEvent`].
    pub const PARK: u32 = 128;
    /// Hits are counted by thread: see [`super::Tally`].
    pub const TALLY: u32 = 256;
    /// Hits are counted by thread, and nothing else, whether both ends have probes or one: what each costs is being found.
    pub const COSTS: u32 = 512;
    /// It has a jump back to its first instruction: being entered again by the same frame is no call.
    pub const LOOPS: u32 = 1024;
    /// Only its end has probes: a hit of it is a call.
    pub const ONLY_ENDS: u32 = 2048;
}

/// Key: a function, and a thread that calls it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TallyKey {
    /// Number of the function.
    pub function: u32,
    /// Thread id.
    pub tid: u32,
}

/// What a thread did with the probes of a function.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Hits of probes.
    pub hits: u64,
    /// Calls that began; where only ends have probes, those that ended.
    pub calls: u64,
}

/// A place that a timed function returns to, and that has no probe yet.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Site {
    /// Process.
    pub tgid: u32,
    /// Number of the function.
    pub function: u32,
    /// The return address.
    pub address: u64,
}

/// A call took longer than its threshold.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct CallEvent {
    /// [`super::kind::CALL`].
    pub kind: u32,
    /// Number of the function.
    pub function: u32,
    /// When it ended, `CLOCK_MONOTONIC` in nanoseconds.
    pub time_ns: u64,
    /// When it began.
    pub since_ns: u64,
    /// Process.
    pub tgid: u32,
    /// Thread in which it ended.
    pub tid: u32,
    /// The goroutine whose call it was; 0 for a thread's.
    pub goroutine: u64,
    /// The user stack at its end, which below the function is that at its beginning.
    pub user_stack: StackId,
    /// The thread's name, zero-terminated.
    pub comm: [u8; COMM_LEN],
}

/// Values of [`Judgement::error_test`].
pub mod error_test {
    /// Nothing is an error.
    pub const NEVER: u32 = 0;
    /// A value below the operand, both signed.
    pub const LESS: u32 = 1;
    /// A value above the operand, both signed.
    pub const GREATER: u32 = 2;
    /// The operand itself.
    pub const EQUAL: u32 = 3;
    /// Any value but the operand.
    pub const NOT_EQUAL: u32 = 4;
}

impl Judgement {
    /// True if a function that returns this in its register has failed.
    #[inline(always)]
    pub fn is_error(&self, returned: u64) -> bool {
        let unused = (64 - self.bits) & 63;
        let value = (returned << unused) as i64 >> unused;
        match self.error_test {
            error_test::LESS => value < self.operand,
            error_test::GREATER => value > self.operand,
            error_test::EQUAL => value == self.operand,
            error_test::NOT_EQUAL => value != self.operand,
            _ => false,
        }
    }
}

assert_packed! {
    Judgement { threshold_ns, operand, error_test, bits, features, padding }
    TallyKey { function, tid }
    Tally { hits, calls }
    Site { tgid, function, address }
    CallEvent { kind, function, time_ns, since_ns, tgid, tid, goroutine, user_stack, comm }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_judged_by_the_returned_value() {
        let judge = |error_test, operand, bits| Judgement { error_test, operand, bits, ..Judgement::default() };
        let minus_one = u64::from(u32::MAX);
        assert!(judge(error_test::LESS, 0, 32).is_error(minus_one), "an int of -1");
        assert!(!judge(error_test::LESS, 0, 64).is_error(minus_one), "a long is something else");
        assert!(judge(error_test::EQUAL, 0, 64).is_error(0) && !judge(error_test::EQUAL, 0, 64).is_error(9));
        assert!(
            judge(error_test::NOT_EQUAL, 0, 32).is_error(5) && !judge(error_test::NOT_EQUAL, 0, 32).is_error(7 << 32)
        );
        assert!(judge(error_test::GREATER, 3, 8).is_error(4) && !judge(error_test::GREATER, 3, 8).is_error(0xff));
        assert!(!Judgement::default().is_error(u64::MAX));
    }
}
