//! What the collector takes of the host, and what it does about it: where it takes more than it may it samples less often
//! and remembers less, and it comes back when there is room. What is pending or firing has a budget of its own, and is
//! sampled at its rate until there is nothing else to save. Measured here; decided by [`Judge`], which is pure.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;

use rustix::time::{ClockId, clock_gettime};

use super::{Control, Scene};
use crate::config::{Limits, Sampling};
use crate::target::own_bytes;
use crate::text::mebibytes;

/// How often it is measured: what a shorter time says is chance.
const EVERY_NS: u64 = 10_000_000_000;
/// Over so many measurements processor time is averaged; a rate is not raised before there are so many.
const AVERAGED: usize = 6;
/// And it is not lowered before there are so many: one is chance, too.
const SURE: usize = 2;
/// It is not sampled less often than this: fewer samples tell nothing of a breach of seconds.
const FLOOR: u32 = 5;
/// The flight recorder keeps this much memory.
const LEAST_MEMORY: u64 = 8 << 20;
/// There is room for more below this share of the limits.
const ROOM: f64 = 0.4;

/// What the collector takes of the host.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Load {
    /// Processor time since the start, in seconds.
    pub(super) cpu_seconds: f64,
    /// Memory of kernel maps, in bytes.
    pub(super) map_bytes: u64,
    /// The rate of the sampling.
    pub(super) frequency: u32,
}

/// What is to change.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Change {
    Slower,
    Faster,
    /// It is as slow as it gets, and still too much.
    Exceeds,
}

/// How much is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Samples per second and CPU.
    pub frequency: u32,
    /// The same of processes of which a rule is pending, firing or recovering.
    pub pending_frequency: u32,
    /// Memory for the flight recorder, in bytes.
    pub memory: u64,
}

impl Pace {
    fn usual(sampling: Sampling) -> Self {
        let Sampling { frequency, pending_frequency, memory, .. } = sampling;
        Self { frequency, pending_frequency, memory }
    }
}

/// Decides from one measurement after the other.
#[derive(Debug)]
struct Judge {
    limits: Limits,
    usual: Pace,
    pace: Pace,
    /// Processor time that was taken, and that which it might have been.
    cpu: VecDeque<(f64, f64)>,
    /// That it exceeds its limits is said once.
    is_told: bool,
}

impl Judge {
    fn new(limits: Limits, usual: Pace) -> Self {
        Self { limits, usual, pace: usual, cpu: VecDeque::new(), is_told: false }
    }

    /// Takes the share of a core since the last time, the bytes of memory now, and whether there was an incident meanwhile,
    /// which has a budget of its own.
    fn judge(&mut self, cpu: f64, bytes: u64, is_incident: bool) -> Option<Change> {
        if self.cpu.len() == AVERAGED {
            self.cpu.pop_front();
        }
        let budget = self.limits.cpu + if is_incident { self.limits.incident_overhead } else { 0.0 };
        self.cpu.push_back((cpu, budget));
        let (cpu, budget) = self.cpu.iter().fold((0.0, 0.0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        let excess = bytes.saturating_sub(self.limits.memory);
        let is_busy = cpu > budget && self.cpu.len() >= SURE;
        if is_busy || excess > 0 {
            let before = self.pace;
            self.save(is_busy, excess, is_incident);
            if before != self.pace {
                self.cpu.clear();
                return Some(Change::Slower);
            }
            return (!std::mem::replace(&mut self.is_told, true)).then_some(Change::Exceeds);
        }
        self.is_told = false;
        let has_room = cpu < ROOM * budget && (bytes as f64) < (1.0 + ROOM) / 2.0 * self.limits.memory as f64;
        // Where nothing is sampled at it, it costs nothing, and the next incident begins with all of it.
        let is_spare = !is_incident && self.pace.pending_frequency != self.usual.pending_frequency;
        if is_spare || has_room && self.pace != self.usual && self.cpu.len() >= AVERAGED {
            self.restore(has_room && self.cpu.len() >= AVERAGED);
            self.cpu.clear();
            return Some(Change::Faster);
        }
        None
    }

    /// What is pending or firing is sampled less often when there is nothing else to save.
    fn save(&mut self, is_busy: bool, excess: u64, is_incident: bool) {
        let floor = FLOOR.min(self.usual.frequency);
        let Pace { frequency, pending_frequency, memory } = &mut self.pace;
        if *frequency > floor {
            *frequency = (*frequency / 2).max(floor);
        } else if is_busy && is_incident {
            *pending_frequency = (*pending_frequency / 2).max(floor);
        }
        if excess > 0 {
            *memory = memory.saturating_sub(excess).max(LEAST_MEMORY.min(self.usual.memory));
        }
    }

    /// What was saved last comes back first.
    fn restore(&mut self, has_room: bool) {
        let (usual, pace) = (self.usual, &mut self.pace);
        if pace.pending_frequency != usual.pending_frequency {
            pace.pending_frequency = usual.pending_frequency;
        } else if has_room {
            pace.frequency = (2 * pace.frequency).min(usual.frequency);
            pace.memory = (2 * pace.memory).min(usual.memory);
        }
    }
}

/// Looks at the collector from time to time.
#[derive(Debug)]
pub(super) struct Watch {
    judge: Judge,
    measured: Option<(u64, f64)>,
    /// There was an incident since.
    had_incident: bool,
    /// Memory of kernel maps, and after how many looks it is asked for again.
    maps: (u64, u32),
}

impl Watch {
    /// Within these limits, of what samples like this.
    pub(super) fn new(limits: Limits, usual: Sampling) -> Self {
        Self { judge: Judge::new(limits, Pace::usual(usual)), measured: None, had_incident: false, maps: (0, 0) }
    }

    /// Other limits from now on.
    pub(super) fn replace(&mut self, limits: Limits) {
        if self.judge.limits != limits {
            let Judge { usual, pace, .. } = self.judge;
            self.judge = Judge { pace, ..Judge::new(limits, usual) };
        }
    }

    /// Measures if it is time to, and has the scene do less or more. `is_incident` where a rule is pending, firing or
    /// recovering, or evidence is collected.
    pub(super) fn look(&mut self, now_ns: u64, is_incident: bool, scene: &dyn Scene, control: &Control) {
        self.had_incident |= is_incident;
        if self.measured.is_some_and(|(at, _)| now_ns.saturating_sub(at) < EVERY_NS) {
            return;
        }
        let cpu_seconds = cpu_seconds();
        self.maps = match self.maps {
            (_, 0) => (map_bytes(), MAPS_EVERY - 1),
            (bytes, looks) => (bytes, looks - 1),
        };
        let map_bytes = self.maps.0 + scene.stats().map_or(0, |stats| stats.table_bytes as u64);
        let had_incident = std::mem::replace(&mut self.had_incident, is_incident);
        if let Some((at, before)) = self.measured.replace((now_ns, cpu_seconds)) {
            let cpu = (cpu_seconds - before) / (now_ns.saturating_sub(at).max(1) as f64 / 1e9);
            let bytes = map_bytes + own_bytes().unwrap_or_default();
            if let Some(change) = self.judge.judge(cpu, bytes, had_incident) {
                self.apply(change, cpu, bytes, had_incident, scene);
            }
        }
        control.set_load(Load { cpu_seconds, map_bytes, frequency: self.judge.pace.frequency });
    }

    fn apply(&self, change: Change, cpu: f64, bytes: u64, had_incident: bool, scene: &dyn Scene) {
        let Judge { limits, pace, .. } = &self.judge;
        let Pace { frequency, pending_frequency, memory } = *pace;
        let may = limits.cpu + if had_incident { limits.incident_overhead } else { 0.0 };
        let takes = format!(
            "the collector takes {:.1} % of a core and {}, of {:.1} % and {} that it may",
            100.0 * cpu,
            mebibytes(bytes),
            100.0 * may,
            mebibytes(limits.memory),
        );
        let does = format!(
            "it samples at {frequency} Hz, where a rule is pending or firing at {pending_frequency} Hz, and remembers {}",
            mebibytes(memory)
        );
        match change {
            Change::Slower => tracing::warn!("{takes}: {does} from now on"),
            Change::Faster => tracing::info!("{takes}: {does} again"),
            Change::Exceeds => {
                tracing::error!("{takes}, and can do no less; watch fewer processes, or raise [limits]");
                return;
            }
        }
        if let Err(error) = scene.pace(*pace) {
            tracing::error!("the rate of the sampling stays: {error:#}");
        }
    }
}

/// Processor time of this process since its start.
fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Memory of kernel maps is asked for at one in so many looks: all descriptors have to be gone through, and it changes little.
const MAPS_EVERY: u32 = 6;

/// What a descriptor of a kernel map is open on.
const MAP: &str = "anon_inode:bpf-map";

/// Memory of the kernel maps that this process has open.
fn map_bytes() -> u64 {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return 0 };
    // What a descriptor is open on is told for a fraction of what it costs to have it described.
    let maps =
        entries.flatten().filter(|entry| std::fs::read_link(entry.path()).is_ok_and(|file| file == Path::new(MAP)));
    let texts =
        maps.filter_map(|map| std::fs::read_to_string(Path::new("/proc/self/fdinfo").join(map.file_name())).ok());
    // By the number of the map: one may be open several times.
    texts.filter_map(|text| map_of(&text)).collect::<BTreeMap<u64, u64>>().values().sum()
}

/// Number and bytes of a map, from what is said of its descriptor.
fn map_of(text: &str) -> Option<(u64, u64)> {
    let number = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse::<u64>().ok());
    Some((number("map_id:")?, number("memlock:")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn judge() -> Judge {
        let usual = Pace { frequency: 19, pending_frequency: 99, memory: 64 * MIB };
        Judge::new(Limits { cpu: 0.02, incident_overhead: 0.05, memory: 150 * MIB }, usual)
    }

    fn rates(judge: &Judge) -> (u32, u32) {
        (judge.pace.frequency, judge.pace.pending_frequency)
    }

    #[test]
    fn too_much_processor_time_lowers_the_rate_down_to_the_floor() {
        let mut judge = judge();
        let changes: Vec<_> = (0..7).map(|_| judge.judge(0.05, 100 * MIB, false)).collect();
        let slower = Some(Change::Slower);
        assert_eq!(changes, [None, slower, None, slower, None, Some(Change::Exceeds), None]);
        assert_eq!((rates(&judge), judge.pace.memory), ((FLOOR, 99), 64 * MIB));
    }

    #[test]
    fn an_incident_has_a_budget_of_its_own() {
        let mut judge = judge();
        assert_eq!((0..20).find_map(|_| judge.judge(0.065, 0, true)), None);
        assert_eq!(rates(&judge), (19, 99));
        // What it took is no reason to save when it is over.
        assert_eq!((0..20).find_map(|_| judge.judge(0.015, 0, false)), None);
        assert_eq!(rates(&judge), (19, 99));
        assert_eq!(
            (0..2).find_map(|_| judge.judge(0.065, 0, false)),
            Some(Change::Slower),
            "without one it is too much"
        );
    }

    #[test]
    fn what_is_firing_is_sampled_less_often_when_nothing_else_is_left() {
        let mut judge = judge();
        let mut seen = vec![rates(&judge)];
        for _ in 0..20 {
            judge.judge(0.2, 0, true);
            if seen.last() != Some(&rates(&judge)) {
                seen.push(rates(&judge));
            }
        }
        assert_eq!(seen, [(19, 99), (9, 99), (5, 99), (5, 49), (5, 24), (5, 12), (5, 6), (5, 5)]);
        // With room in the incident it is the first to come back, and the next one begins with all of it.
        assert_eq!((0..7).find_map(|_| judge.judge(0.01, 0, true)), Some(Change::Faster));
        assert_eq!(rates(&judge), (5, 99));
        judge.pace.pending_frequency = 12;
        assert_eq!(judge.judge(0.015, 0, false), Some(Change::Faster));
        assert_eq!(rates(&judge), (5, 99));
    }

    #[test]
    fn memory_is_no_reason_to_look_away_from_what_is_firing() {
        let mut judge = judge();
        for _ in 0..20 {
            judge.judge(0.01, 400 * MIB, true);
        }
        assert_eq!((rates(&judge), judge.pace.memory), ((FLOOR, 99), LEAST_MEMORY));
    }

    #[test]
    fn one_busy_measurement_is_chance() {
        let mut judge = judge();
        assert_eq!(judge.judge(0.03, 0, false), None);
        assert_eq!((0..20).find_map(|_| judge.judge(0.005, 0, false)), None);
        assert_eq!(judge.judge(0.03, 0, false), None, "on average it is little");
    }

    #[test]
    fn too_much_memory_lowers_both() {
        let mut judge = judge();
        assert_eq!(judge.judge(0.001, 160 * MIB, false), Some(Change::Slower));
        assert_eq!((judge.pace.frequency, judge.pace.memory), (9, 54 * MIB));
        assert_eq!(judge.judge(0.001, 250 * MIB, false), Some(Change::Slower));
        assert_eq!((judge.pace.frequency, judge.pace.memory), (FLOOR, LEAST_MEMORY));
        assert_eq!(judge.judge(0.001, 250 * MIB, false), Some(Change::Exceeds));
    }

    #[test]
    fn it_comes_back_when_there_is_room() {
        let mut judge = judge();
        for _ in 0..4 {
            judge.judge(0.05, 160 * MIB, false);
        }
        let (frequency, memory) = (judge.pace.frequency, judge.pace.memory);
        assert!(frequency < 19 && memory < 64 * MIB);
        assert_eq!((0..20).find_map(|_| judge.judge(0.015, 90 * MIB, false)), None, "enough to do");
        let mut changes = 0;
        for _ in 0..40 {
            changes += usize::from(judge.judge(0.004, 90 * MIB, false) == Some(Change::Faster));
        }
        assert_eq!(judge.pace, judge.usual);
        assert!((2..5).contains(&changes), "step by step: {changes}");
    }

    #[test]
    fn maps_are_told_from_other_descriptors() {
        let text = "pos:\t0\nmap_type:\t2\nmemlock:\t4096\nmap_id:\t17\n";
        assert_eq!(map_of(text), Some((17, 4096)));
        assert_eq!(map_of("pos:\t0\nflags:\t02\n"), None);
        assert!(cpu_seconds() > 0.0);
    }
}
