//! Functions and rules that were defined, replaced or removed while the daemon runs: a layer above the file, with the same
//! keys, checked by the same code.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use toml::Spanned;

use super::layers::{Layers, Origin};
use super::raw::Raw;
use super::{Config, Flags, Rule, show, validate};
use crate::latency::Definition;
use crate::problem::{Exit, Problem};

/// The keys and values of a table.
pub type Table = Map<String, Value>;

/// What stands above the file: by name the table that is there instead, or nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Changes {
    /// Of `[[function]]`.
    pub functions: BTreeMap<String, Option<Table>>,
    /// Of `[[rule]]`.
    pub rules: BTreeMap<String, Option<Table>>,
}

/// A configuration file as it was read, with everything else that had a say.
#[derive(Clone, Debug)]
pub struct Source {
    name: String,
    text: String,
    environment: Vec<(std::ffi::OsString, std::ffi::OsString)>,
    flags: Vec<(&'static str, &'static str, String)>,
}

impl Source {
    /// Remembers them; nothing is checked.
    pub(super) fn new(name: String, text: String, flags: &[(&'static str, &'static str, String)]) -> Self {
        Self { name, text, environment: std::env::vars_os().collect(), flags: flags.to_vec() }
    }

    /// A number that tells this configuration, with these changes, from others.
    pub fn digest(&self, changes: &Changes) -> u64 {
        use sha2::{Digest as _, Sha256};
        let changes = serde_json::to_vec(changes).unwrap_or_default();
        let digest = Sha256::new().chain_update(&self.text).chain_update([0]).chain_update(changes).finalize();
        digest.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }

    /// Checks all of it together.
    pub fn config(&self, changes: &Changes) -> Result<Config, Problem> {
        let flags: Flags<'_> = &self.flags;
        Config::parse(&self.name, &self.text, self.environment.clone(), flags, changes)
    }
}

impl Changes {
    /// Puts the tables in the place of those of the same name.
    pub(super) fn apply(&self, raw: &mut Raw, layers: &mut Layers) -> Result<(), Problem> {
        let named = |name: Option<&Spanned<String>>| name.map(|name| name.get_ref().clone()).unwrap_or_default();
        raw.functions.retain(|table| !self.functions.contains_key(&named(table.get_ref().name.as_ref())));
        raw.rules.retain(|table| !self.rules.contains_key(&named(table.get_ref().name.as_ref())));
        let mut texts = Vec::new();
        for (section, tables) in [("function", &self.functions), ("rule", &self.rules)] {
            for (name, table) in tables.iter().filter_map(|(name, table)| Some((name, table.as_ref()?))) {
                texts.push((Origin::Setting(format!("{section} `{name}`")), text(section, name, table)?));
            }
        }
        let upper: Raw = layers.add_all(texts)?;
        raw.functions.extend(upper.functions);
        raw.rules.extend(upper.rules);
        Ok(())
    }
}

/// A table as the file would have it.
fn text(section: &str, name: &str, table: &Table) -> Result<String, Problem> {
    let wrong = |reason: String| Problem::new(Exit::Usage, format!("{section} `{name}`: {reason}"), "");
    let mut table = table.clone();
    match table.insert("name".to_owned(), name.into()) {
        Some(Value::String(other)) if other != name => return Err(wrong(format!("its `name` is `{other}`"))),
        Some(Value::String(_)) | None => {}
        Some(_) => return Err(wrong("its `name` is not a string".into())),
    }
    if let Some((key, _)) = table.iter().find(|(_, value)| value.is_null()) {
        return Err(wrong(format!("`{key}` is null; leave it out")));
    }
    let whole = Map::from_iter([(section.to_owned(), Value::Array(vec![Value::Object(table)]))]);
    toml::to_string(&whole).map_err(|error| wrong(error.to_string()))
}

impl Config {
    /// The files that it names, with secrets and certificates.
    pub fn files(&self) -> Vec<PathBuf> {
        fn collect(value: &Value, files: &mut Vec<PathBuf>) {
            match value {
                Value::Object(table) => {
                    for (key, value) in table {
                        match value {
                            Value::String(path) if key.ends_with("_file") => files.push(path.into()),
                            value => collect(value, files),
                        }
                    }
                }
                Value::Array(values) => values.iter().for_each(|value| collect(value, files)),
                _ => {}
            }
        }
        let shown: Value = toml::from_str(&self.to_string()).unwrap_or_default();
        let mut files = Vec::new();
        collect(&shown, &mut files);
        files
    }

    /// The functions as tables, with all that holds for them, in their order; or only that of a name.
    pub fn function_tables(&self, name: Option<&str>) -> Vec<Table> {
        let is_wanted = |function: &&Definition| name.is_none_or(|name| function.name == name);
        self.functions.iter().filter(is_wanted).map(|function| table(show::of_function(function))).collect()
    }

    /// The same of the rules.
    pub fn rule_tables(&self, name: Option<&str>) -> Vec<Table> {
        let is_wanted = |rule: &&Rule| name.is_none_or(|name| rule.rule.name == name);
        self.rules.iter().filter(is_wanted).map(|rule| table(show::of_rule(rule))).collect()
    }

    /// What [`Source::config`] makes of `changes` and this rule, where this is what it has made of `changes`. All but the rule has been
    /// checked before, and is not checked again.
    pub fn with_rule(&self, changes: &Changes, name: &str, table: &Table) -> Result<Self, Problem> {
        let mut layers = Layers::default();
        let raw = one("rule", name, table, &mut layers)?;
        let mut config = self.clone();
        config.rules.retain(|rule| rule.rule.name != name);
        for rule in &raw.rules {
            let rule = validate::another_rule(rule, &config, &layers)?;
            let place = place(&changes.rules, name, &config.rules, |rule| &rule.rule.name);
            config.rules.insert(place, rule);
        }
        Ok(config)
    }

    /// The same with a function; `None` if there are rules that look at a function of this name, and have to be checked with it.
    pub fn with_function(&self, changes: &Changes, name: &str, table: &Table) -> Option<Result<Self, Problem>> {
        let has_rule = self.rules.iter().any(|rule| rule.rule.function.as_deref() == Some(name));
        let checked = || {
            let mut layers = Layers::default();
            let raw = one("function", name, table, &mut layers)?;
            let mut config = self.clone();
            config.functions.retain(|function| function.name != name);
            for function in &raw.functions {
                let function = validate::another_function(function, &config, &layers)?;
                let place = place(&changes.functions, name, &config.functions, |function| &function.name);
                config.functions.insert(place, function);
            }
            Ok(config)
        };
        (!has_rule).then(checked)
    }
}

/// A table by itself.
fn one(section: &str, name: &str, table: &Table, layers: &mut Layers) -> Result<Raw, Problem> {
    layers.add(Origin::Setting(format!("{section} `{name}`")), &text(section, name, table)?)
}

/// Where something belongs among the others: behind what the file has, with what the API has in the order of names.
fn place<T>(changes: &BTreeMap<String, Option<Table>>, name: &str, others: &[T], name_of: fn(&T) -> &String) -> usize {
    let of_api = changes.iter().filter(|(other, table)| table.is_some() && *other != name).count();
    let first = others.len().saturating_sub(of_api);
    first + others[first..].partition_point(|other| name_of(other).as_str() < name)
}

fn table(entries: Vec<(&str, toml::Value)>) -> Table {
    let value = |value| serde_json::to_value(value).unwrap_or_default();
    entries.into_iter().map(|(key, entry)| (key.to_owned(), value(entry))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const FILE: &str = "\
[[target]]\nname = 'app'\nmatch = { comm = 'app' }\n\
[[function]]\nname = 'push'\ntarget = 'app'\nsymbol = 'send'\n\
[[rule]]\nname = 'hot'\ntarget = 'app'\nmetric = 'cpu'\nabove = 80\n";

    fn config(changes: &Changes) -> Result<Config, Problem> {
        Config::parse("probe.toml", FILE, [], &[], changes)
    }

    fn table(value: Value) -> Option<Table> {
        value.as_object().cloned()
    }

    #[test]
    fn changes_stand_above_the_file_and_are_checked_like_it() {
        let mut changes = Changes::default();
        changes
            .rules
            .insert("hot".into(), table(json!({ "target": "app", "metric": "cpu", "above": 50.5, "for": "2s" })));
        let slow = json!({ "target": "app", "metric": "function.p99", "function": "pull", "above": "40ms" });
        changes.rules.insert("slow".into(), table(slow));
        changes.functions.insert("pull".into(), table(json!({ "name": "pull", "target": "app", "symbol": "recv" })));
        changes.functions.insert("push".into(), None);
        let config = config(&changes).expect("right");
        let (functions, rules) = (config.function_tables(None), config.rule_tables(None));
        assert_eq!(functions.iter().map(|table| &table["name"]).collect::<Vec<_>>(), ["pull"]);
        assert_eq!(rules.iter().map(|table| &table["name"]).collect::<Vec<_>>(), ["hot", "slow"]);
        assert_eq!((&rules[0]["above"], &rules[0]["for"]), (&json!(50.5), &json!("2s")));
        assert_eq!(
            (config.rule_tables(Some("slow")), config.function_tables(Some("push"))),
            (rules[1..].to_vec(), vec![])
        );
    }

    #[test]
    fn one_change_after_the_other_makes_the_same_as_all_together() {
        let mut changes = Changes::default();
        let mut before = config(&changes).expect("right");
        let function = |symbol: &str| json!({ "target": "app", "symbol": symbol });
        let level = |above: u32| json!({ "target": "app", "metric": "cpu", "above": above });
        let slow = json!({ "target": "app", "metric": "function.p99", "function": "pull", "above": "40ms" });
        for (name, is_rule, value) in [
            ("warm", true, level(1)),
            ("b", true, level(2)),
            ("pull", false, function("recv")),
            ("slow", true, slow),
            ("hot", true, level(3)),
            ("a", true, level(4)),
            ("b", true, level(5)),
            ("push", false, function("sendto")),
            ("ask", false, function("connect")),
            ("pull", false, function("recvfrom")),
        ] {
            let definition = value.as_object().expect("a table");
            let after = match is_rule {
                true => Some(before.with_rule(&changes, name, definition)),
                false => before.with_function(&changes, name, definition),
            };
            let tables = if is_rule { &mut changes.rules } else { &mut changes.functions };
            tables.insert(name.to_owned(), Some(definition.clone()));
            let whole = config(&changes).expect("right");
            match after {
                Some(after) => assert_eq!(after.expect("right").to_string(), whole.to_string(), "{name}"),
                None => assert_eq!((name, is_rule), ("pull", false), "a rule looks at it"),
            }
            before = whole;
        }
    }

    #[test]
    fn no_change_makes_more_rules_than_there_may_be() {
        let definition = table(json!({ "target": "app", "metric": "cpu", "above": 1 }));
        let rules = (1..500).map(|number| (format!("rule {number}"), definition.clone())).collect();
        let changes = Changes { rules, ..Changes::default() };
        let full = config(&changes).expect("500 with that of the file");
        let definition = definition.expect("a table");
        let error = full.with_rule(&changes, "one more", &definition).expect_err("too many");
        assert_eq!(error.message, "rule `one more`: there are more than 500 [[rule]]");
        assert!(full.with_rule(&changes, "rule 7", &definition).is_ok());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (value, expected) in [
            (
                json!({ "target": "app", "metric": "cpu", "abve": 1 }),
                "rule `x`: unknown key `abve` in [[rule]]; did you mean `above`?",
            ),
            (
                json!({ "target": "ap", "metric": "cpu", "above": 1 }),
                "rule `x`: there is no [[target]] named `ap`; did you mean `app`?",
            ),
            (json!({ "name": "y", "target": "app" }), "rule `x`: its `name` is `y`"),
            (json!({ "name": null }), "rule `x`: its `name` is not a string"),
            (json!({ "target": null }), "rule `x`: `target` is null; leave it out"),
            (json!({ "target": "app", "metric": "cpu" }), "rule `x`: [[rule]] needs `above`, `below` or `change`"),
        ] {
            let changes = Changes { rules: [("x".to_owned(), table(value.clone()))].into(), ..Changes::default() };
            assert_eq!(config(&changes).expect_err("wrong").message, expected);
            let file = config(&Changes::default()).expect("right");
            let alone = file.with_rule(&Changes::default(), "x", &table(value).expect("a table"));
            assert_eq!(alone.expect_err("wrong").message, expected);
        }
    }

    #[test]
    fn what_is_wrong_stands_at_its_key() {
        let right = json!({ "target": "app", "metric": "cpu", "above": 1 });
        for (key, value) in [
            ("target", json!("ap")),
            ("metric", json!("cpus")),
            ("above", json!("x")),
            ("for", json!("1 parsec")),
            ("notify", json!(["nobody"])),
            ("per", json!("host")),
            ("snapshot", json!({ "before": "1 parsec" })),
            ("quiet", json!(["x"])),
            ("max", json!("x")),
        ] {
            let mut wrong = right.as_object().cloned().expect("a table");
            wrong.insert(key.to_owned(), value);
            let changes = Changes { rules: [("x".to_owned(), Some(wrong))].into(), ..Changes::default() };
            assert_eq!(config(&changes).expect_err(key).key, key);
        }
    }
}
