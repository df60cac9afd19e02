//! HTML: an interactive flamegraph in one file that opens offline. The page is `page.html` with the style, the script and
//! the profile put in; it may load nothing, and run only the script that this file put there.
//!
//! The script is the renderer of the application with what this page needs (`ui/src/export`), built by `cargo xtask ui`.

use std::io::Write;
use std::sync::OnceLock;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use super::{Options, flamegraph, flat};
use crate::symbolize::Profile;

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("../../../../ui/dist/export.js");

/// Writes the page for `profile`.
pub fn write(profile: &Profile, options: &Options, out: &mut dyn Write) -> Result<()> {
    let data = serde_json::to_string(&flamegraph::data(profile, options))?;
    let title = flat::title(profile, options);
    let mut rest = PAGE;
    while let Some((text, tail)) = rest.split_once("{{") {
        let (name, tail) = tail.split_once("}}").context("the page template has an open placeholder")?;
        out.write_all(text.as_bytes())?;
        match name {
            "policy" => out.write_all(policy().as_bytes())?,
            "title" => out.write_all(escape(&title).as_bytes())?,
            "style" => out.write_all(STYLE.as_bytes())?,
            "script" => out.write_all(script().as_bytes())?,
            // Inside a script element only `<` can end it or open a comment.
            "data" => out.write_all(data.replace('<', "\\u003c").as_bytes())?,
            _ => anyhow::bail!("the page template asks for {name:?}"),
        }
        rest = tail;
    }
    Ok(out.write_all(rest.as_bytes())?)
}

/// The page's content security policy: its own style and script by their hashes, and nothing else.
pub fn policy() -> &'static str {
    static POLICY: OnceLock<String> = OnceLock::new();
    POLICY.get_or_init(|| {
        format!(
            "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; base-uri 'none'; form-action 'none'",
            STANDARD.encode(Sha256::digest(script())),
            STANDARD.encode(Sha256::digest(STYLE)),
        )
    })
}

fn script() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| format!("\n\"use strict\";\n{SCRIPT}"))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::{Format, fixture, write as export};
    use super::*;

    fn page(options: &Options) -> String {
        let mut bytes = Vec::new();
        export(&fixture::profile(), Format::Html, options, &mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    /// What stands between two texts.
    fn between<'a>(page: &'a str, start: &str, end: &str) -> &'a str {
        page.split_once(start).unwrap().1.split_once(end).unwrap().0
    }

    #[test]
    fn the_policy_allows_just_the_script_and_the_style_of_the_page() {
        let page = page(&Options::default());
        let hash = |text: &str| format!("'sha256-{}'", STANDARD.encode(Sha256::digest(text)));
        let policy = between(&page, "Content-Security-Policy\" content=\"", "\"");
        assert!(policy.starts_with("default-src 'none'; "));
        assert!(policy.contains(&format!("script-src {};", hash(between(&page, "<script>", "</script>")))));
        assert!(policy.contains(&format!("style-src {};", hash(between(&page, "<style>", "</style>")))));
        assert!(!policy.contains("unsafe"));
    }

    #[test]
    fn the_page_loads_nothing_and_builds_no_markup_from_names() {
        let page = page(&Options::default());
        for forbidden in [
            "src=\"",
            "href=",
            "@import",
            "url(",
            "fetch(",
            "XMLHttpRequest",
            "WebSocket",
            "innerHTML",
            "outerHTML",
            "insertAdjacent",
            "document.write",
            "eval(",
            "http:",
            "https:",
        ] {
            assert!(!page.contains(forbidden), "{forbidden}");
        }
    }

    #[test]
    fn names_cannot_leave_the_data() {
        let options = Options { title: Some("</title><script>alert(1)</script>".into()), ..Options::default() };
        let page = page(&options);
        assert_eq!(page.matches("<script").count(), 2, "the data and the page's own");
        let data: Value = serde_json::from_str(between(&page, "type=\"application/json\">", "</script>")).unwrap();
        assert!(data["strings"].to_string().contains("</script><script>alert('frame')</script>"));
        assert_eq!(data["title"], "</title><script>alert(1)</script>");
    }
}
