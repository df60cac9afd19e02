//! `/metrics`: the collector's figures, the store's, and those of this process.

mod exposition;
mod live;
mod traffic;

use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use rustix::time::{ClockId, clock_gettime};

pub use exposition::{Exposition, Family, Kind};
use live::Live;
pub use traffic::{Traffic, count};

use super::problem::Problem;
use super::server::Server;
use crate::snapshot::Totals;
use crate::target::resident_bytes;

/// The media type of the text format.
const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What can be had is there: a collector that does not answer is `probe_collector_up 0`.
pub async fn metrics(State(server): State<Arc<Server>>) -> Result<Response, Problem> {
    let live = server
        .ask(|collector| {
            Ok(Live {
                status: collector.status()?,
                targets: collector.targets()?,
                functions: collector.functions(None)?,
                rules: collector.rules(None)?,
            })
        })
        .await;
    let totals = server.look(|snapshots| snapshots.totals()).await;
    let mut text = Exposition::default();
    let mut info = text.family("probe_build_info", Kind::Gauge, "The version of the server.");
    info.add(&[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    let help = "Did the collector answer?";
    text.value("probe_collector_up", Kind::Gauge, help, f64::from(u8::from(live.is_ok())));
    if let Ok(live) = live {
        live.write(&mut text);
    }
    if let Ok(Totals { snapshots, bytes }) = totals {
        text.value("probe_store_snapshots", Kind::Gauge, "Snapshots in the store.", snapshots as f64);
        text.value("probe_store_bytes", Kind::Gauge, "Bytes of their files.", bytes as f64);
    }
    own(&server, &mut text);
    server.traffic.write(&mut text);
    for source in &server.sources {
        source(&mut text);
    }
    Ok(([(header::CONTENT_TYPE, MEDIA_TYPE)], text.into_text()).into_response())
}

fn own(server: &Server, text: &mut Exposition) {
    let mut running = text.family("probe_on_demand_running", Kind::Gauge, "Measurements on demand that are running.");
    running.add(&[("kind", "record")], server.recordings.running() as f64);
    running.add(&[("kind", "dump")], server.dumps.running() as f64);
    text.value("probe_event_listeners", Kind::Gauge, "Clients that listen to events.", server.hub.listeners() as f64);
    let taken = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = taken.tv_sec as f64 + taken.tv_nsec as f64 / 1e9;
    text.value("process_cpu_seconds_total", Kind::Counter, "Processor time that the server took.", seconds);
    if let Some(bytes) = resident_bytes(std::process::id()) {
        text.value("process_resident_memory_bytes", Kind::Gauge, "Resident memory of the server.", bytes as f64);
    }
    let help = "When the server was started, since the epoch.";
    text.value("process_start_time_seconds", Kind::Gauge, help, server.started.0 as f64 / 1e9);
}
