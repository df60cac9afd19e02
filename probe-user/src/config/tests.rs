//! What is accepted, what is refused, and where the refusals point.

use super::*;

fn parse(text: &str) -> Result<Config, Problem> {
    Config::parse("probe.toml", text, [], &[])
}

fn refusal(text: &str) -> String {
    let problem = parse(text).expect_err(text);
    assert_eq!(problem.exit, Exit::Usage);
    problem.message
}

const BASE: &str = r#"[[target]]
name = "app"
match = { comm = "app" }
[[notify]]
name = "ops"
type = "webhook"
url = "http://127.0.0.1:1/"
[[rule]]
name = "hot"
target = "app"
metric = "cpu"
above = 80
"#;

#[test]
fn the_example_is_right() {
    let config = parse(reference::EXAMPLE).expect("the example is right");
    assert_eq!(config.store.path, Path::new("/var/lib/probe"));
    assert_eq!(config.sampling, Sampling { frequency: 19, memory: 64 << 20, window: Duration::from_secs(60) });
    let rule = &config.rules[0];
    assert_eq!((rule.rule.above, rule.rule.for_ns, rule.rule.cooldown_ns), (80.0, 5_000_000_000, 300_000_000_000));
    let (before, after) = (Duration::from_secs(30), Duration::from_secs(5));
    assert_eq!(rule.evidence, Evidence { threads: 2, before, after });
    assert_eq!(rule.notify, ["ops"]);
}

#[test]
fn what_is_shown_is_read_back_as_the_same() {
    for text in ["", BASE, reference::EXAMPLE] {
        let shown = parse(text).expect("right").to_string();
        assert_eq!(parse(&shown).unwrap_or_else(|e| panic!("{e}\n{shown}")).to_string(), shown);
    }
}

#[test]
fn unknown_keys_name_the_line_and_the_nearest() {
    for (text, expected) in [
        (format!("{BASE}treshold = 3\n"), "probe.toml:13: unknown key `treshold` in [[rule]]; did you mean `above`?"),
        (format!("{BASE}cooldwn = 3\n"), "probe.toml:13: unknown key `cooldwn` in [[rule]]; did you mean `cooldown`?"),
        ("\n[stor]\n".into(), "probe.toml:2: unknown key `stor`; did you mean `store`?"),
        ("[serve]\nlisten = 'x'".into(), "probe.toml:1: `serve` is not supported yet"),
        ("\n[[function]]\nname = 'x'".into(), "probe.toml:2: `function` is not supported yet"),
        ("[store]\npaht = 1\n".into(), "probe.toml:2: unknown key `paht` in [store]; did you mean `path`?"),
        (
            "[[target]]\nname = 'a'\nmatch = { cmd = 'x' }\n".into(),
            "probe.toml:3: unknown key `cmd` in match; did you mean `cmdline`?",
        ),
        (
            format!("{BASE}snapshot = {{ thread = 3 }}\n"),
            "probe.toml:13: unknown key `thread` in snapshot; did you mean `threads`?",
        ),
    ] {
        assert_eq!(refusal(&text), expected);
    }
}

#[test]
fn wrong_values_name_the_line() {
    for (text, expected) in [
        ("[store]\npath = 'x'", "probe.toml:2: `path` must be absolute: it begins with `/`"),
        (
            "[store]\nmax_age = 'soon'",
            "probe.toml:2: `soon` is not a duration; write `30s`, `5m`, `500ms`, or a number of seconds",
        ),
        (
            "\n\n[sampling]\nmemory = '64 parsecs'",
            "probe.toml:4: `64 parsecs` is not a size; write `64MiB`, `1GB`, or a number of bytes",
        ),
        ("[sampling]\nfrequency = 0", "probe.toml:2: `frequency` is between 1 and 10000, not 0"),
        ("[sampling]\nmemory = 10", "probe.toml:2: `memory` is below 1MiB, which records nothing"),
        ("[[target]]\nmatch = { pid = 1 }", "probe.toml:1: [[target]] needs `name`"),
        ("[[target]]\nname = 'a'\n", "probe.toml:1: [[target]] needs `match`"),
        ("[[target]]\nname = 'a'\nmatch = {}", "probe.toml:3: `match` needs one of pid, exe, comm and cmdline"),
        ("[[target]]\nname = 'a'\nmatch = { pid = -4 }", "probe.toml:3: `pid` is between 1 and 4294967295, not -4"),
        ("[[target]]\nname = 'a'\nmatch = { cmdline = '(' }", "probe.toml:3: `(` is not a regular expression"),
        ("[[notify]]\nname = 'a'\ntype = 'pigeon'", "probe.toml:3: `type` is webhook, not `pigeon`"),
        ("[[notify]]\nname = 'a'\ntype = 'webhook'", "probe.toml:1: [[notify]] `a` needs `url` or `url_file`"),
    ] {
        assert_eq!(refusal(text), expected);
    }
    assert!(refusal("[[target]]\nname = 'a'\nmatch = { exe = '[' }").starts_with("probe.toml:3: exe: "));
    assert!(refusal("[[notify]]\nname = 'a'\ntype = 'webhook'\nurl = 'ftp://x'").starts_with("probe.toml:4: "));
    assert!(refusal("[store\n").starts_with("probe.toml:1: "), "{}", refusal("[store\n"));
    assert!(refusal("[sampling]\nfrequency = 'x'").starts_with("probe.toml:2: invalid type"));
}

#[test]
fn rules_refer_to_what_is_there() {
    let rule = |from: &str, to: &str| refusal(&BASE.replace(from, to));
    assert_eq!(
        rule("target = \"app\"", "target = \"apq\""),
        "probe.toml:10: there is no [[target]] named `apq`; did you mean `app`?"
    );
    assert_eq!(
        rule("above = 80", "above = \"much\""),
        "probe.toml:12: `above` is a number of percent of one core, not `much`"
    );
    assert_eq!(rule("above = 80", ""), "probe.toml:8: [[rule]] needs `above`");
    assert_eq!(
        rule("\"cpu\"", "\"gpu\""),
        "probe.toml:11: `metric` is one of cpu, memory.rss, memory.rss_percent, memory.growth, not `gpu`"
    );
    assert_eq!(
        rule("above = 80", "above = 80\nnotify = [\"ops\",\n\"pos\"]"),
        "probe.toml:14: there is no [[notify]] named `pos`; did you mean `ops`?"
    );
    assert_eq!(
        rule("above = 80", "above = 80\nsnapshot = { before = \"2m\" }"),
        "probe.toml:13: `before` (2m) with `for` (5s) and `after` (5s) takes 2m 10s, more than sampling.window (1m)"
    );
    let twice = format!("{BASE}[[target]]\nname = 'app'\nmatch = {{ pid = 1 }}\n");
    assert_eq!(refusal(&twice), "probe.toml:14: a second [[target]] is named `app`");
}

#[test]
fn a_flag_beats_the_environment_which_beats_the_file() {
    let text = "[store]\npath = '/file'\nmax_snapshots = 5\n[sampling]\nfrequency = 7\n";
    let environment = [("PROBE__STORE__PATH", "/env"), ("PROBE__SAMPLING__FREQUENCY", "11"), ("PROBE_LOG", "x")];
    let environment = environment.map(|(name, value)| (name.into(), value.into()));
    let flags = [("--store", "store.path", "/flag".to_owned())];
    let config = Config::parse("probe.toml", text, environment, &flags).expect("right");
    assert_eq!(config.store.path, Path::new("/flag"));
    assert_eq!((config.sampling.frequency, config.store.limits.max_snapshots), (11, 5));
}

#[test]
fn wrong_settings_name_the_variable_or_flag() {
    for (name, value, expected) in [
        ("PROBE__STORE__PTH", "/x", "PROBE__STORE__PTH: no such setting; did you mean `PROBE__STORE__PATH`?"),
        ("PROBE__SAMPLNG__PATH", "1", "PROBE__SAMPLNG__PATH: no such setting; did you mean `PROBE__SAMPLING__WINDOW`?"),
        ("PROBE__SAMPLING__FREQUENCY", "0", "PROBE__SAMPLING__FREQUENCY: `frequency` is between 1 and 10000, not 0"),
        ("PROBE__STORE__PATH", "x", "PROBE__STORE__PATH: `path` must be absolute: it begins with `/`"),
    ] {
        let problem = Config::parse("probe.toml", BASE, [(name.into(), value.into())], &[]).expect_err(name);
        assert_eq!(problem.message, expected);
    }
}

#[test]
fn a_missing_file_is_a_usage_error_with_a_hint() {
    let error = Config::load(Path::new("/nonexistent/probe.toml"), &[]).expect_err("missing");
    let problem = error.downcast_ref::<Problem>().expect("a problem");
    assert!(problem.exit == Exit::Usage && problem.message.contains("/nonexistent/probe.toml"));
    assert!(problem.hint.contains("--config"));
}
