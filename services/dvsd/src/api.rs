// SPDX-License-Identifier: MIT OR Apache-2.0
//! The node's HTTP API. Answers come from the daemon's latest [`Snapshot`]; only a ping does work.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;

use axum::body::{to_bytes, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{DefaultBodyLimit, Path, Query, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use dvk_abi::Endpoint;
use dvs_api::{
    Link, LinkChoice, Node, NodeState, PingRequest, PingResult, PowerAnswer, PowerRequest, Segment,
    Status, TransportRequest, Usage, Version, PING_COUNT_MAX,
};
use dvs_state::lifecycle::Until;
use dvs_state::nodes::Phase;
use tokio::sync::{oneshot, Semaphore};

use crate::agreement;
use crate::boot;
use crate::configuration;
use crate::containers::{self, Runtime};
use crate::daemon::{Handle, Snapshot};
use crate::endpoints;
use crate::images::{self, Images};
use crate::look;
use crate::machine::{self, PROC};
use crate::membership::{Refusal, Standing};
use crate::metrics;
use crate::net;
use crate::netboot::{self, Netboot};
use crate::openapi::{self, Description};
use crate::orders::Order;
use crate::ping;
use crate::upgrades::{self, Upgrades};

/// Bytes of a request's body.
const BODY_MAX: usize = 16 << 10;
/// Requests that are answered at once.
const REQUESTS_MAX: usize = 64;
/// Pings that run at once.
const PINGS_MAX: usize = 4;
/// How long a ping waits for a node that is about to be ready.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a vote may take to go to another node.
const VACATE: Duration = Duration::from_secs(20);
/// How long another key may take: twice what it takes when a node does not answer.
const ROTATION: Duration = Duration::from_secs(15);

struct Api {
    daemon: Handle,
    requests: Semaphore,
    pings: Semaphore,
}

/// The routes of the API. `directory` is where PID 1 leaves what services need to know, `runtime` what makes containers of `images`, and
/// `boot` what the node boots from; `upgrades` upgrades it, and `netboot` boots other machines.
pub fn router(
    daemon: Handle,
    directory: PathBuf,
    runtime: Arc<dyn Runtime>,
    images: &Images,
    boot: boot::Boot,
    upgrades: &Upgrades,
    netboot: Netboot,
) -> Router {
    let agreed = agreement::api::routes(daemon.agreement.clone());
    let metrics = metrics::routes(daemon.clone());
    let configuration =
        configuration::routes(daemon.clone(), boot.machine.clone(), directory.clone());
    let boot = boot::api::routes(daemon.clone(), boot, netboot.clone(), directory.clone());
    let look = look::routes(daemon.clone(), directory);
    let containers = containers::api::routes(daemon.clone(), runtime);
    let endpoints = endpoints::routes(daemon.clone());
    let images = images::api::routes(images);
    let upgrades = upgrades::api::routes(upgrades);
    let netboot = netboot::api::routes(daemon.clone(), netboot);
    let api = Arc::new(Api {
        daemon,
        requests: Semaphore::new(REQUESTS_MAX),
        pings: Semaphore::new(PINGS_MAX),
    });
    let own = Router::new()
        .route("/v1/version", get(version))
        .route("/v1/status", get(status))
        .route("/v1/nodes", get(nodes))
        .route("/v1/nodes/{id}", get(node))
        .route("/v1/links", get(links))
        .route("/v1/usage", get(usage))
        .route("/v1/power", post(power))
        .route("/v1/segment", get(segment))
        .route("/v1/segment/rotate", post(segment_rotate))
        .route("/v1/links/{node}", put(choose))
        .route("/v1/ipc/ping", post(ipc_ping))
        .route("/v1/openapi.json", get(openapi::answer))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(middleware::from_fn_with_state(Arc::clone(&api), limit))
        .with_state(api);
    own.merge(agreed)
        .merge(metrics)
        .merge(look)
        .merge(configuration)
        .merge(containers)
        .merge(endpoints)
        .merge(images)
        .merge(boot)
        .merge(upgrades)
        .merge(net::routes())
        .merge(netboot)
        .fallback(|request: Request| async move {
            let path = request.uri().path().to_owned();
            Failure(StatusCode::NOT_FOUND, format!("there is no `{path}` in this API"))
        })
        .method_not_allowed_fallback(|request: Request| async move {
            let text = format!("`{}` does not take {}", request.uri().path(), request.method());
            Failure(StatusCode::METHOD_NOT_ALLOWED, text)
        })
        .layer(middleware::map_response(explain))
}

/// Describes them.
pub fn describe(api: &mut Description) {
    api.get("/v1/version", "Which program answers, and for which node").answers::<Version>();
    api.get("/v1/status", "What state the answering node is in").answers::<Status>();
    api.get("/v1/nodes", "All nodes, as the answering one sees them").answers::<Vec<Node>>();
    api.get("/v1/nodes/{id}", "One node, as the answering one sees it").answers::<Node>();
    api.get("/v1/links", "The links of the answering node").answers::<Vec<Link>>();
    api.get("/v1/segment", "How the answering node protects its traffic on the segment")
        .answers::<Segment>();
    api.get("/v1/usage", "What the machine of the answering node uses").answers::<Usage>();
    api.get("/v1/openapi.json", "This description")
        .answers::<serde_json::Map<String, serde_json::Value>>();
    let summary = "Have the answering node encrypt with another key; answers once it does";
    api.post("/v1/segment/rotate", summary).answers::<Segment>();
    let summary = "Choose what carries the link between the answering node and another one";
    let choose = api.put("/v1/links/{node}", summary);
    choose.takes::<TransportRequest>().answers::<LinkChoice>();
    let summary = "Restart the machine of the answering node, or switch it off";
    api.post("/v1/power", summary).takes::<PowerRequest>().answers::<PowerAnswer>();
    let summary = "Exchange messages by M3-IPC from the answering node to another one";
    api.post("/v1/ipc/ping", summary).takes::<PingRequest>().answers::<PingResult>();
}

/// Has every answer that is not a success say why in the same form, those of the library included.
async fn explain(answer: Response) -> Response {
    let status = answer.status();
    let is_json = answer.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == "application/json");
    if is_json || !(status.is_client_error() || status.is_server_error()) {
        return answer;
    }
    let body = to_bytes(answer.into_body(), BODY_MAX).await.unwrap_or_default();
    let text = match String::from_utf8_lossy(&body).trim() {
        "" => status.to_string(),
        text => text.to_owned(),
    };
    Failure(status, text).into_response()
}

async fn limit(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    match api.requests.try_acquire() {
        Ok(_permit) => next.run(request).await,
        Err(_) => {
            let text = format!("{REQUESTS_MAX} requests are being answered already; try again");
            Failure(StatusCode::SERVICE_UNAVAILABLE, text).into_response()
        }
    }
}

/// An answer that is not a success.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) StatusCode, pub(crate) String);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.0, Json(dvs_api::Error { error: self.1 })).into_response()
    }
}

pub(crate) fn bad(text: impl Into<String>) -> Failure {
    Failure(StatusCode::BAD_REQUEST, text.into())
}

/// What comes behind the path of a request.
pub(crate) fn query<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, Failure> {
    query.map(|Query(query)| query).map_err(|error| bad(error.body_text()))
}

pub(crate) fn unavailable(text: impl Into<String>) -> Failure {
    Failure(StatusCode::SERVICE_UNAVAILABLE, text.into())
}

impl Api {
    fn now(&self) -> Arc<Snapshot> {
        Arc::clone(&self.daemon.snapshots.borrow())
    }

    /// The snapshot of a node that is a member of a cluster.
    fn member(&self) -> Result<Arc<Snapshot>, Failure> {
        let snapshot = self.now();
        if snapshot.status.node.is_some() {
            return Ok(snapshot);
        }
        let detail = &snapshot.status.detail;
        let detail = if detail.is_empty() { "starting" } else { detail };
        let cluster = &snapshot.status.cluster;
        Err(unavailable(format!("this node is not part of cluster {cluster} yet: {detail}")))
    }
}

impl Api {
    /// A node with what was agreed on about it, which its beacons do not say.
    fn as_agreed(&self, mut node: Node) -> Node {
        let Ok(consensus) = self.daemon.agreement.consensus() else { return node };
        let agreed = u16::try_from(node.id).ok().and_then(|id| {
            consensus.look(|state| state.nodes().get(id).map(|it| (it.name.clone(), it.phase)))
        });
        if let Some((name, phase)) = agreed {
            node.name = name;
            if node.state == NodeState::Ready && phase == Phase::Draining {
                node.state = NodeState::Draining;
            }
        }
        node
    }
}

impl Snapshot {
    fn node(&self, id: u32) -> Result<&Node, Failure> {
        self.nodes.iter().find(|node| node.id == id).ok_or_else(|| {
            let ids: Vec<_> = self.nodes.iter().map(|node| node.id.to_string()).collect();
            let text = format!("there is no node {id}; there are: {}", ids.join(", "));
            Failure(StatusCode::NOT_FOUND, text)
        })
    }
}

async fn version(State(api): State<Arc<Api>>) -> Json<Version> {
    let Status { version, node, name, cluster, .. } = api.now().status.clone();
    Json(Version { version, node, name, cluster })
}

async fn status(State(api): State<Arc<Api>>) -> Json<Status> {
    Json(api.now().status.clone())
}

async fn nodes(State(api): State<Arc<Api>>) -> Result<Json<Vec<Node>>, Failure> {
    let nodes = api.member()?.nodes.clone();
    Ok(Json(nodes.into_iter().map(|node| api.as_agreed(node)).collect()))
}

/// Answers when the node is free of duties and PID 1 was asked.
async fn power(State(api): State<Arc<Api>>, body: Bytes) -> Result<Json<PowerAnswer>, Failure> {
    let PowerRequest { action, force } = serde_json::from_slice(&body)
        .map_err(|error| bad(format!("what to do with the machine: {error}")))?;
    let agreement = &api.daemon.agreement;
    let seat = match agreement.view().standing {
        Standing::Member { seat, .. } => Some(seat),
        Standing::Discovering { .. } => None,
    };
    if let Some(seat) = seat {
        let vacated = agreement.vacate(seat.id, Until::Back, force, VACATE).await;
        vacated.map_err(|obstacle| Failure(StatusCode::CONFLICT, obstacle.to_string()))?;
    }
    let (done, outcome) = oneshot::channel();
    let stopping = |_| unavailable("this node's daemon is stopping");
    let order = Order::Power { action, done };
    api.daemon.orders.send(order).await.map_err(|_| stopping(()))?;
    outcome.await.map_err(|_| stopping(()))?.map_err(unavailable)?;
    let (node, incarnation) = seat.map(|seat| (seat.id.into(), seat.incarnation)).unzip();
    Ok(Json(PowerAnswer { node, incarnation }))
}

async fn node(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Result<Json<Node>, Failure> {
    let id = id.parse().map_err(|_| bad(format!("`{id}` is no node id")))?;
    Ok(Json(api.as_agreed(api.member()?.node(id)?.clone())))
}

async fn links(State(api): State<Arc<Api>>) -> Result<Json<Vec<Link>>, Failure> {
    Ok(Json(api.member()?.nodes.iter().filter_map(|node| node.link.clone()).collect()))
}

async fn usage() -> Json<Usage> {
    Json(machine::usage(PROC.as_ref()))
}

async fn segment(State(api): State<Arc<Api>>) -> Json<Segment> {
    Json(api.now().segment.clone())
}

/// Answers once this node sends with another key.
async fn segment_rotate(State(api): State<Arc<Api>>) -> Result<Json<Segment>, Failure> {
    let mut changes = api.daemon.snapshots.clone();
    let snapshot = Arc::clone(&changes.borrow_and_update());
    let wish = snapshot.wish.as_ref().ok_or_else(|| {
        let text = "this node does not encrypt its messages (cluster.insecure): it has no keys";
        Failure(StatusCode::CONFLICT, text.into())
    })?;
    wish.make();
    let deadline = tokio::time::Instant::now() + ROTATION;
    loop {
        if tokio::time::timeout_at(deadline, changes.changed()).await.is_err() {
            let trouble = changes.borrow().segment.trouble.clone().unwrap_or_default();
            let text = format!(
                "another key was announced, but is not sent with after {} s: {trouble}",
                ROTATION.as_secs()
            );
            return Err(unavailable(text));
        }
        let now = changes.borrow_and_update().segment.clone();
        if now.key > snapshot.segment.key {
            return Ok(Json(now));
        }
    }
}

async fn choose(
    State(api): State<Arc<Api>>,
    Path(node): Path<String>,
    body: Bytes,
) -> Result<Json<LinkChoice>, Failure> {
    let to: u32 = node.parse().map_err(|_| bad(format!("`{node}` is no node id")))?;
    let TransportRequest { transport } = serde_json::from_slice(&body)
        .map_err(|error| bad(format!("choice of a transport: {error}")))?;
    let snapshot = api.member()?;
    let node = snapshot.node(to)?;
    let from = snapshot.status.node.unwrap_or_default();
    let (done, outcome) = oneshot::channel();
    let order = Order::Choose { node: to as u16, transport, done };
    let stopping = |_| unavailable("this node's daemon is stopping");
    api.daemon.orders.send(order).await.map_err(|_| stopping(()))?;
    match outcome.await.map_err(|_| stopping(()))? {
        Ok(choice) => {
            let (transport, revision) = (choice.transport, choice.revision);
            Ok(Json(LinkChoice { from, to, transport, revision }))
        }
        Err(Refusal::Itself) => {
            Err(bad(format!("node {to} is this node itself; a link leads to another one")))
        }
        Err(Refusal::Down) if node.state == NodeState::Down => Err(down(node)),
        // It is about to take its place, or was lost at this moment.
        Err(Refusal::Down) => Err(unavailable(format!("node {to} is not heard at the moment"))),
        Err(Refusal::Unknown | Refusal::NoMember) => {
            Err(unavailable(format!("node {to} has just left the cluster, or this node has")))
        }
    }
}

/// Stops the blocking thread once nobody waits for its result any more.
struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

async fn ipc_ping(State(api): State<Arc<Api>>, body: Bytes) -> Result<Json<PingResult>, Failure> {
    let request: PingRequest =
        serde_json::from_slice(&body).map_err(|error| bad(format!("ping request: {error}")))?;
    check("count", request.count, 1, PING_COUNT_MAX)?;
    check("timeout_ms", request.timeout_ms, 1, 60_000)?;
    check("interval_ms", request.interval_ms, 0, 60_000)?;
    api.member()?.node(request.to)?;
    let _permit = api.pings.try_acquire().map_err(|_| {
        let text = format!("{PINGS_MAX} pings run on this node already; wait for one to end");
        Failure(StatusCode::TOO_MANY_REQUESTS, text)
    })?;
    let (snapshot, echo) = reachable(&api, request.to).await?;
    let from = snapshot.status.node.unwrap_or_default();
    let kernel = snapshot.kernel.clone().ok_or_else(|| unavailable("this node has no DVK"))?;
    let run = getrandom::u64().map_err(|error| unavailable(format!("entropy: {error}")))?;
    let cancelled = Arc::new(AtomicBool::new(false));
    let _guard = CancelOnDrop(Arc::clone(&cancelled));
    let task = tokio::task::spawn_blocking(move || {
        ping::run(&*kernel, &request, from, echo, run, &cancelled)
    });
    match task.await {
        Ok(Ok(result)) => Ok(Json(result)),
        Ok(Err(text)) => Err(unavailable(text)),
        Err(error) => Err(Failure(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
    }
}

fn check(field: &str, value: u64, min: u64, max: u64) -> Result<(), Failure> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(bad(format!("ping request: {field} = {value}: expected {min} to {max}")))
}

fn down(node: &Node) -> Failure {
    let silent = node.last_seen_ms.map_or("nothing was heard of it yet".into(), |ms| {
        format!("nothing was heard of it for {:.1} s", ms as f64 / 1000.0)
    });
    unavailable(format!("node {} is down: {silent}", node.id))
}

/// Waits until messages can be exchanged with a node; gives back its echo server's endpoint.
async fn reachable(api: &Api, to: u32) -> Result<(Arc<Snapshot>, Endpoint), Failure> {
    let mut changes = api.daemon.snapshots.clone();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let snapshot = Arc::clone(&changes.borrow_and_update());
        let node = snapshot.node(to)?;
        if node.state == NodeState::Down {
            return Err(down(node));
        }
        if let Some(echo) = snapshot.echoes.get(&to) {
            return Ok((Arc::clone(&snapshot), Endpoint::from_raw(*echo)));
        }
        if tokio::time::timeout_at(deadline, changes.changed()).await.is_err() {
            let detail = &snapshot.status.detail;
            return Err(unavailable(format!(
                "node {to} cannot be reached yet ({}): {}",
                node.state,
                if detail.is_empty() { "its echo server is not known" } else { detail }
            )));
        }
    }
}
