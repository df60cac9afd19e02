//! Follows control from the entries of functions, and what is known of the frame along with it, until nothing changes.
//!
//! Code is followed in runs, from an address to which something leads (a leader) to the next one. What is behind a call is
//! followed only when it is known that the callee can return: there is a return to which control gets from its first
//! instruction. Of callees elsewhere it is presumed that they do, unless they are known not to.

use std::collections::{BTreeMap, BTreeSet};

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind};

use super::callees::Callees;
use super::effects::Effects;
use super::image::Image;
use super::state::{Base, Compared, RBP, RSP, State, Value, rank};
use super::switch;

/// Instructions that are looked at for each byte of code, at most; two for three bytes are usual.
const STEPS_PER_BYTE: u64 = 16;
/// And for code that is short.
const LEAST_STEPS: u64 = 1 << 16;

/// How a way to an address was left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Exit {
    /// It goes on, or says nothing of the frame.
    #[default]
    Open,
    /// The function returned, with the stack pointer and the frame pointer where they have to be.
    Sound,
    /// They are elsewhere: what was taken for known was wrong.
    Contradiction,
}

/// An address to which control gets otherwise than from the instruction before it.
#[derive(Debug)]
pub(super) struct Leader {
    pub address: u64,
    /// First address behind its run.
    pub end: u64,
    pub state: State,
    /// It is known that a function begins here.
    pub is_entry: bool,
    pub exit: Exit,
    /// Where control goes on; true if only when a call returns of which that is not known.
    pub next: Vec<(u32, bool)>,
    pub before: Vec<u32>,
    /// There is a return to which control gets from here.
    returns: bool,
    /// Runs that go on when it does.
    waiting: Vec<u32>,
    is_queued: bool,
}

/// The work and what comes of it.
pub(super) struct Flow<'a, 'data> {
    pub image: &'a Image<'data>,
    pub effects: Effects,
    pub leaders: Vec<Leader>,
    pub by_address: BTreeMap<u64, u32>,
    /// Addresses that an instruction takes.
    pub taken: BTreeSet<u64>,
    /// Runs that end with a jump through a table whose length is not known.
    pub unbounded: Vec<u32>,
    /// Such tables are looked at.
    pub supposes_tables: bool,
    pub callees: Callees,
    queue: Vec<u32>,
    steps: u64,
    most_steps: u64,
}

/// The work is more than it may be.
#[derive(Debug)]
pub(super) struct TooMuch;

impl<'a, 'data> Flow<'a, 'data> {
    pub fn new(image: &'a Image<'data>) -> Self {
        Self {
            image,
            effects: Effects::new(image.base),
            leaders: Vec::new(),
            by_address: BTreeMap::new(),
            taken: BTreeSet::new(),
            unbounded: Vec::new(),
            supposes_tables: false,
            callees: Callees::default(),
            queue: Vec::new(),
            steps: 0,
            most_steps: image.bytes().saturating_mul(STEPS_PER_BYTE).saturating_add(LEAST_STEPS),
        }
    }

    /// Control gets there, as the entry of a function or otherwise.
    pub fn enter(&mut self, address: u64, state: &State) {
        if self.image.gap(address).is_some()
            && let Some(number) = self.lead(address, state, rank::CERTAIN)
            && state.rank == rank::CERTAIN
        {
            self.leaders[number as usize].is_entry = true;
        }
    }

    /// Supposes the length of tables where it is not known.
    pub fn suppose_tables(&mut self) -> Result<(), TooMuch> {
        self.supposes_tables = true;
        for number in std::mem::take(&mut self.unbounded) {
            self.enqueue(number);
        }
        self.run()
    }

    /// The end of the run that an address is in.
    pub fn reached(&self, address: u64) -> Option<u64> {
        let (_, &number) = self.by_address.range(..=address).next_back()?;
        Some(self.leaders[number as usize].end).filter(|&end| address < end)
    }

    fn is_entry(&self, address: u64) -> bool {
        self.by_address.get(&address).is_some_and(|&number| self.leaders[number as usize].is_entry)
    }

    /// What is known at a leader.
    pub fn known_at(&self, address: u64) -> Option<&State> {
        self.by_address.get(&address).map(|&number| &self.leaders[number as usize].state)
    }

    /// Until nothing changes.
    pub fn run(&mut self) -> Result<(), TooMuch> {
        while let Some(number) = self.queue.pop() {
            self.leaders[number as usize].is_queued = false;
            self.follow(number)?;
        }
        Ok(())
    }

    /// Control gets to an address with this state, by a way that is known so far; `None` if it does not, because what is known
    /// better contradicts it.
    fn lead(&mut self, address: u64, state: &State, way: u8) -> Option<u32> {
        let incoming = state.rank.max(way);
        if let Some(&number) = self.by_address.get(&address) {
            let leader = &mut self.leaders[number as usize];
            let known = leader.state.rank;
            if leader.state.sp() != state.sp() && known != incoming {
                if known < incoming {
                    return None;
                }
                leader.state = State { rank: incoming, ..state.clone() };
                self.enqueue(number);
                return Some(number);
            }
            let is_less = leader.state.join(state);
            leader.state.rank = known.min(incoming);
            if is_less || incoming < known {
                self.enqueue(number);
            }
            return Some(number);
        }
        let number = self.leaders.len() as u32;
        // A run that passes through is cut here.
        let cut = self.by_address.range(..address).next_back().map(|(_, &before)| before);
        let cut = cut.filter(|&before| self.leaders[before as usize].end > address);
        self.by_address.insert(address, number);
        self.leaders.push(Leader {
            address,
            end: address,
            state: State { rank: incoming, ..state.clone() },
            is_entry: false,
            exit: Exit::Open,
            next: Vec::new(),
            before: Vec::new(),
            returns: false,
            waiting: Vec::new(),
            is_queued: false,
        });
        self.enqueue(number);
        if let Some(before) = cut {
            self.enqueue(before);
        }
        Some(number)
    }

    fn enqueue(&mut self, number: u32) {
        let leader = &mut self.leaders[number as usize];
        if !leader.is_queued {
            leader.is_queued = true;
            self.queue.push(number);
        }
    }

    /// Goes from a leader to the next one, or to where control leaves.
    fn follow(&mut self, number: u32) -> Result<(), TooMuch> {
        let image = self.image;
        let start = self.leaders[number as usize].address;
        let mut state = self.leaders[number as usize].state.clone();
        let Some(piece) = image.gap(start) else { return Ok(()) };
        let mut decoder = Decoder::with_ip(64, piece.from(start), start, DecoderOptions::NONE);
        let mut i = Instruction::default();
        let until = self.by_address.range(start + 1..).next().map_or(u64::MAX, |(&next, _)| next);
        let known = self.leaders.len();
        let mut run = Run { number, next: Vec::new(), exit: Exit::Open, returns: false };
        loop {
            self.steps += 1;
            if self.steps > self.most_steps {
                return Err(TooMuch);
            }
            let at = decoder.ip();
            if at >= until && at != start && self.by_address.contains_key(&at) {
                // Only what is certain falls from one function into another.
                if state.rank == rank::CERTAIN || !self.is_entry(at) {
                    self.go(&mut run, at, &state, rank::CERTAIN);
                }
                break;
            }
            if image.gap(at).is_none() || !decoder.can_decode() {
                // It falls into code that has a table, or out of all code.
                run.returns = true;
                break;
            }
            decoder.decode_out(&mut i);
            if i.is_invalid() {
                run.exit = Exit::Contradiction;
                run.returns = true;
                break;
            }
            if !self.step(&mut run, &i, &mut state) {
                break;
            }
        }
        let end = decoder.ip();
        if self.leaders[known..].iter().any(|leader| start < leader.address && leader.address < end) {
            // It leads into itself.
            self.enqueue(number);
        }
        self.settle(run, end);
        Ok(())
    }

    /// One instruction; false if control does not go on behind it.
    fn step(&mut self, run: &mut Run, i: &Instruction, state: &mut State) -> bool {
        match i.flow_control() {
            FlowControl::Next if i.mnemonic() == Mnemonic::Hlt => return false,
            // A call of the kernel's.
            FlowControl::Call if i.mnemonic() != Mnemonic::Call => self.effects.run(i, state),
            FlowControl::Next => {
                self.taken.extend(address_taken(i, self.image.base != 0));
                self.effects.run(i, state);
            }
            FlowControl::Return => {
                run.exit = if i.op_count() == 0 { left(state) } else { Exit::Open };
                run.returns = true;
                return false;
            }
            FlowControl::UnconditionalBranch => {
                self.jump(run, i.near_branch_target(), state);
                return false;
            }
            FlowControl::ConditionalBranch => {
                let mut taken = state.clone();
                refine(i, &mut taken, true);
                refine(i, state, false);
                self.jump(run, i.near_branch_target(), &taken);
                self.go(run, i.next_ip(), state, rank::CERTAIN);
                return false;
            }
            FlowControl::IndirectBranch => {
                self.indirect(run, i, state);
                return false;
            }
            FlowControl::Call | FlowControl::IndirectCall => return self.call(run, i, state),
            FlowControl::Interrupt | FlowControl::Exception | FlowControl::XbeginXabortXend => {
                if i.mnemonic() == Mnemonic::Xbegin {
                    self.jump(run, i.near_branch_target(), state);
                    self.effects.run(i, state);
                    return true;
                }
                return matches!(i.mnemonic(), Mnemonic::Xend | Mnemonic::Xabort);
            }
        }
        true
    }

    /// A jump, within the function or to another one.
    fn jump(&mut self, run: &mut Run, target: u64, state: &State) {
        if self.image.gap(target).is_some() {
            self.go(run, target, state, rank::CERTAIN);
        } else if self.image.endless.contains(&target) {
            run.leave(Exit::Open);
        } else {
            run.returns = true;
            run.leave(if self.image.is_code(target) { left(state) } else { Exit::Contradiction });
        }
    }

    /// A jump through a register or memory: a switch, or to another function.
    fn indirect(&mut self, run: &mut Run, i: &Instruction, state: &State) {
        let found = switch::targets(self.image, &self.taken, i, state);
        if let Some((_, rank::SUPPOSED)) = found
            && !self.supposes_tables
        {
            self.unbounded.push(run.number);
            run.returns = true;
            return;
        }
        if let Some((targets, way)) = found {
            // Where some are only supposed to be, there may be others.
            run.returns |= way != rank::CERTAIN;
            for target in targets {
                self.go(run, target, state, way);
            }
            return;
        }
        let slot = i.is_ip_rel_memory_operand().then(|| i.ip_rel_memory_address());
        if let Some(&target) = slot.and_then(|slot| self.image.slots.get(&slot)) {
            return self.jump(run, target, state);
        }
        // A program's beginning has nobody to return to: it ends by a jump to what it has found, as the dynamic linker's does.
        if state.is_root {
            run.leave(Exit::Sound);
        }
        // Either is possible: nothing is proved, and whoever calls this may get back.
        run.returns |= !self.is_endless_slot(i);
    }

    fn is_endless_slot(&self, i: &Instruction) -> bool {
        i.op0_kind() == OpKind::Memory
            && i.is_ip_rel_memory_operand()
            && self.image.endless_slots.contains(&i.ip_rel_memory_address())
    }

    /// A call; false if it does not return, as far as is known.
    fn call(&mut self, run: &mut Run, i: &Instruction, state: &mut State) -> bool {
        let target = matches!(i.op0_kind(), OpKind::NearBranch64).then(|| i.near_branch_target());
        if target == Some(i.next_ip()) && self.is_pop(i.next_ip()) {
            push_address(state);
            return true;
        }
        let slot = i.is_ip_rel_memory_operand().then(|| i.ip_rel_memory_address());
        let target = target.or_else(|| self.image.slots.get(&slot?).copied());
        if target.is_some_and(|target| self.image.endless.contains(&target)) || self.is_endless_slot(i) {
            return false;
        }
        let mut is_known = false;
        if let Some(target) = target.filter(|&target| self.image.gap(target).is_some()) {
            // What is only supposed to be code may be none: what it calls is no more than that.
            let way = if state.rank < rank::POINTED { rank::CERTAIN } else { rank::SUPPOSED };
            let Some(callee) = self.lead(target, &State::entry(), way) else {
                run.leave(Exit::Contradiction);
                return false;
            };
            let callee = &mut self.leaders[callee as usize];
            callee.is_entry |= way == rank::CERTAIN;
            if !callee.returns {
                callee.waiting.push(run.number);
                return false;
            }
            is_known = true;
        } else if state.rank == rank::SUPPOSED && is_misaligned(state) {
            // What is supposed is not so: compilers align the stack wherever they call.
            run.leave(Exit::Contradiction);
        }
        let kept = self.callees.kept(self.image, &mut self.effects, i, state);
        behind_call(state, kept);
        let is_padding = self.is_padding(i.next_ip());
        if self.is_entry(i.next_ip()) || is_padding && state.rank == rank::SUPPOSED {
            // Functions do not fall into each other behind a call: it does not return.
            return false;
        }
        if !is_known || is_padding {
            self.go(run, i.next_ip(), state, rank::PRESUMED);
            return false;
        }
        true
    }

    /// Whether a register is taken off the stack there.
    pub fn is_pop(&self, address: u64) -> bool {
        let bytes = self.image.gap(address).map_or(&[][..], |gap| gap.from(address));
        matches!(bytes, [0x58..=0x5f, ..] | [0x41, 0x58..=0x5f, ..])
    }

    /// Whether there is padding: what is behind it may belong to another function, where compilers were told that a
    /// callee does not return.
    fn is_padding(&self, address: u64) -> bool {
        let bytes = self.image.gap(address).map_or(&[][..], |gap| gap.from(address));
        let first = Decoder::with_ip(64, bytes, address, DecoderOptions::NONE).decode();
        matches!(first.mnemonic(), Mnemonic::Nop | Mnemonic::Int3)
    }

    /// Goes on at an address, by a way that is known so far.
    fn go(&mut self, run: &mut Run, target: u64, state: &State, way: u8) {
        if self.image.gap(target).is_none() {
            run.returns = true;
            return;
        }
        let Some(number) = self.lead(target, state, way) else {
            if state.rank > rank::CERTAIN && state.sp() != Value::Unknown {
                run.leave(Exit::Contradiction);
            }
            return;
        };
        let is_presumed = way != rank::CERTAIN;
        if !run.next.contains(&(number, is_presumed)) {
            run.next.push((number, is_presumed));
        }
        run.returns |= self.leaders[number as usize].returns;
    }

    /// Notes what came of a run.
    fn settle(&mut self, run: Run, end: u64) {
        for (next, _) in &run.next {
            let before = &mut self.leaders[*next as usize].before;
            if before.last() != Some(&run.number) {
                before.push(run.number);
            }
        }
        let leader = &mut self.leaders[run.number as usize];
        leader.end = end;
        leader.exit = run.exit;
        leader.next = run.next;
        if run.returns && !leader.returns {
            self.returns(run.number);
        }
    }

    /// Control gets from there to a return, and from wherever it gets there.
    fn returns(&mut self, number: u32) {
        let mut found = vec![number];
        while let Some(number) = found.pop() {
            let leader = &mut self.leaders[number as usize];
            if std::mem::replace(&mut leader.returns, true) {
                continue;
            }
            found.extend(&leader.before);
            for waiting in std::mem::take(&mut leader.waiting) {
                self.enqueue(waiting);
            }
        }
    }
}

/// What is found along a run.
struct Run {
    number: u32,
    next: Vec<(u32, bool)>,
    exit: Exit,
    returns: bool,
}

impl Run {
    /// A run with several ends has the worst.
    fn leave(&mut self, exit: Exit) {
        if self.exit != Exit::Contradiction && exit != Exit::Open {
            self.exit = exit;
        }
    }
}

/// How a function is left at a return, or at a jump to another function.
fn left(state: &State) -> Exit {
    match (state.sp(), state.fp()) {
        (Value::Frame(Base::Cfa, -8), Value::CALLER_FP) => Exit::Sound,
        (Value::Frame(..), _) if state.sp() != Value::Frame(Base::Cfa, -8) && !state.is_root => Exit::Contradiction,
        _ => Exit::Open,
    }
}

/// The address that an instruction takes, if it may be one of code; in files that are mapped where they say also as a number.
fn address_taken(i: &Instruction, is_fixed: bool) -> Option<u64> {
    match i.mnemonic() {
        Mnemonic::Lea if i.is_ip_rel_memory_operand() => Some(i.ip_rel_memory_address()),
        Mnemonic::Mov | Mnemonic::Push if is_fixed && i.op_kind(i.op_count() - 1) == OpKind::Immediate32 => {
            Some(u64::from(i.immediate32()))
        }
        _ => None,
    }
}

/// What holds behind a call that returns.
pub(super) fn behind_call(state: &mut State, kept: u16) {
    state.is_root |= is_first_frame(state);
    state.call(kept);
}

/// A call to the next instruction, which takes the address off again: no call.
pub(super) fn push_address(state: &mut State) {
    match state.sp() {
        Value::Frame(base, offset) => {
            state.store(base, offset.saturating_sub(8), 8, Value::Unknown);
            state.set(RSP, Value::Frame(base, offset.saturating_sub(8)));
        }
        _ => state.set(RSP, Value::Unknown),
    }
}

/// Whether the stack pointer is not where it has to be at a call, by the ABI.
fn is_misaligned(state: &State) -> bool {
    matches!(state.sp(), Value::Frame(Base::Cfa, offset) if offset % 16 != 0)
}

/// Whether a call is made by the first frame of a thread: there is no frame pointer, as the ABI wants it to be in the
/// deepest frame, and the call takes the place of the return address.
pub(super) fn is_first_frame(state: &State) -> bool {
    state.fp() == Value::Zero && matches!(state.sp(), Value::Frame(Base::Cfa, offset) if offset >= 0)
}

/// What a conditional jump says of what was compared.
fn refine(i: &Instruction, state: &mut State, is_taken: bool) {
    use Mnemonic as M;
    let less = |number: u32, by: u32| number.checked_sub(by);
    let most = |number: u32| match (i.mnemonic(), is_taken) {
        (M::Ja, false) | (M::Jbe, true) => Some(number),
        (M::Jae, false) | (M::Jb, true) => less(number, 1),
        _ => None,
    };
    match state.compared {
        Some(Compared::Register(register, number)) => {
            if let Some(most) = most(number)
                && matches!(state.registers[usize::from(register)], Value::Unknown | Value::AtMost(_))
                && !matches!(usize::from(register), RSP | RBP)
            {
                state.registers[usize::from(register)] = Value::AtMost(most);
            }
        }
        Some(Compared::Slot(base, offset, number)) => {
            if let Some(most) = most(number)
                && matches!(state.load(base, offset), Value::Unknown | Value::AtMost(_))
            {
                let compared = state.compared;
                state.store(base, offset, 4, Value::AtMost(most));
                state.compared = compared;
            }
        }
        Some(Compared::StackPointer(register)) if state.sp() == Value::Unknown => {
            let is_equal = matches!((i.mnemonic(), is_taken), (M::Jne, false) | (M::Je, true));
            if is_equal {
                state.registers[RSP] = state.registers[usize::from(register)];
            }
        }
        _ => {}
    }
}
