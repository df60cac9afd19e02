//! Is an address one to which a call returns? A walk that was led astray, by a table that is wrong, takes any word of the
//! stack for a return address; the bytes before it tell.

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
    #[inline(always)]
    pub fn of(address: u64, before: u64) -> Self {
        if may_end_with_call(before) {
            Self::Call
        } else if address & (FUNCTION_ALIGNMENT - 1) == 0 && is_end_or_padding((before >> 56) as u8) {
            Self::Function
        } else {
            Self::Other
        }
    }
}

/// Compilers align functions to it.
const FUNCTION_ALIGNMENT: u64 = 16;

/// The last byte of a function (`ret`, `hlt`, `ud2`), or of what is put between two (`nop` of each length, `int3`, zeros).
#[inline(always)]
fn is_end_or_padding(byte: u8) -> bool {
    matches!(byte, 0xc3 | 0xf4 | 0x0b | 0x90 | 0xcc | 0)
}

/// True if a call instruction of x86-64 may end where these bytes end. The first byte of a call may be a breakpoint: that of a
/// probe.
#[inline(always)]
fn may_end_with_call(bytes: u64) -> bool {
    // The byte so far before the end.
    let byte = |back: u32| (bytes >> (64 - 8 * back)) as u8;
    let is_begin = |back: u32, opcode: u8| byte(back) == opcode || byte(back) == BREAKPOINT;
    let by_operand = |length: u32| {
        let (mode, operation, rm) = (byte(length - 1) >> 6, byte(length - 1) >> 3 & 7, byte(length - 1) & 7);
        let fits = match length {
            2 => mode == 3 || mode == 0 && rm != 4 && rm != 5,
            3 => mode == 1 && rm != 4 || mode == 0 && rm == 4,
            4 => mode == 1 && rm == 4,
            6 => mode == 2 && rm != 4 || mode == 0 && rm == 5,
            _ => rm == 4 && (mode == 2 || mode == 0),
        };
        fits && operation == CALL && is_begin(length, INDIRECT)
    };
    is_begin(5, RELATIVE) || by_operand(2) || by_operand(3) || by_operand(4) || by_operand(6) || by_operand(7)
}

/// `call rel32`.
const RELATIVE: u8 = 0xe8;
/// `call r/m64`, by the middle bits of the byte behind it.
const INDIRECT: u8 = 0xff;
const CALL: u8 = 2;
/// `int3`.
const BREAKPOINT: u8 = 0xcc;

#[cfg(test)]
mod tests {
    use super::*;

    /// Behind other code.
    fn behind(instruction: &[u8]) -> bool {
        let mut bytes = [0x90; 8];
        bytes[8 - instruction.len()..].copy_from_slice(instruction);
        may_end_with_call(u64::from_le_bytes(bytes))
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
