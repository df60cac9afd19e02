//! From addresses to names. The only room that knows blazesym.

mod growth;
mod heap;
mod modules;
mod profile;
mod symbolizer;
mod waits;

pub use heap::LIVE_EVENT;
pub use profile::{
    Allocated, Frame, Header, Kind, Line, Location, Measure, Module, PAGE_FAULT, ProcessInfo, Profile, Sample, Stack,
    ThreadInfo,
};
pub use symbolizer::Symbolizer;
