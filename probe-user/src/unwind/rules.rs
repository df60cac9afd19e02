//! What a state of the call frame instructions means, as a rule that the kernel follows.

use gimli::{Encoding, Expression, LittleEndian, Operation, Register, UnwindExpression, X86_64};
use probe_ebpf::table::{DERIVED, FP_AT_FP, Row, rule};

use super::fragments::Slice;
use super::state::{Cfa, Saved, State};

/// A row without its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    kind: u8,
    fp: u8,
    operand: i32,
}

impl Rule {
    /// No unwind information.
    pub const NONE: Self = Self::bare(rule::NONE);

    /// The return from a signal handler.
    pub const SIGNAL: Self = Self::bare(rule::SIGNAL);

    /// There is no caller.
    pub const END: Self = Self::bare(rule::END);

    /// The frame pointer points to the caller's, beside the return address, on whatever stack.
    pub const FROM_OTHER_STACK: Self = Self { kind: rule::OTHER_STACK, fp: 2, operand: 16 };

    /// In a Go function whose frame has `delta` bytes, at least 0. The first word of a frame keeps the caller's frame
    /// pointer.
    pub fn go_frame(delta: i32) -> Self {
        let Some(operand) = delta.checked_add(8) else { return Self::bare(rule::UNSUPPORTED_OFFSET) };
        Self { kind: rule::RSP, fp: if delta < 8 { 0 } else { 2 }, operand }
    }

    /// A rule that was found in the instructions themselves.
    pub fn derived(kind: u8, fp: u8, operand: i32) -> Self {
        Self { kind: kind | DERIVED, fp, operand }
    }

    const fn bare(kind: u8) -> Self {
        Self { kind, fp: 0, operand: 0 }
    }

    /// The row that begins at an address.
    pub fn at(self, address: u64) -> Row {
        Row { pc: address as u16, rule: self.kind, fp: self.fp, cfa_offset: self.operand }
    }

    /// The rule of a row.
    pub fn of(row: Row) -> Self {
        Self { kind: row.rule, fp: row.fp, operand: row.cfa_offset }
    }
}

/// No expression that is understood has more operations.
const MAX_OPERATIONS: usize = 9;

type Operations<'data> = Vec<Operation<Slice<'data>>>;

/// The rule of a state; `section` holds the expressions.
pub(super) fn rule(state: &State, encoding: Encoding, section: &[u8]) -> Rule {
    let State { cfa, return_address, fp } = state;
    let operations = |expression: &UnwindExpression<usize>| operations(*expression, encoding, section);
    let (kind, operand) = match cfa {
        _ if *return_address == Saved::Undefined => return Rule::END,
        Cfa::Register(register, offset) => {
            let kind = match *register {
                X86_64::RSP => rule::RSP,
                X86_64::RBP => rule::RBP,
                _ => return Rule::bare(rule::UNSUPPORTED_REGISTER),
            };
            let Ok(offset) = i32::try_from(*offset) else { return Rule::bare(rule::UNSUPPORTED_OFFSET) };
            (kind, offset)
        }
        Cfa::Expression(expression) => {
            let Some(cfa) = operations(expression) else { return Rule::bare(rule::UNSUPPORTED_EXPRESSION) };
            if let (Saved::Expression(return_address), Saved::Expression(fp)) = (return_address, fp)
                && is_ucontext(&cfa, operations(return_address).as_deref(), operations(fp).as_deref())
            {
                return Rule::SIGNAL;
            }
            match cfa_expression(&cfa) {
                Some(found) => found,
                None => return Rule::bare(rule::UNSUPPORTED_EXPRESSION),
            }
        }
    };
    if (kind, *return_address, *fp) == (rule::RSP, Saved::Register(X86_64::RDI), Saved::Default) {
        return Rule { kind: rule::RETURN_ADDRESS_IN_RDI, fp: 0, operand };
    }
    if *return_address != Saved::Offset(-8) {
        return Rule::bare(rule::UNSUPPORTED_RETURN_ADDRESS);
    }
    let fp = match fp {
        Saved::Default | Saved::SameValue | Saved::Undefined => 0,
        Saved::Offset(offset) => match saved_at(*offset) {
            Some(words) => words,
            None => return Rule::bare(rule::UNSUPPORTED_FRAME_POINTER),
        },
        Saved::Expression(expression) => match operations(expression).as_deref() {
            Some([Operation::RegisterOffset { register: X86_64::RBP, offset: 0, .. }]) => FP_AT_FP,
            _ => return Rule::bare(rule::UNSUPPORTED_FRAME_POINTER),
        },
        Saved::Register(_) | Saved::Elsewhere => return Rule::bare(rule::UNSUPPORTED_FRAME_POINTER),
    };
    Rule { kind, fp, operand }
}

/// How many words below the CFA; the first is the return address.
fn saved_at(offset: i64) -> Option<u8> {
    let below = offset.checked_neg()?;
    let words = u8::try_from(below / 8).ok()?;
    (below % 8 == 0 && (2..FP_AT_FP).contains(&words)).then_some(words)
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
    use Operation::{And, Deref, Ge, Plus, PlusConstant, RegisterOffset, Shl, UnsignedConstant};
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
        ] => Some((rule::PLT, threshold as i32)),
        [RegisterOffset { register, offset, .. }, Deref { size: 8, space: false, .. }] => through(register, offset, 0),
        [RegisterOffset { register, offset, .. }, Deref { size: 8, space: false, .. }, PlusConstant { value }] => {
            through(register, offset, value)
        }
        _ => None,
    }
}

/// CFA = the word at register + offset, + added.
fn through(register: Register, offset: i64, added: u64) -> Option<(u8, i32)> {
    let kind = match register {
        X86_64::RSP => rule::RSP_DEREF,
        X86_64::RBP => rule::RBP_DEREF,
        _ => return None,
    };
    let added = i32::from(u8::try_from(added).ok()?);
    Some((kind, i32::try_from(offset).ok()?.checked_mul(256)? | added))
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
