//! `SpanSpec`: from the entry of one function to another, as people write it: `begin=submit end=complete key=arg0`.

use anyhow::{Context, Result, bail};

use serde::{Deserialize, Serialize};

use super::operand::OperandSpec;
use crate::functions::{Finder, Kind, Place, Spec};
use crate::kernel::{Role, SpanKeys};

/// A span; see the head of this file.
#[derive(Clone, Debug)]
pub struct SpanSpec {
    text: SpanText,
    begin: Spec,
    end: Spec,
    keys: [OperandSpec; 2],
}

/// The parts of a span, as people write them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct SpanText {
    name: String,
    begin: String,
    end: String,
    keys: [String; 2],
}

/// Where the value of one end of a span is known.
pub(super) struct Hit {
    pub place: Place,
    /// Where in the file.
    pub offset: u64,
    pub role: Role,
    /// Of a static tracepoint.
    pub semaphore: Option<u64>,
}

impl SpanSpec {
    /// Takes the words that follow `--span` apart: each `begin=` begins a span, and what is no part of one is a function's name.
    pub fn parse(words: &[String]) -> Result<(Vec<Self>, Vec<String>)> {
        let (mut spans, mut names) = (Vec::<Vec<(&str, &str)>>::new(), Vec::new());
        for word in words.iter().flat_map(|words| words.split([' ', ','])).filter(|word| !word.is_empty()) {
            match word.split_once('=') {
                Some(("begin", value)) => spans.push(vec![("begin", value)]),
                Some((part @ ("end" | "key" | "end-key" | "name"), value)) => {
                    spans
                        .last_mut()
                        .with_context(|| format!("`{word}`: a span starts with begin="))?
                        .push((part, value));
                }
                _ => names.push(word.to_owned()),
            }
        }
        Ok((spans.iter().map(|parts| Self::new(parts)).collect::<Result<_>>()?, names))
    }

    fn new(parts: &[(&str, &str)]) -> Result<Self> {
        let part = |wanted: &str| parts.iter().find(|(name, _)| *name == wanted).map(|(_, value)| *value);
        let needed = |wanted: &str| part(wanted).with_context(|| format!("a span needs {wanted}="));
        let (begin, end, key) = (needed("begin")?, needed("end")?, needed("key")?);
        let name = part("name").map_or_else(|| format!("{begin}->{end}"), str::to_owned);
        let keys = [key, part("end-key").unwrap_or(key)].map(str::to_owned);
        Self::read(SpanText { name, begin: begin.to_owned(), end: end.to_owned(), keys })
    }

    pub(super) fn read(text: SpanText) -> Result<Self> {
        let keys = [text.keys[0].parse()?, text.keys[1].parse()?];
        Ok(Self { begin: text.begin.parse()?, end: text.end.parse()?, keys, text })
    }

    pub(super) fn text(&self) -> &SpanText {
        &self.text
    }

    pub(super) fn name(&self) -> &str {
        &self.text.name
    }

    /// The places of its probes, and the values by which it is paired.
    pub(super) fn find(&self, finder: &Finder) -> Result<(Vec<Hit>, SpanKeys)> {
        let begin = one(finder, &self.begin)?;
        let end = one(finder, &self.end)?;
        if begin.module.path == end.module.path && begin.file_offset == end.file_offset && !self.keys[1].is_returned() {
            bail!("{begin}: a span begins and ends in two places; the time of its calls is measured by its name alone");
        }
        let keys = SpanKeys { begin: self.keys[0].at(&begin)?, end: self.keys[1].at(&end)? };
        let mut found = hits(finder, &begin, &self.keys[0], Role::Begin)?;
        found.extend(hits(finder, &end, &self.keys[1], Role::End)?);
        Ok((found, keys))
    }
}

/// The only place that is meant.
fn one(finder: &Finder, spec: &Spec) -> Result<Place> {
    let mut found = finder.find(spec).map_err(|missing| missing.problem())?;
    match found.places.len() {
        1 => Ok(found.places.remove(0)),
        count => bail!("`{spec}` means {count} functions, a span begins and ends in one: name the library as well"),
    }
}

/// Where a value is known: where the function begins, or returns.
fn hits(finder: &Finder, place: &Place, key: &OperandSpec, role: Role) -> Result<Vec<Hit>> {
    let hit = |offset, semaphore| Hit { place: place.clone(), offset, role, semaphore };
    if !key.is_returned() {
        let semaphore = if let Kind::Usdt { semaphore, .. } = place.kind { semaphore } else { None };
        return Ok(vec![hit(place.file_offset, semaphore)]);
    }
    let returns = finder.returns(place)?;
    if returns.jumps_out > 0 || returns.offsets.is_empty() {
        bail!("{place}: what it returns cannot be seen, because it ends in another function; pair by an argument");
    }
    Ok(returns.offsets.into_iter().map(|offset| hit(offset, None)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_words_or_one_text() {
        let words = |text: &str| text.split('|').map(str::to_owned).collect::<Vec<_>>();
        for text in ["begin=a|end=b|key=arg0|other", "begin=a end=b key=arg0|other", "begin=a,end=b,key=arg0|other"] {
            let (spans, names) = SpanSpec::parse(&words(text)).unwrap();
            assert_eq!((spans.len(), names), (1, vec!["other".to_owned()]), "{text}");
            assert_eq!((spans[0].name(), &spans[0].keys[0]), ("a->b", &spans[0].keys[1]));
        }
        let (spans, _) =
            SpanSpec::parse(&words("begin=a|end=b|key=ret|end-key=arg1->8|begin=c|end=d|key=arg0|name=x")).unwrap();
        assert!(spans.len() == 2 && spans[0].keys[0].is_returned() && spans[1].name() == "x");
        for bad in ["end=b", "begin=a|key=arg0", "begin=a|end=b", "begin=a|end=b|key=what"] {
            assert!(SpanSpec::parse(&words(bad)).is_err(), "{bad}");
        }
    }
}
