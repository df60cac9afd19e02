//! The little that is needed of an ELF file while its process lives: build id and segments. Files are hostile: every
//! read is bounded by the file and by the limits here.

use std::fs::File;

use anyhow::{Context, Result, ensure};
use object::elf::{FileHeader32, FileHeader64, NT_GNU_BUILD_ID, PF_X, PT_LOAD, PT_NOTE};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, FileKind, ReadCache, ReadRef};
use serde::{Deserialize, Serialize};

/// A note segment larger than this is not read.
const MAX_NOTE_BYTES: u64 = 1 << 20;
/// More program headers than any linker makes.
const MAX_SEGMENTS: usize = 512;
/// SHA-1 ids have 20 bytes, the longest in use 32.
const MAX_BUILD_ID: usize = 64;

/// A loadable segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Offset in the file.
    pub offset: u64,
    /// Length in the file.
    pub size: u64,
    /// Address in the file's own address space, as symbols use it.
    pub address: u64,
    /// True when code may be in it.
    pub executable: bool,
}

/// Build id (lower-case hex, empty when there is none) and loadable segments.
pub fn read(file: &File) -> Result<(String, Vec<Segment>)> {
    let cache = ReadCache::new(file);
    match FileKind::parse(&cache).context("not an ELF file")? {
        FileKind::Elf64 => read_class::<FileHeader64<Endianness>>(&cache),
        FileKind::Elf32 => read_class::<FileHeader32<Endianness>>(&cache),
        _ => anyhow::bail!("not an ELF file"),
    }
}

fn read_class<Header: FileHeader<Endian = Endianness>>(data: &ReadCache<&File>) -> Result<(String, Vec<Segment>)> {
    let header = Header::parse(data)?;
    let endian = header.endian()?;
    // Before they are read: where the count does not fit into the header, a hostile file may claim four billion.
    let count = usize::from(header.e_phnum(endian));
    ensure!(count <= MAX_SEGMENTS, "{count} program headers");
    let headers = header.program_headers(endian, data)?;
    let mut segments = Vec::new();
    let mut build_id = String::new();
    for header in headers {
        let size: u64 = header.p_filesz(endian).into();
        match header.p_type(endian) {
            PT_LOAD => segments.push(Segment {
                offset: header.p_offset(endian).into(),
                size,
                address: header.p_vaddr(endian).into(),
                executable: header.p_flags(endian) & PF_X != 0,
            }),
            PT_NOTE if size <= MAX_NOTE_BYTES && build_id.is_empty() => {
                let end = header.p_offset(endian).into().saturating_add(size);
                if data.len().is_ok_and(|length| end <= length) {
                    build_id = note(header, endian, data).unwrap_or_default();
                }
            }
            _ => {}
        }
    }
    Ok((build_id, segments))
}

fn note<Header: ProgramHeader<Endian = Endianness>>(
    header: &Header,
    endian: Endianness,
    data: &ReadCache<&File>,
) -> Option<String> {
    let mut notes = header.notes(endian, data).ok()??;
    while let Ok(Some(note)) = notes.next() {
        if note.name() == b"GNU" && note.n_type(endian) == NT_GNU_BUILD_ID && note.desc().len() <= MAX_BUILD_ID {
            return Some(note.desc().iter().map(|byte| format!("{byte:02x}")).collect());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn our_own_binary_is_read() {
        let (build_id, segments) = read(&File::open("/proc/self/exe").unwrap()).unwrap();
        assert!(build_id.chars().all(|c| c.is_ascii_hexdigit()));
        assert!(segments.iter().any(|s| s.size > 0), "{segments:?}");
    }

    #[test]
    fn a_claim_of_millions_of_program_headers_is_refused() {
        let mut bytes = [0; 128];
        std::io::Read::read_exact(&mut File::open("/proc/self/exe").unwrap(), &mut bytes).unwrap();
        bytes[56..58].copy_from_slice(&0xffff_u16.to_ne_bytes()); // e_phnum: PN_XNUM
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        file.set_len(1 << 30).unwrap();
        assert!(read(&file).unwrap_err().to_string().contains("program headers"));
    }

    #[test]
    fn cut_and_damaged_files_never_panic() {
        let mut bytes = vec![0; 4096];
        std::io::Read::read_exact(&mut File::open("/proc/self/exe").unwrap(), &mut bytes).unwrap();
        let parse = |bytes: &[u8]| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(bytes).unwrap();
            read(&file)
        };
        for length in [0, 1, 4, 16, 63, 64, 100, 500, 1000] {
            let _ = parse(&bytes[..length]);
        }
        for at in 0..200 {
            for value in [0, 0x7f, 0xff] {
                let mut damaged = bytes.clone();
                damaged[at] = value;
                let _ = parse(&damaged);
            }
        }
    }
}
