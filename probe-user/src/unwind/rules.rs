//! What a state of the call frame instructions means, as a rule that the kernel follows.

use gimli::{Encoding, Expression, LittleEndian, Operation, Register, UnwindExpression, X86_64};
use probe_ebpf::kept::{self, base, register};
use probe_ebpf::table::{DERIVED, Row, rule};

use super::fragments::Slice;
use super::state::{Cfa, Saved, State, place};

/// What a row says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    /// How the CFA is found: one of [`rule`].
    pub kind: u8,
    /// Operand of it.
    pub operand: i32,
    /// Where the caller's registers are.
    pub saved: kept::Saved,
}

impl Rule {
    /// No unwind information.
    pub const NONE: Self = Self::bare(rule::NONE);

    /// The return from a signal handler.
    pub const SIGNAL: Self = Self::bare(rule::SIGNAL);

    /// There is no caller.
    pub const END: Self = Self::bare(rule::END);

    /// The frame pointer points to the caller's, beside the return address, on whatever stack.
    pub const FROM_OTHER_STACK: Self =
        Self { kind: rule::OTHER_STACK, operand: 16, saved: kept::Saved::BY_FRAME_POINTER };

    /// In a Go function whose frame has `delta` bytes, at least 0. The first word of a frame keeps the caller's frame
    /// pointer; no other register is kept. Go's runtime writes return addresses to where it interrupts a function.
    pub fn go_frame(delta: i32) -> Self {
        let Some(operand) = delta.checked_add(8) else { return Self::bare(rule::UNSUPPORTED_OFFSET) };
        let fp = if delta < 8 { 0 } else { kept::Saved::BY_FRAME_POINTER.place(0) };
        let saved = kept::Saved(kept::Saved::RETURNS_ANYWHERE.0 | kept::Saved::BY_FRAME_POINTER.0).with_place(0, fp);
        Self { kind: rule::RSP, operand, saved }
    }

    /// A rule that was found in the instructions themselves, with the caller's frame pointer as in [`Self::fp`].
    pub fn derived(kind: u8, fp: u8, operand: i32) -> Self {
        let place = match fp {
            0 => Some((base::CFA, 0)),
            FP_AT_FP => Some((base::RBP, kept::Saved::HERE)),
            FP_LOST => Some((base::CFA, kept::Saved::UNKNOWN)),
            words => place(-8 * i64::from(words)).map(|place| (base::CFA, place)),
        };
        // Too far away to be told: as good as not known.
        let Some((base, place)) = place else { return Self::NONE };
        let mut saved = kept::Saved::BY_FRAME_POINTER.with_place(0, place);
        saved.0 |= u64::from(base) << 48;
        Self { kind: kind | DERIVED, operand, saved }
    }

    /// Where the caller's frame pointer is: 0 if it still is in its register, [`FP_AT_FP`] if where the frame pointer points,
    /// [`FP_LOST`] if nowhere, else n for CFA - 8 * n.
    pub fn fp(self) -> u8 {
        match (self.saved.base(false), self.saved.place(0)) {
            (base::CFA, place @ 1..=kept::Saved::HERE) => kept::Saved::HERE - place,
            (base::RBP, kept::Saved::HERE) => FP_AT_FP,
            (base::CFA, kept::Saved::UNKNOWN) => FP_LOST,
            _ => 0,
        }
    }

    const fn bare(kind: u8) -> Self {
        Self { kind, operand: 0, saved: kept::Saved::NOTHING }
    }

    /// The row that begins at an address, where [`Self::saved`] has this index.
    pub fn at(self, address: u64, saved: u8) -> Row {
        Row { pc: address as u16, rule: self.kind, saved, cfa_offset: self.operand }
    }

    /// The same for a table that has no room for what is saved: as far as it is needed always.
    pub fn without_room(self) -> [Self; 2] {
        let saved = kept::Saved(self.saved.0 & 0x80ff_0000_0000_00ff | 0xff_ffff_ff00);
        [Self { saved, ..self }, Self::bare(rule::UNSUPPORTED_FRAME_POINTER)]
    }
}

/// [`Rule::fp`]: the caller's frame pointer is saved where this frame's points.
pub(super) const FP_AT_FP: u8 = u8::MAX;
/// [`Rule::fp`]: parts of hand-written code use the register, and who calls them does not count on it.
pub(super) const FP_LOST: u8 = u8::MAX - 1;

/// No expression that is understood has more operations.
const MAX_OPERATIONS: usize = 9;

type Operations<'data> = Vec<Operation<Slice<'data>>>;

/// The rule of a state; `section` holds the expressions.
pub(super) fn rule(state: &State, encoding: Encoding, section: &[u8]) -> Rule {
    let State { cfa, return_address, .. } = state;
    let operations = |expression: &UnwindExpression<usize>| operations(*expression, encoding, section);
    let (kind, operand) = match cfa {
        _ if *return_address == Saved::Undefined => return Rule::END,
        Cfa::Register(register, offset) => match from_register(*register, *offset) {
            Ok(found) => found,
            Err(reason) => return Rule::bare(reason),
        },
        Cfa::Expression(expression) => {
            let Some(cfa) = operations(expression) else { return Rule::bare(rule::UNSUPPORTED_EXPRESSION) };
            if let (Saved::Expression(return_address), Some(fp)) = (return_address, state.expression(0))
                && is_ucontext(&cfa, operations(return_address).as_deref(), operations(&fp).as_deref())
            {
                return Rule::SIGNAL;
            }
            match cfa_expression(&cfa) {
                Some(found) => found,
                None => return Rule::bare(rule::UNSUPPORTED_EXPRESSION),
            }
        }
    };
    let kind = match *return_address {
        Saved::Offset(-8) => kind,
        Saved::Register(register) if kind == rule::RSP && number(register).is_some() => {
            rule::RETURN_ADDRESS_IN | number(register).unwrap_or_default()
        }
        _ => return Rule::bare(rule::UNSUPPORTED_RETURN_ADDRESS),
    };
    let saved = if state.expressions == 0 { state.kept } else { by_expressions(state, operations) };
    if saved.place(0) == kept::Saved::UNKNOWN {
        return Rule::bare(rule::UNSUPPORTED_FRAME_POINTER);
    }
    Rule { kind, operand, saved }
}

/// CFA = register + offset; or why not.
fn from_register(register: Register, offset: i64) -> Result<(u8, i32), u8> {
    let kind = match register {
        X86_64::RSP => rule::RSP,
        X86_64::RBP => rule::RBP,
        other => rule::REGISTER | number(other).ok_or(rule::UNSUPPORTED_REGISTER)?,
    };
    Ok((kind, i32::try_from(offset).map_err(|_| rule::UNSUPPORTED_OFFSET)?))
}

/// The number that a rule has for a register, of those that are not the stack or frame pointer.
fn number(dwarf: Register) -> Option<u8> {
    const FIRST: [u8; 6] = [register::RAX, register::RDX, register::RCX, register::RBX, register::RSI, register::RDI];
    match dwarf.0 {
        at @ 0..6 => Some(FIRST[usize::from(at)]),
        at @ 8..16 => Some(register::R8 + (at - 8) as u8),
        _ => None,
    }
}

/// Where registers are of which some have expressions. What is not counted from the base of the first such register, but
/// for the frame pointer, is not known.
fn by_expressions<'data>(
    state: &State,
    operations: impl Fn(&UnwindExpression<usize>) -> Option<Operations<'data>>,
) -> kept::Saved {
    let place = |slot| {
        let expression = state.expression(slot)?;
        let (base, offset) = address(&operations(&expression)?, &state.cfa)?;
        Some((base, place(offset)?))
    };
    let of_fp = place(0);
    let places = [1, 2, 3, 4, 5].map(|slot| (slot, place(slot)));
    let base = places.iter().find_map(|(_, place)| place.map(|(base, _)| base)).unwrap_or(base::CFA);
    let mut saved = state.kept;
    if let Some((base, place)) = of_fp {
        saved = saved.with_place(0, place);
        saved.0 |= u64::from(base) << 48;
    }
    for (slot, found) in places {
        let plain = state.kept.place(slot);
        let is_as_it_is = base == base::CFA || plain == 0 || plain == kept::Saved::UNKNOWN;
        let place = match found {
            Some((of, place)) if of == base => place,
            None if is_as_it_is && state.expression(slot).is_none() => plain,
            _ => kept::Saved::UNKNOWN,
        };
        saved = saved.with_place(slot, place);
    }
    saved.0 |= u64::from(base) << 56;
    saved
}

/// The base and distance that an expression means, which begins with the CFA.
fn address(operations: &[Operation<Slice<'_>>], cfa: &Cfa) -> Option<(u8, i64)> {
    use Operation::{And, Drop, Minus, Plus, RegisterOffset, SignedConstant, UnsignedConstant};
    match *operations {
        [RegisterOffset { register, offset, .. }] | [Drop, RegisterOffset { register, offset, .. }] => match *cfa {
            Cfa::Register(of_cfa, distance) if of_cfa == register => Some((base::CFA, offset.checked_sub(distance)?)),
            _ if register == X86_64::RBP => Some((base::RBP, offset)),
            _ if register == X86_64::RSP => Some((base::RSP, offset)),
            _ => None,
        },
        [
            UnsignedConstant { value: 8 },
            Minus,
            SignedConstant { value: mask @ (-32 | -64) },
            And,
            SignedConstant { value: offset },
            Plus,
        ] => Some((if mask == -32 { base::ALIGNED_32 } else { base::ALIGNED_64 }, offset)),
        _ => None,
    }
}

fn operations(expression: UnwindExpression<usize>, encoding: Encoding, section: &[u8]) -> Option<Operations<'_>> {
    let bytes = section.get(expression.offset..)?.get(..expression.length)?;
    let mut operations = Expression(Slice::new(bytes, LittleEndian)).operations(encoding);
    let mut found = Vec::with_capacity(MAX_OPERATIONS);
    while let Some(operation) = operations.next().ok()? {
        if found.len() == MAX_OPERATIONS {
            return None;
        }
        found.push(operation);
    }
    Some(found)
}

/// The rule and its operand for an expression: a linkage table's, or that of code which aligned its stack.
fn cfa_expression(operations: &[Operation<Slice<'_>>]) -> Option<(u8, i32)> {
    use Operation::{And, Deref, Ge, Mul, Plus, PlusConstant, RegisterOffset, Shl, UnsignedConstant};
    let (operations, added) = match operations {
        [inner @ .., PlusConstant { value }] => (inner, *value),
        all => (all, 0),
    };
    match *operations {
        [
            RegisterOffset { register: X86_64::RSP, offset: 8, .. },
            RegisterOffset { register: X86_64::RA, offset: 0, .. },
            UnsignedConstant { value: 15 },
            And,
            UnsignedConstant { value: threshold @ 0..16 },
            Ge,
            UnsignedConstant { value: 3 },
            Shl,
            Plus,
        ] if added == 0 => Some((rule::PLT, threshold as i32)),
        [RegisterOffset { register, offset, .. }] => {
            from_register(register, offset.checked_add(i64::try_from(added).ok()?)?).ok()
        }
        [RegisterOffset { register, offset, .. }, Deref { size: 8, space: false, .. }] => {
            let kind = match register {
                X86_64::RSP => rule::RSP_DEREF,
                X86_64::RBP => rule::RBP_DEREF,
                other => rule::DEREF | number(other)?,
            };
            Some((kind, through(offset, added)?))
        }
        [
            RegisterOffset { register: X86_64::RSP, offset, .. },
            RegisterOffset { register, offset: index, .. },
            UnsignedConstant { value: 8 },
            Mul,
            Plus,
            Deref { size: 8, space: false, .. },
        ] => {
            let offset = index.checked_mul(8)?.checked_add(offset)?;
            Some((rule::INDEXED | number(register)?, through(offset, added)?))
        }
        _ => None,
    }
}

/// The operand of a rule that reads a word at an offset, and adds to it.
fn through(offset: i64, added: u64) -> Option<i32> {
    let added = i32::from(u8::try_from(added).ok()?);
    Some(i32::try_from(offset).ok()?.checked_mul(256)? | added)
}

/// Whether these are the places of the interrupted registers in a `ucontext` at the stack pointer.
fn is_ucontext(
    cfa: &[Operation<Slice<'_>>],
    return_address: Option<&[Operation<Slice<'_>>]>,
    fp: Option<&[Operation<Slice<'_>>]>,
) -> bool {
    use Operation::{Deref, RegisterOffset};
    matches!(cfa, [RegisterOffset { register: X86_64::RSP, offset: 160, .. }, Deref { size: 8, space: false, .. }])
        && matches!(return_address, Some([RegisterOffset { register: X86_64::RSP, offset: 168, .. }]))
        && matches!(fp, Some([RegisterOffset { register: X86_64::RSP, offset: 120, .. }]))
}
