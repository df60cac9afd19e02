//! A channel: where messages go. Addresses may hold secrets, so they are never shown whole.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Serialize;

/// How long one delivery may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A webhook with its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channel {
    /// Unique name.
    pub name: String,
    /// Where it is.
    pub address: Address,
}

/// The address of a webhook.
#[derive(Clone, PartialEq, Eq)]
pub enum Address {
    /// The URL itself.
    Url(String),
    /// A file that holds the URL in its first line; read anew for each delivery, so that it can be exchanged.
    File(PathBuf),
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url) => write!(f, "Url({})", origin(url)),
            Self::File(path) => write!(f, "File({})", path.display()),
        }
    }
}

/// Scheme and host: what may be shown of a URL.
fn origin(url: &str) -> &str {
    let start = url.find("://").map_or(0, |at| at + 3);
    let end = url[start..].find(['/', '?', '#', '@']).map_or(url.len(), |at| start + at);
    &url[..end]
}

/// Is it an address on this host?
fn is_loopback(url: &str) -> bool {
    let uri = url.parse::<ureq::http::Uri>().ok();
    uri.as_ref().and_then(|uri| uri.host()).is_some_and(|host| {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
    })
}

/// Is it the address of a webhook: an `http` or `https` URL with a host?
pub fn check_url(url: &str) -> Result<()> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let host = rest.map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default());
    if host.is_none_or(|host| host.is_empty()) || url.parse::<ureq::http::Uri>().is_err() {
        bail!("a webhook's address is a URL that begins with http:// or https://");
    }
    Ok(())
}

impl Channel {
    /// The URL; from a file it is read now.
    pub fn url(&self) -> Result<String> {
        let url = match &self.address {
            Address::Url(url) => url.clone(),
            Address::File(path) => {
                let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
                let line = text.lines().next().unwrap_or_default().trim().to_owned();
                check_url(&line).with_context(|| format!("the first line of {} is no address", path.display()))?;
                line
            }
        };
        Ok(url)
    }

    /// Delivers a message once. Anything but a status of success is an error; errors do not show the address.
    pub(super) fn deliver(&self, message: &impl Serialize) -> Result<()> {
        let url = self.url()?;
        let body = serde_json::to_vec(message)?;
        let mut config = ureq::Agent::config_builder();
        if is_loopback(&url) {
            // A proxy, which the environment may name, cannot reach this host's loopback.
            config = config.proxy(None);
        }
        let agent: ureq::Agent = config
            .timeout_global(Some(TIMEOUT))
            .timeout_connect(Some(TIMEOUT / 2))
            .max_redirects(0)
            .http_status_as_error(false)
            .user_agent(concat!("probe/", env!("CARGO_PKG_VERSION")))
            .build()
            .into();
        let posted = agent.post(&url).header("content-type", "application/json").send(&body[..]);
        let status = match posted {
            Ok(response) => response.status(),
            Err(error) => bail!("{}", error.to_string().replace(&url, origin(&url))),
        };
        if !status.is_success() {
            bail!("{} answered {status}", origin(&url));
        }
        Ok(())
    }
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
    fn what_may_be_secret_is_not_shown() {
        let address = Address::Url("https://hooks.example.org/services/secret?key=secret".into());
        assert_eq!(format!("{address:?}"), "Url(https://hooks.example.org)");
    }

    #[test]
    fn an_address_may_stand_in_a_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ops.url");
        let channel = Channel { name: "ops".into(), address: Address::File(path.clone()) };
        assert!(format!("{:#}", channel.url().expect_err("missing")).contains("ops.url"));
        fs::write(&path, "https://hooks.example.org/x\n# comment\n").expect("written");
        assert_eq!(channel.url().expect("read"), "https://hooks.example.org/x");
        fs::write(&path, "nothing\n").expect("written");
        assert!(channel.url().is_err());
    }
}
