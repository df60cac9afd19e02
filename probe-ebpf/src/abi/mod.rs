//! Every struct, key and limit that crosses the kernel boundary, and their only definition.
//!
//! All structs are `repr(C)` and made of integers and arrays of integers. Padding is explicit and zeroed: each size is
//! asserted equal to the sum of its fields, so no byte of kernel memory travels by accident.

mod call;
mod counter;
mod dump;
mod mapping;
mod memory;
mod origin;
mod process;
mod sample;
mod settings;
mod wait;

pub use call::{
    CallEvent, Judgement, MAX_CALLERS, MAX_GO_PROCESSES, MAX_NEW_SITES, MAX_SITES, MAX_SPANS, MAX_TALLIES, Site, Tally,
    TallyKey, error_test, feature,
};
pub use counter::Counter;
pub use dump::{DumpRequest, ThreadRecord, thread_flags};
pub use mapping::{
    FileKey, FileTable, MAPPINGS_PER_BLOCK, MAX_BLOCKS, MAX_FILES, MAX_MAPPING_BLOCKS, MAX_TABLES, MappedRange,
    MappingBlock, MappingKey, NO_TABLE,
};
pub use memory::{MemoryEvent, PAGE_BYTES, memory_change};
pub use origin::{MAX_MADE, OriginEvent, made_by, made_key};
pub use process::{
    ExecEvent, ExitEvent, ForkEvent, MAX_DELAY_NS, MAX_NEWCOMERS, MAX_PATH, MAX_TARGETS, Newcomer, NewcomerEvent,
    SetAsideEvent, Target, target_flags,
};
pub use sample::{
    EXACT_FRAME, MAX_FRAMES, MAX_KERNEL_FRAMES, MAX_SEEN_STACKS, SampleEvent, StackEvent, StackId, stack_flags,
};
pub use settings::{Offsets, Settings, generation, period};
pub use wait::{
    MAX_SETS, MAX_WAITING_THREADS, MEMO_FRAMES, MEMO_KERNEL_FRAMES, Memo, PLACES_PER_SET, PLACES_PER_THREAD, Place,
    PlaceSet, SETS_PER_THREAD, SetKey, Sum, WAITS_EVERY_NS, WAKERS_PER_THREAD, Wait, WaitEvent, WaitingThread, Waker,
    WokenThread,
};

/// Length of a thread's name (`TASK_COMM_LEN`), with the terminating zero.
pub const COMM_LEN: usize = 16;

/// Size of the ring buffer in bytes: at 8 KiB for the deepest stack it holds 512 of them between two reads.
pub const RING_BYTES: u32 = 4 * 1024 * 1024;

/// What an event in the ring buffer is: the first `u32` of each.
pub mod kind {
    /// A [`super::SampleEvent`].
    pub const SAMPLE: u32 = 1;
    /// A [`super::StackEvent`] followed by its frames.
    pub const STACK: u32 = 2;
    /// A [`super::ExecEvent`].
    pub const EXEC: u32 = 3;
    /// A [`super::ForkEvent`].
    pub const FORK: u32 = 4;
    /// An [`super::ExitEvent`].
    pub const EXIT: u32 = 5;
    /// A [`super::WaitEvent`].
    pub const WAIT: u32 = 6;
    /// A [`super::CallEvent`].
    pub const CALL: u32 = 7;
    /// A [`super::SetAsideEvent`].
    pub const SET_ASIDE: u32 = 8;
    /// A [`super::NewcomerEvent`].
    pub const NEWCOMER: u32 = 9;
    /// A [`super::MemoryEvent`].
    pub const MEMORY: u32 = 10;
    /// A [`super::OriginEvent`].
    pub const ORIGIN: u32 = 12;
    /// A [`crate::heap::AllocationEvent`].
    pub const ALLOCATION: u32 = 16;
    /// A [`crate::heap::AllocationEndEvent`].
    pub const ALLOCATION_END: u32 = 17;
}

/// Structs that cross the kernel boundary.
///
/// # Safety
/// Integers and arrays of integers only, and no implicit padding: any bytes are a value, and any value is bytes.
#[expect(unsafe_code, reason = "the kernel boundary: whoever copies bytes relies on it")]
pub unsafe trait Packed: Copy + 'static {}

/// Proves at compile time that a struct has no implicit padding: that it is [`Packed`].
macro_rules! assert_packed {
    ($($type:ident { $($field:ident),* $(,)? })*) => {
        $(const _: () = {
            // Destructured in full, so that a new field breaks the build until it is listed here.
            const fn sum(value: &$type) -> usize {
                let $type { $($field),* } = value;
                0 $(+ size_of_val($field))*
            }
            // SAFETY: every type here is made of integers, for which all-zero is a value.
            #[expect(unsafe_code, reason = "zeroed integers, at compile time only")]
            let value: $type = unsafe { core::mem::zeroed() };
            assert!(sum(&value) == size_of::<$type>(), "implicit padding");
            assert!(size_of::<$type>() % 8 == 0, "not a multiple of 8 bytes");
        };
        // SAFETY: asserted above; the types are made of integers.
        #[expect(unsafe_code, reason = "asserted above")]
        unsafe impl $crate::abi::Packed for $type {})*
    };
}
pub(crate) use assert_packed;
