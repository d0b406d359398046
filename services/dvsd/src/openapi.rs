// SPDX-License-Identifier: MIT OR Apache-2.0
//! The API's description, as OpenAPI 3.1 has it: `GET /v1/openapi.json`.
//!
//! The part of the API that answers a route describes it. What bodies look like follows from the types themselves, so it
//! cannot be another thing than what is sent.

use axum::Json;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{json, Map, Value};

/// A description under way.
#[derive(Debug)]
pub struct Description {
    paths: Map<String, Value>,
    schemas: SchemaGenerator,
}

/// One method of a path.
#[derive(Debug)]
pub struct Operation<'a> {
    operation: &'a mut Map<String, Value>,
    schemas: &'a mut SchemaGenerator,
}

impl Default for Description {
    fn default() -> Self {
        let settings = SchemaSettings::draft2020_12()
            .with(|settings| settings.definitions_path = "/components/schemas".into());
        Self { paths: Map::new(), schemas: settings.into_generator() }
    }
}

impl Description {
    /// Begins the description of a path's GET. The path is as it stands in the route.
    pub fn get(&mut self, path: &str, summary: &str) -> Operation<'_> {
        self.route("get", path, summary)
    }

    /// The same for POST.
    pub fn post(&mut self, path: &str, summary: &str) -> Operation<'_> {
        self.route("post", path, summary)
    }

    /// The same for PUT.
    pub fn put(&mut self, path: &str, summary: &str) -> Operation<'_> {
        self.route("put", path, summary)
    }

    /// The same for DELETE.
    pub fn delete(&mut self, path: &str, summary: &str) -> Operation<'_> {
        self.route("delete", path, summary)
    }

    /// What stands in braces is said to be text.
    fn route(&mut self, method: &str, path: &str, summary: &str) -> Operation<'_> {
        let parameters: Vec<_> = path
            .split(['{', '}'])
            .skip(1)
            .step_by(2)
            .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
            .collect();
        let own = self.paths.entry(path).or_insert_with(|| json!({}));
        let methods = own.as_object_mut().expect("a path was put there as an object");
        let error = self.schemas.subschema_for::<dvs_api::Error>().to_value();
        let operation = json!({
            "summary": summary,
            "operationId": format!("{method}{}", path.replace(['/', '{', '}', '.'], "_")),
            "parameters": parameters,
            "responses": {
                "default": {"description": "it failed; why is for people", "content": {"application/json": {"schema": error}}}
            },
        });
        let before = methods.insert(method.to_owned(), operation);
        assert!(before.is_none(), "{method} {path} is described twice");
        let operation = methods[method].as_object_mut().expect("it was put there as an object");
        Operation { operation, schemas: &mut self.schemas }
    }

    /// The whole document.
    pub fn document(mut self) -> Value {
        let schemas = self.schemas.take_definitions(true);
        json!({
            "openapi": "3.1.0",
            "info": {
                "title": "dvs: the API of a node",
                "version": env!("CARGO_PKG_VERSION"),
                "description": "Any node of a cluster may be asked. Over the network it is spoken by TLS 1.3, with certificates both ways \
                    by the cluster's authority; on the node itself by the socket /run/dvs/api.sock.",
                "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
            },
            "components": {
                "schemas": schemas,
                "securitySchemes": {"certificate": {"type": "mutualTLS", "description": "that of an administrator, or of a node"}},
            },
            "security": [{"certificate": []}],
            "paths": self.paths,
        })
    }
}

impl Operation<'_> {
    /// What its query may have: the fields of a type.
    ///
    /// # Panics
    /// If it has none.
    pub fn query<T: JsonSchema>(self) -> Self {
        let schema = T::json_schema(self.schemas).to_value();
        let fields = schema["properties"].as_object().expect("a query has fields");
        let required = |name: &str| {
            schema["required"].as_array().is_some_and(|names| names.iter().any(|it| it == name))
        };
        if let Some(parameters) = self.operation.get_mut("parameters").and_then(Value::as_array_mut)
        {
            parameters.extend(fields.iter().map(|(name, field)| {
                let about = field["description"].clone();
                json!({"name": name, "in": "query", "required": required(name), "description": about, "schema": field})
            }));
        }
        self
    }

    /// What its body is.
    pub fn takes<T: JsonSchema>(self) -> Self {
        let schema = self.schemas.subschema_for::<T>().to_value();
        let body = json!({"required": true, "content": {"application/json": {"schema": schema}}});
        self.operation.insert("requestBody".into(), body);
        self
    }

    /// What the body of its answer is.
    pub fn answers<T: JsonSchema>(self) {
        let schema = self.schemas.subschema_for::<T>().to_value();
        self.responds("application/json", &schema);
    }

    /// Its answer is no JSON.
    pub fn answers_with(self, content: &str) {
        self.responds(content, &json!({"type": "string"}));
    }

    fn responds(self, content: &str, schema: &Value) {
        let answer = json!({"description": "done", "content": {content: {"schema": schema}}});
        if let Some(responses) = self.operation.get_mut("responses").and_then(Value::as_object_mut)
        {
            responses.insert("200".into(), answer);
        }
    }
}

/// The description of everything.
pub fn whole() -> Value {
    let mut description = Description::default();
    crate::api::describe(&mut description);
    crate::agreement::api::describe(&mut description);
    crate::configuration::describe(&mut description);
    crate::look::describe(&mut description);
    crate::containers::api::describe(&mut description);
    crate::endpoints::describe(&mut description);
    crate::images::api::describe(&mut description);
    crate::boot::api::describe(&mut description);
    crate::upgrades::api::describe(&mut description);
    crate::net::describe(&mut description);
    crate::netboot::api::describe(&mut description);
    crate::metrics::describe(&mut description);
    description.document()
}

pub(crate) async fn answer() -> Json<Value> {
    Json(whole())
}
