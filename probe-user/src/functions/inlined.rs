//! Functions that have no code of their own: the compiler has copied them into their callers, and only debug information
//! still tells of them.

use std::cell::Cell;
use std::collections::{BTreeSet, HashSet};

use gimli::{
    AttributeValue, DebuggingInformationEntry, DwInl, DwarfSections, EndianSlice, LittleEndian, SectionId, Unit,
    UnitOffset, constants,
};

use super::demangle::demangle;
use super::image::Image;
use super::names::Query;
use crate::text::sanitize;

/// For one name so many entries of all files are looked at: a second's worth.
pub(super) const MAX_ENTRIES: usize = 10 << 20;
/// So many callers are named.
const MAX_CALLERS: usize = 5;
/// A name may be that of a declaration, which may be that of another.
const MAX_LINKS: usize = 4;

type Slice<'data> = EndianSlice<'data, LittleEndian>;
type Dwarf<'data> = gimli::Dwarf<Slice<'data>>;
/// What is done with a unit; damage ends it.
type Visit<This> = for<'data> fn(&mut This, &Dwarf<'data>, &Unit<Slice<'data>>) -> gimli::Result<()>;
type Entry<'data> = DebuggingInformationEntry<Slice<'data>>;

/// A function that exists only within others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inlined {
    /// Its name for people.
    pub name: String,
    /// How many times it was copied.
    pub copies: usize,
    /// Some of the functions that it was copied into.
    pub into: Vec<String>,
}

/// Looks in the debug information of a file for functions of this name that were inlined. `None` if there is none, or
/// no debug information, or if it is damaged. What is looked at comes off the budget.
pub(super) fn find(image: &Image<'_>, query: &Query<'_>, budget: &Cell<usize>) -> Option<Inlined> {
    image.section(".debug_info").filter(|_| budget.get() > 0)?;
    let wanted = [
        SectionId::DebugInfo,
        SectionId::DebugAbbrev,
        SectionId::DebugStr,
        SectionId::DebugLineStr,
        SectionId::DebugStrOffsets,
        // What a unit's first entry refers to; without it the unit cannot be read.
        SectionId::DebugLine,
        SectionId::DebugAddr,
    ];
    let load = |id: SectionId| -> Result<Vec<u8>, gimli::Error> {
        let section = wanted.contains(&id).then(|| image.section(id.name())).flatten();
        Ok(section.and_then(|section| image.data(section)).unwrap_or_default())
    };
    let sections = DwarfSections::load(load).ok()?;
    let dwarf = sections.borrow(|bytes| EndianSlice::new(bytes, LittleEndian));
    let mut search = Search { query, budget: budget.get(), origins: HashSet::new(), found: Inlined::default() };
    search.units(&dwarf, Search::originals);
    if !search.origins.is_empty() {
        search.budget = MAX_ENTRIES;
        search.units(&dwarf, Search::copies);
    }
    budget.set(search.budget);
    (search.found.copies > 0).then_some(search.found)
}

struct Search<'query> {
    query: &'query Query<'query>,
    budget: usize,
    /// Offsets of the entries that describe the function.
    origins: HashSet<usize>,
    found: Inlined,
}

impl Search<'_> {
    fn units(&mut self, dwarf: &Dwarf<'_>, visit: Visit<Self>) {
        let mut headers = dwarf.units();
        while let Ok(Some(header)) = headers.next() {
            let Ok(unit) = dwarf.unit(header) else { continue };
            // What is damaged in one unit is not in the next.
            let _ = visit(self, dwarf, &unit);
            if self.budget == 0 {
                tracing::debug!("too much debug information to look for inlined functions in all of it");
                return;
            }
        }
    }

    /// Collects entries of the name that were inlined.
    fn originals<'data>(&mut self, dwarf: &Dwarf<'data>, unit: &Unit<Slice<'data>>) -> gimli::Result<()> {
        let mut entries = unit.entries();
        while let Some(entry) = entries.next_dfs()?.filter(|_| self.budget > 0) {
            self.budget -= 1;
            let inline = entry.attr_value(constants::DW_AT_inline);
            let is_inlined = matches!(
                inline,
                Some(
                    AttributeValue::Inline(DwInl(1 | 3)) | AttributeValue::Udata(1 | 3) | AttributeValue::Data1(1 | 3)
                )
            );
            if entry.tag() != constants::DW_TAG_subprogram || !is_inlined {
                continue;
            }
            let Some(name) = name(dwarf, unit, entry) else { continue };
            if self.query.matches(&name) {
                self.origins.insert(unit.header.offset().0 + entry.offset().0);
                self.found.name = shown(&name);
            }
        }
        Ok(())
    }

    /// Counts the copies, and names the functions around some of them.
    fn copies<'data>(&mut self, dwarf: &Dwarf<'data>, unit: &Unit<Slice<'data>>) -> gimli::Result<()> {
        let mut entries = unit.entries();
        let mut around: Option<UnitOffset> = None;
        let mut callers: BTreeSet<UnitOffset> = BTreeSet::new();
        while let Some(entry) = entries.next_dfs()?.filter(|_| self.budget > 0) {
            self.budget -= 1;
            match entry.tag() {
                constants::DW_TAG_subprogram => around = Some(entry.offset()),
                constants::DW_TAG_inlined_subroutine => {
                    let origin = match entry.attr_value(constants::DW_AT_abstract_origin) {
                        Some(AttributeValue::UnitRef(offset)) => unit.header.offset().0.checked_add(offset.0),
                        Some(AttributeValue::DebugInfoRef(offset)) => Some(offset.0),
                        _ => None,
                    };
                    if origin.is_some_and(|origin| self.origins.contains(&origin)) {
                        self.found.copies += 1;
                        callers.extend(around.filter(|_| callers.len() < MAX_CALLERS));
                    }
                }
                _ => {}
            }
        }
        for caller in callers {
            let Ok(entry) = unit.entry(caller) else { continue };
            let name = name(dwarf, unit, &entry).map(|name| shown(&name));
            let is_new = |name: &String| !self.found.into.contains(name);
            if let Some(name) = name.filter(is_new).filter(|_| self.found.into.len() < MAX_CALLERS) {
                self.found.into.push(name);
            }
        }
        Ok(())
    }
}

fn shown(name: &str) -> String {
    sanitize(&demangle(name).unwrap_or_else(|| name.to_owned()))
}

/// The name of a function: the one that a linker would see if there is one, else that of the source.
fn name<'data>(dwarf: &Dwarf<'data>, unit: &Unit<Slice<'data>>, entry: &Entry<'data>) -> Option<String> {
    let string = |entry: &Entry<'data>, attribute| {
        let text = dwarf.attr_string(unit, entry.attr_value(attribute)?).ok()?;
        Some(text.to_string_lossy().into_owned())
    };
    let mut entry = entry.clone();
    let mut plain = None;
    for _ in 0..MAX_LINKS {
        let linkage = string(&entry, constants::DW_AT_linkage_name);
        if let Some(linkage) = linkage.or_else(|| string(&entry, constants::DW_AT_MIPS_linkage_name)) {
            return Some(linkage);
        }
        plain = plain.or_else(|| string(&entry, constants::DW_AT_name));
        let link = entry.attr_value(constants::DW_AT_specification);
        let Some(AttributeValue::UnitRef(next)) = link.or_else(|| entry.attr_value(constants::DW_AT_abstract_origin))
        else {
            break;
        };
        let Ok(next) = unit.entry(next) else { break };
        entry = next;
    }
    plain
}
