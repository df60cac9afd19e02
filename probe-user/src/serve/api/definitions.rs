//! Functions and rules: what there is, and changes of it. Both work the same way.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use serde_json::{Value, json};

use crate::control::{Collector, Definition, FunctionState, Put, Refusal, RuleState};
use crate::serve::answer;
use crate::serve::body::Json;
use crate::serve::problem::Problem;
use crate::serve::route::{Route, SchemaOf, schema};
use crate::serve::server::Server;

/// A kind of thing that has a definition and a state.
pub trait Kind: Serialize + JsonSchema + Send + Sized + 'static {
    /// Their name in answers.
    const PLURAL: &'static str;
    /// What one is called.
    const SINGULAR: &'static str;

    fn definition(&self) -> &Definition;
    /// All of them, or that of this name.
    fn read(collector: &dyn Collector, name: Option<&str>) -> Result<Vec<Self>, Refusal>;
    fn put(collector: &dyn Collector, name: &str, definition: &Definition) -> Result<Put, Refusal>;
    fn remove(collector: &dyn Collector, name: &str) -> Result<(), Refusal>;
}

impl Kind for FunctionState {
    const PLURAL: &'static str = "functions";
    const SINGULAR: &'static str = "function";

    fn definition(&self) -> &Definition {
        &self.definition
    }

    fn read(collector: &dyn Collector, name: Option<&str>) -> Result<Vec<Self>, Refusal> {
        collector.functions(name)
    }

    fn put(collector: &dyn Collector, name: &str, definition: &Definition) -> Result<Put, Refusal> {
        collector.put_function(name, definition)
    }

    fn remove(collector: &dyn Collector, name: &str) -> Result<(), Refusal> {
        collector.remove_function(name)
    }
}

impl Kind for RuleState {
    const PLURAL: &'static str = "rules";
    const SINGULAR: &'static str = "rule";

    fn definition(&self) -> &Definition {
        &self.definition
    }

    fn read(collector: &dyn Collector, name: Option<&str>) -> Result<Vec<Self>, Refusal> {
        collector.rules(name)
    }

    fn put(collector: &dyn Collector, name: &str, definition: &Definition) -> Result<Put, Refusal> {
        collector.put_rule(name, definition)
    }

    fn remove(collector: &dyn Collector, name: &str) -> Result<(), Refusal> {
        collector.remove_rule(name)
    }
}

/// The routes of a kind, with what each of them does.
pub fn routes<K: Kind>(
    [all, one]: [&'static str; 2],
    [list, read, change, end]: [&'static str; 4],
    definition: SchemaOf,
) -> [Route; 4] {
    [
        Route::new("get", all, list, list_all::<K>).json(list_schema::<K>),
        Route::new("get", one, read, get::<K>).json(schema::<K>),
        Route::new("put", one, change, put::<K>)
            .body(definition)
            .answer(200, "It stands for the former one.", "application/json", Some(schema::<K>))
            .answer(201, "There was none of that name.", "application/json", Some(schema::<K>)),
        Route::new("delete", one, end, remove::<K>).answer(204, "It is gone.", "", None),
    ]
}

fn list_schema<K: Kind>(generator: &mut SchemaGenerator) -> Schema {
    let items = generator.subschema_for::<Vec<K>>();
    schemars::json_schema!({
        "type": "object",
        "properties": {K::PLURAL: items},
        "required": [K::PLURAL],
    })
}

async fn list_all<K: Kind>(State(server): State<Arc<Server>>, headers: HeaderMap) -> Result<Response, Problem> {
    let all = server.ask(|collector| K::read(collector, None)).await?;
    answer::json(&headers, &json!({K::PLURAL: all}))
}

async fn get<K: Kind>(
    State(server): State<Arc<Server>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    answer::json(&headers, &find::<K>(&server, name).await?)
}

async fn find<K: Kind>(server: &Server, name: String) -> Result<K, Problem> {
    let asked = name.clone();
    let found = server.ask(move |collector| K::read(collector, Some(&asked))).await?;
    let is = |state: &K| state.definition().0.get("name").and_then(Value::as_str) == Some(&name);
    let missing = || {
        let hint = format!("`GET /api/v1/{}` lists them", K::PLURAL);
        Problem::not_found(format!("there is no {} named `{name}`", K::SINGULAR)).hint(hint)
    };
    found.into_iter().find(is).ok_or_else(missing)
}

async fn put<K: Kind>(
    State(server): State<Arc<Server>>,
    Path(name): Path<String>,
    Json(definition): Json<Definition>,
) -> Result<Response, Problem> {
    let asked = name.clone();
    let put = server.ask(move |collector| K::put(collector, &asked, &definition)).await?;
    let state = find::<K>(&server, name.clone()).await?;
    let status = if put == Put::Created { StatusCode::CREATED } else { StatusCode::OK };
    let mut response = answer::fresh(status, &state)?;
    if let Ok(place) = HeaderValue::try_from(format!("/api/v1/{}/{}", K::PLURAL, escaped(&name))) {
        response.headers_mut().insert(header::LOCATION, place);
    }
    Ok(response)
}

async fn remove<K: Kind>(State(server): State<Arc<Server>>, Path(name): Path<String>) -> Result<Response, Problem> {
    server.ask(move |collector| K::remove(collector, &name)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// A name as a part of a path.
fn escaped(name: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    name.bytes().map(escape).collect()
}
