//! `Place`: an instruction in a file to which a probe can be attached, and `Refusal`: one to which none can, and why.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use object::elf::EM_X86_64;

use super::code;
use super::image::Image;
use super::usdt::Argument;
use crate::target::Module;

/// Where a probe can be attached.
#[derive(Clone, Debug)]
pub struct Place {
    /// The file: its path as the process sees it, its build id, and itself, open.
    pub module: Arc<Module>,
    /// The symbol as the file has it; empty where there is none.
    pub symbol: String,
    /// Its name for people: demangled.
    pub name: String,
    /// Other symbols of the same address, as the file has them.
    pub aliases: Vec<String>,
    /// Address in the file's own address space.
    pub address: u64,
    /// Offset in the file: what the kernel is told.
    pub file_offset: u64,
    /// Bytes of the function, from its start; 0 where it is not known.
    pub size: u64,
    /// What is there.
    pub kind: Kind,
    /// The file was made by Go: its stacks move, so that no return address may be replaced, and calls belong to goroutines. A
    /// function whose stack has to grow begins anew, so its entry may be seen more than once for one call.
    pub is_go: bool,
    /// The file that was named, if it only imports the function.
    pub imported_by: Option<String>,
}

/// What is at a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A function begins.
    Entry,
    /// An instruction, so many bytes into its function; `None` if no function is known around it.
    Instruction(Option<u64>),
    /// A static tracepoint.
    Usdt {
        /// Whose it is.
        provider: String,
        /// What it is called.
        name: String,
        /// File offset of the counter that is above zero while somebody listens (`ref_ctr_offset`).
        semaphore: Option<u64>,
        /// Where its arguments are.
        arguments: Vec<Argument>,
    },
}

impl Place {
    /// File offsets that the function calls or jumps to directly, in its own file; none where its code is not understood.
    pub fn callees(&self) -> BTreeSet<u64> {
        let bytes = || {
            let image = Image::open(self.module.file()?).ok()?;
            let is_known = image.machine == EM_X86_64 && (1..=code::MAX_FUNCTION).contains(&self.size);
            image.bytes(self.file_offset, self.size).filter(|_| is_known)
        };
        bytes().map(|bytes| code::callees(&bytes, self.file_offset)).unwrap_or_default()
    }

    /// File offsets of the return instructions by which a call ends, also those of functions to which this one jumps, but
    /// not through `others`: file offsets of functions that are looked at themselves.
    pub fn ends(&self, others: &BTreeSet<u64>) -> Result<BTreeSet<u64>> {
        /// Most blocks of code are shorter.
        const PIECE: u64 = 256;
        let what = || format!("{} in {}", self.name, self.module.path);
        let image = Image::open(self.module.file().context("the file is not open")?).with_context(what)?;
        ensure!(image.machine == EM_X86_64, "{}: only instructions of x86-64 are understood", what());
        let code = |offset| {
            let segment =
                image.segments.iter().find(|s| s.executable && offset >= s.offset && offset - s.offset < s.size)?;
            image.bytes(offset, PIECE.min(segment.offset + segment.size - offset))
        };
        let mut ends = match code::reached_returns(self.file_offset, others, code) {
            Ok(ends) => ends,
            Err(reason) => bail!("{}: {reason}", what()),
        };
        ends.retain(|&offset| code(offset).is_some_and(|bytes| code::refused(&bytes).is_none()));
        Ok(ends)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.module.path.rsplit('/').next().unwrap_or_default();
        match &self.kind {
            Kind::Entry | Kind::Instruction(_) if self.name.is_empty() => write!(f, "{file}@{:#x}", self.address),
            Kind::Entry => write!(f, "{file}:{}", self.name),
            Kind::Instruction(Some(offset)) => write!(f, "{file}:{}+{offset:#x}", self.name),
            Kind::Instruction(None) => write!(f, "{file}@{:#x}", self.address),
            Kind::Usdt { provider, name, .. } => write!(f, "usdt:{file}:{provider}:{name}"),
        }
    }
}

/// What was found, but cannot be probed.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// The file.
    pub module: Arc<Module>,
    /// Its name for people.
    pub name: String,
    /// Address in the file's own address space.
    pub address: u64,
    /// Why not.
    pub reason: Reason,
}

/// Why something cannot be probed.
#[derive(Clone, Debug)]
pub enum Reason {
    /// A variable.
    Data,
    /// The address is not in an executable segment, or the file has no bytes there.
    NotExecutable,
    /// A symbol without a size: where it ends, and whether it is a function, is not known.
    NoSize,
    /// An indirect function (`STT_GNU_IFUNC`): its symbol leads to the code that chooses, once, among these.
    Indirect(Vec<Place>),
    /// The part of a function that is seldom used: it is jumped to, so it has no caller to return to.
    ColdPart,
    /// The offset is behind the function's end.
    BehindEnd(u64),
    /// No instruction begins there: a probe would destroy the one around it.
    WithinInstruction,
    /// The file does not say where instructions begin there: a probe might destroy one.
    Unknown,
    /// The kernel puts no probe on the instruction.
    Instruction(&'static str),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Data => f.write_str("it is data, not a function"),
            Self::NotExecutable => f.write_str("it is not in executable code"),
            Self::NoSize => f.write_str("its symbol has no size, so it may be no function"),
            Self::Indirect(places) if places.is_empty() => {
                f.write_str("it is chosen when the program is loaded (ifunc), and its implementations have no names")
            }
            Self::Indirect(places) => {
                let count = places.len();
                write!(f, "it is chosen when the program is loaded (ifunc), as far as its code shows among {count}")
            }
            Self::ColdPart => f.write_str("it is the cold part of a function, which is jumped to and not called"),
            Self::BehindEnd(size) => write!(f, "the function has only {size:#x} bytes"),
            Self::WithinInstruction => f.write_str("no instruction begins there"),
            Self::Unknown => f.write_str(
                "neither symbols nor unwinding information say that an instruction begins there, and a probe within one would \
                 destroy it",
            ),
            Self::Instruction(reason) => f.write_str(reason),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}: {}", self.name, self.module.path, self.reason)
    }
}
