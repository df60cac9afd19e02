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
    mapped: BTreeMap<u64, (u64, usize)>,
}

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
                self.unmap(start, end, growth);
                self.mapped.insert(start, (end, new));
            }
            MemoryChange::Unmapped => self.unmap(start, end, growth),
            MemoryChange::Released => self.release(start, end, growth),
            MemoryChange::Moved { old_start, old_bytes } => {
                let new = (bytes > old_bytes).then(|| grow(Grown::Mapped, bytes - old_bytes));
                self.relocate((old_start, old_bytes), (start, bytes), growth);
                if let Some(new) = new {
                    self.mapped.insert(start.saturating_add(old_bytes), (end, new));
                }
            }
            MemoryChange::Replaced => {
                for &index in self.resident.values().chain(self.mapped.values().map(|(_, index)| index)) {
                    growth[index].bytes = 0;
                }
                *self = Self::default();
            }
        }
    }

    fn release(&mut self, start: u64, end: u64, growth: &mut [Growth]) {
        for index in take(&mut self.resident, start, end).into_values() {
            growth[index].bytes = 0;
        }
    }

    fn unmap(&mut self, start: u64, end: u64, growth: &mut [Growth]) {
        self.release(start, end, growth);
        for (start, (end, index)) in self.cut_out(start, end) {
            growth[index].bytes = growth[index].bytes.saturating_sub(end - start);
        }
    }

    /// What is known of a range goes elsewhere, as far as there is room for it.
    fn relocate(&mut self, (old, old_bytes): (u64, u64), (new, bytes): (u64, u64), growth: &mut [Growth]) {
        let kept = old_bytes.min(bytes);
        self.unmap(old.saturating_add(kept), old.saturating_add(old_bytes), growth);
        let (mapped, resident) =
            (self.cut_out(old, old.saturating_add(kept)), take(&mut self.resident, old, old.saturating_add(kept)));
        self.unmap(new, new.saturating_add(bytes), growth);
        let place = |address: u64| (address - old).saturating_add(new);
        self.mapped.extend(mapped.into_iter().map(|(start, (end, index))| (place(start), (place(end), index))));
        self.resident.extend(resident.into_iter().map(|(start, index)| (place(start), index)));
    }

    /// Takes away the parts of mappings that are in a range.
    fn cut_out(&mut self, start: u64, end: u64) -> BTreeMap<u64, (u64, usize)> {
        let mut parts = BTreeMap::new();
        if start >= end {
            return parts;
        }
        let before = self.mapped.range(..start).next_back().filter(|(_, (other, _))| *other > start);
        let before = before.map(|(first, _)| *first);
        let before = before.and_then(|first| self.mapped.remove_entry(&first));
        for (first, (last, index)) in before.into_iter().chain(take(&mut self.mapped, start, end)) {
            if first < start {
                self.mapped.insert(first, (start, index));
            }
            if last > end {
                self.mapped.insert(end, (last, index));
            }
            parts.insert(first.max(start), (last.min(end), index));
        }
        parts
    }
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
    use MemoryChange::{Mapped, Moved, Released, Replaced, Resident, Unmapped};

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
