//! Functions and rules: their definitions as the configuration has them, and how they are.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::latency::Row;
use crate::snapshot::Timestamp;

/// Names of the schemas of definitions, to which the schemas of states refer: what a definition may hold is only known to
/// the configuration.
pub const FUNCTION_SCHEMA: &str = "FunctionDefinition";
/// That of rules.
pub const RULE_SCHEMA: &str = "RuleDefinition";

fn reference(name: &str) -> schemars::Schema {
    schemars::json_schema!({"$ref": format!("#/components/schemas/{name}")})
}

/// Refers to [`FUNCTION_SCHEMA`].
pub fn function_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    reference(FUNCTION_SCHEMA)
}

/// Refers to [`RULE_SCHEMA`].
pub fn rule_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    reference(RULE_SCHEMA)
}

/// A `[[function]]` or `[[rule]]` of the configuration, with the same keys and values as there. It is the configuration
/// that knows which keys there are and what is right.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Definition(pub serde_json::Map<String, serde_json::Value>);

/// Where a definition is from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// The configuration file.
    #[default]
    File,
    /// The API.
    Api,
}

/// What taking a definition in has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Put {
    /// There was none of that name.
    Created,
    /// It stands for the former one of that name, or is the same.
    Replaced,
}

/// A function that is timed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FunctionState {
    /// Its definition, with its name.
    #[schemars(schema_with = "function_schema")]
    pub definition: Definition,
    /// Where that is from.
    pub origin: Origin,
    /// Its figures of the last 10 seconds, in each process that has it.
    pub figures: Vec<Row>,
    /// Processes in which it is not timed.
    pub unattached: Vec<Unattached>,
}

/// A process in which a function is not timed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Unattached {
    /// The process.
    pub pid: u32,
    /// Why.
    pub reason: String,
}

/// A rule.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RuleState {
    /// Its definition, with its name.
    #[schemars(schema_with = "rule_schema")]
    pub definition: Definition,
    /// Where that is from.
    pub origin: Origin,
    /// How many breaches it gave since the collector started.
    pub breaches: u64,
    /// Each process it applies to.
    pub processes: Vec<RuleProcess>,
}

/// A process that a rule applies to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RuleProcess {
    /// The process; `None` for metrics of the host or of the service as a whole.
    pub pid: Option<u32>,
    /// The state of the rule there.
    pub state: State,
    /// Since when; `None` since it is known.
    pub since: Option<Timestamp>,
    /// The latest value, in the metric's unit; `None` if it cannot be measured.
    pub value: Option<f64>,
}

/// The state of a rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// The value is on the right side of the threshold.
    #[default]
    Normal,
    /// It crossed the threshold, not yet for long enough.
    Pending,
    /// The rule is broken.
    Firing,
    /// The value is back, not yet for long enough.
    Recovering,
}

impl State {
    /// Its name in answers and as a label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Pending => "pending",
            Self::Firing => "firing",
            Self::Recovering => "recovering",
        }
    }

    /// All of them.
    pub const ALL: [Self; 4] = [Self::Normal, Self::Pending, Self::Firing, Self::Recovering];
}
