//! From what is known before an instruction to the rule that finds its caller.

use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind};
use probe_ebpf::kept::register;
use probe_ebpf::table::rule;

use super::flow::{Flow, behind_call, is_first_frame, push_address};
use super::state::{Base, RBP, REGISTERS, RSP, Slot, State, Value};
use crate::unwind::rules::{FP_AT_FP, FP_LOST, Rule};

/// What is known at an instruction; used for rows, and for comparing them with those of tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::unwind) struct Fact {
    /// There is no caller.
    pub is_root: bool,
    /// CFA = stack pointer + this.
    pub sp: Option<i32>,
    /// CFA = frame pointer + this.
    pub fp: Option<i32>,
    /// CFA = the word at this offset from the stack pointer, + the second.
    pub sp_deref: Option<(i32, i32)>,
    /// The same from the frame pointer.
    pub fp_deref: Option<(i32, i32)>,
    /// The caller's frame pointer still is in its register.
    pub keeps_fp: bool,
    /// It is saved so many words below the CFA.
    pub fp_slot: Option<u8>,
    /// CFA = another register + this: its number, and this.
    pub other: Option<(u8, i32)>,
    /// It is saved where the frame pointer points.
    pub fp_at_fp: bool,
    /// There may be none: the frame pointer is zero, which only the first frame of a thread makes it.
    pub may_be_first: bool,
}

impl Fact {
    pub fn of(state: &State) -> Self {
        let through = |register: Value| {
            let Value::Frame(base, offset) = register else { return None };
            let slots = state.slots.iter().filter(|slot| slot.base == base);
            slots.filter_map(|slot| Some((slot.offset.checked_sub(offset)?, cfa_from(slot.value)?))).next()
        };
        let saved = |slot: &&Slot| slot.value == Value::CALLER_FP && slot.base == Base::Cfa;
        // Of several copies, the one that was made first.
        let words = state.slots.iter().rev().filter(saved).find_map(|slot| {
            let words = u8::try_from(-i64::from(slot.offset) / 8).ok()?;
            (slot.offset % 8 == 0 && (2..FP_LOST).contains(&words)).then_some(words)
        });
        let fp_at_fp = matches!(state.fp(), Value::Frame(base, offset) if state.load(base, offset) == Value::CALLER_FP);
        let others = (0..REGISTERS).filter(|register| !matches!(*register, RSP | RBP));
        let mut others = others.filter_map(|register| Some((register as u8, cfa_from(state.registers[register])?)));
        Self {
            is_root: state.is_root,
            sp: cfa_from(state.sp()),
            fp: cfa_from(state.fp()),
            sp_deref: through(state.sp()),
            fp_deref: through(state.fp()),
            keeps_fp: state.fp() == Value::CALLER_FP,
            fp_slot: words,
            fp_at_fp,
            may_be_first: state.fp() == Value::Zero,
            other: others.next(),
        }
    }

    /// The rule; one without information where nothing is known, or not all that is needed.
    pub fn rule(&self) -> Rule {
        if self.is_root {
            return Rule::derived(rule::END, 0, 0);
        }
        let fp = match (self.keeps_fp, self.fp_slot, self.fp_at_fp) {
            (true, ..) => 0,
            (_, Some(words), _) => words,
            (_, _, true) => FP_AT_FP,
            _ if self.sp.is_some() && self.fp.is_none() && !self.may_be_first => FP_LOST,
            _ => return Rule::NONE,
        };
        let through = |(offset, added): (i32, i32)| {
            let operand = offset.checked_mul(256)?;
            (0..256).contains(&added).then_some(operand | added)
        };
        // The frame pointer is the surer one: generated code has calls that leave the stack pointer elsewhere (V8's builtins put
        // arguments below the return address).
        match (self.sp, self.fp, self.sp_deref.and_then(through), self.fp_deref.and_then(through)) {
            (_, Some(offset), ..) => Rule::derived(rule::RBP, fp, offset),
            (Some(offset), None, ..) if offset > 0 => Rule::derived(rule::RSP, fp, offset),
            (None, None, _, Some(operand)) => Rule::derived(rule::RBP_DEREF, fp, operand),
            (None, None, Some(operand), _) => Rule::derived(rule::RSP_DEREF, fp, operand),
            // Known at the leaf, and above it where callees say that they keep it.
            (None, None, None, None) => match self.other {
                Some((register, offset)) => Rule::derived(rule::REGISTER | kernel_number(register), fp, offset),
                None => Rule::NONE,
            },
            _ => Rule::NONE,
        }
    }
}

/// The number that rows have for a register, from the one that instructions have; not for the stack and frame pointer.
fn kernel_number(register: u8) -> u8 {
    const NUMBERS: [u8; 8] = [
        register::RAX,
        register::RCX,
        register::RDX,
        register::RBX,
        register::RSP,
        register::RBP,
        register::RSI,
        register::RDI,
    ];
    NUMBERS.get(usize::from(register)).copied().unwrap_or(register.wrapping_sub(8) & 7)
}

/// What has to be added for the CFA.
fn cfa_from(value: Value) -> Option<i32> {
    match value {
        Value::Frame(Base::Cfa, offset) => offset.checked_neg(),
        _ => None,
    }
}

/// What is known at each instruction that was reached, with its address and length, in the order of their addresses.
pub(super) fn facts(flow: &mut Flow<'_, '_>, known: &[bool]) -> Vec<(u64, u8, Fact)> {
    let mut found = Vec::new();
    let mut i = Instruction::default();
    for &number in flow.by_address.values() {
        let leader = &flow.leaders[number as usize];
        let Some(piece) = flow.image.gap(leader.address) else { continue };
        let mut state = leader.state.clone();
        let mut decoder = Decoder::with_ip(64, piece.from(leader.address), leader.address, DecoderOptions::NONE);
        while decoder.ip() < leader.end && decoder.can_decode() {
            decoder.decode_out(&mut i);
            if i.is_invalid() {
                break;
            }
            let is_call = i.mnemonic() == Mnemonic::Call;
            let kept = if is_call { flow.callees.kept(flow.image, &mut flow.effects, &i, &state) } else { 0 };
            let mut fact = if known[number as usize] { Fact::of(&state) } else { Fact::default() };
            if is_call && fact.other.is_some() {
                // Whoever is called is asked for the register.
                state.keep(kept);
                fact.other = Fact::of(&state).other;
            }
            fact.is_root |= known[number as usize] && is_call && is_first_frame(&state);
            found.push((i.ip(), i.len() as u8, fact));
            let is_own = i.op0_kind() == OpKind::NearBranch64 && i.near_branch_target() == i.next_ip();
            if is_call && is_own && flow.is_pop(i.next_ip()) {
                push_address(&mut state);
            } else if is_call {
                behind_call(&mut state, kept);
            } else {
                flow.effects.run(&i, &mut state);
            }
        }
    }
    found.sort_unstable_by_key(|&(address, ..)| address);
    // Where runs overlap, an instruction may be in two: they have to agree.
    found.dedup_by(|later, earlier| {
        let is_same = later.0 == earlier.0;
        if is_same && later.2 != earlier.2 {
            earlier.2 = Fact::default();
        }
        is_same
    });
    found
}
