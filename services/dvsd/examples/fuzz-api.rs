// SPDX-License-Identifier: MIT OR Apache-2.0
//! Hostile requests to the API of a whole daemon, in this process: `cargo xtask fuzz api` runs it.
//!
//! What is asked follows from the API's own description, so that a new route is fuzzed without a word here: each request takes a
//! route and a method, mostly one that the route has, and spoils values of its path, query and body. No handler may panic, and
//! none may answer that it failed for a reason of its own (500). The request that a case makes depends on the seed and the
//! case's number alone; what the daemon makes of it may depend on what came before.

#[path = "../tests/fake/mod.rs"]
mod fake;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use axum::body::{to_bytes, Body};
use axum::http::{Method, Request, StatusCode};
use serde_json::{json, Map, Value};
use tower::ServiceExt;

/// After so long a request is given up, as somebody does who hangs up: that is no finding.
const PATIENCE: Duration = Duration::from_millis(150);
/// A request that is given up must have ended, and another one be answered, after so long.
const HANG: Duration = Duration::from_secs(60);

/// SplitMix64: a sequence of numbers that a seed repeats.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn of<'a, T: ?Sized>(&mut self, all: &[&'a T]) -> &'a T {
        all[self.below(all.len())]
    }
}

const TEXTS: [&str; 20] = [
    "",
    "0",
    "1",
    "2",
    "65535",
    "65536",
    "4294967296",
    "18446744073709551615",
    "-1",
    "1e400",
    "NaN",
    "dvsd",
    "a",
    "ethernet",
    "../../etc/passwd",
    "a/b",
    "\0",
    "\u{202e}é😀",
    "'\"\\{}[]%00",
    "true",
];

fn text(random: &mut Random) -> String {
    match random.below(8) {
        0 => "x".repeat(1 << random.below(15)),
        1 => (0..random.below(20)).map(|_| char::from(random.below(128) as u8)).collect(),
        _ => random.of(&TEXTS).to_owned(),
    }
}

fn number(random: &mut Random) -> Value {
    match random.below(10) {
        0 => json!(u64::MAX),
        1 => json!(i64::MIN),
        2 => json!(-1),
        3 => json!(1.5),
        4 => json!(random.next()),
        _ => json!(random.below(4)),
    }
}

/// Anything at all.
fn anything(random: &mut Random, depth: usize) -> Value {
    match random.below(if depth == 0 { 4 } else { 6 }) {
        0 => Value::Null,
        1 => json!(random.one_in(2)),
        2 => number(random),
        3 => json!(text(random)),
        4 => (0..random.below(4)).map(|_| anything(random, depth - 1)).collect(),
        _ => (0..random.below(4)).map(|_| (text(random), anything(random, depth - 1))).collect(),
    }
}

/// A value as a schema has it, and now and then not.
fn value(random: &mut Random, schemas: &Value, schema: &Value, depth: usize) -> Value {
    if depth == 0 || random.one_in(15) {
        return anything(random, 2);
    }
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
        return value(random, schemas, &schemas[name], depth - 1);
    }
    for choice in ["oneOf", "anyOf"] {
        if let Some(all) = schema[choice].as_array() {
            let one = random.below(all.len());
            return value(random, schemas, &all[one], depth - 1);
        }
    }
    if let Some(all) = schema["enum"].as_array() {
        return all[random.below(all.len())].clone();
    }
    if !schema["const"].is_null() {
        return schema["const"].clone();
    }
    let kind = match &schema["type"] {
        Value::Array(kinds) => kinds[random.below(kinds.len())].clone(),
        kind => kind.clone(),
    };
    match kind.as_str() {
        Some("object") => {
            let mut fields = Map::new();
            for (name, field) in schema["properties"].as_object().into_iter().flatten() {
                if !random.one_in(8) {
                    fields.insert(name.clone(), value(random, schemas, field, depth - 1));
                }
            }
            if random.one_in(20) {
                fields.insert(text(random), anything(random, 1));
            }
            Value::Object(fields)
        }
        Some("array") => (0..random.below(4))
            .map(|_| value(random, schemas, &schema["items"], depth - 1))
            .collect(),
        Some("integer" | "number") => number(random),
        Some("boolean") => json!(random.one_in(2)),
        Some("null") => Value::Null,
        Some("string") => json!(text(random)),
        _ => anything(random, 2),
    }
}

/// Escaped for a path or a query (RFC 3986, 2.1); now and then with what should have been escaped as well.
fn escaped(random: &mut Random, text: &str) -> String {
    let careless = random.one_in(10);
    let plain = |byte: u8| {
        byte.is_ascii_alphanumeric()
            || b"-._~".contains(&byte)
            || (careless && b"/&=%+".contains(&byte))
    };
    text.bytes().fold(String::new(), |escaped, byte| match plain(byte) {
        true => escaped + &char::from(byte).to_string(),
        false => escaped + &format!("%{byte:02X}"),
    })
}

/// The request of a case.
fn request(random: &mut Random, document: &Value) -> (Method, String, Vec<u8>) {
    let schemas = &document["components"]["schemas"];
    let paths: Vec<_> = document["paths"].as_object().into_iter().flatten().collect();
    let (template, methods) = paths[random.below(paths.len())];
    let methods: Vec<_> = methods.as_object().into_iter().flatten().collect();
    let (name, operation) = methods[random.below(methods.len())];
    let other = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "BREW"];
    let method = match random.one_in(12) {
        true => random.of(&other).to_owned(),
        false => name.to_uppercase(),
    };
    let mut path = String::new();
    for (index, part) in template.split(['{', '}']).enumerate() {
        match index % 2 {
            0 => path += part,
            _ => {
                let word = text(random);
                path += &escaped(random, &word);
            }
        }
    }
    if random.one_in(25) {
        path += random.of(&["/", "/..", "//", "/x", "%2e%2e", "?"]);
    }
    let mut query = Vec::new();
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        if parameter["in"] == "query" && !random.one_in(3) {
            let spoilt = value(random, schemas, &parameter["schema"], 3);
            let spoilt = spoilt.as_str().map_or_else(|| spoilt.to_string(), str::to_owned);
            let name = parameter["name"].as_str().unwrap_or_default();
            query.push(format!("{name}={}", escaped(random, &spoilt)));
        }
    }
    if random.one_in(20) {
        query.push(format!("x={}", random.next()));
    }
    if !query.is_empty() {
        path += &format!("?{}", query.join("&"));
    }
    let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
    let mut body = match (schema.is_null(), random.below(20)) {
        (true, 1..) => Vec::new(),
        (_, 0) => (0..random.below(2_000)).map(|_| random.next() as u8).collect(),
        (_, 1) => vec![b'['; 1 << random.below(19)],
        _ => value(random, schemas, schema, 8).to_string().into_bytes(),
    };
    if random.one_in(15) && !body.is_empty() {
        let at = random.below(body.len());
        body[at] = random.next() as u8;
        body.truncate(random.below(body.len()) + 1);
    }
    (method.parse().unwrap_or(Method::GET), path, body)
}

fn main() -> ExitCode {
    let mut numbers = std::env::args().skip(1).map(|word| word.parse::<u64>());
    let (Some(Ok(calls)), Some(Ok(seed)), Some(Ok(from))) =
        (numbers.next(), numbers.next(), numbers.next())
    else {
        eprintln!("usage: fuzz-api CALLS SEED FROM");
        return ExitCode::from(2);
    };
    let segment = fake::Segment::new();
    segment.boot_all(2);
    let ready = || segment.snapshot(1).status.ready;
    fake::eventually(ready, |ready| *ready == 2);
    let router = segment.router(1);
    let document = dvsd::openapi::whole();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let started = Instant::now();
    let mut results: BTreeMap<String, u64> = BTreeMap::new();
    for case in from..from.saturating_add(calls) {
        let mut random = Random(seed ^ case.wrapping_mul(0xd129_0d3a_5f3f_9a0d));
        let (method, path, body) = request(&mut random, &document);
        let about =
            format!("{method} {path} {}", String::from_utf8_lossy(&body[..body.len().min(400)]));
        let Ok(asked) = Request::builder().method(method).uri(&path).body(Body::from(body)) else {
            *results.entry("no request".into()).or_default() += 1;
            continue;
        };
        let answer = router.clone().oneshot(asked);
        let task = runtime.spawn(async move {
            let answer = tokio::time::timeout(PATIENCE, answer).await.ok()?;
            let response = answer.unwrap_or_else(|never| match never {});
            let (status, body) = (response.status(), response.into_body());
            let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
            Some((status, body))
        });
        let ended = runtime.block_on(async { tokio::time::timeout(HANG, task).await });
        let finding = match ended {
            Err(_) => Some(format!("no end after {} s", HANG.as_secs())),
            Ok(Err(error)) => Some(format!("panic: {error}")),
            Ok(Ok(None)) => {
                *results.entry("given up".into()).or_default() += 1;
                None
            }
            Ok(Ok(Some((status, body)))) => {
                *results.entry(status.to_string()).or_default() += 1;
                let meant = [StatusCode::SERVICE_UNAVAILABLE, StatusCode::GATEWAY_TIMEOUT];
                let explained = serde_json::from_slice::<dvs_api::Error>(&body)
                    .is_ok_and(|said| !said.error.is_empty());
                if status.is_server_error() && !meant.contains(&status) {
                    Some(format!("{status}: {}", String::from_utf8_lossy(&body)))
                } else if !status.is_success() && !explained && !about.starts_with("HEAD ") {
                    Some(format!("{status} without saying why: {}", String::from_utf8_lossy(&body)))
                } else {
                    None
                }
            }
        };
        if let Some(finding) = finding {
            println!("found: {finding}\nby: {about}");
            println!("again: cargo xtask fuzz api --seed {seed} --from {case} --calls 1");
            return ExitCode::FAILURE;
        }
    }
    for (result, count) in &results {
        println!("{result:<44} {count:>9}");
    }
    let (seconds, kinds) = (started.elapsed().as_secs_f64(), results.len());
    println!("fuzz api, seed {seed}: {calls} calls in {seconds:.0} s, {kinds} kinds of results: nothing found");
    ExitCode::SUCCESS
}
