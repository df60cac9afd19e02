//! The configuration as it is written: every section with its keys, their types, defaults and meaning. One macro makes
//! the types that serde fills and the table that `docs/configuration.md` and the hints are made from, so neither can
//! know a key that the other does not. Nothing is checked here; `validate` does that.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, Visitor};
use toml::Spanned;

/// A key of a section, for people.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) kind: &'static str,
    pub(super) default: &'static str,
    pub(super) meaning: &'static [&'static str],
}

macro_rules! section {
    ($(#[doc = $about:literal])* $section:ident { $(
        $(#[doc = $meaning:literal])*
        $name:literal $field:ident: $type:ty, $kind:literal, $default:literal;
    )* }) => {
        $(#[doc = $about])*
        #[derive(Clone, Debug, Default, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(super) struct $section {
            $($(#[doc = $meaning])* #[serde(rename = $name)] pub(super) $field: Option<Spanned<$type>>,)*
        }

        impl $section {
            pub(super) const ABOUT: &'static [&'static str] = &[$($about),*];
            pub(super) const KEYS: &'static [Key] = &[
                $(Key { name: $name, kind: $kind, default: $default, meaning: &[$($meaning),*] },)*
            ];

            /// Takes over what `upper` says, and keeps the rest.
            #[allow(dead_code, reason = "only the sections that have a single instance are layered")]
            pub(super) fn overlay(&mut self, upper: Self) {
                $(if upper.$field.is_some() { self.$field = upper.$field; })*
            }
        }
    };
}

section! {
    /// Where snapshots and alerts that wait to be sent are kept, and how many. The oldest snapshots go first.
    Store {
        /// The folder. It is made if missing, readable by its owner only.
        "path" path: String, "path", "`/var/lib/probe`";
        /// Most bytes that all snapshots together may take.
        "max_bytes" max_bytes: Scalar, "size", "`1GiB`";
        /// How long a snapshot is kept.
        "max_age" max_age: Scalar, "duration", "`30d`";
        /// Most snapshots that are kept.
        "max_snapshots" max_snapshots: i64, "integer", "`1000`";
    }
}

section! {
    /// How targets are sampled, always, so that the evidence predates the alarm.
    Sampling {
        /// Samples per second and processor.
        "frequency" frequency: i64, "integer", "`19`";
        /// Memory for what was recorded; the oldest goes when it is full.
        "memory" memory: Scalar, "size", "`64MiB`";
        /// How far back the recording reaches.
        "window" window: Scalar, "duration", "`60s`";
        /// What timing functions may cost each target, in percent of one core, shared by its processes. What would cost
        /// more is timed for a part of the time, and counts are scaled.
        "max_overhead" max_overhead: Scalar, "percent", "`1`";
    }
}

section! {
    /// A service: the processes that belong to it. Each target has a table of its own.
    Target {
        /// The name of the service, in rules, snapshots and alerts. Unique.
        "name" name: String, "string", "required";
        /// Which processes belong to it, see below.
        "match" matches: Match, "table", "required";
    }
}

section! {
    /// The conditions of a target. At least one is needed; a process matches when it meets all that are given.
    Match {
        /// This process only.
        "pid" pid: i64, "integer", "-";
        /// Path of the executable; `*` does not cross `/`, `**` does.
        "exe" exe: String, "glob", "-";
        /// Command name, of at most 15 bytes.
        "comm" comm: String, "glob", "-";
        /// The arguments, joined by spaces; it may match anywhere in them.
        "cmdline" cmdline: String, "regular expression", "-";
    }
}

section! {
    /// A function that is timed in each process of a target, as long as it stands here. Each function has a table of its
    /// own. Where a process does not have the function yet, it is looked for again when the process has loaded a library.
    Function {
        /// What rules and results call it. Unique.
        "name" name: String, "string", "required";
        /// What it belongs to, for people.
        "group" group: String, "string", "empty";
        /// The name of the target that has it.
        "target" target: String, "string", "required";
        /// Where it is: `send_to_vendor`, `libpush.so:send_to_vendor`, a glob, `/regex/`, a demangled name, or
        /// `file@0xaddress`. What means several places, at most 64, is timed as one.
        "symbol" symbol: String, "string", "required";
        /// Calls within this time count for `function.attainment`.
        "threshold" threshold: Scalar, "duration", "-";
        /// Which returned values are errors: `<0`, `>3`, `=0` or `!=0`, of an `int` unless the number of bits follows:
        /// `=0:64`.
        "errors" errors: String, "test", "-";
    }
}

section! {
    /// A threshold. Each process of the target is watched apart. Each rule has a table of its own.
    Rule {
        /// The name of the rule, in snapshots and alerts. Unique.
        "name" name: String, "string", "required";
        /// The name of the target that it watches.
        "target" target: String, "string", "required";
        /// What is measured, see below.
        "metric" metric: String, "string", "required";
        /// For metrics of functions, the name of the function.
        "function" function: String, "string", "-";
        /// The threshold: the rule is broken by values above it. A number, or with the metric's unit: `"40ms"`, `"60MiB"`, `"95%"`.
        "above" above: Scalar, "value", "-";
        /// The threshold if the rule is broken by values below it. Exactly one of `above` and `below` is needed.
        "below" below: Scalar, "value", "-";
        /// How long the value must stay there without a break.
        "for" lasting: Scalar, "duration", "`5s`";
        /// After a breach, how long the same process gives no further one.
        "cooldown" cooldown: Scalar, "duration", "`5m`";
        /// What is kept of a breach, see below.
        "snapshot" snapshot: Snapshot, "table", "see below";
        /// The names of the channels that are told.
        "notify" notify: Vec<Spanned<String>>, "list of strings", "`[]`";
    }
}

section! {
    /// What is kept of a breach.
    Snapshot {
        /// How many threads, the busiest first.
        "threads" threads: i64, "integer", "`2`";
        /// How far the snapshot reaches back before the value went above the threshold. With the rule's `for` it must
        /// fit into `sampling.window`.
        "before" before: Scalar, "duration", "`30s`";
        /// How long it goes on after the breach.
        "after" after: Scalar, "duration", "`5s`";
    }
}

section! {
    /// A channel that is told of breaches. Each channel has a table of its own.
    Notify {
        /// The name of the channel. Unique.
        "name" name: String, "string", "required";
        /// The kind of channel: `webhook`, an HTTP POST with a JSON body.
        "type" kind: String, "string", "required";
        /// The address, for what is no secret.
        "url" url: String, "URL", "-";
        /// A file that holds the address in its first line. Exactly one of `url` and `url_file` is needed.
        "url_file" url_file: String, "path", "-";
    }
}

/// The whole file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Raw {
    pub(super) store: Store,
    pub(super) sampling: Sampling,
    #[serde(rename = "target")]
    pub(super) targets: Vec<Spanned<Target>>,
    #[serde(rename = "function")]
    pub(super) functions: Vec<Spanned<Function>>,
    #[serde(rename = "rule")]
    pub(super) rules: Vec<Spanned<Rule>>,
    #[serde(rename = "notify")]
    pub(super) channels: Vec<Spanned<Notify>>,
}

/// Sections as they are written in the file, with what they hold.
pub(super) const SECTIONS: &[(&str, &[&str], &[Key])] = &[
    ("[store]", Store::ABOUT, Store::KEYS),
    ("[sampling]", Sampling::ABOUT, Sampling::KEYS),
    ("[[target]]", Target::ABOUT, Target::KEYS),
    ("match", Match::ABOUT, Match::KEYS),
    ("[[function]]", Function::ABOUT, Function::KEYS),
    ("[[rule]]", Rule::ABOUT, Rule::KEYS),
    ("snapshot", Snapshot::ABOUT, Snapshot::KEYS),
    ("[[notify]]", Notify::ABOUT, Notify::KEYS),
];

/// A duration, size or number as it was written: `"30s"`, `30` and `0.5` are all allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Scalar(pub(super) String);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl Visitor<'_> for Any {
            type Value = Scalar;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number or a string")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Scalar, E> {
                Ok(Scalar(text.to_owned()))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Scalar, E> {
                Ok(Scalar(number.to_string()))
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Scalar, E> {
                Ok(Scalar(number.to_string()))
            }
        }
        deserializer.deserialize_any(Any)
    }
}
