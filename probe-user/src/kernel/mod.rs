//! Room: kernel.
