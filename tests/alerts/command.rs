//! `probe alert test` and `probe config check` with channels.

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use probe_tests::probe::{self, Output};
use probe_tests::trial::{Skip, unprivileged};

use crate::fake::{Reply, Request, Server};
use crate::scene::Files;

pub fn tests() -> Vec<Trial> {
    vec![unprivileged("command::probe_alert_test_says_what_happened", test)]
}

fn run(files: &Files, arguments: &[&str]) -> Result<Output> {
    let config = files.folder.path().join("probe.toml");
    probe::run([arguments, &["--config", config.to_str().context("a readable path")?]].concat())
}

fn test() -> Result<()> {
    if !probe::binary().exists() {
        return Err(Skip(format!("{} is not built", probe::binary().display())).into());
    }
    let server = Server::start(|request: &Request, _| match request.path.as_str() {
        "/good" => Reply::status(200),
        "/busy" => Reply::Answer(429, Some(("retry-after", "60".into())), "slow down".into()),
        _ => Reply::Answer(400, None, "no such thing".into()),
    })?;
    let files = Files::new(&[])?;
    let table = |name: &str| {
        format!("[[notify]]\nname = '{name}'\ntype = 'slack'\nurl = '{}'\n", server.url(&format!("/{name}")))
    };
    let missing = "[[notify]]\nname = 'missing'\ntype = 'slack'\nurl_file = '/nonexistent/slack.url'\n";
    files.write("probe.toml", &[&*table("good"), &table("busy"), &table("bad"), missing].concat())?;
    let good = run(&files, &["alert", "test", "good"])?.expect(0)?;
    ensure!(good.stdout.starts_with("good: a test was sent to this slack and taken, in "), "{good:#?}");
    let body = server.requests().pop().context("asked")?.body;
    ensure!(body.contains("this is a test of the channel good"), "{body}");
    run(&files, &["alert", "test", "bad"])?.expect(1)?.expect_stderr("400")?.expect_stderr("hint: ")?;
    run(&files, &["alert", "test", "busy"])?.expect(1)?.expect_stderr("try again later")?;
    run(&files, &["alert", "test", "missing"])?.expect(1)?.expect_stderr("/nonexistent/slack.url")?;
    run(&files, &["alert", "test", "godo"])?.expect(2)?.expect_stderr("known: good, busy, bad, missing")?;
    let check = run(&files, &["config", "check"])?.expect(1)?;
    check.expect_stderr("channel missing")?;
    Ok(())
}
