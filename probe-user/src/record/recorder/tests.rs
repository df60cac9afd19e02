//! What the flight recorder keeps, drops and cuts out.

use super::*;
use crate::kernel::{End, RawWaker};
use crate::target::{Mapping, ThreadState};

const SECOND: u64 = 1_000_000_000;

fn recorder(window_ns: u64, memory: usize) -> Recorder {
    Recorder::new(Retention { window_ns, memory }, 0)
}

fn id(lo: u64) -> StackId {
    StackId { lo, hi: 7 }
}

fn sample(time_ns: u64, tid: u32, stack: u64) -> Event {
    let mut comm = [0; 16];
    comm[..3].copy_from_slice(b"abc");
    let (user_stack, kernel_stack) = (id(stack), StackId::NONE);
    // Above any real process id, so that /proc has nothing to say.
    Event::Sample(RawSample {
        time_ns,
        cpu: 0,
        pid: u32::MAX,
        tid,
        goroutine: 0,
        value: 1,
        user_stack,
        kernel_stack,
        comm,
    })
}

fn stack(stack: u64, depth: u64) -> Event {
    let frames = (0..depth).map(|i| 0x1000 + i).collect();
    Event::Stack(RawStack {
        id: id(stack),
        time_ns: 0,
        pid: Some(u32::MAX),
        end: End::Root,
        guessed: false,
        derived: false,
        frames,
    })
}

#[test]
fn a_stretch_is_cut_out_with_all_it_refers_to() {
    let mut recorder = recorder(60 * SECOND, 1 << 20);
    for second in 0..10 {
        recorder.handle(sample(second * SECOND, 1, second), second * SECOND);
        recorder.handle(stack(second, 3), second * SECOND);
    }
    let recording = recorder.extract(&[u32::MAX], 3 * SECOND, 6 * SECOND);
    let times: Vec<u64> = recording.samples.iter().map(|s| s.time_ns / SECOND).collect();
    assert_eq!(times, [3, 4, 5]);
    assert_eq!(recording.stacks.len(), 3);
    assert_eq!(recording.threads[&(u32::MAX, 1)].name, "abc");
    assert!(recorder.extract(&[5], 0, u64::MAX).samples.is_empty(), "another process has none");
}

#[test]
fn old_windows_leave_and_take_their_stacks_with_them() {
    let mut recorder = recorder(3 * SECOND, 1 << 20);
    let mut forgotten = Vec::new();
    for second in 0..10 {
        recorder.handle(stack(second, 3), second * SECOND);
        recorder.handle(sample(second * SECOND, second as u32, second), second * SECOND);
        recorder.trim(second * SECOND, |id| forgotten.push(id.lo));
    }
    let recording = recorder.extract(&[], 0, u64::MAX);
    assert_eq!(recording.samples.len(), 5, "3 s and the windows they touch");
    assert_eq!(forgotten, [0, 1, 2, 3, 4]);
    assert_eq!(recorder.processes.threads.len(), 5);
}

#[test]
fn samples_that_arrive_late_are_put_where_they_belong() {
    let mut recorder = recorder(60 * SECOND, 1 << 20);
    for time in [5 * SECOND, 6 * SECOND, 5 * SECOND + 1, 4 * SECOND] {
        recorder.handle(sample(time, 1, 1), time);
    }
    let starts: Vec<u64> = recorder.windows.0.iter().map(|w| w.start_ns / SECOND).collect();
    assert_eq!(starts, [4, 5, 6]);
    assert_eq!(recorder.windows.0[1].samples.len(), 2);
}

#[test]
fn other_code_at_the_same_addresses_makes_other_stacks() {
    let mut recorder = recorder(60 * SECOND, 1 << 20);
    let map = |inode: u64, time_ns: u64| {
        let path = format!("/nowhere/{inode}");
        let mapping = Mapping { start: 0x1000, end: 0x2000, inode, path, ..Mapping::default() };
        Event::Map { pid: u32::MAX, time_ns, mapping }
    };
    recorder.handle(sample(SECOND, 1, 9), SECOND);
    recorder.handle(map(1, SECOND), SECOND);
    recorder.handle(stack(7, 3), SECOND);
    recorder.handle(sample(SECOND, 1, 7), SECOND);
    recorder.handle(map(2, 2 * SECOND), 2 * SECOND);
    assert_eq!(recorder.take_forgotten(), [id(7)]);
    recorder.processes.told(u32::MAX, 2 * SECOND);
    // The kernel did not send it again yet; then it does, and what it waited before arrives late.
    recorder.handle(sample(2 * SECOND, 1, 7), 2 * SECOND);
    let mut again = stack(7, 5);
    if let Event::Stack(raw) = &mut again {
        raw.time_ns = 3 * SECOND;
    }
    recorder.handle(again, 3 * SECOND);
    recorder.handle(sample(2 * SECOND - 1, 1, 7), 3 * SECOND);
    let recording = recorder.extract(&[], 0, u64::MAX);
    let mut seen: Vec<(u64, usize, &str)> = Vec::new();
    for sample in recording.samples.iter().filter(|sample| recording.stacks.contains_key(&sample.user.unwrap())) {
        let frames = &recording.stacks[&sample.user.unwrap()].frames;
        seen.push((sample.time_ns, frames.len(), &frames[0].module.as_ref().unwrap().path));
    }
    seen.sort();
    let (old, new) = ("/nowhere/1", "/nowhere/2");
    assert_eq!(seen, [(SECOND, 3, old), (2 * SECOND - 1, 3, old), (2 * SECOND, 5, new)]);
}

#[test]
fn a_stack_that_was_walked_by_the_table_of_other_code_is_cut_and_taken_again() {
    let mut recorder = recorder(60 * SECOND, 1 << 20);
    let map = |inode: u64| {
        let path = format!("/nowhere/{inode}");
        let mapping = Mapping { start: 0x1000, end: 0x2000, inode, path, ..Mapping::default() };
        Event::Map { pid: u32::MAX, time_ns: SECOND, mapping }
    };
    recorder.handle(sample(SECOND, 1, 9), SECOND);
    recorder.handle(map(1), SECOND);
    recorder.handle(map(2), SECOND);
    recorder.handle(stack(7, 3), SECOND);
    recorder.handle(sample(SECOND, 1, 7), SECOND);
    assert_eq!(recorder.take_forgotten(), [id(7)]);
    recorder.processes.told(u32::MAX, SECOND);
    let mut again = stack(7, 3);
    if let Event::Stack(raw) = &mut again {
        raw.time_ns = 2 * SECOND;
    }
    recorder.handle(again, 2 * SECOND);
    recorder.handle(sample(2 * SECOND, 1, 7), 2 * SECOND);
    let recording = recorder.extract(&[], 0, u64::MAX);
    let of = |time_ns| {
        recording.samples.iter().find(|s| s.time_ns == time_ns && recording.stacks.contains_key(&s.user.unwrap()))
    };
    let end = |time_ns| {
        let stack = &recording.stacks[&of(time_ns).unwrap().user.unwrap()];
        (stack.frames.len(), stack.end)
    };
    assert_eq!((end(SECOND), end(2 * SECOND)), ((1, End::NewCode), (3, End::Root)));
}

#[test]
fn processes_without_samples_are_forgotten_when_they_end() {
    let mut recorder = recorder(u64::MAX, 1 << 20);
    recorder.processes.follow_strangers();
    recorder.handle(sample(SECOND, 1, 7), SECOND);
    for child in 1..1000 {
        recorder.handle(Event::Fork { parent: 0, child: u32::MAX - child }, SECOND);
        recorder.handle(Event::Exit { pid: u32::MAX - child }, SECOND);
    }
    recorder.trim(SECOND, |_| {});
    assert_eq!(recorder.processes.tracked.len(), 1);
}

#[test]
fn losses_belong_to_their_window() {
    let mut recorder = recorder(60 * SECOND, 1 << 20);
    recorder.lose(3 * SECOND, [("full".to_owned(), 2)]);
    recorder.lose(5 * SECOND, [("full".to_owned(), 3)]);
    let lost = |from, to| recorder.extract(&[], from * SECOND, to * SECOND).losses.get("full").copied();
    assert_eq!((lost(0, 4), lost(4, 9), lost(0, 9), lost(6, 9)), (Some(2), Some(3), Some(5), None));
}

#[test]
fn files_are_used_by_whatever_has_a_stack_in_them() {
    let mut recorder = recorder(60 * SECOND, 1 << 20);
    let (pid, tid, comm) = (std::process::id(), 1, [0; 16]);
    let own = files_are_used_by_whatever_has_a_stack_in_them as fn() as usize as u64;
    let frames = vec![own];
    recorder.handle(
        Event::Stack(RawStack {
            id: id(1),
            time_ns: 0,
            pid: Some(pid),
            end: End::Root,
            guessed: false,
            derived: false,
            frames,
        }),
        0,
    );
    let call =
        RawCall { function: 0, since_ns: 0, time_ns: 3 * SECOND, pid, tid, goroutine: 0, user_stack: id(1), comm };
    let waker = RawWaker { pid, user_stack: id(1), kernel_stack: StackId::NONE, comm };
    let wait = RawWait {
        time_ns: 5 * SECOND,
        pid,
        tid,
        state: ThreadState::Sleeping,
        count: 1,
        total_ns: 1,
        goroutine: 0,
        user_stack: StackId::NONE,
        kernel_stack: StackId::NONE,
        waker: Some(waker),
        comm,
    };
    assert!(recorder.module_use().is_empty());
    for (event, until_s) in [(Event::Call(call), 4), (Event::Wait(wait), 6)] {
        recorder.handle(event, 0);
        let used_ns: Vec<u64> = recorder.module_use().into_values().collect();
        assert_eq!(used_ns, [until_s * SECOND]);
    }
}

#[test]
fn memory_is_bounded_and_what_is_dropped_is_counted() {
    let mut recorder = recorder(u64::MAX, 256 << 10);
    for second in 0..100 {
        for stack_id in 0..100 {
            recorder.handle(stack(second * 100 + stack_id, 50), second * SECOND);
            recorder.handle(sample(second * SECOND + stack_id, 1, second * 100 + stack_id), second * SECOND);
        }
        recorder.trim(second * SECOND, |_| {});
    }
    // A stack stays for one more sweep after its last window, so the bound may be exceeded by two seconds' worth.
    assert!(recorder.bytes() < (256 << 10) + 2 * 100 * 50 * 24, "{} bytes", recorder.bytes());
    let kept = recorder.extract(&[], 0, u64::MAX);
    assert!(!kept.samples.is_empty());
    assert!(kept.losses["samples dropped: memory bound"] > 0);
}
