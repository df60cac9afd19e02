//! Alerts: a message for each breach and channel, kept on the disk until it was delivered. A channel that does not answer
//! holds up nothing but its own messages.

mod channel;
mod message;
mod outbox;
mod sender;

pub use channel::{Address, Channel, check_url};
pub use message::{Message, SnapshotLink};
pub use outbox::{Entry, MAX_WAITING, Outbox};
pub use sender::{Sender, backoff};
