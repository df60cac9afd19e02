//! `Route`: a path with all that is known of it. The router, the scopes and the OpenAPI document are made of the same
//! list, so that none can know a route which the others do not.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::handler::Handler;
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, on};
use schemars::{JsonSchema, Schema, SchemaGenerator};

use super::access::{Peer, Scope};
use super::guard;
use super::problem::Problem;
use super::server::Server;

/// How long a request may take, unless its route says otherwise.
const PATIENCE: Duration = Duration::from_secs(30);

/// Makes the schema of a type.
pub type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// A method of a path.
pub struct Route {
    pub method: &'static str,
    pub path: &'static str,
    pub scope: Scope,
    /// One sentence.
    pub about: &'static str,
    pub query: Option<SchemaOf>,
    pub body: Option<SchemaOf>,
    /// Status, meaning, media type and schema of each answer that is no problem.
    pub answers: Vec<(u16, &'static str, &'static str, Option<SchemaOf>)>,
    patience: Option<Duration>,
    handler: MethodRouter<Arc<Server>>,
}

impl Route {
    /// `method` in lower case.
    pub fn new<H, T>(method: &'static str, path: &'static str, about: &'static str, handler: H) -> Self
    where
        H: Handler<T, Arc<Server>>,
        T: 'static,
    {
        let filter = match method {
            "put" => MethodFilter::PUT,
            "post" => MethodFilter::POST,
            "delete" => MethodFilter::DELETE,
            _ => MethodFilter::GET,
        };
        Self {
            method,
            path,
            scope: if method == "get" { Scope::Read } else { Scope::Control },
            about,
            query: None,
            body: None,
            answers: Vec::new(),
            patience: Some(PATIENCE),
            handler: on(filter, handler),
        }
    }

    /// Needs no permission.
    pub fn open(mut self) -> Self {
        self.scope = Scope::Open;
        self
    }

    /// Takes as long as it takes.
    pub fn patient(mut self) -> Self {
        self.patience = None;
        self
    }

    /// Takes the fields of `T` as query parameters.
    pub fn query<T: JsonSchema>(mut self) -> Self {
        self.query = Some(|generator| generator.root_schema_for::<T>());
        self
    }

    /// Takes a body of JSON.
    pub fn body(mut self, schema: SchemaOf) -> Self {
        self.body = Some(schema);
        self
    }

    /// Answers with JSON.
    pub fn json(self, schema: SchemaOf) -> Self {
        self.answer(200, "As asked for.", "application/json", Some(schema))
    }

    /// Answers with something.
    pub fn answer(
        mut self,
        status: u16,
        meaning: &'static str,
        media_type: &'static str,
        schema: Option<SchemaOf>,
    ) -> Self {
        self.answers.push((status, meaning, media_type, schema));
        self
    }

    /// Adds it to a router.
    pub fn add_to(self, router: Router<Arc<Server>>, server: &Arc<Server>) -> Router<Arc<Server>> {
        let rule = Rule { server: Arc::clone(server), scope: self.scope, patience: self.patience };
        let handler: MethodRouter<Arc<Server>, Infallible> = self.handler;
        router.route(self.path, handler.route_layer(from_fn_with_state(rule, admit)))
    }
}

/// The schema of a type, for [`Route::json`] and [`Route::body`].
pub fn schema<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

#[derive(Clone)]
struct Rule {
    server: Arc<Server>,
    scope: Scope,
    patience: Option<Duration>,
}

/// Lets in who has the scope, and waits as long as the route may take.
async fn admit(State(rule): State<Rule>, request: Request, next: Next) -> Response {
    if let Err(problem) = check(&rule, &request) {
        return problem.into_response();
    }
    let Some(patience) = rule.patience else { return next.run(request).await };
    tokio::time::timeout(patience, next.run(request)).await.unwrap_or_else(|_| {
        let detail = format!("the request took longer than {} seconds", patience.as_secs());
        Problem::new(StatusCode::GATEWAY_TIMEOUT, detail).into_response()
    })
}

fn check(rule: &Rule, request: &Request) -> Result<(), Problem> {
    if rule.scope == Scope::Open {
        return Ok(());
    }
    let peer = request.extensions().get::<Peer>().copied().unwrap_or_default();
    let (scope, is_said) = rule.server.access.of(request.headers(), peer)?;
    if scope < rule.scope {
        let detail = format!("this needs the scope `{}`, the client has `{}`", rule.scope.name(), scope.name());
        return Err(Problem::new(StatusCode::FORBIDDEN, detail).hint("scopes are in [serve] token_file"));
    }
    if rule.scope == Scope::Control && !is_said { guard::same_site(request) } else { Ok(()) }
}
