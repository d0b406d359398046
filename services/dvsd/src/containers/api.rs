// SPDX-License-Identifier: MIT OR Apache-2.0
//! The part of the API that is about the containers of the answering node.

use std::os::unix::net::UnixStream;
use std::process::Child;
use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, Request, State};
use axum::http::{header, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use dvs_api::{ContainerUse, EXEC_PROTOCOL, LOG_POSITION};
use dvs_runtime::{Decoder, Fault, Frame, Kind, Log, Stats};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::io::{copy, sink, split, AsyncReadExt, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{timeout, Duration};

use super::blocking;
use super::runtime::Runtime;
use super::steps::name_of;
use crate::agreement::Access;
use crate::api::{bad, query, unavailable, Failure};
use crate::daemon::Handle;
use crate::openapi::Description;

/// Commands that run in containers of this node at once.
const COMMANDS_MAX: usize = 64;
/// How long whoever runs a command may take to say which.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long who has run a command may take to hear that it has ended.
const LINGER: Duration = Duration::from_secs(10);

struct Api {
    daemon: Handle,
    runtime: Arc<dyn Runtime>,
    commands: Arc<Semaphore>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LogQuery {
    /// What was written after so many bytes.
    #[serde(default)]
    from: u64,
}

/// The routes.
pub fn routes(daemon: Handle, runtime: Arc<dyn Runtime>) -> Router {
    let commands = Arc::new(Semaphore::new(COMMANDS_MAX));
    Router::new()
        .route("/v1/containers/{name}/use", get(usage))
        .route("/v1/containers/{name}/log", get(log))
        .route("/v1/containers/{name}/exec", get(exec))
        .with_state(Arc::new(Api { daemon, runtime, commands }))
}

/// Describes them.
pub fn describe(api: &mut Description) {
    let summary = "What a container uses on the answering node";
    api.get("/v1/containers/{name}/use", summary).answers::<ContainerUse>();
    let summary =
        "What the command of a container has written on the answering node, as far as it is kept";
    let log = api.get("/v1/containers/{name}/log", summary);
    log.query::<LogQuery>().answers_with("application/octet-stream");
    let summary = "Run a command in a container on the answering node: the connection is upgraded to `dvs-exec`, of which the first frame \
         says what is run";
    api.get("/v1/containers/{name}/exec", summary).answers_with("application/octet-stream");
}

impl Api {
    /// What the runtime calls the container of that name, which has to be on this node.
    fn find(&self, name: &str) -> Result<(u32, String), Failure> {
        let access: &Access = &self.daemon.agreement;
        let consensus = access.consensus().map_err(unavailable)?;
        let own = self.daemon.snapshots.borrow().status.node;
        let own = own.ok_or_else(|| unavailable("this node has no id yet"))?;
        let found = consensus.look(|state| {
            let (id, container) = state.containers().of_name(name)?;
            Some((id, container.nodes.iter().copied().collect::<Vec<_>>()))
        });
        let missing = |text| Failure(StatusCode::NOT_FOUND, text);
        let (id, nodes) = found.ok_or_else(|| missing(format!("there is no container {name}")))?;
        if nodes.iter().all(|node| u32::from(*node) != own) {
            let nodes: Vec<_> = nodes.iter().map(ToString::to_string).collect();
            let text =
                format!("container {name} does not span node {own}; it spans {}", nodes.join(", "));
            return Err(missing(text));
        }
        Ok((own, name_of(id)))
    }
}

fn failed(name: &str, fault: &Fault) -> Failure {
    let (code, why) = match fault.kind {
        // There may be a container that has not been made here yet.
        Kind::NotFound | Kind::State => {
            (StatusCode::CONFLICT, "it does not run on this node yet; see `dvsctl dc show`")
        }
        _ => (StatusCode::INTERNAL_SERVER_ERROR, fault.message.as_str()),
    };
    Failure(code, format!("container {name}: {why}"))
}

async fn usage(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
) -> Result<Json<ContainerUse>, Failure> {
    let (node, called) = api.find(&name)?;
    let runtime = Arc::clone(&api.runtime);
    let stats = blocking(move || runtime.stats(&called)).await;
    let stats = stats.map_err(|fault| failed(&name, &fault))?;
    let Stats {
        cpu_us,
        throttled_us,
        memory,
        memory_peak,
        processes,
        out_of_memory,
        processes_refused,
        ..
    } = stats;
    Ok(Json(ContainerUse {
        node,
        cpu_us,
        throttled_us,
        memory,
        memory_peak,
        processes,
        out_of_memory,
        processes_refused,
    }))
}

/// The header says where in the log the answer begins: what was asked for may not be kept any more, or be of a container that was there
/// before.
async fn log(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    asked: Result<Query<LogQuery>, QueryRejection>,
) -> Result<Response, Failure> {
    let LogQuery { from } = query(asked)?;
    let (_, called) = api.find(&name)?;
    let runtime = Arc::clone(&api.runtime);
    let log = blocking(move || runtime.log(&called, from)).await;
    let Log { begins, bytes } = log.map_err(|fault| failed(&name, &fault))?;
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (HeaderName::from_static(LOG_POSITION), begins.to_string()),
    ];
    Ok((headers, bytes).into_response())
}

async fn exec(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    mut request: Request,
) -> Result<Response, Failure> {
    let (_, called) = api.find(&name)?;
    let asked = request.headers().get(header::UPGRADE).and_then(|value| value.to_str().ok());
    if !asked.is_some_and(|asked| asked.eq_ignore_ascii_case(EXEC_PROTOCOL)) {
        return Err(bad(format!(
            "a command is run over `Upgrade: {EXEC_PROTOCOL}`, as `dvsctl dc exec` does"
        )));
    }
    let permit = Arc::clone(&api.commands).try_acquire_owned().map_err(|_| {
        unavailable(format!("{COMMANDS_MAX} commands run in containers of this node already"))
    })?;
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(run(Arc::clone(&api.runtime), called, upgrade, permit));
    let headers = [(header::CONNECTION, "upgrade"), (header::UPGRADE, EXEC_PROTOCOL)];
    Ok((StatusCode::SWITCHING_PROTOCOLS, headers).into_response())
}

/// Runs a command for whoever is at the other end, until either side ends.
async fn run(
    runtime: Arc<dyn Runtime>,
    called: String,
    upgrade: OnUpgrade,
    _permit: OwnedSemaphorePermit,
) {
    let Ok(upgraded) = upgrade.await else { return };
    let mut client = TokioIo::new(upgraded);
    let why = match timeout(PATIENCE, first(&mut client)).await {
        Err(_) => "nothing was said about what to run".to_owned(),
        Ok(Err(why)) => why,
        Ok(Ok((request, rest))) => match blocking(move || runtime.exec(&called, request)).await {
            Err(fault) => fault.to_string(),
            Ok((stream, process)) => {
                pass(client, &rest, stream, process).await;
                return;
            }
        },
    };
    let mut bytes = Vec::new();
    // Who has gone does not hear it.
    if Frame::Refused(why).encode(&mut bytes).is_ok() {
        let _ = client.write_all(&bytes).await;
        let _ = client.shutdown().await;
    }
}

/// What is to be run, and what came after that.
async fn first(client: &mut TokioIo<Upgraded>) -> Result<(dvs_runtime::Request, Vec<u8>), String> {
    let (mut decoder, mut bytes) = (Decoder::default(), vec![0; 16 << 10]);
    loop {
        let length = client.read(&mut bytes).await.map_err(|error| error.to_string())?;
        if length == 0 {
            return Err("the stream ended before it said what to run".into());
        }
        decoder.push(&bytes[..length]);
        match decoder.take().map_err(|fault| fault.to_string())? {
            Some(Frame::Run(request)) => return Ok((*request, decoder.into_rest())),
            Some(_) => return Err("the first frame must say what to run".into()),
            None => {}
        }
    }
}

/// Passes everything on both ways. The command ends with its stream, and what it has said until then is told, whatever input is still
/// on its way.
async fn pass(client: TokioIo<Upgraded>, rest: &[u8], stream: UnixStream, process: Child) {
    let ready =
        stream.set_nonblocking(true).and_then(|()| tokio::net::UnixStream::from_std(stream));
    let (mut typed, mut told) = split(client);
    if let Ok(command) = ready {
        let (mut says, mut hears) = command.into_split();
        // A command that does not listen any more may still have said why, so that is no reason to end. That nobody types any more is
        // told to it, and its end is seen by what it says.
        let input = async {
            if hears.write_all(rest).await.is_ok() {
                let _ = copy(&mut typed, &mut hears).await;
            }
            let _ = hears.shutdown().await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            _ = copy(&mut says, &mut told) => {}
            () = input => {}
        }
    }
    let _ = told.shutdown().await;
    let mut process = process;
    // It has ended, or does so now that nobody listens to it.
    let _ = blocking(move || process.wait()).await;
    // A connection that is given up before all of it was read takes what it has not delivered with it.
    let _ = timeout(LINGER, copy(&mut typed, &mut sink())).await;
}
