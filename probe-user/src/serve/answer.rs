//! Answers that a client may keep: bodies with an entity tag, and 304 for those who have them already.

use axum::body::Body;
use axum::http::StatusCode;
use axum::http::header::{self, HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::problem::Problem;

/// A value as JSON, with a tag of its content; 304 if the client has it.
pub fn json<T: Serialize>(headers: &HeaderMap, value: &T) -> Result<Response, Problem> {
    let mut body = serialized(value)?;
    body.push(b'\n');
    let tag = tag(&[&body]);
    Ok(not_modified(headers, &tag).unwrap_or_else(|| tagged(&tag, "application/json", body)))
}

/// A value as JSON, for what is new each time or answers a change.
pub fn fresh<T: Serialize>(status: StatusCode, value: &T) -> Result<Response, Problem> {
    let mut body = serialized(value)?;
    body.push(b'\n');
    Ok((status, [(header::CONTENT_TYPE, "application/json")], body).into_response())
}

fn serialized<T: Serialize>(value: &T) -> Result<Vec<u8>, Problem> {
    serde_json::to_vec(value).map_err(|error| Problem::from(anyhow::Error::new(error).context("cannot write JSON")))
}

/// A tag for what is made of these parts. It is weak, because compression changes the bytes.
pub fn tag(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        // With their lengths, so that parts cannot run into each other.
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let hex: String = hash.finalize().iter().take(12).map(|byte| format!("{byte:02x}")).collect();
    format!("W/\"{hex}\"")
}

/// 304 if the client says that it has what the tag is of.
pub fn not_modified(headers: &HeaderMap, tag: &str) -> Option<Response> {
    let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let lists = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let has = lists.flat_map(|list| list.split(',')).any(|had| had.trim() == "*" || opaque(had) == opaque(tag));
    has.then(|| with_tag(tag, StatusCode::NOT_MODIFIED.into_response()))
}

/// A body with its tag.
pub fn tagged(tag: &str, media_type: &str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    if let Ok(value) = HeaderValue::from_str(media_type) {
        response.headers_mut().insert(header::CONTENT_TYPE, value);
    }
    with_tag(tag, response)
}

/// The client may keep it, and has to ask whether it still holds.
fn with_tag(tag: &str, mut response: Response) -> Response {
    if let Ok(value) = HeaderValue::from_str(tag) {
        response.headers_mut().insert(header::ETAG, value);
    }
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_compared_as_the_standard_says() {
        let asks = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_NONE_MATCH, HeaderValue::from_str(value).unwrap());
            not_modified(&headers, "W/\"abc\"").map(|response| response.status().as_u16())
        };
        for value in ["W/\"abc\"", "\"abc\"", "*", "\"x\", W/\"abc\"", " \"y\" ,\"abc\""] {
            assert_eq!(asks(value), Some(304), "{value}");
        }
        for value in ["\"ab\"", "", "abc\"", "W/\"ABC\""] {
            assert_eq!(asks(value), None, "{value}");
        }
        assert_ne!(tag(&[b"ab", b"c"]), tag(&[b"a", b"bc"]));
    }
}
