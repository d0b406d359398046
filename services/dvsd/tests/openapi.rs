// SPDX-License-Identifier: MIT OR Apache-2.0
//! The description of the API has every route of it, and nothing else.

mod fake;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use fake::{eventually, Segment};
use serde_json::Value;

/// All texts of the daemon's sources.
fn sources(folder: &Path, texts: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        match entry.path() {
            path if path.is_dir() => sources(&path, texts),
            path => texts.push(fs::read_to_string(path).unwrap()),
        }
    }
}

/// The routes of the sources, as method and path: what stands in `.route("/path", get(…).post(…))`.
fn routes() -> BTreeSet<(String, String)> {
    let mut texts = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut texts);
    let mut routes = BTreeSet::new();
    for text in texts {
        let text: String = text.split_whitespace().collect();
        for part in text.split(".route(\"/").skip(1) {
            let (path, rest) = part.split_once('"').unwrap();
            // Up to the bracket that closes the call.
            let mut depth = 1;
            let end = rest.char_indices().find(|(_, c)| {
                depth += match c {
                    '(' => 1,
                    ')' => -1,
                    _ => 0,
                };
                depth == 0
            });
            let handlers = &rest[..end.unwrap().0];
            for method in ["get", "post", "put", "delete", "patch"] {
                let begins = [format!(",{method}("), format!(".{method}(")];
                if begins.iter().any(|begin| handlers.contains(begin.as_str())) {
                    routes.insert((method.to_owned(), format!("/{path}")));
                }
            }
        }
    }
    routes
}

fn described(document: &Value) -> BTreeSet<(String, String)> {
    let paths = document["paths"].as_object().unwrap();
    let of = |(path, methods): (&String, &Value)| -> Vec<_> {
        let methods = methods.as_object().unwrap().keys();
        methods.map(|method| (method.clone(), path.clone())).collect()
    };
    paths.iter().flat_map(of).collect()
}

/// Every `$ref` leads somewhere, and every schema is referred to.
fn check_references(document: &Value) {
    fn walk<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str));
                fields.values().for_each(|field| walk(field, found));
            }
            Value::Array(items) => items.iter().for_each(|item| walk(item, found)),
            _ => {}
        }
    }
    let mut found = BTreeSet::new();
    walk(document, &mut found);
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let there: BTreeSet<_> =
        schemas.keys().map(|name| format!("#/components/schemas/{name}")).collect();
    let found: BTreeSet<_> = found.into_iter().map(str::to_owned).collect();
    assert_eq!(found, there);
}

#[test]
fn every_route_is_described_and_nothing_else() {
    let document = dvsd::openapi::whole();
    let routes = routes();
    assert!(routes.len() > 20, "{routes:?}");
    assert_eq!(described(&document), routes);
    check_references(&document);
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let about = format!("{method} {path}: {operation}");
            assert!(!operation["summary"].as_str().unwrap().is_empty(), "{about}");
            assert!(operation["responses"]["200"].is_object(), "{about}");
            for parameter in operation["parameters"].as_array().unwrap() {
                assert!(parameter["schema"].is_object(), "{about}");
                let says = parameter["in"] == "path" || parameter["description"].is_string();
                assert!(says, "{about}");
            }
        }
    }
}

/// The types of the API, by their names in the sources of `dvs-api`.
#[test]
fn every_type_is_described() {
    let document = dvsd::openapi::whole();
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let mut texts = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../api/src"), &mut texts);
    let text = texts.concat();
    let types = ["pub struct ", "pub enum "].iter().flat_map(|head| text.split(head).skip(1));
    let names: BTreeSet<_> =
        types.map(|rest| rest.split(|c: char| !c.is_alphanumeric()).next().unwrap()).collect();
    assert!(names.len() > 20, "{names:?}");
    for name in names {
        let schema = schemas.get(name).unwrap_or_else(|| panic!("{name} is not described"));
        assert!(schema["description"].is_string(), "{name}: {schema}");
    }
}

#[test]
fn what_a_node_answers_is_as_described() {
    let segment = Segment::new();
    let url = segment.boot_all(1).remove(0);
    let get = |path: &str| -> Value {
        let mut answer = ureq::get(format!("{url}{path}")).call().unwrap();
        answer.body_mut().read_json().unwrap()
    };
    eventually(|| get("/v1/status"), |status| status["state"] == "ready");
    let document = get("/v1/openapi.json");
    assert_eq!(document, dvsd::openapi::whole());
    assert_eq!(document["openapi"], "3.1.0");
    // Fields of an answer are those of its schema, by name.
    for path in ["/v1/version", "/v1/status", "/v1/segment", "/v1/usage", "/v1/cluster"] {
        let schema = &document["paths"][path]["get"]["responses"]["200"]["content"]
            ["application/json"]["schema"];
        let name = schema["$ref"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
        let fields = document["components"]["schemas"][&name]["properties"].as_object().unwrap();
        let answer = eventually(|| get(path), Value::is_object);
        let (answered, described): (BTreeSet<_>, BTreeSet<_>) =
            (answer.as_object().unwrap().keys().collect(), fields.keys().collect());
        assert_eq!(answered, described, "{path}");
    }
}
