//! A webhook: an HTTP request with a body by a template, by default the one of Alertmanager's webhooks, version 4.

use anyhow::Result;
use regex::Regex;
use serde_json::json;

use super::alertmanager::webhook_body;
use super::template::Template;
use crate::alert::http::{Answer, Call, Endpoint};
use crate::alert::{Batch, Failure, Links, Notice, NoticeHost};

/// See the head of this file.
#[derive(Clone, Debug)]
pub struct Webhook {
    /// Where it is.
    pub endpoint: Endpoint,
    /// `POST`, `PUT` and so on.
    pub method: String,
    /// The body; `None` for Alertmanager's.
    pub template: Option<Template>,
    /// What an answer must match to be one of success, beyond its status.
    pub success: Option<Regex>,
}

impl PartialEq for Webhook {
    fn eq(&self, other: &Self) -> bool {
        let Self { endpoint, method, template, success } = self;
        let is_same = (endpoint, method, template) == (&other.endpoint, &other.method, &other.template);
        is_same && success.as_ref().map(Regex::as_str) == other.success.as_ref().map(Regex::as_str)
    }
}

impl Webhook {
    pub(super) fn deliver(&self, batch: &Batch<'_>) -> Result<(), Failure> {
        let (body, content_type) = self.body(batch)?;
        let url = self.endpoint.read_url()?;
        let call = Call { method: &self.method, url, content_type, body, secrets: Vec::new() };
        expect_match(&self.endpoint.send(call)?.expect_success()?, self.success.as_ref())
    }

    fn body(&self, batch: &Batch<'_>) -> Result<(Vec<u8>, &str)> {
        Ok(match &self.template {
            None => (serde_json::to_vec(&webhook_body(batch))?, "application/json"),
            Some(template) => (template.render(batch, json!({}))?.into_bytes(), &template.content_type),
        })
    }

    pub(super) fn check(&self, name: &str) -> Result<()> {
        self.endpoint.check()?;
        with_sample(name, |batch| self.body(batch).map(drop))
    }
}

/// A status of success is not enough for services that answer in the body.
pub(super) fn expect_match(answer: &Answer, success: Option<&Regex>) -> Result<(), Failure> {
    match success {
        Some(success) if !success.is_match(&answer.body) => {
            Err(Failure::later(answer.describe("gave an answer that does not report success")))
        }
        _ => Ok(()),
    }
}

/// Tries a template on a made-up alert with all that may make trouble in it.
pub(super) fn with_sample(name: &str, test: impl FnOnce(&Batch<'_>) -> Result<()>) -> Result<()> {
    let mut notice = Notice::test(NoticeHost::default(), name, std::time::SystemTime::now().into());
    notice.culprit = "operator<<(\"a\\b\", 'c' & 100%)".into();
    test(&Batch { channel: name, notices: &[notice], links: &Links::default() })
}
