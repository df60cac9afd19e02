//! What code that has a table says of code that has none: which addresses there it calls, and which it takes.

use std::ops::Range;

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction};

use super::image::Image;

/// Instructions that are looked at to see where instructions begin.
const MAX_STEPS: u32 = 4 << 20;
/// Code with tables beyond this is not searched.
const MAX_SEARCHED: u64 = 64 << 20;

/// Functions that are called, and addresses that are taken: `(calls, taken)`. `functions` have tables, in order of address.
pub(super) fn find(image: &Image<'_>, functions: &[Range<u64>]) -> (Vec<u64>, Vec<u64>) {
    let (mut calls, mut taken) = (Vec::new(), Vec::new());
    let (mut steps, mut left) = (MAX_STEPS, MAX_SEARCHED);
    for function in functions {
        let size = function.end.saturating_sub(function.start);
        let Some(bytes) = (image.read)(function.start, size).filter(|_| size <= left) else { continue };
        left -= size;
        // Most code says nothing of it, and need not be decoded.
        if !bytes.windows(4).enumerate().any(|(at, word)| is_hit(image, function.start, bytes, at, word)) {
            continue;
        }
        let mut decoder = Decoder::with_ip(64, bytes, function.start, DecoderOptions::NONE);
        let mut i = Instruction::default();
        while decoder.can_decode() && steps > 0 {
            steps -= 1;
            decoder.decode_out(&mut i);
            if i.flow_control() == FlowControl::Call && image.gap(i.near_branch_target()).is_some() {
                calls.push(i.near_branch_target());
            } else if i.is_ip_rel_memory_operand() && image.gap(i.ip_rel_memory_address()).is_some() {
                taken.push(i.ip_rel_memory_address());
            } else if i.flow_control() == FlowControl::UnconditionalBranch
                && image.gap(i.near_branch_target()).is_some()
            {
                taken.push(i.near_branch_target());
            }
        }
    }
    (calls, taken)
}

/// Whether four bytes may be the distance to code without a table: behind the codes of a call or jump, or behind the byte that
/// makes an operand relative to the instruction's address.
fn is_hit(image: &Image<'_>, start: u64, bytes: &[u8], at: usize, word: &[u8]) -> bool {
    let Some(&before) = at.checked_sub(1).and_then(|before| bytes.get(before)) else { return false };
    if !matches!(before, 0xe8 | 0xe9) && before & 0xc7 != 5 {
        return false;
    }
    let distance = i32::from_le_bytes([word[0], word[1], word[2], word[3]]);
    let next = start + at as u64 + 4;
    image.gap(next.wrapping_add_signed(distance.into())).is_some()
}
