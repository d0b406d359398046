// SPDX-License-Identifier: MIT OR Apache-2.0
//! The part of the API that is about what the nodes agree on.
//!
//! Whatever changes something is proposed, and whatever reads waits until this node has everything
//! that was agreed on before, so it is all the same which node is asked.

mod barriers;
mod cluster;
mod containers;
mod elections;
mod events;
mod groups;
mod kv;
mod leases;
mod locks;
mod nodes;
mod tokens;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use axum::Router;
use dvs_api::{
    Barrier, BarrierDeparture, BarrierLeft, BarrierPassage, BarrierRequest, ClusterStatus,
    Container, ContainerChange, ContainerNodes, ContainerPlace, ContainerRequest, Election,
    ElectionLeader, ElectionRequest, ElectionResignation, ElectionResigned, ElectionStanding,
    Events, Group, GroupAcknowledged, GroupAcknowledgement, GroupDelivery, GroupJoin, GroupLeave,
    GroupLeft, GroupMessage, GroupPosition, JoinTokenInfo, KvChanges, KvDone, KvRange,
    KvTransaction, Lease, LeaseInfo, LeaseRequest, Lock, LockRelease, LockReleased, LockRequest,
    LockStanding, NodeDrain, NodeRemoval, NodeRename, NodeStanding, TokenCreated, TokenRequest,
    TokenRevoked, KV_VALUE_BYTES_MAX, WAIT_MS_MAX,
};
use dvs_consensus::{Consensus, ProposeError};
use dvs_state::{Answer, Command, Refusal, VERSION};
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::asking::{wait_for, Asking, Trouble};
use super::Access;
use crate::api::{bad, query, unavailable, Failure};
use crate::membership::Standing;
use crate::openapi::Description;

/// Bytes of a request's body: a value of which every byte is escaped, or a transaction of several.
const BODY_MAX: usize = 6 * KV_VALUE_BYTES_MAX + (16 << 10);
/// Requests that are answered at once, those that wait for something included.
const REQUESTS_MAX: usize = 256;

/// What keys, locks and so on of the cluster's administrators begin with, so that those of containers have names
/// of their own.
const SPACE: &str = "cluster/";

pub(super) struct Api {
    access: Access,
    asking: Asking,
    requests: Semaphore,
}

/// The routes.
pub fn routes(access: Access) -> Router {
    let api = Arc::new(Api {
        asking: Asking::new(access.clone()),
        access,
        requests: Semaphore::new(REQUESTS_MAX),
    });
    Router::new()
        .route("/v1/cluster", get(cluster::status))
        .route("/v1/containers", get(containers::list).post(containers::create))
        .route(
            "/v1/containers/{name}",
            get(containers::show).put(containers::change).delete(containers::delete),
        )
        .route("/v1/containers/{name}/nodes", put(containers::scale))
        .route("/v1/removals/{id}", get(containers::removal))
        .route("/v1/events", get(events::list))
        .route("/v1/nodes/{id}/standing", get(nodes::standing))
        .route("/v1/nodes/{id}/drain", post(nodes::drain))
        .route("/v1/nodes/{id}/undrain", post(nodes::undrain))
        .route("/v1/nodes/{id}/name", put(nodes::rename))
        .route("/v1/nodes/{id}/remove", post(nodes::remove))
        .route("/v1/nodes/{id}/allow", post(nodes::allow))
        .route("/v1/tokens", get(tokens::list).post(tokens::create))
        .route("/v1/tokens/{id}", delete(tokens::revoke))
        .route("/v1/kv", get(kv::range).post(kv::transact))
        .route("/v1/kv/changes", get(kv::changes))
        .route("/v1/leases", get(leases::list).post(leases::grant))
        .route("/v1/leases/{id}", post(leases::keep_alive).delete(leases::revoke))
        .route("/v1/elections", get(elections::list).post(elections::stand))
        .route("/v1/elections/leader", get(elections::leading))
        .route("/v1/elections/standing", get(elections::standing))
        .route("/v1/elections/resign", post(elections::resign))
        .route("/v1/groups", get(groups::list).post(groups::join))
        .route("/v1/groups/leave", post(groups::leave))
        .route("/v1/groups/messages", post(groups::send))
        .route("/v1/groups/deliveries", get(groups::deliveries))
        .route("/v1/groups/acknowledge", post(groups::acknowledge))
        .route("/v1/barriers", get(barriers::list).post(barriers::arrive))
        .route("/v1/barriers/leave", post(barriers::leave))
        .route("/v1/barriers/passage", get(barriers::passage))
        .route("/v1/locks", get(locks::list).post(locks::acquire))
        .route("/v1/locks/standing", get(locks::standing))
        .route("/v1/locks/release", post(locks::release))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(middleware::from_fn_with_state(Arc::clone(&api), limit))
        .with_state(api)
}

/// Describes them.
pub fn describe(api: &mut Description) {
    let summary = "How the nodes agree: who leads, who votes, who is missing";
    api.get("/v1/cluster", summary).answers::<ClusterStatus>();
    let range = api.get("/v1/kv", "One key, or all that begin with something");
    range.query::<kv::RangeQuery>().answers::<KvRange>();
    let transact = api.post("/v1/kv", "Compare keys, then do one thing or the other, at once");
    transact.takes::<KvTransaction>().answers::<KvDone>();
    let changes = api.get("/v1/kv/changes", "Changes of keys; waits until there are some");
    changes.query::<kv::ChangesQuery>().answers::<KvChanges>();
    api.get("/v1/leases", "All leases that have not ended").answers::<Vec<LeaseInfo>>();
    let grant = api.post("/v1/leases", "Begin a lease, with which locks and keys end");
    grant.takes::<LeaseRequest>().answers::<Lease>();
    api.post("/v1/leases/{id}", "Keep a lease alive").answers::<Lease>();
    api.delete("/v1/leases/{id}", "End a lease").answers::<Lease>();
    api.get("/v1/locks", "All locks that are held").answers::<Vec<Lock>>();
    let acquire = api.post("/v1/locks", "Get a lock, or in line for it");
    acquire.takes::<LockRequest>().answers::<LockStanding>();
    let standing = api.get("/v1/locks/standing", "Wait until a lock is held by a lease");
    standing.query::<locks::StandingQuery>().answers::<LockStanding>();
    let list = api.get("/v1/containers", "All Distributed Containers, and how far they have come");
    list.query::<containers::StaleQuery>().answers::<Vec<Container>>();
    let create = api.post("/v1/containers", "Have a Distributed Container made");
    create.takes::<ContainerRequest>().answers::<Container>();
    let show = api.get("/v1/containers/{name}", "One Distributed Container");
    show.query::<containers::StaleQuery>().answers::<Container>();
    let change = api
        .put("/v1/containers/{name}", "Change what a Distributed Container may use and is made of");
    change.takes::<ContainerChange>().answers::<Container>();
    api.delete("/v1/containers/{name}", "Have a Distributed Container removed")
        .answers::<Container>();
    let scale =
        api.put("/v1/containers/{name}/nodes", "Have a Distributed Container span other nodes");
    scale.takes::<ContainerNodes>().answers::<Container>();
    let summary = "What nodes still have of a Distributed Container that was deleted; waits until that is nothing";
    let removal = api.get("/v1/removals/{id}", summary);
    removal.query::<containers::RemovalQuery>().answers::<Vec<ContainerPlace>>();
    let events =
        api.get("/v1/events", "What has happened to the cluster; waits until something does");
    events.query::<events::EventsQuery>().answers::<Events>();
    let standing = api.get("/v1/nodes/{id}/standing", "What the nodes have agreed on about a node");
    standing.answers::<NodeStanding>();
    let drain = api.post("/v1/nodes/{id}/drain", "Empty a node; answers once its vote has gone");
    drain.takes::<NodeDrain>().answers::<NodeStanding>();
    let undrain = api.post("/v1/nodes/{id}/undrain", "Make a drained node one like any other");
    undrain.answers::<NodeStanding>();
    let rename = api.put("/v1/nodes/{id}/name", "Give a node another name");
    rename.takes::<NodeRename>().answers::<NodeStanding>();
    let remove = api.post("/v1/nodes/{id}/remove", "Make a node none any more");
    remove.takes::<NodeRemoval>().answers::<NodeStanding>();
    let allow = api.post("/v1/nodes/{id}/allow", "Let the machine come back that was a node");
    allow.answers::<NodeStanding>();
    let create = api.post("/v1/tokens", "Make a token with which machines may join");
    create.takes::<TokenRequest>().answers::<TokenCreated>();
    api.get("/v1/tokens", "The join tokens that are valid").answers::<Vec<JoinTokenInfo>>();
    api.delete("/v1/tokens/{id}", "Make a join token invalid").answers::<TokenRevoked>();
    api.get("/v1/elections", "All elections in which somebody stands").answers::<Vec<Election>>();
    let stand = api.post("/v1/elections", "Stand for election");
    stand.takes::<ElectionRequest>().answers::<ElectionStanding>();
    let leading = api.get("/v1/elections/leader", "Who leads, or wait until somebody else does");
    leading.query::<elections::LeaderQuery>().answers::<ElectionLeader>();
    let standing = api.get("/v1/elections/standing", "Wait until a candidate leads");
    standing.query::<elections::StandingQuery>().answers::<ElectionStanding>();
    let resign = api.post("/v1/elections/resign", "Stop to lead, or to stand");
    resign.takes::<ElectionResignation>().answers::<ElectionResigned>();
    api.get("/v1/barriers", "All barriers at which somebody waits").answers::<Vec<Barrier>>();
    let arrive = api.post("/v1/barriers", "Arrive at a barrier");
    arrive.takes::<BarrierRequest>().answers::<BarrierPassage>();
    let leave = api.post("/v1/barriers/leave", "Go away from a barrier without waiting");
    leave.takes::<BarrierDeparture>().answers::<BarrierLeft>();
    let passage = api.get("/v1/barriers/passage", "Wait until a barrier opens for a lease");
    passage.query::<barriers::PassageQuery>().answers::<BarrierPassage>();
    api.get("/v1/groups", "All groups that have members").answers::<Vec<Group>>();
    let join = api.post("/v1/groups", "Become a member of a group");
    join.takes::<GroupJoin>().answers::<GroupPosition>();
    let leave = api.post("/v1/groups/leave", "Stop to be a member of a group");
    leave.takes::<GroupLeave>().answers::<GroupLeft>();
    let send = api.post("/v1/groups/messages", "Send a message to all members of a group");
    send.takes::<GroupMessage>().answers::<GroupPosition>();
    let deliveries = api.get("/v1/groups/deliveries", "What a member of a group has to take");
    deliveries.query::<groups::DeliveriesQuery>().answers::<Vec<GroupDelivery>>();
    let acknowledge = api.post("/v1/groups/acknowledge", "Say what a member has taken");
    acknowledge.takes::<GroupAcknowledgement>().answers::<GroupAcknowledged>();
    let release = api.post("/v1/locks/release", "Give a lock back");
    release.takes::<LockRelease>().answers::<LockReleased>();
}

async fn limit(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    match api.requests.try_acquire() {
        Ok(_permit) => next.run(request).await,
        Err(_) => {
            let text = format!("{REQUESTS_MAX} requests are being answered already; try again");
            unavailable(text).into_response()
        }
    }
}

impl Api {
    fn consensus(&self) -> Result<Consensus, Failure> {
        self.asking.consensus().map_err(unavailable)
    }

    /// Has the nodes agree on a command.
    async fn propose(&self, command: &Command) -> Result<Answer, Failure> {
        self.asking.propose(command).await.map_err(|trouble| self.told(trouble))
    }

    /// As [`Asking::read`].
    async fn read<T>(
        &self,
        stale: bool,
        look: impl FnOnce(&dvs_state::State) -> T,
    ) -> Result<T, Failure> {
        self.asking.read(stale, look).await.map_err(|trouble| self.told(trouble))
    }

    /// As [`Asking::outcome`].
    async fn outcome<T>(
        &self,
        deadline: Instant,
        look: impl Fn(&dvs_state::State) -> Option<T>,
        waits: impl Fn(&T) -> bool,
    ) -> Result<Option<T>, Failure> {
        let found = self.asking.outcome(deadline, look, waits).await;
        found.map_err(|trouble| self.told(trouble))
    }

    fn told(&self, trouble: Trouble) -> Failure {
        told(&self.access, trouble)
    }
}

fn told(access: &Access, trouble: Trouble) -> Failure {
    match trouble {
        Trouble::Absent(why) => unavailable(why),
        Trouble::Refused(refusal) => refused(&refusal),
        Trouble::Failed(error) => match access.consensus() {
            Ok(consensus) => failed(access, &consensus, &error),
            Err(why) => unavailable(why),
        },
    }
}

/// Has the nodes agree on a command, for routes that are elsewhere.
pub(crate) async fn proposed(access: &Access, command: &Command) -> Result<Answer, Failure> {
    let asked = Asking::new(access.clone()).propose(command).await;
    asked.map_err(|trouble| told(access, trouble))
}

/// Says which node could not do what was asked, and who is missing for that.
fn failed(access: &Access, consensus: &Consensus, error: &ProposeError) -> Failure {
    let code = match error {
        ProposeError::NoLeader { .. } | ProposeError::Stopped(_) => StatusCode::SERVICE_UNAVAILABLE,
        // Not to be asked again of another node.
        ProposeError::Unknown => StatusCode::GATEWAY_TIMEOUT,
        ProposeError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        ProposeError::Refused(_) => StatusCode::BAD_REQUEST,
    };
    let view = access.view();
    let own = match view.standing {
        Standing::Member { seat, .. } => format!("node {}: ", seat.id),
        Standing::Discovering { .. } => String::new(),
    };
    let lack = match error {
        ProposeError::NoLeader { .. } => cluster::lack(&consensus.status(), &view),
        _ => None,
    };
    let lack = lack.map(|lack| format!("; {lack}")).unwrap_or_default();
    Failure(code, format!("{own}{error}{lack}"))
}

fn refused(refusal: &Refusal) -> Failure {
    let code = match refusal {
        Refusal::Missing { .. } => StatusCode::NOT_FOUND,
        // The leader sees to that by itself as soon as all nodes are of this release.
        Refusal::TooNew { needed, .. } if *needed <= VERSION => StatusCode::SERVICE_UNAVAILABLE,
        Refusal::Exists { .. }
        | Refusal::Busy { .. }
        | Refusal::Stale { .. }
        | Refusal::TooNew { .. } => StatusCode::CONFLICT,
        Refusal::Compacted { .. } => StatusCode::GONE,
        Refusal::NotFormed => StatusCode::SERVICE_UNAVAILABLE,
        Refusal::Malformed | Refusal::Invalid(_) | Refusal::Limit { .. } => StatusCode::BAD_REQUEST,
    };
    let text = match refusal {
        // The leader does that by itself, once it leads.
        Refusal::NotFormed => "the nodes are about to agree for the first time; try again".into(),
        _ => refusal.to_string(),
    };
    Failure(code, text)
}

/// The answer to a command was that to another one, which does not happen.
fn strange(answer: &Answer) -> Failure {
    Failure(StatusCode::INTERNAL_SERVER_ERROR, format!("the nodes agreed on {answer:?}"))
}

fn parse<T: DeserializeOwned>(what: &str, body: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(|error| bad(format!("{what}: {error}")))
}

/// A name as the state has it.
fn in_space(what: &str, name: &str) -> Result<String, Failure> {
    match name.is_empty() {
        true => Err(bad(format!("{what} has no name; give it one"))),
        false => Ok(format!("{SPACE}{name}")),
    }
}

/// A name as people have it.
fn out_of_space(name: &str) -> Option<&str> {
    name.strip_prefix(SPACE)
}

/// When a request that waits for something is to be answered.
fn deadline(wait_ms: u64) -> Result<Instant, Failure> {
    match wait_ms <= WAIT_MS_MAX {
        true => Ok(Instant::now() + Duration::from_millis(wait_ms)),
        false => Err(bad(format!("wait_ms = {wait_ms}: expected 0 to {WAIT_MS_MAX}"))),
    }
}
