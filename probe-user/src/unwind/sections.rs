//! Finds the unwind information in an ELF file: by its sections, or where they were stripped by its program headers.

use std::borrow::Cow;
use std::io::Read;
use std::ops::Range;

use gimli::{
    BaseAddresses, CieOrFde, DebugFrame, EhFrame, EhFrameHdr, EndianSlice, LittleEndian, Pointer, UnwindSection,
};
use object::elf::{
    DT_NEEDED, Dyn64, ELFCOMPRESS_ZLIB, EM_X86_64, FileHeader64, PF_X, PN_XNUM, PT_DYNAMIC, PT_GNU_EH_FRAME, PT_LOAD,
    ProgramHeader64, Rela64, SHT_NOBITS, SectionHeader64,
};
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader, SectionTable};
use object::{ReadRef, U32, U64};

use super::fragments::Fragments;
use super::{MAX_ROWS, MAX_SECTION_BYTES, Reason, golang};
use crate::gopclntab::{self, Found};

/// Of a file with more sections the names are not looked at: no linker makes them.
const MAX_SECTIONS: u16 = 1024;

/// Segments of code that are searched; linkers make one, or two or three of it.
const MAX_SEARCHED_SEGMENTS: usize = 4;
/// No linker makes a longer dynamic section.
const MAX_DYNAMIC_BYTES: u64 = 1 << 16;

type Endian = object::LittleEndian;

/// What is needed of a file.
pub(super) struct Sections<'data> {
    /// Virtual addresses of its code: sorted, disjoint, not empty.
    pub code: Vec<Range<u64>>,
    /// File offsets and virtual addresses of the code's bytes.
    pub searched: Vec<(u64, Range<u64>)>,
    /// It needs no library, so it has a C library or runtime in it, or is one.
    pub is_self_contained: bool,
    bases: BaseAddresses,
    eh_frame: Option<&'data [u8]>,
    debug_frame: Option<Cow<'data, [u8]>>,
    go_functions: Option<Found<'data>>,
}

impl Sections<'_> {
    /// True when the file has no unwind information.
    pub fn is_empty(&self) -> bool {
        self.eh_frame.is_none() && self.debug_frame.is_none() && self.go_functions.is_none()
    }

    /// Where the functions of `.eh_frame` are, in order of address.
    pub fn functions(&self) -> Vec<Range<u64>> {
        let mut found = Vec::new();
        let Some(bytes) = self.eh_frame else { return found };
        let frames = EhFrame::new(bytes, LittleEndian);
        let mut entries = frames.entries(&self.bases);
        while let Ok(Some(entry)) = entries.next() {
            if let CieOrFde::Fde(partial) = entry
                && let Ok(entry) = partial.parse(EhFrame::cie_from_offset)
                && found.len() < MAX_ROWS
            {
                found.push(entry.initial_address()..entry.end_address());
            }
        }
        found.sort_unstable_by_key(|range| range.start);
        found
    }

    /// Takes in the functions of all sections. Where several describe one, Go's table comes first, then `.eh_frame`.
    pub fn frames(&self, fragments: &mut Fragments) -> Result<(), Reason> {
        if let Some(found) = &self.go_functions {
            golang::add(found, &self.code, fragments)?;
        }
        if let Some(bytes) = self.eh_frame {
            fragments.add(&EhFrame::new(bytes, LittleEndian), bytes, &self.bases, &self.code)?;
        }
        if let Some(bytes) = &self.debug_frame {
            let mut section = DebugFrame::new(bytes, LittleEndian);
            section.set_address_size(8);
            fragments.add(&section, bytes, &self.bases, &self.code)?;
        }
        Ok(())
    }
}

pub(super) fn read<'data>(data: impl ReadRef<'data>) -> Result<Sections<'data>, Reason> {
    let header = FileHeader64::<Endian>::parse(data).map_err(|_| Reason::NotElf)?;
    let endian = header.endian().map_err(|_| Reason::NotElf)?;
    if header.e_machine.get(endian) != EM_X86_64 {
        return Err(Reason::Machine);
    }
    if header.e_phnum.get(endian) == PN_XNUM {
        return Err(Reason::TooLarge);
    }
    let segments = header.program_headers(endian, data).map_err(|_| Reason::NotElf)?;
    let code = code(segments);
    if code.is_empty() {
        return Err(Reason::NoCode);
    }
    let mut sections = Sections {
        code,
        searched: searched(segments, data.len().unwrap_or(0)),
        is_self_contained: !needs_libraries(segments, data),
        bases: BaseAddresses::default(),
        eh_frame: None,
        debug_frame: None,
        go_functions: None,
    };
    by_sections(header, data, &mut sections)?;
    if sections.eh_frame.is_none() {
        by_segments(segments, data, &mut sections);
    }
    Ok(sections)
}

fn is_code(segment: &&ProgramHeader64<Endian>) -> bool {
    segment.p_type(Endian {}) == PT_LOAD && segment.p_flags(Endian {}) & PF_X != 0
}

/// The bytes of the first executable segments, as far as the file has them.
fn searched(segments: &[ProgramHeader64<Endian>], length: u64) -> Vec<(u64, Range<u64>)> {
    let bytes = |segment: &ProgramHeader64<Endian>| {
        let (offset, start) = (segment.p_offset(Endian {}), segment.p_vaddr(Endian {}));
        let size = segment.p_filesz(Endian {}).min(length.checked_sub(offset)?);
        Some((offset, start..start.checked_add(size)?))
    };
    segments.iter().filter(is_code).take(MAX_SEARCHED_SEGMENTS).filter_map(bytes).collect()
}

/// Whether the dynamic section asks for a library.
fn needs_libraries<'data>(segments: &[ProgramHeader64<Endian>], data: impl ReadRef<'data>) -> bool {
    let mut dynamic = segments.iter().filter(|s| s.p_type(Endian {}) == PT_DYNAMIC);
    dynamic.any(|segment| {
        let size = segment.p_filesz(Endian {}).min(MAX_DYNAMIC_BYTES) / 16;
        let entries = data.read_slice_at::<Dyn64<Endian>>(segment.p_offset(Endian {}), size as usize);
        entries.unwrap_or_default().iter().any(|entry| entry.d_tag.get(Endian {}) == DT_NEEDED)
    })
}

/// The executable segments in order; what overlaps an earlier one is cut off.
fn code(segments: &[ProgramHeader64<Endian>]) -> Vec<Range<u64>> {
    let range = |s: &ProgramHeader64<Endian>| {
        let start = s.p_vaddr(Endian {});
        start..start.saturating_add(s.p_memsz(Endian {}))
    };
    let mut code: Vec<_> = segments.iter().filter(is_code).map(range).collect();
    code.sort_unstable_by_key(|range| range.start);
    let mut end = 0;
    for range in &mut code {
        range.start = range.start.max(end);
        end = end.max(range.end);
    }
    code.retain(|range| !range.is_empty());
    code
}

fn by_sections<'data>(
    header: &FileHeader64<Endian>,
    data: impl ReadRef<'data>,
    found: &mut Sections<'data>,
) -> Result<(), Reason> {
    if header.e_shnum.get(Endian {}) > MAX_SECTIONS || header.e_shnum.get(Endian {}) == 0 {
        return Ok(());
    }
    // Damaged section headers are as good as none: the kernel does not need them either.
    let Ok(sections) = header.sections(Endian {}, data) else { return Ok(()) };
    for section in sections.iter().filter(|section| section.sh_type(Endian {}) != SHT_NOBITS) {
        let address = section.sh_addr(Endian {});
        match sections.section_name(Endian {}, section).unwrap_or_default() {
            b".text" => found.bases = found.bases.clone().set_text(address),
            b".got" => found.bases = found.bases.clone().set_got(address),
            b".eh_frame" if found.eh_frame.is_none() && section.sh_size(Endian {}) > 0 => {
                within_limit(section.sh_size(Endian {}))?;
                found.eh_frame = section.data(Endian {}, data).ok();
                found.bases = found.bases.clone().set_eh_frame(address);
            }
            b".debug_frame" if found.debug_frame.is_none() && section.sh_size(Endian {}) > 0 => {
                within_limit(section.sh_size(Endian {}))?;
                found.debug_frame = maybe_compressed(section, data)?;
            }
            _ => {}
        }
    }
    found.go_functions = match Found::in_file(&GoFile { sections, data }) {
        Ok(found) => Some(found),
        Err(gopclntab::Missing::None) => None,
        Err(gopclntab::Missing::Layout) => {
            tracing::debug!("Go's table of functions has an unknown layout");
            None
        }
    };
    Ok(())
}

/// The file as whoever looks for Go's table sees it.
struct GoFile<'data, R: ReadRef<'data>> {
    sections: SectionTable<'data, FileHeader64<Endian>, R>,
    data: R,
}

impl<'data, R: ReadRef<'data>> gopclntab::File<'data> for GoFile<'data, R> {
    fn section(&self, name: &str) -> Option<(u64, Cow<'data, [u8]>)> {
        let (_, section) = self.sections.section_by_name(Endian {}, name.as_bytes())?;
        within_limit(section.sh_size(Endian {})).ok()?;
        Some((section.sh_addr(Endian {}), Cow::Borrowed(section.data(Endian {}, self.data).ok()?)))
    }

    fn relocations(&self) -> Vec<Rela64<Endian>> {
        let tables = self.sections.iter().filter(|section| within_limit(section.sh_size(Endian {})).is_ok());
        let tables = tables.filter_map(|section| section.rela(Endian {}, self.data).ok().flatten());
        tables.flat_map(|(entries, _)| entries).copied().collect()
    }
}

fn within_limit(size: u64) -> Result<(), Reason> {
    if size > MAX_SECTION_BYTES { Err(Reason::TooLarge) } else { Ok(()) }
}

/// A section's bytes, inflated if they were deflated; `None` if they are damaged.
fn maybe_compressed<'data>(
    section: &SectionHeader64<Endian>,
    data: impl ReadRef<'data>,
) -> Result<Option<Cow<'data, [u8]>>, Reason> {
    let Ok(compression) = section.compression(Endian {}, data) else { return Ok(None) };
    let Some((header, offset, size)) = compression else {
        return Ok(section.data(Endian {}, data).ok().map(Cow::Borrowed));
    };
    let (kind, inflated): (&U32<Endian>, &U64<Endian>) = (&header.ch_type, &header.ch_size);
    if kind.get(Endian {}) != ELFCOMPRESS_ZLIB {
        return Ok(None);
    }
    within_limit(inflated.get(Endian {}))?;
    let Ok(deflated) = data.read_bytes_at(offset, size) else { return Ok(None) };
    let mut bytes = Vec::new();
    let mut decoder = flate2::read::ZlibDecoder::new(deflated).take(inflated.get(Endian {}));
    Ok(decoder.read_to_end(&mut bytes).is_ok().then_some(Cow::Owned(bytes)))
}

/// `.eh_frame` begins where `.eh_frame_hdr` says, and ends with an entry of length zero or with its segment.
fn by_segments<'data>(
    segments: &[ProgramHeader64<Endian>],
    data: impl ReadRef<'data>,
    found: &mut Sections<'data>,
) -> Option<()> {
    let header = segments.iter().find(|s| s.p_type(Endian {}) == PT_GNU_EH_FRAME)?;
    if header.p_filesz(Endian {}) > MAX_SECTION_BYTES {
        return None;
    }
    let bytes = header.data(Endian {}, data).ok()?;
    let bases = BaseAddresses::default().set_eh_frame_hdr(header.p_vaddr(Endian {}));
    let parsed = EhFrameHdr::from(EndianSlice::new(bytes, LittleEndian)).parse(&bases, 8).ok()?;
    let Pointer::Direct(address) = parsed.eh_frame_ptr() else { return None };
    let (offset, available) = segments.iter().filter(|s| s.p_type(Endian {}) == PT_LOAD).find_map(|segment| {
        let inside = address.checked_sub(segment.p_vaddr(Endian {}))?;
        let available = segment.p_filesz(Endian {}).checked_sub(inside).filter(|&available| available > 0)?;
        Some((segment.p_offset(Endian {}).checked_add(inside)?, available))
    })?;
    found.eh_frame = data.read_bytes_at(offset, available.min(MAX_SECTION_BYTES)).ok();
    found.bases = found.bases.clone().set_eh_frame(address);
    Some(())
}
