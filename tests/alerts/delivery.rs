//! From the journal to a service that fails in every way there is: at least once, in time, and nobody waits for another.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use probe_tests::poll;
use probe_tests::trial::unprivileged;
use serde_json::json;

use crate::fake::{Reply, Request, Server, nobody};
use crate::scene::{Bench, Files, SOON, firing, resolved};

pub fn tests() -> Vec<Trial> {
    vec![
        unprivileged("delivery::a_server_that_is_down_gets_everything_when_it_is_back", down),
        unprivileged("delivery::as_long_as_a_server_asks_it_is_left_alone", retry_after),
        unprivileged("delivery::hanging_and_breaking_connections_are_tried_again", broken),
        unprivileged("delivery::what_is_refused_is_a_dead_letter_and_the_rest_is_delivered", refused),
        unprivileged("delivery::breaches_at_once_are_one_message", together),
        unprivileged("delivery::a_breach_is_told_once_and_so_is_its_end", once),
        unprivileged("delivery::an_end_that_nobody_read_is_told_after_all", missed),
        unprivileged("delivery::a_channel_that_hangs_holds_up_no_other", apart),
        unprivileged("delivery::the_rate_of_a_channel_is_kept", rate),
        unprivileged("delivery::channels_change_while_it_runs_and_queues_stay", changed),
    ]
}

fn hook(name: &str, url: &str, more: &str) -> String {
    format!("[[notify]]\nname = '{name}'\ntype = 'webhook'\nurl = '{url}'\ngroup_wait = 0\n{more}\n")
}

/// The processes that a webhook was told of, one list for each message.
fn told(server: &Server) -> Vec<Vec<String>> {
    let pids = |request: &Request| {
        let body = request.json();
        let alerts = body["alerts"].as_array().cloned().unwrap_or_default();
        alerts.iter().map(|alert| alert["labels"]["pid"].as_str().unwrap_or_default().to_owned()).collect()
    };
    server.requests().iter().map(pids).collect()
}

fn down() -> Result<()> {
    let address = nobody()?;
    let channels = hook("ops", &format!("http://{address}/"), "");
    let mut bench = Bench::new(&channels)?;
    for pid in 1..=3 {
        bench.journal.append(&firing(pid, &["ops"]));
    }
    bench.wait("ops", "failures", |figures| figures.failed >= 2)?;
    // It survives a restart, too.
    bench.restart(&channels)?;
    let figures = bench.wait("ops", "a failure", |figures| figures.failed >= 1)?;
    ensure!((figures.queued, figures.dead) == (3, 0), "{figures:?}");
    let server = Server::at(address, |_, _| Reply::status(200))?;
    let figures = bench.wait("ops", "all sent", |figures| figures.sent == 3)?;
    ensure!((figures.queued, figures.dead) == (0, 0) && figures.retried >= 1, "{figures:?}");
    let told: Vec<String> = told(&server).into_iter().flatten().collect();
    ensure!(told.len() == 3, "each once: {told:?}");
    Ok(())
}

fn retry_after() -> Result<()> {
    let server = Server::start(|_, number| match number {
        0 => Reply::Answer(429, Some(("Retry-After", "4".into())), String::new()),
        _ => Reply::status(200),
    })?;
    let bench = Bench::new(&hook("ops", &server.url("/"), ""))?;
    bench.journal.append(&firing(1, &["ops"]));
    poll::until("the first", SOON, || (!server.requests().is_empty()).then_some(()))?;
    // Another one does not go first either.
    bench.journal.append(&firing(2, &["ops"]));
    bench.wait("ops", "all sent", |figures| figures.sent == 2)?;
    let requests = server.requests();
    let pause = requests[1].at - requests[0].at;
    ensure!(pause >= Duration::from_millis(3900) && pause < Duration::from_secs(20), "{pause:?}");
    Ok(())
}

fn broken() -> Result<()> {
    let server = Server::start(|_, number| match number {
        0 => Reply::Reset,
        1 => Reply::Hang(Duration::from_secs(60)),
        2 => Reply::status(503),
        _ => Reply::status(200),
    })?;
    let bench = Bench::new(&hook("ops", &server.url("/"), "timeout = '1s'"))?;
    bench.journal.append(&firing(1, &["ops"]));
    let figures = bench.wait("ops", "sent", |figures| figures.sent == 1)?;
    ensure!((figures.failed, figures.retried, figures.messages, figures.dead) == (3, 3, 1, 0), "{figures:?}");
    let requests = server.requests();
    let pauses: Vec<f64> = requests.windows(2).map(|pair| (pair[1].at - pair[0].at).as_secs_f64()).collect();
    ensure!(pauses[0] >= 0.4 && pauses[1] >= 1.9 && pauses[2] >= 1.9, "growing, with chance: {pauses:?}");
    Ok(())
}

fn refused() -> Result<()> {
    let server = Server::start(|request: &Request, _| {
        Reply::status(if request.body.contains("\"pid\":\"2\"") { 400 } else { 200 })
    })?;
    let bench = Bench::new(&hook("ops", &server.url("/"), ""))?;
    for pid in 1..=3 {
        bench.journal.append(&firing(pid, &["ops"]));
    }
    let figures = bench.wait("ops", "an end", |figures| figures.sent == 2 && figures.dead == 1)?;
    ensure!(figures.queued == 0, "{figures:?}");
    let dead = bench.files.folder.path().join("state/channels/ops/dead");
    let letters: Vec<_> = std::fs::read_dir(&dead)?.collect::<Result<_, _>>()?;
    ensure!(letters.len() == 1, "{letters:?}");
    let letter = std::fs::read_to_string(letters[0].path())?;
    ensure!(letter.contains("\"pid\":2") && letter.contains("400"), "{letter}");
    Ok(())
}

fn together() -> Result<()> {
    let server = Server::start(|_, _| Reply::json(&json!({"errcode": 0})))?;
    let url = server.url("/");
    let bench = Bench::new(&format!(
        "[[notify]]\nname = 'hook'\ntype = 'webhook'\nurl = '{url}hook'\ngroup_wait = '2s'\n\
         [[notify]]\nname = 'chat'\ntype = 'wecom'\nurl = '{url}chat'\ngroup_wait = '2s'\n"
    ))?;
    let start = Instant::now();
    for pid in 1..=5 {
        bench.journal.append(&firing(pid, &["hook", "chat", "hook"]));
    }
    for channel in ["hook", "chat"] {
        let figures = bench.wait(channel, "all sent", |figures| figures.sent == 5)?;
        ensure!(figures.messages == 1, "{figures:?}");
    }
    ensure!(start.elapsed() >= Duration::from_millis(1900), "{:?}", start.elapsed());
    let requests = server.requests();
    let hook = requests.iter().find(|request| request.path == "/hook").context("the webhook")?.json();
    ensure!(hook["alerts"].as_array().map(Vec::len) == Some(5), "{hook:#}");
    let chat = requests.iter().find(|request| request.path == "/chat").context("the chat")?.json();
    let text = chat["markdown"]["content"].as_str().unwrap_or_default();
    ensure!((1..=5).all(|pid| text.contains(&format!("pid {pid} "))), "{text}");
    Ok(())
}

fn once() -> Result<()> {
    let server = Server::start(|_, _| Reply::status(200))?;
    let url = server.url("/");
    let channels =
        format!("{}{}", hook("ops", &url, ""), hook("quiet", &format!("{url}quiet"), "send_resolved = false"));
    let mut bench = Bench::new(&channels)?;
    let breach = firing(1, &["ops", "quiet"]);
    for _ in 0..3 {
        bench.journal.append(&breach);
    }
    bench.wait("ops", "sent", |figures| figures.sent == 1 && figures.deduplicated == 2)?;
    bench.wait("quiet", "sent", |figures| figures.sent == 1)?;
    // What is firing is known after a restart.
    bench.restart(&channels)?;
    bench.journal.append(&breach);
    bench.journal.append(&resolved(&breach));
    bench.journal.append(&resolved(&breach));
    bench.wait("ops", "the end sent", |figures| figures.sent == 1 && figures.deduplicated == 2)?;
    let figures = bench.wait("quiet", "no end", |figures| figures.deduplicated == 2)?;
    ensure!(figures.sent == 0, "{figures:?}");
    let states: Vec<String> = server
        .requests()
        .iter()
        .filter(|request| request.path == "/")
        .map(|request| request.json()["status"].to_string())
        .collect();
    ensure!(states == ["\"firing\"", "\"resolved\""], "{states:?}");
    Ok(())
}

fn missed() -> Result<()> {
    let server = Server::start(|_, _| Reply::status(200))?;
    let channels = hook("ops", &server.url("/"), "repeat_interval = '1h'");
    let mut bench = Bench::new(&channels)?;
    let (gone, stays) = (firing(1, &["ops"]), firing(2, &["ops"]));
    let mut ids = vec![bench.journal.append(&gone)];
    bench.journal.append(&stays);
    bench.wait("ops", "both sent", |figures| figures.sent == 2)?;
    bench.stop();
    // Nobody reads for so long that both notices have gone for their age.
    ids.push(bench.journal.append(&resolved(&gone)));
    for id in ids {
        std::fs::remove_file(bench.journal.path().join(format!("{id}.json")))?;
    }
    bench.restart(&channels)?;
    bench.wait("ops", "the end sent", |figures| figures.sent == 1)?;
    let last = server.requests().pop().context("asked")?.json();
    ensure!(last["status"] == "resolved" && last["alerts"][0]["labels"]["pid"] == "1", "{last:#}");
    bench.journal.append(&resolved(&stays));
    bench.wait("ops", "the other end sent", |figures| figures.sent == 2)?;
    Ok(())
}

fn apart() -> Result<()> {
    let server = Server::start(|request: &Request, _| match request.path.as_str() {
        "/slow" => Reply::Hang(Duration::from_secs(60)),
        _ => Reply::status(200),
    })?;
    let slow = hook("slow", &server.url("/slow"), "timeout = '20s'");
    let bench = Bench::new(&(slow + &hook("fast", &server.url("/fast"), "")))?;
    let start = Instant::now();
    for pid in 1..=20 {
        bench.journal.append(&firing(pid, &["slow", "fast"]));
    }
    bench.wait("fast", "all sent", |figures| figures.sent == 20)?;
    ensure!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    ensure!(bench.figures("slow").queued == 20, "{:?}", bench.figures("slow"));
    Ok(())
}

fn rate() -> Result<()> {
    let server = Server::start(|_, _| Reply::status(202))?;
    let files = Files::new(&[("key", "0123456789")])?;
    let url = server.url("/");
    let channel = format!(
        "[[notify]]\nname = 'pager'\ntype = 'pagerduty'\nurl = '{url}'\nrouting_key_file = 'DIR/key'\nrate = 60\nburst = 2\n"
    );
    let bench = Bench::with(files, &channel)?;
    for pid in 1..=6 {
        bench.journal.append(&firing(pid, &["pager"]));
    }
    bench.wait("pager", "all sent", |figures| figures.sent == 6)?;
    let requests = server.requests();
    let time = (requests[5].at - requests[0].at).as_secs_f64();
    // Two at once, then one a second.
    ensure!((3.5..15.0).contains(&time), "{time}");
    Ok(())
}

fn changed() -> Result<()> {
    let address = nobody()?;
    let bench = Bench::new(&hook("ops", &format!("http://{address}/"), ""))?;
    for pid in 1..=3 {
        bench.journal.append(&firing(pid, &["ops", "new"]));
    }
    bench.wait("ops", "failures", |figures| figures.failed >= 1 && figures.queued == 3)?;
    let server = Server::start(|_, _| Reply::status(200))?;
    bench.replace(&(hook("ops", &server.url("/ops"), "") + &hook("new", &server.url("/new"), "")))?;
    bench.wait("ops", "all sent", |figures| figures.sent == 3)?;
    bench.journal.append(&firing(9, &["ops", "new"]));
    bench.wait("new", "sent", |figures| figures.sent == 1)?;
    bench.replace(&hook("new", &server.url("/new"), ""))?;
    bench.journal.append(&firing(10, &["ops", "new"]));
    bench.wait("new", "sent", |figures| figures.sent == 2)?;
    let told: BTreeSet<String> = told(&server).into_iter().flatten().collect();
    ensure!(told == ["1", "2", "3", "9", "10"].map(str::to_owned).into(), "{told:?}");
    Ok(())
}
