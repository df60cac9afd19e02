//! What is known of a frame before an instruction: how the registers, and words on the stack, relate to the CFA.

/// Numbers of registers as iced counts them from `RAX` on, and as instructions encode them.
pub(super) const RSP: usize = 4;
pub(super) const RBP: usize = 5;
pub(super) const REGISTERS: usize = 16;

/// Registers that a call may change, by the System V ABI: rax, rcx, rdx, rsi, rdi, r8 to r11.
const CHANGED_BY_CALLS: [usize; 9] = [0, 1, 2, 6, 7, 8, 9, 10, 11];

/// Registers that a function has to leave as they were: rbx, rbp, r12 to r15.
pub(super) const KEPT_BY_CALLS: [usize; 6] = [3, 5, 12, 13, 14, 15];

/// Words on the stack that are remembered for one frame; what compilers and assemblers need is a handful.
const MAX_SLOTS: usize = 24;

/// How far a state is known. What is less certain gives way where the two differ.
pub(super) mod rank {
    /// By entries of functions that are known.
    pub const CERTAIN: u8 = 0;
    /// If a call returns of which that is not known.
    pub const PRESUMED: u8 = 1;
    /// If what data points to is the entry of a function.
    pub const POINTED: u8 = 2;
    /// If it is what it looks like: the entry of a function, or a part of one.
    pub const SUPPOSED: u8 = 3;
}

/// An address that does not change while the function runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Base {
    /// The CFA.
    Cfa,
    /// What the stack pointer was when it had been aligned by the instruction at this offset in the image.
    Aligned(u32),
}

/// What a register or a word on the stack holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// Anything.
    Unknown,
    /// What the caller had in this register.
    Caller(u8),
    /// An address in the frame: the base, plus this.
    Frame(Base, i32),
    /// Zero.
    Zero,
    /// An address in the file, from the image's lowest on.
    Address(u32),
    /// Not more than this, taken as a number without sign.
    AtMost(u32),
    /// The same, times four or eight.
    Scaled(u32),
    /// An entry of a table of offsets.
    Entry(Offsets),
    /// The sum of an entry and an address, the second: where a switch goes on.
    Target(Offsets, u32),
}

/// A table of offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Offsets {
    /// Where it is, from the image's lowest address on.
    pub table: u32,
    /// The highest index, where that is known.
    pub most: Option<u16>,
    /// Of an entry: two without sign, or four.
    pub bytes: u8,
}

/// A word of the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub base: Base,
    pub offset: i32,
    pub value: Value,
}

/// What the flags say of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compared {
    /// A register with a number.
    Register(u8, u32),
    /// A word of the stack with a number.
    Slot(Base, i32, u32),
    /// The stack pointer with a register.
    StackPointer(u8),
}

/// Everything that is known before an instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct State {
    pub registers: [Value; REGISTERS],
    pub slots: Vec<Slot>,
    pub compared: Option<Compared>,
    /// There is no caller.
    pub is_root: bool,
    /// How far it is known: one of [`rank`].
    pub rank: u8,
}

impl State {
    /// At the first instruction of a function.
    pub fn entry() -> Self {
        let mut registers = [Value::Unknown; REGISTERS];
        registers[RSP] = Value::Frame(Base::Cfa, -8);
        for register in KEPT_BY_CALLS {
            registers[register] = Value::Caller(register as u8);
        }
        Self { registers, slots: Vec::new(), compared: None, is_root: false, rank: rank::CERTAIN }
    }

    /// Where the program begins.
    pub fn root() -> Self {
        Self { is_root: true, ..Self::entry() }
    }

    pub fn sp(&self) -> Value {
        self.registers[RSP]
    }

    pub fn fp(&self) -> Value {
        self.registers[RBP]
    }

    /// Sets a register; what was compared with it is forgotten.
    pub fn set(&mut self, register: usize, value: Value) {
        self.registers[register] = value;
        if let Some(Compared::Register(compared, _) | Compared::StackPointer(compared)) = self.compared
            && (usize::from(compared) == register || register == RSP)
        {
            self.compared = None;
        }
    }

    /// The word at an address.
    pub fn load(&self, base: Base, offset: i32) -> Value {
        let slot = self.slots.iter().find(|slot| (slot.base, slot.offset) == (base, offset));
        slot.map_or(Value::Unknown, |slot| slot.value)
    }

    /// Writes so many bytes at an address, of which only whole words are known.
    pub fn store(&mut self, base: Base, offset: i32, bytes: i32, value: Value) {
        let overlaps = |at: i32| i64::from(at) < i64::from(offset) + i64::from(bytes) && offset < at.saturating_add(8);
        self.slots.retain(|slot| slot.base != base || !overlaps(slot.offset));
        if let Some(Compared::Slot(of, at, _)) = self.compared
            && of == base
            && overlaps(at)
        {
            self.compared = None;
        }
        if value != Value::Unknown && self.slots.len() < MAX_SLOTS {
            let at = self.slots.partition_point(|slot| slot.key() < (base.key(), offset));
            self.slots.insert(at, Slot { base, offset, value });
        }
    }

    /// A base is made anew: what was known by the old one is not any more.
    pub fn forget(&mut self, base: Base) {
        let is_gone = |value: Value| matches!(value, Value::Frame(of, _) if of == base);
        for value in &mut self.registers {
            if is_gone(*value) {
                *value = Value::Unknown;
            }
        }
        self.slots.retain(|slot| slot.base != base && !is_gone(slot.value));
        self.compared = None;
    }

    /// Whether an address in the frame is in a register that calls may change.
    pub fn risks_frame(&self) -> bool {
        CHANGED_BY_CALLS.iter().any(|&register| matches!(self.registers[register], Value::Frame(..)))
    }

    /// What of the registers holds while a call is made and behind it: those are kept that any function keeps, and that have a bit
    /// in `kept`.
    pub fn keep(&mut self, kept: u16) {
        for register in CHANGED_BY_CALLS.into_iter().filter(|register| kept >> register & 1 == 0) {
            self.registers[register] = Value::Unknown;
        }
    }

    /// Behind a call that returns.
    pub fn call(&mut self, kept: u16) {
        self.keep(kept);
        self.compared = None;
        // What is below the stack pointer belongs to the callee.
        if let Value::Frame(base, offset) = self.sp() {
            self.slots.retain(|slot| slot.base != base || slot.offset >= offset);
        }
    }

    /// Keeps what this state and another one agree on. True if it is less than before.
    pub fn join(&mut self, other: &Self) -> bool {
        let mut is_less = false;
        for (value, theirs) in self.registers.iter_mut().zip(&other.registers) {
            let joined = value.join(*theirs);
            is_less |= joined != *value;
            *value = joined;
        }
        let before = self.slots.len();
        for slot in &mut self.slots {
            let joined = slot.value.join(other.load(slot.base, slot.offset));
            is_less |= joined != slot.value;
            slot.value = joined;
        }
        self.slots.retain(|slot| slot.value != Value::Unknown);
        is_less |= self.slots.len() != before;
        if self.compared.is_some() && self.compared != other.compared {
            self.compared = None;
            is_less = true;
        }
        if self.is_root && !other.is_root {
            // With a caller on one way and none on the other, nothing is known.
            self.is_root = false;
            self.registers[RSP] = Value::Unknown;
            self.registers[RBP] = Value::Unknown;
            is_less = true;
        }
        is_less
    }
}

impl Value {
    /// The caller's frame pointer.
    pub const CALLER_FP: Self = Self::Caller(RBP as u8);

    fn join(self, other: Self) -> Self {
        match (self, other) {
            (a, b) if a == b => a,
            (Self::AtMost(a), Self::AtMost(b)) => Self::AtMost(a.max(b)),
            _ => Self::Unknown,
        }
    }
}

impl Base {
    fn key(self) -> u64 {
        match self {
            Self::Cfa => 0,
            Self::Aligned(at) => u64::from(at) + 1,
        }
    }
}

impl Slot {
    fn key(&self) -> (u64, i32) {
        (self.base.key(), self.offset)
    }
}
