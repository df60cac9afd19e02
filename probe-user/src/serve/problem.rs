//! Errors as `application/problem+json` (RFC 9457), whoever made them: a handler, the router or an extractor.

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::header::{self, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;

use crate::control::Refusal;
use crate::problem::Exit;
use crate::text::sanitize;

/// The media type.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// Longest text of an error that the router or an extractor wrote, in bytes.
const MAX_TEXT: usize = 4096;

/// Why a request was not answered.
#[derive(Clone, Debug)]
pub struct Problem(Box<Document>);

/// A problem as it is written.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(rename = "Problem")]
pub struct Document {
    /// Always `about:blank`: the status says what kind it is.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The name of the status.
    title: String,
    /// The status of the response.
    status: u16,
    /// What was tried, on what, and what happened.
    detail: String,
    /// The path of the request.
    instance: String,
    /// What to do.
    #[serde(skip_serializing_if = "String::is_empty")]
    hint: String,
    /// What is wrong with the request, by its parts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<Wrong>,
    #[serde(skip)]
    headers: Vec<(HeaderName, String)>,
}

/// A part of a request that is wrong.
#[derive(Clone, Debug, Serialize, JsonSchema)]
struct Wrong {
    /// The parameter or the key of the body.
    field: String,
    /// What is wrong with it.
    reason: String,
}

impl Problem {
    /// With what was tried, on what, and what happened.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self(Box::new(Document {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
            instance: String::new(),
            hint: String::new(),
            errors: Vec::new(),
            headers: Vec::new(),
        }))
    }

    /// Something that there is not.
    pub fn not_found(what: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, what)
    }

    /// A parameter that is wrong.
    pub fn parameter(field: &str, reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Self::new(StatusCode::BAD_REQUEST, format!("{field}: {reason}")).field(field, reason)
    }

    /// The same with another status.
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.0.status = status.as_u16();
        self.0.title = status.canonical_reason().unwrap_or("Error").to_owned();
        self
    }

    /// Says what to do.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = hint.into();
        self
    }

    /// Says which part of the request is wrong.
    pub fn field(mut self, field: impl Into<String>, reason: impl Into<String>) -> Self {
        self.0.errors.push(Wrong { field: field.into(), reason: reason.into() });
        self
    }

    /// Says when to ask again, in seconds from now.
    pub fn retry_after(self, seconds: u64) -> Self {
        self.header(header::RETRY_AFTER, seconds.max(1).to_string())
    }

    /// Adds a header to the response.
    pub fn header(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.0.headers.push((name, value.into()));
        self
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let text = refusal.to_string();
        match refusal {
            Refusal::NotFound { .. } => Self::not_found(text),
            Refusal::Invalid { field, reason, hint } => {
                let problem = Self::new(StatusCode::UNPROCESSABLE_ENTITY, text).hint(hint);
                match field {
                    Some(field) => problem.field(field, reason),
                    None => problem,
                }
            }
            Refusal::Conflict { .. } => Self::new(StatusCode::CONFLICT, text),
            Refusal::Busy { retry_after_s, .. } => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, text).retry_after(retry_after_s)
            }
            Refusal::Unavailable { .. } => Self::new(StatusCode::SERVICE_UNAVAILABLE, text)
                .hint("the collector may be starting; its log says more")
                .retry_after(5),
            // Not what the client may do, but what the host lets be done.
            Refusal::NotPermitted { hint, .. } => Self::new(StatusCode::NOT_IMPLEMENTED, text).hint(hint),
            Refusal::Failed { .. } => Self::new(StatusCode::INTERNAL_SERVER_ERROR, text),
        }
    }
}

/// Errors of other rooms: those that say that something is not there are 404, all others 500.
impl From<anyhow::Error> for Problem {
    fn from(error: anyhow::Error) -> Self {
        let text = format!("{error:#}");
        match error.downcast_ref::<crate::problem::Problem>() {
            Some(problem) if problem.exit == Exit::NoTarget => {
                Self::not_found(problem.message.clone()).hint(problem.hint.clone())
            }
            Some(problem) => Self::new(StatusCode::INTERNAL_SERVER_ERROR, text).hint(problem.hint.clone()),
            None => Self::new(StatusCode::INTERNAL_SERVER_ERROR, text),
        }
    }
}

impl IntoResponse for Problem {
    /// [`problems`] writes the body, because it knows the path.
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// Marks an answer that says all by itself, in spite of its status.
#[derive(Clone, Copy)]
pub struct Whole;

/// Makes problems of all responses that are errors.
pub async fn problems(request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let (mut parts, body) = next.run(request).await.into_parts();
    if parts.extensions.get::<Whole>().is_some() || !(parts.status.is_client_error() || parts.status.is_server_error())
    {
        return Response::from_parts(parts, body);
    }
    let mut problem = match parts.extensions.remove::<Problem>() {
        Some(Problem(problem)) => problem,
        None => {
            let text = to_bytes(body, MAX_TEXT).await.unwrap_or_default();
            let text = String::from_utf8_lossy(&text).trim().to_owned();
            Problem::new(parts.status, if text.is_empty() { usual(parts.status, &path) } else { text }).0
        }
    };
    if problem.status >= 500 {
        tracing::warn!("{}: {}: {}", sanitize(&path), problem.status, problem.detail);
    }
    problem.detail = sanitize(&problem.detail);
    problem.instance = path;
    for (name, value) in std::mem::take(&mut problem.headers) {
        if let Ok(value) = HeaderValue::try_from(value) {
            parts.headers.insert(name, value);
        }
    }
    let mut json = serde_json::to_vec(&problem).unwrap_or_default();
    json.push(b'\n');
    parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, Body::from(json))
}

/// What to say where nobody said anything.
fn usual(status: StatusCode, path: &str) -> String {
    match status {
        StatusCode::NOT_FOUND => format!("there is nothing at {path}"),
        StatusCode::METHOD_NOT_ALLOWED => format!("{path} does not know this method"),
        status => status.canonical_reason().unwrap_or("the request failed").to_lowercase(),
    }
}
