//! The API: a handler for each route, and the list of them.

mod alerts;
mod definitions;
mod diff;
mod events;
mod health;
mod parameters;
mod snapshots;
mod targets;

pub use parameters::Parameters;
pub use snapshots::{check_stretch, shown};

use schemars::JsonSchema;
use serde::Serialize;

use super::render::{PACKED, ProfileFormat};
use super::route::{Route, schema};
use super::{access::Scope, metrics};
use crate::control::{DumpRequest, FunctionState, RecordRequest, RuleState, Status, function_schema, rule_schema};
use crate::export::flamegraph::{Comparison, Data};
use crate::snapshot::Sidecar;

const JSON: &str = "application/json";

/// Every route.
pub fn routes() -> Vec<Route> {
    let mut routes = vec![
        Route::new(
            "get",
            "/api/v1/snapshots",
            "The stored snapshots, newest first, a page at a time.",
            snapshots::list,
        )
        .query::<snapshots::ListQuery>()
        .json(schema::<snapshots::List>),
        Route::new("get", "/api/v1/snapshots/{id}", "What is known of a breach: the sidecar.", snapshots::get)
            .json(schema::<Sidecar>),
        Route::new("delete", "/api/v1/snapshots/{id}", "Removes a snapshot.", snapshots::remove).answer(
            204,
            "It is gone.",
            "",
            None,
        ),
        profiles(
            Route::new("get", "/api/v1/snapshots/{id}/profile", "A profile of a snapshot.", snapshots::profile)
                .query::<snapshots::ProfileQuery>(),
        ),
        Route::new("get", "/api/v1/diff", "Two stored profiles compared.", diff::diff)
            .query::<diff::Query>()
            .json(schema::<Comparison<'_>>)
            .answer(200, "As asked for.", PACKED, None),
        Route::new("get", "/api/v1/alerts", "What was told of breaches, newest first, a page at a time.", alerts::list)
            .query::<alerts::Query>()
            .json(schema::<alerts::List>),
        Route::new("get", "/api/v1/status", "How the collector is.", targets::status).json(schema::<Status>),
        Route::new("get", "/api/v1/targets", "The targets with their processes.", targets::list)
            .json(schema::<targets::List>),
        Route::new(
            "get",
            "/api/v1/targets/{name}/threads",
            "The threads of a target, the busiest first.",
            targets::threads,
        )
        .json(schema::<targets::Threads>),
        profiles(
            Route::new(
                "post",
                "/api/v1/targets/{name}/record",
                "Records a target; answers when that is over.",
                targets::record,
            )
            .patient()
            .query::<targets::FormatQuery>()
            .body(schema::<RecordRequest>),
        ),
        profiles(
            Route::new(
                "post",
                "/api/v1/targets/{name}/dump",
                "The stack of every thread of a target, now.",
                targets::dump,
            )
            .query::<targets::FormatQuery>()
            .body(schema::<DumpRequest>),
        ),
    ];
    routes.extend(definitions::routes::<FunctionState>(
        ["/api/v1/functions", "/api/v1/functions/{name}"],
        [
            "The functions that are timed.",
            "A function that is timed.",
            "Has a function timed.",
            "Ends the timing of a function.",
        ],
        function_schema,
    ));
    routes.extend(definitions::routes::<RuleState>(
        ["/api/v1/rules", "/api/v1/rules/{name}"],
        ["The rules.", "A rule.", "Takes a rule in.", "Removes a rule."],
        rule_schema,
    ));
    routes.extend([
        Route::new("get", "/api/v1/events", "What happens to rules, as server-sent events.", events::events)
            .patient()
            .query::<events::Query>()
            .answer(200, "Events; the data of each is an `Event`.", "text/event-stream", Some(schema::<events::Event>)),
        Route::new("get", "/api/v1/openapi.json", "This document.", health::document).open().json(any),
        Route::new("get", "/metrics", "Metrics of the daemon, in the text format of Prometheus.", metrics::metrics)
            .answer(200, "As asked for.", "text/plain", Some(schema::<String>)),
        Route::new(
            "get",
            "/healthz",
            "Is the server alive, and does no thread hang that alerts need?",
            health::healthz,
        )
        .open()
        .json(schema::<Health>),
        Route::new("get", "/readyz", "Can the server do its work?", health::readyz).open().json(schema::<Health>),
    ]);
    debug_assert!(routes.iter().all(|route| route.method == "get" || route.scope == Scope::Control));
    routes
}

fn any(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "object"})
}

/// The answers of a route that gives a profile in any format.
fn profiles(mut route: Route) -> Route {
    for (format, schema) in [
        (ProfileFormat::Pprof, None),
        (ProfileFormat::Folded, None),
        (ProfileFormat::Svg, None),
        (ProfileFormat::Html, None),
        (ProfileFormat::Flamegraph, Some(schema::<Data<'_>> as super::route::SchemaOf)),
        (ProfileFormat::Packed, None),
    ] {
        let meaning =
            "The profile. As `application/json` it is what `format` asks for; the schema is that of `flamegraph`.";
        route = route.answer(200, meaning, format.media_type(), schema);
    }
    route
}

/// That all is well.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Health {
    /// Always `ok`; a problem otherwise.
    status: &'static str,
}
