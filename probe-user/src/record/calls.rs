//! Slow calls of timed functions: what their threads did meanwhile, and where they were called.

use std::collections::HashMap;

use super::recording::{Kind, Recording, SlowCall, Wait};
use super::stacks::Slot;
use crate::target::ThreadState;

/// Unseen time below this share of the calls' is what sampling leaves over.
const NOISE: f64 = 0.01;

/// Whose calls: process, and thread or goroutine.
type Whose = (u32, bool, u64);

fn whose(pid: u32, tid: u32, goroutine: u64) -> Whose {
    if goroutine == 0 { (pid, false, tid.into()) } else { (pid, true, goroutine) }
}

/// A time in slow calls.
#[derive(Clone, Copy)]
struct Stretch {
    since_ns: u64,
    end_ns: u64,
    /// The outermost of them.
    call: SlowCall,
}

/// When everybody was in slow calls: in the order of time, and nothing twice.
struct Stretches(HashMap<Whose, Vec<Stretch>>);

impl Stretches {
    fn of(calls: &[SlowCall]) -> Self {
        let mut all: HashMap<Whose, Vec<Stretch>> = HashMap::new();
        for &call in calls {
            let stretch = Stretch { since_ns: call.since_ns, end_ns: call.time_ns, call };
            all.entry(whose(call.pid, call.tid, call.goroutine)).or_default().push(stretch);
        }
        // A slow call may be within another one: time counts once.
        for stretches in all.values_mut() {
            stretches.sort_unstable_by_key(|stretch| (stretch.since_ns, std::cmp::Reverse(stretch.end_ns)));
            stretches.dedup_by(|next, last| {
                let overlaps = next.since_ns <= last.end_ns;
                if overlaps {
                    last.end_ns = last.end_ns.max(next.end_ns);
                }
                overlaps
            });
        }
        Self(all)
    }

    /// How much of a time is within, in nanoseconds.
    fn within(&self, whose: Whose, from_ns: u64, to_ns: u64) -> u64 {
        let Some(stretches) = self.0.get(&whose) else { return 0 };
        // Those that may have to do with it: from the last one that began before its end on, backwards.
        let end = stretches.partition_point(|stretch| stretch.since_ns < to_ns);
        let overlap = |stretch: &Stretch| stretch.end_ns.min(to_ns).saturating_sub(stretch.since_ns.max(from_ns));
        stretches[..end].iter().rev().take_while(|stretch| stretch.end_ns > from_ns).map(overlap).sum()
    }
}

impl Recording {
    /// What was done in slow calls, and nothing else: by the threads that were in them or, where a call is a goroutine's, by
    /// any thread that ran it, and where it waited. Waits are cut to the part of them that was within.
    pub fn inside_calls(mut self) -> Self {
        let stretches = Stretches::of(&self.calls);
        let goroutines = std::mem::take(&mut self.goroutines);
        let within = |pid: u32, tid: u32, at_ns: u64, from_ns: u64, to_ns: u64| {
            let of_thread = stretches.within(whose(pid, tid, 0), from_ns, to_ns);
            match goroutines.get(&(tid, at_ns)) {
                Some(&goroutine) => of_thread.max(stretches.within(whose(pid, tid, goroutine), from_ns, to_ns)),
                None => of_thread,
            }
        };
        self.samples.retain(|s| within(s.pid, s.tid, s.time_ns, s.time_ns, s.time_ns + 1) > 0);
        for wait in &mut self.waits {
            let since_ns = wait.time_ns.saturating_sub(wait.total_ns);
            wait.total_ns = within(wait.pid, wait.tid, wait.time_ns, since_ns, wait.time_ns);
        }
        self.waits.retain(|wait| wait.total_ns > 0);
        self.unseen = self.unseen(&stretches, &goroutines);
        self
    }

    /// The time of goroutines' calls that is neither in samples nor in waits: the goroutine was ready to run, and no thread
    /// had time for it; or it was parked, and the probes that see this were away. By the stack that called.
    fn unseen(&self, stretches: &Stretches, goroutines: &HashMap<(u32, u64), u64>) -> Vec<Wait> {
        let period_ns = 1_000_000_000u64.checked_div(self.frequency).unwrap_or(0);
        let samples = self.samples.iter().map(|sample| (sample.pid, sample.tid, sample.time_ns, period_ns));
        let waits = self.waits.iter().map(|wait| (wait.pid, wait.tid, wait.time_ns, wait.total_ns));
        // By whose call and when it began: what was seen of it.
        let mut seen: HashMap<(Whose, u64), u64> = HashMap::new();
        for (pid, tid, at_ns, seen_ns) in samples.chain(waits) {
            let Some(&goroutine) = goroutines.get(&(tid, at_ns)) else { continue };
            let whose = whose(pid, tid, goroutine);
            let Some(of_goroutine) = stretches.0.get(&whose) else { continue };
            let before = of_goroutine.partition_point(|stretch| stretch.since_ns <= at_ns);
            if let Some(stretch) = before.checked_sub(1).map(|at| &of_goroutine[at]) {
                *seen.entry((whose, stretch.since_ns)).or_default() += seen_ns;
            }
        }
        // A sample stands for more or less than its period: only sums of many calls tell.
        let mut sums: HashMap<(u32, Option<Slot>), (Wait, i128, u64)> = HashMap::new();
        for (whose, stretch) in stretches.0.iter().flat_map(|(whose, all)| all.iter().map(move |one| (*whose, one))) {
            let call = &stretch.call;
            if call.goroutine == 0 {
                continue;
            }
            let took_ns = stretch.end_ns - stretch.since_ns;
            let (_, unseen_ns, all_ns) =
                sums.entry((call.pid, call.stack)).or_insert_with(|| (Wait { count: 0, ..as_wait(call) }, 0, 0));
            *unseen_ns += i128::from(took_ns) - i128::from(seen.get(&(whose, stretch.since_ns)).copied().unwrap_or(0));
            *all_ns += took_ns;
        }
        let is_more = |unseen_ns: u64, all_ns: u64| unseen_ns > period_ns && unseen_ns as f64 > NOISE * all_ns as f64;
        let sums = sums.into_values().filter_map(|(wait, unseen_ns, all_ns)| {
            let total_ns = u64::try_from(unseen_ns).ok().filter(|unseen_ns| is_more(*unseen_ns, all_ns))?;
            Some(Wait { total_ns, count: 1, state: ThreadState::Runnable, ..wait })
        });
        sums.collect()
    }

    /// The slow calls of a function, each as the time it took, with the stack that called it. It may have a number in each of
    /// several processes.
    pub fn calls_of(&self, functions: &[u32]) -> Self {
        let calls = self.calls.iter().filter(|call| functions.contains(&call.function));
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

/// A call as the time it took.
fn as_wait(call: &SlowCall) -> Wait {
    Wait {
        time_ns: call.time_ns,
        pid: call.pid,
        tid: call.tid,
        state: ThreadState::Running,
        count: 1,
        total_ns: call.time_ns.saturating_sub(call.since_ns),
        user: call.stack,
        kernel: None,
        waker: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::recording::Sample;

    fn call(function: u32, tid: u32, since_ns: u64, time_ns: u64) -> SlowCall {
        SlowCall { function, since_ns, time_ns, pid: 1, tid, goroutine: 0, stack: None }
    }

    fn wait(tid: u32, time_ns: u64, total_ns: u64) -> Wait {
        let (state, waker) = (ThreadState::Running, None);
        Wait { time_ns, pid: 1, tid, state, count: 1, total_ns, user: None, kernel: None, waker }
    }

    #[test]
    fn only_what_is_inside_is_kept() {
        let sample = |tid, time_ns| Sample { time_ns, pid: 1, tid, user: None, kernel: None, period_ns: 1 };
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
    fn calls_of_goroutines_have_what_the_goroutines_did() {
        const MS: u64 = 1_000_000;
        let sample = |tid, at| Sample { time_ns: at * MS, pid: 1, tid, user: None, kernel: None, period_ns: 1 };
        let call = |goroutine, since, at| SlowCall { goroutine, stack: Some(4), ..call(0, 7, since * MS, at * MS) };
        let recording = Recording {
            frequency: 500,
            calls: vec![call(0xa, 100, 200), call(0xb, 100, 110)],
            // The goroutine goes on in another thread, and its first one runs others meanwhile.
            samples: [(7, 101), (7, 102), (7, 150), (8, 180), (8, 190), (8, 205)].map(|(t, at)| sample(t, at)).to_vec(),
            waits: vec![wait(8, 170 * MS, 60 * MS), wait(7, 160 * MS, 20 * MS)],
            goroutines: [(7, 101, 0xa), (7, 102, 0xb), (8, 180, 0xa), (8, 190, 0xc), (8, 205, 0xa), (8, 170, 0xa)]
                .map(|(tid, at, goroutine)| ((tid, at * MS), goroutine))
                .into(),
            ..Recording::default()
        };
        let inside = recording.inside_calls();
        let samples: Vec<_> = inside.samples.iter().map(|s| (s.tid, s.time_ns / MS)).collect();
        assert_eq!(samples, [(7, 101), (7, 102), (8, 180)]);
        assert_eq!(inside.waits.iter().map(|w| (w.tid, w.total_ns / MS)).collect::<Vec<_>>(), [(8, 60)]);
        // 110 ms of calls, less 60 of a wait and three samples of two.
        let unseen: Vec<_> = inside.unseen.iter().map(|w| (w.user, w.total_ns / MS, w.state)).collect();
        assert_eq!(unseen, [(Some(4), 44, ThreadState::Runnable)]);
    }

    #[test]
    fn calls_are_told_apart_by_function() {
        let recording = Recording { calls: vec![call(0, 7, 100, 200), call(1, 7, 120, 180)], ..Recording::default() };
        let calls = recording.calls_of(&[1]);
        assert_eq!(calls.waits.iter().map(|w| (w.time_ns, w.total_ns)).collect::<Vec<_>>(), [(180, 60)]);
    }
}
