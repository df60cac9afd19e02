//! Flamegraphs in binary, for pages: a tree of 200,000 nodes is read without looking at each of its numbers as text.
//!
//! | bytes | |
//! | --- | --- |
//! | 8 | `probecol` |
//! | 4 | the version, 1 |
//! | 4 | length of the head |
//! | | the head: JSON, what is no column, and in `columns` the name, type and length of each column |
//! | | the columns in that order, each after zeros up to a multiple of eight |
//!
//! Numbers are little-endian, of the narrowest type that holds all of a column. Texts stand in one, `utf8`, and a column
//! of numbers says where each ends, counted as scripts do: in units of UTF-16.

use std::io::Write;

use anyhow::{Context, Result};
use serde::Serialize;

use super::texts::Texts;
use super::tree::{Functions, Nodes};

const MAGIC: &[u8; 8] = b"probecol";
/// Raised when a reader of the version before would misunderstand the bytes.
const VERSION: u32 = 1;
const ALIGNMENT: usize = 8;

/// Columns, one after the other.
#[derive(Default)]
pub struct Columns {
    places: Vec<Place>,
    bytes: Vec<u8>,
}

/// What the head says of a column.
#[derive(Serialize)]
struct Place {
    /// Its path in the JSON form.
    name: &'static str,
    r#type: &'static str,
    /// Numbers, or bytes of text.
    length: usize,
}

#[derive(Serialize)]
struct Head<'a, T> {
    #[serde(flatten)]
    rest: &'a T,
    columns: &'a [Place],
}

impl Columns {
    /// The columns that all trees have.
    pub fn of(strings: &Texts, functions: &Functions, nodes: &Nodes) -> Self {
        let mut columns = Self::default();
        columns.begin("strings", "utf8", strings.joined().len());
        columns.bytes.extend_from_slice(strings.joined().as_bytes());
        columns.numbers("strings.ends", &ends(strings));
        let Functions { name, file, line, lines, module, kind } = functions;
        columns.numbers("functions.name", name);
        columns.numbers("functions.file", file);
        columns.numbers("functions.line", line);
        columns.numbers("functions.lines", lines);
        columns.numbers("functions.module", module);
        columns.numbers("functions.kind", kind);
        let Nodes { parent, function, inlined } = nodes;
        columns.numbers("nodes.parent", parent);
        columns.numbers("nodes.function", function);
        columns.numbers("nodes.inlined", inlined);
        columns
    }

    /// Adds a column of numbers. What needs more than 32 bits has the precision of a script's numbers.
    pub fn numbers<T: Copy + Into<u64>>(&mut self, name: &'static str, list: &[T]) {
        let numbers = list.iter().map(|&number| -> u64 { number.into() });
        let most = numbers.clone().max().unwrap_or(0);
        let length = list.len();
        if most <= u64::from(u8::MAX) {
            self.begin(name, "u8", length).extend(numbers.map(|number| number as u8));
        } else if most <= u64::from(u16::MAX) {
            self.begin(name, "u16", length).extend(numbers.flat_map(|number| (number as u16).to_le_bytes()));
        } else if most <= u64::from(u32::MAX) {
            self.begin(name, "u32", length).extend(numbers.flat_map(|number| (number as u32).to_le_bytes()));
        } else {
            self.begin(name, "f64", length).extend(numbers.flat_map(|number| (number as f64).to_le_bytes()));
        }
    }

    fn begin(&mut self, name: &'static str, r#type: &'static str, length: usize) -> &mut Vec<u8> {
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGNMENT), 0);
        self.places.push(Place { name, r#type, length });
        &mut self.bytes
    }

    /// Writes them behind a head with what else there is.
    pub fn write(self, rest: &impl Serialize, out: &mut dyn Write) -> Result<()> {
        let mut head = serde_json::to_vec(&Head { rest, columns: &self.places })?;
        let before = MAGIC.len() + 2 * size_of::<u32>();
        head.resize((before + head.len()).next_multiple_of(ALIGNMENT) - before, b' ');
        let length = u32::try_from(head.len()).context("what is no column is too large")?;
        for part in [&MAGIC[..], &VERSION.to_le_bytes(), &length.to_le_bytes(), &head, &self.bytes] {
            out.write_all(part)?;
        }
        Ok(())
    }
}

/// Where each text ends in all of them.
fn ends(strings: &Texts) -> Vec<u32> {
    let units = |text: &str| if text.is_ascii() { text.len() } else { text.encode_utf16().count() };
    let ends = strings.iter().scan(0, |end, text| {
        *end += units(text) as u32;
        Some(*end)
    });
    ends.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value, json};

    use super::super::super::{Options, fixture};
    use super::super::{Shape, write, write_comparison};
    use super::*;
    use crate::symbolize::Profile;

    /// The JSON form of what was packed.
    fn unpacked(bytes: &[u8]) -> Value {
        assert_eq!(&bytes[..8], MAGIC);
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        assert_eq!(word(8), 1);
        let mut at = 16 + word(12);
        let mut whole: Map<String, Value> = serde_json::from_slice(&bytes[16..at]).unwrap();
        let Some(Value::Array(places)) = whole.remove("columns") else { panic!("no columns") };
        let mut text = Vec::new();
        for place in places {
            at = at.next_multiple_of(8);
            let length = place["length"].as_u64().unwrap() as usize;
            let kind = place["type"].as_str().unwrap();
            let width = match kind {
                "u8" | "utf8" => 1,
                "u16" => 2,
                "u32" => 4,
                _ => 8,
            };
            let part = &bytes[at..at + length * width];
            at += part.len();
            if kind == "utf8" {
                text = std::str::from_utf8(part).unwrap().encode_utf16().collect();
                continue;
            }
            let number = |bytes: &[u8]| match kind {
                "f64" => json!(f64::from_le_bytes(bytes.try_into().unwrap()) as u64),
                _ => json!(bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))),
            };
            let list: Vec<Value> = part.chunks_exact(width).map(number).collect();
            let mut table = &mut whole;
            let mut path: Vec<&str> = place["name"].as_str().unwrap().split('.').collect();
            let last = path.pop().unwrap();
            if last == "ends" {
                let mut from = 0;
                let texts = list.iter().map(|end| {
                    let end = end.as_u64().unwrap() as usize;
                    String::from_utf16(&text[std::mem::replace(&mut from, end)..end]).unwrap()
                });
                table.insert("strings".into(), texts.collect());
                continue;
            }
            for name in path {
                let Value::Object(inner) = table.entry(name).or_insert_with(|| json!({})) else { panic!("{name}") };
                table = inner;
            }
            table.insert(last.into(), list.into());
        }
        assert_eq!(at, bytes.len());
        whole.into()
    }

    fn written(profile: &Profile, options: &Options, shape: Shape) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(profile, options, shape, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn it_holds_what_the_json_form_does() {
        let mut profile = fixture::clean();
        profile.locations[0].lines[0].function = "größe 🙂".into();
        profile.samples[1].value = 1 << 40;
        profile.header.unit = "bytes".into();
        for stretch_ms in [None, Some(50)] {
            let options = Options { stretch_ms, ..Options::default() };
            let json: Value = serde_json::from_slice(&written(&profile, &options, Shape::Json)).unwrap();
            assert_eq!(json.get("times").is_some(), stretch_ms.is_some());
            assert_eq!(unpacked(&written(&profile, &options, Shape::Packed)), json);
        }
    }

    #[test]
    fn comparisons_are_packed_as_well() {
        let (a, mut b) = (fixture::clean(), fixture::clean());
        b.samples[0].count = 70_000;
        let both = |shape| {
            let mut bytes = Vec::new();
            write_comparison(&a, &b, &Options::default(), shape, &mut bytes).unwrap();
            bytes
        };
        let json: Value = serde_json::from_slice(&both(Shape::Json)).unwrap();
        assert_eq!(unpacked(&both(Shape::Packed)), json);
    }
}
