//! From addresses to names. The only room that knows addr2line and blazesym.

mod dwarf;
mod growth;
mod heap;
mod in_use;
mod modules;
mod named;
mod naming;
mod narrow;
mod profile;
mod sources;
mod symbolizer;
mod views;
mod waits;

pub use heap::LIVE_EVENT;
pub use naming::Name;
pub use narrow::narrow;
pub use profile::{
    Allocated, DERIVED_STACKS, Header, InUse, Kind, Line, Location, Measure, Module, PAGE_FAULT, ProcessInfo, Profile,
    Sample, Stack, ThreadInfo,
};
pub use symbolizer::Symbolizer;
pub use views::Frame;
