//! Finds code by its bytes that has no unwind information: to which signal handlers return, and in which fibers begin. C
//! libraries without unwind information for it, and Go's runtime, have a signal's return nevertheless: a system call with a
//! number of its own, by which debuggers know it as well. A fiber of Boost.Context, which PHP has as well, begins with a jump
//! to its function, which would return to code that ends the process (`make_fcontext`, src/asm/make_x86_64_sysv_elf_gas.S).

use std::ops::Range;

/// `mov $15, %rax; syscall`: `rt_sigreturn`, in the two encodings of the constant.
const SIGNAL_RETURNS: [&[u8]; 2] = [&[0x48, 0xc7, 0xc0, 15, 0, 0, 0, 0x0f, 0x05], &[0xb8, 15, 0, 0, 0, 0x0f, 0x05]];

/// A program has one, or one per runtime that is linked into it.
const MAX_FOUND: usize = 8;
/// Read at once.
const CHUNK: u64 = 1 << 20;
/// Code beyond is not searched.
const MAX_SEARCHED: u64 = 512 << 20;

/// Addresses of such code, in a segment of `size` bytes at `address`; `read` gives bytes by their offset in the segment.
pub(super) fn signal_returns(
    address: u64,
    size: u64,
    mut read: impl FnMut(Range<u64>) -> Option<Vec<u8>>,
) -> Vec<Range<u64>> {
    let longest = SIGNAL_RETURNS.iter().map(|code| code.len() as u64).max().unwrap_or(0);
    let mut found = Vec::new();
    let mut at = 0;
    while at < size.min(MAX_SEARCHED) {
        let Some(bytes) = read(at..size.min(at + CHUNK + longest - 1)) else { break };
        // All begin with a constant and end with the system call, which is rare.
        for end in memmem(&bytes, &[0x0f, 0x05]).map(|syscall| syscall + 2) {
            let Some(code) = SIGNAL_RETURNS.iter().find(|code| bytes[..end].ends_with(code)) else { continue };
            let start = address.saturating_add(at + (end - code.len()) as u64);
            if found.last().is_none_or(|last: &Range<u64>| last.end <= start) && found.len() < MAX_FOUND {
                found.push(start..start.saturating_add(code.len() as u64));
            }
        }
        at += CHUNK;
    }
    found
}

/// `push %rbp; jmp *%rbx`, then `xor %rdi, %rdi; call _exit; hlt`: of the call's operand nothing is known.
const FIBER_BEGIN: [&[u8]; 3] = [&[0x55, 0xff, 0xe3, 0x48, 0x31, 0xff, 0xe8], &[0; 4], &[0xf4]];

/// Where in some bytes at an address fibers begin, up to the code's end.
pub(super) fn fiber_begins(address: u64, bytes: &[u8]) -> impl Iterator<Item = Range<u64>> {
    let [head, operand, last] = FIBER_BEGIN;
    let length = head.len() + operand.len() + last.len();
    let is_begin = move |code: &[u8]| code.starts_with(head) && code.ends_with(last);
    let found = bytes.windows(length).enumerate().filter(move |(_, code)| is_begin(code));
    found.map(move |(at, _)| address + at as u64..address + (at + length) as u64)
}

/// Where `needle` occurs.
fn memmem<'a>(bytes: &'a [u8], needle: &'a [u8; 2]) -> impl Iterator<Item = usize> + 'a {
    bytes.windows(2).enumerate().filter(move |(_, pair)| pair == needle).map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(bytes: &[u8]) -> Vec<Range<u64>> {
        signal_returns(0x1000, bytes.len() as u64, |range| {
            bytes.get(range.start as usize..range.end as usize).map(<[u8]>::to_vec)
        })
    }

    #[test]
    fn both_encodings_are_found_and_nothing_else() {
        let code = [&[0x90; 7], SIGNAL_RETURNS[0], &[0x0f, 0x05, 0xb8, 14, 0, 0, 0, 0x0f, 0x05], SIGNAL_RETURNS[1]];
        assert_eq!(search(&code.concat()), [0x1007..0x1010, 0x1019..0x1020]);
        assert_eq!(search(&[0x0f, 0x05]), []);
        assert_eq!(search(&[]), []);
    }

    #[test]
    fn the_begin_of_a_fiber_is_found() {
        let code = [0xc3, 0x55, 0xff, 0xe3, 0x48, 0x31, 0xff, 0xe8, 0x49, 0xfe, 0xff, 0xff, 0xf4, 0x0f];
        let found: Vec<_> = fiber_begins(0x123b, &code).collect();
        assert_eq!((found.len(), found[0].clone()), (1, 0x123c..0x1248));
        assert_eq!(fiber_begins(0x123b, &code[..12]).count(), 0);
        assert_eq!(fiber_begins(0x123b, &[]).count(), 0);
    }

    #[test]
    fn the_edge_of_what_is_read_at_once_hides_nothing() {
        for start in CHUNK - 12..CHUNK + 3 {
            let mut code = vec![0x90; 3 << 20];
            code[start as usize..][..9].copy_from_slice(SIGNAL_RETURNS[0]);
            assert_eq!(search(&code), vec![Range { start: 0x1000 + start, end: 0x1009 + start }]);
        }
    }
}
