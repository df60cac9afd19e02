//! Runs call frame instructions, with an eye only for what a row can express: the CFA, the return address and the registers
//! that functions keep for their callers. That is a few words of state where the general answer, rules for all registers,
//! has hundreds.

use gimli::{CallFrameInstruction, Error, Register, Result, UnwindExpression, X86_64};
use probe_ebpf::kept;

/// Deepest nesting of remembered states; compilers nest once.
const MAX_REMEMBERED: usize = 16;

/// How the frame is found at one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State {
    pub cfa: Cfa,
    pub return_address: Saved,
    /// Where the registers are that functions keep, but for those in [`Self::expressions`]: counted from the CFA.
    pub kept: kept::Saved,
    /// Bits of the registers in [`kept::KEPT`] for which an expression stands.
    pub expressions: u8,
    expression: [UnwindExpression<usize>; kept::KEPT.len()],
}

/// Where the frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cfa {
    Register(Register, i64),
    Expression(UnwindExpression<usize>),
}

/// Where a register of the caller is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Saved {
    /// Nothing was said.
    Default,
    SameValue,
    Undefined,
    /// At this distance from the CFA.
    Offset(i64),
    /// Where an expression points.
    Expression(UnwindExpression<usize>),
    /// In another register.
    Register(Register),
    /// Computed.
    Elsewhere,
}

impl State {
    pub const DEFAULT: Self = Self {
        cfa: Cfa::Register(Register(0), 0),
        return_address: Saved::Default,
        kept: kept::Saved::NOTHING,
        expressions: 0,
        expression: [UnwindExpression { offset: 0, length: 0 }; kept::KEPT.len()],
    };

    /// The expression that says where a register is.
    pub fn expression(&self, slot: usize) -> Option<UnwindExpression<usize>> {
        (self.expressions >> slot & 1 != 0).then_some(self.expression[slot])
    }

    fn keep(&mut self, slot: usize, saved: Saved) {
        let place = match saved {
            Saved::Default | Saved::SameValue => 0,
            // The return address itself is no place for another register.
            Saved::Offset(offset) if offset <= -16 => place(offset).unwrap_or(kept::Saved::UNKNOWN),
            Saved::Undefined if slot == 0 => 0,
            _ => kept::Saved::UNKNOWN,
        };
        self.kept = self.kept.with_place(slot, place);
        self.expressions &= !(1 << slot);
        if let Saved::Expression(expression) = saved {
            self.expressions |= 1 << slot;
            self.expression[slot] = expression;
        }
    }

    /// Takes a register's rule over.
    fn restore(&mut self, slot: usize, from: &Self) {
        self.kept = self.kept.with_place(slot, from.kept.place(slot));
        self.expressions = self.expressions & !(1 << slot) | from.expressions & 1 << slot;
        self.expression[slot] = from.expression[slot];
    }
}

/// A distance in bytes as a place in [`kept::Saved`]; `None` if that is too far.
pub(super) fn place(offset: i64) -> Option<u8> {
    let place = u8::try_from((offset / 8).checked_add(kept::Saved::HERE.into())?).ok()?;
    (offset % 8 == 0 && place != 0 && place != kept::Saved::UNKNOWN).then_some(place)
}

/// What holds for all functions of a common entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Common {
    /// Column of the return address.
    pub return_address: Register,
    pub code_alignment: u64,
    pub data_alignment: i64,
    /// The state at the start of a function; `None` while it is made.
    pub initial: Option<State>,
}

/// A run in progress.
#[derive(Debug)]
pub(super) struct Machine {
    pub state: State,
    remembered: Vec<State>,
}

impl Machine {
    pub fn new() -> Self {
        Self { state: State::DEFAULT, remembered: Vec::with_capacity(MAX_REMEMBERED) }
    }

    /// Ready for the instructions of a common entry or of a function.
    pub fn reset(&mut self, common: &Common) {
        self.state = common.initial.unwrap_or(State::DEFAULT);
        self.remembered.clear();
    }

    /// Obeys an instruction at `address`. `Some` is the address from which the following ones hold: till there, the state
    /// is complete.
    #[inline]
    pub fn run(
        &mut self,
        instruction: &CallFrameInstruction<usize>,
        address: u64,
        common: &Common,
    ) -> Result<Option<u64>> {
        use CallFrameInstruction as I;
        let factored = |offset: i64| offset.wrapping_mul(common.data_alignment);
        match *instruction {
            I::SetLoc { address: next } => {
                return if next < address { Err(Error::InvalidCfiSetLoc(next)) } else { Ok(Some(next)) };
            }
            I::AdvanceLoc { delta } => {
                let delta = u64::from(delta).wrapping_mul(common.code_alignment);
                return address.checked_add(delta).map(Some).ok_or(Error::AddressOverflow);
            }
            I::DefCfa { register, offset } => self.state.cfa = Cfa::Register(register, offset as i64),
            I::DefCfaSf { register, factored_offset } => {
                self.state.cfa = Cfa::Register(register, factored(factored_offset));
            }
            I::DefCfaRegister { register } => *self.cfa_register()?.0 = register,
            I::DefCfaOffset { offset } => *self.cfa_register()?.1 = offset as i64,
            I::DefCfaOffsetSf { factored_offset } => *self.cfa_register()?.1 = factored(factored_offset),
            I::DefCfaExpression { expression } => self.state.cfa = Cfa::Expression(expression),
            I::Undefined { register } => self.save(register, Saved::Undefined, common),
            I::SameValue { register } => self.save(register, Saved::SameValue, common),
            I::Offset { register, factored_offset } => {
                self.save(register, Saved::Offset(factored(factored_offset as i64)), common);
            }
            I::OffsetExtendedSf { register, factored_offset } => {
                self.save(register, Saved::Offset(factored(factored_offset)), common);
            }
            I::Expression { register, expression } => self.save(register, Saved::Expression(expression), common),
            I::ValOffset { register, .. } | I::ValOffsetSf { register, .. } | I::ValExpression { register, .. } => {
                self.save(register, Saved::Elsewhere, common)
            }
            I::Register { dest_register, src_register } => {
                self.save(dest_register, Saved::Register(src_register), common);
            }
            I::Restore { register } => {
                let initial = common.initial.ok_or(Error::CfiInstructionInInvalidContext)?;
                if register == common.return_address {
                    self.state.return_address = initial.return_address;
                } else if let Some(slot) = slot(register) {
                    self.state.restore(slot, &initial);
                }
            }
            I::RememberState if self.remembered.len() == MAX_REMEMBERED => return Err(Error::StackFull),
            I::RememberState => self.remembered.push(self.state),
            I::RestoreState => self.state = self.remembered.pop().ok_or(Error::PopWithEmptyStack)?,
            I::ArgsSize { .. } | I::NegateRaState | I::Nop => {}
        }
        Ok(None)
    }

    fn cfa_register(&mut self) -> Result<(&mut Register, &mut i64)> {
        match &mut self.state.cfa {
            Cfa::Register(register, offset) => Ok((register, offset)),
            Cfa::Expression(_) => Err(Error::CfiInstructionInInvalidContext),
        }
    }

    fn save(&mut self, register: Register, saved: Saved, common: &Common) {
        if register == common.return_address {
            self.state.return_address = saved;
        } else if let Some(slot) = slot(register) {
            self.state.keep(slot, saved);
        }
    }
}

/// The place of a register in [`kept::KEPT`].
fn slot(register: Register) -> Option<usize> {
    match register {
        X86_64::RBP => Some(0),
        X86_64::RBX => Some(1),
        Register(number @ 12..=15) => Some(usize::from(number) - 10),
        _ => None,
    }
}
