//! Who may do what: bearer tokens from a file, and client certificates.

use std::fmt;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use axum::http::StatusCode;
use axum::http::header::{self, HeaderMap};
use schemars::JsonSchema;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};

use super::problem::Problem;
use super::watched::Watched;

/// Fewest characters of a token: less can be guessed.
const SHORTEST: usize = 16;

/// What a route needs, and what a client has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Nothing.
    Open,
    /// To look.
    Read,
    /// To change something, or to have something measured.
    Control,
}

impl Scope {
    /// Its name in the token file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Read => "read",
            Self::Control => "control",
        }
    }
}

/// How the client of a connection is known, put into the extensions of its requests.
#[derive(Clone, Copy, Debug, Default)]
pub struct Peer {
    /// SHA-256 of its certificate, which was verified.
    pub certificate: Option<[u8; 32]>,
}

/// Who may do what.
#[derive(Debug)]
pub struct Access {
    tokens: Option<Watched<Vec<Line>>>,
    certificates: bool,
}

/// A line of the token file.
struct Line {
    scope: Scope,
    is_certificate: bool,
    /// SHA-256 of the token, or of the certificate.
    digest: [u8; 32],
}

impl Access {
    /// Anyone on this host may do everything; nobody else is let in.
    pub fn loopback() -> Self {
        Self { tokens: None, certificates: false }
    }

    /// By a token file, by client certificates, or by either.
    pub fn new(token_file: Option<&Path>, certificates: bool) -> Result<Self> {
        let watch = |path: &Path| {
            // At first there has to be one.
            ensure!(!read(path)?.is_empty(), "there is no token in {}", path.display());
            let file = path.to_owned();
            Watched::new(vec![path.to_owned()], move || read_again(&file))
        };
        Ok(Self { tokens: token_file.map(watch).transpose()?, certificates })
    }

    /// Must clients be on this host?
    pub fn is_loopback_only(&self) -> bool {
        self.tokens.is_none() && !self.certificates
    }

    /// What the client of a request may do, and whether it has said so itself, which no foreign page can make a browser do.
    pub fn of(&self, headers: &HeaderMap, peer: Peer) -> Result<(Scope, bool), Problem> {
        if self.is_loopback_only() {
            return Ok((Scope::Control, false));
        }
        let lines = self.tokens.as_ref().map(Watched::get);
        if let (Some(lines), Some(token)) = (&lines, bearer(headers)) {
            let digest = Sha256::digest(token).into();
            return find(lines, false, &digest).map(|scope| (scope, true)).ok_or_else(|| {
                unauthorized("the token is not known", "Bearer realm=\"probe\", error=\"invalid_token\"")
            });
        }
        match (&lines, peer.certificate) {
            (Some(lines), Some(digest)) => Ok((find(lines, true, &digest).unwrap_or(Scope::Read), false)),
            (None, Some(_)) => Ok((Scope::Control, false)),
            (_, None) => Err(unauthorized("the request has no token", "Bearer realm=\"probe\"")),
        }
    }
}

fn unauthorized(detail: &str, challenge: &str) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, detail)
        .hint("send `Authorization: Bearer TOKEN` with a token of [serve] token_file")
        .header(header::WWW_AUTHENTICATE, challenge)
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

/// The scope of a digest. Every line is compared, each in the same time whatever it has.
fn find(lines: &[Line], is_certificate: bool, digest: &[u8; 32]) -> Option<Scope> {
    let mut found = 0u8;
    for line in lines {
        let same = line.digest.ct_eq(digest) & Choice::from(u8::from(line.is_certificate == is_certificate));
        found = u8::conditional_select(&found, &found.max(line.scope as u8), same);
    }
    [Scope::Read, Scope::Control].into_iter().find(|scope| *scope as u8 == found)
}

/// Lines `read TOKEN`, `control TOKEN` or `control sha256:FINGERPRINT`; empty ones and comments (`#`) are passed over.
fn read(path: &Path) -> Result<Vec<Line>> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read the tokens in {}", path.display()))?;
    let mut lines = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        // The line itself is a secret.
        lines.push(parse(line).with_context(|| format!("{}:{}", path.display(), number + 1))?);
    }
    Ok(lines)
}

/// The same of a file that was there before: with it its tokens end.
fn read_again(path: &Path) -> Result<Vec<Line>> {
    let lines = match path.try_exists() {
        Ok(false) => Vec::new(),
        _ => read(path)?,
    };
    if lines.is_empty() {
        tracing::warn!("there is no token in {} any more: no token is valid", path.display());
    }
    Ok(lines)
}

fn parse(line: &str) -> Result<Line> {
    let mut words = line.split_whitespace();
    let (Some(scope), Some(token), None) = (words.next(), words.next(), words.next()) else {
        bail!("a line is a scope and a token, with a blank between");
    };
    let scope = match scope {
        "read" => Scope::Read,
        "control" => Scope::Control,
        _ => bail!("the scope is read or control"),
    };
    if let Some(fingerprint) = token.strip_prefix("sha256:") {
        let digest = fingerprint_of(fingerprint).context("a fingerprint has 64 hexadecimal digits")?;
        return Ok(Line { scope, is_certificate: true, digest });
    }
    ensure!(
        token.len() >= SHORTEST,
        "the token is shorter than {SHORTEST} characters; `openssl rand -hex 32` makes one"
    );
    Ok(Line { scope, is_certificate: false, digest: Sha256::digest(token).into() })
}

/// Digits as tools print them, with colons or without.
fn fingerprint_of(text: &str) -> Option<[u8; 32]> {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b':').collect();
    let mut digest = [0; 32];
    if digits.len() != 64 {
        return None;
    }
    for (byte, pair) in digest.iter_mut().zip(digits.chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(digest)
}

/// Without the digest, as little as that says.
impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").field("scope", &self.scope).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_a_scope_and_a_token() {
        let scope = |line: &str| parse(line).map(|line| (line.scope, line.is_certificate)).ok();
        assert_eq!(scope("read 0123456789abcdef"), Some((Scope::Read, false)));
        assert_eq!(scope("control\t 0123456789abcdef "), Some((Scope::Control, false)));
        let fingerprint = "ab:".repeat(31) + "AB";
        assert_eq!(scope(&format!("control sha256:{fingerprint}")), Some((Scope::Control, true)));
        for wrong in ["read", "write 0123456789abcdef", "read short", "read sha256:abcd", "read 0123456789abcdef x"] {
            assert_eq!(scope(wrong), None, "{wrong}");
        }
        let error = format!("{:#}", parse("read secret").unwrap_err());
        assert!(!error.contains("secret"), "{error}");
    }

    #[test]
    fn the_largest_scope_of_a_token_holds() {
        let line = |scope, token: &str| Line { scope, is_certificate: false, digest: Sha256::digest(token).into() };
        let lines = [line(Scope::Control, "a"), line(Scope::Read, "a"), line(Scope::Read, "b")];
        let find = |token: &str, is_certificate| find(&lines, is_certificate, &Sha256::digest(token).into());
        assert_eq!(find("a", false), Some(Scope::Control));
        assert_eq!(find("b", false), Some(Scope::Read));
        assert_eq!(find("c", false), None);
        assert_eq!(find("a", true), None, "a token is no certificate");
    }

    #[test]
    fn the_scheme_is_bearer_whatever_its_case() {
        let token = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            bearer(&headers).map(<[u8]>::to_vec)
        };
        assert_eq!(token("Bearer abc").as_deref(), Some(b"abc".as_slice()));
        assert_eq!(token("bEARER  abc ").as_deref(), Some(b"abc".as_slice()));
        for other in ["Basic abc", "Bearer", "Bearerabc", ""] {
            assert_eq!(token(other), None, "{other}");
        }
    }

    #[test]
    fn a_file_that_is_removed_ends_its_tokens() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        assert!(Access::new(Some(&path), false).is_err(), "it has to be there at first");
        std::fs::write(&path, "read 0123456789abcdef\n").unwrap();
        assert_eq!(read_again(&path).unwrap().len(), 1);
        std::fs::write(&path, "read short\n").unwrap();
        assert!(read_again(&path).is_err(), "a mistake changes nothing");
        std::fs::write(&path, "# none\n").unwrap();
        assert_eq!(read_again(&path).unwrap().len(), 0);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(read_again(&path).unwrap().len(), 0);
    }
}
