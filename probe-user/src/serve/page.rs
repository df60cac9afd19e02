//! One profile over HTTP: the interactive page at `/`, downloads next to it.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::middleware::from_fn;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::guard;
use crate::export::{self, Format, Options};
use crate::symbolize::Profile;

/// What is served.
#[derive(Clone, Debug)]
pub struct Page {
    /// The profile; shared, because each request renders it for itself.
    pub profile: Arc<Profile>,
    /// How to render it.
    pub options: Options,
}

/// The routes: `/` is the interactive page, `/profile` with the ending of a format (`/profile.pb.gz`) a download.
/// Requests that do not name a loopback host are refused.
pub fn app(page: Page) -> Router {
    let mut router = Router::new().route("/", get(|page| render(page, Format::Html, false)));
    for format in Format::ALL {
        let path = format!("/profile{}", format.extension());
        router = router.route(&path, get(move |page| render(page, format, true)));
    }
    router
        .fallback(|| async { (StatusCode::NOT_FOUND, "not found\n") })
        .layer(from_fn(guard::loopback_only))
        .layer(from_fn(guard::strict_headers))
        .with_state(page)
}

async fn render(State(page): State<Page>, format: Format, download: bool) -> Response {
    // Large profiles take a while, which other requests need not wait for.
    let rendered = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        export::write(&page.profile, format, &page.options, &mut bytes).map(|()| bytes)
    });
    match rendered.await.map_err(anyhow::Error::from).and_then(|result| result) {
        Ok(bytes) => {
            let mut response = ([(header::CONTENT_TYPE, format.media_type())], bytes).into_response();
            if download {
                let disposition = format!("attachment; filename=\"profile{}\"", format.extension());
                if let Ok(value) = disposition.try_into() {
                    response.headers_mut().insert(header::CONTENT_DISPOSITION, value);
                }
            }
            response
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}\n")).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::{Method, Request};
    use tower::ServiceExt;

    use super::*;

    fn page() -> Page {
        let profile = export::read(include_bytes!("../../tests/golden/profile.json"), "profile.json").unwrap();
        Page { profile: Arc::new(profile), options: Options::default() }
    }

    fn send(method: Method, path: &str, host: &str) -> (Response, Vec<u8>) {
        let request = Request::builder().method(method).uri(path).header("Host", host).body(Body::empty()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (parts, body) = app(page()).oneshot(request).await.unwrap().into_parts();
            let bytes = to_bytes(body, 1 << 24).await.unwrap();
            (Response::from_parts(parts, Body::empty()), bytes.to_vec())
        })
    }

    fn get(path: &str) -> (Response, Vec<u8>) {
        send(Method::GET, path, "127.0.0.1:7117")
    }

    #[test]
    fn the_page_and_every_download_are_served() {
        let (response, body) = get("/");
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/html; charset=utf-8");
        assert!(String::from_utf8(body).unwrap().contains("cpu of checkout"));
        for format in Format::ALL {
            let (response, body) = get(&format!("/profile{}", format.extension()));
            assert_eq!(response.status(), 200, "{format:?}");
            let mut expected = Vec::new();
            export::write(&page().profile, format, &Options::default(), &mut expected).unwrap();
            assert!(body == expected, "{format:?}");
            let disposition = response.headers()["content-disposition"].to_str().unwrap();
            assert_eq!(disposition, format!("attachment; filename=\"profile{}\"", format.extension()));
        }
    }

    #[test]
    fn every_answer_has_the_strict_headers() {
        for path in ["/", "/profile.svg", "/nothing"] {
            let (response, _) = get(path);
            let header = |name: &str| response.headers()[name].to_str().unwrap();
            assert!(header("content-security-policy").starts_with("default-src 'none'; script-src 'sha256-"));
            assert!(header("content-security-policy").ends_with("frame-ancestors 'none'"));
            assert_eq!(header("x-content-type-options"), "nosniff");
            assert_eq!(header("referrer-policy"), "no-referrer");
        }
    }

    #[test]
    fn what_is_not_there_is_not_found_and_cannot_be_written() {
        for path in ["/nothing", "/profile", "/profile.png", "/..%2f..%2fetc/passwd"] {
            assert_eq!(get(path).0.status(), 404, "{path}");
        }
        assert_eq!(send(Method::POST, "/", "localhost").0.status(), 405);
    }

    #[test]
    fn a_foreign_host_is_refused_whatever_it_asks_for() {
        for path in ["/", "/profile.json", "/nothing"] {
            let (response, body) = send(Method::GET, path, "evil.example:7117");
            assert_eq!(response.status(), 403, "{path}");
            assert!(body.len() < 100);
        }
    }
}
