//! Decoded events. The ring buffer's bytes come from our own programs, yet nothing here trusts their length.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use probe_ebpf::abi::{COMM_LEN, MAX_PATH, StackId, Sum, Wait, Waker, kind, memory_change, stack_flags};
use probe_ebpf::unwind::End;

use crate::target::{Mapping, ThreadState};
use crate::text::sanitize;

/// What the kernel reports.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A target's thread was on a CPU.
    Sample(RawSample),
    /// A target's thread waited.
    Wait(RawWait),
    /// A call of a timed function was slow.
    Call(RawCall),
    /// A target's memory has changed.
    Memory(RawMemory),
    /// A target's thread allocated memory, and was sampled.
    Allocation(RawAllocation),
    /// The frames of a stack, once.
    Stack(RawStack),
    /// A process replaced its program.
    Exec {
        /// Process.
        pid: u32,
        /// The path given to `execve`.
        path: OsString,
    },
    /// A process was created.
    Fork {
        /// Process that forked.
        parent: u32,
        /// The new one.
        child: u32,
    },
    /// A process ended.
    Exit {
        /// Process.
        pid: u32,
    },
    /// A process is replacing its program: from here on its mappings are those of the new one. [`Event::Exec`] follows
    /// when they have been made.
    NewImage {
        /// Process.
        pid: u32,
    },
    /// A process mapped executable memory.
    Map {
        /// Process.
        pid: u32,
        /// What it mapped.
        mapping: Mapping,
    },
}

/// A sample as the kernel took it: stacks by identity, nothing named.
#[derive(Clone, Debug, PartialEq)]
pub struct RawSample {
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub time_ns: u64,
    /// CPU.
    pub cpu: u32,
    /// Process.
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// What it stands for: 1 for a CPU sample.
    pub value: u64,
    /// User stack.
    pub user_stack: StackId,
    /// Kernel stack.
    pub kernel_stack: StackId,
    /// The thread's name.
    pub comm: [u8; COMM_LEN],
}

/// A change of a process's memory as the kernel told of it.
#[derive(Clone, Debug, PartialEq)]
pub struct RawMemory {
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub time_ns: u64,
    /// Process.
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// What has changed.
    pub change: MemoryChange,
    /// First address of it.
    pub start: u64,
    /// How long it is, in bytes.
    pub bytes: u64,
    /// How many changes like this one it stands for.
    pub count: u64,
    /// User stack.
    pub user_stack: StackId,
    /// The thread's name.
    pub comm: [u8; COMM_LEN],
}

/// How a process's memory changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryChange {
    /// A page fault took a page.
    Resident,
    /// Address space was mapped.
    Mapped,
    /// Address space was unmapped.
    Unmapped,
    /// What was resident in some address space is no more.
    Released,
    /// All of it is gone: the process has another program.
    Replaced,
    /// A mapping has another place or size.
    Moved {
        /// Its first address before.
        old_start: u64,
        /// Its length before, in bytes.
        old_bytes: u64,
    },
}

/// A sampled allocation, as the kernel took it.
#[derive(Clone, Debug, PartialEq)]
pub struct RawAllocation {
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub time_ns: u64,
    /// Process.
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// Bytes.
    pub size: u64,
    /// There was one sample point for so many bytes, on average.
    pub mean: u64,
    /// User stack: its first frame is the function of the allocator.
    pub user_stack: StackId,
    /// The thread's name.
    pub comm: [u8; COMM_LEN],
}

/// Waits of a thread with the same stacks, as the kernel added them up.
#[derive(Clone, Debug, PartialEq)]
pub struct RawWait {
    /// When the last of them ended, `CLOCK_MONOTONIC`, nanoseconds.
    pub time_ns: u64,
    /// Process.
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// What it did meanwhile.
    pub state: ThreadState,
    /// How many.
    pub count: u64,
    /// Their time together, in nanoseconds.
    pub total_ns: u64,
    /// User stack.
    pub user_stack: StackId,
    /// Kernel stack.
    pub kernel_stack: StackId,
    /// Who woke it, where that is asked for and known.
    pub waker: Option<RawWaker>,
    /// The thread's name.
    pub comm: [u8; COMM_LEN],
}

/// A call of a timed function that took longer than its threshold.
#[derive(Clone, Debug, PartialEq)]
pub struct RawCall {
    /// Number of the function.
    pub function: u32,
    /// When it began, `CLOCK_MONOTONIC`, nanoseconds.
    pub since_ns: u64,
    /// When it ended.
    pub time_ns: u64,
    /// Process.
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// User stack at its end.
    pub user_stack: StackId,
    /// The thread's name.
    pub comm: [u8; COMM_LEN],
}

/// Who ended a wait.
#[derive(Clone, Debug, PartialEq)]
pub struct RawWaker {
    /// Process; 0 when the CPU was idle: an interrupt did it.
    pub pid: u32,
    /// Its user stack.
    pub user_stack: StackId,
    /// Its kernel stack.
    pub kernel_stack: StackId,
    /// The thread's name.
    pub comm: [u8; COMM_LEN],
}

/// A stack as the kernel took it: addresses.
#[derive(Clone, Debug, PartialEq)]
pub struct RawStack {
    /// Identity.
    pub id: StackId,
    /// Process that the addresses belong to; `None` for a kernel stack.
    pub pid: Option<u32>,
    /// Why it ends.
    pub end: End,
    /// Code without unwind information was crossed by its frame pointer.
    pub guessed: bool,
    /// Addresses, leaf first.
    pub frames: Vec<u64>,
}

impl RawWait {
    /// From what crosses the kernel boundary.
    pub(super) fn new(tid: u32, pid: u32, wait: &Wait, comm: [u8; COMM_LEN]) -> Self {
        let Wait { user_stack, kernel_stack, waker, sum: Sum { last_ns, total_ns, count, state } } = *wait;
        let Waker { tgid, tid: waker_tid, user_stack: waker_user, kernel_stack: waker_kernel, comm: waker_comm } =
            waker;
        // An idle CPU has a stack, though no thread.
        let is_known = waker_tid != 0 || waker_kernel != StackId::NONE;
        Self {
            time_ns: last_ns,
            pid,
            tid,
            state: ThreadState::waiting(state),
            count: count.into(),
            total_ns,
            user_stack,
            kernel_stack,
            waker: is_known.then_some(RawWaker {
                pid: tgid,
                user_stack: waker_user,
                kernel_stack: waker_kernel,
                comm: waker_comm,
            }),
            comm,
        }
    }
}

/// A thread's name as text: what is before the zero, sanitized.
pub fn thread_name(comm: &[u8]) -> String {
    sanitize(&String::from_utf8_lossy(until_zero(comm)))
}

impl Event {
    /// Reads one record of the ring buffer: its time (`CLOCK_MONOTONIC`, nanoseconds) and what happened. `None` when it is
    /// none of ours.
    pub fn decode(bytes: &[u8]) -> Option<(u64, Self)> {
        let mut reader = Reader(bytes);
        // The order of the reads is the order of the fields in `probe_ebpf::abi`.
        let event = match reader.u32()? {
            kind::SAMPLE => {
                let (cpu, time_ns) = (reader.u32()?, reader.u64()?);
                let (pid, tid, value) = (reader.u32()?, reader.u32()?, reader.u64()?);
                let (user_stack, kernel_stack) = (reader.stack_id()?, reader.stack_id()?);
                let comm = reader.array::<COMM_LEN>()?;
                (time_ns, Self::Sample(RawSample { time_ns, cpu, pid, tid, value, user_stack, kernel_stack, comm }))
            }
            kind::STACK => {
                let (count, time_ns, id) = (reader.u32()?, reader.u64()?, reader.stack_id()?);
                let (pid, _epoch, end, flags) = (reader.u32()?, reader.u32()?, reader.u32()?, reader.u32()?);
                let frames = reader.frames(count)?;
                let pid = (pid != 0).then_some(pid);
                let (end, guessed) = (End::from_u32(end), flags & stack_flags::GUESSED != 0);
                (time_ns, Self::Stack(RawStack { id, pid, end, guessed, frames }))
            }
            kind::WAIT => {
                let (state, last_ns, pid, tid) = (reader.u32()?, reader.u64()?, reader.u32()?, reader.u32()?);
                let (count, total_ns) = (reader.u64()?, reader.u64()?);
                let (user_stack, kernel_stack, waker) = (reader.stack_id()?, reader.stack_id()?, reader.waker()?);
                let count = u32::try_from(count).unwrap_or(u32::MAX);
                let wait = Wait { user_stack, kernel_stack, waker, sum: Sum { last_ns, total_ns, count, state } };
                (last_ns, Self::Wait(RawWait::new(tid, pid, &wait, reader.array()?)))
            }
            kind::CALL => {
                let (function, time_ns, since_ns) = (reader.u32()?, reader.u64()?, reader.u64()?);
                let (pid, tid, user_stack) = (reader.u32()?, reader.u32()?, reader.stack_id()?);
                let comm = reader.array()?;
                (time_ns, Self::Call(RawCall { function, since_ns, time_ns, pid, tid, user_stack, comm }))
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
                    memory_change::MOVED => MemoryChange::Moved { old_start, old_bytes },
                    _ => MemoryChange::Unmapped,
                };
                let memory = RawMemory { time_ns, pid, tid, change, start, bytes, count, user_stack, comm };
                (time_ns, Self::Memory(memory))
            }
            kind::ALLOCATION => {
                let (_cpu, time_ns, pid, tid) = (reader.u32()?, reader.u64()?, reader.u32()?, reader.u32()?);
                let (size, mean, user_stack) = (reader.u64()?, reader.u64()?, reader.stack_id()?);
                let comm = reader.array()?;
                (time_ns, Self::Allocation(RawAllocation { time_ns, pid, tid, size, mean, user_stack, comm }))
            }
            kind::EXEC => {
                let (pid, time_ns) = (reader.u32()?, reader.u64()?);
                let path = reader.array::<MAX_PATH>()?;
                (time_ns, Self::Exec { pid, path: OsString::from_vec(until_zero(&path).to_vec()) })
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

fn until_zero(bytes: &[u8]) -> &[u8] {
    bytes.split(|&b| b == 0).next().unwrap_or_default()
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
        use probe_ebpf::abi::{CallEvent, ExecEvent, ExitEvent, ForkEvent, MemoryEvent, SampleEvent, WaitEvent};
        for (kind, size) in [
            (kind::SAMPLE, size_of::<SampleEvent>()),
            (kind::WAIT, size_of::<WaitEvent>()),
            (kind::CALL, size_of::<CallEvent>()),
            (kind::MEMORY, size_of::<MemoryEvent>()),
            (kind::ALLOCATION, size_of::<probe_ebpf::heap::AllocationEvent>()),
            (kind::EXEC, size_of::<ExecEvent>()),
            (kind::FORK, size_of::<ForkEvent>()),
            (kind::EXIT, size_of::<ExitEvent>()),
        ] {
            let mut bytes = vec![0; size];
            bytes[..4].copy_from_slice(&kind.to_ne_bytes());
            assert!(Event::decode(&bytes).is_some(), "kind {kind} of {size} bytes");
        }
    }
}
