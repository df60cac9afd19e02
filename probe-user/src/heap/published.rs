//! Allocators that publish samples of their own by static tracepoints, as OpenTelemetry proposes (`otel_memory`):
//!
//! ```text
//! otel_memory:alloc(address, size, weight)   a sampled allocation, and how many bytes it stands for
//! otel_memory:free(address)                  the end of one
//! ```
//!
//! The tracepoints are reached for samples only, so that nothing is cheaper. What they say is taken as it is: an allocation
//! of `size` bytes that stands for `weight` of them stands for `weight / size` allocations.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::functions::{Argument, Finder, Kind, Place, Value};
use crate::kernel::{CONSTANT, Layout, Operand, Role, Wanted};
use crate::target::Module;

const PROVIDER: &str = "otel_memory";

/// A tracepoint of the contract in some file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Published {
    /// File offset.
    offset: u64,
    role: Role,
    arguments: [Source; 3],
    /// See [`Layout::signed`].
    signed: u32,
    /// File offset of the counter that is above zero while somebody listens.
    semaphore: Option<u64>,
}

/// See [`Operand`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Source {
    source: u32,
    reads: u32,
    offsets: [i64; 3],
    bits: u32,
}

/// A tracepoint of the contract in a file that a process has mapped.
#[derive(Clone, Debug)]
pub(super) struct Publication {
    pub module: Arc<Module>,
    pub role: Role,
    offset: u64,
    layout: Layout,
    semaphore: Option<u64>,
}

/// Those in some files whose arguments can be read.
pub(super) fn find(finder: &Finder) -> Vec<Published> {
    finder.tracepoints(PROVIDER).into_iter().filter_map(|place| Published::new(&place)).collect()
}

impl Published {
    fn new(place: &Place) -> Option<Self> {
        let Kind::Usdt { name, semaphore, arguments, .. } = &place.kind else { return None };
        let (role, count) = match name.as_str() {
            "alloc" => (Role::AllocatePublished, 3),
            "free" => (Role::FreePublished, 1),
            _ => return None,
        };
        let Layout { arguments, signed, .. } = layout(arguments, count)?;
        let source = |Operand { source, reads, offsets, bits, .. }: Operand| Source { source, reads, offsets, bits };
        let (offset, semaphore) = (place.file_offset, *semaphore);
        Some(Self { offset, role, arguments: arguments.map(source), signed, semaphore })
    }
}

impl Publication {
    pub fn new(module: Arc<Module>, Published { offset, role, arguments, signed, semaphore }: Published) -> Self {
        let operand = |Source { source, reads, offsets, bits }| Operand { source, reads, offsets, bits, padding: 0 };
        let layout = Layout { arguments: arguments.map(operand), signed, padding: 0 };
        Self { module, role, offset, layout, semaphore }
    }

    /// Its probe, for heap number `heap`; the layout of its arguments has `number`.
    pub fn probe(&self, heap: u32, number: impl FnOnce(&Layout) -> Option<u32>) -> Option<Wanted> {
        let number = heap | number(&self.layout)?;
        let file = self.module.handle_path()?;
        Some(Wanted { file, offset: self.offset, role: self.role, number, semaphore: self.semaphore })
    }

    pub fn is_same_place(&self, other: &Self) -> bool {
        self.module.is_same_file(&other.module) && self.offset == other.offset
    }
}

/// Leaves the files that tell of samples; with `live` only those that tell of their end as well.
pub(super) fn usable(mut all: Vec<Publication>, live: bool) -> Vec<Publication> {
    let tells = |all: &[Publication], module: &Arc<Module>, role: Role| {
        all.iter().any(|one| one.role == role && Arc::ptr_eq(&one.module, module))
    };
    let files: Vec<Arc<Module>> = all.iter().map(|one| one.module.clone()).collect();
    let is_usable = |module: &&Arc<Module>| {
        tells(&all, module, Role::AllocatePublished) && (!live || tells(&all, module, Role::FreePublished))
    };
    let files: Vec<Arc<Module>> = files.iter().filter(is_usable).cloned().collect();
    all.retain(|one| files.iter().any(|file| Arc::ptr_eq(file, &one.module)));
    // The end first: a sample whose beginning is seen has its end seen.
    all.retain(|one| live || one.role == Role::AllocatePublished);
    all.sort_by_key(|one| one.role == Role::AllocatePublished);
    all
}

fn layout(arguments: &[Argument], count: usize) -> Option<Layout> {
    let mut layout = Layout::default();
    for (number, argument) in arguments.get(..count)?.iter().enumerate() {
        layout.arguments[number] = match argument.value {
            Value::Constant(value) => Operand { source: CONSTANT, offsets: [value, 0, 0], ..Operand::default() },
            _ => argument.operand()?,
        };
        layout.signed |= u32::from(argument.is_signed) << number;
    }
    Some(layout)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::functions::Register;

    #[test]
    fn arguments_of_the_contract_are_laid_out() {
        let register = Value::Register(Register { name: "rbx", is_high_byte: false });
        let argument = |size, is_signed, value| Argument { size, is_signed, is_float: false, value };
        let base = Some(Register { name: "rsp", is_high_byte: false });
        let arguments = [
            argument(8, false, register),
            argument(4, true, Value::Memory { base, index: None, displacement: 8 }),
            argument(8, false, Value::Constant(524_288)),
        ];
        let layout = layout(&arguments, 3).expect("readable");
        assert_eq!(layout.arguments.map(|operand| operand.source), [3, 7, CONSTANT]);
        assert_eq!((layout.arguments[1].offsets[0], layout.arguments[1].bits, layout.signed), (8, 32, 0b010));
        assert!(super::layout(&arguments[..2], 3).is_none(), "one is missing");
        let unreadable = [argument(8, false, Value::Unknown("8@x(%rip)".into()))];
        assert!(super::layout(&unreadable, 1).is_none());
    }
}
