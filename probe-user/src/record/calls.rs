//! Slow calls of timed functions: what their threads did meanwhile, and where they were called.

use std::collections::HashMap;

use super::recording::{Kind, Recording, SlowCall, Wait};
use crate::target::ThreadState;

impl Recording {
    /// What threads did while they were in slow calls, and nothing else. Waits are cut to the part of them that was within.
    pub fn inside_calls(mut self) -> Self {
        let mut calls: HashMap<(u32, u32), Vec<(u64, u64)>> = HashMap::new();
        for call in &self.calls {
            calls.entry((call.pid, call.tid)).or_default().push((call.since_ns, call.time_ns));
        }
        // A slow call may be within another one: time counts once.
        for calls in calls.values_mut() {
            calls.sort_unstable();
            calls.dedup_by(|next, last| {
                let overlaps = next.0 <= last.1;
                if overlaps {
                    last.1 = last.1.max(next.1);
                }
                overlaps
            });
        }
        // Those that may have to do with a stretch of time: from the last one that began before its end on, backwards.
        let within = |thread: (u32, u32), from_ns: u64, to_ns: u64| -> u64 {
            let Some(calls) = calls.get(&thread) else { return 0 };
            let end = calls.partition_point(|call| call.0 < to_ns);
            let overlap = |&(since, end): &(u64, u64)| end.min(to_ns).saturating_sub(since.max(from_ns));
            calls[..end].iter().rev().take_while(|call| call.1 > from_ns).map(overlap).sum()
        };
        self.samples.retain(|sample| within((sample.pid, sample.tid), sample.time_ns, sample.time_ns + 1) > 0);
        for wait in &mut self.waits {
            wait.total_ns = within((wait.pid, wait.tid), wait.time_ns.saturating_sub(wait.total_ns), wait.time_ns);
        }
        self.waits.retain(|wait| wait.total_ns > 0);
        self
    }

    /// The slow calls of a function, each as the time it took, with the stack that called it.
    pub fn calls_of(&self, function: u32) -> Self {
        let calls = self.calls.iter().filter(|call| call.function == function);
        let as_wait = |call: &SlowCall| Wait {
            time_ns: call.time_ns,
            pid: call.pid,
            tid: call.tid,
            state: ThreadState::Running,
            count: 1,
            total_ns: call.time_ns.saturating_sub(call.since_ns),
            user: call.stack,
            kernel: None,
            waker: None,
        };
        Self {
            kind: Kind::Calls,
            from_ns: self.from_ns,
            to_ns: self.to_ns,
            waits: calls.map(as_wait).collect(),
            stacks: self.stacks.clone(),
            threads: self.threads.clone(),
            processes: self.processes.clone(),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::recording::Sample;

    fn call(function: u32, tid: u32, since_ns: u64, time_ns: u64) -> SlowCall {
        SlowCall { function, since_ns, time_ns, pid: 1, tid, stack: None }
    }

    fn wait(tid: u32, time_ns: u64, total_ns: u64) -> Wait {
        let (state, waker) = (ThreadState::Running, None);
        Wait { time_ns, pid: 1, tid, state, count: 1, total_ns, user: None, kernel: None, waker }
    }

    #[test]
    fn only_what_is_inside_is_kept() {
        let sample = |tid, time_ns| Sample { time_ns, pid: 1, tid, user: None, kernel: None };
        let recording = Recording {
            calls: vec![call(0, 7, 100, 200), call(1, 7, 120, 180), call(0, 7, 300, 400), call(0, 8, 150, 160)],
            samples: [50, 100, 150, 199, 200, 350]
                .map(|time| sample(7, time))
                .into_iter()
                .chain([sample(9, 150)])
                .collect(),
            waits: vec![wait(7, 130, 80), wait(7, 280, 50), wait(7, 390, 300), wait(8, 300, 300), wait(9, 150, 10)],
            ..Recording::default()
        };
        let inside = recording.inside_calls();
        assert_eq!(inside.samples.iter().map(|s| s.time_ns).collect::<Vec<_>>(), [100, 150, 199, 350]);
        let waits: Vec<_> = inside.waits.iter().map(|w| (w.tid, w.time_ns, w.total_ns)).collect();
        assert_eq!(waits, [(7, 130, 30), (7, 390, 190), (8, 300, 10)]);
    }

    #[test]
    fn calls_are_told_apart_by_function() {
        let recording = Recording { calls: vec![call(0, 7, 100, 200), call(1, 7, 120, 180)], ..Recording::default() };
        let calls = recording.calls_of(1);
        assert_eq!(calls.waits.iter().map(|w| (w.time_ns, w.total_ns)).collect::<Vec<_>>(), [(180, 60)]);
    }
}
