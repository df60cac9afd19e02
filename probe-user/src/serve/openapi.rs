//! The OpenAPI 3.1 document, made of the routes and of the types that they take and give.

use schemars::generate::SchemaSettings;
use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::access::Scope;
use super::problem::{Document, MEDIA_TYPE};
use super::route::Route;
use super::server::Definitions;
use crate::control::{FUNCTION_SCHEMA, RULE_SCHEMA};

/// The document.
pub fn document(routes: &[Route], definitions: &Definitions) -> Value {
    let settings = || {
        let mut settings = SchemaSettings::draft2020_12();
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
        settings
    };
    // What is written always has all of its keys, what is read may lack some.
    let mut given = settings().for_serialize().into_generator();
    let mut taken = settings().for_deserialize().into_generator();
    let problem = given.subschema_for::<Document>();
    let mut paths: Map<String, Value> = Map::new();
    for route in routes {
        let operation = operation(route, &mut given, &mut taken, &problem);
        if let Value::Object(methods) = paths.entry(route.path).or_insert_with(|| json!({})) {
            methods.insert(route.method.to_owned(), operation);
        }
    }
    let mut schemas = taken.take_definitions(true);
    schemas.extend(given.take_definitions(true));
    schemas.insert(FUNCTION_SCHEMA.into(), definitions.function.clone());
    schemas.insert(RULE_SCHEMA.into(), definitions.rule.clone());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "probe",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Snapshots of breaches, and the live state of the daemon. docs/api.md explains it.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token of [serve] token_file, with the scope `read` or `control`. None is needed where \
                                    the server listens on loopback without one.",
                },
                "certificate": {"type": "mutualTLS", "description": "Where [serve] client_ca_file is set."},
            },
        },
    })
}

fn operation(route: &Route, given: &mut SchemaGenerator, taken: &mut SchemaGenerator, problem: &Schema) -> Value {
    let mut parameters = path_parameters(route.path);
    if let Some(query) = route.query {
        parameters.extend(query_parameters(query(taken).to_value(), taken));
    }
    let mut responses = Map::new();
    for (status, meaning, media_type, schema) in &route.answers {
        let mut response = json!({"description": meaning});
        if !media_type.is_empty() {
            let schema = schema.map_or_else(|| json!({}), |schema| schema(given).to_value());
            response["content"] = json!({*media_type: {"schema": schema}});
        }
        // Several media types of one status are one response.
        match responses.get_mut(&status.to_string()) {
            Some(Value::Object(known)) => {
                if let (Some(Value::Object(known)), Value::Object(more)) =
                    (known.get_mut("content"), &response["content"])
                {
                    known.extend(more.clone());
                }
            }
            _ => drop(responses.insert(status.to_string(), response)),
        }
    }
    let problems = json!({
        "description": "A problem, as RFC 9457 has it.",
        "content": {MEDIA_TYPE: {"schema": problem}},
    });
    responses.insert("default".into(), problems);
    let mut operation = json!({
        "operationId": operation_id(route),
        "summary": route.about,
        "parameters": parameters,
        "responses": responses,
    });
    if let Some(body) = route.body {
        operation["requestBody"] = json!({"content": {"application/json": {"schema": body(taken).to_value()}}});
    }
    operation["security"] = match route.scope {
        Scope::Open => json!([]),
        // The scopes of a scheme that is no OAuth are roles (OpenAPI 3.1).
        scope => json!([{"token": [scope.name()]}, {"certificate": [scope.name()]}, {}]),
    };
    operation
}

/// `get_snapshots_id_profile`.
fn operation_id(route: &Route) -> String {
    let path = route.path.trim_start_matches("/api/v1");
    let words = path.split(['/', '.', '{', '}']).filter(|word| !word.is_empty());
    words.fold(route.method.to_owned(), |id, word| format!("{id}_{word}"))
}

fn path_parameters(path: &str) -> Vec<Value> {
    let names = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    names.map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}})).collect()
}

/// The fields of a structure as parameters.
fn query_parameters(schema: Value, taken: &mut SchemaGenerator) -> Vec<Value> {
    // A root schema carries what it refers to along; the document has one place for all of it.
    if let Some(Value::Object(definitions)) = schema.pointer("/components/schemas") {
        taken.definitions_mut().extend(definitions.clone());
    }
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    let Some(Value::Object(fields)) = schema.get("properties") else { return Vec::new() };
    let parameter = |(name, schema): (&String, &Value)| {
        let mut schema = schema.clone();
        let description = schema.as_object_mut().and_then(|schema| schema.remove("description"));
        json!({
            "name": name,
            "in": "query",
            "required": required.iter().any(|required| required == name),
            "description": description.unwrap_or_default(),
            "schema": schema,
        })
    };
    fields.iter().map(parameter).collect()
}
