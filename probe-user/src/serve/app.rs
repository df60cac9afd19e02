//! The application: the pages that `cargo xtask ui` built, out of the binary. They hold no secret, so that they are given
//! to anyone who may connect; what they show they ask the API for.

use std::io::Read as _;
use std::sync::LazyLock;

use axum::extract::Request;
use axum::http::header::{self, HeaderMap, HeaderValue};
use axum::http::{Method, StatusCode};
use axum::response::Response;

use super::answer;
use super::problem::Whole;

/// What a page of the application may do: run and load what this server has, and nothing that stands in the page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What browsers may let a page of the application do beside that.
const PERMISSIONS: &str = "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()";

/// What the page of a profile asks for first (`ui/src/views/FileView.vue`), which the browser may ask for before it has the
/// page's scripts.
const FIRST_VIEW: &str = "</api/v1/view>; rel=preload; as=fetch; crossorigin, \
                          </api/v1/view/profile?format=packed>; rel=preload; as=fetch; crossorigin";

/// A file. It is in the binary in these two forms only.
struct Asset {
    path: &'static str,
    brotli: &'static [u8],
    gzip: &'static [u8],
}

static ASSETS: &[Asset] = include!(concat!(env!("OUT_DIR"), "/assets.rs"));

/// What the application is about, which it reads in its page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A store and a collector.
    Daemon,
    /// A store only.
    Store,
    /// A single profile.
    Profile,
}

/// Answers with a file of the application, or with its page where the path is one of its pages.
pub fn serve(mode: Mode, request: &Request) -> Option<Response> {
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        return None;
    }
    let path = request.uri().path().trim_start_matches('/');
    if let Some(asset) = ASSETS.iter().find(|asset| asset.path == path && path.starts_with("assets/")) {
        return Some(file(asset, request.headers()));
    }
    if is_page(path) {
        let mut response = page(mode, request.headers());
        if mode == Mode::Profile && path == "view" && request.uri().query().is_none() {
            response.headers_mut().insert(header::LINK, HeaderValue::from_static(FIRST_VIEW));
        }
        return Some(response);
    }
    // Somebody who looks for a page is shown one that says that it is not there; others are told as programs are.
    let is_read = request.headers().get(header::ACCEPT).is_some_and(|types| types.as_bytes().starts_with(b"text/html"));
    let is_elsewhere = ["api", "assets", "metrics"].contains(&path.split('/').next().unwrap_or_default());
    (is_read && !is_elsewhere).then(|| {
        let mut response = page(mode, &HeaderMap::new());
        *response.status_mut() = StatusCode::NOT_FOUND;
        response.extensions_mut().insert(Whole);
        response
    })
}

/// Whether a path is that of a page, as `ui/src/router.ts` has them.
fn is_page(path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').collect();
    match parts[..] {
        [page] => ["", "targets", "snapshots", "alerts", "rules", "functions", "health", "view"].contains(&page),
        ["snapshots" | "targets", name] => !name.is_empty(),
        _ => false,
    }
}

/// The one page, which finds out what to show by its address.
fn page(mode: Mode, headers: &HeaderMap) -> Response {
    static PAGE: LazyLock<String> = LazyLock::new(|| {
        let page = ASSETS.iter().find(|asset| asset.path == "index.html");
        page.map(|page| String::from_utf8_lossy(&plain(page)).into_owned()).unwrap_or_default()
    });
    let name = match mode {
        Mode::Daemon => "daemon",
        Mode::Store => "store",
        Mode::Profile => "profile",
    };
    let text = PAGE.replacen("data-mode=\"daemon\"", &format!("data-mode=\"{name}\""), 1);
    let tag = answer::tag(&[text.as_bytes()]);
    let answer = || answer::tagged(&tag, media_type("index.html"), text.clone());
    let mut response = answer::not_modified(headers, &tag).unwrap_or_else(answer);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    strict(response)
}

/// A file whose name has a hash of its content, so that it never changes.
fn file(asset: &Asset, headers: &HeaderMap) -> Response {
    let tag = answer::tag(&[asset.brotli]);
    let respond = || {
        let (coding, body) = match best_coding(headers) {
            Some("br") => (Some("br"), asset.brotli.to_vec()),
            Some(_) => (Some("gzip"), asset.gzip.to_vec()),
            None => (None, plain(asset)),
        };
        let mut response = answer::tagged(&tag, media_type(asset.path), body);
        if let Some(coding) = coding {
            response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding));
        }
        response
    };
    let mut response = answer::not_modified(headers, &tag).unwrap_or_else(respond);
    let for_ever = HeaderValue::from_static("public, max-age=31536000, immutable");
    response.headers_mut().insert(header::CACHE_CONTROL, for_ever);
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    strict(response)
}

fn strict(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert("permissions-policy", HeaderValue::from_static(PERMISSIONS));
    response
}

fn plain(asset: &Asset) -> Vec<u8> {
    let mut bytes = Vec::new();
    match flate2::read::GzDecoder::new(asset.gzip).read_to_end(&mut bytes) {
        Ok(_) => bytes,
        // What the tests have read from the first to the last byte does not fail here.
        Err(_) => Vec::new(),
    }
}

/// The best of `br` and `gzip` that the client takes.
fn best_coding(headers: &HeaderMap) -> Option<&'static str> {
    let lists = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let taken: Vec<&str> = lists
        .flat_map(|list| list.split(','))
        .filter_map(|entry| {
            let (name, parameters) = entry.split_once(';').unwrap_or((entry, ""));
            let quality = parameters.trim().strip_prefix("q=").and_then(|q| q.trim().parse::<f32>().ok());
            (quality != Some(0.0)).then_some(name.trim())
        })
        .collect();
    ["br", "gzip"].into_iter().find(|coding| taken.iter().any(|name| name.eq_ignore_ascii_case(coding)))
}

fn media_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map(|(_, ending)| ending) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("json") => "application/json",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_every_file_are_there_and_hold_the_same() {
        assert!(ASSETS.iter().any(|asset| asset.path == "index.html"));
        for asset in ASSETS {
            assert!(!plain(asset).is_empty() && !asset.brotli.is_empty(), "{}", asset.path);
            assert_ne!(media_type(asset.path), "application/octet-stream", "{}", asset.path);
        }
        let page = ASSETS.iter().find(|asset| asset.path == "index.html").map(plain).unwrap();
        assert!(String::from_utf8(page).unwrap().contains("data-mode=\"daemon\""));
    }

    #[test]
    fn the_smallest_form_that_the_client_takes_is_sent() {
        let coding = |value: &'static str| {
            best_coding(&HeaderMap::from_iter([(header::ACCEPT_ENCODING, HeaderValue::from_static(value))]))
        };
        assert_eq!(coding("gzip, deflate, br, zstd"), Some("br"));
        assert_eq!(coding("GZIP;q=0.5, br;q=0"), Some("gzip"));
        assert_eq!(coding("br; q=0.0, identity"), None);
        assert_eq!(best_coding(&HeaderMap::new()), None);
    }

    #[test]
    fn pages_are_those_of_the_application() {
        for path in
            ["", "targets", "snapshots", "snapshots/01HF7YBW5R0000000000000007", "targets/a%2Fb", "health", "view"]
        {
            assert!(is_page(path), "{path}");
        }
        for path in ["snapshots/", "snapshots/a/b", "api", "api/v1/targets", "index.html", "nothing", "assets/x.js"] {
            assert!(!is_page(path), "{path}");
        }
    }
}
