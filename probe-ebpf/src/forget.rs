//! What is written for the kernel's verifier only (kernel/bpf/verifier.c). It follows every way through a program; where ways
//! meet it goes on once only if all that counts later is the same, and most constants that one of them has set count.

/// Reads a value back that was just written to memory which is not the stack. There the verifier knows no numbers: it forgets by
/// which way this one came about, and follows what comes next once instead of once for each.
#[inline(always)]
pub fn forget<T: Copy>(value: &T) -> T {
    // SAFETY: a reference is valid.
    unsafe { core::ptr::read_volatile(value) }
}
