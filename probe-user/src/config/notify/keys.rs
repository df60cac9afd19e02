//! The keys of `[[notify]]`, and which type of channel has which.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use crate::config::raw::{Key, Scalar, section};

section! {
    /// A channel that is told of breaches. Each channel has a table of its own. What is secret stands in a file, whose first
    /// line is read anew for each message. `docs/alerts.md` has an example of each type.
    Notify {
        /// The name of the channel. Unique.
        "name" name: String, "string", "required";
        /// `webhook`, `wecom`, `dingtalk`, `feishu`, `slack`, `email`, `sms`, `pagerduty` or `alertmanager`.
        "type" kind: String, "string", "required";
        /// The address, for what is no secret. For `sms` it is a template; for `alertmanager` what stands before `/api/v2/alerts`.
        "url" url: String, "URL", "of `pagerduty` its own";
        /// A file that holds the address. Exactly one of `url` and `url_file` is needed, for all types but `email` and `pagerduty`.
        "url_file" url_file: String, "path", "-";
        /// Certificates (PEM) to trust instead of the public ones.
        "ca_file" ca_file: String, "path", "-";
        /// Further headers of HTTP, for what is no secret.
        "headers" headers: BTreeMap<String, String>, "table of strings", "-";
        /// A file with a token for `Authorization: Bearer`. For `webhook`, `sms`, `alertmanager`.
        "token_file" token_file: String, "path", "-";
        /// The user name, with `password_file`. For `webhook`, `sms`, `alertmanager`, `email`.
        "username" username: String, "string", "-";
        /// A file with the password.
        "password_file" password_file: String, "path", "-";
        /// How long an attempt may take.
        "timeout" timeout: Scalar, "duration", "`10s`";
        /// The method of HTTP. For `webhook` and `sms`; `GET` has no body.
        "method" method: String, "string", "`POST`";
        /// The body, a template of minijinja. For `webhook` and `sms`. A webhook without one has the body of Alertmanager's webhooks.
        "template" template: String, "template", "-";
        /// A file with the template.
        "template_file" template_file: String, "path", "-";
        /// What the template makes; it decides how values are escaped.
        "content_type" content_type: String, "string", "`application/json`";
        /// What the body of an answer must match, where its status does not say enough. For `webhook` and `sms`.
        "success" success: String, "regular expression", "-";
        /// A file with the secret by which messages are signed. For `dingtalk` and `feishu`.
        "secret_file" secret_file: String, "path", "-";
        /// A file with the key of the integration. For `pagerduty`, required.
        "routing_key_file" routing_key_file: String, "path", "-";
        /// `critical`, `error`, `warning` or `info`. For `pagerduty`.
        "severity" severity: String, "string", "`critical`";
        /// The server. For `email`, required.
        "host" host: String, "string", "-";
        /// Its port. For `email`.
        "port" port: i64, "integer", "`587`, `465` with `tls`, `25` with `none`";
        /// `starttls`, `tls` or `none`. For `email`.
        "tls" tls: String, "string", "`starttls`";
        /// The sender. For `email`, required.
        "from" from: String, "address", "-";
        /// Who gets it. For `email` and `sms`, required.
        "to" to: Vec<String>, "list of strings", "-";
        /// Longest text. For `sms`.
        "max_chars" max_chars: i64, "integer", "`70`";
        /// Whether the end of a breach is told.
        "send_resolved" send_resolved: bool, "boolean", "`true`, for `sms` `false`";
        /// How long a breach waits for others that go into the same message. Not for `sms` and `pagerduty`, which group nothing.
        "group_wait" group_wait: Scalar, "duration", "`2s`";
        /// How often an alert that goes on is told again; `0` for never.
        "repeat_interval" repeat_interval: Scalar, "duration", "`0`, for `alertmanager` `1m`";
        /// Most messages a minute.
        "rate" rate: i64, "integer", "`60`, `15` for `wecom` and `dingtalk`, `10` for `sms`";
        /// How many of them at once.
        "burst" burst: i64, "integer", "`20`, `5` for `wecom`, `dingtalk` and `sms`";
        /// How long a message is tried before it is given up.
        "retry_for" retry_for: Scalar, "duration", "`24h`";
    }
}

const COMMON: &[&str] = &["name", "type", "send_resolved", "repeat_interval", "rate", "burst", "retry_for", "timeout"];
const HTTP: &[&str] = &["url", "url_file", "ca_file", "headers"];
const AUTH: &[&str] = &["token_file", "username", "password_file"];
const BODY: &[&str] = &["method", "template", "template_file", "content_type", "success"];

/// The keys of a type, beyond those that all have.
pub(super) fn keys_of(kind: &str) -> Vec<&'static str> {
    let special: &[&[&str]] = match kind {
        "webhook" => &[HTTP, AUTH, BODY, &["group_wait"]],
        "wecom" | "slack" => &[HTTP, &["group_wait"]],
        "dingtalk" | "feishu" => &[HTTP, &["group_wait", "secret_file"]],
        "email" => &[&["host", "port", "tls", "ca_file", "username", "password_file", "from", "to", "group_wait"]],
        "sms" => &[HTTP, AUTH, BODY, &["to", "max_chars"]],
        "pagerduty" => &[HTTP, &["routing_key_file", "severity"]],
        _ => &[HTTP, AUTH, &["group_wait"]],
    };
    [&[COMMON], special].concat().concat()
}
