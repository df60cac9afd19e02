//! Go's own table of functions, `.gopclntab`, which is in every Go program, stripped or not: names, addresses, flags. Go
//! 1.18 and later (src/internal/abi/symtab.go, src/runtime/symtab.go). What the table is read for is its readers' affair.

/// The table's first word, by version of Go.
pub const GO_1_18: u32 = 0xffff_fff0;
/// Go 1.20 and later.
pub const GO_1_20: u32 = 0xffff_fff1;

/// Where in the table the address stands from which its functions count; a loader may have to fill it in.
pub const TEXT_START_AT: u64 = 8 + 2 * 8;

/// The table's header.
#[derive(Clone, Copy, Debug)]
pub struct Table<'data> {
    /// Number of functions, as claimed: at most an eighth of the table's bytes.
    pub functions: u32,
    /// The address from which functions count; zero where it is left to the linker or to the loader.
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

    #[test]
    fn a_claim_of_more_functions_than_there_is_room_for_is_refused() {
        let mut bytes = [GO_1_18.to_le_bytes().to_vec(), vec![0, 0, 1, 8], vec![0; 64]].concat();
        bytes[8..16].copy_from_slice(&u64::from(u32::MAX).to_le_bytes());
        assert!(Table::read(&bytes).is_none());
    }
}
