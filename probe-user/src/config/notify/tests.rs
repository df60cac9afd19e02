//! Channels as they are written: what is right, what is refused and why, what is shown again.

use super::*;
use crate::config::Config;

fn parse(text: &str) -> Result<Config, crate::problem::Problem> {
    Config::parse("probe.toml", text, [], &[], &crate::config::Changes::default())
}

/// A channel of each type with its keys.
const ALL: &str = r#"
[serve]
external_url = "https://probe.example.org"
[[notify]]
name = "hook"
type = "webhook"
url_file = "/etc/probe/hook.url"
ca_file = "/etc/probe/ca.pem"
headers = { x-team = "shop" }
token_file = "/etc/probe/token"
method = "PUT"
template = '{"text": "{{ text }}"}'
content_type = "application/json"
success = '"ok"'
timeout = "5s"
[[notify]]
name = "wecom"
type = "wecom"
url_file = "/etc/probe/wecom.url"
[[notify]]
name = "ding"
type = "dingtalk"
url_file = "/etc/probe/ding.url"
secret_file = "/etc/probe/ding.secret"
group_wait = "10s"
[[notify]]
name = "feishu"
type = "feishu"
url_file = "/etc/probe/feishu.url"
secret_file = "/etc/probe/feishu.secret"
[[notify]]
name = "slack"
type = "slack"
url_file = "/etc/probe/slack.url"
send_resolved = false
repeat_interval = "4h"
[[notify]]
name = "mail"
type = "email"
host = "smtp.example.org"
username = "probe"
password_file = "/etc/probe/mail.password"
from = "Probe <probe@example.org>"
to = ["ops@example.org", "Night Shift <night@example.org>"]
[[notify]]
name = "sms"
type = "sms"
url_file = "/etc/probe/sms.url"
method = "GET"
to = ["+491234"]
max_chars = 140
[[notify]]
name = "pager"
type = "pagerduty"
routing_key_file = "/etc/probe/pager.key"
severity = "error"
rate = 30
burst = 10
retry_for = "2h"
[[notify]]
name = "am"
type = "alertmanager"
url = "http://alertmanager:9093"
username = "probe"
password_file = "/etc/probe/am.password"
"#;

#[test]
fn every_type_is_read_and_shown_as_it_was_read() {
    let config = parse(ALL).expect("right");
    let types: Vec<&str> = config.channels.iter().map(|channel| channel.kind.name()).collect();
    assert_eq!(types, ["webhook", "wecom", "dingtalk", "feishu", "slack", "email", "sms", "pagerduty", "alertmanager"]);
    let shown = config.to_string();
    let again = parse(&shown).unwrap_or_else(|error| panic!("{error}\n{shown}"));
    assert_eq!((&again.channels, &again.serve), (&config.channels, &config.serve));
    let [hook, .., mail, sms, pager, am] = &config.channels[..] else { panic!("nine") };
    let Kind::Email(mail) = &mail.kind else { panic!("e-mail") };
    assert_eq!((mail.port, mail.security, mail.to.len()), (587, Security::StartTls, 2));
    assert_eq!((sms.policy.send_resolved, hook.policy.send_resolved), (false, true));
    assert_eq!((pager.policy.rate, pager.policy.group_wait), (30, Duration::ZERO));
    let Kind::Alertmanager(manager) = &am.kind else { panic!("alertmanager") };
    assert_eq!((am.policy.repeat_interval, manager.hold), (Some(Duration::from_secs(60)), Duration::from_secs(300)));
    let Kind::PagerDuty(pager) = &pager.kind else { panic!("pagerduty") };
    assert_eq!(pager.endpoint.url, Secret::Text(PAGERDUTY.into()));
}

#[test]
fn what_is_wrong_is_refused_with_its_line() {
    for (table, expected) in [
        ("type = 'slak'\nurl = 'http://x/'", "probe.toml:3: unknown type `slak`; did you mean `slack`?"),
        ("type = 'slack'", "probe.toml:1: [[notify]] `a` needs `url` or `url_file`"),
        (
            "type = 'slack'\nurl = 'http://x/'\nsecret_file = '/x'",
            "probe.toml:5: `secret_file` is not a key of the type `slack`",
        ),
        (
            "type = 'sms'\nurl = 'http://x/'\nto = ['1']\ngroup_wait = 3",
            "probe.toml:6: `group_wait` is not a key of the type `sms`",
        ),
        (
            "type = 'slack'\nurl_fil = '/x'",
            "probe.toml:4: unknown key `url_fil` in [[notify]]; did you mean `url_file`?",
        ),
        ("type = 'slack'\nurl_file = 'x'", "probe.toml:4: `url_file` must be an absolute path, beginning with `/`"),
        ("type = 'webhook'\nurl = 'http://u:p@x/'", "probe.toml:4: do not put a password into `url`"),
        (
            "type = 'webhook'\nurl = 'http://x/'\nusername = 'u'",
            "probe.toml:1: `username` and `password_file` must be set together",
        ),
        (
            "type = 'webhook'\nurl = 'http://x/'\nheaders = { Authorization = 'x' }",
            "probe.toml:5: `headers` must not hold secrets",
        ),
        ("type = 'webhook'\nurl = 'http://x/'\nheaders = { 'a b' = 'x' }", "probe.toml:5: `a b` is not an HTTP header"),
        (
            "type = 'webhook'\nurl = 'http://x/'\nmethod = 'get'",
            "probe.toml:5: `method` is POST or PUT or PATCH or GET, not `get`",
        ),
        (
            "type = 'webhook'\nurl = 'http://x/'\ncontent_type = 'text/plain'",
            "probe.toml:5: `content_type` needs a `template`",
        ),
        ("type = 'webhook'\nurl = 'http://x/'\nsuccess = '('", "probe.toml:5: `(` is not a regular expression"),
        ("type = 'pagerduty'", "probe.toml:1: [[notify]] needs `routing_key_file`"),
        ("type = 'email'\nhost = 'x'\nto = ['a@b.c']", "probe.toml:1: [[notify]] needs `from`"),
        (
            "type = 'email'\nhost = 'x'\nfrom = 'nobody'\nto = ['a@b.c']",
            "probe.toml:5: `from`: `nobody` is not an e-mail address",
        ),
        (
            "type = 'email'\nhost = 'x'\nfrom = 'a@b.c'\nto = ['a@b.c']\ntls = 'none'\nusername = 'u'\npassword_file = '/x'",
            "probe.toml:9: a password is not sent without TLS",
        ),
        ("type = 'sms'\nurl = 'http://x/'", "probe.toml:1: [[notify]] needs `to`"),
        ("type = 'wecom'\nurl = 'http://x/'\nrate = 0", "probe.toml:5: `rate` is between 1 and 6000, not 0"),
        (
            "type = 'wecom'\nurl = 'http://x/'\nrepeat_interval = '5ms'",
            "probe.toml:5: `repeat_interval` is 0 or at least one second",
        ),
    ] {
        let text = format!("[[notify]]\nname = 'a'\n{table}\n");
        let problem = parse(&text).expect_err(&text);
        assert!(problem.message.starts_with(expected), "{} instead of {expected}", problem.message);
    }
    for url in ["ftp://x", "https://x/)", "https://x/\\\" onclick", "probe.example.org"] {
        assert!(parse(&format!("[serve]\nexternal_url = \"{url}\"")).is_err(), "{url}");
    }
}

#[test]
fn every_key_is_of_some_type() {
    let used: BTreeSet<&str> = Kind::TYPES.iter().flat_map(|kind| keys_of(kind)).collect();
    let known: BTreeSet<&str> = Notify::KEYS.iter().map(|key| key.name).collect();
    assert_eq!(used, known);
    let table: toml::Table = toml::from_str(ALL).expect("TOML");
    let given: BTreeSet<String> = table["notify"]
        .as_array()
        .expect("tables")
        .iter()
        .flat_map(|t| t.as_table().expect("a table").keys().cloned())
        .collect();
    let text = format!("[[notify]]\nname = 'x'\ntype = 'wecom'\n{}", "max_chars = 70\nport = 25\ntls = 'tls'\n");
    assert!(parse(&text).is_err() && given.len() > 20);
}
