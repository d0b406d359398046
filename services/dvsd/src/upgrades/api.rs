// SPDX-License-Identifier: MIT OR Apache-2.0
//! The part of the API that is about upgrades.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use dvs_api::{RollbackRequest, UpgradeNode, UpgradePhase};
use dvs_consensus::Consensus;
use dvs_state::nodes::NodeId;
use dvs_state::upgrades::{Bundle, Command as Upgrade, Past, Phase, Progress, Rules, Step};
use dvs_state::Command;
use schemars::JsonSchema;
use semver::Version;
use serde::Deserialize;
use tokio::sync::Semaphore;

use super::Upgrades;
use crate::agreement::api::proposed;
use crate::api::{bad, query, unavailable, Failure};
use crate::containers::blocking;
use crate::daemon::Handle;
use crate::images::Store;
use crate::membership::Liveness;
use crate::openapi::Description;

/// What comes behind the path of `PUT /v1/upgrade?canary=N&…`, whose body is a bundle.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct UpgradeQuery {
    /// Ids of the nodes, separated by commas, in the order in which they go; all if it is missing.
    #[serde(default)]
    nodes: Option<String>,
    /// How many of them must be done before the others begin.
    canary: u16,
    /// How many nodes of the cluster may be away at a time.
    max_unavailable: u16,
    /// Seconds that a node may take for each step.
    patience_s: u32,
    /// Whether the bundle may be older than what nodes run.
    #[serde(default)]
    allow_downgrade: bool,
}

struct Api {
    daemon: Handle,
    store: Store,
    keys: PathBuf,
    release: String,
    /// Bundles that are taken in at once.
    transfers: Semaphore,
}

/// The routes.
pub fn routes(upgrades: &Upgrades) -> Router {
    let Upgrades { daemon, store, keys, release, .. } = upgrades;
    let (daemon, store, keys, release) =
        (daemon.clone(), store.clone(), keys.clone(), release.clone());
    let api = Api { daemon, store, keys, release, transfers: Semaphore::new(1) };
    Router::new()
        .route("/v1/upgrade", get(show).put(start))
        .route("/v1/upgrade/pause", post(pause))
        .route("/v1/upgrade/resume", post(resume))
        .route("/v1/upgrade/cancel", post(cancel))
        .route("/v1/upgrade/rollback", post(rollback))
        .with_state(Arc::new(api))
}

/// Describes them.
pub fn describe(api: &mut Description) {
    api.get("/v1/upgrade", "The upgrades of nodes: the last one, and those before it")
        .answers::<dvs_api::Upgrades>();
    let summary = "Upgrade nodes to the image of a bundle, which is the body";
    api.put("/v1/upgrade", summary).query::<UpgradeQuery>().answers::<dvs_api::Upgrades>();
    api.post("/v1/upgrade/pause", "Let no more nodes begin").answers::<dvs_api::Upgrades>();
    let summary = "Go on, and try nodes again that have failed";
    api.post("/v1/upgrade/resume", summary).answers::<dvs_api::Upgrades>();
    api.post("/v1/upgrade/cancel", "End the upgrade; nodes stay with what they have")
        .answers::<dvs_api::Upgrades>();
    let summary = "Upgrade nodes to what they ran before the last upgrade";
    api.post("/v1/upgrade/rollback", summary)
        .takes::<RollbackRequest>()
        .answers::<dvs_api::Upgrades>();
}

type Answered = Result<Json<dvs_api::Upgrades>, Failure>;

impl Api {
    fn consensus(&self) -> Result<Consensus, Failure> {
        self.daemon.agreement.consensus().map_err(unavailable)
    }

    /// What the nodes have agreed on.
    async fn read<T>(&self, look: impl FnOnce(&dvs_state::State) -> T) -> Result<T, Failure> {
        let consensus = self.consensus()?;
        let read = consensus.read(look).await;
        read.map_err(|error| unavailable(error.to_string()))
    }

    async fn told(&self) -> Answered {
        self.read(told).await.map(Json)
    }

    async fn agree(&self, command: Upgrade) -> Answered {
        proposed(&self.daemon.agreement, &Command::Upgrades(command)).await?;
        self.told().await
    }

    /// The number of the upgrade that is not over, if that is what is meant.
    async fn current(&self) -> Result<u32, Failure> {
        let current = self.read(|state| state.upgrades().current().map(|it| it.id));
        current
            .await?
            .ok_or_else(|| Failure(StatusCode::NOT_FOUND, "no upgrade was ever begun".into()))
    }

    /// The nodes to upgrade: all, this one last, or those that were named.
    async fn order(&self, named: Option<&str>) -> Result<Vec<NodeId>, Failure> {
        if let Some(named) = named {
            let id = |text: &str| {
                let id = text.trim().parse::<NodeId>();
                id.map_err(|_| bad(format!("`{text}` is no node id")))
            };
            return named.split(',').map(id).collect();
        }
        let own = self.daemon.snapshots.borrow().status.node;
        let all = self.read(move |state| {
            let mut ids: Vec<_> = state.nodes().iter().map(|(id, _)| id).collect();
            // Whoever asks would rather not see the node go that answers.
            ids.sort_by_key(|id| (Some(u32::from(*id)) == own, *id));
            ids
        });
        all.await
    }

    /// What the nodes run that are heard.
    fn releases(&self) -> BTreeSet<String> {
        let view = self.daemon.agreement.view();
        let heard = view.members.iter().filter(|member| member.liveness == Liveness::Alive);
        let others = heard.filter_map(|member| Some(member.said.as_ref()?.release.clone()));
        others.chain([self.release.clone()]).collect()
    }
}

async fn show(State(api): State<Arc<Api>>) -> Answered {
    api.told().await
}

/// Takes a bundle in, and has the nodes agree on an upgrade to it. Nothing is agreed on before it has been checked.
async fn start(
    State(api): State<Arc<Api>>,
    options: Result<Query<UpgradeQuery>, QueryRejection>,
    request: Request,
) -> Answered {
    let options = query(options)?;
    let busy = || unavailable("another bundle is being taken in; try again");
    let _permit = api.transfers.try_acquire().map_err(|_| busy())?;
    // First of all: whoever sends a body may not look at an answer that comes before its end.
    let partial = api.store.receive("the bundle", request.into_body()).await?;
    let order = api.order(options.nodes.as_deref()).await?;
    let (path, keys) = (partial.path().to_owned(), api.keys.clone());
    let manifest = blocking(move || super::read(&path, &keys, |_| {})).await.map_err(bad)?;
    if !options.allow_downgrade {
        let newer = api.releases().into_iter().find(|own| is_older(&manifest.release, own));
        if let Some(newer) = newer {
            let text = format!(
                "the bundle is {}, which is older than {newer} that nodes run; use --allow-downgrade if you mean it",
                manifest.release
            );
            return Err(Failure(StatusCode::CONFLICT, text));
        }
    }
    let (digest, bytes) = (partial.digest(), partial.bytes());
    let full = |error: std::io::Error| {
        Failure(StatusCode::INSUFFICIENT_STORAGE, format!("keep the bundle: {error}"))
    };
    let pin = partial.finish().map_err(full)?;
    let bundle = Bundle { digest, bytes, release: manifest.release };
    let UpgradeQuery { canary, max_unavailable, patience_s, .. } = options;
    let rules = Rules { canary, max_unavailable, patience_s };
    let answered = api.agree(Upgrade::Start { bundle, nodes: order, rules }).await;
    drop(pin);
    answered
}

async fn pause(State(api): State<Arc<Api>>) -> Answered {
    let upgrade = api.current().await?;
    api.agree(Upgrade::Pause { upgrade, why: "an administrator has paused it".into() }).await
}

async fn resume(State(api): State<Arc<Api>>) -> Answered {
    let upgrade = api.current().await?;
    api.agree(Upgrade::Resume { upgrade }).await
}

async fn cancel(State(api): State<Arc<Api>>) -> Answered {
    let upgrade = api.current().await?;
    api.agree(Upgrade::Cancel { upgrade }).await
}

async fn rollback(State(api): State<Arc<Api>>, body: Bytes) -> Answered {
    let rules: RollbackRequest =
        serde_json::from_slice(&body).map_err(|error| bad(format!("rollback: {error}")))?;
    let RollbackRequest { canary, max_unavailable, patience_s } = rules;
    let before = api.read(|state| state.upgrades().before().cloned());
    let bundle = before.await?.ok_or_else(|| {
        let text = "no bundle is known that the nodes ran before; give one to `dvsctl upgrade --allow-downgrade`";
        Failure(StatusCode::CONFLICT, text.into())
    })?;
    let (nodes, rules) = (api.order(None).await?, Rules { canary, max_unavailable, patience_s });
    api.agree(Upgrade::Start { bundle, nodes, rules }).await
}

/// Whether a release is of an earlier version than another one. What tells builds apart says nothing about that.
fn is_older(new: &str, own: &str) -> bool {
    match (Version::parse(new), Version::parse(own)) {
        (Ok(new), Ok(own)) => new.cmp_precedence(&own) == Ordering::Less,
        _ => false,
    }
}

fn phase(phase: &Phase) -> (UpgradePhase, Option<String>) {
    match phase {
        Phase::Running => (UpgradePhase::Running, None),
        Phase::Paused { why } => (UpgradePhase::Paused, Some(why.clone())),
        Phase::Complete => (UpgradePhase::Complete, None),
        Phase::Cancelled => (UpgradePhase::Cancelled, None),
    }
}

fn node(state: &dvs_state::State, id: NodeId, progress: &Progress) -> UpgradeNode {
    let (step, cause) = match &progress.step {
        Step::Failed { cause } => ("failed".to_owned(), Some(cause.clone())),
        step => (step.to_string(), None),
    };
    let for_ms = state.now().0.saturating_sub(progress.since.0);
    UpgradeNode { node: id.into(), step, cause, for_ms, restarts: progress.restarts }
}

fn told(state: &dvs_state::State) -> dvs_api::Upgrades {
    let upgrades = state.upgrades();
    let current = upgrades.current().map(|upgrade| {
        let ids = upgrade.order.iter();
        let nodes = ids.filter_map(|id| Some(node(state, *id, upgrade.nodes.get(id)?)));
        dvs_api::Upgrade { nodes: nodes.collect(), ..summary(state, &upgrade.summary()) }
    });
    dvs_api::Upgrades {
        current,
        past: upgrades.past().map(|past| summary(state, past)).collect(),
        before: upgrades.before().map(|bundle| bundle.release.clone()),
    }
}

/// An upgrade with the nodes that failed.
fn summary(state: &dvs_state::State, past: &Past) -> dvs_api::Upgrade {
    let (phase, why) = phase(&past.phase);
    let failed = past.failures.iter().map(|(id, cause)| UpgradeNode {
        node: (*id).into(),
        step: "failed".into(),
        cause: Some(cause.clone()),
        for_ms: 0,
        restarts: 0,
    });
    dvs_api::Upgrade {
        id: past.id,
        release: past.bundle.release.clone(),
        digest: past.bundle.digest.to_string(),
        bytes: past.bundle.bytes,
        phase,
        why,
        nodes: failed.collect(),
        started_ms: past.started.0,
        started_unix_ms: state.events().unix_ms(past.started),
        changed_ms: past.changed.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_tell_which_release_is_older() {
        for (new, own, older) in [
            ("0.1.0+aa", "0.2.0+bb", true),
            ("0.10.0+aa", "0.9.0+bb", false),
            ("0.2.0+aa", "0.2.0+bb", false),
            ("0.2.0-rc.1+aa", "0.2.0+bb", true),
            ("whatever", "0.2.0", false),
        ] {
            assert_eq!(is_older(new, own), older, "{new} {own}");
        }
    }
}
