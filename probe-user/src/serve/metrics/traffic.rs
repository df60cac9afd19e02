//! Requests, counted by route.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;

use super::exposition::{Exposition, Kind};
use crate::serve::server::Server;

/// Upper bounds of the buckets of durations, in seconds.
const BUCKETS: [f64; 7] = [0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0];

/// What was answered so far.
#[derive(Debug, Default)]
pub struct Traffic {
    /// By method, route and status. Routes are those that there are, so that this stays small.
    routes: Mutex<BTreeMap<(&'static str, String, u16), Figures>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Figures {
    count: u64,
    seconds: f64,
    buckets: [u64; BUCKETS.len()],
}

/// Counts each request when its answer begins.
pub async fn count(State(server): State<Arc<Server>>, request: Request, next: Next) -> Response {
    let start = Instant::now();
    let route = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str).to_owned();
    let method = match request.method().as_str() {
        "GET" => "get",
        "HEAD" => "head",
        "POST" => "post",
        "PUT" => "put",
        "DELETE" => "delete",
        _ => "other",
    };
    let response = next.run(request).await;
    server.traffic.add(method, route, response.status().as_u16(), start.elapsed());
    response
}

impl Traffic {
    fn add(&self, method: &'static str, route: String, status: u16, took: Duration) {
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        let figures = routes.entry((method, route, status)).or_default();
        let seconds = took.as_secs_f64();
        figures.count += 1;
        figures.seconds += seconds;
        for (count, bound) in figures.buckets.iter_mut().zip(BUCKETS) {
            *count += u64::from(seconds <= bound);
        }
    }

    pub(super) fn write(&self, text: &mut Exposition) {
        let routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut requests = text.family("probe_http_requests_total", Kind::Counter, "Requests that were answered.");
        let mut durations: BTreeMap<&str, Figures> = BTreeMap::new();
        for ((method, route, status), figures) in &*routes {
            let labels = [("method", *method), ("route", route.as_str()), ("code", &status.to_string())];
            requests.add(&labels, figures.count as f64);
            let sum = durations.entry(route).or_default();
            sum.count += figures.count;
            sum.seconds += figures.seconds;
            for (sum, count) in sum.buckets.iter_mut().zip(figures.buckets) {
                *sum += count;
            }
        }
        let help = "Time until the answer of a request began.";
        let mut family = text.family("probe_http_request_duration_seconds", Kind::Histogram, help);
        for (route, figures) in durations {
            for (count, bound) in figures.buckets.iter().zip(BUCKETS) {
                family.add_to("_bucket", &[("route", route), ("le", &bound.to_string())], *count as f64);
            }
            family.add_to("_bucket", &[("route", route), ("le", "+Inf")], figures.count as f64);
            family.add_to("_sum", &[("route", route)], figures.seconds);
            family.add_to("_count", &[("route", route)], figures.count as f64);
        }
    }
}
