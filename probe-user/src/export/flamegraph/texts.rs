//! Texts, each once, one after the other in a single one: there may be hundreds of thousands.

use std::hash::BuildHasher as _;

use hashbrown::{DefaultHashBuilder, HashTable};
use serde::ser::{Serialize, SerializeSeq as _, Serializer};

/// Texts by their index. As JSON, a list.
#[derive(Default)]
pub struct Texts {
    all: String,
    /// Where each ends in `all`.
    ends: Vec<u32>,
    index: HashTable<u32>,
    /// With a random seed, because names come from targets.
    hasher: DefaultHashBuilder,
}

impl Texts {
    /// The index of a text, which is taken in if it is new.
    pub fn id(&mut self, text: &str) -> u32 {
        let Self { all, ends, index, hasher } = self;
        let hash = hasher.hash_one(text);
        if let Some(&id) = index.find(hash, |&id| get(all, ends, id) == text) {
            return id;
        }
        let id = ends.len() as u32;
        all.push_str(text);
        ends.push(all.len() as u32);
        index.insert_unique(hash, id, |&id| hasher.hash_one(get(all, ends, id)));
        id
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.ends.len() as u32).map(|id| get(&self.all, &self.ends, id))
    }

    /// All of them as one text.
    pub fn joined(&self) -> &str {
        &self.all
    }
}

fn get<'a>(all: &'a str, ends: &[u32], id: u32) -> &'a str {
    let from = id.checked_sub(1).map_or(0, |before| ends[before as usize]);
    &all[from as usize..ends[id as usize] as usize]
}

impl Serialize for Texts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.ends.len()))?;
        for text in self.iter() {
            list.serialize_element(text)?;
        }
        list.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_has_one_index_and_stands_in_the_order_of_first_sight() {
        let mut texts = Texts::default();
        let names: Vec<String> = (0..1000).map(|name| format!("größe {name}")).collect();
        for round in 0..2 {
            for (at, name) in names.iter().enumerate() {
                assert_eq!(texts.id(name), at as u32, "round {round}");
            }
        }
        assert_eq!(texts.id(""), 1000);
        assert!(texts.iter().eq(names.iter().map(String::as_str).chain([""])));
        assert_eq!(texts.joined(), names.concat());
        assert_eq!(serde_json::to_value(&texts).unwrap()[7], "größe 7");
    }
}
