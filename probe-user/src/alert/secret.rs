//! What may be secret: it is never shown, and what stands in a file is read anew each time, so that it can be exchanged.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

/// Most that is read of a file with a secret, in bytes.
const MAX: u64 = 64 << 10;

/// An address, a token or a password.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// As it stands in the configuration; for addresses that are no secret.
    Text(String),
    /// The first line of a file.
    File(PathBuf),
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => f.write_str("Text(…)"),
            Self::File(path) => write!(f, "File({})", path.display()),
        }
    }
}

impl Secret {
    /// What it is now. Errors name the file.
    pub fn read(&self) -> Result<String> {
        let path = match self {
            Self::Text(text) => return Ok(text.clone()),
            Self::File(path) => path,
        };
        let mut text = String::new();
        File::open(path)
            .and_then(|file| file.take(MAX).read_to_string(&mut text))
            .with_context(|| format!("cannot read {}", path.display()))?;
        let line = text.lines().next().unwrap_or_default().trim();
        ensure!(!line.is_empty(), "the first line of {} is empty", path.display());
        Ok(line.to_owned())
    }
}

/// Scheme and host: what may be shown of a URL.
pub(super) fn origin(url: &str) -> &str {
    let start = url.find("://").map_or(0, |at| at + 3);
    let end = url[start..].find(['/', '?', '#']).map_or(url.len(), |at| start + at);
    // A user and a password before the host are not shown.
    url[start..end].rfind('@').map_or(&url[..end], |at| &url[start + at + 1..end])
}

/// A text without the secrets that servers and libraries may repeat in it.
pub(super) fn redact(text: &str, secrets: &[String]) -> String {
    let mut clean = text.to_owned();
    // The longest first: one may be part of another.
    let mut secrets: Vec<&str> = secrets.iter().map(String::as_str).filter(|secret| secret.len() >= 4).collect();
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    for secret in secrets {
        clean = clean.replace(secret, "***");
    }
    clean
}

/// The parts of a URL that may be secret: all of it, its path and query, and each long part of these.
pub(super) fn secrets_of(url: &str) -> Vec<String> {
    const LONG: usize = 8;
    let start = url.find("://").map_or(0, |at| at + 3);
    let end = url[start..].find(['/', '?']).map_or(url.len(), |at| start + at);
    let rest = &url[end..];
    let parts = rest.split(['/', '?', '&', '=']).filter(|part| part.len() >= LONG);
    let user = url[start..end].rsplit_once('@').map(|(user, _)| user);
    [url, rest].into_iter().chain(parts).chain(user).filter(|part| part.len() >= LONG).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_secret_is_not_shown() {
        let url = "https://user:password@hooks.example.org/services/T0/B0/abcdefgh?key=12345678";
        assert_eq!(origin(url), "hooks.example.org");
        assert_eq!(origin("https://hooks.example.org?key=1"), "https://hooks.example.org");
        let text = format!("cannot post to {url}: no path /services/T0/B0/abcdefgh, no key 12345678 for user:password");
        let shown = redact(&text, &secrets_of(url));
        for secret in ["abcdefgh", "12345678", "password"] {
            assert!(!shown.contains(secret), "{shown}");
        }
        assert!(!format!("{:?}", Secret::Text(url.into())).contains("example"));
    }

    #[test]
    fn files_are_read_anew() {
        let folder = tempfile::tempdir().expect("a folder");
        let secret = Secret::File(folder.path().join("ops.url"));
        assert!(format!("{:#}", secret.read().expect_err("missing")).contains("ops.url"));
        for text in ["first", "second"] {
            std::fs::write(folder.path().join("ops.url"), format!("{text}\n# comment\n")).expect("written");
            assert_eq!(secret.read().expect("read"), text);
        }
        std::fs::write(folder.path().join("ops.url"), "\n").expect("written");
        assert!(secret.read().is_err());
    }
}
