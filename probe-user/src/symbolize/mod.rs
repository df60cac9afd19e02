//! From addresses to names. The only room that knows blazesym.

mod modules;
mod profile;
mod symbolizer;
mod waits;

pub use profile::{Frame, Header, Kind, Line, Location, Module, ProcessInfo, Profile, Sample, Stack, ThreadInfo};
pub use symbolizer::Symbolizer;
