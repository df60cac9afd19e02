//! What rules ask of a process beside CPU time and memory, measured once a second; each source is read only if a rule asks
//! for something of it.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use super::bounds::Bounds;
use crate::monitor::Metric;
use crate::target::{OfGroups, ProcFiles, Stat, StorageBytes, Task, TaskFields};

/// How many looks at the states of threads are averaged.
const LOOKS: usize = 10;

/// A metric, and whether it is asked of single threads.
pub(super) type Asked = (Metric, bool);

/// The figures of a process.
#[derive(Clone, Debug, Default)]
pub(super) struct Figures {
    values: BTreeMap<Asked, f64>,
    storage: Option<StorageBytes>,
    threads: HashMap<u32, Task>,
    /// What of them was read the last time: nothing else can be compared with.
    fields: TaskFields,
    /// How many threads were blocked, at the latest looks.
    blocked: VecDeque<usize>,
}

/// What is known of a process and of the host already.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known<'a> {
    pub(super) bounds: &'a Bounds,
    pub(super) stat: &'a Stat,
    /// In percent of one core.
    pub(super) cpu_percent: Option<f64>,
    /// Of the host.
    pub(super) cpus: u32,
    /// Since the reading before.
    pub(super) elapsed: Duration,
}

impl Figures {
    /// Measures what is asked for of a process.
    pub(super) fn read(
        &mut self,
        files: &mut ProcFiles,
        known: Known<'_>,
        asked: &BTreeSet<Asked>,
        groups: &mut OfGroups,
    ) {
        if asked.is_empty() {
            *self = Self::default();
            return;
        }
        self.values.clear();
        let has = |metric: Metric| asked.contains(&(metric, false));
        let cpus = f64::from(known.cpus.max(1));
        let cores = known.bounds.cores.map_or(cpus, |cores| cores.min(cpus));
        self.put(Metric::Cpu, known.cpu_percent);
        self.put(Metric::CpuHost, known.cpu_percent.map(|percent| percent / cpus));
        self.put(Metric::CpuQuota, known.cpu_percent.map(|percent| percent / cores));
        self.put(Metric::Threads, Some(known.stat.threads as f64));
        if has(Metric::Fds) {
            self.put(Metric::Fds, files.open_files().map(|count| count as f64));
        }
        for (metric, resource) in
            [(Metric::PressureCpu, "cpu"), (Metric::PressureMemory, "memory"), (Metric::PressureIo, "io")]
        {
            if has(metric) {
                self.put(metric, groups.pressure(&known.bounds.groups, resource));
            }
        }
        if [Metric::Io, Metric::IoRead, Metric::IoWrite].into_iter().any(has) {
            self.add_storage(files.storage(), known.elapsed);
        } else {
            self.storage = None;
        }
        let wanted = of_tasks(asked);
        let has_wanted = wanted != TaskFields::default();
        let threads = if has_wanted { files.tasks(wanted, known.stat.threads) } else { Vec::new() };
        self.add_threads(&threads, wanted, known.elapsed, cpus);
    }

    /// The value of a metric, in its unit; `None` for what could not be measured.
    pub(super) fn value(&self, asked: Asked) -> Option<f64> {
        self.values.get(&asked).copied()
    }

    fn put(&mut self, metric: Metric, value: Option<f64>) {
        self.values.extend(value.map(|value| ((metric, false), value)));
    }

    fn add_storage(&mut self, now: Option<StorageBytes>, elapsed: Duration) {
        let before = std::mem::replace(&mut self.storage, now);
        let (Some(now), Some(before)) = (now, before) else { return };
        let a_second = |now: u64, before: u64| rate(now.saturating_sub(before), elapsed);
        let (read, written) = (a_second(now.read, before.read), a_second(now.written, before.written));
        self.put(Metric::IoRead, Some(read));
        self.put(Metric::IoWrite, Some(written));
        self.put(Metric::Io, Some(read + written));
    }

    fn add_threads(&mut self, threads: &[Task], wanted: TaskFields, elapsed: Duration, cpus: f64) {
        let before = std::mem::take(&mut self.threads);
        let had = std::mem::replace(&mut self.fields, wanted);
        self.threads.extend(threads.iter().map(|task| (task.tid, *task)));
        if wanted.blocked {
            self.blocked.push_back(threads.iter().filter(|task| task.is_blocked).count());
            while self.blocked.len() > LOOKS {
                self.blocked.pop_front();
            }
        } else {
            self.blocked.clear();
        }
        // A thread that is new has all of its past since the last look.
        let since = |task: &Task, of: fn(&Task) -> u64| of(task).saturating_sub(before.get(&task.tid).map_or(0, of));
        let sum = |of: fn(&Task) -> u64| threads.iter().map(|task| since(task, of)).sum();
        let highest = |of: fn(&Task) -> u64| threads.iter().map(|task| since(task, of)).max().unwrap_or(0);
        let percent = |nanoseconds| rate(nanoseconds, elapsed) / 1e7;
        if wanted.schedule && had.schedule {
            let (queued, hottest) = (percent(sum(|task| task.queued_ns)), percent(highest(|task| task.run_ns)));
            self.put(Metric::OffCpuRunqueue, Some(queued));
            self.values.extend([
                ((Metric::Cpu, true), hottest),
                ((Metric::CpuHost, true), hottest / cpus),
                ((Metric::OffCpuRunqueue, true), percent(highest(|task| task.queued_ns))),
            ]);
        }
        if wanted.blocked && had.blocked {
            let blocked = 100.0 * self.blocked.iter().sum::<usize>() as f64 / self.blocked.len() as f64;
            self.put(Metric::OffCpuIo, Some(blocked));
            self.put(Metric::OffCpu, self.value((Metric::OffCpuRunqueue, false)).map(|queued| queued + blocked));
        }
        if wanted.switches && had.switches {
            self.put(Metric::SwitchesVoluntary, Some(rate(sum(|task| task.voluntary), elapsed)));
            self.put(Metric::SwitchesInvoluntary, Some(rate(sum(|task| task.involuntary), elapsed)));
        }
    }
}

/// What is to be read of threads.
fn of_tasks(asked: &BTreeSet<Asked>) -> TaskFields {
    let mut wanted = TaskFields::default();
    for (metric, is_of_threads) in asked {
        match metric {
            Metric::OffCpu => (wanted.schedule, wanted.blocked) = (true, true),
            Metric::OffCpuIo => wanted.blocked = true,
            Metric::OffCpuRunqueue => wanted.schedule = true,
            Metric::SwitchesVoluntary | Metric::SwitchesInvoluntary => wanted.switches = true,
            _ => wanted.schedule |= is_of_threads,
        }
    }
    wanted
}

/// By the second.
fn rate(count: u64, elapsed: Duration) -> f64 {
    count as f64 / elapsed.as_secs_f64().max(1e-9)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn known<'a>(stat: &'a Stat, bounds: &'a Bounds) -> Known<'a> {
        Known { bounds, stat, cpu_percent: Some(150.0), cpus: 4, elapsed: SECOND }
    }

    #[test]
    fn this_process_is_measured_as_far_as_asked() {
        let pid = std::process::id();
        let stat = Stat::read(pid).expect("alive");
        let mut figures = Figures::default();
        let asked: BTreeSet<Asked> = Metric::ALL.iter().map(|metric| (*metric, false)).collect();
        let (mut files, mut bounds, mut groups) = (ProcFiles::of(pid), Bounds::default(), OfGroups::now());
        bounds.read(pid, &asked, &mut groups);
        let known = known(&stat, &bounds);
        figures.read(&mut files, known, &asked, &mut groups);
        assert_eq!(figures.value((Metric::Cpu, false)), Some(150.0));
        assert_eq!(figures.value((Metric::CpuHost, false)), Some(37.5));
        assert!(figures.value((Metric::CpuQuota, false)) >= Some(37.5));
        assert!(figures.value((Metric::Fds, false)) >= Some(3.0));
        assert!(figures.value((Metric::Threads, false)) >= Some(1.0));
        assert_eq!(figures.value((Metric::Io, false)), None, "one reading is no rate");
        figures.read(&mut files, known, &asked, &mut groups);
        let rates = [Metric::Io, Metric::OffCpu, Metric::OffCpuIo, Metric::SwitchesVoluntary];
        assert!(rates.iter().all(|metric| figures.value((*metric, false)).is_some()), "{figures:?}");
        figures.read(&mut files, known, &BTreeSet::new(), &mut groups);
        assert_eq!(figures.value((Metric::Cpu, false)), None);
    }

    #[test]
    fn what_is_asked_for_anew_has_nothing_to_be_compared_with() {
        let task = |run_ns, voluntary| Task { tid: 1, run_ns, voluntary, is_blocked: true, ..Task::default() };
        let blocked = TaskFields { blocked: true, ..TaskFields::default() };
        let all = TaskFields { schedule: true, blocked: true, switches: true };
        let mut figures = Figures::default();
        figures.add_threads(&[task(0, 0)], blocked, SECOND, 2.0);
        // Hours of a thread's life, of which nothing was read before.
        figures.add_threads(&[task(7_200_000_000_000, 1_000_000)], all, SECOND, 2.0);
        assert_eq!(figures.value((Metric::OffCpuIo, false)), Some(100.0));
        for asked in [(Metric::Cpu, true), (Metric::OffCpuRunqueue, false), (Metric::SwitchesVoluntary, false)] {
            assert_eq!(figures.value(asked), None, "{asked:?}");
        }
        figures.add_threads(&[task(7_200_500_000_000, 1_000_003)], all, SECOND, 2.0);
        let seen = [(Metric::Cpu, true), (Metric::SwitchesVoluntary, false)].map(|asked| figures.value(asked));
        assert_eq!(seen, [Some(50.0), Some(3.0)]);
        // Not asked for, and asked for again: that is a long time.
        figures.add_threads(&[], TaskFields::default(), SECOND, 2.0);
        figures.values.clear();
        figures.add_threads(&[task(9_000_000_000_000, 2_000_000)], all, SECOND, 2.0);
        assert_eq!(figures.value((Metric::Cpu, true)), None);
    }

    #[test]
    fn threads_are_added_up_or_the_hottest_counts() {
        let mut figures = Figures::default();
        let all = TaskFields { schedule: true, blocked: true, switches: true };
        let task = |tid, run_ns, queued_ns, is_blocked, voluntary| Task {
            tid,
            run_ns,
            queued_ns,
            is_blocked,
            voluntary,
            involuntary: 2 * voluntary,
        };
        figures.add_threads(&[task(1, 0, 0, false, 0), task(2, 500_000_000, 0, true, 10)], all, SECOND, 2.0);
        assert_eq!(figures.value((Metric::OffCpu, false)), None);
        let now = [
            task(1, 400_000_000, 100_000_000, true, 5),
            task(2, 1_400_000_000, 50_000_000, true, 20),
            // New.
            task(3, 100_000_000, 0, false, 1),
        ];
        figures.add_threads(&now, all, SECOND, 2.0);
        for (asked, expected) in [
            ((Metric::Cpu, true), 90.0),
            ((Metric::CpuHost, true), 45.0),
            ((Metric::OffCpuRunqueue, true), 10.0),
            ((Metric::OffCpuRunqueue, false), 15.0),
            ((Metric::OffCpuIo, false), 150.0),
            ((Metric::OffCpu, false), 165.0),
            ((Metric::SwitchesVoluntary, false), 16.0),
            ((Metric::SwitchesInvoluntary, false), 32.0),
        ] {
            let value = figures.value(asked).expect("measured");
            assert!((value - expected).abs() < 1e-6, "{asked:?}: {value}");
        }
    }
}
