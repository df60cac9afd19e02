//! Feishu (Lark): a robot of a group chat, which takes posts in a body of at most 20 KB, signed in the body.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::robot::{Codes, post, sign};
use crate::alert::fit::{Measure, cut, wide};
use crate::alert::http::Endpoint;
use crate::alert::story::Style;
use crate::alert::{Batch, Failure, Links, Secret};

/// Longest text, in bytes, so that the body stays below the limit whatever JSON makes of it.
const MAX_BYTES: usize = 9000;

const STYLE: Style =
    Style { escape: wide, newline: "\n", bold: ("", ""), link: |_, _| String::new(), measure: Measure::Bytes };

const CODES: Codes = Codes {
    keys: &[("code", "msg"), ("StatusCode", "StatusMessage")],
    limits: (&[11232, 11233, 99991400], Duration::from_secs(30)),
    refusals: &[9499, 10208, 11246],
};

/// See the head of this file.
#[derive(Clone, Debug, PartialEq)]
pub struct Feishu {
    /// The robot's address, which holds its token.
    pub endpoint: Endpoint,
    /// By which messages are signed, where the robot wants that.
    pub secret: Option<Secret>,
}

impl Feishu {
    pub(super) fn deliver(&self, batch: &Batch<'_>, now: SystemTime) -> Result<(), Failure> {
        let mut body = body(batch);
        let mut secrets = Vec::new();
        if let Some(secret) = &self.secret {
            let secret = secret.read()?;
            let timestamp = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            body["timestamp"] = timestamp.to_string().into();
            // What is elsewhere the text is here the key, and the text is empty.
            body["sign"] = sign(format!("{timestamp}\n{secret}").as_bytes(), b"").into();
            secrets.push(secret);
        }
        post(&self.endpoint, self.endpoint.read_url()?, &body, secrets, &CODES)
    }
}

/// A post: paragraphs of text without markup, and links.
fn body(batch: &Batch<'_>) -> Value {
    let share = MAX_BYTES / batch.notices.len().max(1);
    let mut paragraphs = Vec::new();
    for notice in batch.notices {
        let page = batch.links.page(notice);
        // With a page the link is an element of its own.
        let links = if page.is_some() { Links { external_url: Some(String::new()) } } else { batch.links.clone() };
        let one = Batch { notices: std::slice::from_ref(notice), links: &links, ..*batch };
        let text = STYLE.compose(&one, share);
        paragraphs.push(json!([{"tag": "text", "text": text.trim_end()}]));
        paragraphs.extend(page.map(|page| json!([{"tag": "a", "text": "Snapshot", "href": page}])));
    }
    let title = cut(&batch.title(), 200, Measure::Bytes, wide);
    json!({"msg_type": "post", "content": {"post": {"en_us": {"title": title, "content": paragraphs}}}})
}
