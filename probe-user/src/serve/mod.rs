//! Room: serve. HTTP: the API over the store and the live state of the collector, and the pages in the binary. Routers
//! are made here and tested without a socket; who listens where is the caller's business.
//!
//! A request passes the headers of [`guard`], the counters, compression, what makes problems of errors, and then for each
//! route who may use it and how long it may take (`route`).

mod access;
mod answer;
mod api;
mod app;
mod body;
mod guard;
mod hub;
mod listen;
mod metrics;
mod on_demand;
mod openapi;
mod page;
mod peers;
mod problem;
mod progress;
mod render;
mod route;
mod server;
mod snapshots;
mod tls;
mod watched;

use std::sync::Arc;

use anyhow::Result;
use axum::Router;
use axum::extract::Request;
use axum::http::{Extensions, HeaderMap, StatusCode, Version, header};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::IntoResponse as _;
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{DefaultPredicate, NotForContentType, Predicate as _};

pub use access::{Access, Peer, Scope};
use app::Mode;
pub use listen::{Listener, check, serve};
pub use metrics::{Exposition, Family, Kind};
pub use on_demand::Allowance;
pub use page::{Page, view, view_html, view_snapshot};
use server::Server;
pub use server::{Definitions, Limits, Setup, Source};
pub use tls::{Tls, TlsFiles};

/// Compresses as quickly as it can: somebody waits, and better ratios take seconds for a large profile.
fn compression() -> CompressionLayer {
    CompressionLayer::new().gzip(true).br(true).quality(CompressionLevel::Fastest)
}

/// The API and the application. Starts a thread that listens to the collector's events.
pub fn api(setup: Setup) -> Result<Router> {
    with_mode(setup, Mode::Daemon)
}

fn with_mode(setup: Setup, mode: Mode) -> Result<Router> {
    let routes = api::routes();
    let document = format!("{}\n", openapi::document(&routes, &setup.definitions));
    let server = Arc::new(Server::new(setup, document)?);
    let mut router = Router::new();
    for route in routes {
        router = route.add_to(router, &server);
    }
    // A gzip pprof does not get smaller, and events have to leave at once (which the default knows). What pages read in binary
    // comes to a client on this host sooner than it could be compressed.
    let is_local = server.access.is_loopback_only();
    let is_worth = move |_: StatusCode, _: Version, headers: &HeaderMap, _: &Extensions| {
        !(is_local && headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind == render::PACKED))
    };
    let compressible =
        DefaultPredicate::new().and(NotForContentType::const_new("application/octet-stream")).and(is_worth);
    let mut router = router.fallback(move |request: Request| async move {
        app::serve(mode, &request).unwrap_or_else(|| StatusCode::NOT_FOUND.into_response())
    });
    if is_local {
        router = router.layer(from_fn(guard::loopback_only));
    }
    Ok(router
        .layer(from_fn(problem::problems))
        .layer(compression().compress_when(compressible))
        .layer(from_fn_with_state(Arc::clone(&server), metrics::count))
        .layer(from_fn(guard::strict_headers))
        .with_state(server))
}
