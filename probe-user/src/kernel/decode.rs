//! Decodes the records of the ring buffer. They come from our own programs, yet nothing here trusts their length.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use probe_ebpf::abi::{COMM_LEN, MAX_PATH, StackId, Sum, Wait, Waker, kind, memory_change, stack_flags};
use probe_ebpf::unwind::End;

use super::event::{
    Event, MemoryChange, RawAllocation, RawAllocationEnd, RawCall, RawMemory, RawSample, RawStack, RawWait,
};
use super::origins::{How, RawOrigin};
use crate::text::until_zero;

impl Event {
    /// Reads one record of the ring buffer: its time (`CLOCK_MONOTONIC`, nanoseconds) and what happened. `None` when it is
    /// none of ours.
    pub fn decode(bytes: &[u8]) -> Option<(u64, Self)> {
        let mut reader = Reader(bytes);
        // The order of the reads is the order of the fields in `probe_ebpf::abi`.
        let event = match reader.u32()? {
            kind::SAMPLE => {
                let (cpu, time_ns) = (reader.u32()?, reader.u64()?);
                let (pid, tid, goroutine, value) = (reader.u32()?, reader.u32()?, reader.u64()?, reader.u64()?);
                let (user_stack, kernel_stack) = (reader.stack_id()?, reader.stack_id()?);
                let comm = reader.array::<COMM_LEN>()?;
                let sample = RawSample { time_ns, cpu, pid, tid, goroutine, value, user_stack, kernel_stack, comm };
                (time_ns, Self::Sample(sample))
            }
            kind::STACK => {
                let (count, time_ns, id) = (reader.u32()?, reader.u64()?, reader.stack_id()?);
                let (pid, _epoch, end, flags) = (reader.u32()?, reader.u32()?, reader.u32()?, reader.u32()?);
                let frames = reader.frames(count)?;
                let pid = (pid != 0).then_some(pid);
                let end = End::from_u32(end);
                let (guessed, derived) = (flags & stack_flags::GUESSED != 0, flags & stack_flags::DERIVED != 0);
                (time_ns, Self::Stack(RawStack { id, time_ns, pid, end, guessed, derived, frames }))
            }
            kind::WAIT => {
                let (state, last_ns, pid, tid) = (reader.u32()?, reader.u64()?, reader.u32()?, reader.u32()?);
                let (count, total_ns, goroutine) = (reader.u64()?, reader.u64()?, reader.u64()?);
                let (user_stack, kernel_stack, waker) = (reader.stack_id()?, reader.stack_id()?, reader.waker()?);
                let count = u32::try_from(count).unwrap_or(u32::MAX);
                let wait = Wait { user_stack, kernel_stack, waker, sum: Sum { last_ns, total_ns, count, state } };
                (last_ns, Self::Wait(RawWait { goroutine, ..RawWait::new(tid, pid, &wait, reader.array()?) }))
            }
            kind::CALL => {
                let (function, time_ns, since_ns) = (reader.u32()?, reader.u64()?, reader.u64()?);
                let (pid, tid, goroutine) = (reader.u32()?, reader.u32()?, reader.u64()?);
                let (user_stack, comm) = (reader.stack_id()?, reader.array()?);
                (time_ns, Self::Call(RawCall { function, since_ns, time_ns, pid, tid, goroutine, user_stack, comm }))
            }
            kind::NEWCOMER => {
                let (pid, parent, passed_over) = (reader.u32()?, reader.u32()?, reader.u32()?);
                (reader.u64()?, Self::Newcomer(super::Newcomer { pid, parent, passed_over }))
            }
            kind::SET_ASIDE => {
                let pid = reader.u32()?;
                (reader.u64()?, Self::SetAside { pid })
            }
            kind::MEMORY => {
                let (change, time_ns, pid, tid) = (reader.u32()?, reader.u64()?, reader.u32()?, reader.u32()?);
                let (start, bytes, old_start, old_bytes) = (reader.u64()?, reader.u64()?, reader.u64()?, reader.u64()?);
                let (count, user_stack, comm) = (reader.u64()?, reader.stack_id()?, reader.array()?);
                let change = match change {
                    memory_change::RESIDENT => MemoryChange::Resident,
                    memory_change::MAPPED => MemoryChange::Mapped,
                    memory_change::RELEASED => MemoryChange::Released,
                    memory_change::REPLACED => MemoryChange::Replaced,
                    memory_change::POPULATED => MemoryChange::Populated,
                    memory_change::LOCKED => MemoryChange::Locked { with_future: start != 0 },
                    memory_change::MOVED => MemoryChange::Moved { old_start, old_bytes },
                    _ => MemoryChange::Unmapped,
                };
                let memory = RawMemory { time_ns, pid, tid, change, start, bytes, count, user_stack, comm };
                (time_ns, Self::Memory(memory))
            }
            kind::ORIGIN => {
                let (how, time_ns, pid, tid) = (reader.u32()?, reader.u64()?, reader.u32()?, reader.u32()?);
                let (number, weight) = (reader.u32()?, reader.u32()?);
                let (how, user_stack, comm) = (How::of_kernel(how)?, reader.stack_id()?, reader.array()?);
                (time_ns, Self::Origin(RawOrigin { time_ns, how, pid, tid, number, weight, user_stack, comm }))
            }
            kind::ALLOCATION => {
                let (_cpu, time_ns, pid, tid) = (reader.u32()?, reader.u64()?, reader.u32()?, reader.u32()?);
                let (size, mean, weight) = (reader.u64()?, reader.u64()?, reader.u64()?);
                let user_stack = reader.stack_id()?;
                let allocation = RawAllocation { time_ns, pid, tid, size, mean, weight, user_stack };
                (time_ns, Self::Allocation(allocation, reader.array()?))
            }
            kind::ALLOCATION_END => {
                let (pid, ended_ns, is_reused) = (reader.u32()?, reader.u64()?, reader.u64()? != 0);
                let (time_ns, size, weight) = (reader.u64()?, reader.u64()?, reader.u64()?);
                let (user_stack, tid, mean) = (reader.stack_id()?, reader.u32()?, reader.u32()?.into());
                let allocation = RawAllocation { time_ns, pid, tid, size, mean, weight, user_stack };
                (ended_ns, Self::AllocationEnd(RawAllocationEnd { allocation, ended_ns, is_reused }))
            }
            kind::EXEC => {
                let (pid, time_ns) = (reader.u32()?, reader.u64()?);
                let path = reader.array::<MAX_PATH>()?;
                (time_ns, Self::Exec { pid, time_ns, path: OsString::from_vec(until_zero(&path).to_vec()) })
            }
            kind::FORK => {
                let (parent, child, _) = (reader.u32()?, reader.u32()?, reader.u32()?);
                (reader.u64()?, Self::Fork { parent, child })
            }
            kind::EXIT => {
                let pid = reader.u32()?;
                (reader.u64()?, Self::Exit { pid })
            }
            _ => return None,
        };
        Some(event)
    }
}

/// Reads the fields of records one after the other.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl Reader<'_> {
    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_ne_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_ne_bytes)
    }

    pub(super) fn stack_id(&mut self) -> Option<StackId> {
        Some(StackId { lo: self.u64()?, hi: self.u64()? })
    }

    /// `count` addresses.
    pub(super) fn frames(&mut self, count: u32) -> Option<Vec<u64>> {
        let (frames, rest) = self.0.split_at_checked(count as usize * 8)?;
        self.0 = rest;
        Some(frames.chunks_exact(8).map(|word| u64::from_ne_bytes(word.try_into().unwrap_or_default())).collect())
    }

    fn waker(&mut self) -> Option<Waker> {
        let (tgid, tid, user_stack) = (self.u32()?, self.u32()?, self.stack_id()?);
        Some(Waker { tgid, tid, user_stack, kernel_stack: self.stack_id()?, comm: self.array()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(values: &[u32]) -> Vec<u8> {
        values.iter().flat_map(|v| v.to_ne_bytes()).collect()
    }

    #[test]
    fn a_stack_is_read() {
        let bytes = words(&[kind::STACK, 2, 9, 0, 5, 0, 6, 0, 77, 1, End::TooDeep as u32, 0, 0x10, 0, 0x20, 1]);
        let Some((9, Event::Stack(stack))) = Event::decode(&bytes) else { panic!("no stack") };
        assert_eq!((stack.id, stack.pid, stack.end), (StackId { lo: 5, hi: 6 }, Some(77), End::TooDeep));
        assert_eq!(stack.frames, [0x10, 0x1_0000_0020]);
    }

    #[test]
    fn cut_and_unknown_records_are_refused() {
        assert_eq!(Event::decode(&[]), None);
        assert_eq!(Event::decode(&words(&[99, 0, 0])), None);
        let mut bytes = words(&[kind::STACK, 2, 9, 0, 5, 0, 6, 0, 77, 1, 0, 0, 0x10, 0, 0x20, 1]);
        for length in 0..bytes.len() {
            assert_eq!(Event::decode(&bytes[..length]), None);
        }
        bytes[4..8].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert_eq!(Event::decode(&bytes), None);
    }

    #[test]
    fn sizes_agree_with_the_shared_definition() {
        use probe_ebpf::abi::{
            CallEvent, ExecEvent, ExitEvent, ForkEvent, MemoryEvent, NewcomerEvent, OriginEvent, SampleEvent,
            SetAsideEvent, WaitEvent,
        };
        for (kind, size) in [
            (kind::SAMPLE, size_of::<SampleEvent>()),
            (kind::WAIT, size_of::<WaitEvent>()),
            (kind::CALL, size_of::<CallEvent>()),
            (kind::MEMORY, size_of::<MemoryEvent>()),
            (kind::ORIGIN, size_of::<OriginEvent>()),
            (kind::ALLOCATION, size_of::<probe_ebpf::heap::AllocationEvent>()),
            (kind::ALLOCATION_END, size_of::<probe_ebpf::heap::AllocationEndEvent>()),
            (kind::EXEC, size_of::<ExecEvent>()),
            (kind::FORK, size_of::<ForkEvent>()),
            (kind::EXIT, size_of::<ExitEvent>()),
            (kind::SET_ASIDE, size_of::<SetAsideEvent>()),
            (kind::NEWCOMER, size_of::<NewcomerEvent>()),
        ] {
            let mut bytes = vec![0; size];
            bytes[..4].copy_from_slice(&kind.to_ne_bytes());
            assert!(Event::decode(&bytes).is_some(), "kind {kind} of {size} bytes");
        }
    }
}
