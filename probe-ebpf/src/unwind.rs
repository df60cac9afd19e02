//! The unwinding step by frame pointer: from a frame's registers to its caller's. Generic over how the stack is read, so that the sampler,
//! later programs with scratch space of their own and the tests on the host share it.

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
    /// The frame is based on a register that is not followed.
    UnsupportedRegister = 8,
    /// An offset in the unwind information is too large for a row.
    UnsupportedOffset = 9,
    /// The return address is kept in an unusual place.
    UnsupportedReturnAddress = 10,
    /// The frame pointer is kept in an unusual place.
    UnsupportedFramePointer = 11,
}

impl End {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 12] = [
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
            _ => Self::Unreadable,
        }
    }

    /// The reason shown in `[truncated: reason]`; `None` for a whole stack.
    pub fn reason(self) -> Option<&'static str> {
        match self {
            Self::Root => None,
            Self::NoFramePointer => Some("no frame pointer"),
            Self::Unreadable => Some("stack unreadable"),
            Self::TooDeep => Some("too many frames"),
            Self::Compat => Some("32-bit code"),
            Self::NoUnwindInfo => Some("no unwind information"),
            Self::Inconsistent => Some("stack contradicts unwind information"),
            Self::UnsupportedExpression => Some("unwind expression not supported"),
            Self::UnsupportedRegister => Some("frame not based on stack or frame pointer"),
            Self::UnsupportedOffset => Some("unwind offset too large"),
            Self::UnsupportedReturnAddress => Some("return address in an unusual place"),
            Self::UnsupportedFramePointer => Some("frame pointer in an unusual place"),
        }
    }
}

/// User space ends here on x86-64 with five-level page tables and on aarch64; less on other set-ups.
pub(crate) const USER_END: u64 = 1 << 56;
/// No code is mapped below: `vm.mmap_min_addr` is at least this.
pub(crate) const USER_START: u64 = 4096;

/// Replaces a frame's registers by its caller's, or says why there is none.
///
/// The frame-pointer rule of the x86-64 and aarch64 calling conventions: the frame pointer points at the caller's frame
/// pointer, with the return address above it. Each frame must lie above the one it called: that ends loops.
#[inline(always)]
pub fn step(registers: &mut Registers, memory: &mut impl Memory) -> Result<(), End> {
    let fp = registers.fp;
    if fp == 0 {
        return Err(End::Root);
    }
    if fp & 7 != 0 || fp < registers.sp || fp >= USER_END {
        return Err(End::NoFramePointer);
    }
    let [caller_fp, return_address] = memory.read_pair(fp).ok_or(End::Unreadable)?;
    if return_address == 0 {
        return Err(End::Root);
    }
    if !(USER_START..USER_END).contains(&return_address) {
        return Err(End::NoFramePointer);
    }
    *registers = Registers { pc: return_address, sp: fp + 16, fp: caller_fp };
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    /// A stack at address 0x7000, as words.
    struct Words(Vec<u64>);

    impl Memory for Words {
        fn read_pair(&mut self, address: u64) -> Option<[u64; 2]> {
            let at = (address.checked_sub(0x7000)? / 8) as usize;
            Some([*self.0.get(at)?, *self.0.get(at + 1)?])
        }
    }

    fn walk(words: &[u64], fp: u64) -> (Vec<u64>, End) {
        let mut registers = Registers { pc: 0x4000, sp: 0x7000, fp };
        let mut memory = Words(words.to_vec());
        let mut frames = Vec::new();
        loop {
            frames.push(registers.pc);
            if let Err(end) = step(&mut registers, &mut memory) {
                return (frames, end);
            }
            assert!(frames.len() < 100, "no end");
        }
    }

    #[test]
    fn a_chain_is_followed_to_its_root() {
        let stack = [0x7010, 0x4100, 0x7028, 0x4200, 99, 0, 0x4300];
        assert_eq!(walk(&stack, 0x7000), ([0x4000, 0x4100, 0x4200, 0x4300].to_vec(), End::Root));
    }

    #[test]
    fn a_zero_return_address_is_the_root() {
        assert_eq!(walk(&[0x7010, 0x4100, 0x7020, 0], 0x7000), ([0x4000, 0x4100].to_vec(), End::Root));
    }

    #[test]
    fn what_is_no_frame_pointer_ends_the_stack() {
        for fp in [1, 0x7004, 0x6ff8, u64::MAX - 7] {
            assert_eq!(walk(&[0, 0x4100], fp), ([0x4000].to_vec(), End::NoFramePointer), "{fp:#x}");
        }
        assert_eq!(walk(&[0x7010, u64::MAX], 0x7000).1, End::NoFramePointer);
    }

    #[test]
    fn a_loop_ends() {
        assert_eq!(walk(&[0x7000, 0x4100], 0x7000), ([0x4000, 0x4100].to_vec(), End::NoFramePointer));
    }

    #[test]
    fn memory_that_cannot_be_read_ends_the_stack() {
        assert_eq!(walk(&[0x9000, 0x4100], 0x7000), ([0x4000, 0x4100].to_vec(), End::Unreadable));
    }

    #[test]
    fn ends_survive_the_journey_as_numbers() {
        for (number, end) in End::ALL.into_iter().enumerate() {
            assert_eq!((end as usize, End::from_u32(end as u32)), (number, end));
        }
    }
}
