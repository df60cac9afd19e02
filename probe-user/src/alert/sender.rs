//! The senders: one thread for each channel, which delivers its messages in order, and again with growing pauses when
//! that fails, for a day.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use super::outbox::age;
use super::{Channel, Outbox};

/// How long a message is tried.
const GIVE_UP: Duration = Duration::from_secs(24 * 3600);

/// The pause after so many failed attempts: 1 s, 2 s, 4 s and so on, at most five minutes.
pub fn backoff(attempts: u32) -> Duration {
    Duration::from_secs(1u64.checked_shl(attempts).unwrap_or(u64::MAX).min(300))
}

/// Delivers what is in an outbox until that is closed.
#[derive(Debug)]
pub struct Sender {
    outbox: Arc<Outbox>,
    threads: Vec<JoinHandle<()>>,
}

impl Sender {
    /// Starts a thread for each channel.
    pub fn start(outbox: Arc<Outbox>, channels: &[Channel]) -> std::io::Result<Self> {
        outbox.keep_only(&channels.iter().map(|channel| channel.name.as_str()).collect::<Vec<_>>());
        let start = |channel: &Channel| {
            let (outbox, channel) = (Arc::clone(&outbox), channel.clone());
            std::thread::Builder::new().name("alert".into()).spawn(move || work(&outbox, &channel))
        };
        let threads = channels.iter().map(start).collect::<std::io::Result<_>>()?;
        Ok(Self { outbox, threads })
    }

    /// Stops: waits at most `patience` for deliveries that are under way. They are repeated after the next start if they
    /// take longer.
    pub fn stop(self, patience: Duration) {
        self.outbox.close();
        let end = std::time::Instant::now() + patience;
        while self.threads.iter().any(|thread| !thread.is_finished()) && std::time::Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn work(outbox: &Outbox, channel: &Channel) {
    while let Some((entry, attempts)) = outbox.next(&channel.name) {
        match channel.deliver(&entry.message) {
            Ok(()) => {
                tracing::info!("told {} of {}", channel.name, entry.message.rule);
                outbox.done(entry.id, true);
            }
            Err(error) if age(entry.id) > GIVE_UP => {
                tracing::error!("gave up telling {} of {} after a day: {error:#}", channel.name, entry.message.rule);
                outbox.done(entry.id, false);
            }
            Err(error) => {
                let pause = backoff(attempts);
                // The first failure is news, the further ones are not.
                if attempts == 0 {
                    tracing::warn!(
                        "cannot tell {} of {}, will go on trying: {error:#}",
                        channel.name,
                        entry.message.rule
                    );
                } else {
                    tracing::debug!("attempt {} for {}: {error:#}", attempts + 1, channel.name);
                }
                outbox.again(entry.id, pause);
            }
        }
    }
}

#[cfg(test)]
mod tests;
