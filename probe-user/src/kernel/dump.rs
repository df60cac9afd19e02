//! Thread dumps: an iterator over the kernel's tasks, which reads the stacks of blocked threads while their process goes on
//! (kernel/bpf/task_iter.c). Nobody is stopped, signalled or traced.

use std::fs::File;
use std::io::Read as _;

use anyhow::{Context, Result, bail};
use aya::Ebpf;
use aya::maps::{Array, MapData};
use aya::programs::Iter;
use probe_ebpf::abi::{COMM_LEN, DumpRequest, MAX_KERNEL_FRAMES, StackId, stack_flags, thread_flags};
use probe_ebpf::unwind::End;

use super::attach;
use super::decode::Reader;
use super::event::RawStack;
use super::sampler::permission;
use crate::target::{ThreadState, monotonic_ns};

/// Dumps processes.
pub struct Dumper {
    request: Array<MapData, [u32; 2]>,
    is_loaded: bool,
}

/// A thread as the kernel sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct RawThread {
    /// Process.
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// Its name.
    pub comm: [u8; COMM_LEN],
    /// What it does.
    pub state: ThreadState,
    /// The same as the kernel's bits.
    pub state_bits: u32,
    /// Since when, `CLOCK_MONOTONIC`, nanoseconds; `None` where the kernel does not keep it.
    pub since_ns: Option<u64>,
    /// CPU time it has used in its life, in nanoseconds.
    pub cpu_ns: u64,
    /// Its user stack, unless it runs.
    pub user_stack: Option<RawStack>,
    /// Its kernel stack, unless it runs.
    pub kernel_stack: Option<RawStack>,
}

/// Whom to dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    /// One process.
    Process(u32),
    /// All processes that are watched.
    Targets,
}

impl Dumper {
    pub(super) fn new(request: Array<MapData, [u32; 2]>) -> Self {
        Self { request, is_loaded: false }
    }

    /// Has the kernel verify the program, once: that takes a tenth of a second or more, which nobody wants to wait for who
    /// asks what is so now.
    pub(super) fn load<'a>(&mut self, ebpf: &'a mut Ebpf) -> Result<&'a mut Iter> {
        let program: &mut Iter = ebpf.program_mut("dump").context("no program `dump`")?.try_into()?;
        if !self.is_loaded {
            program.load("task", &attach::types()?).map_err(|error| permission("load the thread dump", error))?;
            self.is_loaded = true;
        }
        Ok(program)
    }

    /// Every thread of a process now, or of all targets; `stacks` asks for those of the threads that do not run.
    pub(super) fn dump(&mut self, ebpf: &mut Ebpf, whom: Whom, stacks: bool) -> Result<Vec<RawThread>> {
        let program = self.load(ebpf)?;
        let tgid = if let Whom::Process(pid) = whom { pid } else { 0 };
        let DumpRequest { tgid, stacks } = DumpRequest { tgid, stacks: stacks.into() };
        self.request.set(0, [tgid, stacks], 0)?;
        let link = program.attach().map_err(|error| permission("make an iterator over threads", error))?;
        let mut file = program.take_link(link)?.into_file().context("cannot open an iterator over threads")?;
        // Having slept just before, this thread knows the scheduler's present: its own last arrival on a CPU.
        std::thread::sleep(std::time::Duration::from_nanos(1));
        let now_ns = monotonic_ns();
        let threads = read_all(&mut file, now_ns)?;
        let took_us = (monotonic_ns() - now_ns) / 1000;
        tracing::debug!(threads = threads.len(), took_us, "read all threads");
        Ok(threads)
    }
}

fn read_all(file: &mut File, now_ns: u64) -> Result<Vec<RawThread>> {
    let mut bytes = Vec::new();
    let mut piece = vec![0; 64 * 1024];
    loop {
        match file.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => bytes.extend_from_slice(&piece[..read]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("cannot read the threads from the kernel"),
        }
    }
    let mut reader = Reader(&bytes);
    let mut threads = Vec::new();
    let mut clock = Clock { now_ns, scheduler_ns: None };
    while !reader.0.is_empty() {
        match decode(&mut reader, &mut clock) {
            Some(thread) => threads.push(thread),
            None => bail!("a record of the thread dump is not understood"),
        }
    }
    Ok(threads)
}

/// Two names for one moment.
struct Clock {
    /// `CLOCK_MONOTONIC`.
    now_ns: u64,
    /// The scheduler's clock, once the first record has told it.
    scheduler_ns: Option<u64>,
}

impl Clock {
    fn monotonic(&self, scheduler_ns: u64) -> Option<u64> {
        let ago = self.scheduler_ns?.saturating_sub(scheduler_ns);
        (scheduler_ns > 0).then(|| self.now_ns.saturating_sub(ago))
    }
}

/// One record: `probe_ebpf::abi::ThreadRecord`, whose order of fields this is, and its frames.
fn decode(reader: &mut Reader<'_>, clock: &mut Clock) -> Option<RawThread> {
    let (pid, tid, state_bits, flags) = (reader.u32()?, reader.u32()?, reader.u32()?, reader.u32()?);
    let (cpu_ns, cpu_at_arrival_ns, arrival_ns) = (reader.u64()?, reader.u64()?, reader.u64()?);
    let (queued_ns, reader_arrival_ns) = (reader.u64()?, reader.u64()?);
    let (user_id, kernel_id) = (reader.stack_id()?, reader.stack_id()?);
    let (user_frames, kernel_frames) = (reader.u32()?, reader.u32()?);
    let (user_end, user_flags) = (reader.u32()?, reader.u32()?);
    let comm = reader.array()?;
    let (kernel_frames, user_frames) = (reader.frames(kernel_frames)?, reader.frames(user_frames)?);
    if reader_arrival_ns > 0 {
        clock.scheduler_ns.get_or_insert(reader_arrival_ns);
    }
    let state = match flags {
        _ if flags & thread_flags::EXITED != 0 => ThreadState::Dead,
        _ if flags & thread_flags::ON_CPU != 0 => ThreadState::Running,
        _ => ThreadState::waiting(state_bits),
    };
    let since = match state {
        ThreadState::Running => arrival_ns,
        ThreadState::Runnable if queued_ns > 0 => queued_ns,
        // It left the CPU when it had used what it has used since it came.
        _ if arrival_ns > 0 => arrival_ns + cpu_ns.saturating_sub(cpu_at_arrival_ns),
        _ => 0,
    };
    let kernel_end = if kernel_frames.len() >= MAX_KERNEL_FRAMES { End::TooDeep } else { End::Root };
    let time_ns = clock.now_ns;
    let stack = |id, pid, end, flags: u32, frames: Vec<u64>| {
        let (guessed, derived) = (flags & stack_flags::GUESSED != 0, flags & stack_flags::DERIVED != 0);
        (id != StackId::NONE).then_some(RawStack { id, time_ns, pid, end, guessed, derived, frames })
    };
    Some(RawThread {
        pid,
        tid,
        comm,
        state,
        state_bits,
        since_ns: clock.monotonic(since),
        cpu_ns,
        user_stack: stack(user_id, Some(pid), End::from_u32(user_end), user_flags, user_frames),
        kernel_stack: stack(kernel_id, None, kernel_end, 0, kernel_frames),
    })
}

#[cfg(test)]
mod tests {
    use probe_ebpf::abi::ThreadRecord;

    use super::*;

    fn bytes(record: &[u64], frames: &[u64]) -> Vec<u8> {
        let words = record.iter().chain(frames);
        words.flat_map(|word| word.to_ne_bytes()).collect()
    }

    /// Thread 8 of process 7, asleep: it came onto its CPU at 1,000, worked for 30, and the present is 5,000.
    fn record(flags: u64, queued: u64) -> Vec<u64> {
        let counts = [2 | 1 << 32, 0];
        let name = [u64::from_ne_bytes(*b"worker\0\0"), 0];
        [&[7 | 8 << 32, 1 | flags << 32, 530, 500, 1000, queued, 5000, 1, 2, 3, 4][..], &counts, &name].concat()
    }

    fn read(record: &[u64]) -> RawThread {
        let bytes = bytes(record, &[0xf1, 0x11, 0x12]);
        let mut clock = Clock { now_ns: 9000, scheduler_ns: None };
        decode(&mut Reader(&bytes), &mut clock).unwrap()
    }

    #[test]
    fn a_blocked_thread_has_stacks_and_a_time() {
        let thread = read(&record(0, 0));
        assert_eq!((thread.pid, thread.tid, thread.state, thread.cpu_ns), (7, 8, ThreadState::Sleeping, 530));
        assert_eq!(thread.since_ns, Some(9000 - (5000 - 1030)));
        assert_eq!(thread.kernel_stack.unwrap().frames, [0xf1]);
        let user = thread.user_stack.unwrap();
        assert_eq!((user.frames, user.end, user.pid), (vec![0x11, 0x12], End::Root, Some(7)));
    }

    #[test]
    fn a_running_thread_runs_since_it_came() {
        let thread = read(&record(u64::from(thread_flags::ON_CPU), 0));
        assert_eq!((thread.state, thread.since_ns), (ThreadState::Running, Some(9000 - 4000)));
    }

    #[test]
    fn sizes_agree_with_the_shared_definition() {
        assert_eq!(record(0, 0).len() * 8, size_of::<ThreadRecord>());
        let whole = bytes(&record(0, 0), &[0xf1, 0x11, 0x12]);
        for length in 0..whole.len() {
            let mut clock = Clock { now_ns: 0, scheduler_ns: None };
            assert_eq!(decode(&mut Reader(&whole[..length]), &mut clock), None, "{length}");
        }
    }
}
