//! WeCom: a robot of a group chat, which takes Markdown of at most 4096 bytes.

use std::time::Duration;

use serde_json::json;

use super::robot::{Codes, post};
use crate::alert::fit::{Measure, wide};
use crate::alert::http::Endpoint;
use crate::alert::story::Style;
use crate::alert::{Batch, Failure};

/// Longest text, in bytes.
const MAX_BYTES: usize = 4096;

const STYLE: Style = Style {
    escape: wide,
    newline: "\n",
    bold: ("**", "**"),
    link: |url, words| format!("[{words}]({url})"),
    measure: Measure::Bytes,
};

const CODES: Codes = Codes {
    keys: &[("errcode", "errmsg")],
    limits: (&[45009, 45033], Duration::from_secs(60)),
    // An argument that is missing, empty, too long or no JSON.
    refusals: &[40008, 40058, 44004, 45002, 47001],
};

/// See the head of this file.
#[derive(Clone, Debug, PartialEq)]
pub struct WeCom {
    /// The robot's address, which holds its key.
    pub endpoint: Endpoint,
}

impl WeCom {
    pub(super) fn deliver(&self, batch: &Batch<'_>) -> Result<(), Failure> {
        let content = STYLE.compose(batch, MAX_BYTES);
        let body = json!({"msgtype": "markdown", "markdown": {"content": content}});
        post(&self.endpoint, self.endpoint.read_url()?, &body, Vec::new(), &CODES)
    }
}
