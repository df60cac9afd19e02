//! Room: export.
