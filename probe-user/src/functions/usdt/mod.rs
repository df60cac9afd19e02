//! Static tracepoints (USDT): notes in which a file says where they are, whether they want a counter raised while somebody
//! listens, and where their arguments are.

mod arguments;

pub use arguments::{Argument, Register, Value};
use object::elf::SHT_NOTE;

use super::image::{Image, string_at};

/// More than any file has: the JVM has 500.
const MAX_PROBES: usize = 1 << 16;
const NOTE_TYPE: u32 = 3;

/// A tracepoint as a note describes it; addresses are those of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Probe {
    pub provider: String,
    pub name: String,
    pub address: u64,
    /// Address of the counter.
    pub semaphore: Option<u64>,
    pub arguments: Vec<Argument>,
}

/// All tracepoints of a file.
pub(super) fn probes(image: &Image<'_>) -> Vec<Probe> {
    // Where a file was moved after it was linked, the notes were not: this section was.
    let base = image.section(".stapsdt.base").map(|section| section.address);
    let sections = image.sections.iter().filter(|s| s.kind == SHT_NOTE && s.name.starts_with(".note.stapsdt"));
    let bytes = sections.filter_map(|section| image.data(section));
    bytes.flat_map(|bytes| notes(&bytes, base)).take(MAX_PROBES).collect()
}

fn notes(mut bytes: &[u8], base: Option<u64>) -> Vec<Probe> {
    let mut found = Vec::new();
    while let Some((note, rest)) = note(bytes) {
        bytes = rest;
        if note.kind == NOTE_TYPE && note.owner == b"stapsdt\0" && found.len() < MAX_PROBES {
            found.extend(probe(note.description, base));
        }
    }
    found
}

struct Note<'data> {
    kind: u32,
    owner: &'data [u8],
    description: &'data [u8],
}

/// Takes a note off, and returns what follows as well.
fn note(bytes: &[u8]) -> Option<(Note<'_>, &[u8])> {
    let word = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
    let (name_size, size, kind) = (word(0)? as usize, word(4)? as usize, word(8)?);
    let description = 12_usize.checked_add(name_size)?.checked_next_multiple_of(4)?;
    let end = description.checked_add(size)?;
    let owner = bytes.get(12..12 + name_size)?;
    // The last one need not be filled up.
    let rest = bytes.get(end.checked_next_multiple_of(4)?..).unwrap_or_default();
    Some((Note { kind, owner, description: bytes.get(description..end)? }, rest))
}

fn probe(description: &[u8], base: Option<u64>) -> Option<Probe> {
    let word = |number: usize| Some(u64::from_le_bytes(*description.get(8 * number..)?.first_chunk()?));
    let (address, linked_base, semaphore) = (word(0)?, word(1)?, word(2)?);
    let moved = base.map_or(0, |base| base.wrapping_sub(linked_base));
    let provider = string_at(description, 24)?;
    let name_at = 24 + provider.len() + 1;
    let name = string_at(description, name_at)?;
    let arguments = string_at(description, name_at + name.len() + 1).unwrap_or_default();
    Some(Probe {
        provider: provider.to_owned(),
        name: name.to_owned(),
        address: address.wrapping_add(moved),
        semaphore: (semaphore != 0).then(|| semaphore.wrapping_add(moved)),
        arguments: arguments::parse(arguments),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A note as `<sys/sdt.h>` makes it.
    fn made(provider: &str, name: &str, arguments: &str, words: [u64; 3]) -> Vec<u8> {
        let mut description: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        description.extend([provider, name, arguments].iter().flat_map(|text| text.bytes().chain([0])));
        let header = [8, description.len() as u32, NOTE_TYPE].map(u32::to_le_bytes).concat();
        let mut bytes = [header, b"stapsdt\0".to_vec(), description].concat();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn notes_are_read_and_moved_with_their_base() {
        let bytes =
            [made("libx", "begin", "-4@%edi 8@$5", [0x100, 0x50, 0]), made("libx", "end", "", [0x200, 0x50, 0x400])]
                .concat();
        let found = notes(&bytes, Some(0x60));
        let places: Vec<_> = found.iter().map(|p| (p.name.as_str(), p.address, p.semaphore)).collect();
        assert_eq!(places, [("begin", 0x110, None), ("end", 0x210, Some(0x410))]);
        assert_eq!((found[0].arguments.len(), found[1].arguments.len()), (2, 0));
        assert_eq!(notes(&bytes, None)[0].address, 0x100);
    }

    #[test]
    fn damaged_notes_are_survived() {
        let bytes = made("libx", "begin", "-4@%edi", [1, 2, 3]).repeat(2);
        for at in 0..bytes.len() {
            assert!(notes(&bytes[..at], None).len() <= 2);
            for value in [0, 1, 0x7f, 0xff] {
                let mut damaged = bytes.clone();
                damaged[at] = value;
                let _ = notes(&damaged, Some(7));
            }
        }
    }
}
