//! `Returns`: where a function is left.

use anyhow::{Context, Result, bail, ensure};
use object::elf::EM_X86_64;

use super::code::{self, MAX_FUNCTION};
use super::demangle::{CloneKind, Cloned};
use super::file::Searched;
use super::finder::Finder;
use super::image::Image;
use super::place::{Kind, Place};

/// A function may have more than one cold part, but not many.
const MAX_PARTS: usize = 8;

/// Where a function is left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Returns {
    /// File offsets of its return instructions, those of its cold parts included.
    pub offsets: Vec<u64>,
    /// Jumps to other functions: calls that leave by one of them return from there, and are not seen here.
    pub jumps_out: u32,
    /// It jumps to its own first instruction, which is no call: a loop from the very beginning.
    pub begins_again: bool,
}

impl Finder {
    /// Where a function is left that was found here, by looking at its instructions: an error if they cannot be told apart.
    pub fn returns(&self, place: &Place) -> Result<Returns> {
        let what = || format!("{} in {}", place.name, place.module.path);
        ensure!(place.kind == Kind::Entry, "{}: no function begins there", what());
        ensure!((1..=MAX_FUNCTION).contains(&place.size), "{}: a function of {} bytes", what(), place.size);
        let file = self.file(&place.module).with_context(what)?;
        let image = file.image().with_context(what)?;
        ensure!(image.machine == EM_X86_64, "{}: only instructions of x86-64 are understood", what());
        of_parts(file, &image, place).with_context(what)
    }
}

/// Of the function and of what it jumps to of its own.
fn of_parts(file: &Searched, image: &Image<'_>, place: &Place) -> Result<Returns> {
    let mut parts = vec![(place.address, place.size)];
    let (mut found, mut jumps) = (Returns::default(), Vec::new());
    let mut looked = 0;
    while let Some(&(address, size)) = parts.get(looked) {
        looked += 1;
        let code = image.code(address, size).filter(|code| code.len() as u64 == size);
        let Some(code) = code else { bail!("its code is cut off") };
        let exits = code::exits(&code, address).map_err(anyhow::Error::msg)?;
        found.begins_again |= exits.begins_again && address == place.address;
        for at in exits.returns {
            let (offset, _) = image.offset_of(at, true).context("its code is in no segment")?;
            // The kernel puts no probe on some.
            match code::refused(&code[(at - address) as usize..]) {
                None => found.offsets.push(offset),
                Some(_) => found.jumps_out += 1,
            }
        }
        for target in exits.jumps {
            match target.and_then(|target| cold_part(file, place, target)) {
                Some(part) if parts.contains(&part) => {}
                Some(part) if parts.len() < MAX_PARTS => parts.push(part),
                _ => jumps.push(target),
            }
        }
    }
    found.begins_again |= parts.len() > 1 && jumps.contains(&Some(place.address));
    // A cold part jumps back into the function, which is no way out.
    let is_inside = |target: u64| parts.iter().any(|(start, size)| (*start..*start + *size).contains(&target));
    found.jumps_out += jumps.into_iter().filter(|target| !target.is_some_and(is_inside)).count() as u32;
    Ok(found)
}

/// The part of a function at an address, if that is seldom used and stands apart: address and size.
fn cold_part(file: &Searched, place: &Place, address: u64) -> Option<(u64, u64)> {
    let (symbol, name) = file.loaded().ok()?.symbols.around(address)?;
    let part = Cloned::of(name);
    let is_own = part.kind == CloneKind::Cold && part.base == Cloned::of(&place.symbol).base;
    (is_own && symbol.size <= MAX_FUNCTION).then_some((symbol.address, symbol.size))
}
