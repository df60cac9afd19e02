//! What is still in use of what was allocated, where probes are set for a part of the time only: an estimate as survival
//! analysis makes it, because what is freed while nobody looks is not seen to be.
//!
//! Sampled allocations of one stack are a cohort. Three things are known of it:
//!
//! - From its allocation to the end of that window an object is seen all the time. Deaths over those at risk, by age (the
//!   actuarial form of Kaplan and Meier's estimator), say how many live on; the end of the window censors.
//! - At greater ages it is seen in the windows that follow, by chance. Whether it was alive at their beginning is unknown, but
//!   each death that falls into one stands for those of the same age that fell between them: the density of deaths is their
//!   number over the time in which objects of that age would have been seen, dead or not (occurrence and exposure).
//! - Its end may be noticed later, because its address is handed out again. Not more can be alive than have not been noticed.
//!
//! Ages are told apart by quarters of an octave. A cohort of few borrows from all: it gets one object that behaves like the
//! average one. The interval comes from leaving groups of windows out (the jackknife), and from the chance by which samples are
//! taken. Where probes are set all the time everything is known, and what is estimated is what was seen.

use crate::probes::Window;

/// A sampled allocation.
#[derive(Clone, Copy, Debug)]
pub struct Object {
    /// When it was made, `CLOCK_MONOTONIC`, nanoseconds.
    pub allocated_ns: u64,
    /// When it was noticed to be gone, and whether only because its address was handed out again.
    pub ended: Option<(u64, bool)>,
    /// Bytes for which the sample stands while probes are set,
    pub bytes: f64,
    /// and all of the time.
    pub scaled: f64,
    /// The chance by which it was sampled.
    pub chance: f64,
}

/// What is in use, in bytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Estimate {
    /// For each cohort and object, as they were given: the probability that it is alive; 0 for one that has ended.
    pub alive: Vec<Vec<f64>>,
    /// Bytes in use that were allocated until the time that was asked for,
    pub bytes: f64,
    /// and between which numbers that is, in 19 of 20 cases.
    pub interval: (f64, f64),
}

/// Four to an octave, from a microsecond to nine hours.
const BINS: usize = 140;
const PER_OCTAVE: f64 = 4.0;
const FIRST_NS: f64 = 1000.0;
/// Windows that say how long objects live: the last ones. What is older is judged by them.
const MAX_WINDOWS: usize = 2048;
/// Objects of a window are taken to be of the same age, as to the windows after it, if it is shorter than this.
const CELL_NS: u64 = 50_000_000;
/// Where so many of a cohort are seen without a gap up to an age, or this part of those seen at all, that is what counts.
const ENOUGH: f64 = 20.0;
const ENOUGH_OF_ALL: f64 = 0.5;
/// Groups of windows that are left out in turn.
const GROUPS: usize = 20;
/// Student's t for 95 %, by degrees of freedom from 1 on.
const STUDENT: [f64; 20] = [
    12.7, 4.3, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.2, 2.18, 2.16, 2.14, 2.13, 2.12, 2.11, 2.1, 2.09, 2.09,
];

fn bin(age_ns: u64) -> usize {
    let octaves = (age_ns as f64 / FIRST_NS).max(0.5).log2();
    ((octaves * PER_OCTAVE).floor() + 1.0).clamp(0.0, (BINS - 1) as f64) as usize
}

/// The least age of a bin.
fn edge(bin: usize) -> f64 {
    if bin == 0 { 0.0 } else { FIRST_NS * 2f64.powf((bin - 1) as f64 / PER_OCTAVE) }
}

/// Adds to each bin how much of it lies from one age to another.
fn cover(bins: &mut [f64; BINS], from_ns: u64, to_ns: u64, times: f64) {
    let (first, last) = (bin(from_ns), bin(to_ns));
    for (at, bin) in bins.iter_mut().enumerate().take(last + 1).skip(first) {
        let part = edge(at + 1).min(to_ns as f64) - edge(at).max(from_ns as f64);
        *bin += times * part.max(0.0);
    }
}

/// A part of a window, whose objects are taken to see the same of the windows after it.
struct Cell {
    window: usize,
    /// Time in which they are seen after the window, by age.
    later: [f64; BINS],
}

/// When probes were set.
struct Watch {
    windows: Vec<Window>,
    /// By window: the number of its first cell, and how long each is.
    cells_of: Vec<(usize, u64)>,
    cells: Vec<Cell>,
    now_ns: u64,
}

impl Watch {
    fn new(windows: &[Window], now_ns: u64) -> Self {
        let windows = windows[windows.len().saturating_sub(MAX_WINDOWS)..].to_vec();
        let set: u64 = windows.iter().map(|window| window.to_ns.saturating_sub(window.from_ns)).sum();
        let cell_ns = CELL_NS.max(set / MAX_WINDOWS as u64);
        let (mut cells_of, mut cells) = (Vec::with_capacity(windows.len()), Vec::new());
        for (number, window) in windows.iter().enumerate() {
            cells_of.push((cells.len(), cell_ns));
            let count = (window.to_ns.saturating_sub(window.from_ns) / cell_ns + 1) as usize;
            for part in 0..count as u64 {
                let from = window.from_ns + part * cell_ns;
                let middle = from.midpoint((from + cell_ns).min(window.to_ns).max(from));
                let mut later = [0.0; BINS];
                for after in &windows[number + 1..] {
                    cover(&mut later, after.from_ns.saturating_sub(middle), after.to_ns.saturating_sub(middle), 1.0);
                }
                cells.push(Cell { window: number, later });
            }
        }
        Self { windows, cells_of, cells, now_ns }
    }

    fn window(&self, at_ns: u64) -> Option<usize> {
        let after = self.windows.partition_point(|window| window.from_ns <= at_ns);
        let number = after.checked_sub(1)?;
        (at_ns <= self.windows[number].to_ns).then_some(number)
    }

    fn cell(&self, at_ns: u64) -> Option<&Cell> {
        let window = self.window(at_ns)?;
        let (first, cell_ns) = self.cells_of[window];
        self.cells.get(first + ((at_ns - self.windows[window].from_ns) / cell_ns) as usize)
    }

    /// Of the windows that are left out in turn, in which of so many groups an object is.
    fn group(&self, object: &Object, groups: usize) -> usize {
        let after = self.windows.partition_point(|window| window.from_ns <= object.allocated_ns);
        after.saturating_sub(1) % groups
    }
}

/// What was seen of a cohort, by age, in bytes.
#[derive(Clone)]
struct Seen {
    bytes: f64,
    /// Seen to die, or for the last time, in the window in which they were made.
    died: [f64; BINS],
    censored: [f64; BINS],
    /// The same without regard to windows: noticed to be gone, or not until now.
    noticed: [f64; BINS],
    unnoticed: [f64; BINS],
    /// Seen to die in any window, and the time in which that would have been seen, times bytes.
    deaths: [f64; BINS],
    exposure: [f64; BINS],
    /// Seen up to this age without a gap, whether they were alive or not.
    watched: [f64; BINS],
}

impl Seen {
    const NOTHING: Self = Self {
        bytes: 0.0,
        died: [0.0; BINS],
        censored: [0.0; BINS],
        noticed: [0.0; BINS],
        unnoticed: [0.0; BINS],
        deaths: [0.0; BINS],
        exposure: [0.0; BINS],
        watched: [0.0; BINS],
    };

    fn of<'a>(watch: &Watch, objects: impl Iterator<Item = &'a Object>) -> Self {
        let mut seen = Self::NOTHING;
        for object in objects {
            seen.add(watch, object);
        }
        seen
    }

    fn add(&mut self, watch: &Watch, object: &Object) {
        let Object { allocated_ns, ended, bytes, .. } = *object;
        let age = |at_ns: u64| bin(at_ns.saturating_sub(allocated_ns));
        match ended {
            Some((ended_ns, _)) => self.noticed[age(ended_ns)] += bytes,
            None => self.unnoticed[age(watch.now_ns)] += bytes,
        }
        let Some(cell) = watch.cell(allocated_ns) else {
            return;
        };
        self.bytes += bytes;
        let until_ns = watch.windows[cell.window].to_ns;
        let here = ended.filter(|(ended_ns, _)| *ended_ns <= until_ns);
        let later = ended.filter(|(ended_ns, is_reused)| !is_reused && watch.window(*ended_ns).is_some());
        match here {
            Some((ended_ns, _)) => self.died[age(ended_ns)] += bytes,
            None => self.censored[age(until_ns)] += bytes,
        }
        if let Some((ended_ns, _)) = here.or(later) {
            self.deaths[age(ended_ns)] += bytes;
        }
        cover(&mut self.exposure, 0, until_ns - allocated_ns, bytes);
        self.watched[age(until_ns)] += bytes;
        for (exposure, later) in self.exposure.iter_mut().zip(&cell.later) {
            *exposure += bytes * later;
        }
    }

    /// With `times` of another.
    fn with(&self, other: &Self, times: f64) -> Self {
        let add = |one: &[f64; BINS], other: &[f64; BINS]| std::array::from_fn(|at| one[at] + times * other[at]);
        Self {
            bytes: self.bytes + times * other.bytes,
            died: add(&self.died, &other.died),
            censored: add(&self.censored, &other.censored),
            noticed: add(&self.noticed, &other.noticed),
            unnoticed: add(&self.unnoticed, &other.unnoticed),
            deaths: add(&self.deaths, &other.deaths),
            exposure: add(&self.exposure, &other.exposure),
            watched: add(&self.watched, &other.watched),
        }
    }

    /// The chance to be alive, by age, of one that is not known to be dead. `object` is what one object stands for, in bytes.
    fn alive(&self, object: f64) -> [f64; BINS] {
        let unnoticed = actuarial(&self.noticed, &self.unnoticed);
        let without_gap = actuarial(&self.died, &self.censored);
        let mut watched: f64 = self.watched.iter().sum();
        let (mut is_without_gap, mut lives) = (true, 1.0f64);
        let mut alive = [1.0; BINS];
        for at in 0..BINS {
            let width = edge(at + 1) - edge(at);
            let all = self.exposure[at] / width;
            // Those that are censored within it have seen half of it.
            let seen = watched - self.watched[at] / 2.0;
            is_without_gap &= seen > 0.0 && (seen >= ENOUGH * object || seen >= ENOUGH_OF_ALL * all);
            watched -= self.watched[at];
            let before = lives;
            if is_without_gap {
                let was = if at == 0 { 1.0 } else { without_gap[at - 1] };
                lives *= if was > 0.0 { without_gap[at] / was } else { 0.0 };
            } else if self.exposure[at] > 0.0 {
                lives = (lives - self.deaths[at] / self.exposure[at] * width).max(0.0);
            }
            lives = lives.min(unnoticed[at]).min(before);
            alive[at] = if unnoticed[at] > 0.0 { lives / unnoticed[at] } else { 0.0 };
        }
        alive
    }
}

/// How many are left at the end of each age, of those that die or are seen for the last time at each.
fn actuarial(died: &[f64; BINS], censored: &[f64; BINS]) -> [f64; BINS] {
    let mut at_risk: f64 = died.iter().chain(censored).sum();
    let mut left = 1.0;
    std::array::from_fn(|at| {
        let exposed = at_risk - censored[at] / 2.0;
        if exposed > 0.0 {
            left *= (1.0 - died[at] / exposed).max(0.0);
        }
        at_risk = (at_risk - died[at] - censored[at]).max(0.0);
        left
    })
}

/// What is in use now of each cohort, by when probes were set, oldest first. Asked for is what was allocated until `until_ns`.
pub fn in_use(cohorts: &[Vec<Object>], windows: &[Window], now_ns: u64, until_ns: u64) -> Estimate {
    let watch = Watch::new(windows, now_ns);
    let alive = judge(&watch, cohorts, |_| true);
    let is_meant = |object: &Object| object.ended.is_none() && object.allocated_ns <= until_ns;
    let total = |alive: &[Vec<f64>], is_in: &dyn Fn(&Object) -> bool| -> f64 {
        let objects = cohorts.iter().flatten().zip(alive.iter().flatten());
        let meant = objects.filter(|(object, _)| is_meant(object) && is_in(object));
        meant.map(|(object, alive)| object.scaled * alive).sum()
    };
    let bytes = total(&alive, &|_| true);
    let of_samples: f64 = cohorts
        .iter()
        .flatten()
        .zip(alive.iter().flatten())
        .filter(|(object, _)| is_meant(object))
        .map(|(object, alive)| alive * object.scaled * object.scaled * (1.0 - object.chance).max(0.0))
        .sum();
    let groups = GROUPS.min(watch.windows.len());
    let (mut of_windows, mut t) = (0.0, 1.96);
    if groups > 1 {
        let without = |group: usize| {
            let is_in = |object: &Object| watch.group(object, groups) != group;
            let alive = judge(&watch, cohorts, is_in);
            total(&alive, &is_in) * groups as f64 / (groups - 1) as f64
        };
        let totals: Vec<f64> = (0..groups).map(without).collect();
        let mean = totals.iter().sum::<f64>() / groups as f64;
        let squares: f64 = totals.iter().map(|total| (total - mean).powi(2)).sum();
        of_windows = squares * (groups - 1) as f64 / groups as f64;
        if of_windows > of_samples {
            t = STUDENT[groups - 2];
        }
    } else if let [window] = &*watch.windows
        && window.to_ns < now_ns
    {
        // How much windows differ from each other is not known of one: it may as well be all of it.
        of_windows = bytes.powi(2);
    }
    let deviation = of_windows.max(of_samples).sqrt();
    // What cannot be below zero is as often half as twice as much.
    let factor = if bytes > 0.0 { (t * deviation / bytes).min(20.0).exp() } else { 1.0 };
    Estimate { alive, bytes, interval: (bytes / factor, bytes * factor) }
}

/// The chance of each object to be alive, by those that are asked.
fn judge(watch: &Watch, cohorts: &[Vec<Object>], is_asked: impl Fn(&Object) -> bool) -> Vec<Vec<f64>> {
    let seen: Vec<Seen> =
        cohorts.iter().map(|objects| Seen::of(watch, objects.iter().filter(|object| is_asked(object)))).collect();
    let pool = seen.iter().fold(Seen::NOTHING, |sum, seen| sum.with(seen, 1.0));
    let judged = cohorts.iter().zip(&seen).map(|(objects, seen)| {
        let object = objects.iter().map(|object| object.bytes).sum::<f64>() / objects.len().max(1) as f64;
        let borrowed = if pool.bytes > 0.0 { object / pool.bytes } else { 0.0 };
        let alive = seen.with(&pool, borrowed).alive(object);
        let of = |object: &Object| match object.ended {
            Some(_) => 0.0,
            None => alive[bin(watch.now_ns.saturating_sub(object.allocated_ns))],
        };
        objects.iter().map(of).collect()
    });
    judged.collect()
}

#[cfg(test)]
mod tests;
