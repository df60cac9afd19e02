//! Slack: an incoming webhook, which takes blocks of at most 3000 characters.

use serde_json::json;

use crate::alert::fit::{Measure, cut, slack};
use crate::alert::http::{Call, Endpoint};
use crate::alert::story::Style;
use crate::alert::{Batch, Failure};

/// Longest text of a block, in characters; in bytes that is never more.
const MAX_BLOCK: usize = 3000;

/// Longest text of a message for devices that show no blocks, far below what is allowed.
const MAX_TITLE: usize = 1000;

const STYLE: Style = Style {
    escape: slack,
    newline: "\n",
    bold: ("*", "*"),
    link: |url, words| format!("<{url}|{words}>"),
    measure: Measure::Bytes,
};

/// See the head of this file.
#[derive(Clone, Debug, PartialEq)]
pub struct Slack {
    /// The webhook's address, which is a secret.
    pub endpoint: Endpoint,
}

impl Slack {
    pub(super) fn deliver(&self, batch: &Batch<'_>) -> Result<(), Failure> {
        let blocks = batch.notices.iter().map(|notice| {
            let one = Batch { notices: std::slice::from_ref(notice), ..*batch };
            let text = STYLE.compose(&one, MAX_BLOCK);
            // Verbatim: names of channels and people in it are no links.
            json!({"type": "section", "text": {"type": "mrkdwn", "text": text, "verbatim": true}})
        });
        let body = json!({
            "text": cut(&batch.title(), MAX_TITLE, Measure::Bytes, slack),
            "blocks": blocks.collect::<Vec<_>>(),
            "link_names": false,
        });
        let body = serde_json::to_vec(&body).map_err(Failure::refused)?;
        let url = self.endpoint.read_url()?;
        let call = Call { method: "POST", url, content_type: "application/json", body, secrets: Vec::new() };
        self.endpoint.send(call)?.expect_success().map(drop)
    }
}
