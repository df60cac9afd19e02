//! The code of a running program, as it is in its memory.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Bytes of a function that are looked at.
const BYTES: usize = 24;

/// A function of a process.
pub struct Code {
    memory: File,
    address: u64,
}

impl Code {
    /// Finds a function of the program that a process runs, by its symbol.
    pub fn of(pid: u32, program: &Path, symbol: &str) -> Result<Self> {
        let output = Command::new("nm").arg(program).output().context("cannot run nm")?;
        let symbols = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = symbols.lines().find(|line| line.split(' ').nth(2) == Some(symbol));
        let value = line.and_then(|line| line.split(' ').next()).with_context(|| format!("no symbol {symbol}"))?;
        let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
        let program = fs::canonicalize(program)?;
        let program = program.to_string_lossy();
        let first = maps.lines().find(|line| line.ends_with(&*program)).context("the program is not mapped")?;
        let base = first.split('-').next().unwrap_or_default();
        // Of a position-independent program, whose addresses begin with 0.
        let address = u64::from_str_radix(base, 16)? + u64::from_str_radix(value, 16)?;
        Ok(Self { memory: File::open(format!("/proc/{pid}/mem"))?, address })
    }

    /// Its first bytes.
    pub fn bytes(&self) -> Result<[u8; BYTES]> {
        let mut bytes = [0; BYTES];
        self.memory.read_exact_at(&mut bytes, self.address).context("cannot read the code")?;
        Ok(bytes)
    }

    /// Whether a probe is at its first instruction.
    pub fn is_probed(&self) -> bool {
        self.bytes().is_ok_and(|bytes| bytes[0] == 0xcc)
    }

    /// The same, of a function that must not be probed now: its bytes.
    pub fn untouched(&self) -> Result<[u8; BYTES]> {
        ensure!(!self.is_probed(), "it is probed already");
        self.bytes()
    }
}
