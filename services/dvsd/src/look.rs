// SPDX-License-Identifier: MIT OR Apache-2.0
//! The part of the API that shows what a node and its kernel have said.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use dvs_api::{KernelLog, KernelTables, Log, Logs, LOG_LINES_MAX, WAIT_MS_MAX};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::time::{sleep, Instant};

use crate::api::{bad, query, unavailable, Failure};
use crate::daemon::Handle;
use crate::kernel_log::{self, DEVICE};
use crate::logs::{self, LogError, Place};
use crate::openapi::Description;

/// Requests that are answered at once, those that wait for something to be said included.
const REQUESTS_MAX: usize = 64;
/// How often those look.
const POLL: Duration = Duration::from_millis(250);
/// Where the DVK shows its tables.
const TABLES: &str = "/sys/kernel/debug/dvk";
/// Most bytes of a table that are told.
const TABLE_BYTES_MAX: u64 = 4 << 20;

struct Look {
    daemon: Handle,
    /// Where PID 1 leaves what services need to know.
    directory: PathBuf,
    requests: Semaphore,
}

/// The routes. `directory` is where PID 1 leaves what services need to know.
pub fn routes(daemon: Handle, directory: PathBuf) -> Router {
    let look = Arc::new(Look { daemon, directory, requests: Semaphore::new(REQUESTS_MAX) });
    Router::new()
        .route("/v1/logs", get(services))
        .route("/v1/logs/{service}", get(log))
        .route("/v1/kernel/log", get(kernel))
        .route("/v1/kernel/tables", get(tables))
        .layer(middleware::from_fn_with_state(Arc::clone(&look), limit))
        .with_state(look)
}

/// Describes them.
pub fn describe(api: &mut Description) {
    api.get("/v1/logs", "Which services have a log on the answering node").answers::<Logs>();
    let log = api.get("/v1/logs/{service}", "Lines of a service's log on the answering node");
    log.query::<LogQuery>().answers::<Log>();
    let kernel = api.get("/v1/kernel/log", "What the kernel of the answering node said");
    kernel.query::<KernelQuery>().answers::<KernelLog>();
    let tables = api.get("/v1/kernel/tables", "What the DVK of the answering node shows of itself");
    tables.answers::<KernelTables>();
}

async fn limit(State(look): State<Arc<Look>>, request: Request, next: Next) -> Response {
    match look.requests.try_acquire() {
        Ok(_permit) => next.run(request).await,
        Err(_) => {
            let text = format!("{REQUESTS_MAX} requests are being answered already; try again");
            unavailable(text).into_response()
        }
    }
}

impl Look {
    fn logs(&self) -> PathBuf {
        self.directory.join("logs")
    }

    fn node(&self) -> Option<u32> {
        self.daemon.snapshots.borrow().status.node
    }
}

/// Does what may block where nobody else waits.
pub(crate) async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let failed = |error: tokio::task::JoinError| {
        Failure(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    };
    tokio::task::spawn_blocking(work).await.map_err(failed)?
}

async fn services(State(look): State<Arc<Look>>) -> Result<Json<Logs>, Failure> {
    let directory = look.logs();
    let services = aside(move || Ok(logs::services(&directory))).await?;
    Ok(Json(Logs { node: look.node(), services }))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LogQuery {
    /// How many of the last lines: 1 to 10,000. Without `after` only.
    lines: Option<usize>,
    /// The lines that follow: `next` of an earlier answer.
    after: Option<String>,
    /// Milliseconds to wait until there are some.
    #[serde(default)]
    wait_ms: u64,
}

async fn log(
    State(look): State<Arc<Look>>,
    Path(service): Path<String>,
    asked: Result<Query<LogQuery>, QueryRejection>,
) -> Result<Json<Log>, Failure> {
    let LogQuery { lines, after, wait_ms } = query(asked)?;
    let count = lines.unwrap_or(100);
    if !(1..=LOG_LINES_MAX).contains(&count) {
        return Err(bad(format!("lines = {count}: 1 to {LOG_LINES_MAX} can be had")));
    }
    let place: Option<Place> = after.map(|after| after.parse()).transpose().map_err(bad)?;
    let deadline = deadline(wait_ms)?;
    loop {
        let (directory, name) = (look.logs(), service.clone());
        let found = aside(move || {
            let found = match place {
                Some(place) => logs::after(&directory, &name, place),
                None => logs::tail(&directory, &name, count),
            };
            found.map_err(|error| match error {
                LogError::Unknown(text) => Failure(StatusCode::NOT_FOUND, text),
                LogError::Unreadable(text) => Failure(StatusCode::INTERNAL_SERVER_ERROR, text),
            })
        });
        let (lines, next) = found.await?;
        if place.is_none() || !lines.is_empty() || Instant::now() >= deadline {
            return Ok(Json(Log { service, node: look.node(), lines, next: next.to_string() }));
        }
        sleep(POLL).await;
    }
}

fn deadline(wait_ms: u64) -> Result<Instant, Failure> {
    match wait_ms <= WAIT_MS_MAX {
        true => Ok(Instant::now() + Duration::from_millis(wait_ms)),
        false => Err(bad(format!("wait_ms = {wait_ms}: expected 0 to {WAIT_MS_MAX}"))),
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct KernelQuery {
    /// How many of the last records. All that the kernel still has, if it is not given.
    lines: Option<usize>,
    /// Only records with higher numbers: `last` of an earlier answer.
    after: Option<u64>,
    /// Milliseconds to wait until there are some.
    #[serde(default)]
    wait_ms: u64,
}

async fn kernel(
    State(look): State<Arc<Look>>,
    asked: Result<Query<KernelQuery>, QueryRejection>,
) -> Result<Json<KernelLog>, Failure> {
    let KernelQuery { lines, after, wait_ms } = query(asked)?;
    let deadline = deadline(wait_ms)?;
    loop {
        let (mut records, last) = aside(move || {
            kernel_log::records(FilePath::new(DEVICE), after)
                .map_err(|error| unavailable(format!("read {DEVICE}: {error}")))
        })
        .await?;
        if wait_ms == 0 || !records.is_empty() || Instant::now() >= deadline {
            let all = records.len();
            let records = records.split_off(all.saturating_sub(lines.unwrap_or(all)));
            return Ok(Json(KernelLog { node: look.node(), records, last: last.or(after) }));
        }
        sleep(POLL).await;
    }
}

async fn tables(State(look): State<Arc<Look>>) -> Result<Json<KernelTables>, Failure> {
    let tables = aside(|| Ok(all_tables(FilePath::new(TABLES)))).await?;
    Ok(Json(KernelTables { node: look.node(), tables }))
}

/// All files of a folder; none where there is no DVK.
fn all_tables(folder: &FilePath) -> BTreeMap<String, String> {
    use std::io::Read;
    let Ok(entries) = fs::read_dir(folder) else { return BTreeMap::new() };
    let table = |entry: fs::DirEntry| {
        let mut text = String::new();
        let file = fs::File::open(entry.path()).ok()?;
        file.take(TABLE_BYTES_MAX).read_to_string(&mut text).ok()?;
        Some((entry.file_name().to_str()?.to_owned(), text))
    };
    entries.flatten().filter_map(table).collect()
}
