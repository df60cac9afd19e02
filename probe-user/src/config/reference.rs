//! `docs/configuration.md`, generated from the types in `raw`.

use std::fmt::Write as _;

use super::raw::{Key, SECTIONS};
use super::{thresholds, variable};
use crate::monitor::Metric;

const INTRODUCTION: &str = "\
# Configuration

<!-- Generated from probe-user/src/config/raw.rs. To renew it: PROBE_BLESS=1 cargo test -p probe-user configuration_reference -->

`probe daemon` reads one TOML file, `/etc/probe/probe.toml` or what `--config` names. A flag beats an environment variable,
which beats the file, which beats the default. `probe config check` says whether a file is right, with the line and the
nearest known key if it is not; `probe config show` prints what results.

- Durations are texts such as `\"500ms\"`, `\"30s\"`, `\"5m\"`, `\"1h 30m\"`, `\"30d\"`, or a number of seconds.
- Sizes are texts such as `\"64MiB\"`, `\"1GB\"`, or a number of bytes.
- Sections that exist once can be set by environment variables too, as named in their tables.

## Example

```toml
";

/// A whole configuration, which the tests check.
pub(super) const EXAMPLE: &str = r#"[store]
path = "/var/lib/probe"

[sampling]
frequency = 19

[[target]]
name = "checkout"
match = { exe = "/usr/bin/checkout*" }

[[function]]
name = "channel_push"
group = "push"
target = "checkout"
symbol = "libpush.so:send_to_vendor"
threshold = "20ms"

[[rule]]
name = "checkout-cpu"
target = "checkout"
metric = "cpu"
above = 80.0
for = "5s"
snapshot = { threads = 2, before = "30s", after = "5s" }
notify = ["ops"]

[[rule]]
name = "push-slow"
target = "checkout"
metric = "function.p99"
function = "channel_push"
above = "40ms"
notify = ["ops"]

[[notify]]
name = "ops"
type = "webhook"
url_file = "/etc/probe/ops.url"
"#;

/// The text of `docs/configuration.md`.
pub fn reference() -> String {
    let mut text = format!("{INTRODUCTION}{EXAMPLE}```\n");
    for (name, about, keys) in SECTIONS {
        let title = match *name {
            "match" => "`match` of a `[[target]]`".to_owned(),
            "snapshot" => "`snapshot` of a `[[rule]]`".to_owned(),
            name => format!("`{name}`"),
        };
        let _ = write!(text, "\n## {title}\n\n{}\n\n", joined(about));
        let section =
            name.strip_prefix('[').filter(|rest| !rest.starts_with('[')).map(|rest| rest.trim_end_matches(']'));
        text.push_str("| key | type | default | meaning |\n| --- | --- | --- | --- |\n");
        for Key { name, kind, default, meaning } in *keys {
            let mut meaning = joined(meaning);
            if let Some(section) = section {
                let _ = write!(meaning, " `{}`", variable(&format!("{section}.{name}")));
            }
            let _ = writeln!(text, "| `{name}` | {kind} | {default} | {meaning} |");
        }
        if *name == "[[rule]]" {
            metrics(&mut text);
        }
    }
    text
}

fn metrics(text: &mut String) {
    text.push_str("\n## Metrics of a `[[rule]]`\n\n");
    text.push_str("| metric | what | thresholds are |\n| --- | --- | --- |\n");
    for metric in Metric::ALL {
        let _ = writeln!(text, "| `{}` | {} | {} |", metric.name(), metric.meaning(), thresholds::kind(*metric));
    }
    text.push_str(
        "\nThey are measured once a second, and only where a rule asks for them. Metrics of functions are those of one process, \
         as all others are.\n",
    );
}

/// Lines of a documentation comment as one.
fn joined(lines: &[&str]) -> String {
    lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration_reference_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
        let text = reference();
        if std::env::var_os("PROBE_BLESS").is_some() {
            std::fs::create_dir_all(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs")).expect("docs/ can be made");
            std::fs::write(path, &text).expect("docs/configuration.md can be written");
        }
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(committed == text, "docs/configuration.md is not current: run this test with PROBE_BLESS=1");
    }
}
