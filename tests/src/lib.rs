//! What the end-to-end tests share: building and running known programs, running `probe` on them, and reading what it
//! wrote. Nothing here knows how `probe` works inside.

pub mod calm;
pub mod code;
pub mod folded;
pub mod golang;
pub mod perf;
pub mod poll;
pub mod probe;
pub mod profile;
pub mod running;
pub mod trial;
pub mod truth;
pub mod webhook;
pub mod workload;
