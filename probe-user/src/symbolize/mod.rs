//! From addresses to names.

mod profile;

pub use profile::{Frame, Header, Kind, Line, Location, Module, ProcessInfo, Profile, Sample, Stack, ThreadInfo};
