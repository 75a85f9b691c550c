//! Shell. The OpenAPI 3.1 document, made from the route table and the wire types, and committed as `openapi.json`.
//!
//! The daemon serves the committed text; a test makes it anew and compares, so that what is reviewed is what is served.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use utoipa::openapi::{RefOr, Schema};

use super::authenticate::Permission;
use super::engine::Engine;
use super::failure::{Problem, ProblemKind};
use super::routes::{Gives, Route, SchemaOf, Takes, Verb, routes};
use super::wire;

/// The document as it is committed and served.
pub const DOCUMENT: &str = include_str!("openapi.json");

/// The document as table and types say it now, with a line feed at its end.
pub fn document<E: Engine>() -> String {
    let mut schemas = Schemas::default();
    for schema in [
        SchemaOf::of::<Problem>(),
        SchemaOf::of::<wire::Item>(),
        SchemaOf::of::<wire::StoppedLine>(),
        SchemaOf::of::<wire::SummaryLine>(),
        SchemaOf::of::<wire::ResponseItem>(),
        SchemaOf::of::<wire::ResponsesSummaryLine>(),
    ] {
        schemas.refer(schema);
    }
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for route in routes::<E>() {
        let operation = operation(&route, &mut schemas);
        paths.entry(route.path).or_default().insert(route.verb.as_str().to_ascii_lowercase(), operation);
    }
    let document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "smkid",
            "version": "1",
            "description": "HSM-backed SMKI key management. HTTP/1.1 over the Unix socket /run/smkid/smkid.sock; the account \
                at the other end is known by its peer credentials, and its UNIX groups give its role.",
            "license": { "name": "MIT", "identifier": "MIT" },
        },
        "servers": [{ "url": "/", "description": "By `curl --unix-socket /run/smkid/smkid.sock http://smkid/v1/status`." }],
        "paths": paths,
        "components": { "schemas": schemas.0 },
    });
    let mut text = serde_json::to_string_pretty(&document).expect("a JSON value has a text");
    text.push('\n');
    text
}

#[derive(Default)]
struct Schemas(BTreeMap<String, RefOr<Schema>>);

impl Schemas {
    /// Puts the schema, and those it refers to, among the components; says how to refer to it.
    fn refer(&mut self, schema: SchemaOf) -> Value {
        let name = (schema.name)().into_owned();
        let mut referred = Vec::new();
        (schema.referred)(&mut referred);
        self.0.extend(referred);
        self.0.insert(name.clone(), (schema.schema)());
        json!({ "$ref": format!("#/components/schemas/{name}") })
    }
}

fn operation<E: Engine>(route: &Route<E>, schemas: &mut Schemas) -> Value {
    let mut operation = json!({
        "operationId": route.name,
        "summary": route.summary,
        "description": format!("Role needed: {}.", route.permission.roles()),
        "responses": responses(route, schemas),
    });
    let mut parameters: Vec<Value> = route
        .path
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": path_schema(name) }))
        .collect();
    match route.takes {
        Takes::Nothing => {}
        Takes::Query(schema) => parameters.extend(query_parameters(schema)),
        Takes::Json(schema, limit) | Takes::JsonAndQuery(schema, limit, _) => {
            if let Takes::JsonAndQuery(_, _, query) = route.takes {
                parameters.extend(query_parameters(query));
            }
            operation["requestBody"] = json!({
                "required": true,
                "description": format!("At most {limit} octets."),
                "content": { "application/json": { "schema": schemas.refer(schema) } },
            });
        }
        Takes::Octets => {
            parameters.push(json!({
                "name": "sha256", "in": "query", "required": false, "schema": path_schema("sha256"),
                "description": "The digest of the octets; others are refused.",
            }));
            operation["requestBody"] = json!({
                "required": true,
                "description": "Octets: a device list is canonical text, one Device a line, sorted, distinct, LF.",
                "content": { "application/octet-stream": { "schema": { "type": "string" } } },
            });
        }
    }
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    operation
}

/// The names that stand in paths, in their forms.
fn path_schema(name: &str) -> Value {
    let pattern = match name {
        "incident" => "^[A-Z0-9-]{1,40}$",
        "determination" | "presentation" | "request" => "^[0-9a-f]{32}$",
        "key" | "person" | "token" => "^[a-z0-9-]{1,32}$",
        "device" => "^[0-9A-F]{16}$",
        "sha256" => "^[0-9a-f]{64}$",
        "index" => return json!({ "type": "integer", "format": "int64", "minimum": 0 }),
        other => panic!("{{{other}}} stands in a path of the route table and has no form here"),
    };
    json!({ "type": "string", "pattern": pattern })
}

fn query_parameters(schema: SchemaOf) -> Vec<Value> {
    let schema = serde_json::to_value((schema.schema)()).expect("a schema has a JSON form");
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let Some(properties) = schema["properties"].as_object() else { return Vec::new() };
    properties
        .iter()
        .map(|(name, schema)| {
            let mut schema = schema.clone();
            // An absent parameter is left out; there is no null in a query.
            if let Some(types) = schema["type"].as_array().and_then(|types| types.first().cloned()) {
                schema["type"] = types;
            }
            json!({ "name": name, "in": "query", "required": required.contains(&name.as_str()), "schema": schema })
        })
        .collect()
}

fn responses<E: Engine>(route: &Route<E>, schemas: &mut Schemas) -> Value {
    let schema = match route.gives {
        Gives::Json(schema) => schemas.refer(schema),
        Gives::OpenApi => json!({ "type": "object" }),
        Gives::Lines => json!({
            "description": "One JSON object a line: items; why nothing more was signed, if it was stopped; and a summary as the \
                last. An answer without its summary was cut.",
            "oneOf": [
                { "$ref": "#/components/schemas/Item" },
                { "$ref": "#/components/schemas/StoppedLine" },
                { "$ref": "#/components/schemas/SummaryLine" },
            ],
        }),
        Gives::ResponseLines => json!({
            "description": "One JSON object a line: each message that proves no recovery, and a summary as the last.",
            "oneOf": [
                { "$ref": "#/components/schemas/ResponseItem" },
                { "$ref": "#/components/schemas/ResponsesSummaryLine" },
            ],
        }),
        Gives::Text | Gives::Octets | Gives::Container => json!({ "type": "string" }),
    };
    let media_type = route.gives.media_type();
    let mut responses = json!({ "200": { "description": "Done.", "content": { media_type: { "schema": schema } } } });
    if matches!(route.gives, Gives::Lines) {
        responses["200"]["content"][Gives::Container.media_type()] = json!({ "schema": {
            "type": "string",
            "description": "With `form=container`, or `form=differences`: the same in the container of signed commands, src/docs/container.md.",
        } });
    }
    for kind in ProblemKind::ALL {
        if !can_end(route, kind) {
            continue;
        }
        responses[kind.http_status().to_string()] = json!({
            "description": "Not done; see `error` and `message`.",
            "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Problem" } } },
        });
    }
    responses
}

/// Whether a call of the route can end so.
fn can_end<E: Engine>(route: &Route<E>, kind: ProblemKind) -> bool {
    let takes_body = matches!(route.takes, Takes::Json(..) | Takes::JsonAndQuery(..) | Takes::Octets);
    match kind {
        ProblemKind::Malformed
        | ProblemKind::TooMany
        | ProblemKind::TooSlow
        | ProblemKind::Internal
        | ProblemKind::Unavailable
        | ProblemKind::Stopped => true,
        ProblemKind::Forbidden => route.permission != Permission::Anyone,
        ProblemKind::NotFound => route.path.contains('{') || matches!(route.takes, Takes::Query(_)) || takes_body,
        ProblemKind::Refused => route.verb != Verb::Get,
        ProblemKind::TooLarge => takes_body,
        ProblemKind::MethodNotAllowed => false,
    }
}
