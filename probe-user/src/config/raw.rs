//! The configuration as it is written: every section with its keys, their types, defaults and meaning. One macro makes
//! the types that serde fills and the table that `docs/configuration.md` and the hints are made from, so neither can
//! know a key that the other does not. Nothing is checked here; `validate` does that.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, Visitor};
use toml::Spanned;

use super::notify::Notify;

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
        pub(in crate::config) struct $section {
            $($(#[doc = $meaning])* #[serde(rename = $name)] pub(in crate::config) $field: Option<Spanned<$type>>,)*
        }

        impl $section {
            pub(in crate::config) const ABOUT: &'static [&'static str] = &[$($about),*];
            pub(in crate::config) const KEYS: &'static [Key] = &[
                $(Key { name: $name, kind: $kind, default: $default, meaning: &[$($meaning),*] },)*
            ];

            /// Takes over what `upper` says, and keeps the rest.
            #[allow(dead_code, reason = "only the sections that have a single instance are layered")]
            pub(in crate::config) fn overlay(&mut self, upper: Self) {
                $(if upper.$field.is_some() { self.$field = upper.$field; })*
            }

            /// The keys that are there, with their places.
            #[allow(dead_code, reason = "only where some keys exclude others")]
            pub(in crate::config) fn given(&self) -> Vec<(&'static str, std::ops::Range<usize>)> {
                let given = [$(self.$field.as_ref().map(|value| ($name, value.span())),)*];
                given.into_iter().flatten().collect()
            }
        }
    };
}

section! {
    /// Where snapshots are kept, and how many, and the journal of alerts. The oldest snapshots go first, but never that of an
    /// alert that is firing.
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
        /// The same for processes of which a rule is pending, firing or recovering; at least `frequency`.
        "pending_frequency" pending_frequency: i64, "integer", "`99`";
        /// Memory for what was recorded; the oldest goes when it is full.
        "memory" memory: Scalar, "size", "`64MiB`";
        /// How far back the recording reaches.
        "window" window: Scalar, "duration", "`60s`";
        /// What timing functions may cost each target, in percent of one core, shared by its processes; and by itself what
        /// following its allocations may cost a process. What would cost more is looked at for a part of the time, and
        /// counts are scaled.
        "max_overhead" max_overhead: Scalar, "percent", "`1`";
    }
}

section! {
    /// The collector: the process of the daemon that has the privileges, and no network.
    Collector {
        /// The Unix socket by which the server asks it. Only root and the server's user are answered.
        "socket" socket: String, "path", "`/run/probe/collector.sock`, or next to a store in another place";
        /// What snapshots and alerts call this host, for a collector whose own name is another, as in a pod.
        "host" host: String, "string", "the host name";
        /// The address of this host in alerts.
        "address" address: String, "IP address", "the one that traffic leaves by";
        /// How long an alert waits for its culprit once the evidence of the breach is complete. When functions are not named by
        /// then it leaves without one, and a second message names it.
        "culprit_wait" culprit_wait: Scalar, "duration", "`5s`";
    }
}

section! {
    /// The server: the process of the daemon that has the network, and no privileges. Who can reach an address that is not
    /// of this host has to say who it is, by a token or by a certificate.
    Serve {
        /// The address by which people reach it, such as `https://probe.example.org`: alerts link to snapshots below it. Without
        /// one they name the folder.
        "external_url" external_url: String, "URL", "-";
        /// Where: an address with a port. Any other than one of loopback needs `token_file` or `client_ca_file`.
        "listen" listen: String, "string", "`127.0.0.1:7117`";
        /// A file of tokens, each a line `read TOKEN` or `control TOKEN`; `sha256:FINGERPRINT` stands for a client's
        /// certificate. It is read again when it changes. Without one, whoever may connect may do everything.
        "token_file" token_file: String, "path", "-";
        /// The certificate of the server, in PEM, followed by those that lead to its authority. With it, all is TLS.
        "tls_cert_file" tls_cert_file: String, "path", "-";
        /// The key of that certificate. Both are read again when they change.
        "tls_key_file" tls_key_file: String, "path", "-";
        /// The authority of the certificates of clients. With it, clients need one to connect; it lets them read, and do
        /// everything if there is no `token_file`.
        "client_ca_file" client_ca_file: String, "path", "-";
        /// Connections at once; more wait. One address gets at most half of them.
        "max_connections" max_connections: i64, "integer", "`256`";
        /// The user that it runs as, when it is started by root: a name, a number, or `uid:gid`. What it is to read
        /// (certificates, the addresses of channels) has to be readable by that user.
        "user" user: String, "string", "`probe` if there is one, else a number that is no other user's";
        /// The folder of what it has to remember. It is made if missing, and belongs to that user.
        "state" state: String, "path", "`/var/lib/probe-server`, or next to a store in another place";
    }
}

section! {
    /// What the collector may take of the host. Where it would take more, it does less: it samples at a lower rate first.
    /// Processes of which a rule is pending, firing or recovering are sampled at their rate until nothing else is left to save.
    Limits {
        /// Processor time on average, in percent of one core.
        "cpu" cpu: Scalar, "percent", "`2`";
        /// As much more while a rule is pending, firing or recovering, or a snapshot is made.
        "incident_overhead" incident_overhead: Scalar, "percent", "`5`";
        /// Memory of its own (mapped files are not), with that of its kernel maps.
        "memory" memory: Scalar, "size", "`150MiB`";
    }
}

section! {
    /// The log of the daemon, on standard error. `-v` and `-q` beat the level, `PROBE_LOG` beats both.
    Log {
        /// `text`, or `json`: an object a line.
        "format" format: String, "string", "`text`";
        /// `error`, `warn`, `info`, `debug` or `trace`.
        "level" level: String, "string", "`info`";
    }
}

section! {
    /// A service: the processes that belong to it. Each target has a table of its own.
    Target {
        /// The name of the service, in rules, snapshots and alerts. Unique.
        "name" name: String, "string", "required";
        /// Which processes belong to it, see below.
        "match" matches: Match, "table", "required";
        /// Follow what its processes allocate always, not only once a rule on their memory is about to be broken: the window
        /// `live` of a snapshot then knows what was allocated long before, too. At most three processes at once.
        "live" live: bool, "boolean", "`false`";
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
        /// Path of a control group that it is in, such as `/system.slice/checkout.service`; `*` does not cross `/`, `**` does.
        "cgroup" cgroup: String, "glob", "-";
        /// Its container, by the id of 64 digits (`7c1f0a4e5b6d*`) or by the name that Docker or the kubelet have left on the
        /// host: `web-1`, `NAMESPACE/POD/CONTAINER`.
        "container" container: String, "glob", "-";
        /// Uid of its Kubernetes pod: `*` is any pod.
        "pod" pod: String, "glob", "-";
        /// Namespace of its Kubernetes pod.
        "namespace" namespace: String, "glob", "-";
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
    /// What is watched, and when it is a breach. Each rule has a table of its own.
    Rule {
        /// The name of the rule, in snapshots and alerts. Unique.
        "name" name: String, "string", "required";
        /// The name of the target that it watches; `*` is every target.
        "target" target: String, "string", "required";
        /// What is measured, see below.
        "metric" metric: String, "string", "required";
        /// For metrics of functions, the name of the function.
        "function" function: String, "string", "-";
        /// What is watched apart: each `process`; the `service`, all processes of a target together (values that add up are
        /// added, else the worst counts); or each process by its `thread` with the highest value.
        "per" per: String, "string", "`process`";
        /// The threshold: the rule is broken by values above it. A number, or with the metric's unit: `"40ms"`, `"60MiB"`, `"95%"`.
        "above" above: Scalar, "value", "-";
        /// The threshold if the rule is broken by values below it.
        "below" below: Scalar, "value", "-";
        /// In place of a threshold: by how many percent a value has to be above the average of the values before, or below
        /// it if this is negative. Exactly one of `above`, `below` and `change` is needed.
        "change" change: Scalar, "percent", "-";
        /// With `change`: how many values the average is of, one a second. It stands still while the rule is pending; what
        /// stays as it is becomes normal. Without as many values there is no breach.
        "windows" windows: i64, "integer", "`60`";
        /// With `change`: values up to this break no rule, as little is soon twice as much; with a negative `change`, no
        /// average up to this does.
        "min" min: Scalar, "value", "`0`";
        /// Above this the process is too busy to be profiled: the breach is told of, but no evidence is collected.
        "max" max: Scalar, "value", "-";
        /// How long the value must stay there without a break.
        "for" lasting: Scalar, "duration", "`5s`";
        /// With `above`: a breach is over when the value is below this, not at once when it is no longer above the threshold.
        "clear_below" clear_below: Scalar, "value", "-";
        /// With `below`: the same the other way round.
        "clear_above" clear_above: Scalar, "value", "-";
        /// How long the value must have been calm until a breach is over.
        "keep_firing_for" keep_firing_for: Scalar, "duration", "`0s`";
        /// After a breach has begun, how long there is no further one of the same process or service.
        "cooldown" cooldown: Scalar, "duration", "`5m`";
        /// Time after the start of the process in which its values are not looked at; for metrics of the host after the start
        /// of the daemon.
        "warm_up" warm_up: Scalar, "duration", "`0s`";
        /// Times of the week in which no breach begins: `"22:00-06:00"`, `"Mon-Fri 22:00-06:00"`, `"Sat,Sun"`. What ends
        /// before it begins ends on the day after.
        "quiet" quiet: Vec<Spanned<String>>, "list of strings", "`[]`";
        /// The time zone of `quiet`: a name such as `Europe/Berlin`, or `+02:00`.
        "timezone" timezone: String, "string", "`UTC`";
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

pub(super) use section;

/// The whole file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Raw {
    pub(super) store: Store,
    pub(super) sampling: Sampling,
    pub(super) collector: Collector,
    pub(super) serve: Serve,
    pub(super) limits: Limits,
    pub(super) log: Log,
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
    ("[collector]", Collector::ABOUT, Collector::KEYS),
    ("[serve]", Serve::ABOUT, Serve::KEYS),
    ("[limits]", Limits::ABOUT, Limits::KEYS),
    ("[log]", Log::ABOUT, Log::KEYS),
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
