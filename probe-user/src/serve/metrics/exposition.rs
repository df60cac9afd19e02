//! Prometheus's text format: families of samples, each with its type and help. Every name begins with `probe_`, but for
//! those that Prometheus expects of any process (`process_…`).

use std::fmt::Write as _;

use crate::text::sanitize;

/// Longest value of a label, in bytes.
const MAX_LABEL: usize = 200;

/// What a family is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows; the name ends in `_total`.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Counts by size.
    Histogram,
}

/// The text so far.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
}

impl Exposition {
    /// Begins a family. Each may be begun once.
    pub fn family(&mut self, name: &'static str, kind: Kind, help: &str) -> Family<'_> {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let _ = writeln!(
            self.text,
            "# HELP {name} {}\n# TYPE {name} {kind}",
            help.replace('\\', "\\\\").replace('\n', " ")
        );
        Family { name, text: &mut self.text }
    }

    /// A family with a single sample.
    pub fn value(&mut self, name: &'static str, kind: Kind, help: &str, value: f64) {
        self.family(name, kind, help).add(&[], value);
    }

    /// All of it.
    pub fn into_text(self) -> String {
        self.text
    }
}

/// A family that takes samples.
#[derive(Debug)]
pub struct Family<'a> {
    name: &'static str,
    text: &'a mut String,
}

impl Family<'_> {
    /// Adds a sample. Labels stay few: names of targets, rules, functions and states, never ids of processes.
    pub fn add(&mut self, labels: &[(&str, &str)], value: f64) {
        self.add_to("", labels, value);
    }

    /// Adds a sample of a histogram: `_bucket`, `_sum`, `_count`.
    pub(super) fn add_to(&mut self, ending: &str, labels: &[(&str, &str)], value: f64) {
        let _ = write!(self.text, "{}{ending}", self.name);
        for (at, (name, value)) in labels.iter().enumerate() {
            let open = if at == 0 { '{' } else { ',' };
            let _ = write!(self.text, "{open}{name}=\"{}\"", escaped(value));
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.text, "{close} {}", number(value + 0.0)); // no sum of nothing is -0
    }
}

fn escaped(value: &str) -> String {
    let clean = sanitize(value);
    let end = clean.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= MAX_LABEL).last();
    clean[..end.unwrap_or(0)].replace('\\', "\\\\").replace('"', "\\\"")
}

fn number(value: f64) -> String {
    match value {
        value if value.is_nan() => "NaN".into(),
        value if value.is_infinite() => if value > 0.0 { "+Inf" } else { "-Inf" }.into(),
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_written_as_the_format_says() {
        let mut text = Exposition::default();
        text.value("probe_up", Kind::Gauge, "Is it?", 1.0);
        let mut family = text.family("probe_x_total", Kind::Counter, "A\nline \\");
        family.add(&[("rule", "a \"b\" \\ \n"), ("target", &"ü".repeat(150))], 2.5);
        family.add(&[], f64::INFINITY);
        let label = "ü".repeat(100);
        assert_eq!(
            text.into_text(),
            format!(
                "# HELP probe_up Is it?\n# TYPE probe_up gauge\nprobe_up 1\n# HELP probe_x_total A line \\\\\n\
                 # TYPE probe_x_total counter\nprobe_x_total{{rule=\"a \\\"b\\\" \\\\ \u{fffd}\",target=\"{label}\"}} 2.5\n\
                 probe_x_total +Inf\n"
            )
        );
    }
}
