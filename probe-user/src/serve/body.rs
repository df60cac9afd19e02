//! Bodies of requests: JSON of a bounded size that arrives in time, or a problem that says what is wrong with it.

use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use serde::de::DeserializeOwned;

use super::problem::Problem;

/// Largest body, in bytes: a definition has some hundreds.
pub const MAX_BODY: usize = 64 << 10;
/// How long a body may take to arrive.
const PATIENCE: Duration = Duration::from_secs(10);

/// A body as JSON; an empty one is `{}`.
#[derive(Debug)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let bytes = read(body).await?;
        if bytes.is_empty() {
            return parse(b"{}").map(Self);
        }
        if !is_json(&parts.headers) {
            let detail = "the body is not marked as JSON";
            return Err(
                Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail).hint("send `Content-Type: application/json`")
            );
        }
        parse(&bytes).map(Self)
    }
}

async fn read(body: Body) -> Result<Bytes, Problem> {
    let too_large = |_| {
        let detail = format!("the body is larger than {} KiB, or broke off", MAX_BODY >> 10);
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
    };
    match tokio::time::timeout(PATIENCE, to_bytes(body, MAX_BODY)).await {
        Ok(bytes) => bytes.map_err(too_large),
        Err(_) => {
            let detail = format!("the body did not arrive within {} seconds", PATIENCE.as_secs());
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, detail).header(header::CONNECTION, "close"))
        }
    }
}

/// Says the request that its body is JSON?
pub fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(bytes).map_err(|error| {
        // Syntax is the client's, data may be right elsewhere.
        let status = if error.is_data() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::BAD_REQUEST };
        Problem::new(status, format!("cannot read the body: {error}"))
    })
}
