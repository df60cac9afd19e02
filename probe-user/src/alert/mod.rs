//! Room: alert.
