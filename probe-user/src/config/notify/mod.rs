//! `[[notify]]`: what is right of a channel.

mod keys;
mod show;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use regex::Regex;
use toml::Spanned;

use super::layers::nearest;
use super::validate::{Check, Checked};
use crate::alert::{
    Alertmanager, Auth, Channel, DingTalk, Email, Endpoint, Feishu, Kind, ONE_MESSAGE, PAGERDUTY, PagerDuty, Policy,
    Secret, Security, Slack, Sms, Source, Template, WeCom, Webhook, check_url,
};
pub(super) use keys::Notify;
use keys::keys_of;
pub(super) use show::entries;

const SECTION: &str = "[[notify]]";

impl Check<'_> {
    pub(super) fn channel(&self, table: &Spanned<Notify>, names: &mut BTreeSet<String>) -> Checked<Channel> {
        let raw = table.get_ref();
        let name = self.name(SECTION, &table.span(), raw.name.as_ref(), names)?;
        let kind = self.required(SECTION, "type", &table.span(), raw.kind.as_ref())?;
        let types = Kind::TYPES;
        if !types.contains(&kind.get_ref().as_str()) {
            let near = nearest(kind.get_ref(), types).unwrap_or_default();
            let text = format!("unknown type `{}`; did you mean `{near}`?", kind.get_ref());
            let mut problem = self.error(&kind.span(), text);
            problem.hint = format!("known: {}", types.join(", "));
            return Err(problem);
        }
        let kind = kind.get_ref().as_str();
        let known = keys_of(kind);
        if let Some((key, place)) = raw.given().into_iter().find(|(key, _)| !known.contains(key)) {
            let mut problem = self.error(&place, format!("`{key}` is not a key of the type `{kind}`"));
            problem.hint = format!("known here: {}", known.join(", "));
            return Err(problem);
        }
        let policy = self.policy(raw, kind)?;
        let place = table.span();
        let kind = match kind {
            "webhook" => Kind::Webhook(self.webhook(raw, &name, &place)?),
            "wecom" => Kind::WeCom(WeCom { endpoint: self.endpoint(raw, &name, &place)? }),
            "dingtalk" => Kind::DingTalk(DingTalk {
                endpoint: self.endpoint(raw, &name, &place)?,
                secret: self.secret("secret_file", raw.secret_file.as_ref())?,
            }),
            "feishu" => Kind::Feishu(Feishu {
                endpoint: self.endpoint(raw, &name, &place)?,
                secret: self.secret("secret_file", raw.secret_file.as_ref())?,
            }),
            "slack" => Kind::Slack(Slack { endpoint: self.endpoint(raw, &name, &place)? }),
            "email" => Kind::Email(self.email(raw, &place)?),
            "sms" => Kind::Sms(self.sms(raw, &name, &place)?),
            "pagerduty" => Kind::PagerDuty(self.pagerduty(raw, &name, &place)?),
            _ => Kind::Alertmanager(Alertmanager {
                endpoint: self.endpoint(raw, &name, &place)?,
                // Four times, as Prometheus has it; what is never repeated holds for as long as it is remembered.
                hold: policy
                    .repeat_interval
                    .map_or(Duration::from_secs(86_400), |every| (4 * every).max(Duration::from_secs(300))),
            }),
        };
        Ok(Channel { name, kind, policy })
    }

    fn policy(&self, raw: &Notify, kind: &str) -> Checked<Policy> {
        let usual = Policy::of_type(kind);
        let repeat = self.duration(raw.repeat_interval.as_ref(), usual.repeat_interval.unwrap_or_default())?;
        if let Some(value) = &raw.repeat_interval
            && !repeat.is_zero()
            && repeat < Duration::from_secs(1)
        {
            return Err(self.error(&value.span(), "`repeat_interval` is 0 or at least one second"));
        }
        let group_wait = self.duration(raw.group_wait.as_ref(), usual.group_wait)?;
        if let Some(value) = raw.group_wait.as_ref().filter(|_| group_wait > Duration::from_secs(3600)) {
            return Err(self.error(&value.span(), "`group_wait` is at most one hour"));
        }
        Ok(Policy {
            send_resolved: raw.send_resolved.as_ref().map_or(usual.send_resolved, |value| *value.get_ref()),
            group_wait,
            repeat_interval: Some(repeat).filter(|repeat| !repeat.is_zero()),
            rate: self.integer(raw.rate.as_ref(), "rate", 1..=6000, usual.rate)?,
            burst: self.integer(raw.burst.as_ref(), "burst", 1..=1000, usual.burst)?,
            retry_for: self.duration(raw.retry_for.as_ref(), usual.retry_for)?,
        })
    }

    /// The address with all that HTTP needs.
    fn endpoint(&self, raw: &Notify, name: &str, table: &Range<usize>) -> Checked<Endpoint> {
        let url = match (&raw.url, &raw.url_file) {
            (Some(url), None) => Secret::Text(url.get_ref().clone()),
            (None, Some(file)) => Secret::File(self.file("url_file", file)?),
            (None, None) => {
                return Err(self.error(table, format!("[[notify]] `{name}` needs `url` or `url_file`")));
            }
            (Some(_), Some(file)) => {
                return Err(self.error(&file.span(), "`url` and `url_file` cannot be used together"));
            }
        };
        if let Some(url) = &raw.url {
            let text = url.get_ref();
            let host = text.split("://").nth(1).and_then(|rest| rest.split(['/', '?', '#']).next());
            if host.is_some_and(|host| host.contains('@')) {
                return Err(
                    self.error(&url.span(), "do not put a password into `url`: use `username` and `password_file`")
                );
            }
            // A template is an address only when it is filled in.
            if !text.contains("{{") {
                check_url(text).map_err(|error| self.error(&url.span(), error))?;
            }
        }
        let auth = match (&raw.token_file, &raw.username, &raw.password_file) {
            (None, None, None) => None,
            (Some(token), None, None) => Some(Auth::Bearer(Secret::File(self.file("token_file", token)?))),
            (None, Some(user), Some(password)) => {
                let password = Secret::File(self.file("password_file", password)?);
                Some(Auth::Basic(user.get_ref().clone(), password))
            }
            (Some(token), ..) => {
                let text = "`token_file` cannot be used with `username` and `password_file`";
                return Err(self.error(&token.span(), text));
            }
            _ => return Err(self.error(table, "`username` and `password_file` must be set together")),
        };
        Ok(Endpoint {
            ca_file: raw.ca_file.as_ref().map(|file| self.file("ca_file", file)).transpose()?,
            headers: self.headers(raw.headers.as_ref())?,
            timeout: self.timeout(raw)?,
            auth,
            ..Endpoint::new(url)
        })
    }

    fn headers(&self, headers: Option<&Spanned<BTreeMap<String, String>>>) -> Checked<Vec<(String, String)>> {
        let Some(headers) = headers else { return Ok(Vec::new()) };
        for (name, value) in headers.get_ref() {
            let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
            if name.is_empty() || !name.chars().all(is_token) || value.chars().any(char::is_control) {
                return Err(self.error(&headers.span(), format!("`{name}` is not an HTTP header")));
            }
            if name.eq_ignore_ascii_case("authorization") {
                let text = "`headers` must not hold secrets: use `token_file`, or `username` and `password_file`";
                return Err(self.error(&headers.span(), text));
            }
        }
        Ok(headers.get_ref().clone().into_iter().collect())
    }

    fn timeout(&self, raw: &Notify) -> Checked<Duration> {
        let timeout = self.duration(raw.timeout.as_ref(), Duration::from_secs(10))?;
        match &raw.timeout {
            Some(value) if timeout.is_zero() || timeout > Duration::from_secs(300) => {
                Err(self.error(&value.span(), "`timeout` is above 0 and at most five minutes"))
            }
            _ => Ok(timeout),
        }
    }

    pub(super) fn file(&self, key: &str, file: &Spanned<String>) -> Checked<PathBuf> {
        if !file.get_ref().starts_with('/') {
            return Err(self.error(&file.span(), format!("`{key}` must be an absolute path, beginning with `/`")));
        }
        Ok(file.get_ref().into())
    }

    fn secret(&self, key: &str, file: Option<&Spanned<String>>) -> Checked<Option<Secret>> {
        file.map(|file| self.file(key, file).map(Secret::File)).transpose()
    }

    fn webhook(&self, raw: &Notify, name: &str, table: &Range<usize>) -> Checked<Webhook> {
        Ok(Webhook {
            endpoint: self.endpoint(raw, name, table)?,
            method: self.method(raw)?,
            template: self.template(raw)?,
            success: self.success(raw)?,
        })
    }

    fn sms(&self, raw: &Notify, name: &str, table: &Range<usize>) -> Checked<Sms> {
        let to = self.required(SECTION, "to", table, raw.to.as_ref())?;
        if to.get_ref().is_empty() {
            return Err(self.error(&to.span(), "`to` needs a number"));
        }
        Ok(Sms {
            endpoint: self.endpoint(raw, name, table)?,
            method: self.method(raw)?,
            template: self.template(raw)?,
            to: to.get_ref().clone(),
            max_chars: self.integer(raw.max_chars.as_ref(), "max_chars", 20..=10_000, ONE_MESSAGE as i64)? as usize,
            success: self.success(raw)?,
        })
    }

    fn method(&self, raw: &Notify) -> Checked<String> {
        let Some(method) = &raw.method else { return Ok("POST".to_owned()) };
        self.one_of(SECTION, "method", &method.span(), Some(method), &["POST", "PUT", "PATCH", "GET"])?;
        Ok(method.get_ref().clone())
    }

    fn template(&self, raw: &Notify) -> Checked<Option<Template>> {
        let source = match (&raw.template, &raw.template_file) {
            (Some(text), None) => Source::Text(text.get_ref().clone()),
            (None, Some(file)) => Source::File(self.file("template_file", file)?),
            (None, None) => match &raw.content_type {
                Some(kind) => return Err(self.error(&kind.span(), "`content_type` needs a `template`")),
                None => return Ok(None),
            },
            (Some(_), Some(file)) => {
                return Err(self.error(&file.span(), "`template` and `template_file` cannot be used together"));
            }
        };
        let content_type = raw.content_type.as_ref().map_or("application/json", |kind| kind.get_ref()).to_owned();
        Ok(Some(Template { source, content_type }))
    }

    fn success(&self, raw: &Notify) -> Checked<Option<Regex>> {
        let compile = |pattern: &Spanned<String>| {
            let wrong = |_| self.error(&pattern.span(), format!("`{}` is not a regular expression", pattern.get_ref()));
            Regex::new(pattern.get_ref()).map_err(wrong)
        };
        raw.success.as_ref().map(compile).transpose()
    }

    fn pagerduty(&self, raw: &Notify, name: &str, table: &Range<usize>) -> Checked<PagerDuty> {
        let key = self.required(SECTION, "routing_key_file", table, raw.routing_key_file.as_ref())?;
        let severity = match &raw.severity {
            None => "critical".to_owned(),
            Some(severity) => {
                let allowed = ["critical", "error", "warning", "info"];
                self.one_of(SECTION, "severity", &severity.span(), Some(severity), &allowed)?;
                severity.get_ref().clone()
            }
        };
        let routing_key = Secret::File(self.file("routing_key_file", key)?);
        let usual = Spanned::new(table.clone(), PAGERDUTY.to_owned());
        let has_none = raw.url.is_none() && raw.url_file.is_none();
        let raw = if has_none { &Notify { url: Some(usual), ..raw.clone() } } else { raw };
        Ok(PagerDuty { endpoint: self.endpoint(raw, name, table)?, routing_key, severity })
    }

    fn email(&self, raw: &Notify, table: &Range<usize>) -> Checked<Email> {
        let security = match &raw.tls {
            None => Security::StartTls,
            Some(tls) => {
                self.one_of(SECTION, "tls", &tls.span(), Some(tls), &["starttls", "tls", "none"])?;
                match tls.get_ref().as_str() {
                    "tls" => Security::Tls,
                    "none" => Security::None,
                    _ => Security::StartTls,
                }
            }
        };
        let usual = match security {
            Security::StartTls => 587,
            Security::Tls => 465,
            Security::None => 25,
        };
        let address = |key: &str, text: &str, place: &Range<usize>| {
            text.parse().map_err(|_| self.error(place, format!("`{key}`: `{text}` is not an e-mail address")))
        };
        let login = match (&raw.username, &raw.password_file) {
            (None, None) => None,
            (Some(user), Some(file)) => {
                if security == Security::None {
                    return Err(self.error(&file.span(), "a password is not sent without TLS"));
                }
                Some((user.get_ref().clone(), Secret::File(self.file("password_file", file)?)))
            }
            _ => return Err(self.error(table, "`username` and `password_file` must be set together")),
        };
        let from = self.required(SECTION, "from", table, raw.from.as_ref())?;
        let to = self.required(SECTION, "to", table, raw.to.as_ref())?;
        if to.get_ref().is_empty() {
            return Err(self.error(&to.span(), "`to` needs an address"));
        }
        Ok(Email {
            host: self.required(SECTION, "host", table, raw.host.as_ref())?.get_ref().clone(),
            port: self.integer(raw.port.as_ref(), "port", 1..=u16::MAX, usual)?,
            security,
            ca_file: raw.ca_file.as_ref().map(|file| self.file("ca_file", file)).transpose()?,
            login,
            from: address("from", from.get_ref(), &from.span())?,
            to: to.get_ref().iter().map(|text| address("to", text, &to.span())).collect::<Checked<_>>()?,
            timeout: self.timeout(raw)?,
        })
    }
}

#[cfg(test)]
mod tests;
