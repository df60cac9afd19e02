//! Is an address one to which a call returns? A walk that was led astray, by a table that is wrong, takes any word of the
//! stack for a return address; the bytes before it tell.

use core::hint::black_box;

/// What an address in code is, by the eight bytes before it (the last of them is the highest one).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Site {
    /// A call may end there.
    Call,
    /// A function may begin there: who makes a stack, for a coroutine or by `makecontext`, leaves the address of a function
    /// to be run when the first one returns.
    Function,
    /// Neither.
    Other,
}

impl Site {
    /// What stands before an address.
    ///
    /// Without branches: the verifier follows both sides of each, and of these there are thirty.
    #[inline(always)]
    pub fn of(address: u64, before: u64) -> Self {
        let is_aligned = equals(address & (FUNCTION_ALIGNMENT - 1), 0);
        let may_begin = is_aligned & is_end_or_padding(before >> 56);
        Self::of_number((2 - may_begin) & may_end_with_call(before).wrapping_sub(1))
    }

    /// The site that has this number.
    #[inline(always)]
    pub fn of_number(number: u64) -> Self {
        match number {
            0 => Self::Call,
            1 => Self::Function,
            _ => Self::Other,
        }
    }
}

/// Compilers align functions to it.
const FUNCTION_ALIGNMENT: u64 = 16;

/// 1 if two bytes are the same, else 0.
#[inline(always)]
fn equals(one: u64, other: u64) -> u64 {
    black_box(one ^ other).wrapping_sub(1) >> 63
}

/// 1 for the last byte of a function (`ret`, `hlt`, `ud2`), or of what is put between two (`nop` of each length, `int3`, zeros).
#[inline(always)]
fn is_end_or_padding(byte: u64) -> u64 {
    equals(byte, 0xc3)
        | equals(byte, 0xf4)
        | equals(byte, 0x0b)
        | equals(byte, 0x90)
        | equals(byte, 0xcc)
        | equals(byte, 0)
}

/// 1 if a call instruction of x86-64 may end where these bytes end. The first byte of a call may be a breakpoint: that of a
/// probe.
#[inline(always)]
fn may_end_with_call(bytes: u64) -> u64 {
    // The byte so far before the end.
    let byte = |back: u32| bytes >> (64 - 8 * back) & 0xff;
    let is_begin = |back: u32, opcode: u64| equals(byte(back), opcode) | equals(byte(back), BREAKPOINT);
    // By the byte behind the opcode: two bits of mode, three of the operation, three of the register or what stands for it.
    let by_operand = |length: u32, operands: u32| {
        let operand = byte(length - 1);
        let fits = u64::from(operands) >> (operand >> 6 << 3 | operand & 7) & 1;
        fits & equals(operand >> 3 & 7, CALL) & is_begin(length, INDIRECT)
    };
    is_begin(5, RELATIVE)
        | by_operand(2, mode(3, ANY) | mode(0, ANY & !SIB & !RIP))
        | by_operand(3, mode(1, ANY & !SIB) | mode(0, SIB))
        | by_operand(4, mode(1, SIB))
        | by_operand(6, mode(2, ANY & !SIB) | mode(0, RIP))
        | by_operand(7, mode(2, SIB) | mode(0, SIB))
}

/// `call rel32`.
const RELATIVE: u64 = 0xe8;
/// `call r/m64`, by the middle bits of the byte behind it.
const INDIRECT: u64 = 0xff;
const CALL: u64 = 2;
/// `int3`.
const BREAKPOINT: u64 = 0xcc;

/// What the lowest bits of the operand's byte may be, a bit for each: all eight registers,
const ANY: u32 = 0xff;
/// what says that another byte follows,
const SIB: u32 = 1 << 4;
/// and, with mode 0, what says that the address is counted from the instruction.
const RIP: u32 = 1 << 5;

/// A bit for each mode and what is allowed with it.
const fn mode(mode: u32, operands: u32) -> u32 {
    operands << (8 * mode)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Behind other code.
    fn behind(instruction: &[u8]) -> bool {
        let mut bytes = [0x90; 8];
        bytes[8 - instruction.len()..].copy_from_slice(instruction);
        may_end_with_call(u64::from_le_bytes(bytes)) == 1
    }

    #[test]
    fn calls_of_each_length_are_known() {
        let calls: [&[u8]; 17] = [
            &[0xe8, 1, 2, 3, 4],
            &[0x67, 0xe8, 0xff, 0xff, 0xff, 0xff],
            &[0xff, 0xd0],                         // *rax
            &[0x41, 0xff, 0xd4],                   // *r12
            &[0xff, 0x13],                         // *(rbx)
            &[0xff, 0x14, 0xc8],                   // *(rax + 8 * rcx)
            &[0xff, 0x50, 0x18],                   // *0x18(rax)
            &[0x41, 0xff, 0x55, 0],                // *0(r13)
            &[0xff, 0x54, 0x24, 8],                // *8(rsp)
            &[0xff, 0x90, 0, 1, 0, 0],             // *0x100(rax)
            &[0xff, 0x15, 1, 2, 3, 4],             // *0x4030201(rip)
            &[0x48, 0xff, 0x15, 1, 2, 3, 4],       // the same with a prefix
            &[0xff, 0x94, 0x24, 0, 1, 0, 0],       // *0x100(rsp)
            &[0xff, 0x14, 0xc5, 0, 0, 1, 0],       // *0x10000(8 * rax)
            &[0x41, 0xff, 0x94, 0x24, 0, 1, 0, 0], // *0x100(r12)
            &[0xcc, 1, 2, 3, 4],                   // with a probe
            &[0xcc, 0xd0],
        ];
        for call in calls {
            assert!(behind(call), "{call:x?}");
        }
    }

    #[test]
    fn other_code_is_not() {
        let others: [&[u8]; 8] = [
            &[0x90],
            &[0xc3],
            &[0xff, 0xe0],             // jmp *rax
            &[0xff, 0x25, 1, 2, 3, 4], // jmp *(rip)
            &[0xe9, 1, 2, 3, 4],       // jmp
            &[0x48, 0x89, 0xe5],       // mov rbp, rsp
            &[0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0],
            &[0xff, 0x35, 1, 2, 3, 4], // push *(rip)
        ];
        for other in others {
            assert!(!behind(other), "{other:x?}");
        }
    }

    #[test]
    fn functions_begin_behind_others_or_padding() {
        let before = |last: u8| u64::from_le_bytes([0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, last]);
        for last in [0x90, 0xcc, 0xc3, 0] {
            assert_eq!(Site::of(0x4010, before(last)), Site::Function, "{last:x}");
            assert_eq!(Site::of(0x4018, before(last)), Site::Other, "{last:x}");
        }
        assert_eq!(Site::of(0x4010, before(0x55)), Site::Other);
        assert_eq!(Site::of(0x4010, u64::from_le_bytes([0x90, 0x90, 0x90, 0xe8, 1, 2, 3, 0])), Site::Call);
    }
}
