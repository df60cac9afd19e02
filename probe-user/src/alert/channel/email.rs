//! E-mail, as plain text, by SMTP with TLS.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use lettre::message::header::ContentType;
use lettre::message::{Mailbox, Message};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, CertificateStore, Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{SmtpTransport, Transport as _};

use crate::alert::fit::{Measure, cut, plain};
use crate::alert::secret::redact;
use crate::alert::story::Style;
use crate::alert::{Batch, Failure, Secret};

/// Longest subject, in bytes.
const MAX_SUBJECT: usize = 200;

/// Longest text, in bytes.
const MAX_TEXT: usize = 64 << 10;

/// See the head of this file.
#[derive(Clone, Debug, PartialEq)]
pub struct Email {
    /// The server.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the connection is made secret.
    pub security: Security,
    /// Certificates (PEM) to trust instead of the public ones.
    pub ca_file: Option<PathBuf>,
    /// User name and password.
    pub login: Option<(String, Secret)>,
    /// The sender.
    pub from: Mailbox,
    /// Who gets it; at least one.
    pub to: Vec<Mailbox>,
    /// How long each step may take.
    pub timeout: Duration,
}

/// How a connection is made secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// It begins in plain text; TLS is demanded before anything is said.
    StartTls,
    /// TLS from the first byte.
    Tls,
    /// Not at all: for a server on this host.
    None,
}

impl Email {
    pub(super) fn deliver(&self, batch: &Batch<'_>) -> Result<(), Failure> {
        let message = self.message(batch).map_err(|error| Failure::refused(format!("{error:#}")))?;
        let (transport, secrets) = self.transport()?;
        transport.send(&message).map(drop).map_err(|error| {
            let mut text = format!("{}:{}: {error}", self.host, self.port);
            let mut cause = std::error::Error::source(&error);
            while let Some(error) = cause {
                let words = error.to_string();
                if !text.contains(&words) {
                    text = format!("{text}: {words}");
                }
                cause = error.source();
            }
            let why = redact(&crate::text::sanitize(&text), &secrets);
            let code = error.status().map(u16::from);
            match code {
                // Who may send, and to whom: somebody can put that right. The rest of 5xx is about the message.
                Some(530..=535 | 538 | 550 | 551 | 553) => Failure::later(why),
                Some(500..600) => Failure::refused(why),
                _ => Failure::later(why),
            }
        })
    }

    pub(super) fn check(&self) -> Result<()> {
        self.transport().map(drop)
    }

    fn transport(&self) -> Result<(SmtpTransport, Vec<String>)> {
        let mut secrets = Vec::new();
        let tls = match self.security {
            Security::None => Tls::None,
            Security::StartTls => Tls::Required(self.tls()?),
            Security::Tls => Tls::Wrapper(self.tls()?),
        };
        let hello = rustix::system::uname().nodename().to_str().unwrap_or("localhost").to_owned();
        let mut builder = SmtpTransport::builder_dangerous(&self.host)
            .port(self.port)
            .tls(tls)
            .timeout(Some(self.timeout))
            .hello_name(ClientId::Domain(hello));
        if let Some((user, password)) = &self.login {
            let password = password.read()?;
            secrets.push(password.clone());
            builder = builder.credentials(Credentials::new(user.clone(), password));
        }
        Ok((builder.build(), secrets))
    }

    fn tls(&self) -> Result<TlsParameters> {
        let mut builder = TlsParameters::builder(self.host.clone());
        if let Some(path) = &self.ca_file {
            let pem = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            let certificates =
                Certificate::from_pem(&pem).with_context(|| format!("{} is not a PEM file", path.display()))?;
            builder = builder.certificate_store(CertificateStore::None).add_root_certificate(certificates);
        }
        builder.build().context("cannot set up TLS")
    }

    fn message(&self, batch: &Batch<'_>) -> Result<Message> {
        // No line may end in a header, whatever a target is called.
        let title: String = batch.title().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let mut builder = Message::builder()
            .from(self.from.clone())
            .subject(cut(&title, MAX_SUBJECT, Measure::Bytes, plain))
            .header(ContentType::TEXT_PLAIN);
        for to in &self.to {
            builder = builder.to(to.clone());
        }
        if let Some(notice) = batch.notices.first() {
            // The same when it is sent again, and one thread for an alert and its end.
            let domain = self.from.email.domain();
            builder = builder.message_id(Some(format!("<{}.{}@{domain}>", notice.id, batch.notices.len())));
            builder = builder.references(format!("<{}@{domain}>", notice.fingerprint));
        }
        let text = Style::PLAIN.compose(batch, MAX_TEXT);
        Ok(builder.body(text + "\n")?)
    }
}
