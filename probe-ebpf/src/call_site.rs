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
        if ends_with_call(before) != 0 {
            Self::Call
        } else if address & (FUNCTION_ALIGNMENT - 1) == 0 && ends_or_pads(before) != 0 {
            Self::Function
        } else {
            Self::Other
        }
    }

    /// The site that has this number.
    #[inline(always)]
    pub fn of_number(number: u32) -> Self {
        match number {
            0 => Self::Call,
            1 => Self::Function,
            _ => Self::Other,
        }
    }
}

/// Compilers align functions to it.
const FUNCTION_ALIGNMENT: u64 = 16;

// Bytes are compared all eight at a time: the verifier follows both sides of a branch, and there would be thirty.

/// One in each byte.
const ONES: u64 = 0x0101_0101_0101_0101;
/// The highest bit of each byte, by which it says yes.
const YES: u64 = 0x80 * ONES;

/// Says yes for each byte that is `wanted`.
#[inline(always)]
const fn equal(bytes: u64, wanted: u8) -> u64 {
    let different = bytes ^ (wanted as u64 * ONES);
    !(((different & !YES) + !YES) | different) & YES
}

/// The answer of the byte so far before the end.
const fn back(bytes: u32) -> u64 {
    YES & 0xff << (64 - 8 * bytes)
}

/// Not zero if the last byte is that of a function (`ret`, `hlt`, `ud2`), or of what is put between two (`nop` of each length, `int3`,
/// zeros).
#[inline(always)]
fn ends_or_pads(bytes: u64) -> u64 {
    let ends = equal(bytes, 0xc3) | equal(bytes, 0xf4) | equal(bytes, 0x0b);
    (ends | equal(bytes, 0x90) | equal(bytes, 0xcc) | equal(bytes, 0)) & back(1)
}

/// Not zero if a call instruction of x86-64 may end where these bytes end. The first byte of a call may be a breakpoint: that of
/// a probe.
#[inline(always)]
fn ends_with_call(bytes: u64) -> u64 {
    let probed = equal(bytes, BREAKPOINT);
    let relative = (equal(bytes, RELATIVE) | probed) & back(5);
    // The byte behind the opcode says how the address is found: by two bits of mode and three of the register or what stands
    // for it; the three between them are a part of the opcode.
    let is_call = equal((bytes >> 3) & (7 * ONES), CALL) & (equal(bytes, INDIRECT) | probed) << 8;
    let (modes, registers) = ((bytes >> 6) & (3 * ONES), bytes & (7 * ONES));
    let [at, at_8, at_32, register] = [equal(modes, 0), equal(modes, 1), equal(modes, 2), equal(modes, 3)];
    let (has_index, has_none) = (equal(registers, 4), equal(registers, 5));
    let fits = (register | at & !has_index & !has_none) & back(1)
        | (at_8 & !has_index | at & has_index) & back(2)
        | at_8 & has_index & back(3)
        | (at_32 & !has_index | at & has_none) & back(5)
        | (at_32 | at) & has_index & back(6);
    relative | is_call & fits
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
        ends_with_call(u64::from_le_bytes(bytes)) != 0
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
