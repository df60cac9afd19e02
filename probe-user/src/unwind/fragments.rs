//! Runs the call frame instructions of every function. The outcome is one fragment of rows per function, in the order of
//! the file, which need not be that of the addresses.

use std::ops::Range;

use gimli::{
    BaseAddresses, CieOrFde, CommonInformationEntry, Encoding, EndianSlice, FrameDescriptionEntry, LittleEndian,
    PartialFrameDescriptionEntry, UnwindOffset, UnwindSection,
};

use super::rules::{Rule, rule};
use super::state::{Common, Machine};
use super::{MAX_ROWS, Reason};

/// A slice of a section.
pub(super) type Slice<'data> = EndianSlice<'data, LittleEndian>;

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
    /// One of them is the return from a signal handler.
    pub has_signal_frame: bool,
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

    /// How many rules they have together.
    pub fn rows(&self) -> usize {
        self.entries.len()
    }

    /// The rules of a fragment with their addresses, which ascend from its start.
    pub fn rules(&self, fragment: Fragment) -> impl Iterator<Item = (u64, Rule)> {
        let entries = self.entries.get(fragment.first as usize..).unwrap_or_default();
        let entries = entries.iter().take(fragment.count as usize);
        entries.map(move |entry| (fragment.start + u64::from(entry.offset), entry.rule))
    }

    /// Adds code to which signal handlers return. The byte before belongs to it: return addresses are looked up there.
    pub fn add_signal_return(&mut self, code: &Range<u64>, all: &[Range<u64>]) {
        if !all.iter().any(|range| range.contains(&code.start) && code.end <= range.end) {
            return;
        }
        let (start, first) = (code.start.saturating_sub(1), self.entries.len() as u32);
        self.entries.push(Entry { offset: 0, rule: Rule::SIGNAL });
        self.list.push(Fragment { start, end: code.end, first, count: 1 });
        self.has_signal_frame = true;
    }

    /// What the file's code has that no function covers, in order. They have to be sorted.
    pub fn gaps(&self, code: &[Range<u64>]) -> Vec<Range<u64>> {
        let mut gaps = Vec::new();
        let mut functions = self.list.iter().peekable();
        for range in code {
            let mut covered = range.start;
            while let Some(function) = functions.next_if(|function| function.start < range.end) {
                if function.start > covered {
                    gaps.push(covered..function.start);
                }
                covered = covered.max(function.end);
            }
            if covered < range.end {
                gaps.push(covered..range.end);
            }
        }
        gaps
    }

    /// Adds a function by its rules and the offsets from which they hold, which ascend from 0. The caller sees to it that
    /// it lies in the file's code.
    pub fn add_rules(&mut self, start: u64, end: u64, rules: Vec<(u32, Rule)>) {
        let (first, count) = (self.entries.len() as u32, rules.len() as u32);
        if count > 0 {
            self.entries.extend(rules.into_iter().map(|(offset, rule)| Entry { offset, rule }));
            self.list.push(Fragment { start, end, first, count });
        }
    }

    /// Adds the functions of a section that lie in the file's code.
    pub fn add<'data, Section: UnwindSection<Slice<'data>>>(
        &mut self,
        section: &Section,
        bytes: &'data [u8],
        bases: &BaseAddresses,
        code: &[Range<u64>],
    ) -> Result<(), Reason> {
        // What compilers make of a section of this size; memory that is not needed is not touched.
        self.list.reserve(bytes.len() / 32);
        self.entries.reserve((bytes.len() / 8).min(MAX_ROWS));
        let mut reader = Reader { section, bytes, bases, machine: Machine::new(), cies: Cies::new(bytes) };
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
    machine: Machine,
    cies: Cies<'data>,
}

impl<'data, Section: UnwindSection<Slice<'data>>> Reader<'_, 'data, Section> {
    fn read(
        &mut self,
        fragments: &mut Fragments,
        partial: &PartialFrameDescriptionEntry<'_, Section, Slice<'data>>,
        code: &[Range<u64>],
    ) -> Result<(), Failure> {
        let known = self.cies.get(self.section, self.bases, partial.cie_offset(), &mut self.machine)?;
        let (common, encoding) = (known.common, known.cie.encoding());
        let fde = partial.parse(|_, _, _| Ok(known.cie.clone()))?;
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
        if let Err(failure) = self.rows(&fde, &common, encoding, end, &mut fragments.entries) {
            fragments.entries.truncate(first);
            return Err(failure);
        }
        let rows = &fragments.entries[first..];
        fragments.has_signal_frame |= rows.iter().any(|entry| entry.rule == Rule::SIGNAL);
        let count = rows.len();
        if count > 0 {
            fragments.list.push(Fragment { start, end, first: first as u32, count: count as u32 });
        }
        Ok(())
    }

    fn rows(
        &mut self,
        fde: &FrameDescriptionEntry<Slice<'data>>,
        common: &Common,
        encoding: Encoding,
        end: u64,
        entries: &mut Vec<Entry>,
    ) -> Result<(), Failure> {
        let start = fde.initial_address();
        let mut instructions = fde.instructions(self.section, self.bases);
        let mut address = start;
        let mut last = None;
        self.machine.reset(common);
        while address < end {
            // From `address` to `next`, the state is what it is once an instruction advances.
            let next = loop {
                // Looked at where it is: an instruction is written in pieces, and moving it would wait for them.
                match &instructions.next() {
                    Err(error) => return Err((*error).into()),
                    Ok(None) => break end,
                    Ok(Some(instruction)) => match self.machine.run(instruction, address, common)? {
                        None => {}
                        Some(next) if next == address => {}
                        Some(next) => break next,
                    },
                }
            };
            let rule = rule(&self.machine.state, encoding, self.bytes);
            if last.replace(rule) != Some(rule) {
                if entries.len() >= MAX_ROWS {
                    return Err(Failure::TooLarge);
                }
                // Code is within 4 GiB, or the table is refused.
                let offset = u32::try_from(address - start).map_err(|_| Failure::TooLarge)?;
                entries.push(Entry { offset, rule });
            }
            address = next;
        }
        Ok(())
    }
}

/// Longest common entry: a signal frame's has 200 bytes.
const MAX_CIE_BYTES: u32 = 1024;
/// Common entries that are remembered; a file has a handful per compiler.
const CIES: usize = 64;

/// A common entry, and what its instructions say.
struct Cie<'data> {
    offset: usize,
    cie: CommonInformationEntry<Slice<'data>>,
    common: Common,
}

/// Common entries by their offset. So that the work is linear in the size of the section however they are shared, the
/// bytes that are read anew are counted.
struct Cies<'data> {
    bytes: &'data [u8],
    budget: usize,
    known: Vec<Option<Cie<'data>>>,
}

impl<'data> Cies<'data> {
    fn new(bytes: &'data [u8]) -> Self {
        let known = std::iter::repeat_with(|| None).take(CIES).collect();
        Self { bytes, budget: bytes.len().saturating_mul(16), known }
    }

    fn get<Section: UnwindSection<Slice<'data>>>(
        &mut self,
        section: &Section,
        bases: &BaseAddresses,
        at: Section::Offset,
        machine: &mut Machine,
    ) -> gimli::Result<&Cie<'data>> {
        let offset = UnwindOffset::into(at);
        let slot = &mut self.known[offset / 8 % CIES];
        if slot.as_ref().is_none_or(|cie| cie.offset != offset) {
            let unsound = gimli::Error::OffsetOutOfBounds(offset as u64);
            let length = self.bytes.get(offset..).and_then(|bytes| bytes.first_chunk()).ok_or(unsound)?;
            let length = u32::from_le_bytes(*length);
            if length > MAX_CIE_BYTES {
                return Err(unsound);
            }
            self.budget = self.budget.checked_sub(length as usize).ok_or(unsound)?;
            *slot = Some(Self::read(section, bases, at, machine)?);
        }
        slot.as_ref().ok_or(gimli::Error::OffsetOutOfBounds(offset as u64))
    }

    fn read<Section: UnwindSection<Slice<'data>>>(
        section: &Section,
        bases: &BaseAddresses,
        at: Section::Offset,
        machine: &mut Machine,
    ) -> gimli::Result<Cie<'data>> {
        let cie = section.cie_from_offset(bases, at)?;
        let mut common = Common {
            return_address: cie.return_address_register(),
            code_alignment: cie.code_alignment_factor(),
            data_alignment: cie.data_alignment_factor(),
            initial: None,
        };
        machine.reset(&common);
        let mut instructions = cie.instructions(section, bases);
        while let Some(instruction) = instructions.next()? {
            // Nothing advances before a function begins.
            if machine.run(&instruction, 0, &common)?.is_some() {
                return Err(gimli::Error::CfiInstructionInInvalidContext);
            }
        }
        common.initial = Some(machine.state);
        Ok(Cie { offset: UnwindOffset::into(at), cie, common })
    }
}
