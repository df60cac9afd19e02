//! The analysis against tables: code that has one is analysed as if it had none, and what comes out is compared at every
//! instruction.

use std::fs::File;
use std::ops::Range;

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic};
use object::{ReadCache, ReadRef};
use probe_ebpf::table::rule;

use super::effects::Effects;
use super::state::{Base, RSP, State, Value};
use super::{derive, entries};
use crate::unwind::fragments::{Fragment, Fragments};
use crate::unwind::rules::{FP_AT_FP, Rule};
use crate::unwind::{Reason, sections};

/// What came of it, in instructions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trial {
    /// All that the table has a usable rule for.
    pub instructions: u64,
    /// The same CFA, and with it the same return address.
    pub same: u64,
    /// Another CFA.
    pub different: u64,
    /// The same where the table contradicts itself: from one instruction to the next its CFA does not move as the stack pointer
    /// does, which hand-written tables, and those of some compilers, get wrong.
    pub table_wrong: u64,
    /// No answer.
    pub unknown: u64,
    /// Of these, such as no path led to.
    pub unreached: u64,
    /// The same CFA, but the caller's frame pointer elsewhere.
    pub other_fp: u64,
    /// Some of those that differ.
    pub examples: Vec<String>,
    /// And stretches that are not known.
    pub stretches: Vec<Range<u64>>,
    /// Seconds of processor time.
    pub seconds: f64,
}

/// Tries a file.
pub fn of_file(file: &File) -> Result<Trial, Reason> {
    of(&ReadCache::new(file))
}

/// Tries a file's bytes.
pub fn of<'data, R: ReadRef<'data> + 'data>(data: R) -> Result<Trial, Reason> {
    let sections = sections::read(data)?;
    let mut fragments = Fragments::default();
    sections.frames(&mut fragments)?;
    fragments.sort();
    let image = entries::read(data, &[]).ok_or(Reason::NoCode)?;
    let started = cpu();
    let facts = derive(&image).unwrap_or_default();
    let mut trial = Trial { seconds: cpu() - started, ..Trial::default() };
    let mut stretch: Option<Range<u64>> = None;
    let mut covered = 0;
    for &fragment in fragments.list() {
        let start = fragment.start.max(covered);
        covered = covered.max(fragment.end);
        let Some(piece) = image.gap(start) else { continue };
        let mut rules = fragments.rules(fragment).peekable();
        let (mut truth, mut is_wrong) = (Rule::NONE, None);
        let mut decoder = Decoder::with_ip(64, piece.from(start), start, DecoderOptions::NONE);
        while decoder.ip() < fragment.end && decoder.can_decode() {
            let i = decoder.decode();
            while let Some((_, rule)) = rules.next_if(|&(from, _)| from <= i.ip()) {
                truth = rule;
            }
            let row = truth.at(i.ip(), 0);
            if !matches!(row.rule, rule::RSP | rule::RBP | rule::END | rule::RSP_DEREF | rule::RBP_DEREF) {
                continue;
            }
            let at = facts.binary_search_by_key(&i.ip(), |&(address, ..)| address).ok().map(|at| facts[at].2);
            if at.is_none() && matches!(i.mnemonic(), Mnemonic::Nop | Mnemonic::Int3) {
                // Padding, which is not executed.
                continue;
            }
            trial.instructions += 1;
            let fact = at.unwrap_or_default();
            let offset = row.cfa_offset;
            let through = Some((offset >> 8, offset & 255));
            // A program's first function has no caller, whatever the table says of it.
            let is_known = fact.rule() != Rule::NONE && !(fact.is_root && row.rule != rule::END);
            let answer = match row.rule {
                _ if !is_known => None,
                rule::END => Some(fact.is_root),
                rule::RSP => fact.sp.map(|found| found == offset),
                rule::RBP => fact.fp.map(|found| found == offset),
                rule::RSP_DEREF => fact.sp_deref.map(|_| fact.sp_deref == through),
                _ => fact.fp_deref.map(|_| fact.fp_deref == through),
            };
            match answer {
                Some(true) => {
                    trial.same += 1;
                    let is_same_fp = match truth.fp() {
                        0 => fact.keeps_fp || fact.fp_slot.is_some(),
                        FP_AT_FP => fact.fp_at_fp,
                        words => fact.keeps_fp || fact.fp_slot == Some(words),
                    };
                    if row.rule != rule::END && !is_same_fp {
                        trial.other_fp += 1;
                    }
                }
                Some(false)
                    if *is_wrong.get_or_insert_with(|| contradicts(piece.from(start), fragment, &fragments)) =>
                {
                    trial.table_wrong += 1;
                }
                Some(false) => {
                    trial.different += 1;
                    if trial.examples.len() < 40 {
                        trial.examples.push(format!("{:#x}: {row:?} {fact:?}", i.ip()));
                    }
                }
                None => {
                    trial.unknown += 1;
                    trial.unreached += u64::from(at.is_none());
                    match &mut stretch {
                        Some(stretch) if stretch.end == i.ip() => stretch.end = i.next_ip(),
                        other => trial.stretches.extend(other.replace(i.ip()..i.next_ip())),
                    }
                }
            }
        }
    }
    trial.stretches.extend(stretch);
    Ok(trial)
}

/// Whether a function's table contradicts itself: its CFA does not move as the stack pointer does.
fn contradicts(code: &[u8], fragment: Fragment, fragments: &Fragments) -> bool {
    let mut effects = Effects::new(0);
    let mut decoder = Decoder::with_ip(64, code, fragment.start, DecoderOptions::NONE);
    let mut rules = fragments.rules(fragment).peekable();
    let (mut truth, mut wanted) = (Rule::NONE, None);
    while decoder.ip() < fragment.end && decoder.can_decode() {
        let i = decoder.decode();
        while let Some((_, rule)) = rules.next_if(|&(from, _)| from <= i.ip()) {
            truth = rule;
        }
        let row = truth.at(i.ip(), 0);
        let offset = (row.rule == rule::RSP).then_some(row.cfa_offset);
        if wanted.is_some() && offset.is_some() && wanted != offset {
            return true;
        }
        let mut state = State::entry();
        state.registers[RSP] = offset.map_or(Value::Unknown, |offset| Value::Frame(Base::Cfa, -offset));
        match i.flow_control() {
            FlowControl::Next => effects.run(&i, &mut state),
            FlowControl::Return if offset.is_some_and(|offset| offset != 8) => return true,
            FlowControl::ConditionalBranch | FlowControl::Call | FlowControl::IndirectCall => {}
            _ => state.registers[RSP] = Value::Unknown,
        }
        wanted = match state.sp() {
            Value::Frame(Base::Cfa, offset) => Some(-offset),
            _ => None,
        };
    }
    false
}

/// How much of a file's code without tables rows were derived for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Coverage {
    /// Bytes of code without tables.
    pub bytes: u64,
    /// Bytes of padding in it, which is not executed.
    pub padding: u64,
    /// Bytes with a derived rule.
    pub derived: u64,
    /// Stretches without one.
    pub stretches: Vec<Range<u64>>,
    /// Seconds that it took.
    pub seconds: f64,
}

/// What is derived for a file.
pub fn coverage(file: &File) -> Result<Coverage, Reason> {
    let data = &ReadCache::new(file);
    let mut fragments = Fragments::default();
    sections::read(data)?.frames(&mut fragments)?;
    fragments.sort();
    let started = cpu();
    let covered: Vec<Range<u64>> = fragments.list().iter().map(|fragment| fragment.start..fragment.end).collect();
    let Some(image) = entries::read(data, &covered) else { return Ok(Coverage::default()) };
    let facts = derive(&image).unwrap_or_default();
    let mut found = Coverage { bytes: image.bytes(), seconds: cpu() - started, ..Coverage::default() };
    let mut facts = facts.into_iter().filter(|(.., fact)| fact.rule() != Rule::NONE).peekable();
    for gap in &image.gaps {
        let mut at = gap.start;
        while at < gap.end() {
            let next = facts.peek().map_or(gap.end(), |fact| fact.0.clamp(at, gap.end()));
            if next > at {
                let is_padding = is_padding(gap.from(at).get(..(next - at) as usize).unwrap_or_default());
                let to = if is_padding { &mut found.padding } else { &mut found.derived };
                *to += if is_padding { next - at } else { 0 };
                if !is_padding {
                    found.stretches.push(at..next);
                }
                at = next;
            }
            if let Some((address, length, _)) = facts.next_if(|fact| fact.0 < gap.end()) {
                let end = address + u64::from(length);
                found.derived += end.saturating_sub(at.max(address));
                at = at.max(end);
            }
        }
    }
    Ok(found)
}

fn is_padding(bytes: &[u8]) -> bool {
    let mut decoder = Decoder::new(64, bytes, DecoderOptions::NONE);
    let is_nothing = |i: Instruction| matches!(i.mnemonic(), Mnemonic::Nop | Mnemonic::Int3);
    bytes.iter().all(|&byte| byte == 0)
        || std::iter::from_fn(|| decoder.can_decode().then(|| decoder.decode())).all(is_nothing)
}

/// Seconds of processor time of this process.
fn cpu() -> f64 {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    used.tv_sec as f64 + used.tv_nsec as f64 / 1e9
}
