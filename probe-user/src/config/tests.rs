//! What is accepted, what is refused, and where the refusals point.

use super::*;
use crate::monitor::{Condition, Side};

fn parse(text: &str) -> Result<Config, Problem> {
    Config::parse("probe.toml", text, [], &[], &Changes::default())
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
    assert_eq!(
        config.sampling,
        Sampling {
            frequency: 19,
            pending_frequency: 99,
            memory: 64 << 20,
            window: Duration::from_secs(60),
            max_overhead: 0.01
        }
    );
    let rule = &config.rules[0];
    assert_eq!(rule.rule.condition, Condition::Level { side: Side::Above, threshold: 80.0 });
    assert_eq!((rule.rule.for_ns, rule.rule.cooldown_ns), (5_000_000_000, 300_000_000_000));
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
        ("[serve]\nuser = ''".into(), "probe.toml:2: `user` is a name or a number, not empty"),
        ("[serve]\nstate = 'x'".into(), "probe.toml:2: `state` must be an absolute path, beginning with `/`"),
        ("[collector]\nsocket = 'x'".into(), "probe.toml:2: `socket` must be an absolute path, beginning with `/`"),
        ("[collector]\nhost = ''".into(), "probe.toml:2: `host` is empty"),
        (
            "[collector]\naddress = 'here'".into(),
            "probe.toml:2: `address` is an IP address such as 192.0.2.1, not `here`",
        ),
        ("[limits]\ncpu = 0".into(), "probe.toml:2: `cpu` is a number of percent of one core above 0, not `0`"),
        ("[limits]\nmemory = '1MiB'".into(), "probe.toml:2: `memory` must be at least 32MiB"),
        (
            "[limits]\nincident_overhead = 'much'".into(),
            "probe.toml:2: `incident_overhead` is a number of percent of one core above 0, not `much`",
        ),
        ("[log]\nformat = 'xml'".into(), "probe.toml:2: `format` is text or json, not `xml`"),
        (
            "[log]\nlevel = 'loud'".into(),
            "probe.toml:2: `level` is error or warn or info or debug or trace, not `loud`",
        ),
        (
            "[serve]\nexternl_url = 'x'".into(),
            "probe.toml:2: unknown key `externl_url` in [serve]; did you mean `external_url`?",
        ),
        (
            "[serve]\nlisten = 'x'".into(),
            "probe.toml:2: `listen` is an address with a port like `127.0.0.1:7117`, not `x`",
        ),
        (
            "[[function]]\nsymbl = 'x'".into(),
            "probe.toml:2: unknown key `symbl` in [[function]]; did you mean `symbol`?",
        ),
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
        ("[store]\npath = 'x'", "probe.toml:2: `path` must be an absolute path, beginning with `/`"),
        (
            "[store]\nmax_age = 'soon'",
            "probe.toml:2: `soon` is not a duration; write `30s`, `5m`, `500ms`, or a number of seconds",
        ),
        (
            "\n\n[sampling]\nmemory = '64 parsecs'",
            "probe.toml:4: `64 parsecs` is not a size; write `64MiB`, `1GB`, or a number of bytes",
        ),
        ("[sampling]\nfrequency = 0", "probe.toml:2: `frequency` is between 1 and 10000, not 0"),
        ("[sampling]\nmemory = 10", "probe.toml:2: `memory` must be at least 1MiB"),
        ("[[target]]\nmatch = { pid = 1 }", "probe.toml:1: [[target]] needs `name`"),
        ("[[target]]\nname = 'a'\n", "probe.toml:1: [[target]] needs `match`"),
        (
            "[[target]]\nname = 'a'\nmatch = {}",
            "probe.toml:3: `match` needs one of pid, exe, comm, cmdline, cgroup, container, pod and namespace",
        ),
        ("[[target]]\nname = 'a'\nmatch = { pid = -4 }", "probe.toml:3: `pid` is between 1 and 4294967295, not -4"),
        ("[[target]]\nname = 'a'\nmatch = { cmdline = '(' }", "probe.toml:3: `(` is not a regular expression"),
        ("[[notify]]\nname = 'a'\ntype = 'pigeon'", "probe.toml:3: unknown type `pigeon`; did you mean `pagerduty`?"),
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
    assert_eq!(rule("above = 80", ""), "probe.toml:8: [[rule]] needs `above`, `below` or `change`");
    assert_eq!(
        rule("above = 80", "above = 80\nbelow = 3"),
        "probe.toml:13: `above` and `below` cannot be used together"
    );
    assert_eq!(rule("\"cpu\"", "\"gpu\""), "probe.toml:11: unknown metric `gpu`; did you mean `cpu`?");
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
fn functions_are_checked_with_the_rules_that_look_at_them() {
    let function = "[[target]]\nname = 'b'\nmatch = { comm = 'b' }\n[[function]]\nname = 'push'\ntarget = 'app'\n\
                    symbol = 'libpush.so:send'\nthreshold = '20ms'\nerrors = '<0'\n";
    let with = |from: &str, to: &str, rule: &str| {
        let rule = BASE.replace("metric = \"cpu\"\nabove = 80", rule);
        parse(&format!("{}{rule}", function.replace(from, to)))
    };
    let right = with("", "", "metric = 'function.attainment'\nfunction = 'push'\nbelow = '95%'").expect("right");
    let (push, rule) = (&right.functions[0], &right.rules[0].rule);
    assert_eq!(
        (push.threshold, push.errors.map(|e| e.to_string())),
        (Some(Duration::from_millis(20)), Some("<0".into()))
    );
    assert_eq!(rule.function.as_deref(), Some("push"));
    assert_eq!(rule.condition, Condition::Level { side: Side::Below, threshold: 95.0 });
    let shown = right.to_string();
    assert_eq!(parse(&shown).unwrap_or_else(|e| panic!("{e}\n{shown}")).functions, right.functions);
    let p99 = "metric = 'function.p99'\nfunction = 'push'\nabove = '40ms'";
    for (from, to, rule, expected) in [
        ("", "", &p99.replace("push", "pus") as &str, "there is no [[function]] named `pus`; did you mean `push`?"),
        (
            "",
            "",
            &p99.replace("function.p99", "function.p9"),
            "unknown metric `function.p9`; did you mean `function.p99`?",
        ),
        ("", "", &p99.replace("function.p99", "cpu"), "`cpu` is not a metric of a function"),
        (
            "",
            "",
            &p99.replace("function = 'push'", ""),
            "[[rule]] needs `function`: `function.p99` is the metric of one",
        ),
        (
            "",
            "",
            &p99.replace("40ms", "40%"),
            "`above` is a duration such as `40ms`, or a number of seconds, not `40%`",
        ),
        ("target = 'app'", "target = 'b'", p99, "`push` is a function of the target `b`, not of `app`"),
        ("target = 'app'", "target = 'c'", p99, "there is no [[target]] named `c`"),
        ("libpush.so:send", "libpush.so:", p99, "the symbol of push: "),
        (
            "threshold = '20ms'\n",
            "",
            &p99.replace("p99", "attainment").replace("40ms", "95%"),
            "`function.attainment` needs a `threshold`",
        ),
        (
            "errors = '<0'\n",
            "",
            &p99.replace("p99", "errors").replace("40ms", "1"),
            "`function.errors` needs `errors` of",
        ),
        ("'<0'", "'bad'", p99, "`bad` is not a test; write <0, >3, =0 or !=0"),
    ] {
        let message = with(from, to, rule).expect_err(expected).message;
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn a_flag_beats_the_environment_which_beats_the_file() {
    let text = "[store]\npath = '/file'\nmax_snapshots = 5\n[sampling]\nfrequency = 7\n";
    let environment = [("PROBE__STORE__PATH", "/env"), ("PROBE__SAMPLING__FREQUENCY", "11"), ("PROBE_LOG", "x")];
    let environment = environment.map(|(name, value)| (name.into(), value.into()));
    let flags = [("--store", "store.path", "/flag".to_owned())];
    let config = Config::parse("probe.toml", text, environment, &flags, &Changes::default()).expect("right");
    assert_eq!(config.store.path, Path::new("/flag"));
    assert_eq!((config.sampling.frequency, config.store.limits.max_snapshots), (11, 5));
}

#[test]
fn wrong_settings_name_the_variable_or_flag() {
    for (name, value, expected) in [
        ("PROBE__STORE__PTH", "/x", "PROBE__STORE__PTH: no such setting; did you mean `PROBE__STORE__PATH`?"),
        (
            "PROBE__SAMPLNG__PATH",
            "1",
            "PROBE__SAMPLNG__PATH: no such setting; did you mean `PROBE__SAMPLING__MAX_OVERHEAD`?",
        ),
        ("PROBE__SAMPLING__FREQUENCY", "0", "PROBE__SAMPLING__FREQUENCY: `frequency` is between 1 and 10000, not 0"),
        ("PROBE__STORE__PATH", "x", "PROBE__STORE__PATH: `path` must be an absolute path, beginning with `/`"),
    ] {
        let problem =
            Config::parse("probe.toml", BASE, [(name.into(), value.into())], &[], &Changes::default()).expect_err(name);
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

#[test]
fn a_rule_says_when_it_begins_and_ends() {
    let text = BASE.replace(
        "target = \"app\"\nmetric = \"cpu\"\nabove = 80",
        "target = '*'\nmetric = 'cpu.host'\nper = 'thread'\nabove = '80%'\nmax = 95\nfor = 0\nclear_below = 60\n\
         keep_firing_for = '1m'\ncooldown = '1h'\nwarm_up = '30s'\nquiet = ['Mon-Fri 22:00-06:00', 'Sun']\n\
         timezone = 'Europe/Berlin'",
    );
    let config = parse(&text).expect("right");
    let quiet = monitor::Quiet::parse(["Mon-Fri 22:00-06:00", "Sun"], Some("Europe/Berlin")).expect("right");
    let second = 1_000_000_000;
    let expected = monitor::Rule {
        metric: monitor::Metric::CpuHost,
        per: monitor::Per::Thread,
        condition: Condition::Level { side: Side::Above, threshold: 80.0 },
        max: Some(95.0),
        clear: Some(60.0),
        keep_firing_for_ns: 60 * second,
        cooldown_ns: 3600 * second,
        warm_up_ns: 30 * second,
        quiet,
        ..monitor::Rule::new("hot")
    };
    assert_eq!(config.rules[0].rule, expected);
    let shown = config.to_string();
    assert_eq!(parse(&shown).unwrap_or_else(|e| panic!("{e}\n{shown}")).rules, config.rules);
    let change = parse(&BASE.replace("above = 80", "change = '-50%'\nwindows = 30\nmin = 5")).expect("right");
    let condition = Condition::Change { percent: -50.0, windows: 30, min: 5.0 };
    assert_eq!(change.rules[0].rule.condition, condition);
    let shown = change.to_string();
    assert_eq!(parse(&shown).unwrap_or_else(|e| panic!("{e}\n{shown}")).rules, change.rules);
}

#[test]
fn contradictions_in_rules_are_refused() {
    for (keys, expected) in [
        ("above = 80\nchange = 50", "13: `above` and `change` cannot be used together"),
        ("below = 8\nchange = 50", "13: `below` and `change` cannot be used together"),
        ("above = 80\nwindows = 5", "13: `windows` belongs to `change`, not to `above`"),
        ("below = 80\nmin = 5", "13: `min` belongs to `change`, not to `below`"),
        ("change = 0", "12: `change` is a number of percent such as `50`, or `-50` for less, not `0`"),
        ("change = -150", "12: `change` is a number of percent such as `50`, or `-50` for less, not `-150`"),
        ("change = 50\nwindows = 1", "13: `windows` is between 2 and 3600, not 1"),
        (
            "above = 80\nclear_below = 90",
            "13: `clear_below` is above `above`: such a breach would be over before it begins",
        ),
        (
            "below = 80\nclear_above = 70",
            "13: `clear_above` is below `below`: such a breach would be over before it begins",
        ),
        ("above = 80\nclear_above = 70", "13: `clear_above` is for rules with `below`, and this one has `above`"),
        (
            "change = 50\nclear_below = 70",
            "13: `clear_below` is for thresholds: what changes is compared with its own average",
        ),
        ("above = 80\nmax = 80", "13: `max` is not above `above`: every breach would be too high to be profiled"),
        ("below = 80\nmax = 90", "13: `max` is for rules that are broken by high values"),
        ("above = 80\nper = 'host'", "13: `per` is process, service or thread, not `host`"),
        ("above = 80\ntimezone = 'UTC'", "13: `timezone` needs `quiet`"),
        (
            "above = 80\nquiet = ['night']",
            "13: `night` is not a time of the week; write `22:00-06:00`, `Mon-Fri 22:00-06:00`, or `Sat,Sun`",
        ),
        (
            "above = 80\nquiet = ['Sat']\ntimezone = 'Mars'",
            "14: `Mars` is not a time zone; write `UTC`, a name such as `Europe/Berlin`, or `+02:00`",
        ),
    ] {
        assert_eq!(refusal(&BASE.replace("above = 80", keys)), format!("probe.toml:{expected}"));
    }
    for (metric, keys, expected) in [
        (
            "fds",
            "above = 80\nper = 'thread'",
            "threads have no `fds` of their own; `per = \"thread\"` is for cpu, cpu.host, offcpu.runqueue",
        ),
        ("host.cpu", "above = 80\nper = 'service'", "`host.cpu` is of the whole host: `per` says nothing of it"),
    ] {
        let text = BASE.replace("\"cpu\"", &format!("\"{metric}\"")).replace("above = 80", keys);
        assert_eq!(refusal(&text), format!("probe.toml:13: {expected}"));
    }
    assert_eq!(
        refusal("[[target]]\nname = '*'\nmatch = { pid = 1 }"),
        "probe.toml:1: no [[target]] is named `*`: rules mean every target by it"
    );
    assert_eq!(
        refusal("[sampling]\nfrequency = 200\npending_frequency = 99"),
        "probe.toml:3: `pending_frequency` is between 200 and 10000, not 99"
    );
}
