//! Real servers: Debian's Alertmanager, and a server of SMTP with TLS.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use probe::alert::Failure;
use probe_tests::poll;
use probe_tests::running::Running;
use probe_tests::trial::{Skip, install, require_from, unprivileged};
use serde_json::Value;

use crate::fake::{Reply, Server, nobody};
use crate::scene::{Bench, Files, HOSTILE, LINK, SOON, firing, hostile, links, resolved};

pub fn tests() -> Vec<Trial> {
    vec![
        unprivileged("real::alertmanager_shows_an_alert_until_it_is_over", alertmanager),
        unprivileged("real::our_webhook_has_the_keys_of_alertmanagers", same_body),
        unprivileged("real::mail_is_sent_by_starttls_with_a_password", starttls),
        unprivileged("real::a_mail_that_repeats_another_is_another", repeated),
        unprivileged("real::mail_is_sent_by_tls_from_the_first_byte", tls),
        unprivileged("real::mail_is_not_sent_to_a_server_that_is_not_trusted_or_trusts_us_not", mistrust),
    ]
}

/// A running Alertmanager that tells a webhook at once.
struct Manager {
    url: String,
    _running: Running,
    files: Files,
}

impl Manager {
    fn start(webhook: &str) -> Result<Self> {
        require_from("curl", "curl")?;
        let program = require_from("prometheus-alertmanager", "prometheus-alertmanager")?;
        let config = format!(
            "route:\n  receiver: probe\n  group_by: ['alertname']\n  group_wait: 1s\n  group_interval: 1s\n\
             receivers:\n- name: probe\n  webhook_configs:\n  - url: '{webhook}'\n    send_resolved: true\n"
        );
        let files = Files::new(&[("alertmanager.yml", &config)])?;
        let folder = files.folder.path().display().to_string();
        let address = nobody()?;
        let mut command = Command::new(program);
        command.arg(format!("--config.file={folder}/alertmanager.yml")).arg(format!("--storage.path={folder}"));
        command.arg(format!("--web.listen-address={address}")).arg("--cluster.listen-address=");
        let running = Running::start(command.stdout(Stdio::null()).stderr(Stdio::null()))?;
        let manager = Self { url: format!("http://{address}"), _running: running, files };
        poll::until("Alertmanager listens", SOON, || manager.alerts().ok())?;
        Ok(manager)
    }

    /// The alerts that it shows.
    fn alerts(&self) -> Result<Vec<Value>> {
        let output = Command::new("curl").args(["-s", "-m", "5", &format!("{}/api/v2/alerts", self.url)]).output()?;
        let list: Value = serde_json::from_slice(&output.stdout)?;
        Ok(list.as_array().context("a list")?.clone())
    }
}

fn alertmanager() -> Result<()> {
    let webhook = Server::start(|_, _| Reply::status(200))?;
    let manager = Manager::start(&webhook.url("/am"))?;
    let url = &manager.url;
    let bench = Bench::new(&format!(
        "[[notify]]\nname = 'am'\ntype = 'alertmanager'\nurl = '{url}'\ngroup_wait = 0\nrepeat_interval = '2s'\n"
    ))?;
    let (first, second) = (firing(1, &["am"]), hostile(firing(2, &["am"])));
    bench.journal.append(&first);
    bench.journal.append(&second);
    let alerts = poll::until("both alerts", SOON, || manager.alerts().ok().filter(|alerts| alerts.len() == 2))?;
    let alert = alerts.iter().find(|alert| alert["labels"]["pid"] == "1").context("the first")?;
    ensure!(alert["labels"]["alertname"] == "checkout-cpu" && alert["labels"]["service"] == "checkout", "{alert:#}");
    ensure!(alert["annotations"]["culprit"].as_str().is_some_and(|text| text.starts_with("match_rules")), "{alert:#}");
    ensure!(alert["generatorURL"] == LINK && alert["status"]["state"] != "resolved", "{alert:#}");
    let other = alerts.iter().find(|alert| alert["labels"]["pid"] == "2").context("the second")?;
    ensure!(other["labels"]["service"].as_str().is_some_and(|name| name.starts_with("<!channel>")), "{other:#}");
    // It is told again while it lasts.
    let before = alert["endsAt"].as_str().context("an end")?.to_owned();
    poll::until("a later end", SOON, || {
        let alerts = manager.alerts().ok()?;
        alerts
            .iter()
            .any(|alert| alert["labels"]["pid"] == "1" && alert["endsAt"].as_str() > Some(&*before))
            .then_some(())
    })?;
    bench.journal.append(&resolved(&first));
    poll::until("one alert less", SOON, || manager.alerts().ok().filter(|alerts| alerts.len() == 1))?;
    // Whoever listens to Alertmanager is told of both states.
    poll::until("resolved", SOON, || {
        let bodies = webhook.requests();
        let alerts = bodies.iter().flat_map(|request| request.json()["alerts"].as_array().cloned().unwrap_or_default());
        alerts.into_iter().any(|alert| alert["status"] == "resolved" && alert["labels"]["pid"] == "1").then_some(())
    })?;
    let figures = bench.figures("am");
    ensure!(figures.failed == 0 && figures.dead == 0, "{figures:?}");
    Ok(())
}

/// The keys of an object.
fn keys(value: &Value) -> Vec<String> {
    value.as_object().map(|object| object.keys().cloned().collect()).unwrap_or_default()
}

fn same_body() -> Result<()> {
    let server = Server::start(|_, _| Reply::status(200))?;
    let manager = Manager::start(&server.url("/theirs"))?;
    let (url, am) = (server.url("/ours"), &manager.url);
    let channels = manager.files.channels(&format!(
        "[[notify]]\nname = 'probe'\ntype = 'webhook'\nurl = '{url}'\n[[notify]]\nname = 'am'\ntype = 'alertmanager'\nurl = '{am}'\n"
    ))?;
    for channel in &channels {
        channel.deliver(&[firing(1, &["probe"])], &links())?;
    }
    let body = |path: &'static str| {
        let found = || server.requests().iter().find(|request| request.path == path).map(|request| request.json());
        poll::until(path, SOON, found)
    };
    let (ours, theirs) = (body("/ours")?, body("/theirs")?);
    ensure!(keys(&ours) == keys(&theirs), "{ours:#}\n{theirs:#}");
    ensure!(keys(&ours["alerts"][0]) == keys(&theirs["alerts"][0]), "{ours:#}\n{theirs:#}");
    for key in ["version", "status", "receiver", "commonLabels", "truncatedAlerts", "groupLabels", "groupKey"] {
        ensure!(ours[key] == theirs[key], "{key}: {ours:#}\n{theirs:#}");
    }
    ensure!(ours["alerts"][0]["labels"] == theirs["alerts"][0]["labels"], "{ours:#}\n{theirs:#}");
    Ok(())
}

/// A server of mail that keeps what it gets. It takes the user `probe` with the password `mail-password`.
const SMTP: &str = r#"
import ssl, sys, time, pathlib
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword
folder, port, mode = pathlib.Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
count = 0
class Keep:
    async def handle_DATA(self, server, session, envelope):
        global count
        count += 1
        head = f"X-To: {','.join(envelope.rcpt_tos)}\r\nX-Secret: {session.ssl is not None}\r\n".encode()
        temporary = folder / f"{count}.part"
        temporary.write_bytes(head + envelope.content)
        temporary.rename(folder / f"{count}.eml")
        return "250 OK"
def authenticate(server, session, envelope, mechanism, data):
    good = isinstance(data, LoginPassword) and data.login == b"probe" and data.password == b"mail-password"
    return AuthResult(success=good, handled=False)
class TlsServer(Controller):
    def factory(self):
        return SMTP(self.handler, authenticator=authenticate, auth_required=True, auth_require_tls=False)
if mode == "tls":
    controller = TlsServer(Keep(), hostname="127.0.0.1", port=port, ssl_context=context)
else:
    controller = Controller(Keep(), hostname="127.0.0.1", port=port, tls_context=context, require_starttls=True,
                            authenticator=authenticate, auth_required=True)
controller.start()
print("ready", flush=True)
time.sleep(120)
"#;

struct Mail {
    files: Files,
    port: u16,
    _running: Running,
}

impl Mail {
    fn start(mode: &str) -> Result<Self> {
        let openssl = require_from("openssl", "openssl")?;
        let python = python()?;
        let files = Files::new(&[("smtp.py", SMTP), ("password", "mail-password\n")])?;
        let folder = files.folder.path();
        certificate(&openssl, folder, "")?;
        certificate(&openssl, folder, "other-")?;
        let port = nobody()?.port();
        let mut command = Command::new(python);
        command.arg(folder.join("smtp.py")).arg(folder).arg(port.to_string()).arg(mode).stderr(Stdio::null());
        let running = Running::ready(&mut command)?;
        Ok(Self { files, port, _running: running })
    }

    fn channel(&self, more: &str, ca: &str) -> Result<probe::alert::Channel> {
        let port = self.port;
        self.files.channel(&format!(
            "[[notify]]\nname = 'mail'\ntype = 'email'\nhost = '127.0.0.1'\nport = {port}\nca_file = 'DIR/{ca}'\n\
             username = 'probe'\npassword_file = 'DIR/password'\nfrom = 'Probe <probe@example.org>'\n\
             to = ['ops@example.org', 'night@example.org']\ntimeout = '10s'\n{more}\n"
        ))
    }

    /// The letters so far.
    fn letters(&self) -> Result<Vec<String>> {
        let mut letters = Vec::new();
        for entry in std::fs::read_dir(self.files.folder.path())? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "eml") {
                letters.push(std::fs::read_to_string(&path)?);
            }
        }
        Ok(letters)
    }
}

/// A Python that has the server.
fn python() -> Result<PathBuf> {
    let has_it = |python: &str| {
        let status = Command::new(python).args(["-c", "import aiosmtpd"]).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    let pythons = ["/usr/bin/python3", "python3"];
    let found = || pythons.into_iter().find(|python| has_it(python)).map(PathBuf::from);
    if found().is_none() {
        install("python3-aiosmtpd");
    }
    found().ok_or_else(|| Skip("no Python has aiosmtpd (Debian: python3-aiosmtpd)".into()).into())
}

fn certificate(openssl: &Path, folder: &Path, name: &str) -> Result<()> {
    let mut command = Command::new(openssl);
    command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]);
    command.args(["-subj", "/CN=probe test", "-addext", "subjectAltName=IP:127.0.0.1"]);
    // Not an authority: what a server of one's own has is often like that.
    command.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
    command
        .arg("-keyout")
        .arg(folder.join(format!("{name}key.pem")))
        .arg("-out")
        .arg(folder.join(format!("{name}cert.pem")));
    let output = command.output()?;
    ensure!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn expect_letter(letter: &str, pid: u32) -> Result<()> {
    ensure!(letter.contains("X-To: ops@example.org,night@example.org"), "{letter}");
    ensure!(letter.contains("From: Probe <probe@example.org>") && letter.contains("Message-ID: <"), "{letter}");
    ensure!(letter.contains("text/plain; charset=utf-8"), "{letter}");
    let body = letter.split("\r\n\r\n").nth(1).context("a body")?.replace("=\r\n", "");
    for fact in [&format!("pid {pid} "), "node-1", "97.5 above 80", LINK] {
        ensure!(body.contains(fact.trim_end()), "{fact} in {letter}");
    }
    Ok(())
}

fn starttls() -> Result<()> {
    let mail = Mail::start("starttls")?;
    let channel = mail.channel("", "cert.pem")?;
    channel.check()?;
    channel.deliver(&[firing(42, &["mail"])], &links())?;
    let letters = mail.letters()?;
    expect_letter(letters.first().context("a letter")?, 42)?;
    ensure!(letters[0].contains("X-Secret: True"), "{}", letters[0]);
    ensure!(letters[0].contains("Subject: [FIRING] checkout-cpu: checkout on node-1"), "{}", letters[0]);
    // Whatever a target is called, there are our headers only.
    let mut evil = hostile(firing(43, &["mail"]));
    evil.target = format!("x\r\nBcc: all@example.org\r\n\r\n{HOSTILE}");
    channel.deliver(&[evil], &links())?;
    let letters = mail.letters()?;
    ensure!(letters.len() == 2, "{letters:#?}");
    for letter in letters {
        let head = letter.split("\r\n\r\n").next().unwrap_or_default();
        ensure!(!head.lines().any(|line| line.starts_with("Bcc")), "{letter}");
        ensure!(!head.contains("all@example.org") || head.contains("Subject"), "{letter}");
        ensure!(letter.contains("X-To: ops@example.org,night@example.org\r\n"), "{letter}");
    }
    Ok(())
}

fn repeated() -> Result<()> {
    let mail = Mail::start("starttls")?;
    let port = mail.port;
    let bench = Bench::new(&format!(
        "[[notify]]\nname = 'mail'\ntype = 'email'\nhost = '127.0.0.1'\nport = {port}\nca_file = '{}'\n\
         username = 'probe'\npassword_file = '{}'\nfrom = 'Probe <probe@example.org>'\nto = ['ops@example.org']\n\
         group_wait = 0\nrepeat_interval = '1s'\n",
        mail.files.folder.path().join("cert.pem").display(),
        mail.files.folder.path().join("password").display(),
    ))?;
    bench.journal.append(&firing(42, &["mail"]));
    let letters = poll::until("three letters", SOON, || mail.letters().ok().filter(|letters| letters.len() >= 3))?;
    let header = |name: &str| -> BTreeSet<String> {
        letters
            .iter()
            .flat_map(|letter| letter.lines())
            .filter(|line| line.starts_with(name))
            .map(str::to_owned)
            .collect()
    };
    // A server or a reader of mail drops what it has seen; what belongs together is one thread.
    ensure!(header("Message-ID: ").len() == letters.len(), "{letters:#?}");
    ensure!(header("References: ").len() == 1, "{letters:#?}");
    Ok(())
}

fn tls() -> Result<()> {
    let mail = Mail::start("tls")?;
    mail.channel("tls = 'tls'", "cert.pem")?.deliver(&[firing(7, &["mail"])], &links())?;
    expect_letter(mail.letters()?.first().context("a letter")?, 7)
}

fn mistrust() -> Result<()> {
    let mail = Mail::start("starttls")?;
    let send = |ca: &str| mail.channel("", ca)?.deliver(&[firing(1, &["mail"])], &links()).map_err(anyhow::Error::from);
    let untrusted = send("other-cert.pem").expect_err("another certificate");
    ensure!(matches!(untrusted.downcast_ref(), Some(Failure::Later { .. })), "{untrusted:#}");
    mail.files.write("password", "wrong-password")?;
    let refused = send("cert.pem").expect_err("a wrong password");
    let text = format!("{refused:#} {refused:?}");
    ensure!(matches!(refused.downcast_ref(), Some(Failure::Later { .. })) && text.contains("535"), "{text}");
    ensure!(!text.contains("wrong-password"), "{text}");
    let started = std::time::Instant::now();
    let absent = mail.files.channel(&format!(
        "[[notify]]\nname = 'm'\ntype = 'email'\nhost = '127.0.0.1'\nport = {}\nfrom = 'a@b.c'\nto = ['a@b.c']",
        nobody()?.port()
    ))?;
    ensure!(matches!(absent.deliver(&[firing(1, &["m"])], &links()), Err(Failure::Later { .. })));
    ensure!(started.elapsed() < Duration::from_secs(20) && mail.letters()?.is_empty(), "{:?}", mail.letters());
    Ok(())
}
