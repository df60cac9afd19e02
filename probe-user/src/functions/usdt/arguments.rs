//! Where a static tracepoint's arguments are: the text that the compiler's assembler left in its note, as `8@-16(%rbp)`.

use crate::kernel::Operand;

/// More than a tracepoint can have (twelve).
const MAX_ARGUMENTS: usize = 16;

/// An argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument {
    /// Bytes of it: 1, 2, 4 or 8.
    pub size: u8,
    /// It may be below zero.
    pub is_signed: bool,
    /// It is a floating-point number.
    pub is_float: bool,
    /// Where it is.
    pub value: Value,
}

/// Where an argument is when its tracepoint is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// It always is this.
    Constant(i64),
    /// In a register.
    Register(Register),
    /// In memory, at the sum of these.
    Memory {
        /// A register.
        base: Option<Register>,
        /// Another one, and what it is multiplied by.
        index: Option<(Register, u8)>,
        /// A constant.
        displacement: i64,
    },
    /// Written in a way that is not understood: the text.
    Unknown(String),
}

impl Argument {
    /// How the kernel programs find it: in a register, or in memory that one points to. `None` for whatever else there is.
    pub fn operand(&self) -> Option<Operand> {
        let bits = u32::from(self.size) * 8;
        let operand = Operand { bits, ..Operand::default() };
        match &self.value {
            _ if self.is_float => None,
            Value::Register(register) => Some(Operand { source: register.number()?, ..operand }),
            Value::Memory { base: Some(base), index: None, displacement } => {
                Some(Operand { source: base.number()?, reads: 1, offsets: [*displacement, 0, 0], ..operand })
            }
            _ => None,
        }
    }
}

impl Register {
    /// Its number in DWARF (System V ABI for AMD64, figure 3.36), if it is a general one.
    fn number(self) -> Option<u32> {
        const NAMES: [&str; 16] = [
            "rax", "rdx", "rcx", "rbx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
            "r15",
        ];
        let number = NAMES.iter().position(|name| *name == self.name)?;
        (!self.is_high_byte).then_some(number as u32)
    }
}

/// A register of x86-64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register {
    /// The name of the whole of it: `rdi`, `r8`, `rip`, `xmm0`.
    pub name: &'static str,
    /// It is the second lowest byte (`ah`) that is meant.
    pub is_high_byte: bool,
}

/// The arguments in a note's text, in their order.
pub(super) fn parse(text: &str) -> Vec<Argument> {
    let mut found: Vec<Argument> = Vec::new();
    for word in text.split_whitespace().take(MAX_ARGUMENTS) {
        // Without a size it may be what follows a space within an operand; as an argument of its own it is unknown.
        let (size, operand) = word.split_once('@').unwrap_or(("8", word));
        let (is_signed, digits) = size.strip_prefix('-').map_or((false, size), |digits| (true, digits));
        let (is_float, digits) = digits.strip_suffix('f').map_or((false, digits), |digits| (true, digits));
        let size = digits.parse().ok().filter(|size| [1, 2, 4, 8].contains(size));
        let value = if size.is_some() { locate(operand) } else { None };
        let value = value.unwrap_or_else(|| Value::Unknown(crate::text::sanitize(word)));
        found.push(Argument { size: size.unwrap_or(8), is_signed, is_float, value });
    }
    found
}

fn locate(operand: &str) -> Option<Value> {
    if let Some(constant) = operand.strip_prefix('$') {
        return Some(Value::Constant(number(constant)?));
    }
    if let Some(name) = operand.strip_prefix('%').filter(|name| !name.contains(':')) {
        return Some(Value::Register(register(name)?));
    }
    let (displacement, address) = operand.split_once('(')?;
    let displacement = if displacement.is_empty() { 0 } else { number(displacement)? };
    let mut parts = address.strip_suffix(')')?.split(',').map(str::trim);
    let optional = |part: &str| match part.strip_prefix('%') {
        Some(name) => register(name).map(Some),
        None => part.is_empty().then_some(None),
    };
    let base = optional(parts.next()?)?;
    let index = match parts.next() {
        None => None,
        Some(part) => Some((optional(part)??, parts.next().map_or(Some(1), |scale| scale.parse().ok())?)),
    };
    let is_whole = parts.next().is_none() && (base.is_some() || index.is_some());
    is_whole.then_some(Value::Memory { base, index, displacement })
}

/// Decimal or hexadecimal; the assembler also leaves sums such as `16+8`.
fn number(text: &str) -> Option<i64> {
    let mut sum: i64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let (negative, unsigned) = match rest.as_bytes()[0] {
            b'-' => (true, &rest[1..]),
            b'+' => (false, &rest[1..]),
            _ => (false, rest),
        };
        let end = unsigned.find(['+', '-']).unwrap_or(unsigned.len());
        let digits = &unsigned[..end];
        let magnitude = match digits.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16).ok()?,
            None => digits.parse::<u64>().ok()?,
        };
        // A constant of 64 bits without a sign keeps its bits.
        let magnitude = magnitude as i64;
        sum = if negative { sum.wrapping_sub(magnitude) } else { sum.wrapping_add(magnitude) };
        rest = &unsigned[end..];
    }
    (!text.is_empty()).then_some(sum)
}

fn register(name: &str) -> Option<Register> {
    /// Names of 64, 32, 16 and 8 bits.
    const LEGACY: [[&str; 4]; 9] = [
        ["rax", "eax", "ax", "al"],
        ["rbx", "ebx", "bx", "bl"],
        ["rcx", "ecx", "cx", "cl"],
        ["rdx", "edx", "dx", "dl"],
        ["rsi", "esi", "si", "sil"],
        ["rdi", "edi", "di", "dil"],
        ["rbp", "ebp", "bp", "bpl"],
        ["rsp", "esp", "sp", "spl"],
        ["rip", "eip", "ip", ""],
    ];
    const NUMBERED: [&str; 8] = ["r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"];
    const VECTORS: [&str; 16] = [
        "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12",
        "xmm13", "xmm14", "xmm15",
    ];
    const HIGH: [(&str, &str); 4] = [("ah", "rax"), ("bh", "rbx"), ("ch", "rcx"), ("dh", "rdx")];
    if let Some((_, name)) = HIGH.iter().find(|(high, _)| *high == name) {
        return Some(Register { name, is_high_byte: true });
    }
    let legacy = LEGACY.iter().find(|names| names.contains(&name)).map(|names| names[0]);
    let numbered = || NUMBERED.into_iter().find(|whole| *whole == name.trim_end_matches(['d', 'w', 'b']));
    let vector = || VECTORS.into_iter().find(|whole| *whole == name);
    let whole = legacy.filter(|_| !name.is_empty()).or_else(numbered).or_else(vector)?;
    Some(Register { name: whole, is_high_byte: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_register(name: &'static str) -> Register {
        Register { name, is_high_byte: false }
    }

    fn one(text: &str) -> Value {
        let mut arguments = parse(text);
        assert_eq!(arguments.len(), 1, "{text}");
        arguments.remove(0).value
    }

    #[test]
    fn operands_of_x86_are_understood() {
        let memory = |base, index, displacement| Value::Memory { base: Some(in_register(base)), index, displacement };
        assert_eq!(one("-4@%edi"), Value::Register(in_register("rdi")));
        assert_eq!(one("1@%r8b"), Value::Register(in_register("r8")));
        assert_eq!(one("1@%ah"), Value::Register(Register { name: "rax", is_high_byte: true }));
        assert_eq!(one("8f@%xmm1"), Value::Register(in_register("xmm1")));
        assert_eq!(one("-4@$-5"), Value::Constant(-5));
        assert_eq!(one("8@$18446744073709551615"), Value::Constant(-1));
        assert_eq!(one("8@-8(%rbp)"), memory("rbp", None, -8));
        assert_eq!(one("8@16+8(%rsp)"), memory("rsp", None, 24));
        assert_eq!(one("8@(%rax,%rbx,4)"), memory("rax", Some((in_register("rbx"), 4)), 0));
        let index_alone = Value::Memory { base: None, index: Some((in_register("rbx"), 8)), displacement: 0x10 };
        assert_eq!(one("8@0x10(,%rbx,8)"), index_alone);
    }

    #[test]
    fn the_kernel_is_told_of_registers_and_what_they_point_to() {
        let operand = |text: &str| parse(text)[0].operand();
        let in_rdi = Operand { source: 5, bits: 32, ..Operand::default() };
        assert_eq!(operand("-4@%edi"), Some(in_rdi));
        let on_the_stack = Operand { source: 7, reads: 1, offsets: [24, 0, 0], bits: 64, padding: 0 };
        assert_eq!(operand("8@24(%rsp)"), Some(on_the_stack));
        for text in ["1@%ah", "8f@%xmm0", "8f@8(%rsp)", "8@$5", "8@(%rax,%rbx,4)", "8@8(%rip)"] {
            assert_eq!(operand(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_and_signs_are_kept() {
        let arguments = parse("-4@%edi 8f@%xmm0 2@$1");
        let shapes: Vec<_> = arguments.iter().map(|a| (a.size, a.is_signed, a.is_float)).collect();
        assert_eq!(shapes, [(4, true, false), (8, false, true), (2, false, false)]);
        assert!(parse("").is_empty());
    }

    #[test]
    fn what_is_not_understood_is_kept_as_text() {
        for text in ["8@counter(%rip)", "3@%rax", "8@%nope", "8@(", "8@()", "8@8", "@", "%rax(", "8@%fs:0(%rax)", "8@$"]
        {
            assert_eq!(one(text), Value::Unknown(text.to_owned()), "{text}");
        }
        assert_eq!(parse(&"8@%rax ".repeat(1000)).len(), MAX_ARGUMENTS);
    }
}
