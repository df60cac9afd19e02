//! Short messages, through a gateway with an HTTP interface. Gateways differ in everything: method, address and body are
//! templates, which have the text as `text` and the numbers as `to`.

use anyhow::Result;
use regex::Regex;
use serde_json::{Value, json};

use super::template::{Escaping, Template, context, render};
use super::webhook::{expect_match, with_sample};
use crate::alert::fit::{Measure, cut, plain};
use crate::alert::http::{Call, Endpoint, check_url};
use crate::alert::story::{compared, title};
use crate::alert::{Batch, Failure};

/// Characters that fit into one message in any script.
pub const ONE_MESSAGE: usize = 70;

/// With fewer characters than these beside it a link says nothing.
const WORDS: usize = 12;

/// See the head of this file.
#[derive(Clone, Debug)]
pub struct Sms {
    /// The gateway; its address is a template.
    pub endpoint: Endpoint,
    /// `GET`, which has no body, `POST` and so on.
    pub method: String,
    /// The body; `None` for none.
    pub template: Option<Template>,
    /// The numbers, as the gateway wants them.
    pub to: Vec<String>,
    /// Longest text, in characters as telephones count them.
    pub max_chars: usize,
    /// What an answer must match to be one of success, beyond its status.
    pub success: Option<Regex>,
}

impl PartialEq for Sms {
    fn eq(&self, other: &Self) -> bool {
        let Self { endpoint, method, template, to, max_chars, success } = self;
        let pattern = |regex: &Option<Regex>| regex.as_ref().map(|regex| regex.as_str().to_owned());
        (endpoint, method, template, to, max_chars)
            == (&other.endpoint, &other.method, &other.template, &other.to, &other.max_chars)
            && pattern(success) == pattern(&other.success)
    }
}

impl Sms {
    pub(super) fn deliver(&self, batch: &Batch<'_>) -> Result<(), Failure> {
        let (url, body) = self.request(batch)?;
        let content_type = self.template.as_ref().map_or("text/plain", |template| &template.content_type);
        // The address before it is filled in is as secret as after.
        let secrets = vec![self.endpoint.url.read()?];
        let call = Call { method: &self.method, url, content_type, body, secrets };
        expect_match(&self.endpoint.send(call)?.expect_success()?, self.success.as_ref())
    }

    fn request(&self, batch: &Batch<'_>) -> Result<(String, Vec<u8>)> {
        let more = json!({"text": text(batch, self.max_chars), "to": self.to.join(",")});
        // Braces are no part of a URL: it is checked when it is filled in.
        let url = render(&self.endpoint.url.read()?, Escaping::Query, &context(batch, more.clone()))
            .map_err(|_| anyhow::anyhow!("the gateway's address is not a valid template"))?;
        check_url(&url)?;
        let render = |template: &Template| template.render(batch, more);
        Ok((url, self.template.as_ref().map(render).transpose()?.unwrap_or_default().into_bytes()))
    }

    pub(super) fn check(&self, name: &str) -> Result<()> {
        with_sample(name, |batch| self.request(batch).map(drop))?;
        self.endpoint.check_rest()
    }
}

/// The text with the link, if there is room for both.
fn text(batch: &Batch<'_>, limit: usize) -> Value {
    let Some(notice) = batch.notices.first() else { return Value::Null };
    let words = format!("{}: {}", title(notice), compared(notice));
    let link = batch.links.page(notice).map(|page| format!(" {page}")).unwrap_or_default();
    let room = limit.saturating_sub(Measure::Characters.of(&link));
    let (room, link) = if room >= WORDS { (room, link) } else { (limit, String::new()) };
    (cut(&words, room, Measure::Characters, plain) + &link).into()
}
