//! Operations on words in maps that several threads change at once. The language has none for this target, although the
//! machine does (Linux 5.12, BPF instruction set v3).

use core::arch::asm;

/// Adds to a word.
#[inline(always)]
pub fn add(word: &u64, number: u64) {
    // SAFETY: the word is in a map, which may change at any time.
    unsafe { asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) word, in(reg) number, options(nostack)) };
}

/// Adds to half a word.
#[inline(always)]
pub fn add_half(word: &u32, number: u32) {
    // SAFETY: as above.
    unsafe { asm!("lock *(u32 *)({0} + 0) += {1}", in(reg) word, in(reg) u64::from(number), options(nostack)) };
}

/// Writes a word, and returns what was there.
#[inline(always)]
pub fn swap(word: &u64, number: u64) -> u64 {
    let mut value = number;
    // SAFETY: as above.
    unsafe { asm!("{1} = xchg_64({0} + 0, {1})", in(reg) word, inout(reg) value, options(nostack)) };
    value
}
