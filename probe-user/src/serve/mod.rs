//! Room: serve.
