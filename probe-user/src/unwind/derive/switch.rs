//! Jumps through tables, in the forms that gcc and clang write: a table of offsets from itself, or one of addresses. The highest
//! index has to be known, or the jump is one to anywhere.

use iced_x86::{Instruction, OpKind, Register};

use super::effects::number;
use super::image::Image;
use super::state::{State, Value};

/// Entries of a table; none that a compiler makes is longer.
const MAX_ENTRIES: u64 = 4096;

/// Where a jump through a table goes; `None` if it is none, or leads out of the code that is looked at.
pub(super) fn targets(image: &Image<'_>, i: &Instruction, state: &State) -> Option<Vec<u64>> {
    let mut targets: Vec<u64> = match i.op0_kind() {
        OpKind::Register => {
            let Value::Target(table, most) = state.registers[number(i.op0_register())?] else { return None };
            let table = image.base + u64::from(table);
            let offsets = entries::<4>(image, table, most)?;
            offsets.iter().map(|offset| table.wrapping_add_signed(i32::from_le_bytes(*offset).into())).collect()
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
            entries::<8>(image, table, most)?.iter().map(|address| u64::from_le_bytes(*address)).collect()
        }
        _ => return None,
    };
    targets.sort_unstable();
    targets.dedup();
    targets.iter().all(|&target| image.gap(target).is_some()).then_some(targets)
}

/// The entries of a table up to an index.
fn entries<'data, const N: usize>(image: &Image<'data>, table: u64, most: u32) -> Option<&'data [[u8; N]]> {
    // That a byte or a half of a word was read says nothing of the table.
    if matches!(most, 0xff | 0xffff) {
        return None;
    }
    let count = u64::from(most.checked_add(1)?).min(MAX_ENTRIES + 1);
    let bytes = (image.read)(table, count * N as u64)?;
    let (entries, _) = bytes.as_chunks();
    (count <= MAX_ENTRIES && entries.len() as u64 == count).then_some(entries)
}
