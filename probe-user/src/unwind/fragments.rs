//! Runs the call frame instructions of every function. The outcome is one fragment of rows per function, in the order of
//! the file, which need not be that of the addresses.

use std::ops::Range;

use gimli::{
    BaseAddresses, CieOrFde, CommonInformationEntry, EndianSlice, FrameDescriptionEntry, LittleEndian,
    PartialFrameDescriptionEntry, Register, RegisterRule, UnwindContext, UnwindContextStorage, UnwindOffset,
    UnwindSection, UnwindTableRow,
};

use super::rules::{Rule, rule};
use super::{MAX_ROWS, Reason};

/// A slice of a section.
pub(super) type Slice<'data> = EndianSlice<'data, LittleEndian>;

/// Room for the rules of one row: fewer than gimli's default, since a hostile file can have them copied at every byte.
/// x86-64 has 17 registers that matter; compilers nest states once.
pub(super) struct Storage;

impl UnwindContextStorage<usize> for Storage {
    type Rules = [(Register, RegisterRule<usize>); 32];
    type Stack = Box<[UnwindTableRow<usize, Self>; 6]>;
}

/// What a function's instructions say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fragment {
    /// First address.
    pub start: u64,
    /// First address behind it.
    pub end: u64,
    /// Index of its first entry.
    first: u32,
    /// How many.
    count: u32,
}

/// A rule from an address on.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// From the start of the fragment.
    offset: u32,
    rule: Rule,
}

/// All functions of a file.
#[derive(Debug, Default)]
pub(super) struct Fragments {
    list: Vec<Fragment>,
    entries: Vec<Entry>,
    /// Functions that could not be read.
    pub unreadable: u32,
}

impl Fragments {
    /// Puts them in the order of their addresses; of several with the same one, the first that was added comes first.
    pub fn sort(&mut self) {
        self.list.sort_by_key(|fragment| fragment.start);
    }

    /// All of them.
    pub fn list(&self) -> &[Fragment] {
        &self.list
    }

    /// The rules of a fragment with their addresses, which ascend from its start.
    pub fn rules(&self, fragment: Fragment) -> impl Iterator<Item = (u64, Rule)> {
        let entries = self.entries.get(fragment.first as usize..).unwrap_or_default();
        let entries = entries.iter().take(fragment.count as usize);
        entries.map(move |entry| (fragment.start + u64::from(entry.offset), entry.rule))
    }

    /// Adds the functions of a section that lie in the file's code.
    pub fn add<'data, Section: UnwindSection<Slice<'data>>>(
        &mut self,
        section: &Section,
        bytes: &'data [u8],
        bases: &BaseAddresses,
        code: &[Range<u64>],
    ) -> Result<(), Reason> {
        let mut reader = Reader { section, bytes, bases, context: UnwindContext::new_in(), cies: Cies::new(bytes) };
        let mut entries = section.entries(bases);
        loop {
            match entries.next() {
                Ok(Some(CieOrFde::Cie(_))) => {}
                Ok(Some(CieOrFde::Fde(partial))) => match reader.read(self, &partial, code) {
                    Ok(()) => {}
                    Err(Failure::Unreadable) => self.unreadable = self.unreadable.saturating_add(1),
                    Err(Failure::TooLarge) => return Err(Reason::TooLarge),
                },
                Ok(None) => return Ok(()),
                // An entry without a sound length: what follows cannot be found.
                Err(_) => {
                    self.unreadable = self.unreadable.saturating_add(1);
                    return Ok(());
                }
            }
        }
    }
}

enum Failure {
    Unreadable,
    TooLarge,
}

impl From<gimli::Error> for Failure {
    fn from(_: gimli::Error) -> Self {
        Self::Unreadable
    }
}

/// What reading functions reuses from one to the next.
struct Reader<'a, 'data, Section> {
    section: &'a Section,
    bytes: &'data [u8],
    bases: &'a BaseAddresses,
    context: UnwindContext<usize, Storage>,
    cies: Cies<'data>,
}

impl<'data, Section: UnwindSection<Slice<'data>>> Reader<'_, 'data, Section> {
    fn read(
        &mut self,
        fragments: &mut Fragments,
        partial: &PartialFrameDescriptionEntry<'_, Section, Slice<'data>>,
        code: &[Range<u64>],
    ) -> Result<(), Failure> {
        let fde = partial.parse(|section, bases, offset| self.cies.get(section, bases, offset))?;
        let start = fde.initial_address();
        // Functions that the linker dropped are left at address 0 or outside of all code.
        let after = code.partition_point(|range| range.start <= start);
        let Some(range) = after.checked_sub(1).and_then(|at| code.get(at)).filter(|range| range.contains(&start))
        else {
            return Ok(());
        };
        let end = start.saturating_add(fde.len()).min(range.end);
        if start == 0 || start == end {
            return Ok(());
        }
        let first = fragments.entries.len();
        if let Err(failure) = self.rows(&fde, end, &mut fragments.entries) {
            fragments.entries.truncate(first);
            return Err(failure);
        }
        let count = fragments.entries.len() - first;
        if count > 0 {
            fragments.list.push(Fragment { start, end, first: first as u32, count: count as u32 });
        }
        Ok(())
    }

    fn rows(
        &mut self,
        fde: &FrameDescriptionEntry<Slice<'data>>,
        end: u64,
        entries: &mut Vec<Entry>,
    ) -> Result<(), Failure> {
        let start = fde.initial_address();
        let return_address = fde.cie().return_address_register();
        let encoding = fde.cie().encoding();
        let mut rows = fde.rows(self.section, self.bases, &mut self.context)?;
        let mut last = None;
        while let Some(row) = rows.next_row()? {
            let from = row.start_address();
            if from >= end {
                break;
            }
            if row.end_address() <= from {
                continue;
            }
            let rule = rule(row, return_address, encoding, self.bytes);
            if last.replace(rule) == Some(rule) {
                continue;
            }
            if entries.len() >= MAX_ROWS {
                return Err(Failure::TooLarge);
            }
            // Code is within 4 GiB, or the table is refused.
            let offset = u32::try_from(from.saturating_sub(start)).map_err(|_| Failure::TooLarge)?;
            entries.push(Entry { offset, rule });
        }
        Ok(())
    }
}

/// Longest common entry: a signal frame's has 200 bytes.
const MAX_CIE_BYTES: u32 = 1024;
/// Common entries that are remembered; a file has a handful per compiler.
const CIES: usize = 64;

/// Common entries by their offset: each is parsed once, but run for each of its functions. So that the work is linear in
/// the size of the section, their bytes are counted.
struct Cies<'data> {
    bytes: &'data [u8],
    budget: usize,
    parsed: Vec<Option<(usize, CommonInformationEntry<Slice<'data>>)>>,
}

impl<'data> Cies<'data> {
    fn new(bytes: &'data [u8]) -> Self {
        Self { bytes, budget: bytes.len().saturating_mul(16), parsed: vec![None; CIES] }
    }

    fn get<Section: UnwindSection<Slice<'data>>>(
        &mut self,
        section: &Section,
        bases: &BaseAddresses,
        at: Section::Offset,
    ) -> gimli::Result<CommonInformationEntry<Slice<'data>>> {
        let offset = UnwindOffset::into(at);
        let unsound = gimli::Error::OffsetOutOfBounds(offset as u64);
        let length = self.bytes.get(offset..).and_then(|bytes| bytes.first_chunk()).ok_or(unsound)?;
        let length = u32::from_le_bytes(*length);
        if length > MAX_CIE_BYTES {
            return Err(unsound);
        }
        self.budget = self.budget.checked_sub(length as usize).ok_or(unsound)?;
        let slot = &mut self.parsed[offset / 8 % CIES];
        if let Some((known, cie)) = slot
            && *known == offset
        {
            return Ok(cie.clone());
        }
        let cie = section.cie_from_offset(bases, at)?;
        *slot = Some((offset, cie.clone()));
        Ok(cie)
    }
}
