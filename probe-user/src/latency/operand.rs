//! `OperandSpec`: where a value is by which spans are paired, as people write it.
//!
//! ```text
//! arg0            the first argument of a function or a static tracepoint
//! arg1->0x18      the word 24 bytes behind where the second argument points to
//! arg0->8->16     and so on, up to three times
//! arg0:32         its lower 32 bits
//! ret             what the function returns
//! thread          the thread's id
//! ```

use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};

use crate::functions::{Kind, Place};
use crate::kernel::{MAX_READS, Operand, source};

/// Where a value is; see the head of this file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperandSpec {
    base: Base,
    offsets: Vec<i64>,
    bits: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Base {
    Argument(usize),
    Returned,
    Thread,
}

/// Registers of a function's arguments, by their DWARF numbers: System V ABI for AMD64, figure 3.4.
const C_ARGUMENTS: [u32; 6] = [5, 4, 1, 2, 8, 9];
/// The same for Go since 1.17 (abi-internal.md in its sources).
const GO_ARGUMENTS: [u32; 9] = [0, 3, 2, 5, 4, 8, 9, 10, 11];
/// `rax`, in both.
const RETURNED: u32 = 0;

impl FromStr for OperandSpec {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || format!("`{text}` is not a value: write arg0, arg1->0x18, ret or thread");
        let (path, bits) = match text.rsplit_once(':') {
            None => (text, 64),
            Some((path, bits @ ("8" | "16" | "32" | "64"))) => (path, bits.parse()?),
            Some(_) => bail!("{}; the number of bits is 8, 16, 32 or 64", wrong()),
        };
        let mut parts = path.split("->");
        let base = match parts.next().unwrap_or_default() {
            "ret" => Base::Returned,
            "thread" => Base::Thread,
            argument => {
                let number = argument.strip_prefix("arg").and_then(|number| number.parse().ok());
                Base::Argument(number.with_context(wrong)?)
            }
        };
        let offsets = parts.map(|part| number(part).with_context(wrong)).collect::<Result<Vec<_>>>()?;
        ensure!(offsets.len() <= MAX_READS, "`{text}`: at most {MAX_READS} pointers are followed");
        ensure!(base != Base::Thread || offsets.is_empty(), "`{text}`: a thread's id is not a pointer");
        Ok(Self { base, offsets, bits })
    }
}

fn number(text: &str) -> Option<i64> {
    match text.strip_prefix("0x") {
        Some(hex) => i64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

impl OperandSpec {
    /// True for what is known only when the function returns.
    pub fn is_returned(&self) -> bool {
        self.base == Base::Returned
    }

    /// Where it is at a place.
    pub fn at(&self, place: &Place) -> Result<Operand> {
        let (source, first, bits) = match (self.base, &place.kind) {
            (Base::Thread, _) => (source::THREAD, None, 64),
            (Base::Returned, Kind::Entry) => (RETURNED, None, 64),
            (Base::Returned, _) => bail!("{place} returns nothing"),
            (Base::Argument(number), Kind::Entry) => {
                let registers: &[u32] = if place.is_go { &GO_ARGUMENTS } else { &C_ARGUMENTS };
                let register = registers.get(number);
                (*register.with_context(|| format!("arg{number} is not in a register"))?, None, 64)
            }
            (Base::Argument(number), Kind::Usdt { arguments, .. }) => {
                let argument = arguments.get(number);
                let count = arguments.len();
                let argument = argument.with_context(|| format!("{place} has {count} arguments"))?;
                let operand = argument.operand();
                let Operand { source, reads, offsets, bits, .. } =
                    operand.with_context(|| format!("{place}: arg{number} is where it cannot be read"))?;
                (source, (reads > 0).then_some(offsets[0]), bits)
            }
            (Base::Argument(_), Kind::Instruction(_)) => bail!("{place}: arguments are known where a function begins"),
        };
        let all: Vec<i64> = first.into_iter().chain(self.offsets.iter().copied()).collect();
        ensure!(all.len() <= MAX_READS, "{place}: too many pointers to follow");
        let mut offsets = [0; MAX_READS];
        offsets[..all.len()].copy_from_slice(&all);
        // The width of an argument is its own, that of what it points to is the user's.
        let bits = if self.offsets.is_empty() { self.bits.min(bits) } else { self.bits };
        Ok(Operand { source, reads: all.len() as u32, offsets, bits, padding: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_people_write_them() {
        let spec = |base, offsets: &[i64], bits| OperandSpec { base, offsets: offsets.to_vec(), bits };
        for (text, expected) in [
            ("arg0", spec(Base::Argument(0), &[], 64)),
            ("arg3->0x18", spec(Base::Argument(3), &[24], 64)),
            ("arg1->8->-16:32", spec(Base::Argument(1), &[8, -16], 32)),
            ("ret:32", spec(Base::Returned, &[], 32)),
            ("thread", spec(Base::Thread, &[], 64)),
        ] {
            assert_eq!(text.parse::<OperandSpec>().unwrap(), expected, "{text}");
        }
        for bad in ["", "arg", "argx", "arg0->", "arg0:7", "arg0->1->2->3->4", "thread->8", "rdi"] {
            assert!(bad.parse::<OperandSpec>().is_err(), "{bad}");
        }
    }
}
