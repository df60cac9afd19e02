//! `Text`: the code of a process in its memory, at the places of probes. A probe goes by the file: the kernel puts a trap over
//! the first byte in memory, plays the instruction that the file has there, and writes the file's byte back when the probe
//! goes (kernel/events/uprobes.c, `set_swbp`, `prepare_uprobe`, `set_orig_insn`). In a program that has patched its code (hooks,
//! live patches, agents) that runs what was replaced, or halves of both. So no probe is set where memory differs from the file,
//! and when it is set its trap is looked for, because the kernel sets none, and says nothing, where the process maps another
//! inode than the one that was named.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use super::uprobes::Wanted;
use crate::target::{Mapping, folder, parse_maps};

/// The instruction that the kernel puts in the place of another: int3.
const TRAP: u8 = 0xcc;
/// The kernel copies so many bytes of the file, to play the first instruction in them (`MAX_UINSN_BYTES`).
const LENGTH: usize = 16;
/// A `nop` of five bytes, which newer kernels replace by a call of a page of their own instead of a trap.
const NOP: [u8; 5] = [0x0f, 0x1f, 0x44, 0x00, 0x00];
/// How that page is named among the mappings.
const TRAMPOLINE: &str = "[uprobes";

/// Why no probe is set at a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// In words.
    pub reason: String,
    /// The process has ended or cannot be read: nothing is known against it.
    pub is_gone: bool,
}

impl Refused {
    pub(super) fn gone(reason: String) -> Self {
        Self { reason, is_gone: true }
    }

    /// A process that runs something else than its file has.
    pub fn patched(reason: String) -> Self {
        Self { reason, is_gone: false }
    }

    /// What to do then.
    pub const HINT: &str = "the same function can be timed in a process that nothing has patched, or one that calls it here; \
                            `probe record` samples it without any probe";
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Refused {}

/// See the head of this file.
pub struct Text {
    pid: u32,
    memory: File,
    places: Vec<Place>,
    trampolines: Vec<Mapping>,
}

/// A place as one process has it mapped.
struct Place {
    /// Which of those that are wanted.
    at: usize,
    address: u64,
    /// What the file has there; less at its end.
    code: Vec<u8>,
    /// The path of the mapping.
    path: String,
    offset: u64,
}

/// What memory has at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// What the file has.
    Original,
    /// The same with a trap.
    Trap,
    /// Something else.
    Patched,
}

impl Text {
    /// Where a process has these places: in none that it has not mapped yet, in several that it has mapped more than once.
    /// What they should have is read from the files of `real`, which are in the same order.
    pub fn of(pid: u32, wanted: &[Wanted], real: &[Wanted]) -> Result<Self, Refused> {
        let unreadable = |error| Refused::gone(format!("the code of pid {pid} cannot be read: {error}"));
        let folder = folder(pid);
        let maps = fs::read(folder.join("maps")).ok().filter(|maps| !maps.is_empty());
        let maps = maps.ok_or_else(|| Refused::gone(format!("pid {pid} has ended")))?;
        let memory = File::open(folder.join("mem")).map_err(unreadable)?;
        let maps: Vec<Mapping> = parse_maps(&String::from_utf8_lossy(&maps)).collect();
        let mut places = Vec::with_capacity(wanted.len());
        let mut pairs: Vec<(usize, (&Wanted, &Wanted))> = wanted.iter().zip(real).enumerate().collect();
        pairs.sort_by(|(_, (one, _)), (_, (other, _))| (&one.file, one.offset).cmp(&(&other.file, other.offset)));
        for alike in pairs.chunk_by(|(_, (one, _)), (_, (other, _))| one.file == other.file) {
            let (_, (wanted, real)) = alike[0];
            let of_file = mappings_of(&open(&wanted.file).map_err(unreadable)?, &maps, &folder).map_err(unreadable)?;
            let file = open(&real.file).map_err(unreadable)?;
            for (at, (wanted, _)) in alike {
                let code = code(&file, wanted.offset).map_err(unreadable)?;
                let inside = of_file.iter().filter(|mapping| contains(mapping, wanted.offset));
                places.extend(inside.map(|mapping| Place {
                    at: *at,
                    address: mapping.start + (wanted.offset - mapping.file_offset),
                    code: code.clone(),
                    path: mapping.path.clone(),
                    offset: wanted.offset,
                }));
            }
        }
        let trampolines = maps.into_iter().filter(|mapping| mapping.path.starts_with(TRAMPOLINE)).collect();
        Ok(Self { pid, memory, places, trampolines })
    }

    /// Whether memory has what the file has. A trap that somebody else has set is no difference: the kernel lets several
    /// have probes at one place. A debugger's is one: the kernel would take it for its own, and remove it.
    pub fn is_as_in_file(&self) -> Result<(), Refused> {
        for place in &self.places {
            match self.state(place) {
                Some(State::Patched) => return Err(self.patched(place)),
                Some(State::Trap) if tracer(self.pid).is_some() => {
                    let Self { pid, .. } = self;
                    return Err(Refused::patched(format!("a debugger of pid {pid} has a breakpoint at {place}")));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The first of those that were wanted which has no trap. Fails where something was patched.
    pub fn without_trap(&self) -> Result<Option<usize>, Refused> {
        let mut missing = None;
        for place in &self.places {
            match self.state(place) {
                Some(State::Patched) => return Err(self.patched(place)),
                Some(State::Original) => missing = missing.or(Some(place.at)),
                Some(State::Trap) | None => {}
            }
        }
        Ok(missing)
    }

    /// True while one of the traps is there; `None` if the process is gone.
    pub fn has_traps(&self) -> Option<bool> {
        let mut has_traps = false;
        for place in &self.places {
            has_traps |= self.state(place)? == State::Trap;
        }
        Some(has_traps)
    }

    /// True if no place is mapped.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The path by which the process has mapped a place that was wanted; empty if it has not.
    pub fn path(&self, at: usize) -> &str {
        self.places.iter().find(|place| place.at == at).map_or("", |place| &place.path)
    }

    /// What a place is called: file and offset.
    pub fn name(&self, at: usize) -> String {
        self.places.iter().find(|place| place.at == at).map(Place::to_string).unwrap_or_default()
    }

    fn patched(&self, place: &Place) -> Refused {
        let Self { pid, .. } = self;
        Refused::patched(format!(
            "pid {pid} has other code in memory at {place} than its file has: a hook, a live patch or an agent has changed it"
        ))
    }

    /// `None` where memory cannot be read: the process is gone, or has unmapped it.
    fn state(&self, place: &Place) -> Option<State> {
        let mut memory = [0; LENGTH];
        let length = self.memory.read_at(&mut memory, place.address).ok()?.min(place.code.len());
        let (memory, code) = (&memory[..length], &place.code[..length]);
        if self.is_call_of_kernel(place.address, memory, code) {
            return Some(State::Trap);
        }
        // Other probes stand in the bytes that follow.
        let differs = |(memory, code): (&u8, &u8)| memory != code && *memory != TRAP;
        Some(match memory.first()? {
            _ if memory.iter().zip(code).any(differs) => State::Patched,
            &TRAP => State::Trap,
            _ => State::Original,
        })
    }

    fn is_call_of_kernel(&self, address: u64, memory: &[u8], code: &[u8]) -> bool {
        let ([0xe8, distance @ ..], true) = (memory, code.starts_with(&NOP)) else { return false };
        let Some(distance) = distance.first_chunk() else { return false };
        let to = (address + NOP.len() as u64).wrapping_add_signed(i32::from_le_bytes(*distance).into());
        self.trampolines.iter().any(|mapping| (mapping.start..mapping.end).contains(&to))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.path.trim_end_matches(" (deleted)").rsplit('/').next().unwrap_or_default();
        write!(f, "{}+{:#x}", crate::text::sanitize(name), self.offset)
    }
}

fn open(path: &Path) -> std::io::Result<File> {
    // It may have become a pipe.
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)
}

fn code(file: &File, offset: u64) -> std::io::Result<Vec<u8>> {
    let mut code = vec![0; LENGTH];
    let length = file.read_at(&mut code, offset)?;
    code.truncate(length);
    Ok(code)
}

/// The mappings of a file. Where a file system numbers files in another way for `stat` than for `maps` (btrfs, overlays), what
/// `map_files` leads to is the same file.
fn mappings_of<'a>(file: &File, maps: &'a [Mapping], process: &Path) -> std::io::Result<Vec<&'a Mapping>> {
    let metadata = file.metadata()?;
    let device = (rustix::fs::major(metadata.dev()), rustix::fs::minor(metadata.dev()));
    let by_number = |mapping: &&Mapping| (mapping.device, mapping.inode) == (device, metadata.ino());
    let found: Vec<&Mapping> = maps.iter().filter(by_number).collect();
    if !found.is_empty() {
        return Ok(found);
    }
    let leads_to = |mapping: &&Mapping| {
        let link = process.join(format!("map_files/{:x}-{:x}", mapping.start, mapping.end));
        let led = mapping.inode != 0 && mapping.path.starts_with('/');
        led && fs::metadata(link).is_ok_and(|led| (led.dev(), led.ino()) == (metadata.dev(), metadata.ino()))
    };
    Ok(maps.iter().filter(leads_to).collect())
}

fn contains(mapping: &Mapping, offset: u64) -> bool {
    (mapping.file_offset..mapping.file_offset + (mapping.end - mapping.start)).contains(&offset)
}

/// Who traces a process, as a debugger does.
fn tracer(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"))?;
    tracer.trim().parse().ok().filter(|pid| *pid != 0)
}
