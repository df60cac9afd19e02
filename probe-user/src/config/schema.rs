//! Definitions as JSON Schemas, of the same tables that the reference is made of: for the API, which takes them as JSON.

use serde_json::{Map, Value, json};

use super::raw::{Key, SECTIONS};
use crate::serve::Definitions;

/// What `[[function]]` and `[[rule]]` look like.
pub fn definitions() -> Definitions {
    Definitions { function: table("[[function]]"), rule: table("[[rule]]") }
}

/// The schema of a section. A definition has its name where it stands, so that it need not repeat it.
fn table(section: &str) -> Value {
    let Some((_, about, keys)) = SECTIONS.iter().find(|(name, ..)| *name == section) else { return json!(true) };
    let properties: Map<String, Value> = keys.iter().map(|key| (key.name.to_owned(), value(key))).collect();
    let is_required = |key: &&Key| key.default == "required" && key.name != "name";
    let required: Vec<&str> = keys.iter().filter(is_required).map(|key| key.name).collect();
    let about = text(about);
    json!({
        "type": "object",
        "description": about,
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

fn value(key: &Key) -> Value {
    let mut schema = match key.kind {
        "table" => table(key.name),
        "string" | "glob" | "regular expression" | "path" | "URL" | "test" => json!({"type": "string"}),
        "integer" => json!({"type": "integer"}),
        "boolean" => json!({"type": "boolean"}),
        "list of strings" => json!({"type": "array", "items": {"type": "string"}}),
        "duration" | "size" | "percent" | "value" | "number" => json!({"type": ["string", "number"]}),
        // What later keys may hold, the configuration checks.
        _ => json!({}),
    };
    if let Some(schema) = schema.as_object_mut() {
        let default = Some(key.default).filter(|default| default.starts_with('`'));
        let default = default.map_or(String::new(), |default| format!(" Default: {default}."));
        schema.insert("description".into(), format!("{}{default}", text(key.meaning)).into());
    }
    schema
}

fn text(lines: &[&str]) -> String {
    lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::super::reference::EXAMPLE;
    use super::*;

    #[test]
    fn the_definitions_of_the_example_fit_and_mistakes_do_not() {
        let Definitions { function, rule } = definitions();
        let [function, rule] = [function, rule].map(|schema| jsonschema::validator_for(&schema).unwrap());
        let example: Value = toml::from_str::<toml::Table>(EXAMPLE).unwrap().try_into().unwrap();
        assert!(example["rule"].as_array().unwrap().iter().all(|table| rule.is_valid(table)));
        assert!(example["function"].as_array().unwrap().iter().all(|table| function.is_valid(table)));
        let mut wrong = example["rule"][0].clone();
        wrong["abvoe"] = 7.into();
        assert!(!rule.is_valid(&wrong));
        let mut wrong = example["rule"][0].clone();
        wrong["snapshot"]["befor"] = "7s".into();
        assert!(!rule.is_valid(&wrong));
        assert!(!function.is_valid(&json!({"target": "checkout"})), "it needs a symbol");
    }
}
