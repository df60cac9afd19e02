//! The HTTP client of all channels: one request, one answer, bounded in time and size. Errors show no secret.

use std::io::Read as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use ureq::http::{Request, StatusCode};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use super::secret::{origin, redact, secrets_of};
use super::{Failure, Secret};

/// Most that is read of an answer, in bytes.
const MAX_ANSWER: u64 = 64 << 10;

/// Most that is shown of an answer, in characters.
const SHOWN: usize = 200;

/// Longest pause that a server may ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// An address with what is needed to talk to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The URL.
    pub url: Secret,
    /// How long one request may take, its answer included.
    pub timeout: Duration,
    /// Certificates (PEM) to trust instead of the public ones.
    pub ca_file: Option<PathBuf>,
    /// Further headers.
    pub headers: Vec<(String, String)>,
    /// How we say who we are.
    pub auth: Option<Auth>,
}

/// Authentication by a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    /// `Authorization: Bearer` with this token.
    Bearer(Secret),
    /// User name and password.
    Basic(String, Secret),
}

/// A request; its URL is the endpoint's, changed as the channel needs.
#[derive(Clone, Debug)]
pub(super) struct Call<'a> {
    pub(super) method: &'a str,
    pub(super) url: String,
    pub(super) content_type: &'a str,
    /// Not sent with `GET`.
    pub(super) body: Vec<u8>,
    /// What else must not be shown.
    pub(super) secrets: Vec<String>,
}

/// What a server has answered.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) retry_after: Option<Duration>,
    /// The beginning of the body.
    pub(super) body: String,
    /// Scheme and host of the server.
    origin: String,
    secrets: Vec<String>,
}

impl Endpoint {
    /// An endpoint with nothing special about it.
    pub fn new(url: Secret) -> Self {
        Self { url, timeout: Duration::from_secs(10), ca_file: None, headers: Vec::new(), auth: None }
    }

    /// The URL, read now and checked.
    pub(super) fn read_url(&self) -> Result<String> {
        let url = self.url.read()?;
        match &self.url {
            Secret::File(path) => {
                check_url(&url).with_context(|| format!("the first line of {} is not an address", path.display()))?;
            }
            Secret::Text(_) => check_url(&url)?,
        }
        Ok(url)
    }

    /// Reads everything that is needed for a request; an error says what is missing.
    pub(super) fn check(&self) -> Result<()> {
        self.read_url()?;
        self.check_rest()
    }

    /// The same without the URL.
    pub(super) fn check_rest(&self) -> Result<()> {
        self.trusted()?;
        match &self.auth {
            Some(Auth::Bearer(secret) | Auth::Basic(_, secret)) => drop(secret.read()?),
            None => {}
        }
        Ok(())
    }

    fn trusted(&self) -> Result<Option<Vec<Certificate<'static>>>> {
        let Some(path) = &self.ca_file else { return Ok(None) };
        let pem = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let items: Result<Vec<_>, _> = parse_pem(&pem).collect();
        let items = items.with_context(|| format!("{} is not a PEM file", path.display()))?;
        let certificates: Vec<_> = items
            .into_iter()
            .filter_map(|item| if let PemItem::Certificate(c) = item { Some(c) } else { None })
            .collect();
        if certificates.is_empty() {
            bail!("{} holds no certificate", path.display());
        }
        Ok(Some(certificates))
    }

    /// Why no answer came, and what to do about it.
    fn unreached(&self, error: &ureq::Error) -> String {
        let timeout = humantime::format_duration(self.timeout);
        match error {
            ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve) => {
                let connect = humantime::format_duration(self.timeout / 2);
                format!(
                    "no connection within {connect}: see that this host may reach it (firewall, proxy, name server)"
                )
            }
            ureq::Error::Timeout(_) => {
                format!("no answer within {timeout}: see whether it is overloaded, or give it longer by `timeout`")
            }
            ureq::Error::HostNotFound => "its name is not known: check the address, and this host's name server".into(),
            error => error.to_string(),
        }
    }

    /// Sends a request. That a server answers with an error is no failure yet.
    pub(super) fn send(&self, call: Call<'_>) -> Result<Answer, Failure> {
        let Call { method, url, content_type, body, mut secrets } = call;
        secrets.extend(secrets_of(&url));
        let mut config = ureq::Agent::config_builder();
        if is_loopback(&url) {
            // A proxy, which the environment may name, cannot reach this host's loopback.
            config = config.proxy(None);
        }
        if let Some(certificates) = self.trusted()? {
            let tls = TlsConfig::builder().root_certs(RootCerts::new_with_certs(&certificates)).build();
            config = config.tls_config(tls);
        }
        let agent: ureq::Agent = config
            .timeout_global(Some(self.timeout))
            .timeout_connect(Some(self.timeout / 2))
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .user_agent(concat!("probe/", env!("CARGO_PKG_VERSION")))
            .build()
            .into();
        let mut request = Request::builder().method(method).uri(&url);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        match &self.auth {
            Some(Auth::Bearer(token)) => {
                let token = token.read()?;
                request = request.header("authorization", format!("Bearer {token}"));
                secrets.push(token);
            }
            Some(Auth::Basic(user, password)) => {
                use base64::Engine as _;
                let password = password.read()?;
                let pair = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
                request = request.header("authorization", format!("Basic {pair}"));
                secrets.extend([password, pair]);
            }
            None => {}
        }
        let said = |text: &str| Failure::later(format!("{}: {}", origin(&url), redact(text, &secrets)));
        let failed = |error: &dyn std::fmt::Display| said(&error.to_string());
        let unreached = |error: ureq::Error| said(&self.unreached(&error));
        let answered = if method == "GET" {
            agent.run(request.body(()).map_err(|error| failed(&error))?)
        } else {
            let request = request.header("content-type", content_type);
            agent.run(request.body(body).map_err(|error| failed(&error))?)
        };
        let response = answered.map_err(unreached)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let mut bytes = Vec::new();
        // Whoever needs the body will find it cut.
        let _ = response.into_body().into_reader().take(MAX_ANSWER).read_to_end(&mut bytes);
        let retry_after = headers.get("retry-after").and_then(|value| value.to_str().ok()).and_then(parse_retry_after);
        let body = String::from_utf8_lossy(&bytes).into_owned();
        Ok(Answer { status, retry_after, body, origin: origin(&url).to_owned(), secrets })
    }
}

impl Answer {
    /// A failure unless the status is one of success. What a server refuses because of the message itself is refused for
    /// good; what somebody can put right elsewhere (a secret, an address) is tried again.
    pub(super) fn expect_success(self) -> Result<Self, Failure> {
        if self.status.is_success() {
            return Ok(self);
        }
        let why = self.describe(&format!("answered {}", self.status));
        Err(match (self.status.as_u16(), self.retry_after) {
            (400 | 405 | 406 | 411 | 413 | 414 | 415 | 422 | 431, _) => Failure::refused(why),
            (_, Some(after)) => Failure::after(why, after),
            (429, None) => Failure::after(why, Duration::from_secs(30)),
            _ => Failure::later(why),
        })
    }

    /// Words about this answer with the beginning of its body.
    pub(super) fn describe(&self, what: &str) -> String {
        let body: String = crate::text::sanitize(self.body.trim()).chars().take(SHOWN).collect();
        let body = if body.is_empty() { String::new() } else { format!(": {}", redact(&body, &self.secrets)) };
        format!("{} {what}{body}", self.origin)
    }
}

/// Seconds, or a date of HTTP; at most an hour.
fn parse_retry_after(text: &str) -> Option<Duration> {
    let text = text.trim();
    let after = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(SystemTime::now()).unwrap_or_default(),
    };
    Some(after.min(MAX_RETRY_AFTER))
}

/// Is it an address on this host?
fn is_loopback(url: &str) -> bool {
    let uri = url.parse::<ureq::http::Uri>().ok();
    uri.as_ref().and_then(|uri| uri.host()).is_some_and(|host| {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
    })
}

/// Is it an address that can be called: an `http` or `https` URL with a host?
pub fn check_url(url: &str) -> Result<()> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let host = rest.map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default());
    if host.is_none_or(|host| host.is_empty()) || url.parse::<ureq::http::Uri>().is_err() {
        bail!("must be a URL that begins with http:// or https://");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked() {
        for url in ["http://127.0.0.1:1/", "https://hooks.example.org/x?key=1"] {
            check_url(url).expect(url);
        }
        for url in ["", "ftp://x/", "http://", "http:///x", "hooks.example.org", "http://a b/"] {
            assert!(check_url(url).is_err(), "{url}");
        }
    }

    #[test]
    fn this_host_is_known() {
        for url in ["http://127.0.0.1:1/", "http://localhost/x", "http://[::1]:80/"] {
            assert!(is_loopback(url), "{url}");
        }
        assert!(!is_loopback("https://hooks.example.org/"));
    }

    #[test]
    fn a_pause_is_seconds_or_a_date_and_bounded() {
        assert_eq!(parse_retry_after("7"), Some(Duration::from_secs(7)));
        assert_eq!(parse_retry_after("99999999"), Some(MAX_RETRY_AFTER));
        let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(60));
        let after = parse_retry_after(&date).expect("a date");
        assert!((50..=60).contains(&after.as_secs()), "{after:?}");
        assert_eq!(parse_retry_after("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        assert_eq!(parse_retry_after("soon"), None);
    }

    #[test]
    fn failures_show_no_secret() {
        let endpoint = Endpoint::new(Secret::Text("http://127.0.0.1:1/secret-path?key=secretkey".into()));
        let url = endpoint.read_url().expect("a URL");
        let call = Call {
            method: "POST",
            url,
            content_type: "text/plain",
            body: Vec::new(),
            secrets: vec!["topsecret".into()],
        };
        let failure = endpoint.send(call).expect_err("nothing listens");
        assert!(failure.to_string().starts_with("http://127.0.0.1:1: "), "{failure}");
        assert!(!failure.to_string().contains("secret"), "{failure}");
    }
}
