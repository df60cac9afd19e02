//! From addresses to names. The only room that knows blazesym.

mod heap;
mod modules;
mod profile;
mod symbolizer;
mod waits;

pub use heap::LIVE_EVENT;
pub use profile::{
    Allocated, Frame, Header, Kind, Line, Location, Module, ProcessInfo, Profile, Sample, Stack, ThreadInfo,
};
pub use symbolizer::Symbolizer;
