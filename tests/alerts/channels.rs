//! Each channel against a fake of its service that is as strict as the service: signatures, schemas, limits, errors.

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use libtest_mimic::Trial;
use probe::alert::{Channel, Failure, Links, Notice};
use probe_tests::trial::unprivileged;
use serde_json::{Value, json};
use sha2::Sha256;

use crate::fake::{Reply, Request, Server, decode};
use crate::scene::{Files, LINK, firing, hostile, links, resolved};

pub fn tests() -> Vec<Trial> {
    vec![
        unprivileged("channels::wecom_gets_markdown_within_its_limit_and_its_codes_are_understood", wecom),
        unprivileged("channels::dingtalk_gets_signed_markdown_and_its_codes_are_understood", dingtalk),
        unprivileged("channels::feishu_gets_signed_posts_and_its_codes_are_understood", feishu),
        unprivileged("channels::slack_gets_blocks_without_mentions", slack),
        unprivileged("channels::pagerduty_opens_and_resolves_by_one_key", pagerduty),
        unprivileged("channels::a_webhook_gets_the_body_of_alertmanager", webhook),
        unprivileged("channels::a_webhook_gets_the_body_of_a_template", template),
        unprivileged("channels::a_gateway_of_short_messages_gets_seventy_characters", sms),
        unprivileged("channels::secrets_are_read_anew_and_never_shown", secrets),
        unprivileged("channels::all_channels_say_who_where_how_much_and_why", facts),
    ]
}

fn send(channel: &Channel, notices: &[Notice]) -> Result<(), Failure> {
    channel.deliver(notices, &links())
}

fn is_later(result: &Result<(), Failure>) -> bool {
    matches!(result, Err(Failure::Later { .. }))
}

fn is_refused(result: &Result<(), Failure>) -> bool {
    matches!(result, Err(Failure::Refused { .. }))
}

/// The pause that a failure asks for, in seconds.
fn pause(result: &Result<(), Failure>) -> Option<u64> {
    match result {
        Err(Failure::Later { after, .. }) => after.map(|after| after.as_secs()),
        _ => None,
    }
}

fn sign(key: &str, text: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("any length");
    mac.update(text.as_bytes());
    STANDARD.encode(mac.finalize().into_bytes())
}

/// What no chat may see from a target.
fn expect_harmless(text: &str) -> Result<()> {
    for mark in ["<!channel>", "<@", "@all", "](http://evil", "<at "] {
        ensure!(!text.contains(mark), "{mark} in {text}");
    }
    Ok(())
}

fn wecom() -> Result<()> {
    let server = Server::start(|request: &Request, _| {
        let body = request.json();
        let content = body["markdown"]["content"].as_str().unwrap_or_default();
        let code = match request.query("key").as_deref() {
            Some("busy") => 45009,
            Some("down") => -1,
            Some("good-key") if body["msgtype"] != "markdown" => 40008,
            Some("good-key") if content.is_empty() => 44004,
            Some("good-key") if content.len() > 4096 => 40058,
            Some("good-key") => 0,
            Some("strict") => 40058,
            _ => 93000,
        };
        Reply::json(&json!({"errcode": code, "errmsg": if code == 0 { "ok" } else { "wrong" }}))
    })?;
    let files = Files::new(&[])?;
    let to = |key: &str| {
        files.write("url", &server.url(&format!("/cgi-bin/webhook/send?key={key}")))?;
        files.channel("[[notify]]\nname = 'a'\ntype = 'wecom'\nurl_file = 'DIR/url'")
    };
    let many: Vec<Notice> = (1..=10).map(|pid| hostile(firing(pid, &["a"]))).collect();
    for notices in [&many[..1], &many] {
        send(&to("good-key")?, notices)?;
        let text = server.requests().pop().context("asked")?.json()["markdown"]["content"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        expect_harmless(&text)?;
        ensure!(text.matches(&format!("[Snapshot]({LINK})")).count() == notices.len(), "the links: {text}");
    }
    let busy = send(&to("busy")?, &many[..1]);
    ensure!(pause(&busy) == Some(60), "{busy:?}");
    ensure!(is_refused(&send(&to("strict")?, &many[..1])));
    for key in ["down", "unknown-key"] {
        let failure = send(&to(key)?, &many[..1]);
        ensure!(is_later(&failure) && !format!("{failure:?}").contains("unknown-key"), "{failure:?}");
    }
    Ok(())
}

fn dingtalk() -> Result<()> {
    let server = Server::start(|request: &Request, _| {
        let timestamp = request.query("timestamp").unwrap_or_default();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_millis();
        let is_now = timestamp.parse::<u128>().is_ok_and(|at| at.abs_diff(now) < 3_600_000);
        let expected = sign("SEC-ding", &format!("{timestamp}\nSEC-ding"));
        let body = request.json();
        let code = match request.query("access_token").as_deref() {
            _ if !is_now || request.query("sign") != Some(expected) => 310000,
            Some("busy") => 130101,
            _ if request.body.len() > 20_000 => 400102,
            _ if body["msgtype"] != "markdown" || body["at"]["isAtAll"] != false => 400105,
            _ if body["markdown"]["title"].as_str().is_none_or(str::is_empty) => 40035,
            _ => 0,
        };
        Reply::json(&json!({"errcode": code, "errmsg": "as it is"}))
    })?;
    let files = Files::new(&[("secret", "SEC-ding\n")])?;
    let to = |token: &str| {
        files.write("url", &server.url(&format!("/robot/send?access_token={token}")))?;
        files.channel("[[notify]]\nname = 'a'\ntype = 'dingtalk'\nurl_file = 'DIR/url'\nsecret_file = 'DIR/secret'")
    };
    let mut quotes = firing(1, &["a"]);
    quotes.culprit = "\"\\".repeat(9000);
    let many: Vec<Notice> = (1..=10).map(|pid| hostile(firing(pid, &["a"]))).collect();
    for notices in [&many[..1], &many, &[quotes]] {
        send(&to("good")?, notices)?;
        let text = server.requests().pop().context("asked")?.json()["markdown"]["text"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        expect_harmless(&text)?;
        ensure!(text.matches(&format!("[Snapshot]({LINK})")).count() == notices.len(), "the links: {text}");
    }
    ensure!(pause(&send(&to("busy")?, &many[..1])) == Some(60));
    files.write("secret", "another")?;
    let wrong = send(&to("good")?, &many[..1]);
    ensure!(is_later(&wrong) && format!("{wrong:?}").contains("310000"), "{wrong:?}");
    Ok(())
}

fn feishu() -> Result<()> {
    let server = Server::start(|request: &Request, _| {
        let body = request.json();
        let timestamp = body["timestamp"].as_str().unwrap_or_default();
        let post = &body["content"]["post"]["en_us"];
        let is_paragraph = |part: &Value| {
            part.as_array().is_some_and(|tags| {
                tags.iter().all(|tag| {
                    tag["tag"] == "text" && tag["text"].is_string() || tag["tag"] == "a" && tag["href"].is_string()
                })
            })
        };
        let is_post = post["content"].as_array().is_some_and(|parts| parts.iter().all(is_paragraph));
        let (code, message) = match request.path.rsplit('/').next() {
            _ if body["sign"] != sign(&format!("{timestamp}\nSEC-feishu"), "") => (19021, "sign match fail"),
            Some("busy") => (11232, "frequency limited"),
            Some("old") => (9499, "too many request"),
            _ if request.body.len() > 20 << 10 || body["msg_type"] != "post" || !is_post => (9499, "Bad Request"),
            _ => (0, "success"),
        };
        Reply::json(&json!({"code": code, "msg": message, "data": {}}))
    })?;
    let files = Files::new(&[("secret", "SEC-feishu")])?;
    let to = |token: &str| {
        files.write("url", &server.url(&format!("/open-apis/bot/v2/hook/{token}")))?;
        files.channel("[[notify]]\nname = 'a'\ntype = 'feishu'\nurl_file = 'DIR/url'\nsecret_file = 'DIR/secret'")
    };
    let many: Vec<Notice> = (1..=10).map(|pid| hostile(firing(pid, &["a"]))).collect();
    for notices in [&many[..1], &many] {
        send(&to("good")?, notices)?;
        let body = server.requests().pop().context("asked")?.body;
        expect_harmless(&body)?;
        ensure!(body.matches(&format!("\"href\":\"{LINK}\"")).count() == notices.len(), "the links: {body}");
    }
    for token in ["busy", "old"] {
        ensure!(pause(&send(&to(token)?, &many[..1])) == Some(30), "{token}");
    }
    files.write("secret", "another")?;
    ensure!(is_later(&send(&to("good")?, &many[..1])));
    // Without a page the folder is said in the text.
    files.write("secret", "SEC-feishu")?;
    to("good")?.deliver(&many[..1], &Links::default())?;
    let body = server.requests().pop().context("asked")?.body;
    ensure!(body.contains("/var/lib/probe/01HF7YBW5R0000000000000007 on node-1"), "{body}");
    Ok(())
}

fn slack() -> Result<()> {
    let server = Server::start(|request: &Request, _| {
        let body = request.json();
        let is_block = |block: &Value| {
            let text = block["text"]["text"].as_str().unwrap_or_default();
            block["type"] == "section"
                && block["text"]["type"] == "mrkdwn"
                && (1..=3000).contains(&text.chars().count())
        };
        let blocks = body["blocks"].as_array().cloned().unwrap_or_default();
        if request.path == "/services/busy" {
            return Reply::Answer(429, Some(("Retry-After", "7".into())), "rate_limited".into());
        }
        if body["text"].as_str().is_none_or(str::is_empty) || blocks.len() > 50 || !blocks.iter().all(is_block) {
            return Reply::Answer(400, None, "invalid_blocks".into());
        }
        Reply::Answer(200, None, "ok".into())
    })?;
    let files = Files::new(&[])?;
    let to = |path: &str| {
        files.write("url", &server.url(path))?;
        files.channel("[[notify]]\nname = 'a'\ntype = 'slack'\nurl_file = 'DIR/url'")
    };
    let many: Vec<Notice> = (1..=10).map(|pid| hostile(firing(pid, &["a"]))).collect();
    send(&to("/services/T/B/x")?, &many)?;
    let body = server.requests().pop().context("asked")?.json();
    let text = body["blocks"][0]["text"]["text"].as_str().unwrap_or_default();
    ensure!(text.contains("&lt;!channel&gt;") && text.ends_with(&format!("<{LINK}|Snapshot>")), "{text}");
    ensure!(text.matches('<').count() == 1, "only our link: {text}");
    ensure!(!body["text"].as_str().unwrap_or_default().contains('<'), "{body}");
    ensure!(pause(&send(&to("/services/busy")?, &many[..1])) == Some(7));
    Ok(())
}

fn pagerduty() -> Result<()> {
    let server = Server::start(|request: &Request, _| {
        let body = request.json();
        let payload = &body["payload"];
        let summary = payload["summary"].as_str().unwrap_or_default().chars().count();
        let is_severity = ["critical", "error", "warning", "info"].iter().any(|known| payload["severity"] == *known);
        let is_payload = (1..=1024).contains(&summary) && payload["source"].is_string() && is_severity;
        let key = body["dedup_key"].as_str().unwrap_or_default().len();
        let is_event = match body["event_action"].as_str() {
            Some("trigger") => is_payload,
            Some("resolve") => true,
            _ => false,
        };
        let is_right = is_event && (1..=255).contains(&key) && body["routing_key"] == "routing-key-0123456789abcdef";
        if is_right && request.body.len() < 512 << 10 {
            return Reply::Answer(202, None, json!({"status": "success", "dedup_key": body["dedup_key"]}).to_string());
        }
        let echo = format!("invalid event, key {}", body["routing_key"]);
        Reply::Answer(400, None, json!({"status": "invalid event", "message": echo}).to_string())
    })?;
    let files = Files::new(&[("key", "routing-key-0123456789abcdef")])?;
    let url = server.url("/v2/enqueue");
    let channel = files.channel(&format!(
        "[[notify]]\nname = 'a'\ntype = 'pagerduty'\nurl = '{url}'\nrouting_key_file = 'DIR/key'\nseverity = 'error'"
    ))?;
    let breach = hostile(firing(1, &["a"]));
    send(&channel, std::slice::from_ref(&breach))?;
    send(&channel, &[resolved(&breach)])?;
    let events: Vec<Value> = server.requests().iter().map(Request::json).collect();
    ensure!(events[0]["dedup_key"] == events[1]["dedup_key"] && events[1]["event_action"] == "resolve", "{events:?}");
    ensure!(events[0]["links"][0]["href"] == LINK && events[0]["payload"]["severity"] == "error", "{events:?}");
    files.write("key", "another-key-0123456789")?;
    let failure = send(&channel, &[breach]);
    ensure!(is_refused(&failure) && !format!("{failure:?}").contains("another-key"), "{failure:?}");
    Ok(())
}

fn webhook() -> Result<()> {
    let server = Server::start(|_, _| Reply::status(200))?;
    let files = Files::new(&[("token", "token-1234")])?;
    let url = server.url("/hook");
    let channel = files.channel(&format!(
        "[[notify]]\nname = 'ops'\ntype = 'webhook'\nurl = '{url}'\ntoken_file = 'DIR/token'\nheaders = {{ X-Team = 'shop' }}"
    ))?;
    let breach = firing(1, &["ops"]);
    send(&channel, &[breach.clone(), resolved(&firing(2, &["ops"]))])?;
    let request = server.requests().pop().context("asked")?;
    ensure!(request.method == "POST" && request.headers["authorization"] == "Bearer token-1234", "{request:?}");
    ensure!(
        request.headers["x-team"] == "shop" && request.headers["content-type"] == "application/json",
        "{request:?}"
    );
    let body = request.json();
    ensure!(body["version"] == "4" && body["status"] == "firing" && body["receiver"] == "ops", "{body:#}");
    ensure!(
        body["commonLabels"]["alertname"] == "checkout-cpu" && body["commonLabels"].get("pid").is_none(),
        "{body:#}"
    );
    let [first, second] = &body["alerts"].as_array().context("alerts")?[..] else { anyhow::bail!("two: {body:#}") };
    ensure!(first["status"] == "firing" && first["endsAt"] == "0001-01-01T00:00:00Z", "{first:#}");
    ensure!(first["fingerprint"] == breach.fingerprint && first["generatorURL"] == LINK, "{first:#}");
    ensure!(first["labels"]["service"] == "checkout" && first["labels"]["pod"] == "checkout-7d9", "{first:#}");
    ensure!(second["status"] == "resolved" && second["endsAt"].as_str() > second["startsAt"].as_str(), "{second:#}");
    send(&channel, &[resolved(&breach)])?;
    ensure!(server.requests().pop().context("asked")?.json()["status"] == "resolved");
    Ok(())
}

fn template() -> Result<()> {
    let server = Server::start(|_, number| {
        Reply::Answer(200, None, if number == 0 { r#"{"ok": true}"# } else { r#"{"ok": false}"# }.into())
    })?;
    let body = r#"{"msg": "{{ title }}", "who": "{{ notices[0].target }}", "all": {{ alerts | tojson }}}"#;
    let files = Files::new(&[("body.json", body)])?;
    let url = server.url("/hook");
    let channel = files.channel(&format!(
        "[[notify]]\nname = 'ops'\ntype = 'webhook'\nurl = '{url}'\ntemplate_file = 'DIR/body.json'\nmethod = 'PUT'\n\
         success = '\"ok\": true'"
    ))?;
    channel.check()?;
    let breach = hostile(firing(1, &["ops"]));
    send(&channel, std::slice::from_ref(&breach))?;
    let request = server.requests().pop().context("asked")?;
    let json = request.json();
    ensure!(
        request.method == "PUT" && json["who"] == breach.target && json["all"][0]["status"] == "firing",
        "{request:?}"
    );
    let failure = send(&channel, std::slice::from_ref(&breach));
    ensure!(is_later(&failure), "an answer of no success: {failure:?}");
    files.write("body.json", "{\"msg\": {{ title }}}")?;
    let error = format!("{:#}", channel.check().expect_err("no JSON"));
    ensure!(error.contains("does not give JSON") && error.contains("body.json"), "{error}");
    Ok(())
}

fn sms() -> Result<()> {
    let server = Server::start(|_, _| Reply::status(200))?;
    let files = Files::new(&[])?;
    files.write("url", &server.url("/send?apikey=key-12345678&to={{ to }}&text={{ text }}"))?;
    let get = "[[notify]]\nname = 'sms'\ntype = 'sms'\nurl_file = 'DIR/url'\nmethod = 'GET'\nto = ['+4912', '+4913']";
    let channel = files.channel(get)?;
    channel.check()?;
    send(&channel, &[hostile(firing(1, &["sms"]))])?;
    let request = server.requests().pop().context("asked")?;
    let text = request.query("text").context("a text")?;
    ensure!(request.method == "GET" && request.query("to").as_deref() == Some("+4912,+4913"), "{request:?}");
    ensure!(text.encode_utf16().count() <= 70 && text.starts_with("[FIRING] checkout-cpu"), "{text}");
    // With room for it the link is there.
    let channel = files.channel(&format!("{get}\nmax_chars = 140"))?;
    send(&channel, &[hostile(firing(1, &["sms"]))])?;
    let text = server.requests().pop().and_then(|request| request.query("text")).context("a text")?;
    ensure!(text.encode_utf16().count() <= 140 && text.ends_with(&format!(" {LINK}")), "{text}");
    let url = server.url("/send");
    let form = files.channel(&format!(
        "[[notify]]\nname = 'sms'\ntype = 'sms'\nurl = '{url}'\nto = ['1']\ntemplate = 'to={{{{ to }}}}&text={{{{ text }}}}'\n\
         content_type = 'application/x-www-form-urlencoded'"
    ))?;
    send(&form, &[hostile(firing(1, &["sms"]))])?;
    let request = server.requests().pop().context("asked")?;
    let text = request.body.strip_prefix("to=1&text=").context("a form")?;
    ensure!(!text.contains(['&', '=', '<']) && decode(text).starts_with("[FIRING]"), "{request:?}");
    Ok(())
}

fn secrets() -> Result<()> {
    let server = Server::start(|request: &Request, _| {
        let echo = format!("no such hook: {} for {:?}", request.path, request.headers.get("authorization"));
        Reply::Answer(if request.path.contains("second") { 200 } else { 404 }, None, echo)
    })?;
    let files = Files::new(&[("password", "password-abc")])?;
    files.write("url", &server.url("/services/first-secret?key=query-secret"))?;
    let channel = files.channel(
        "[[notify]]\nname = 'a'\ntype = 'webhook'\nurl_file = 'DIR/url'\nusername = 'u'\npassword_file = 'DIR/password'",
    )?;
    let failure = send(&channel, &[firing(1, &["a"])]).expect_err("404");
    let shown = format!("{failure} {failure:?} {channel:?}");
    ensure!(shown.contains("404") && shown.contains("127.0.0.1"), "{shown}");
    let basic = STANDARD.encode("u:password-abc");
    for secret in ["first-secret", "query-secret", "password-abc", &basic] {
        ensure!(!shown.contains(secret), "{secret} in {shown}");
    }
    files.write("url", &server.url("/services/second-secret"))?;
    send(&channel, &[firing(1, &["a"])])?;
    std::fs::remove_file(files.folder.path().join("password"))?;
    let failure = send(&channel, &[firing(1, &["a"])]);
    ensure!(is_later(&failure) && format!("{failure:?}").contains("password"), "{failure:?}");
    Ok(())
}

fn facts() -> Result<()> {
    let server = Server::start(|_, _| Reply::json(&json!({"errcode": 0, "code": 0})))?;
    let files = Files::new(&[("key", "0123456789")])?;
    for kind in ["webhook", "wecom", "dingtalk", "feishu", "slack", "pagerduty", "alertmanager"] {
        let key = if kind == "pagerduty" { "routing_key_file = 'DIR/key'" } else { "" };
        let url = server.url("/x");
        let channel = files.channel(&format!("[[notify]]\nname = 'a'\ntype = '{kind}'\nurl = '{url}'\n{key}"))?;
        send(&channel, &[firing(42, &["a"])])?;
        let body = server.requests().pop().context("asked")?.body;
        for fact in [
            "checkout",
            "node-1",
            "192.0.2.7",
            "c0ffee",
            "checkout-7d9",
            "pid 42",
            "31.0 %",
            "97.5 % of one core",
            "24.4 % of the host",
            "checkout-cpu",
            "97.5 above 80 percent of one core",
            "match_rules (rules.c:41)",
            LINK,
        ] {
            ensure!(body.contains(fact), "{kind}: no {fact} in {body}");
        }
    }
    Ok(())
}
