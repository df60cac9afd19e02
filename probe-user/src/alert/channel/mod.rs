//! Channels: each turns a message into what its service wants, sends it once, and understands the answer. One file each.

mod alertmanager;
mod dingtalk;
mod email;
mod feishu;
mod pagerduty;
mod robot;
mod slack;
mod sms;
mod template;
mod webhook;
mod wecom;

use std::time::{Duration, SystemTime};

use anyhow::Result;

pub use alertmanager::Alertmanager;
pub use dingtalk::DingTalk;
pub use email::{Email, Security};
pub use feishu::Feishu;
pub use pagerduty::{PagerDuty, URL as PAGERDUTY};
pub use slack::Slack;
pub use sms::{ONE_MESSAGE, Sms};
pub use template::{Source, Template};
pub use webhook::Webhook;
pub use wecom::WeCom;

use super::http::Endpoint;
use super::{Batch, Failure, Links, Notice, NoticeHost};

/// A channel with its name.
#[derive(Clone, Debug, PartialEq)]
pub struct Channel {
    /// Unique name.
    pub name: String,
    /// Where it leads.
    pub kind: Kind,
    /// How often, and what.
    pub policy: Policy,
}

/// Where a channel leads.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// An HTTP request with a body of one's own, by default as Alertmanager sends it.
    Webhook(Webhook),
    /// A robot in a group of WeCom.
    WeCom(WeCom),
    /// A robot in a group of DingTalk.
    DingTalk(DingTalk),
    /// A robot in a group of Feishu (Lark).
    Feishu(Feishu),
    /// An incoming webhook of Slack.
    Slack(Slack),
    /// E-mail.
    Email(Email),
    /// Short messages through a gateway with an HTTP interface.
    Sms(Sms),
    /// Events of PagerDuty, version 2.
    PagerDuty(PagerDuty),
    /// Alertmanager, version 2 of its API.
    Alertmanager(Alertmanager),
}

/// How a channel is used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Policy {
    /// Is the end of a breach told?
    pub send_resolved: bool,
    /// How long a breach waits for others that go into the same message.
    pub group_wait: Duration,
    /// How often an alert that goes on is told again.
    pub repeat_interval: Option<Duration>,
    /// Most messages a minute.
    pub rate: u32,
    /// How many of them at once.
    pub burst: u32,
    /// How long a message is tried before it is given up.
    pub retry_for: Duration,
}

impl Policy {
    /// What fits a type of channel: the limits of its service, and what its people expect.
    pub fn of_type(name: &str) -> Self {
        // The robots of chats take 20 messages a minute, and punish more.
        let (rate, burst) = match name {
            "wecom" | "dingtalk" => (15, 5),
            "sms" => (10, 5),
            _ => (60, 20),
        };
        let groups = !matches!(name, "sms" | "pagerduty");
        Self {
            send_resolved: name != "sms",
            group_wait: Duration::from_secs(if groups { 2 } else { 0 }),
            // It forgets what it is not told again.
            repeat_interval: (name == "alertmanager").then_some(Duration::from_secs(60)),
            rate,
            burst,
            retry_for: Duration::from_secs(86_400),
        }
    }
}

impl Kind {
    /// All types, as they are written in the configuration.
    pub const TYPES: &[&str] =
        &["webhook", "wecom", "dingtalk", "feishu", "slack", "email", "sms", "pagerduty", "alertmanager"];

    /// The type, as it is written in the configuration.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Webhook(_) => "webhook",
            Self::WeCom(_) => "wecom",
            Self::DingTalk(_) => "dingtalk",
            Self::Feishu(_) => "feishu",
            Self::Slack(_) => "slack",
            Self::Email(_) => "email",
            Self::Sms(_) => "sms",
            Self::PagerDuty(_) => "pagerduty",
            Self::Alertmanager(_) => "alertmanager",
        }
    }

    /// Most notices that fit into one message.
    pub(super) fn group(&self) -> usize {
        match self {
            Self::Webhook(_) | Self::Alertmanager(_) | Self::Email(_) => 50,
            Self::WeCom(_) | Self::DingTalk(_) | Self::Feishu(_) | Self::Slack(_) => 10,
            Self::Sms(_) | Self::PagerDuty(_) => 1,
        }
    }

    /// Do programs read it, which keep in mind what fires? A breach that is over already is a beginning and an end for them.
    pub(super) fn keeps_state(&self) -> bool {
        matches!(self, Self::Webhook(_) | Self::PagerDuty(_) | Self::Alertmanager(_))
    }

    fn deliver(&self, batch: &Batch<'_>) -> Result<(), Failure> {
        match self {
            Self::Webhook(channel) => channel.deliver(batch),
            Self::WeCom(channel) => channel.deliver(batch),
            Self::DingTalk(channel) => channel.deliver(batch, SystemTime::now()),
            Self::Feishu(channel) => channel.deliver(batch, SystemTime::now()),
            Self::Slack(channel) => channel.deliver(batch),
            Self::Email(channel) => channel.deliver(batch),
            Self::Sms(channel) => channel.deliver(batch),
            Self::PagerDuty(channel) => channel.deliver(batch),
            Self::Alertmanager(channel) => channel.deliver(batch, SystemTime::now()),
        }
    }
}

impl Channel {
    /// Sends one message, once. The notices are of different alerts, and at least one.
    pub fn deliver(&self, notices: &[Notice], links: &Links) -> Result<(), Failure> {
        self.kind.deliver(&Batch { channel: &self.name, notices, links })
    }

    /// Sends a test, now, once.
    pub fn test(&self, host: NoticeHost, links: &Links) -> Result<(), Failure> {
        let mut notice = Notice::test(host, &self.name, SystemTime::now().into());
        notice.sanitize();
        self.deliver(&[notice], links)
    }

    /// Is everything there that it takes: files with secrets, templates, certificates? Nothing is sent.
    pub fn check(&self) -> Result<()> {
        match &self.kind {
            Kind::Webhook(channel) => channel.check(&self.name),
            Kind::WeCom(channel) => channel.endpoint.check(),
            Kind::DingTalk(channel) => check_robot(&channel.endpoint, channel.secret.as_ref()),
            Kind::Feishu(channel) => check_robot(&channel.endpoint, channel.secret.as_ref()),
            Kind::Slack(channel) => channel.endpoint.check(),
            Kind::Email(channel) => channel.check(),
            Kind::Sms(channel) => channel.check(&self.name),
            Kind::PagerDuty(channel) => check_robot(&channel.endpoint, Some(&channel.routing_key)),
            Kind::Alertmanager(channel) => channel.endpoint.check(),
        }
    }
}

fn check_robot(endpoint: &Endpoint, secret: Option<&super::Secret>) -> Result<()> {
    endpoint.check()?;
    secret.map_or(Ok(()), |secret| secret.read().map(drop))
}
