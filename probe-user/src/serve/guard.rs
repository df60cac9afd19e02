//! What every response and request goes through: headers that keep browsers strict, and the refusal of requests that a
//! foreign page made in the name of the user.
//!
//! A page elsewhere can have a browser send what it could send before there were scripts (a link, a form) to any address,
//! with the client's certificate if it has one. What changes something therefore needs a sign that no such request has.

use axum::extract::Request;
use axum::http::header::{self, HeaderMap, HeaderName};
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::body::is_json;
use super::problem::Problem;
use crate::export::html;

/// Answers 403 unless the request names this host by a loopback address. A page on another site can make its own name
/// resolve to 127.0.0.1 and read what is served there (DNS rebinding); its name stays in the request, though.
pub async fn loopback_only(request: Request, next: Next) -> Response {
    if is_loopback(request.headers(), request.uri()) {
        next.run(request).await
    } else {
        (StatusCode::FORBIDDEN, "forbidden: this server answers requests to localhost only\n").into_response()
    }
}

fn is_loopback(headers: &HeaderMap, uri: &Uri) -> bool {
    let mut named = headers.get_all(header::HOST).iter();
    let host = match (named.next(), named.next()) {
        (Some(host), None) => host.to_str().ok().and_then(|host| host.parse().ok()),
        (None, _) => uri.authority().cloned(),
        (Some(_), Some(_)) => None,
    };
    host.is_some_and(|host: axum::http::uri::Authority| {
        let name = host.host();
        let address = name.trim_start_matches('[').trim_end_matches(']');
        !host.as_str().contains('@')
            && (name.eq_ignore_ascii_case("localhost")
                || address.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback()))
    })
}

/// Refuses what a foreign page may have sent: requests that say so, and those that say nothing of where they are from
/// and need no permission of this server (as a form's).
pub fn same_site(request: &Request) -> Result<(), Problem> {
    let headers = request.headers();
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let foreign = |by: String| {
        Err(Problem::new(StatusCode::FORBIDDEN, format!("the request was sent by a page elsewhere ({by})"))
            .hint("send it from a page of this server, or not from a browser"))
    };
    let site = text("sec-fetch-site");
    if let Some(site) = site.filter(|site| !["same-origin", "none"].contains(site)) {
        return foreign(crate::text::sanitize(site));
    }
    let origin = text("origin");
    if let Some(origin) = origin {
        let named = origin.split_once("://").map(|(_, named)| named);
        let host = text("host").or(request.uri().authority().map(|authority| authority.as_str()));
        if named.is_none() || !named.zip(host).is_some_and(|(named, host)| named.eq_ignore_ascii_case(host)) {
            return foreign(crate::text::sanitize(origin));
        }
    }
    let is_simple = *request.method() == axum::http::Method::POST && !is_json(headers);
    if is_simple && site.is_none() && origin.is_none() && text("x-requested-with").is_none() {
        return Err(Problem::new(StatusCode::FORBIDDEN, "the request may come from a form on another site")
            .hint("send `Content-Type: application/json` with the body, or a header `X-Requested-With`"));
    }
    Ok(())
}

/// Adds the security headers to every response. A response may have a content security policy of its own, and say how it
/// may be kept.
pub async fn strict_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    let policy = format!("{}; frame-ancestors 'none'", html::policy());
    // The policy is made of hashes and keywords, so this does not fail; without it nothing may run.
    let policy = HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'; sandbox"));
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(policy);
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(hosts: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(header::HOST, HeaderValue::from_str(host).unwrap());
        }
        is_loopback(&headers, &Uri::from_static("/"))
    }

    #[test]
    fn only_names_of_the_loopback_interface_are_answered() {
        for host in ["localhost", "LocalHost:7117", "127.0.0.1", "127.0.0.1:80", "127.8.9.1:1", "[::1]", "[::1]:7117"] {
            assert!(allowed(&[host]), "{host}");
        }
        let foreign = [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example:80",
            "10.0.0.1",
            "[::2]:1",
            "0.0.0.0",
            "user@localhost",
            "localhost:x y",
        ];
        for host in foreign {
            assert!(!allowed(&[host]), "{host}");
        }
        assert!(!allowed(&[]));
        assert!(!allowed(&["localhost", "evil.example"]));
    }

    #[test]
    fn what_a_foreign_page_can_send_changes_nothing() {
        let is_allowed = |method: &str, headers: &[(&str, &str)]| {
            let mut request = Request::builder().method(method).uri("/x").header("host", "localhost:7117");
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            same_site(&request.body(axum::body::Body::empty()).unwrap()).is_ok()
        };
        let json = ("content-type", "application/json; charset=utf-8");
        for (method, headers) in [
            ("POST", &[json] as &[_]),
            ("POST", &[("x-requested-with", "curl")]),
            ("POST", &[("origin", "http://localhost:7117")]),
            ("POST", &[("sec-fetch-site", "same-origin"), ("origin", "https://LOCALHOST:7117")]),
            ("PUT", &[]),
            ("DELETE", &[]),
        ] {
            assert!(is_allowed(method, headers), "{method} {headers:?}");
        }
        for (method, headers) in [
            ("POST", &[] as &[_]),
            ("POST", &[("content-type", "text/plain")]),
            ("POST", &[("content-type", "application/x-www-form-urlencoded")]),
            ("POST", &[json, ("origin", "http://evil.example")]),
            ("POST", &[json, ("origin", "http://localhost:8000")]),
            ("POST", &[json, ("origin", "null")]),
            ("DELETE", &[("origin", "http://localhost:7117.evil.example")]),
            ("POST", &[json, ("sec-fetch-site", "cross-site")]),
            ("PUT", &[("sec-fetch-site", "same-site")]),
        ] {
            assert!(!is_allowed(method, headers), "{method} {headers:?}");
        }
    }
}
