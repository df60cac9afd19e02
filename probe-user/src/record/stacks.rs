//! Distinct stacks, each kept once. The kernel sends a stack's frames once, so a stack may only be forgotten together
//! with the kernel's mark that it has been sent, and never while something still refers to it.

use std::collections::HashMap;
use std::sync::Arc;

use crate::kernel::{End, StackId};
use crate::target::Module;

/// Index of a stack in [`Stacks`]; valid as long as a window refers to it.
pub type Slot = u32;

/// A frame, independent of where its module is mapped.
#[derive(Clone, Debug)]
pub struct Frame {
    /// `None` for the kernel, and where no mapping was known.
    pub module: Option<Arc<Module>>,
    /// Offset in the module's file; the address itself without a module or in anonymous memory. Above the leaf it is that of
    /// the instruction behind the call; of an instruction that a signal interrupted, that of the byte behind its first one.
    pub offset: u64,
}

/// Whose code a stack runs through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// A process's.
    User,
    /// The kernel's.
    Kernel,
}

/// A normalised stack.
#[derive(Debug)]
pub struct Stack {
    /// User or kernel.
    pub space: Space,
    /// Leaf first.
    pub frames: Box<[Frame]>,
    /// Why it ends.
    pub end: End,
    /// Code without unwind information was crossed by its frame pointer, which may be wrong.
    pub guessed: bool,
    /// Code without unwind information was crossed by rows that were derived from its instructions: no guess.
    pub derived: bool,
}

impl Stack {
    /// Bytes in use.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.frames.len() * size_of::<Frame>()
    }
}

/// The table of stacks.
#[derive(Debug, Default)]
pub struct Stacks {
    by_id: HashMap<StackId, Slot>,
    /// Identities that mean another stack since a time, with the slot of what they meant before.
    retired: HashMap<StackId, (u64, Slot)>,
    slots: Vec<Entry>,
    free: Vec<Slot>,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    id: StackId,
    /// Process that it belongs to.
    pid: Option<u32>,
    /// `None` until the frames arrive: a sample may overtake them.
    stack: Option<Arc<Stack>>,
    /// Not referred to at the last sweep: the kernel was told to send it again. It stays for one more round, because
    /// samples that name it may still be on their way.
    condemned: bool,
    /// Cut or guessed, and the kernel was told to send it again: what it sends is another stack.
    doubted: bool,
}

impl Stacks {
    /// The slot of a stack that was referred to at a time, made if it is new.
    pub fn slot_at(&mut self, id: StackId, time_ns: u64) -> Slot {
        match self.retired.get(&id) {
            Some(&(retired_ns, slot)) if time_ns < retired_ns => slot,
            _ => self.slot(id),
        }
    }

    /// The slot of a stack, made if it is new.
    pub fn slot(&mut self, id: StackId) -> Slot {
        if let Some(&slot) = self.by_id.get(&id) {
            return slot;
        }
        let entry = Entry { id, pid: None, stack: None, condemned: false, doubted: false };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = entry;
                slot
            }
            None => {
                self.slots.push(entry);
                self.slots.len() as Slot - 1
            }
        };
        self.by_id.insert(id, slot);
        slot
    }

    /// Keeps the frames of a stack, of a process or (`None`) the kernel.
    pub fn fill(&mut self, id: StackId, pid: Option<u32>, stack: Stack) {
        if self.by_id.get(&id).is_some_and(|&slot| self.slots[slot as usize].doubted) {
            self.by_id.remove(&id);
        }
        let slot = self.slot(id) as usize;
        let entry = &mut self.slots[slot];
        if entry.stack.is_none() {
            entry.pid = pid;
            self.bytes += stack.bytes();
            entry.stack = Some(Arc::new(stack));
        }
    }

    /// Makes stacks of a process strangers to what comes from a time on: the same addresses mean something else. What was
    /// before refers to them. `forget` is told each, for the kernel has to send it again.
    pub fn retire(
        &mut self,
        pid: u32,
        since_ns: u64,
        is_meant: impl Fn(&Stack) -> bool,
        mut forget: impl FnMut(StackId),
    ) {
        for (slot, entry) in self.slots.iter().enumerate().filter(|(_, entry)| entry.pid == Some(pid)) {
            let (id, slot) = (entry.id, slot as Slot);
            // A retired one's identity may belong to another slot by now.
            if self.by_id.get(&id) == Some(&slot) && entry.stack.as_ref().is_none_or(|stack| is_meant(stack)) {
                forget(id);
                self.by_id.remove(&id);
                self.retired.insert(id, (since_ns, slot));
            }
        }
    }

    /// Doubts one stack: the kernel is to send it again, and what it sends is another.
    pub fn doubt_one(&mut self, id: StackId) {
        if let Some(&slot) = self.by_id.get(&id) {
            self.slots[slot as usize].doubted = true;
        }
    }

    /// Doubts the stacks of a process that were cut or guessed: the kernel has learned to follow such frames. `forget` is
    /// told each; samples refer to what is known until the kernel sends it again.
    pub fn doubt(&mut self, pid: u32, mut forget: impl FnMut(StackId)) {
        let is_unsure = |stack: &Arc<Stack>| stack.guessed || stack.end != End::Root;
        for entry in self.slots.iter_mut().filter(|entry| entry.pid == Some(pid) && entry.id != StackId::NONE) {
            if entry.stack.as_ref().is_some_and(is_unsure) {
                forget(entry.id);
                entry.doubted = true;
            }
        }
    }

    /// A stack, if its frames have arrived.
    pub fn get(&self, slot: Slot) -> Option<&Arc<Stack>> {
        self.slots.get(slot as usize)?.stack.as_ref()
    }

    /// Forgets stacks that were not referred to at this sweep and the one before. `forget` is told each stack that the
    /// kernel has to send again; it is called before the stack is forgotten here.
    pub fn sweep(&mut self, used: impl IntoIterator<Item = Slot>, mut forget: impl FnMut(StackId)) {
        let mut marks = vec![false; self.slots.len()];
        used.into_iter().for_each(|slot| marks[slot as usize] = true);
        for (slot, entry) in self.slots.iter_mut().enumerate() {
            if entry.id == StackId::NONE {
                continue; // free
            }
            match (marks[slot], entry.condemned) {
                (true, true) => entry.condemned = false,
                (true, false) => {}
                (false, false) => {
                    forget(entry.id);
                    entry.condemned = true;
                }
                (false, true) => {
                    self.bytes -= entry.stack.take().map_or(0, |stack| stack.bytes());
                    // A retired stack's identity may belong to another slot by now.
                    if self.by_id.get(&entry.id) == Some(&(slot as Slot)) {
                        self.by_id.remove(&entry.id);
                    }
                    if self.retired.get(&entry.id).is_some_and(|(_, retired)| *retired == slot as Slot) {
                        self.retired.remove(&entry.id);
                    }
                    entry.id = StackId::NONE;
                    self.free.push(slot as Slot);
                }
            }
        }
    }

    /// Bytes that the table holds, roughly: frames and entries.
    pub fn bytes(&self) -> usize {
        self.bytes + self.slots.len() * (size_of::<Entry>() + size_of::<(StackId, Slot)>() * 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn id(lo: u64) -> StackId {
        StackId { lo, hi: 1 }
    }

    fn stack(offset: u64) -> Stack {
        Stack {
            space: Space::User,
            frames: Box::new([Frame { module: None, offset }]),
            end: End::Root,
            guessed: false,
            derived: false,
        }
    }

    #[test]
    fn a_sample_may_overtake_its_stack() {
        let mut stacks = Stacks::default();
        let slot = stacks.slot(id(1));
        assert!(stacks.get(slot).is_none());
        stacks.fill(id(1), Some(1), stack(7));
        assert_eq!(stacks.get(slot).unwrap().frames[0].offset, 7);
    }

    #[test]
    fn an_unused_stack_leaves_after_the_kernel_was_told_and_one_more_round() {
        let mut stacks = Stacks::default();
        stacks.fill(id(1), Some(1), stack(1));
        stacks.fill(id(2), Some(1), stack(2));
        let (one, two) = (stacks.slot(id(1)), stacks.slot(id(2)));
        let mut told = Vec::new();
        stacks.sweep([one], |id| told.push(id));
        assert_eq!(told, [id(2)]);
        assert!(stacks.get(two).is_some(), "samples that name it may be on their way");
        stacks.sweep([one], |id| told.push(id));
        assert_eq!(told, [id(2)]);
        assert!(stacks.get(two).is_none());
        assert_eq!(stacks.slot(id(3)), two, "the slot is used again");
        assert!(stacks.get(one).is_some());
    }

    #[test]
    fn a_stack_that_returns_in_time_stays() {
        let mut stacks = Stacks::default();
        stacks.fill(id(1), Some(1), stack(1));
        let slot = stacks.slot(id(1));
        let mut told = 0;
        stacks.sweep([], |_| told += 1);
        stacks.sweep([slot], |_| told += 1);
        stacks.sweep([], |_| told += 1);
        assert_eq!(told, 2, "condemned twice, so the kernel is told twice");
        assert!(stacks.get(slot).is_some());
    }

    #[test]
    fn a_stack_that_was_a_guess_is_taken_again() {
        let mut stacks = Stacks::default();
        stacks.fill(id(1), Some(1), Stack { guessed: true, ..stack(7) });
        stacks.fill(id(2), Some(1), stack(8));
        let guess = stacks.slot(id(1));
        let mut told = Vec::new();
        stacks.doubt(1, |id| told.push(id));
        stacks.doubt(2, |id| told.push(id));
        assert_eq!(told, [id(1)]);
        assert_eq!(stacks.slot(id(1)), guess, "samples on their way have nothing better");
        stacks.fill(id(1), Some(1), stack(7));
        let known = stacks.slot(id(1));
        assert!(stacks.get(guess).unwrap().guessed && !stacks.get(known).unwrap().guessed);
        stacks.sweep([known], |_| {});
        stacks.sweep([known], |_| {});
        assert_eq!(stacks.slot(id(1)), known, "the guess leaves without it");
    }

    #[test]
    fn what_took_place_before_other_code_came_keeps_its_stack() {
        let mut stacks = Stacks::default();
        stacks.fill(id(1), Some(1), stack(7));
        stacks.fill(id(2), Some(1), stack(8));
        let (before, other) = (stacks.slot(id(1)), stacks.slot(id(2)));
        let mut told = Vec::new();
        stacks.retire(1, 50, |stack| stack.frames[0].offset == 7, |id| told.push(id));
        assert_eq!(told, [id(1)]);
        let after = stacks.slot_at(id(1), 50);
        stacks.fill(id(1), Some(1), stack(9));
        assert_eq!((stacks.slot_at(id(1), 49), stacks.slot_at(id(1), 60)), (before, after));
        assert_eq!((stacks.slot_at(id(2), 60), stacks.get(after).unwrap().frames[0].offset), (other, 9));
        stacks.sweep([after, other], |_| {});
        stacks.sweep([after, other], |_| {});
        assert_eq!((stacks.slot_at(id(1), 49), stacks.retired.len()), (after, 0), "nothing refers to it any more");
    }

    #[test]
    fn bytes_follow_what_is_kept() {
        let mut stacks = Stacks::default();
        let empty = stacks.bytes();
        stacks.fill(id(1), Some(1), stack(1));
        assert!(stacks.bytes() > empty);
        stacks.sweep([], |_| {});
        stacks.sweep([], |_| {});
        assert!(stacks.bytes < size_of::<Stack>());
    }
}
