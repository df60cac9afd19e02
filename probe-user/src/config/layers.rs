//! The layers of a configuration (file, environment, flags) as one text, so that every error knows its place: each layer
//! is parsed behind as many blanks as the layers before it are long, and a position in one says which layer it is of.

use std::ops::Range;

use serde::de::DeserializeOwned;

use super::raw::{Key, SECTIONS};
use crate::problem::{Exit, Problem};

/// Every layer's text, one after the other.
#[derive(Clone, Debug, Default)]
pub(super) struct Layers {
    text: String,
    /// End of each layer in `text`, and what it is.
    ends: Vec<(usize, Origin)>,
}

/// Where a layer comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// A file, by its path.
    File(String),
    /// An environment variable or a flag, by its name.
    Setting(String),
}

impl Layers {
    /// Adds a layer and parses it.
    pub(super) fn add<T: DeserializeOwned>(&mut self, origin: Origin, text: &str) -> Result<T, Problem> {
        self.add_all([(origin, text.to_owned())])
    }

    /// Adds layers and parses them as one text: what is before it is passed over once, not once for each of them.
    pub(super) fn add_all<T: DeserializeOwned>(
        &mut self,
        layers: impl IntoIterator<Item = (Origin, String)>,
    ) -> Result<T, Problem> {
        let start = self.text.len();
        for (origin, text) in layers {
            self.text.push_str(&text);
            self.text.push('\n');
            self.ends.push((self.text.len(), origin));
        }
        let padded = " ".repeat(start) + &self.text[start..];
        toml::from_str(&padded).map_err(|error| {
            let span = error.span().unwrap_or(0..0);
            // Without a position of its own an error belongs to what was just added.
            let span = if span.end == 0 { start..start } else { span };
            self.explain(error.message(), &span)
        })
    }

    /// An error at a place.
    pub(super) fn error(&self, span: &Range<usize>, message: impl std::fmt::Display) -> Problem {
        let problem = Problem::new(Exit::Usage, format!("{}: {message}", self.place(span.start)), "");
        Problem { key: self.key(span.start), ..problem }
    }

    /// The key of a table of tables at a position: that of its line, or of the table within that the line is of.
    fn key(&self, at: usize) -> String {
        let start = self.ends.iter().map(|(end, _)| *end).take_while(|end| *end <= at).last().unwrap_or_default();
        let (before, rest) =
            self.text.get(start..).unwrap_or_default().split_at_checked(at - start).unwrap_or_default();
        let mut within = "";
        for line in before.lines().map(str::trim) {
            let table = line.strip_prefix('[').and_then(|line| line.strip_suffix(']'));
            within = table.map_or(within, |name| name.split('.').nth(1).unwrap_or_default());
        }
        let begun = before.rsplit('\n').next().unwrap_or_default();
        let line = format!("{begun}{}", rest.lines().next().unwrap_or_default());
        let key = line.split_once('=').map_or("", |(key, _)| key.trim());
        if within.is_empty() { key.to_owned() } else { within.to_owned() }
    }

    /// `FILE:LINE` or the name of the variable or flag.
    fn place(&self, at: usize) -> String {
        let mut start = 0;
        for (end, origin) in &self.ends {
            if at < *end {
                return match origin {
                    Origin::File(path) => {
                        let before = self.text.as_bytes().get(start..at).unwrap_or_default();
                        format!("{path}:{}", 1 + before.iter().filter(|&&byte| byte == b'\n').count())
                    }
                    Origin::Setting(name) => name.clone(),
                };
            }
            start = *end;
        }
        "configuration".to_owned()
    }

    /// Turns serde's words into ours.
    fn explain(&self, message: &str, span: &Range<usize>) -> Problem {
        let mut quoted = message.split('`').skip(1).step_by(2);
        let Some(unknown) = message.starts_with("unknown field").then(|| quoted.next()).flatten() else {
            let text = message.trim().replace('\n', "; ");
            return self.error(span, crate::text::sanitize(&text));
        };
        let known: Vec<&str> = quoted.collect();
        let section = section_of(&known);
        let place = section.map_or(String::new(), |name| format!(" in {name}"));
        let nearest = nearest(unknown, &known).map_or(String::new(), |near| format!("; did you mean `{near}`?"));
        let mut problem = self.error(span, format!("unknown key `{}`{place}{nearest}", crate::text::sanitize(unknown)));
        problem.hint = format!("known here: {}", known.join(", "));
        problem
    }
}

/// The section whose keys these are.
fn section_of(keys: &[&str]) -> Option<&'static str> {
    let has = |known: &[Key]| known.len() == keys.len() && known.iter().all(|key| keys.contains(&key.name));
    SECTIONS.iter().find(|(_, _, known)| has(known)).map(|&(name, ..)| name)
}

/// Words that people try first, and the key that means it.
const SYNONYMS: &[(&str, &str)] = &[
    ("threshold", "above"),
    ("duration", "for"),
    ("rate", "frequency"),
    ("command", "comm"),
    ("args", "cmdline"),
    ("channels", "notify"),
    ("dir", "path"),
    ("targets", "target"),
    ("rules", "rule"),
    ("functions", "function"),
    ("location", "symbol"),
];

/// The known key that is written most like `unknown`, or is meant by a word that is.
pub(super) fn nearest<'a>(unknown: &str, known: &[&'a str]) -> Option<&'a str> {
    let score = |word: &str| strsim::jaro_winkler(&unknown.to_ascii_lowercase(), word);
    let own = known.iter().map(|&key| (score(key), key));
    let meant = SYNONYMS.iter().filter_map(|&(word, key)| {
        let key = known.iter().find(|&&known| known == key)?;
        Some((score(word), *key)).filter(|(score, _)| *score > 0.85)
    });
    own.chain(meant).max_by(|(a, _), (b, _)| a.total_cmp(b)).map(|(_, key)| key)
}
