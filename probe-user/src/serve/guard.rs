//! What every response and request goes through: headers that keep browsers strict, and the refusal of requests that a
//! foreign page made in the name of the user.

use axum::extract::Request;
use axum::http::header::{self, HeaderMap, HeaderName};
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

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

/// Adds the security headers to every response.
pub async fn strict_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    let policy = format!("{}; frame-ancestors 'none'", html::policy());
    // The policy is made of hashes and keywords, so this does not fail; without it nothing may run.
    let policy = HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'; sandbox"));
    headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
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
}
