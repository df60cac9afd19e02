//! Alerts, in two halves that need not be one process. Who watches writes a [`Notice`] to the [`Journal`]; the
//! [`Dispatcher`] reads it there, and sees to it that each channel gets it at least once: a durable queue, a thread and a
//! pace for each, so that one that does not answer holds up nothing but its own messages.

mod channel;
mod disk;
mod dispatcher;
mod failure;
mod fit;
mod history;
mod http;
mod journal;
mod lane;
mod notice;
mod pace;
mod secret;
mod story;

pub use channel::{
    Alertmanager, Channel, DingTalk, Email, Feishu, Kind, PagerDuty, Policy, Security, Slack, Sms, Source, Template,
    WeCom, Webhook,
};
pub use channel::{ONE_MESSAGE, PAGERDUTY};
pub use dispatcher::{ChannelFigures, Dispatcher};
pub use failure::Failure;
pub use history::history;
pub use http::{Auth, Endpoint, check_url};
pub use journal::{Journal, MAX_AGE, MAX_NOTICES, Reader};
pub use lane::MAX_QUEUED;
pub use notice::{Notice, NoticeHost, NoticeKind, NoticeProcess, SnapshotLink};
pub use secret::Secret;
use story::Batch;
pub use story::{Links, sentence};
