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

use crate::functions::{Argument, Finder, Kind, Place, Value};
use crate::kernel::{CONSTANT, Layout, Operand, Role, Wanted};
use crate::target::Module;

const PROVIDER: &str = "otel_memory";

/// A tracepoint of the contract.
#[derive(Clone, Debug)]
pub(super) struct Publication {
    pub place: Place,
    pub role: Role,
    layout: Layout,
    semaphore: Option<u64>,
}

impl Publication {
    /// Those in some files whose arguments can be read.
    pub fn find(finder: &Finder) -> Vec<Self> {
        finder.tracepoints(PROVIDER).into_iter().filter_map(Self::new).collect()
    }

    fn new(place: Place) -> Option<Self> {
        let Kind::Usdt { name, semaphore, arguments, .. } = &place.kind else { return None };
        let (role, count) = match name.as_str() {
            "alloc" => (Role::AllocatePublished, 3),
            "free" => (Role::FreePublished, 1),
            _ => return None,
        };
        let Some(layout) = layout(arguments, count) else {
            tracing::warn!("{place} is left out: its arguments are where they cannot be read");
            return None;
        };
        let semaphore = *semaphore;
        Some(Self { place, role, layout, semaphore })
    }

    /// Its probe, for heap number `heap`; the layout of its arguments has `number`.
    pub fn probe(&self, heap: u32, number: impl FnOnce(&Layout) -> Option<u32>) -> Option<Wanted> {
        let number = heap | number(&self.layout)?;
        let Self { place, role, semaphore, .. } = self;
        let file = place.module.open_path()?;
        Some(Wanted { file, offset: place.file_offset, role: *role, number, semaphore: *semaphore })
    }
}

/// Leaves the files that tell of samples; with `live` only those that tell of their end as well.
pub(super) fn usable(mut all: Vec<Publication>, live: bool) -> Vec<Publication> {
    let tells = |all: &[Publication], module: &Arc<Module>, role: Role| {
        all.iter().any(|one| one.role == role && Arc::ptr_eq(&one.place.module, module))
    };
    let files: Vec<Arc<Module>> = all.iter().map(|one| one.place.module.clone()).collect();
    let is_usable = |module: &&Arc<Module>| {
        tells(&all, module, Role::AllocatePublished) && (!live || tells(&all, module, Role::FreePublished))
    };
    let files: Vec<Arc<Module>> = files.iter().filter(is_usable).cloned().collect();
    all.retain(|one| files.iter().any(|file| Arc::ptr_eq(file, &one.place.module)));
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
