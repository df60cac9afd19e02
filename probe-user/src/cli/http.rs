//! HTTP in the server: the API over the store and the collector. An address that is taken is tried again: alerts are sent
//! meanwhile.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use tokio::sync::watch;

use crate::alert::Dispatcher;
use crate::config::{self, Config};
use crate::control::transport::Client;
use crate::daemon::JOURNAL;
use crate::serve::{Exposition, Kind, Limits, Setup, Source, api, serve};
use crate::snapshot::Store;

/// How often an address is tried.
const RETRY: Duration = Duration::from_secs(5);

/// Serves until it is to stop.
pub(super) async fn run(config: Config, dispatcher: Arc<Dispatcher>, mut stop: watch::Receiver<bool>) {
    let mut is_told = false;
    while !*stop.borrow() {
        let bound = router(&config, &dispatcher).and_then(|router| Ok((router, config.http.bind()?)));
        match bound {
            Ok((router, listener)) => {
                let address = listener.socket.local_addr().map_or(config.http.listen, |address| address);
                tracing::info!("listening on {address}");
                let mut stopping = stop.clone();
                let stopped = async move {
                    let _ = stopping.wait_for(|is_stopping| *is_stopping).await;
                };
                if let Err(error) = serve(listener, router, stopped).await {
                    tracing::error!("HTTP: {error:#}");
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut is_told, true) {
                    tracing::error!("{error:#}; tried again every {} s, alerts are sent", RETRY.as_secs());
                }
                let _ = tokio::time::timeout(RETRY, stop.changed()).await;
            }
        }
    }
}

fn router(config: &Config, dispatcher: &Arc<Dispatcher>) -> Result<Router> {
    let setup = Setup {
        collector: Arc::new(Client::new(&config.collector.socket)),
        store: Store::read(&config.store.path, config.store.limits),
        journal: config.store.path.join(JOURNAL),
        access: config.http.access()?,
        limits: Limits::default(),
        definitions: config::definitions(),
        metrics: vec![alerts(Arc::clone(dispatcher))],
    };
    api(setup).context("the API cannot be served")
}

/// The figures of the channels.
fn alerts(dispatcher: Arc<Dispatcher>) -> Source {
    Box::new(move |text: &mut Exposition| {
        let channels = dispatcher.figures();
        type Figure = fn(&crate::alert::ChannelFigures) -> f64;
        let families: [(&str, Kind, &str, Figure); 6] = [
            ("probe_alerts_sent_total", Kind::Counter, "Notices that a channel has taken.", |f| f.sent as f64),
            ("probe_alerts_failed_total", Kind::Counter, "Attempts that failed.", |f| f.failed as f64),
            ("probe_alerts_retried_total", Kind::Counter, "Attempts that were not the first.", |f| f.retried as f64),
            ("probe_alerts_dead_total", Kind::Counter, "Notices that were given up.", |f| f.dead as f64),
            ("probe_alerts_queued", Kind::Gauge, "Notices that wait.", |f| f.queued as f64),
            ("probe_alerts_oldest_seconds", Kind::Gauge, "How long the oldest waits.", |f| f.oldest_seconds as f64),
        ];
        let help = "Notices for a channel that is not configured.";
        text.value("probe_alerts_unrouted_total", Kind::Counter, help, dispatcher.unrouted() as f64);
        for (name, kind, help, figure) in families {
            let mut family = text.family(name, kind, help);
            for channel in &channels {
                family.add(&[("channel", &channel.channel), ("type", channel.kind)], figure(channel));
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::alert::{Journal, Links, Notice};

    #[test]
    fn notices_for_nobody_are_in_the_metrics() {
        let folder = tempfile::tempdir().expect("a folder");
        let journal = Journal::open(&folder.path().join("journal"), None).expect("opens");
        let started = Dispatcher::start(journal.path(), &folder.path().join("state"), &[], Links::default());
        let source = alerts(Arc::new(started.expect("starts")));
        journal.append(&Notice { channels: vec!["nobody".into()], ..Notice::default() });
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let mut text = Exposition::default();
            source(&mut text);
            let text = text.into_text();
            if text.contains("# TYPE probe_alerts_unrouted_total counter\nprobe_alerts_unrouted_total 1\n") {
                break;
            }
            assert!(Instant::now() < end, "{text}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
