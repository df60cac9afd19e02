//! What the robots of chats have in common: a JSON body, and an answer that says in its body whether it was taken.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::Value;
use sha2::Sha256;
use std::time::Duration;

use crate::alert::Failure;
use crate::alert::http::{Answer, Call, Endpoint};

/// What the codes of a service's answers mean, beyond that 0 is success.
pub(super) struct Codes {
    /// The keys of the code and of the words; services have several generations of them.
    pub(super) keys: &'static [(&'static str, &'static str)],
    /// Too many messages, and how long to wait then.
    pub(super) limits: (&'static [i64], Duration),
    /// This message will never be taken.
    pub(super) refusals: &'static [i64],
}

/// Posts a body and reads the verdict.
pub(super) fn post(
    endpoint: &Endpoint,
    url: String,
    body: &Value,
    secrets: Vec<String>,
    codes: &Codes,
) -> Result<(), Failure> {
    let body = serde_json::to_vec(body).map_err(Failure::refused)?;
    let call = Call { method: "POST", url, content_type: "application/json; charset=utf-8", body, secrets };
    judge(&endpoint.send(call)?.expect_success()?, codes)
}

fn judge(answer: &Answer, codes: &Codes) -> Result<(), Failure> {
    let body: Value = serde_json::from_str(&answer.body)
        .map_err(|_| Failure::later(answer.describe("gave an answer that is not understood")))?;
    let number = |value: &Value| value.as_i64().or_else(|| value.as_str()?.parse().ok());
    let found = codes.keys.iter().find_map(|(key, words)| Some((number(body.get(key)?)?, *words)));
    let Some((code, words)) = found else {
        return Err(Failure::later(answer.describe("gave an answer that is not understood")));
    };
    let words = body.get(words).and_then(Value::as_str).unwrap_or_default();
    let why = || answer.describe(&format!("answered with code {code} ({})", short(words)));
    // Some give the code of a bad request when there are too many.
    let says_limit = ["too many", "too fast", "frequen"].iter().any(|part| words.to_lowercase().contains(part));
    match code {
        0 => Ok(()),
        code if says_limit || codes.limits.0.contains(&code) => {
            Err(Failure::after(why(), answer.retry_after.unwrap_or_default().max(codes.limits.1)))
        }
        code if codes.refusals.contains(&code) => Err(Failure::refused(why())),
        _ => Err(Failure::later(why())),
    }
}

/// The first words.
fn short(words: &str) -> String {
    crate::text::sanitize(words).chars().take(100).collect()
}

/// HMAC-SHA256 in base64.
pub(super) fn sign(key: &[u8], text: &[u8]) -> String {
    // A key may have any length.
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap_or_else(|_| Hmac::new(&Default::default()));
    mac.update(text);
    STANDARD.encode(mac.finalize().into_bytes())
}

/// Text for the query of a URL.
pub(super) fn percent_encode(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_those_of_the_standard() {
        // RFC 4231, test case 2.
        let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        let bytes: Vec<u8> =
            (0..32).map(|n| u8::from_str_radix(&expected[2 * n..2 * n + 2], 16).expect("hexadecimal")).collect();
        assert_eq!(sign(b"Jefe", b"what do ya want for nothing?"), STANDARD.encode(bytes));
    }

    #[test]
    fn queries_are_encoded() {
        assert_eq!(percent_encode("a+b/c= ü~"), "a%2Bb%2Fc%3D%20%C3%BC~");
    }
}
