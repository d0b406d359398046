// SPDX-License-Identifier: MIT OR Apache-2.0
//! The part of the API that shows the endpoints of M3-IPC on the answering node.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use dvk::Info;
use dvk_abi::{ioctl, Endpoint};
use dvs_api::{IpcEndpoint, IpcRole, IpcState};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::Semaphore;

use crate::api::{query, unavailable, Failure};
use crate::daemon::Handle;
use crate::kernel::Kernel;
use crate::look::aside;
use crate::openapi::Description;
use crate::reconcile::{SYSTEM_CONTAINER, SYSTEM_NAME};

/// Requests that are answered at once: each asks the kernel once for every endpoint.
const REQUESTS_MAX: usize = 4;

struct Api {
    daemon: Handle,
    requests: Semaphore,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct EndpointsQuery {
    /// Only those of this container; `system` for that of the nodes themselves.
    container: Option<String>,
}

/// The routes.
pub fn routes(daemon: Handle) -> Router {
    Router::new()
        .route("/v1/endpoints", get(list))
        .with_state(Arc::new(Api { daemon, requests: Semaphore::new(REQUESTS_MAX) }))
}

/// Describes them.
pub fn describe(api: &mut Description) {
    let list = api.get("/v1/endpoints", "The endpoints that are bound on the answering node");
    list.query::<EndpointsQuery>().answers::<Vec<IpcEndpoint>>();
}

impl Api {
    /// Numbers and names of the containers that are to be looked into.
    fn containers(&self, wanted: Option<&str>) -> Result<Vec<(u32, String)>, Failure> {
        let mut containers = vec![(SYSTEM_CONTAINER, SYSTEM_NAME.to_owned())];
        // A node that is about to join has no other.
        if let Ok(consensus) = self.daemon.agreement.consensus() {
            containers.extend(consensus.look(|state| {
                let all = state.containers().iter();
                all.map(|(id, one)| (u32::from(id), one.name.clone())).collect::<Vec<_>>()
            }));
        }
        if let Some(wanted) = wanted {
            containers.retain(|(_, name)| name == wanted);
            if containers.is_empty() {
                let text = format!("there is no container {wanted}");
                return Err(Failure(StatusCode::NOT_FOUND, text));
            }
        }
        Ok(containers)
    }
}

async fn list(
    State(api): State<Arc<Api>>,
    asked: Result<Query<EndpointsQuery>, QueryRejection>,
) -> Result<Json<Vec<IpcEndpoint>>, Failure> {
    let EndpointsQuery { container } = query(asked)?;
    let _permit = api.requests.try_acquire().map_err(|_| {
        unavailable(format!("{REQUESTS_MAX} requests look at endpoints already; try again"))
    })?;
    let (kernel, own) = {
        let snapshot = api.daemon.snapshots.borrow();
        (snapshot.kernel.clone(), snapshot.status.node)
    };
    let containers = api.containers(container.as_deref())?;
    let Some((kernel, own)) = kernel.zip(own) else {
        return Err(unavailable("this node has no id, or no DVK, yet; see `dvsctl node list`"));
    };
    let failed =
        |why| Failure(StatusCode::INTERNAL_SERVER_ERROR, format!("looking at endpoints: {why}"));
    aside(move || of_node(&*kernel, own, &containers).map_err(failed)).await.map(Json)
}

/// Those of the containers that are bound on the node `own`.
fn of_node(
    kernel: &dyn Kernel,
    own: u32,
    containers: &[(u32, String)],
) -> Result<Vec<IpcEndpoint>, String> {
    let mut endpoints = Vec::new();
    for (id, name) in containers {
        let known = kernel.endpoints(*id)?;
        endpoints.extend(known.iter().filter(|info| info.node == own).map(|it| shown(it, name)));
    }
    Ok(endpoints)
}

fn shown(info: &Info, container_name: &str) -> IpcEndpoint {
    let waits_for = Endpoint::from_raw(info.waits_for);
    IpcEndpoint {
        container: info.container,
        container_name: container_name.to_owned(),
        endpoint: Endpoint::from_raw(info.endpoint).to_string(),
        node: info.node,
        role: match info.role {
            ioctl::ROLE_BACKUP => IpcRole::Backup,
            ioctl::ROLE_REPLICA => IpcRole::Replica,
            _ => IpcRole::Primary,
        },
        state: match info.state {
            ioctl::STATE_RECEIVE => IpcState::Receive,
            ioctl::STATE_SEND => IpcState::Send,
            ioctl::STATE_REQUEST => IpcState::Request,
            ioctl::STATE_COPY => IpcState::Copy,
            ioctl::STATE_WAIT => IpcState::Wait,
            ioctl::STATE_MOVING => IpcState::Moving,
            _ => IpcState::Idle,
        },
        waits_for: (waits_for != Endpoint::NONE).then(|| waits_for.to_string()),
        received: info.received,
        sent: info.sent,
        senders: info.senders,
        clients: info.clients,
        notices: info.notices,
        grants: info.grants,
        epoch: info.epoch,
    }
}
