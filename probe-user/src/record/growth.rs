//! Growth of memory: what a stretch of changes leaves behind. What was taken and given back within it is none.

use std::collections::{BTreeMap, HashMap};

use super::stacks::Slot;
use crate::kernel::MemoryChange;

/// A change of a process's memory in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
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
    /// User stack, if there is one.
    pub user: Option<Slot>,
}

/// What has grown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grown {
    /// Memory that is resident.
    Resident,
    /// Address space that is mapped.
    Mapped,
}

/// Memory that was taken and not given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Growth {
    /// When it was taken, `CLOCK_MONOTONIC`, nanoseconds.
    pub time_ns: u64,
    /// Process.
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// Of which kind it is.
    pub grown: Grown,
    /// Page faults or mappings that took it.
    pub count: u64,
    /// How much is left of it, in bytes.
    pub bytes: u64,
    /// User stack, if there is one.
    pub user: Option<Slot>,
}

/// Plays changes through, which come in the order of time, and returns what is left of them.
pub fn growth(changes: impl IntoIterator<Item = Change>) -> Vec<Growth> {
    let mut growth = Vec::new();
    let mut processes: HashMap<u32, Space> = HashMap::new();
    for change in changes {
        processes.entry(change.pid).or_default().apply(&change, &mut growth);
    }
    growth.retain(|growth| growth.bytes > 0);
    growth
}

/// What is known of a process's address space. Numbers are indexes of growths.
#[derive(Default)]
struct Space {
    /// First address of a page that a fault has taken → its growth.
    resident: BTreeMap<u64, usize>,
    /// First address of a mapping → its end and its growth. They do not overlap.
    mapped: Ranges,
    /// The same of what was made resident by a call, without faults.
    populated: Ranges,
    /// What is mapped becomes resident.
    is_locked: bool,
}

/// First address → end and growth.
type Ranges = BTreeMap<u64, (u64, usize)>;

impl Space {
    fn apply(&mut self, change: &Change, growth: &mut Vec<Growth>) {
        let Change { time_ns, pid, tid, start, bytes, count, user, .. } = *change;
        let end = start.saturating_add(bytes);
        let mut grow = |grown, bytes| {
            growth.push(Growth { time_ns, pid, tid, grown, count, bytes, user });
            growth.len() - 1
        };
        match change.change {
            MemoryChange::Resident => {
                // A page that is taken anew was given back in between, seen or not.
                let new = grow(Grown::Resident, bytes.saturating_mul(count));
                if let Some(before) = self.resident.insert(start, new) {
                    growth[before].bytes = 0;
                }
            }
            MemoryChange::Mapped => {
                let new = grow(Grown::Mapped, end - start);
                let locked = self.is_locked.then(|| grow(Grown::Resident, end - start));
                self.unmap(start, end, growth);
                self.mapped.insert(start, (end, new));
                self.populated.extend(locked.map(|locked| (start, (end, locked))));
            }
            MemoryChange::Populated => {
                let new = grow(Grown::Resident, 0);
                self.populate(start, end, new, growth);
            }
            MemoryChange::Locked { with_future } => {
                self.is_locked |= with_future;
                let new = grow(Grown::Resident, 0);
                // Of what was mapped before the stretch it is not known what was resident.
                let mapped: Vec<(u64, u64)> = self.mapped.iter().map(|(&start, &(end, _))| (start, end)).collect();
                for (start, end) in mapped {
                    self.populate(start, end, new, growth);
                }
            }
            MemoryChange::Unmapped => self.unmap(start, end, growth),
            MemoryChange::Released => self.release(start, end, growth),
            MemoryChange::Moved { old_start, old_bytes } => {
                let new = (bytes > old_bytes).then(|| grow(Grown::Mapped, bytes - old_bytes));
                self.relocate((old_start, old_bytes), (start, bytes), growth);
                if let Some(new) = new {
                    self.mapped.insert(start.saturating_add(old_bytes), (end, new));
                }
                if self.is_locked && bytes > old_bytes {
                    growth.push(Growth { time_ns, pid, tid, grown: Grown::Resident, count, bytes: 0, user });
                    self.populate(start.saturating_add(old_bytes), end, growth.len() - 1, growth);
                }
            }
            MemoryChange::Replaced => {
                let ranges = self.mapped.values().chain(self.populated.values());
                for &index in self.resident.values().chain(ranges.map(|(_, index)| index)) {
                    growth[index].bytes = 0;
                }
                *self = Self::default();
            }
        }
    }

    /// What of a range is not known to be resident is so by `new`.
    fn populate(&mut self, start: u64, end: u64, new: usize, growth: &mut [Growth]) {
        if start >= end {
            return;
        }
        let before = self.populated.range(..start).next_back().map(|(_, &(end, _))| end);
        let mut from = start.max(before.unwrap_or(0));
        let mut gaps = Vec::new();
        for (&next, &(last, _)) in self.populated.range(start..end) {
            gaps.push((from, next));
            from = from.max(last);
        }
        gaps.push((from, end));
        for (from, to) in gaps.into_iter().filter(|(from, to)| from < to) {
            let faults = self.resident.range(from..to).map(|(_, &index)| growth[index].bytes).sum::<u64>();
            growth[new].bytes += (to - from).saturating_sub(faults);
            self.populated.insert(from, (to, new));
        }
    }

    fn release(&mut self, start: u64, end: u64, growth: &mut [Growth]) {
        for (start, (end, index)) in cut_out(&mut self.populated, start, end) {
            growth[index].bytes = growth[index].bytes.saturating_sub(end - start);
        }
        for index in take(&mut self.resident, start, end).into_values() {
            growth[index].bytes = 0;
        }
    }

    fn unmap(&mut self, start: u64, end: u64, growth: &mut [Growth]) {
        self.release(start, end, growth);
        for (start, (end, index)) in cut_out(&mut self.mapped, start, end) {
            growth[index].bytes = growth[index].bytes.saturating_sub(end - start);
        }
    }

    /// What is known of a range goes elsewhere, as far as there is room for it.
    fn relocate(&mut self, (old, old_bytes): (u64, u64), (new, bytes): (u64, u64), growth: &mut [Growth]) {
        let kept = old_bytes.min(bytes);
        self.unmap(old.saturating_add(kept), old.saturating_add(old_bytes), growth);
        let old_end = old.saturating_add(kept);
        let (mapped, populated) = (cut_out(&mut self.mapped, old, old_end), cut_out(&mut self.populated, old, old_end));
        let resident = take(&mut self.resident, old, old_end);
        self.unmap(new, new.saturating_add(bytes), growth);
        let place = |address: u64| (address - old).saturating_add(new);
        let placed = |(start, (end, index))| (place(start), (place(end), index));
        self.mapped.extend(mapped.into_iter().map(placed));
        self.populated.extend(populated.into_iter().map(placed));
        self.resident.extend(resident.into_iter().map(|(start, index)| (place(start), index)));
    }
}

/// Takes away the parts of ranges that are in another.
fn cut_out(ranges: &mut Ranges, start: u64, end: u64) -> Ranges {
    let mut parts = BTreeMap::new();
    if start >= end {
        return parts;
    }
    let before = ranges.range(..start).next_back().filter(|(_, (other, _))| *other > start);
    let before = before.map(|(first, _)| *first);
    let before = before.and_then(|first| ranges.remove_entry(&first));
    for (first, (last, index)) in before.into_iter().chain(take(ranges, start, end)) {
        if first < start {
            ranges.insert(first, (start, index));
        }
        if last > end {
            ranges.insert(end, (last, index));
        }
        parts.insert(first.max(start), (last.min(end), index));
    }
    parts
}

/// Takes the entries out whose keys are in a range.
fn take<T: Copy>(map: &mut BTreeMap<u64, T>, start: u64, end: u64) -> BTreeMap<u64, T> {
    let taken: BTreeMap<u64, T> = map.range(start..end.max(start)).map(|(&key, &value)| (key, value)).collect();
    for key in taken.keys() {
        map.remove(key);
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: u64 = 4096;

    fn change(change: MemoryChange, first: u64, pages: u64) -> Change {
        let (start, bytes) = (first * PAGE, pages * PAGE);
        Change { time_ns: 0, pid: 1, tid: 1, change, start, bytes, count: 1, user: None }
    }

    /// The pages that are left of each growth.
    fn left(changes: &[Change]) -> Vec<(Grown, u64)> {
        growth(changes.iter().copied()).into_iter().map(|growth| (growth.grown, growth.bytes / PAGE)).collect()
    }

    use Grown::{Mapped as M, Resident as R};
    use MemoryChange::{Locked, Mapped, Moved, Populated, Released, Replaced, Resident, Unmapped};

    fn moved(from: (u64, u64), to: (u64, u64)) -> Change {
        change(Moved { old_start: from.0 * PAGE, old_bytes: from.1 * PAGE }, to.0, to.1)
    }

    #[test]
    fn what_is_unmapped_takes_its_pages_with_it() {
        let mapped = change(Mapped, 10, 10);
        let touched = [change(Resident, 11, 1), change(Resident, 15, 1)];
        assert_eq!(left(&[mapped, touched[0], touched[1]]), [(M, 10), (R, 1), (R, 1)]);
        assert_eq!(left(&[mapped, touched[0], touched[1], change(Unmapped, 10, 10)]), []);
        assert_eq!(left(&[mapped, touched[0], touched[1], change(Unmapped, 0, 12)]), [(M, 8), (R, 1)]);
        assert_eq!(left(&[mapped, touched[0], change(Unmapped, 14, 2), change(Unmapped, 19, 9)]), [(M, 7), (R, 1)]);
        assert_eq!(left(&[mapped, touched[0], touched[1], change(Released, 10, 10)]), [(M, 10)]);
        assert_eq!(left(&[mapped, change(Mapped, 12, 2)]), [(M, 8), (M, 2)], "one over the other");
    }

    #[test]
    fn what_was_there_before_is_nobodys() {
        assert_eq!(left(&[change(Unmapped, 10, 10), change(Released, 1, 1)]), []);
        assert_eq!(left(&[moved((10, 4), (50, 6))]), [(M, 2)]);
    }

    #[test]
    fn a_page_that_is_taken_again_counts_once() {
        assert_eq!(left(&[change(Resident, 3, 1), change(Resident, 3, 1)]), [(R, 1)]);
        let sampled = Change { count: 7, ..change(Resident, 3, 1) };
        assert_eq!(left(&[sampled]), [(R, 7)]);
    }

    #[test]
    fn a_mapping_that_moves_keeps_who_made_it() {
        let made = [change(Mapped, 10, 4), change(Resident, 11, 1)];
        assert_eq!(left(&[made[0], made[1], moved((10, 4), (50, 6))]), [(M, 4), (R, 1), (M, 2)]);
        assert_eq!(left(&[made[0], made[1], moved((10, 4), (50, 6)), change(Unmapped, 50, 2)]), [(M, 2), (M, 2)]);
        assert_eq!(left(&[made[0], made[1], moved((10, 4), (10, 1))]), [(M, 1)]);
    }

    #[test]
    fn what_is_populated_is_resident_by_who_asked_for_it() {
        let made = [change(Mapped, 10, 10), change(Populated, 10, 10)];
        assert_eq!(left(&made), [(M, 10), (R, 10)]);
        assert_eq!(left(&[made[0], made[1], change(Unmapped, 15, 5)]), [(M, 5), (R, 5)]);
        assert_eq!(left(&[made[0], made[1], change(Released, 0, 13)]), [(M, 10), (R, 7)]);
        assert_eq!(
            left(&[made[0], made[1], moved((10, 10), (50, 20)), change(Unmapped, 50, 5)]),
            [(M, 5), (R, 5), (M, 10)]
        );
        let twice = [made[0], change(Populated, 12, 2), made[1], made[1]];
        assert_eq!(left(&twice), [(M, 10), (R, 2), (R, 8)], "only what was not resident");
        let touched = [made[0], change(Resident, 11, 1), change(Resident, 15, 1), made[1]];
        assert_eq!(left(&touched), [(M, 10), (R, 1), (R, 1), (R, 8)]);
    }

    #[test]
    fn what_is_locked_is_resident_now_and_later() {
        let lock = |with_future| change(Locked { with_future }, 0, 0);
        assert_eq!(left(&[lock(true), change(Mapped, 10, 4)]), [(M, 4), (R, 4)]);
        assert_eq!(left(&[change(Mapped, 10, 4), lock(false), change(Mapped, 20, 2)]), [(M, 4), (R, 4), (M, 2)]);
        assert_eq!(
            left(&[lock(true), change(Mapped, 10, 4), moved((10, 4), (50, 6))]),
            [(M, 4), (R, 4), (M, 2), (R, 2)]
        );
        let exec = Change { change: Replaced, ..change(Unmapped, 0, 0) };
        assert_eq!(left(&[lock(true), exec, change(Mapped, 10, 4)]), [(M, 4)]);
    }

    #[test]
    fn another_program_has_nothing_of_the_former_one() {
        let exec = Change { change: Replaced, ..change(Unmapped, 0, 0) };
        let other = Change { pid: 2, ..change(Mapped, 10, 4) };
        assert_eq!(left(&[change(Mapped, 10, 4), change(Resident, 10, 1), other, exec]), [(M, 4)]);
    }

    #[test]
    fn changes_of_hostile_lengths_are_borne() {
        let all = Change { bytes: u64::MAX, count: u64::MAX, ..change(Mapped, 1, 1) };
        let changes = [all, Change { change: Unmapped, ..all }, Change { change: Resident, ..all }];
        assert_eq!(left(&changes).len(), 1);
    }
}
