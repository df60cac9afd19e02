//! Sampled allocations: what crosses the kernel boundary about them, and by which chance a call is sampled.
//!
//! Sample points lie on the bytes that a process allocates like rain: independently, one in so many bytes on average. A call
//! is sampled if a point falls on what it allocates, so that one of `size` bytes has the chance `1 - exp(-size / mean)`,
//! whatever was allocated before. Whoever counts gives each sample the inverse of its chance as its weight.
//!
//! Some allocators sample by themselves and publish their samples by static tracepoints: then each hit is a sample, and its
//! weight is one of its arguments.

use crate::abi::{COMM_LEN, StackId, assert_packed};
use crate::span::Operand;

/// Sampled allocations that can be in use at once: 128 GiB at one in 512 KiB.
pub const MAX_LIVE: u32 = 256 * 1024;
/// Processes whose allocations can be followed at once.
pub const MAX_HEAPS: u32 = 64;
/// Larger sizes are no sizes: such a call fails.
pub const MAX_SIZE: u64 = 1 << 47;
/// Ways in which the arguments of published samples can lie; the compiler makes few of them.
pub const MAX_LAYOUTS: u32 = 1 << function::BITS;

/// Where the arguments of a tracepoint lie by which an allocator publishes its samples; at one for `free` only the first.
/// The low bits of such a probe's number say which of them it is.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Address, size in bytes, and how many bytes the sample stands for.
    pub arguments: [Operand; 3],
    /// Bit by bit: the argument may be below zero.
    pub signed: u32,
    /// Zero.
    pub padding: u32,
}

/// The [`Operand::source`] of a constant, which is the first of the offsets.
pub const CONSTANT: u32 = 64;

impl Layout {
    /// An argument, from what is in a register and in the process's memory; `None` where that cannot be read.
    #[inline(always)]
    pub fn argument(
        &self,
        number: usize,
        register: impl FnOnce(u32) -> u64,
        read: impl FnMut(u64) -> Option<u64>,
    ) -> Option<u64> {
        let operand = &self.arguments[number];
        if operand.source == CONSTANT {
            return Some(operand.offsets[0] as u64);
        }
        let value = operand.value(register(operand.source), read)?;
        if self.signed >> number & 1 == 0 {
            return Some(value);
        }
        let unused = (64 - operand.bits) & 63;
        Some(((value << unused) as i64 >> unused) as u64)
    }
}

/// What a function of an allocator takes: the low byte of a probe's number.
pub mod function {
    /// `(size)`
    pub const SIZE: u32 = 0;
    /// `(count, size)`
    pub const COUNT_SIZE: u32 = 1;
    /// `(old, size)`
    pub const OLD_SIZE: u32 = 2;
    /// `(old, count, size)`
    pub const OLD_COUNT_SIZE: u32 = 3;
    /// `(alignment, size)`
    pub const ALIGNMENT_SIZE: u32 = 4;
    /// `(result *, alignment, size)`; the address is where the first argument points
    pub const RESULT_ALIGNMENT_SIZE: u32 = 5;
    /// `(old)`, which is in use no more
    pub const OLD: u32 = 6;
    /// `(size)` as Go passes it, in the register of results
    pub const GO_SIZE: u32 = 7;
    /// Added to one of them: nobody sees what the function returns.
    pub const UNSEEN: u32 = 1 << 7;
    /// The bits of a number that hold these; those above are the number of the heap.
    pub const BITS: u32 = 8;
}

/// A sampled allocation.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct AllocationEvent {
    /// [`crate::abi::kind::ALLOCATION`].
    pub kind: u32,
    /// CPU it was made on.
    pub cpu: u32,
    /// `CLOCK_MONOTONIC` in nanoseconds.
    pub time_ns: u64,
    /// Process.
    pub tgid: u32,
    /// Thread.
    pub tid: u32,
    /// Bytes.
    pub size: u64,
    /// There was one sample point for so many bytes, on average; 0 for one that the allocator has published.
    pub mean: u64,
    /// How many bytes a published one stands for, as the allocator says; 0 for others.
    pub weight: u64,
    /// Where it was made; the function of the allocator is the first frame.
    pub user_stack: StackId,
    /// The thread's name, zero-terminated.
    pub comm: [u8; COMM_LEN],
}

/// A sampled allocation is in use no more: it was freed, or what was at its address must have been.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct AllocationEndEvent {
    /// [`crate::abi::kind::ALLOCATION_END`].
    pub kind: u32,
    /// Process.
    pub tgid: u32,
    /// When that was seen, `CLOCK_MONOTONIC` in nanoseconds.
    pub time_ns: u64,
    /// 1 if nobody saw it freed: its address was handed out again. 0 if it was seen.
    pub is_reused: u64,
    /// What was remembered of it.
    pub live: LiveAllocation,
}

/// A call that gives new memory for old: the old is freed when it returns, unless it fails.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Reallocation {
    /// Address of the old.
    pub old: u64,
    /// When the old was allocated, by which it is known again: its address may be somebody else's by the time of the return.
    pub allocated_ns: u64,
    /// Bytes that are asked for; with 0 the old is freed, whatever is returned.
    pub size: u64,
}

/// Calls of this kind that can be under way at once, of sampled memory only.
pub const MAX_REALLOCATIONS: u32 = 1024;

/// Key: tid. A sampled call that has not returned.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct PendingAllocation {
    /// Stack pointer at the function's first instruction: where the return address is.
    pub sp: u64,
    /// Where the address will be; 0 if it is returned.
    pub result: u64,
    /// What will be remembered of it.
    pub live: LiveAllocation,
}

/// Where a sampled allocation is.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LiveKey {
    /// Address.
    pub address: u64,
    /// Process.
    pub tgid: u32,
    /// Zero.
    pub padding: u32,
}

/// A sampled allocation that is in use.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct LiveAllocation {
    /// When it was made, `CLOCK_MONOTONIC` in nanoseconds.
    pub time_ns: u64,
    /// Bytes.
    pub size: u64,
    /// As in [`AllocationEvent`].
    pub weight: u64,
    /// Where it was made.
    pub user_stack: StackId,
    /// By which thread.
    pub tid: u32,
    /// As in [`AllocationEvent`].
    pub mean: u32,
}

/// What the probes of one heap cost on one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct HeapCost {
    /// Hits of probes.
    pub hits: u64,
    /// Time that samples took besides, in nanoseconds.
    pub sampling_ns: u64,
}

/// What a CPU remembers from one call to the next.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct HeapCpu {
    /// Bytes to the next sample point, which is on the last of them.
    pub until: u64,
    /// With which mean it was drawn; 0 before the first is.
    pub mean: u64,
    /// Of the last call: the address of the function.
    pub pc: u64,
    /// Its stack pointer at the first instruction.
    pub sp: u64,
    /// Its return address.
    pub return_address: u64,
    /// One more than what it has returned; 0 before.
    pub returned: u64,
    /// Its thread.
    pub tid: u32,
    /// Zero.
    pub padding: u32,
}

impl HeapCpu {
    /// Notes a call of the function at `pc`. True if the call before, of another function, has jumped here: the same
    /// thread is at the same place of the stack and will return to the same place, so that it is the same call. A probe may
    /// have replaced the return address meanwhile: by the beginning of a page, where no call returns to.
    #[inline(always)]
    pub fn is_jumped_to(&mut self, pc: u64, tid: u32, sp: u64, return_address: u64) -> bool {
        let is_replaced = return_address & 0xfff == 0;
        let is_same = self.tid == tid && self.sp == sp && (self.return_address == return_address || is_replaced);
        let is_jumped_to = is_same && self.pc != pc;
        self.returned = 0;
        (self.pc, self.tid, self.sp, self.return_address) = (pc, tid, sp, return_address);
        is_jumped_to
    }

    /// Notes that a call returns. False if it is the call that has just returned the same from another function, to which
    /// this one had jumped.
    #[inline(always)]
    pub fn is_new_return(&mut self, tid: u32, returned: u64) -> bool {
        let is_new = self.tid != tid || self.returned != returned.wrapping_add(1);
        if self.tid == tid {
            self.returned = returned.wrapping_add(1);
        }
        is_new
    }

    /// True if a sample point falls on the next `size` bytes. `random` is asked for a random number for each new point.
    #[inline(always)]
    pub fn is_sampled(&mut self, size: u64, mean: u64, random: impl Fn() -> u32) -> bool {
        // How far it is to the next point does not depend on the past, so that it may be drawn anew at any time.
        if self.mean != mean {
            self.mean = mean;
            self.until = exponential(random(), mean);
        }
        if size < self.until {
            self.until -= size;
            return false;
        }
        self.until = exponential(random(), mean);
        true
    }
}

/// An exponentially distributed number with this mean, rounded up, from an evenly distributed one. Integers only; the mean is
/// below 2^32.
#[inline(always)]
pub fn exponential(random: u32, mean: u64) -> u64 {
    /// ln 2, in 2^-32.
    const LN_2: u64 = 2_977_044_472;
    // The middle of one of 2^32 equal parts of (0, 1), in 2^-33: -log2 of it is 33 less the log2 of this odd number.
    let part = (u64::from(random) << 1) | 1;
    let minus_log2 = (33 << FRACTION) - log2(part);
    let minus_ln = (minus_log2 * LN_2) >> 32;
    ((minus_ln * mean) >> FRACTION) + 1
}

/// Bits of the fraction of [`log2`].
const FRACTION: u32 = 24;

/// log2 of a number below 2^33 and above 0, in 2^-[`FRACTION`]: bit by bit, by squaring, without a branch.
#[inline(always)]
fn log2(number: u64) -> u64 {
    let whole = 63 - u64::from(number.leading_zeros());
    // From 1 to below 2, in 2^-31.
    let mut rest = (number << ((33 - whole) & 63)) >> 2;
    let mut fraction = 0;
    for _ in 0..FRACTION {
        rest = (rest * rest) >> 31;
        let bit = rest >> 32;
        rest >>= bit & 1;
        fraction = (fraction << 1) | bit;
    }
    (whole << FRACTION) | fraction
}

assert_packed! {
    Layout { arguments, signed, padding }
    AllocationEvent { kind, cpu, time_ns, tgid, tid, size, mean, weight, user_stack, comm }
    AllocationEndEvent { kind, tgid, time_ns, is_reused, live }
    Reallocation { old, allocated_ns, size }
    PendingAllocation { sp, result, live }
    LiveKey { address, tgid, padding }
    LiveAllocation { time_ns, size, weight, user_stack, tid, mean }
    HeapCost { hits, sampling_ns }
    HeapCpu { until, mean, pc, sp, return_address, returned, tid, padding }
}

#[cfg(test)]
mod tests {
    use core::cell::Cell;

    use super::*;

    /// splitmix64: the upper half of each number.
    fn random() -> impl Fn() -> u32 {
        let state = Cell::new(7u64);
        move || {
            state.set(state.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
            let mut number = state.get();
            number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((number ^ (number >> 31)) >> 32) as u32
        }
    }

    #[test]
    fn the_logarithm_is_exact_to_its_last_bits() {
        let mut number = 1u64;
        while number < 1 << 33 {
            let exact = (number as f64).log2() * f64::from(1 << FRACTION);
            assert!((log2(number) as f64 - exact).abs() < 16.0, "log2 {number}");
            number += number / 3 + 1;
        }
    }

    #[test]
    fn distances_are_exponential() {
        let random = random();
        let mean = 512.0 * 1024.0;
        let mut sample: std::vec::Vec<f64> = (0..100_000).map(|_| exponential(random(), 512 * 1024) as f64).collect();
        let average = sample.iter().sum::<f64>() / sample.len() as f64;
        assert!((average / mean - 1.0).abs() < 0.01, "{average}");
        sample.sort_by(f64::total_cmp);
        // Kolmogorov and Smirnov's distance: at most 1.63 / sqrt(n) in 99 of 100 cases.
        let distance = |(at, value): (usize, &f64)| (1.0 - (-value / mean).exp() - at as f64 / 100_000.0).abs();
        let worst = sample.iter().enumerate().map(distance).fold(0.0, f64::max);
        assert!(worst < 1.63 / 100_000f64.sqrt(), "{worst}");
        assert!(exponential(u32::MAX, 512 * 1024) == 1 && exponential(0, u32::MAX.into()) > 22 * u64::from(u32::MAX));
    }

    #[test]
    fn weights_give_back_what_was_allocated() {
        const MEAN: u64 = 64 * 1024;
        let random = random();
        let mut cpu = HeapCpu::default();
        // Small and large ones between each other.
        let sizes = [16u64, 100, 4096, 200_000];
        let (mut calls, mut bytes) = ([0.0; 4], [0.0; 4]);
        const ROUNDS: usize = 200_000;
        for _ in 0..ROUNDS {
            for (kind, &size) in sizes.iter().enumerate() {
                if cpu.is_sampled(size, MEAN, &random) {
                    let weight = 1.0 / (1.0 - (-(size as f64) / MEAN as f64).exp());
                    calls[kind] += weight;
                    bytes[kind] += weight * size as f64;
                }
            }
        }
        for (kind, &size) in sizes.iter().enumerate() {
            // Three standard deviations of as many samples as are to be expected.
            let expected_samples = ROUNDS as f64 * (1.0 - (-(size as f64) / MEAN as f64).exp());
            let margin = 3.0 / expected_samples.sqrt();
            assert!((calls[kind] / ROUNDS as f64 - 1.0).abs() < margin, "{size}: {} calls", calls[kind]);
            assert!(
                (bytes[kind] / (ROUNDS as u64 * size) as f64 - 1.0).abs() < margin,
                "{size}: {} bytes",
                bytes[kind]
            );
        }
    }

    #[test]
    fn a_jump_from_one_function_to_another_is_one_call() {
        let mut cpu = HeapCpu::default();
        assert!(!cpu.is_jumped_to(2, 7, 0x1000, 0x400));
        assert!(cpu.is_jumped_to(0, 7, 0x1000, 0x400), "realloc jumps to malloc");
        assert!(!cpu.is_jumped_to(0, 7, 0x1000, 0x400), "a loop calls malloc again");
        assert!(!cpu.is_jumped_to(2, 7, 0x1000, 0x408), "from elsewhere in the same function");
        assert!(!cpu.is_jumped_to(0, 8, 0x1000, 0x408), "another thread");
        assert!(cpu.is_jumped_to(1, 8, 0x1000, 0x7000), "a probe has replaced the return address");
    }

    #[test]
    fn arguments_keep_their_sign_and_constants_their_value() {
        let register = |bits| Operand { source: 5, bits, ..Operand::default() };
        let constant = Operand { source: CONSTANT, offsets: [-7, 0, 0], ..Operand::default() };
        let layout = Layout { arguments: [register(32), register(32), constant], signed: 0b010, padding: 0 };
        let argument = |number| layout.argument(number, |source| u64::from(source) << 32 | 0xffff_fffe, |_| None);
        assert_eq!(
            [argument(0), argument(1), argument(2)],
            [Some(0xffff_fffe), Some(-2i64 as u64), Some(-7i64 as u64)]
        );
        let memory = Operand { source: 7, reads: 1, offsets: [16, 0, 0], bits: 64, padding: 0 };
        let layout = Layout { arguments: [memory; 3], signed: 0, padding: 0 };
        assert_eq!(layout.argument(1, |_| 0x1000, |address| (address == 0x1010).then_some(9)), Some(9));
        assert_eq!(layout.argument(1, |_| 0x2000, |address| (address == 0x1010).then_some(9)), None);
    }

    #[test]
    fn a_call_returns_once_whatever_it_has_jumped_to() {
        let mut cpu = HeapCpu::default();
        cpu.is_jumped_to(2, 7, 0x1000, 0x400);
        cpu.is_jumped_to(0, 7, 0x1000, 0x400);
        assert!(cpu.is_new_return(7, 0x5000) && !cpu.is_new_return(7, 0x5000));
        cpu.is_jumped_to(0, 7, 0x1000, 0x400);
        assert!(cpu.is_new_return(7, 0x5000), "the same address is handed out again");
    }
}
