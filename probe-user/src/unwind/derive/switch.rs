//! Jumps through tables, in the forms that compilers and assemblers write: a table of offsets from an address, or one of
//! addresses. Where the highest index is known, so is where the jump goes. Where it is not, the first entries that lead into
//! the code around it are supposed to be such.

use std::collections::BTreeSet;

use iced_x86::{Instruction, OpKind, Register};

use super::effects::number;
use super::image::Image;
use super::state::{Offsets, State, Value, rank};

/// Entries of a table; none that a compiler makes is longer.
const MAX_ENTRIES: usize = 4096;
/// Entries that are supposed.
const MAX_SUPPOSED: usize = 64;
/// Assemblers' tables of two bytes have one for each power of two.
const MAX_SUPPOSED_SHORT: usize = 8;

/// Where a jump goes, and how far that is known; `None` where nothing is.
pub(super) fn targets(
    image: &Image<'_>,
    taken: &BTreeSet<u64>,
    i: &Instruction,
    state: &State,
) -> Option<(Vec<u64>, u8)> {
    let (all, is_known) = match i.op0_kind() {
        OpKind::Register => {
            let Value::Target(offsets, base) = state.registers[number(i.op0_register())?] else { return None };
            let base = image.base + u64::from(base);
            let targets: Vec<u64> = match offsets.bytes {
                2 => entries::<2>(image, taken, offsets)?
                    .map(|offset| base + u64::from(u16::from_le_bytes(offset)))
                    .collect(),
                _ => {
                    let target = |offset| base.wrapping_add_signed(i32::from_le_bytes(offset).into());
                    entries::<4>(image, taken, offsets)?.map(target).collect()
                }
            };
            (targets, offsets.most.is_some())
        }
        OpKind::Memory if i.memory_index_scale() == 8 => {
            let Value::AtMost(most) = state.registers[number(i.memory_index())?] else { return None };
            let table = match i.memory_base() {
                Register::None => i.memory_displacement64(),
                base => match state.registers[number(base)?] {
                    Value::Address(table) => (image.base + u64::from(table)).wrapping_add(i.memory_displacement64()),
                    _ => return None,
                },
            };
            let table = u32::try_from(table.checked_sub(image.base)?).ok()?;
            let most = Some(u16::try_from(most).ok().filter(|&most| !matches!(most, 0xff | 0xffff))?);
            (entries::<8>(image, taken, Offsets { table, most, bytes: 8 })?.map(u64::from_le_bytes).collect(), true)
        }
        _ => return None,
    };
    let mut targets: Vec<u64> = if is_known {
        all.iter().all(|&target| image.gap(target).is_some()).then_some(all)?
    } else {
        let around = image.gap(i.ip())?;
        all.into_iter()
            .take_while(|&target| target != i.ip() && (around.start..around.end()).contains(&target))
            .collect()
    };
    targets.sort_unstable();
    targets.dedup();
    (!targets.is_empty()).then_some((targets, if is_known { rank::CERTAIN } else { rank::SUPPOSED }))
}

/// The entries of a table up to its highest index, or as many as are supposed; `None` if it is too long, or not all there.
fn entries<'data, const N: usize>(
    image: &Image<'data>,
    taken: &BTreeSet<u64>,
    offsets: Offsets,
) -> Option<impl Iterator<Item = [u8; N]> + use<'data, N>> {
    let supposed = if N == 2 { MAX_SUPPOSED_SHORT } else { MAX_SUPPOSED };
    let table = image.base + u64::from(offsets.table);
    // What an instruction takes the address of is another table, or something else.
    let next = taken.range(table + 1..).next().map_or(u64::MAX, |next| next - table);
    let supposed = usize::try_from(next).unwrap_or(usize::MAX).div_euclid(N).min(supposed);
    let count = offsets.most.map_or(supposed, |most| usize::from(most) + 1);
    let bytes = (image.read)(table, (count * N) as u64)?;
    let (entries, _) = bytes.as_chunks();
    let is_whole = count <= MAX_ENTRIES && (offsets.most.is_none() || entries.len() == count);
    is_whole.then(|| entries.iter().copied())
}
