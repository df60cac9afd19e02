//! Go's own table of functions, `.gopclntab`, which is in every Go program, stripped or not: names, addresses, flags. Go
//! 1.18 and later (src/internal/abi/symtab.go, src/runtime/symtab.go). What the table is read for is its readers' affair.
//!
//! Its functions count from the start of Go's code (`runtime.text`), which is not the start of `.text` where C is linked
//! in. Up to Go 1.25 the table's header has that address, or a relocation that writes it; since 1.26 only the runtime's
//! `moduledata` has it, in a section of its own, `.go.module`.

use std::borrow::Cow;

use object::elf::{R_AARCH64_RELATIVE, R_X86_64_RELATIVE, Rela64};

/// The table's first word, by version of Go.
pub const GO_1_18: u32 = 0xffff_fff0;
/// Go 1.20 and later.
pub const GO_1_20: u32 = 0xffff_fff1;

/// Where in the table the address stands from which its functions count; a loader may have to fill it in.
const TEXT_START_AT: u64 = 8 + 2 * 8;
/// The table begins at a multiple of this, wherever the linker puts it.
const ALIGNMENT: usize = 8;

/// Sections that are the table.
const SECTIONS: [&str; 2] = [".gopclntab", ".data.rel.ro.gopclntab"];
/// A section that may have it somewhere: there a C linker puts that of a position-independent program.
const MIXED_SECTION: &str = ".data.rel.ro";
/// Every Go program has this section.
const BUILD_INFO: &str = ".go.buildinfo";
/// The section that is the `moduledata`.
const MODULE: &str = ".go.module";

/// What is read of an ELF file to find the table in it.
pub trait File<'data> {
    /// The address and the bytes of a section that the file has.
    fn section(&self, name: &str) -> Option<(u64, Cow<'data, [u8]>)>;

    /// The entries of all sections of relocations with addends (`SHT_RELA`).
    fn relocations(&self) -> Vec<Rela64<object::LittleEndian>>;
}

/// Why there is no table to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// It is no Go program.
    None,
    /// It is one, but its table has another layout than those of Go 1.18 to 1.27, or is damaged.
    Layout,
}

/// A table where it was found.
#[derive(Clone, Debug)]
pub struct Found<'data> {
    bytes: Cow<'data, [u8]>,
    text_start: u64,
}

impl<'data> Found<'data> {
    /// Finds the table of a file, and where its functions count from.
    pub fn in_file(file: &impl File<'data>) -> Result<Self, Missing> {
        let (address, bytes) = match SECTIONS.iter().find_map(|name| file.section(name)) {
            Some(table) => table,
            None if file.section(BUILD_INFO).is_none() => return Err(Missing::None),
            None => file.section(MIXED_SECTION).and_then(within).ok_or(Missing::Layout)?,
        };
        let table = Table::read(&bytes).ok_or(Missing::Layout)?;
        let text_start = match table.text_start {
            0 => text_start(&table, address, file).ok_or(Missing::Layout)?,
            start => start,
        };
        Ok(Self { bytes, text_start })
    }

    /// What is in it.
    pub fn table(&self) -> Option<Table<'_>> {
        Some(Table { text_start: self.text_start, ..Table::read(&self.bytes)? })
    }

    /// Bytes of the table and of what follows in its section.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }
}

/// The table that is somewhere in a section, and what follows it.
fn within<'data>((address, bytes): (u64, Cow<'data, [u8]>)) -> Option<(u64, Cow<'data, [u8]>)> {
    let is_header = |bytes: &[u8]| Table::read(bytes).is_some_and(|table| table.functions > 0);
    let at = (0..bytes.len()).step_by(ALIGNMENT).find(|&at| is_header(&bytes[at..]))?;
    let rest = match bytes {
        Cow::Borrowed(bytes) => Cow::Borrowed(&bytes[at..]),
        Cow::Owned(mut bytes) => Cow::Owned(bytes.split_off(at)),
    };
    Some((address.checked_add(at as u64)?, rest))
}

/// The start of Go's code, where the header does not have it: by the `moduledata`, if that is what it is taken for, else
/// by the relocation of the header's field.
fn text_start<'data>(table: &Table<'_>, address: u64, file: &impl File<'data>) -> Option<u64> {
    // `moduledata` in words: the address of the table, the length of its index, the lowest and the highest address of
    // code, and where that begins. The same since Go 1.16.
    const TABLE: usize = 0;
    const INDEX_LENGTH: usize = 17;
    const LOWEST: usize = 20;
    const HIGHEST: usize = 21;
    const TEXT: usize = 22;
    let relocations = file.relocations();
    let relocated = |address: u64| {
        let endian = object::LittleEndian {};
        let is_relative = |entry: &&Rela64<object::LittleEndian>| {
            matches!(entry.r_info.get(endian) as u32, R_X86_64_RELATIVE | R_AARCH64_RELATIVE)
        };
        let mut here = relocations.iter().filter(|entry| entry.r_offset.get(endian) == address).filter(is_relative);
        here.next().map(|entry| entry.r_addend.get(endian) as u64)
    };
    let by_module = || {
        let (module_address, module) = file.section(MODULE)?;
        let word = |number: usize| {
            let at = number * 8;
            let plain = u64::from_le_bytes(*module.get(at..)?.first_chunk()?);
            // Linkers may leave the value to the relocation.
            if plain == 0 { relocated(module_address + at as u64) } else { Some(plain) }
        };
        let text = word(TEXT)?;
        let (first, last) = table.bounds()?;
        let is_it = word(TABLE)? == address
            && word(INDEX_LENGTH)? == u64::from(table.functions) + 1
            && word(LOWEST)? == text.checked_add(first.into())?
            && word(HIGHEST)? == text.checked_add(last.into())?;
        is_it.then_some(text)
    };
    by_module().or_else(|| relocated(address.checked_add(TEXT_START_AT)?)).filter(|&start| start != 0)
}

/// The table's header.
#[derive(Clone, Copy, Debug)]
pub struct Table<'data> {
    /// Number of functions, as claimed: at most an eighth of the table's bytes.
    pub functions: u32,
    /// The address from which functions count; zero where the header does not have it.
    pub text_start: u64,
    bytes: &'data [u8],
    /// Offset of the names of functions.
    names: usize,
    /// Offset of the tables of stack pointers.
    deltas: usize,
    /// Offset of the index of functions, from which those count that it has.
    index: usize,
    /// Offset of the flags within a function's entry.
    flags: usize,
}

/// What the table says of a function.
#[derive(Clone, Copy, Debug)]
pub struct Function<'data> {
    /// Its name, a zero and what follows.
    pub name: &'data [u8],
    /// Its address.
    pub start: u64,
    /// The address of the next one: padding is included.
    pub end: u64,
    /// Offset of its table of stack pointers; 0 if it has none.
    pub deltas: u32,
    /// Its flags.
    pub flags: u8,
}

impl<'data> Table<'data> {
    /// Reads the header; `None` for another version, or a damaged one.
    pub fn read(bytes: &'data [u8]) -> Option<Self> {
        let flags = match u32_at(bytes, 0)? {
            GO_1_18 => 37,
            // The line at which a function begins came before them.
            GO_1_20 => 41,
            _ => return None,
        };
        // Two zeros, the alignment of instructions (one on x86-64, four on aarch64), the size of addresses.
        if !matches!(bytes.get(4..8)?, [0, 0, 1 | 4, 8]) {
            return None;
        }
        let word = |number: usize| Some(u64::from_le_bytes(*bytes.get(8 + 8 * number..)?.first_chunk()?));
        let offset = |number| usize::try_from(word(number)?).ok().filter(|&offset| offset < bytes.len());
        let text_start = word(2)?;
        let functions = u32::try_from(word(0)?).ok().filter(|&count| count as usize <= bytes.len() / 8)?;
        let (names, deltas, index) = (offset(3)?, offset(6)?, offset(7)?);
        Some(Self { functions, text_start, bytes, names, deltas, index, flags })
    }

    /// The offsets at which the first function begins and the last one ends.
    fn bounds(&self) -> Option<(u32, u32)> {
        let index = self.bytes.get(self.index..)?;
        Some((u32_at(index, 0)?, u32_at(index, self.functions as usize * 8)?))
    }

    /// A function by its number; `None` where the table is damaged.
    pub fn function(&self, number: u32) -> Option<Function<'data>> {
        let index = self.bytes.get(self.index..)?;
        let at = number as usize * 8;
        let (start, entry, end) = (u32_at(index, at)?, u32_at(index, at + 4)? as usize, u32_at(index, at + 8)?);
        let address = |offset: u32| self.text_start.saturating_add(offset.into());
        let flags = *index.get(entry.checked_add(self.flags)?)?;
        let name = self.names.checked_add(u32_at(index, entry + 4)? as usize)?;
        Some(Function {
            name: self.bytes.get(name..)?,
            start: address(start),
            end: address(end),
            deltas: u32_at(index, entry + 16)?,
            flags,
        })
    }

    /// The bytes from a function's table of stack pointers on; empty if it has none.
    pub fn deltas(&self, function: &Function<'_>) -> &'data [u8] {
        let from = self.deltas.saturating_add(function.deltas as usize);
        if function.deltas == 0 { &[] } else { self.bytes.get(from..).unwrap_or_default() }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_version_and_a_cut_header_are_no_table() {
        let mut bytes = [GO_1_20.to_le_bytes().to_vec(), vec![0, 0, 1, 8], vec![0; 64]].concat();
        assert!(Table::read(&bytes).is_some_and(|table| table.functions == 0 && table.function(0).is_none()));
        assert!((0..bytes.len()).all(|length| Table::read(&bytes[..length]).is_none()));
        bytes[0] = 0xfb;
        assert!(Table::read(&bytes).is_none());
    }

    /// A file of three sections: what every Go program has, the table, and the `moduledata`.
    struct Made {
        table: Vec<u8>,
        module: Vec<u8>,
        relocations: Vec<Rela64<object::LittleEndian>>,
    }

    const TABLE_AT: u64 = 0x5000;
    const TEXT: u64 = 0x2400;

    impl File<'static> for Made {
        fn section(&self, name: &str) -> Option<(u64, Cow<'static, [u8]>)> {
            match name {
                BUILD_INFO => Some((0x9000, Cow::Borrowed(&[]))),
                ".gopclntab" => Some((TABLE_AT, Cow::Owned(self.table.clone()))),
                MODULE => Some((0x7000, Cow::Owned(self.module.clone()))),
                _ => None,
            }
        }

        fn relocations(&self) -> Vec<Rela64<object::LittleEndian>> {
            self.relocations.clone()
        }
    }

    /// As Go 1.26 writes it: two functions, at 0 and 0x40, and the header without the address from which these count.
    fn made() -> Made {
        let index_at = 80_u64;
        let header = [2, 0, 0, 72, 72, 72, 72, index_at];
        let mut table = [GO_1_20.to_le_bytes().to_vec(), vec![0, 0, 1, 8]].concat();
        table.extend(header.iter().flat_map(|word: &u64| word.to_le_bytes()));
        table.resize(index_at as usize, 0);
        table.extend([0_u32, 24, 0x40, 24, 0x90].iter().flat_map(|word| word.to_le_bytes()));
        table.resize(index_at as usize + 24 + 44, 0);
        let mut words = [0_u64; 24];
        (words[0], words[17], words[20], words[21], words[22]) = (TABLE_AT, 3, TEXT, TEXT + 0x90, TEXT);
        let module = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        Made { table, module, relocations: Vec::new() }
    }

    fn relocation(address: u64, value: u64) -> Rela64<object::LittleEndian> {
        let endian = object::LittleEndian {};
        Rela64 {
            r_offset: object::U64::new(endian, address),
            r_info: object::U64::new(endian, u64::from(R_X86_64_RELATIVE)),
            r_addend: object::I64::new(endian, value as i64),
        }
    }

    #[test]
    fn where_functions_count_from_is_said_by_the_module_or_by_a_relocation() {
        let starts = |made: &Made| -> Result<Vec<u64>, Missing> {
            let found = Found::in_file(made)?;
            let table = found.table().expect("it was read before");
            Ok((0..2).map(|number| table.function(number).expect("both are there").start).collect())
        };
        let expected = Ok(vec![TEXT, TEXT + 0x40]);
        assert_eq!(starts(&made()), expected);
        // Values that are left to the loader.
        let (mut left, mut words) = (made(), vec![relocation(0x7000, TABLE_AT)]);
        words.extend(
            [(20, TEXT), (21, TEXT + 0x90), (22, TEXT)].map(|(word, value)| relocation(0x7000 + word * 8, value)),
        );
        for word in [0, 20, 21, 22] {
            left.module[word * 8..][..8].fill(0);
        }
        left.relocations = words;
        assert_eq!(starts(&left), expected);
        // Up to Go 1.25.
        let old = Made { module: Vec::new(), relocations: vec![relocation(TABLE_AT + TEXT_START_AT, TEXT)], ..made() };
        assert_eq!(starts(&old), expected);
    }

    #[test]
    fn a_module_of_another_layout_is_not_believed() {
        for word in [0, 17, 20, 21, 22] {
            let mut made = made();
            made.module[word * 8] ^= 0x10;
            assert_eq!(Found::in_file(&made).err(), Some(Missing::Layout), "word {word}");
        }
        let mut later = made();
        later.table[0] = 0xf2;
        assert_eq!(Found::in_file(&later).err(), Some(Missing::Layout));
    }

    #[test]
    fn a_claim_of_more_functions_than_there_is_room_for_is_refused() {
        let mut bytes = [GO_1_18.to_le_bytes().to_vec(), vec![0, 0, 1, 8], vec![0; 64]].concat();
        bytes[8..16].copy_from_slice(&u64::from(u32::MAX).to_le_bytes());
        assert!(Table::read(&bytes).is_none());
    }
}
