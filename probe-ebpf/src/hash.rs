//! The stack hash: 128 bits, two multiplications a frame. Two lanes with different multipliers and rotations make an
//! accidental collision a matter of 2^64 distinct stacks. It is no defence against a target that forges its own stacks:
//! such a target only confuses its own profile, because the process id goes in first.

use crate::abi::StackId;

/// A running hash over the words of a stack.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct StackHash {
    lo: u64,
    hi: u64,
}

// Odd constants with well-spread bits: the fractional parts of the golden ratio and of the square root of 5 − 1.
const LO_FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
const HI_FACTOR: u64 = 0xc2b2_ae3d_27d4_eb4f;

impl StackHash {
    /// Starts with whose stack it is: process and epoch, or zeros for the kernel.
    #[inline(always)]
    pub fn new(tgid: u32, epoch: u32) -> Self {
        let mut hash = Self { lo: LO_FACTOR, hi: HI_FACTOR };
        hash.add(u64::from(tgid) << 32 | u64::from(epoch));
        hash
    }

    /// Adds one word: order matters.
    #[inline(always)]
    pub fn add(&mut self, word: u64) {
        self.lo = (self.lo ^ word).wrapping_mul(LO_FACTOR).rotate_left(29);
        self.hi = (self.hi.rotate_left(23) ^ word).wrapping_mul(HI_FACTOR);
    }

    /// The identity; never [`StackId::NONE`].
    #[inline(always)]
    pub fn finish(self, length: u32) -> StackId {
        let mut end = self;
        end.add(u64::from(length));
        // One round mixes the high bits of each lane back into its low ones.
        StackId {
            lo: (end.lo ^ end.lo >> 32).wrapping_mul(HI_FACTOR) | 1,
            hi: (end.hi ^ end.hi >> 32).wrapping_mul(LO_FACTOR),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::vec::Vec;

    use super::*;

    fn id(tgid: u32, epoch: u32, frames: &[u64]) -> StackId {
        let mut hash = StackHash::new(tgid, epoch);
        frames.iter().for_each(|&frame| hash.add(frame));
        hash.finish(frames.len() as u32)
    }

    #[test]
    fn order_length_process_and_epoch_matter() {
        let base = id(1, 0, &[1, 2, 3]);
        for other in [id(1, 0, &[1, 3, 2]), id(1, 0, &[1, 2]), id(2, 0, &[1, 2, 3]), id(1, 1, &[1, 2, 3])] {
            assert_ne!(base, other);
        }
        assert_ne!(id(0, 0, &[]), StackId::NONE);
    }

    #[test]
    fn similar_stacks_differ_in_each_half() {
        // What real stacks look like: the same frames but for a few low bits somewhere.
        let mut frames: Vec<u64> = (0..40).map(|i| 0x5555_5555_0000 + i * 0x91).collect();
        let (mut lo, mut hi) = (HashSet::new(), HashSet::new());
        let mut count = 0;
        for at in 0..frames.len() {
            for delta in 1..2500 {
                frames[at] += delta;
                let StackId { lo: l, hi: h } = id(7, 0, &frames);
                lo.insert(l);
                hi.insert(h);
                frames[at] -= delta;
                count += 1;
            }
        }
        assert_eq!((lo.len(), hi.len()), (count, count));
    }
}
