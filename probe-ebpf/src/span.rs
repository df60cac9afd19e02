//! Spans: from one function to another, paired by a value that both know, such as the address of a request.

use crate::abi::assert_packed;

/// Words that lead to a value at most.
pub const MAX_READS: usize = 3;

/// Where a value is when a probe is hit: in a register, or in memory that a register leads to.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Operand {
    /// Where it begins: a register as DWARF numbers those of x86-64 (0 is rax, 15 is r15), or one of
    /// [`source`].
    pub source: u32,
    /// How many words are read one after the other, each at the address before plus its offset.
    pub reads: u32,
    /// By how much the address is more than the value before.
    pub offsets: [i64; MAX_READS],
    /// How many low bits of what is found count: 8, 16, 32 or 64.
    pub bits: u32,
    /// Zero.
    pub padding: u32,
}

/// Values of [`Operand::source`] that are no registers.
pub mod source {
    /// The thread's id.
    pub const THREAD: u32 = 32;
}

/// The operands of a span.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpanKeys {
    /// At its beginning.
    pub begin: Operand,
    /// At its end.
    pub end: Operand,
}

/// Key of a span that is going on.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct OpenSpan {
    /// Process.
    pub tgid: u32,
    /// Number of the span, among those of functions.
    pub function: u32,
    /// The value by which it is paired.
    pub value: u64,
}

impl Operand {
    /// The value, from what the register has (or whatever the source is) and the process's memory; `None` where that
    /// cannot be read.
    #[inline(always)]
    pub fn value(&self, from: u64, mut read: impl FnMut(u64) -> Option<u64>) -> Option<u64> {
        let mut value = from;
        for (number, offset) in (0..).zip(self.offsets) {
            if number < self.reads {
                value = read(value.wrapping_add(offset as u64))?;
            }
        }
        let unused = (64 - self.bits) & 63;
        Some(value << unused >> unused)
    }
}

assert_packed! {
    Operand { source, reads, offsets, bits, padding }
    SpanKeys { begin, end }
    OpenSpan { tgid, function, value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_behind_pointers() {
        let operand = |reads, offsets, bits| Operand { reads, offsets, bits, ..Operand::default() };
        // Memory that holds at each address that address times two.
        let memory = |address: u64| Some(address * 2);
        assert_eq!(operand(0, [0; 3], 64).value(7, memory), Some(7));
        assert_eq!(operand(0, [0; 3], 8).value(0x1234, memory), Some(0x34));
        assert_eq!(operand(1, [8, 0, 0], 64).value(0x100, memory), Some(0x210));
        assert_eq!(operand(2, [8, -16, 0], 64).value(0x100, memory), Some(0x400));
        assert_eq!(operand(1, [0; 3], 64).value(0, |_| None), None);
    }
}
