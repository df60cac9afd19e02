//! DingTalk: a robot of a group chat, which takes Markdown in a body of at most 20000 bytes, signed in the query.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::robot::{Codes, percent_encode, post, sign};
use crate::alert::fit::{Measure, cut, wide};
use crate::alert::http::Endpoint;
use crate::alert::story::Style;
use crate::alert::{Batch, Failure, Secret};

/// Longest body, in bytes.
const MAX_BYTES: usize = 20_000;

/// Room for what stands around the text, and for what JSON makes longer.
const AROUND: usize = 1000;

const STYLE: Style = Style {
    escape: wide,
    // Its Markdown joins lines but for paragraphs.
    newline: "\n\n",
    bold: ("#### ", ""),
    link: |url, words| format!("[{words}]({url})"),
    measure: Measure::Bytes,
};

const CODES: Codes = Codes {
    keys: &[("errcode", "errmsg")],
    // Beyond 20 messages a minute it takes none for ten minutes; it says so from the first on.
    limits: (&[130101, 410100, 90018], Duration::from_secs(60)),
    refusals: &[400101, 400102, 400105, 40035, 43004],
};

/// See the head of this file.
#[derive(Clone, Debug, PartialEq)]
pub struct DingTalk {
    /// The robot's address, which holds its token.
    pub endpoint: Endpoint,
    /// By which messages are signed, where the robot wants that.
    pub secret: Option<Secret>,
}

impl DingTalk {
    pub(super) fn deliver(&self, batch: &Batch<'_>, now: SystemTime) -> Result<(), Failure> {
        let mut url = self.endpoint.read_url()?;
        let mut secrets = Vec::new();
        if let Some(secret) = &self.secret {
            let secret = secret.read()?;
            let (timestamp, sign) = signature(&secret, now);
            let mark = if url.contains('?') { '&' } else { '?' };
            url = format!("{url}{mark}timestamp={timestamp}&sign={}", percent_encode(&sign));
            secrets.push(secret);
        }
        post(&self.endpoint, url, &body(batch), secrets, &CODES)
    }
}

fn body(batch: &Batch<'_>) -> Value {
    let title = cut(&batch.title(), 200, Measure::Bytes, wide);
    let body = |limit: usize| {
        let text = STYLE.compose(batch, limit);
        json!({"msgtype": "markdown", "markdown": {"title": title, "text": text}, "at": {"isAtAll": false}})
    };
    let fits = |body: &Value| body.to_string().len() <= MAX_BYTES;
    let whole = body(MAX_BYTES - AROUND);
    // Quotes and the like take two bytes each in JSON.
    if fits(&whole) { whole } else { body(MAX_BYTES / 2 - AROUND) }
}

/// Milliseconds since the epoch, and the signature of them.
fn signature(secret: &str, now: SystemTime) -> (u128, String) {
    let timestamp = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let signature = sign(secret.as_bytes(), format!("{timestamp}\n{secret}").as_bytes());
    (timestamp, signature)
}
