//! Bodies by templates (minijinja). What is put into them is escaped for the kind of body, so that nothing a target is
//! called can break out: within the quotes of JSON, as part of a form or of XML.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, Output, UndefinedBehavior, Value};
use serde_json::json;

use super::alertmanager::webhook_body;
use super::robot::percent_encode;
use crate::alert::Batch;
use crate::alert::story::Style;

/// Longest text that templates get, in bytes.
const MAX_TEXT: usize = 16 << 10;

/// Most that is read of a file with a template, in bytes.
const MAX_TEMPLATE: u64 = 1 << 20;

/// A template with the kind of text that it makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// Where it stands.
    pub source: Source,
    /// The type of the body, such as `application/json`; it decides how values are escaped.
    pub content_type: String,
}

/// Where a template stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// In the configuration.
    Text(String),
    /// In a file that is read anew each time.
    File(PathBuf),
}

/// How values are written into a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Escaping {
    /// Within quotes.
    Json,
    /// Per cent.
    Query,
    /// As entities.
    Xml,
    None,
}

impl Escaping {
    fn of(content_type: &str) -> Self {
        let kind = content_type.split(';').next().unwrap_or_default().trim();
        match kind {
            "application/x-www-form-urlencoded" => Self::Query,
            kind if kind.ends_with("json") => Self::Json,
            kind if kind.ends_with("xml") || kind.ends_with("html") => Self::Xml,
            _ => Self::None,
        }
    }

    fn write(self, text: &str) -> String {
        match self {
            Self::None => text.to_owned(),
            Self::Query => percent_encode(text),
            Self::Json => {
                let quoted = serde_json::Value::from(text).to_string();
                quoted[1..quoted.len() - 1].to_owned()
            }
            Self::Xml => {
                let mut out = String::new();
                for c in text.chars() {
                    match c {
                        '&' => out.push_str("&amp;"),
                        '<' => out.push_str("&lt;"),
                        '>' => out.push_str("&gt;"),
                        '"' => out.push_str("&quot;"),
                        '\'' => out.push_str("&#39;"),
                        c => out.push(c),
                    }
                }
                out
            }
        }
    }
}

impl Template {
    /// The body for a message. `more` are values beside those that all templates have.
    pub(super) fn render(&self, batch: &Batch<'_>, more: serde_json::Value) -> Result<String> {
        let (text, name) = match &self.source {
            Source::Text(text) => (text.clone(), "the `template`".to_owned()),
            Source::File(path) => (read(path)?, path.display().to_string()),
        };
        let escaping = Escaping::of(&self.content_type);
        let body =
            render(&text, escaping, &context(batch, more)).with_context(|| format!("{name} cannot be filled in"))?;
        if escaping == Escaping::Json {
            let parsed = serde_json::from_str::<serde_json::Value>(&body);
            parsed.with_context(|| {
                format!("{name} does not give JSON (values stand within quotes: \"{{{{ text }}}}\")")
            })?;
        }
        Ok(body)
    }
}

fn read(path: &std::path::Path) -> Result<String> {
    use std::io::Read as _;
    let failed = || format!("cannot read {}", path.display());
    let mut text = String::new();
    let file = std::fs::File::open(path).with_context(failed)?;
    file.take(MAX_TEMPLATE + 1).read_to_string(&mut text).with_context(failed)?;
    ensure!(text.len() as u64 <= MAX_TEMPLATE, "{} is too long for a template", path.display());
    Ok(text)
}

/// The values that all templates have: those of Alertmanager's webhooks, the notices as they are, and texts.
pub(super) fn context(batch: &Batch<'_>, more: serde_json::Value) -> serde_json::Value {
    let mut context = webhook_body(batch);
    context["title"] = batch.title().into();
    context["text"] = Style::PLAIN.compose(batch, MAX_TEXT).into();
    context["notices"] = json!(batch.notices);
    context["link"] = batch.notices.first().map(|notice| batch.links.place(notice)).unwrap_or_default().into();
    if let (Some(context), serde_json::Value::Object(more)) = (context.as_object_mut(), more) {
        context.extend(more);
    }
    context
}

/// Renders a template; a value that there is not is an error.
pub(super) fn render(template: &str, escaping: Escaping, context: &serde_json::Value) -> Result<String> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_formatter(move |out: &mut Output<'_>, _, value: &Value| {
        // What a filter has made fit (`tojson`, `urlencode`) stays.
        let written = match value.as_str() {
            Some(text) if !value.is_safe() => escaping.write(text),
            _ if value.is_undefined() => {
                return Err(minijinja::Error::new(minijinja::ErrorKind::UndefinedError, "there is no such value"));
            }
            _ => value.to_string(),
        };
        Ok(out.write_str(&written)?)
    });
    Ok(environment.render_str(template, Value::from(Serde(context)))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::Links;
    use crate::alert::notice::tests::notice;

    fn rendered(template: &str, content_type: &str) -> Result<String> {
        let mut alert = notice(42, &["ops"]);
        alert.target = "a\"b\\c</x>&d=1".into();
        let batch = Batch { channel: "ops", notices: &[alert], links: &Links::default() };
        let template = Template { source: Source::Text(template.into()), content_type: content_type.into() };
        template.render(&batch, json!({"to": "+4912"}))
    }

    #[test]
    fn values_cannot_break_out() {
        let json = rendered(r#"{"t": "{{ alerts[0].labels.service }}", "n": {{ alerts|length }}}"#, "application/json");
        let json: serde_json::Value = serde_json::from_str(&json.expect("renders")).expect("JSON");
        assert_eq!(json, json!({"t": "a\"b\\c</x>&d=1", "n": 1}));
        let form = rendered("t={{ notices[0].target }}&to={{ to }}", "application/x-www-form-urlencoded");
        assert_eq!(form.expect("renders"), "t=a%22b%5Cc%3C%2Fx%3E%26d%3D1&to=%2B4912");
        let xml = rendered("<t>{{ notices[0].target }}</t>", "text/xml; charset=utf-8");
        assert_eq!(xml.expect("renders"), "<t>a&quot;b\\c&lt;/x&gt;&amp;d=1</t>");
        assert_eq!(rendered("{{ notices[0].target }}", "text/plain").expect("renders"), "a\"b\\c</x>&d=1");
        let whole = rendered("{{ notices[0] | tojson }}", "application/json").expect("renders");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&whole).expect("JSON")["target"], "a\"b\\c</x>&d=1");
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (template, expected) in [
            ("{{ weather }}", "cannot be filled in: undefined value"),
            ("{{ title", "cannot be filled in: syntax error"),
            ("{\"t\": {{ title }}}", "does not give JSON"),
        ] {
            let error = format!("{:#}", rendered(template, "application/json").expect_err(template));
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn loops_and_conditions_work() {
        let text = rendered(
            "{% for alert in alerts %}{{ alert.status }} {{ alert.labels.alertname }}{% if not loop.last %},{% endif %}{% endfor %}",
            "text/plain",
        );
        assert_eq!(text.expect("renders"), "firing checkout-cpu");
    }
}
