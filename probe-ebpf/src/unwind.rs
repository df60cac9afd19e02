//! What unwinding is about: registers, memory, and the reasons why a stack ends. Shared by the sampler, later programs with
//! scratch space of their own and the tests on the host; the step itself is in [`crate::table`].

/// The registers that unwinding needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Registers {
    /// Program counter: the sampled instruction, or a return address.
    pub pc: u64,
    /// Stack pointer.
    pub sp: u64,
    /// Frame pointer.
    pub fp: u64,
}

/// Reads the stack of the unwound thread.
pub trait Memory {
    /// Two consecutive words at `address`; `None` if they cannot be read.
    fn read_pair(&mut self, address: u64) -> Option<[u64; 2]>;

    /// The word at `address`; `None` if it cannot be read. To be overridden where the word after it may be missing.
    #[inline(always)]
    fn read_word(&mut self, address: u64) -> Option<u64> {
        self.read_pair(address).map(|[word, _]| word)
    }

    /// A register ([`crate::kept::register`]) of the first frame; `None` if it is not known. Not the stack pointer.
    #[inline(always)]
    fn register(&mut self, _register: u8) -> Option<u64> {
        None
    }
}

/// Why a stack ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum End {
    /// At the thread's first frame: the frame pointer or the return address there is zero.
    Root = 0,
    /// The frame-pointer register holds no frame pointer: the code was compiled without.
    NoFramePointer = 1,
    /// The stack's memory could not be read, for example because it is swapped out.
    Unreadable = 2,
    /// More frames than [`crate::abi::MAX_FRAMES`], or in the kernel [`crate::abi::MAX_KERNEL_FRAMES`].
    TooDeep = 3,
    /// 32-bit code, which is not unwound.
    Compat = 4,
    /// The unwind table says nothing about this code.
    NoUnwindInfo = 5,
    /// The registers or the stack cannot be what the unwind table takes them for.
    Inconsistent = 6,
    /// The unwind information is an expression that rows do not express.
    UnsupportedExpression = 7,
    /// The frame is based on a register whose content is not known there.
    UnsupportedRegister = 8,
    /// An offset in the unwind information is too large for a row.
    UnsupportedOffset = 9,
    /// The return address is kept in an unusual place.
    UnsupportedReturnAddress = 10,
    /// The frame pointer is kept in an unusual place.
    UnsupportedFramePointer = 11,
    /// The code took the place of other code, by whose unwind table it was crossed. Only user space can tell.
    NewCode = 12,
    /// What was found as the return address is not behind a call: the unwind table of the frame is wrong.
    NoCall = 13,
    /// The thread is in `execve` or ends: its stack is gone, and the call is all there is.
    Gone = 14,
}

impl End {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 15] = [
        Self::Root,
        Self::NoFramePointer,
        Self::Unreadable,
        Self::TooDeep,
        Self::Compat,
        Self::NoUnwindInfo,
        Self::Inconsistent,
        Self::UnsupportedExpression,
        Self::UnsupportedRegister,
        Self::UnsupportedOffset,
        Self::UnsupportedReturnAddress,
        Self::UnsupportedFramePointer,
        Self::NewCode,
        Self::NoCall,
        Self::Gone,
    ];

    /// The end that a number from the kernel stands for; an unknown one counts as unreadable.
    pub fn from_u32(number: u32) -> Self {
        match number {
            0 => Self::Root,
            1 => Self::NoFramePointer,
            3 => Self::TooDeep,
            4 => Self::Compat,
            5 => Self::NoUnwindInfo,
            6 => Self::Inconsistent,
            7 => Self::UnsupportedExpression,
            8 => Self::UnsupportedRegister,
            9 => Self::UnsupportedOffset,
            10 => Self::UnsupportedReturnAddress,
            11 => Self::UnsupportedFramePointer,
            12 => Self::NewCode,
            13 => Self::NoCall,
            14 => Self::Gone,
            _ => Self::Unreadable,
        }
    }

    /// The reason shown in `[truncated: reason]`; `None` for a whole stack.
    pub fn reason(self) -> Option<&'static str> {
        match self {
            Self::Root | Self::Gone => None,
            Self::NoFramePointer => Some("no frame pointer"),
            Self::Unreadable => Some("stack unreadable"),
            Self::TooDeep => Some("too many frames"),
            Self::Compat => Some("32-bit code"),
            Self::NoUnwindInfo => Some("no unwind information"),
            Self::Inconsistent => Some("stack contradicts unwind information"),
            Self::UnsupportedExpression => Some("unwind expression not supported"),
            Self::UnsupportedRegister => Some("frame based on an unknown register"),
            Self::UnsupportedOffset => Some("unwind offset too large"),
            Self::UnsupportedReturnAddress => Some("return address in an unusual place"),
            Self::UnsupportedFramePointer => Some("frame pointer in an unusual place"),
            Self::NewCode => Some("code just loaded"),
            Self::NoCall => Some("return address not after a call"),
        }
    }
}

/// User space ends here on x86-64 with five-level page tables and on aarch64; less on other set-ups.
pub(crate) const USER_END: u64 = 1 << 56;
/// No code is mapped below: `vm.mmap_min_addr` is at least this.
pub(crate) const USER_START: u64 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_survive_the_journey_as_numbers() {
        for (number, end) in End::ALL.into_iter().enumerate() {
            assert_eq!((end as usize, End::from_u32(end as u32)), (number, end));
        }
    }
}
