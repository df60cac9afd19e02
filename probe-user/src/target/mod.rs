//! What can be known of processes and of the host without touching them: the only room that reads `/proc`.

mod host;
mod matching;
mod stat;

pub use host::{Host, HostCpu};
pub use matching::{Candidate, Matcher, pids};
pub use stat::{Stat, read_status_comm};
