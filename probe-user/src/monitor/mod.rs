//! Room: monitor.
