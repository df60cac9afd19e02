//! The way between server and collector: a Unix socket. A request is a frame with JSON; the reply is a frame with JSON and
//! what is not worth being JSON. One request after the other on a connection, several connections at a time.
//!
//! The collector trusts nobody: it asks the kernel who connects, and bounds how many they are, how large their requests are
//! and how long they may take.

mod client;
mod frame;
mod listener;

pub use client::Client;
pub use listener::{Listener, Peers};

#[cfg(test)]
mod tests;
