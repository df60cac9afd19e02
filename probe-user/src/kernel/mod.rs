//! Room: kernel.

pub mod host;
