//! Channels as they are written, again.

use std::time::Duration;

use regex::Regex;
use toml::Value;

use super::keys::keys_of;
use crate::alert::{
    Alertmanager, Auth, Channel, DingTalk, Email, Endpoint, Feishu, Kind, PagerDuty, Policy, Secret, Security, Slack,
    Sms, Source, Template, WeCom, Webhook,
};

/// The keys of a channel as they are written.
pub(in crate::config) fn entries(channel: &Channel) -> Vec<(&'static str, Value)> {
    let Channel { name, kind, policy } = channel;
    let mut entries: Vec<(&str, Value)> = vec![("name", text(name)), ("type", kind.name().into())];
    match kind {
        Kind::Webhook(Webhook { endpoint, method, template, success }) => {
            entries.extend(endpoint_entries(endpoint));
            entries.extend(body_entries(method, template.as_ref(), success.as_ref()));
        }
        Kind::WeCom(WeCom { endpoint })
        | Kind::Slack(Slack { endpoint })
        | Kind::Alertmanager(Alertmanager { endpoint, .. }) => {
            entries.extend(endpoint_entries(endpoint));
        }
        Kind::DingTalk(DingTalk { endpoint, secret }) | Kind::Feishu(Feishu { endpoint, secret }) => {
            entries.extend(endpoint_entries(endpoint));
            entries.extend(secret.as_ref().and_then(|secret| file_entry("secret_file", secret)));
        }
        Kind::Email(email) => entries.extend(email_entries(email)),
        Kind::Sms(Sms { endpoint, method, template, to, max_chars, success }) => {
            entries.extend(endpoint_entries(endpoint));
            entries.extend(body_entries(method, template.as_ref(), success.as_ref()));
            entries.push(("to", to.iter().map(|to| text(to)).collect::<Vec<_>>().into()));
            entries.push(("max_chars", whole(*max_chars)));
        }
        Kind::PagerDuty(PagerDuty { endpoint, routing_key, severity }) => {
            entries.extend(endpoint_entries(endpoint));
            entries.extend(file_entry("routing_key_file", routing_key));
            entries.push(("severity", text(severity)));
        }
    }
    let Policy { send_resolved, group_wait, repeat_interval, rate, burst, retry_for } = policy;
    entries.push(("send_resolved", (*send_resolved).into()));
    if keys_of(kind.name()).contains(&"group_wait") {
        entries.push(("group_wait", time(*group_wait)));
    }
    entries.push(("repeat_interval", time(repeat_interval.unwrap_or_default())));
    entries.push(("rate", i64::from(*rate).into()));
    entries.push(("burst", i64::from(*burst).into()));
    entries.push(("retry_for", time(*retry_for)));
    entries
}

fn endpoint_entries(endpoint: &Endpoint) -> Vec<(&'static str, Value)> {
    let Endpoint { url, timeout, ca_file, headers, auth } = endpoint;
    let mut entries = vec![match url {
        Secret::Text(url) => ("url", text(url)),
        Secret::File(file) => ("url_file", path(file)),
    }];
    entries.push(("timeout", time(*timeout)));
    entries.extend(ca_file.as_ref().map(|file| ("ca_file", path(file))));
    if !headers.is_empty() {
        let table: toml::Table = headers.iter().map(|(name, value)| (name.clone(), text(value))).collect();
        entries.push(("headers", table.into()));
    }
    match auth {
        Some(Auth::Bearer(token)) => entries.extend(file_entry("token_file", token)),
        Some(Auth::Basic(user, password)) => {
            entries.push(("username", text(user)));
            entries.extend(file_entry("password_file", password));
        }
        None => {}
    }
    entries
}

fn body_entries(method: &str, template: Option<&Template>, success: Option<&Regex>) -> Vec<(&'static str, Value)> {
    let mut entries = vec![("method", text(method))];
    if let Some(Template { source, content_type }) = template {
        entries.push(match source {
            Source::Text(template) => ("template", text(template)),
            Source::File(file) => ("template_file", path(file)),
        });
        entries.push(("content_type", text(content_type)));
    }
    entries.extend(success.map(|pattern| ("success", text(pattern.as_str()))));
    entries
}

fn email_entries(email: &Email) -> Vec<(&'static str, Value)> {
    let Email { host, port, security, ca_file, login, from, to, timeout } = email;
    let security = match security {
        Security::StartTls => "starttls",
        Security::Tls => "tls",
        Security::None => "none",
    };
    let mut entries = vec![
        ("host", text(host)),
        ("port", i64::from(*port).into()),
        ("tls", security.into()),
        ("timeout", time(*timeout)),
    ];
    entries.extend(ca_file.as_ref().map(|file| ("ca_file", path(file))));
    if let Some((user, password)) = login {
        entries.push(("username", text(user)));
        entries.extend(file_entry("password_file", password));
    }
    entries.push(("from", from.to_string().into()));
    entries.push(("to", to.iter().map(|to| Value::from(to.to_string())).collect::<Vec<_>>().into()));
    entries
}

fn file_entry(key: &'static str, secret: &Secret) -> Option<(&'static str, Value)> {
    match secret {
        Secret::File(file) => Some((key, path(file))),
        Secret::Text(_) => None,
    }
}

fn text(text: &str) -> Value {
    text.into()
}

fn path(path: &std::path::Path) -> Value {
    path.display().to_string().into()
}

fn whole(number: usize) -> Value {
    i64::try_from(number).unwrap_or(i64::MAX).into()
}

fn time(duration: Duration) -> Value {
    humantime::format_duration(duration).to_string().into()
}
