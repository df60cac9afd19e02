//! Code to which no path is known: functions that are called through pointers only, and parts of functions behind jumps
//! whose targets are not known. What may be there is supposed, from how such code is left: at the first return on some
//! path the stack pointer has to be where the return address is, and elsewhere a path may lead into code that is known. The
//! supposition is then tried like anything else, and stands only if nothing contradicts it and a sound return proves it.

use std::collections::HashSet;

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, Register};

use super::flow::{Flow, TooMuch, behind_call};
use super::image::Piece;
use super::state::{Base, RBP, RSP, State, Value, rank};

/// Instructions of a path that are looked at.
const MAX_PATH: usize = 2000;
/// And for each byte of code, over all paths.
const STEPS_PER_BYTE: u64 = 8;

/// Follows what data and code point to, and then, in order of address, what was not reached.
pub(super) fn follow(flow: &mut Flow<'_, '_>) -> Result<(), TooMuch> {
    let mut left = flow.image.bytes().saturating_mul(STEPS_PER_BYTE);
    let mut seen: HashSet<u64> = HashSet::new();
    let image = flow.image;
    for &taken in &image.taken {
        if flow.reached(taken).is_none() {
            let rank = if looks_like_entry(flow, taken, true) { rank::CERTAIN } else { rank::POINTED };
            flow.enter(taken, &State { rank, ..State::entry() });
        }
    }
    flow.run()?;
    let mut pointers: Vec<u64> = image.pointers.clone();
    loop {
        let taken = flow.taken.iter().filter(|&&taken| image.gap(taken).is_some() && !seen.contains(&taken));
        pointers.extend(taken);
        seen.extend(&pointers);
        if pointers.is_empty() {
            break;
        }
        // Those first of which it is known: what is only supposed gives way to them.
        for &pointer in &pointers {
            if looks_like_entry(flow, pointer, flow.taken.contains(&pointer)) {
                flow.enter(pointer, &State::entry());
            }
        }
        flow.run()?;
        for pointer in std::mem::take(&mut pointers) {
            suppose(flow, pointer, rank::POINTED, &mut left)?;
        }
    }
    flow.suppose_tables()?;
    for gap in &image.gaps {
        let mut at = gap.start;
        while let Some(start) = unreached(flow, at, gap.end()) {
            suppose(flow, start, rank::SUPPOSED, &mut left)?;
            let end = flow.reached(start).unwrap_or(start);
            at = end.max(start + 1);
            if end == start {
                // Nothing is to be known there.
                at = behind(gap, start);
            }
        }
    }
    Ok(())
}

/// Whether what is pointed to begins as functions do, where functions begin: with the frame that it makes, or the mark of an
/// entry, at an alignment, behind padding or code that does not go on.
fn looks_like_entry(flow: &Flow<'_, '_>, address: u64, is_taken: bool) -> bool {
    let Some(gap) = flow.image.gap(address) else { return false };
    if !address.is_multiple_of(16) || flow.reached(address).is_some() {
        return false;
    }
    let mut decoder = Decoder::with_ip(64, gap.from(address), address, DecoderOptions::NONE);
    let first = decoder.decode();
    let makes_frame = match first.mnemonic() {
        Mnemonic::Endbr64 => true,
        Mnemonic::Push => {
            matches!(first.op0_register(), Register::RBX | Register::RBP)
                || (Register::R12..=Register::R15).contains(&first.op0_register())
        }
        Mnemonic::Sub => first.op0_register() == Register::RSP,
        _ => false,
    };
    // A function that hands over to its argument: labels are in tables, not taken by code.
    let hands_over = is_taken && first.flow_control() == FlowControl::IndirectBranch;
    (makes_frame || hands_over) && is_behind_end(gap, address)
}

/// Whether there is padding before an address, or a return, a jump or a trap.
fn is_behind_end(gap: &Piece<'_>, address: u64) -> bool {
    let before = &gap.bytes[..(address - gap.start) as usize];
    match before {
        [] => true,
        [.., 0xc3 | 0xcc | 0x90 | 0xf4 | 0x00] | [.., 0x0f, 0x0b] | [.., 0xeb, _] => true,
        _ => before.len() >= 5 && before[before.len() - 5] == 0xe9,
    }
}

/// The next address that nothing leads to, and that is no padding.
fn unreached(flow: &Flow<'_, '_>, mut at: u64, end: u64) -> Option<u64> {
    let piece = flow.image.gap(at)?;
    let mut i = Instruction::default();
    while at < end {
        if let Some(reached) = flow.reached(at) {
            at = reached;
            continue;
        }
        // Zeros are padding, too, although they are instructions.
        let bytes = piece.from(at);
        if bytes.starts_with(&[0, 0]) {
            at += 2;
            continue;
        }
        let mut decoder = Decoder::with_ip(64, bytes, at, DecoderOptions::NONE);
        decoder.decode_out(&mut i);
        if !i.is_invalid() && !matches!(i.mnemonic(), Mnemonic::Nop | Mnemonic::Int3) {
            return (at < end).then_some(at);
        }
        at += i.len().max(1) as u64;
    }
    None
}

/// The end of the instructions from an address on that are run one after the other.
fn behind(gap: &Piece<'_>, start: u64) -> u64 {
    let mut decoder = Decoder::with_ip(64, gap.from(start), start, DecoderOptions::NONE);
    let goes_on =
        |flow| !matches!(flow, FlowControl::Return | FlowControl::UnconditionalBranch | FlowControl::IndirectBranch);
    while decoder.can_decode() && goes_on(decoder.decode().flow_control()) {}
    decoder.ip()
}

fn suppose(flow: &mut Flow<'_, '_>, start: u64, otherwise: u8, left: &mut u64) -> Result<(), TooMuch> {
    if flow.image.gap(start).is_none() || flow.reached(start).is_some() {
        return Ok(());
    }
    if let Some(mut state) = supposition(flow, start, left) {
        state.rank = rank::SUPPOSED;
        flow.enter(start, &state);
        flow.run()?;
    } else if otherwise < rank::SUPPOSED {
        flow.enter(start, &State { rank: otherwise, ..State::entry() });
        flow.run()?;
    }
    Ok(())
}

/// What the state has to be at an address, if one of the paths from there is to end well.
fn supposition(flow: &mut Flow<'_, '_>, start: u64, budget: &mut u64) -> Option<State> {
    let mut first = State::entry();
    // How far the stack pointer is from where it was, by a base of its own.
    first.registers[RSP] = Value::Frame(Base::Cfa, 0);
    let mut paths = vec![(start, first)];
    let mut seen = HashSet::new();
    let mut i = Instruction::default();
    let mut left = MAX_PATH;
    while let Some((from, mut state)) = paths.pop() {
        let mut at = from;
        loop {
            if !seen.insert(at) || left == 0 || *budget == 0 || flow.image.gap(at).is_none() {
                break;
            }
            left -= 1;
            *budget -= 1;
            if let Some(known) = flow.known_at(at).filter(|known| known.rank < rank::SUPPOSED) {
                match meets(&state, known) {
                    Some(found) => return Some(found),
                    None => break,
                }
            }
            let Some(piece) = flow.image.gap(at) else { break };
            let mut decoder = Decoder::with_ip(64, piece.from(at), at, DecoderOptions::NONE);
            decoder.decode_out(&mut i);
            if i.is_invalid() {
                break;
            }
            match i.flow_control() {
                FlowControl::Next if i.mnemonic() == Mnemonic::Hlt => break,
                FlowControl::Next => flow.effects.run(&i, &mut state),
                FlowControl::Call if i.mnemonic() != Mnemonic::Call => flow.effects.run(&i, &mut state),
                FlowControl::Return => match ends(&state) {
                    Some(found) => return Some(found),
                    None => break,
                },
                FlowControl::UnconditionalBranch => {
                    at = i.near_branch_target();
                    if flow.image.gap(at).is_none() && !flow.image.endless.contains(&at) {
                        match ends(&state) {
                            Some(found) => return Some(found),
                            None => break,
                        }
                    }
                    continue;
                }
                FlowControl::ConditionalBranch => paths.insert(0, (i.near_branch_target(), state.clone())),
                FlowControl::Call | FlowControl::IndirectCall => {
                    let is_direct = i.flow_control() == FlowControl::Call;
                    if is_direct && flow.image.endless.contains(&i.near_branch_target()) {
                        break;
                    }
                    let kept = flow.callees.kept(flow.image, &mut flow.effects, &i, &state);
                    behind_call(&mut state, kept);
                }
                _ => break,
            }
            at = i.next_ip();
        }
    }
    None
}

/// The state at the start of a path that ends at a return.
fn ends(state: &State) -> Option<State> {
    let Value::Frame(Base::Cfa, moved) = state.sp() else { return None };
    let depth = (-8i32).checked_sub(moved)?;
    let mut found = State::entry();
    found.registers[RSP] = Value::Frame(Base::Cfa, depth);
    match state.fp() {
        Value::CALLER_FP => {}
        _ => return None,
    }
    (depth <= -8).then_some(found)
}

/// The state at the start of a path that leads into code that is known.
fn meets(state: &State, known: &State) -> Option<State> {
    let (Value::Frame(Base::Cfa, moved), Value::Frame(base, offset)) = (state.sp(), known.sp()) else { return None };
    let mut found = State { slots: known.slots.clone(), ..State::entry() };
    found.registers = [Value::Unknown; super::state::REGISTERS];
    found.registers[RSP] = Value::Frame(base, offset.checked_sub(moved)?);
    found.registers[RBP] = if state.fp() == Value::CALLER_FP { known.fp() } else { Value::Unknown };
    Some(found)
}
