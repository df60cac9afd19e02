//! `probe`: a zero-instrumentation profiler for Linux. One module per stage, in the order in which data flows; a room
//! imports only rooms above it in this list (`tests/rooms.rs` enforces it).

pub mod problem;
pub mod text;

pub mod sandbox;

pub mod supervise;

pub mod helper;

pub mod reader;

pub mod gopclntab;

pub mod target;

pub mod kernel;

pub mod unwind;

pub mod functions;

pub mod probes;

pub mod heap;

pub mod latency;

pub mod record;

pub mod symbolize;

pub mod monitor;

pub mod snapshot;

pub mod export;

pub mod alert;

pub mod control;

pub mod serve;

pub mod config;

pub mod daemon;

pub mod cli;
