//! An ELF file, read in pieces that are bounded and owned: 64-bit and little-endian, as the kernels that `probe` runs on.

use std::borrow::Cow;
use std::cell::Cell;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, ensure};
use object::elf::{
    Dyn64, ELFCOMPRESS_ZLIB, ELFCOMPRESS_ZSTD, FileHeader64, PF_X, PN_XNUM, PT_DYNAMIC, PT_LOAD, ProgramHeader64,
    Rela64, SHF_COMPRESSED, SHT_NOBITS, SHT_NULL, SHT_RELA, SectionHeader64,
};
use object::pod::{Pod, from_bytes, slice_from_bytes};
use object::read::elf::FileHeader;

use crate::gopclntab;
use crate::target::Segment;

/// Larger pieces are not read: several times a browser's symbols.
const MAX_BYTES: u64 = 256 << 20;
/// Nor more than this in all: sections of a hostile file overlap.
const MAX_TOTAL: u64 = 1 << 30;
/// More section headers than any linker makes for an executable.
const MAX_SECTIONS: u16 = 4096;
/// The same of program headers.
const MAX_SEGMENTS: u16 = 512;
/// No name is longer.
const MAX_STRING: usize = u16::MAX as usize;

type Endian = object::LittleEndian;

/// Where the file's bytes are.
enum Source<'file> {
    File(&'file File, u64),
    Memory(Vec<u8>),
}

impl Source<'_> {
    fn length(&self) -> u64 {
        match self {
            Self::File(_, length) => *length,
            Self::Memory(bytes) => bytes.len() as u64,
        }
    }
}

/// A file, and what its headers say.
pub(crate) struct Image<'file> {
    /// What it is for, as `EM_…`.
    pub machine: u16,
    /// Its loadable segments.
    pub segments: Vec<Segment>,
    /// Its dynamic section: tags and values.
    pub dynamic: Vec<(i64, u64)>,
    /// Its sections; empty when they were stripped or are damaged.
    pub sections: Vec<Section>,
    /// Its header tells of sections that it does not have, or not as a whole: it was cut, or is damaged.
    pub is_damaged: bool,
    source: Source<'file>,
    /// Bytes that may still be read.
    budget: Cell<u64>,
}

/// A section header.
#[derive(Clone, Debug, Default)]
pub(crate) struct Section {
    pub name: String,
    /// As `SHT_…`.
    pub kind: u32,
    pub address: u64,
    pub offset: u64,
    pub size: u64,
    /// Number of the section that belongs to it.
    pub link: u32,
    flags: u64,
}

impl Section {
    /// Where it ends in the file; `None` where that is beyond any.
    fn end(&self) -> Option<u64> {
        if self.kind == SHT_NOBITS { Some(0) } else { self.offset.checked_add(self.size) }
    }
}

impl<'file> Image<'file> {
    /// Reads the headers of an open file.
    pub fn open(file: &'file File) -> Result<Self> {
        let length = file.metadata().context("no metadata")?.len();
        Self::read(Source::File(file, length))
    }

    /// Reads the headers of a file that is in memory.
    pub fn of_bytes(bytes: Vec<u8>) -> Result<Self> {
        Self::read(Source::Memory(bytes))
    }

    fn read(source: Source<'file>) -> Result<Self> {
        let mut image = Self {
            machine: 0,
            segments: Vec::new(),
            dynamic: Vec::new(),
            sections: Vec::new(),
            is_damaged: false,
            source,
            budget: Cell::new(MAX_TOTAL),
        };
        let bytes = image.bytes(0, size_of::<FileHeader64<Endian>>() as u64).context("not an ELF file")?;
        ensure!(bytes.starts_with(b"\x7fELF"), "not an ELF file");
        let header = FileHeader64::<Endian>::parse(&*bytes).ok().context("not a 64-bit ELF file")?;
        let endian = header.endian().ok().context("not a little-endian ELF file")?;
        image.machine = header.e_machine.get(endian);
        let count = header.e_phnum.get(endian);
        ensure!(count != PN_XNUM && count <= MAX_SEGMENTS, "{count} program headers");
        let segments = image.table::<ProgramHeader64<Endian>>(header.e_phoff.get(endian), count.into());
        for segment in segments.context("no program headers")? {
            let (offset, size) = (segment.p_offset.get(endian), segment.p_filesz.get(endian));
            match segment.p_type.get(endian) {
                PT_LOAD => image.segments.push(Segment {
                    offset,
                    size,
                    address: segment.p_vaddr.get(endian),
                    executable: segment.p_flags.get(endian) & PF_X != 0,
                }),
                PT_DYNAMIC => {
                    let entries = image.table::<Dyn64<Endian>>(offset, size.min(1 << 16) / 16);
                    let pair = |entry: Dyn64<Endian>| (entry.d_tag.get(endian), entry.d_val.get(endian));
                    image.dynamic = entries.unwrap_or_default().into_iter().map(pair).collect();
                }
                _ => {}
            }
        }
        // The kernel does not need sections: damaged ones are as good as none.
        image.sections = image.read_sections(header).unwrap_or_default();
        let has_sections = header.e_shoff.get(endian) != 0 && header.e_shnum.get(endian) != 0;
        let is_cut = |section: &Section| section.end().is_none_or(|end| end > image.source.length());
        let is_table = image.sections.iter().any(|section| section.kind != SHT_NULL);
        image.is_damaged = has_sections && (!is_table || image.sections.iter().any(is_cut));
        Ok(image)
    }

    fn read_sections(&self, header: &FileHeader64<Endian>) -> Option<Vec<Section>> {
        let count = header.e_shnum.get(Endian {});
        if count > MAX_SECTIONS {
            return None;
        }
        let headers = self.table::<SectionHeader64<Endian>>(header.e_shoff.get(Endian {}), count.into())?;
        let names = headers.get(usize::from(header.e_shstrndx.get(Endian {})))?;
        let names = self.bytes(names.sh_offset.get(Endian {}), names.sh_size.get(Endian {}).min(1 << 20))?;
        let section = |header: &SectionHeader64<Endian>| Section {
            name: string_at(&names, header.sh_name.get(Endian {}) as usize).unwrap_or_default().to_owned(),
            kind: header.sh_type.get(Endian {}),
            address: header.sh_addr.get(Endian {}),
            offset: header.sh_offset.get(Endian {}),
            size: header.sh_size.get(Endian {}),
            link: header.sh_link.get(Endian {}),
            flags: header.sh_flags.get(Endian {}),
        };
        Some(headers.iter().map(section).collect())
    }

    /// Bytes of the file; `None` if it has not that many, or if they are more than the limit.
    pub fn bytes(&self, offset: u64, size: u64) -> Option<Vec<u8>> {
        let end = offset.checked_add(size).filter(|_| size <= MAX_BYTES)?;
        self.spend(size)?;
        match &self.source {
            Source::Memory(bytes) => {
                Some(bytes.get(usize::try_from(offset).ok()?..usize::try_from(end).ok()?)?.to_vec())
            }
            Source::File(file, length) => {
                // Before room is made: a file says how long it is, headers say anything.
                let mut bytes = vec![0; usize::try_from(size).ok().filter(|_| end <= *length)?];
                file.read_exact_at(&mut bytes, offset).ok()?;
                Some(bytes)
            }
        }
    }

    fn spend(&self, size: u64) -> Option<()> {
        self.budget.set(self.budget.get().checked_sub(size)?);
        Some(())
    }

    /// An array of structures in the file.
    pub fn table<T: Pod + Copy>(&self, offset: u64, count: u64) -> Option<Vec<T>> {
        let bytes = self.bytes(offset, count.checked_mul(size_of::<T>() as u64)?)?;
        let (items, _) = slice_from_bytes::<T>(&bytes, usize::try_from(count).ok()?).ok()?;
        Some(items.to_vec())
    }

    /// A section by its name.
    pub fn section(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|section| section.name == name && section.kind != SHT_NOBITS)
    }

    /// A section's bytes, inflated if they were deflated.
    pub fn data(&self, section: &Section) -> Option<Vec<u8>> {
        let bytes = self.bytes(section.offset, section.size).filter(|_| section.kind != SHT_NOBITS)?;
        if section.flags & u64::from(SHF_COMPRESSED) == 0 {
            return Some(bytes);
        }
        let (header, deflated) = from_bytes::<object::elf::CompressionHeader64<Endian>>(&bytes).ok()?;
        let size = header.ch_size.get(Endian {});
        self.spend(size)?;
        let mut inflated = Vec::new();
        let read = match header.ch_type.get(Endian {}) {
            _ if size > MAX_BYTES => return None,
            ELFCOMPRESS_ZLIB => flate2::read::ZlibDecoder::new(deflated).take(size).read_to_end(&mut inflated),
            ELFCOMPRESS_ZSTD => {
                zstd::Decoder::new(deflated).and_then(|decoder| decoder.take(size).read_to_end(&mut inflated))
            }
            _ => return None,
        };
        read.is_ok().then_some(inflated)
    }

    /// The file offset of an address, and how many bytes of its segment the file has from there on.
    pub fn offset_of(&self, address: u64, executable: bool) -> Option<(u64, u64)> {
        offset_of(&self.segments, address, executable)
    }

    /// The address of a file offset within code.
    pub fn address_of(&self, offset: u64) -> Option<u64> {
        let inside = |s: &&Segment| s.executable && offset.checked_sub(s.offset).is_some_and(|inside| inside < s.size);
        let segment = self.segments.iter().find(inside)?;
        segment.address.checked_add(offset - segment.offset)
    }

    /// Bytes from an address on: as many as there are, at most `size`.
    pub fn code(&self, address: u64, size: u64) -> Option<Vec<u8>> {
        let (offset, available) = self.offset_of(address, true)?;
        self.bytes(offset, size.min(available))
    }
}

impl gopclntab::File<'static> for Image<'_> {
    fn section(&self, name: &str) -> Option<(u64, Cow<'static, [u8]>)> {
        let section = self.section(name)?;
        Some((section.address, Cow::Owned(self.data(section)?)))
    }

    fn relocations(&self) -> Vec<Rela64<Endian>> {
        let tables = self.sections.iter().filter(|section| section.kind == SHT_RELA);
        let entries = |section: &Section| self.table(section.offset, section.size / size_of::<Rela64<Endian>>() as u64);
        tables.filter_map(entries).flatten().collect()
    }
}

/// The file offset of an address, and how many bytes of its segment the file has from there on.
pub(super) fn offset_of(segments: &[Segment], address: u64, executable: bool) -> Option<(u64, u64)> {
    segments.iter().filter(|s| s.executable || !executable).find_map(|segment| {
        let inside = address.checked_sub(segment.address).filter(|&inside| inside < segment.size)?;
        Some((segment.offset.checked_add(inside)?, segment.size - inside))
    })
}

/// The text from an offset up to the next zero; `None` if that is far.
pub(super) fn string_at(bytes: &[u8], at: usize) -> Option<&str> {
    let rest = bytes.get(at..)?;
    let rest = &rest[..rest.len().min(MAX_STRING)];
    let length = rest.iter().position(|&byte| byte == 0)?;
    std::str::from_utf8(&rest[..length]).ok()
}
