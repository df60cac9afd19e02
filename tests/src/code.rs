//! The code of a running program, as it is in its memory.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// A function of a process.
pub struct Code {
    memory: File,
    address: u64,
    size: usize,
}

impl Code {
    /// Finds a function of the program that a process runs, by its symbol.
    pub fn of(pid: u32, program: &Path, symbol: &str) -> Result<Self> {
        let output = Command::new("nm").arg("-S").arg(program).output().context("cannot run nm")?;
        let symbols = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = symbols.lines().find(|line| line.split(' ').nth(3) == Some(symbol));
        let mut words = line.with_context(|| format!("no symbol {symbol}"))?.split(' ');
        let mut number = || u64::from_str_radix(words.next().unwrap_or_default(), 16);
        let (value, size) = (number()?, number()?);
        let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
        let program = fs::canonicalize(program)?;
        let program = program.to_string_lossy();
        let first = maps.lines().find(|line| line.ends_with(&*program)).context("the program is not mapped")?;
        let base = first.split('-').next().unwrap_or_default();
        // Of a position-independent program, whose addresses begin with 0.
        let address = u64::from_str_radix(base, 16)? + value;
        Ok(Self { memory: File::open(format!("/proc/{pid}/mem"))?, address, size: size as usize })
    }

    /// Its bytes, all of them.
    pub fn bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = vec![0; self.size];
        self.memory.read_exact_at(&mut bytes, self.address).context("cannot read the code")?;
        Ok(bytes)
    }

    /// Whether a probe is at its first instruction.
    pub fn is_probed(&self) -> bool {
        self.bytes().is_ok_and(|bytes| bytes.first() == Some(&0xcc))
    }

    /// The same, of a function that must not be probed now: its bytes.
    pub fn untouched(&self) -> Result<Vec<u8>> {
        ensure!(!self.is_probed(), "it is probed already");
        self.bytes()
    }
}
