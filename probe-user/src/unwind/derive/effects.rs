//! What an instruction does to a [`State`]. Where control goes from it is decided elsewhere; of calls, only that a return
//! address is pushed is of no concern here, because it is gone again when they return.

use iced_x86::{Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register};

use super::state::{Base, Compared, Offsets, RBP, RSP, State, Value};

/// Runs instructions; `image` is the image's lowest address.
pub(super) struct Effects {
    info: InstructionInfoFactory,
    image: u64,
}

/// The number of a register, whatever part of it is meant; `None` for those that are not general.
pub(super) fn number(register: Register) -> Option<usize> {
    let full = register.full_register();
    (Register::RAX..=Register::R15).contains(&full).then(|| full as usize - Register::RAX as usize)
}

impl Effects {
    pub fn new(image: u64) -> Self {
        Self { info: InstructionInfoFactory::new(), image }
    }

    /// An address as the state has it.
    pub fn offset(&self, address: u64) -> Option<u32> {
        u32::try_from(address.checked_sub(self.image)?).ok()
    }

    /// What holds behind an instruction that is no call, jump or return.
    pub fn run(&mut self, i: &Instruction, state: &mut State) {
        use Mnemonic as M;
        if i.mnemonic() != M::Cmp && i.rflags_modified() != 0 {
            state.compared = None;
        }
        match i.mnemonic() {
            M::Nop | M::Endbr64 | M::Test => {}
            M::Push => {
                let value = match i.op0_kind() {
                    OpKind::Register if i.op0_register().size() == 8 => self.register(i.op0_register(), state),
                    _ => Value::Unknown,
                };
                move_stack(state, i.stack_pointer_increment());
                store_at(state, state.sp(), 8, value);
            }
            M::Pop => {
                let value = match state.sp() {
                    Value::Frame(base, offset) => state.load(base, offset),
                    _ => Value::Unknown,
                };
                move_stack(state, i.stack_pointer_increment());
                match number(i.op0_register()) {
                    Some(register) if i.op0_kind() == OpKind::Register => {
                        state.set(register, if i.op0_register().size() == 8 { value } else { Value::Unknown });
                    }
                    _ => self.store(i, state, Value::Unknown),
                }
            }
            M::Leave => {
                state.set(RSP, state.fp());
                let value = match state.sp() {
                    Value::Frame(base, offset) => state.load(base, offset),
                    _ => Value::Unknown,
                };
                state.set(RBP, value);
                move_stack(state, 8);
            }
            M::Cmp => state.compared = self.compared(i, state),
            M::Mov | M::Movzx | M::Movsxd | M::Cdqe | M::Lea | M::Add | M::Sub | M::And | M::Xor | M::Or
                if i.op0_kind() == OpKind::Register || i.mnemonic() == M::Cdqe =>
            {
                let target = if i.mnemonic() == M::Cdqe { Register::RAX } else { i.op0_register() };
                let Some(register) = number(target) else { return };
                if i.mnemonic() == M::And
                    && let Value::Frame(..) = state.registers[register]
                {
                    self.align(i, register, state);
                    return;
                }
                let value = self.value(i, target, register, state);
                let is_same = value == state.registers[register] && value != Value::Unknown;
                if !is_same {
                    state.set(register, value);
                }
            }
            M::Mov if i.op0_kind() == OpKind::Memory => {
                let value = match i.op1_kind() {
                    OpKind::Register if i.op1_register().size() >= 4 => self.register(i.op1_register(), state),
                    _ => Value::Unknown,
                };
                self.store(i, state, value);
            }
            M::Xchg if i.op0_kind() == OpKind::Register && i.op1_kind() == OpKind::Register => {
                let (Some(a), Some(b)) = (number(i.op0_register()), number(i.op1_register())) else { return };
                let is_whole = i.op0_register().size() == 8;
                let of = |register: usize| if is_whole { state.registers[register] } else { Value::Unknown };
                let (to_a, to_b) = (of(b), of(a));
                state.set(a, to_a);
                state.set(b, to_b);
            }
            mnemonic if is_vector(i) && !writes_ecx(mnemonic) => {}
            _ => self.anything(i, state),
        }
    }

    /// The value of a register operand; a part of 32 bits has what is small enough for it.
    fn register(&self, register: Register, state: &State) -> Value {
        let Some(number) = number(register) else { return Value::Unknown };
        match (register.size(), state.registers[number]) {
            (8, value) => value,
            (4, value @ (Value::AtMost(_) | Value::Zero | Value::Entry(_) | Value::Scaled(_))) => value,
            (1 | 2, value @ Value::AtMost(_)) => value,
            _ => Value::Unknown,
        }
    }

    /// What an instruction writes to its first operand, a register.
    fn value(&self, i: &Instruction, target: Register, register: usize, state: &State) -> Value {
        use Mnemonic as M;
        let before = state.registers[register];
        let whole = target.size() == 8;
        match i.mnemonic() {
            M::Mov if target.size() < 4 => Value::Unknown,
            M::Mov | M::Movzx | M::Movsxd => match i.op1_kind() {
                OpKind::Register => match (self.register(i.op1_register(), state), i.mnemonic()) {
                    // A byte or a half of what is not more than a number that fits in it.
                    (Value::AtMost(most), M::Movzx) => Value::AtMost(most.min(narrow(i.op1_register().size()))),
                    (Value::Unknown, M::Movzx) => Value::AtMost(narrow(i.op1_register().size())),
                    (value, M::Movsxd) if matches!(value, Value::Entry(_) | Value::AtMost(_)) => value,
                    (value, M::Mov) if whole || !matches!(value, Value::Frame(..)) => value,
                    _ => Value::Unknown,
                },
                OpKind::Memory => self.loaded(i, whole, state),
                OpKind::Immediate32 | OpKind::Immediate64 | OpKind::Immediate32to64 => self.constant(i.immediate(1)),
                _ => Value::Unknown,
            },
            M::Cdqe if matches!(before, Value::Entry(_) | Value::AtMost(_)) => before,
            M::Lea => self.lea(i, whole, state),
            M::Xor | M::Sub if i.op1_kind() == OpKind::Register && i.op0_register() == i.op1_register() => {
                if target.size() >= 4 { Value::Zero } else { Value::Unknown }
            }
            M::And if is_immediate(i.op1_kind()) && target.size() >= 4 => {
                let mask = i.immediate(1);
                if mask <= 0xffff { Value::AtMost(mask as u32) } else { Value::Unknown }
            }
            M::Add | M::Sub if is_immediate(i.op1_kind()) && whole => {
                match (before, i32::try_from(i.immediate(1) as i64)) {
                    (Value::Frame(base, offset), Ok(by)) => {
                        let moved =
                            if i.mnemonic() == M::Add { offset.checked_add(by) } else { offset.checked_sub(by) };
                        moved.map_or(Value::Unknown, |offset| Value::Frame(base, offset))
                    }
                    _ => Value::Unknown,
                }
            }
            M::Add if i.op1_kind() == OpKind::Register && whole => {
                match (before, self.register(i.op1_register(), state)) {
                    (Value::Entry(offsets), Value::Address(base)) | (Value::Address(base), Value::Entry(offsets)) => {
                        Value::Target(offsets, base)
                    }
                    _ => Value::Unknown,
                }
            }
            _ => Value::Unknown,
        }
    }

    fn constant(&self, number: u64) -> Value {
        match self.offset(number) {
            _ if number == 0 => Value::Zero,
            Some(offset) => Value::Address(offset),
            None => Value::Unknown,
        }
    }

    /// A load from the stack, or from a table.
    fn loaded(&self, i: &Instruction, whole: bool, state: &State) -> Value {
        use Mnemonic as M;
        let bytes = i.memory_size().size();
        if let Some((base, offset)) = address(i, state) {
            return match (i.mnemonic(), state.load(base, offset)) {
                (M::Mov, value) if whole => value,
                (M::Mov, value @ (Value::AtMost(_) | Value::Zero)) => value,
                (M::Movzx, Value::AtMost(most)) => Value::AtMost(most.min(narrow(bytes))),
                (M::Movzx, _) => Value::AtMost(narrow(bytes)),
                _ => Value::Unknown,
            };
        }
        let otherwise = if i.mnemonic() == M::Movzx { Value::AtMost(narrow(bytes)) } else { Value::Unknown };
        let (Some(base), Some(index)) = (number(i.memory_base()), number(i.memory_index())) else {
            return otherwise;
        };
        let is_entry =
            bytes == 4 && matches!(i.mnemonic(), M::Movsxd | M::Mov) || bytes == 2 && i.mnemonic() == M::Movzx;
        let (table, most) = match (state.registers[base], state.registers[index], i.memory_index_scale()) {
            (Value::Address(table), Value::AtMost(most), scale) if scale as usize == bytes => {
                (table, known_index(most))
            }
            (Value::Address(table), Value::Scaled(most), 1) => (table, known_index(most)),
            (Value::Scaled(most), Value::Address(table), 1) => (table, known_index(most)),
            (Value::Address(table), _, scale) if scale as usize == bytes => (table, None),
            _ => return otherwise,
        };
        match table.checked_add_signed(i.memory_displacement64() as i32) {
            Some(table) if is_entry => Value::Entry(Offsets { table, most, bytes: bytes as u8 }),
            _ => otherwise,
        }
    }

    fn lea(&self, i: &Instruction, whole: bool, state: &State) -> Value {
        if i.is_ip_rel_memory_operand() {
            return self.offset(i.ip_rel_memory_address()).map_or(Value::Unknown, Value::Address);
        }
        if let Some((base, offset)) = address(i, state) {
            return if whole { Value::Frame(base, offset) } else { Value::Unknown };
        }
        let index = number(i.memory_index()).map(|index| state.registers[index]);
        match (i.memory_base(), index, i.memory_index_scale()) {
            (Register::None, Some(Value::AtMost(most)), 4) if i.memory_displacement64() == 0 => Value::Scaled(most),
            _ => Value::Unknown,
        }
    }

    /// The stack pointer, or a copy of it, is aligned.
    fn align(&self, i: &Instruction, register: usize, state: &mut State) {
        let mask = if is_immediate(i.op1_kind()) { i.immediate(1) as i64 } else { 0 };
        let is_alignment = i.op0_register().size() == 8 && mask < 0 && mask.unsigned_abs().is_power_of_two();
        let value = match self.offset(i.ip()) {
            Some(at) if is_alignment => {
                state.forget(Base::Aligned(at));
                Value::Frame(Base::Aligned(at), 0)
            }
            _ => Value::Unknown,
        };
        state.set(register, value);
    }

    fn compared(&self, i: &Instruction, state: &State) -> Option<Compared> {
        if i.op1_kind() == OpKind::Register {
            return match (i.op0_register(), i.op1_register()) {
                (Register::RSP, other) | (other, Register::RSP) => Some(Compared::StackPointer(number(other)? as u8)),
                _ => None,
            };
        }
        let number_of = is_immediate(i.op1_kind()).then(|| u32::try_from(i.immediate(1)).ok())??;
        match i.op0_kind() {
            OpKind::Register => Some(Compared::Register(number(i.op0_register())? as u8, number_of)),
            OpKind::Memory => {
                let (base, offset) = address(i, state)?;
                Some(Compared::Slot(base, offset, number_of))
            }
            _ => None,
        }
    }

    /// A store by the first operand.
    fn store(&self, i: &Instruction, state: &mut State, value: Value) {
        if let Some((base, offset)) = address(i, state) {
            let bytes = i.memory_size().size() as i32;
            // Numbers may be shorter than a word.
            let is_kept = bytes == 8 || bytes == 4 && matches!(value, Value::AtMost(_));
            state.store(base, offset, bytes.max(1), if is_kept { value } else { Value::Unknown });
        }
    }

    /// The registers that an instruction may write, a bit for each.
    pub fn written(&mut self, i: &Instruction) -> u16 {
        if i.mnemonic() == Mnemonic::Syscall {
            return u16::MAX;
        }
        let used = self.info.info(i).used_registers().iter();
        let written = used.filter(|used| is_written(used.access())).filter_map(|used| number(used.register()));
        written.fold(0, |mask, register| mask | 1 << register)
    }

    /// What is not looked at in particular: what it writes is not known any more.
    fn anything(&mut self, i: &Instruction, state: &mut State) {
        let moved = if i.is_stack_instruction() { i.stack_pointer_increment() } else { 0 };
        let info = self.info.info(i);
        let sp = state.sp();
        for used in info.used_registers() {
            if is_written(used.access())
                && let Some(register) = number(used.register())
            {
                state.set(register, Value::Unknown);
            }
        }
        for used in info.used_memory() {
            let base = number(used.base()).filter(|_| used.index() == Register::None);
            // Of the stack pointer it is known where it was before.
            let of = base.map(|base| if base == RSP { sp } else { state.registers[base] });
            if let Some(Value::Frame(base, offset)) = of
                && is_written(used.access())
                && let Some(at) = i32::try_from(used.displacement() as i64).ok().and_then(|by| offset.checked_add(by))
            {
                state.store(base, at, used.memory_size().size().max(1) as i32, Value::Unknown);
            }
        }
        if i.mnemonic() == Mnemonic::Syscall {
            state.set(0, Value::Unknown);
        }
        if i.is_stack_instruction() && i.mnemonic() != Mnemonic::Enter {
            state.registers[RSP] = sp;
            move_stack(state, moved);
        }
    }
}

fn is_written(access: OpAccess) -> bool {
    matches!(access, OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite)
}

/// The address of the memory operand, if it is one in the frame.
pub(super) fn address(i: &Instruction, state: &State) -> Option<(Base, i32)> {
    let is_plain = i.memory_index() == Register::None && !matches!(i.segment_prefix(), Register::FS | Register::GS);
    let Value::Frame(base, offset) = state.registers[number(i.memory_base()).filter(|_| is_plain)?] else {
        return None;
    };
    Some((base, offset.checked_add(i32::try_from(i.memory_displacement64() as i64).ok()?)?))
}

fn move_stack(state: &mut State, by: i32) {
    let moved = match state.sp() {
        Value::Frame(base, offset) => offset.checked_add(by).map(|offset| Value::Frame(base, offset)),
        _ => None,
    };
    state.set(RSP, moved.unwrap_or(Value::Unknown));
}

fn store_at(state: &mut State, at: Value, bytes: i32, value: Value) {
    if let Value::Frame(base, offset) = at {
        state.store(base, offset, bytes, value);
    }
}

/// The highest index of a table; that a byte or a half of a word was read says nothing of it.
fn known_index(most: u32) -> Option<u16> {
    u16::try_from(most).ok().filter(|&most| !matches!(most, 0xff | 0xffff))
}

/// The highest number of so many bytes.
fn narrow(bytes: usize) -> u32 {
    match bytes {
        1 => 0xff,
        2 => 0xffff,
        _ => u32::MAX,
    }
}

fn is_immediate(kind: OpKind) -> bool {
    matches!(
        kind,
        OpKind::Immediate8
            | OpKind::Immediate16
            | OpKind::Immediate32
            | OpKind::Immediate64
            | OpKind::Immediate8to16
            | OpKind::Immediate8to32
            | OpKind::Immediate8to64
            | OpKind::Immediate32to64
    )
}

fn is_vector(i: &Instruction) -> bool {
    i.op0_kind() == OpKind::Register && number(i.op0_register()).is_none()
}

/// String comparisons have their result in `ecx`, which is no operand.
fn writes_ecx(mnemonic: Mnemonic) -> bool {
    use Mnemonic as M;
    matches!(mnemonic, M::Pcmpestri | M::Pcmpistri | M::Vpcmpestri | M::Vpcmpistri | M::Pcmpestri64 | M::Vpcmpestri64)
}
