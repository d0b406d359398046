// SPDX-License-Identifier: MIT OR Apache-2.0
//! The part of the API that is about images.

use std::fs::File;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{header, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use axum::{Json, Router};
use dvs_api::Image;
use dvs_consensus::Consensus;
use dvs_state::images::{self, Digest};
use dvs_state::Command;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::store::full;
use super::{keepers, stream, Images, Shared};
use crate::agreement::api::proposed;
use crate::api::{bad, unavailable, Failure};
use crate::containers::blocking;
use crate::openapi::Description;

/// Archives that are taken in or given away at once.
const TRANSFERS_MAX: usize = 8;

struct Api {
    shared: Shared,
    transfers: Arc<Semaphore>,
}

/// The routes.
pub fn routes(images: &Images) -> Router {
    let api =
        Api { shared: images.shared.clone(), transfers: Arc::new(Semaphore::new(TRANSFERS_MAX)) };
    Router::new()
        .route("/v1/images", get(list))
        .route("/v1/images/{name}", put(import).delete(forget))
        .route("/v1/archives/{digest}", get(archive))
        .with_state(Arc::new(api))
}

/// Describes them.
pub fn describe(api: &mut Description) {
    api.get("/v1/images", "The images of containers, and where they are").answers::<Vec<Image>>();
    let summary =
        "Give a name to an image, whose archive is the body: oci-archive or docker-archive";
    api.put("/v1/images/{name}", summary).answers::<Image>();
    let summary = "End the name of an image; containers that are made of it keep it";
    api.delete("/v1/images/{name}", summary).answers::<Image>();
    api.get("/v1/archives/{digest}", "The archive of an image, if the answering node has it")
        .answers_with("application/octet-stream");
}

fn told(state: &dvs_state::State, name: &str, image: &images::Image) -> Image {
    let digest = image.digest;
    let holders = keepers::holders(state).remove(&digest).unwrap_or_default();
    let containers = state.containers().iter().filter(|(id, _)| {
        let made_of = state.containers().defined(*id).workload.image;
        made_of.is_some_and(|made_of| made_of.digest == digest)
    });
    Image {
        name: name.to_owned(),
        digest: digest.to_string(),
        bytes: image.bytes,
        nodes: holders.into_iter().map(Into::into).collect(),
        keepers: keepers::keepers(state, digest).into_iter().map(Into::into).collect(),
        containers: containers.map(|(_, container)| container.name.clone()).collect(),
    }
}

impl Api {
    fn consensus(&self) -> Result<Consensus, Failure> {
        self.shared.daemon.agreement.consensus().map_err(unavailable)
    }

    fn transfer(&self) -> Result<OwnedSemaphorePermit, Failure> {
        let text = || format!("{TRANSFERS_MAX} archives are on their way already; try again");
        Arc::clone(&self.transfers).try_acquire_owned().map_err(|_| unavailable(text()))
    }

    /// The image of a name, as the nodes have agreed.
    async fn find(&self, name: &str) -> Result<Option<Image>, Failure> {
        let consensus = self.consensus()?;
        let found = consensus.read(|state| {
            let image = state.images().get(name)?;
            Some(told(state, name, image))
        });
        found.await.map_err(|error| unavailable(error.to_string()))
    }
}

async fn list(State(api): State<Arc<Api>>) -> Result<Json<Vec<Image>>, Failure> {
    let consensus = api.consensus()?;
    let all = consensus.read(|state| {
        let all = state.images().iter();
        all.map(|(name, image)| told(state, name, image)).collect()
    });
    all.await.map(Json).map_err(|error| unavailable(error.to_string()))
}

/// Takes an archive in. What is no image is refused before anything is agreed on.
async fn import(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Json<Image>, Failure> {
    let _permit = api.transfer()?;
    if name.contains('/') || name.is_empty() {
        return Err(bad(format!("`{name}` cannot be the name of an image; use no /")));
    }
    let what = format!("image {name}");
    let partial = api.shared.receive(&what, request.into_body()).await?;
    let (digest, bytes) = (partial.digest(), partial.bytes());
    // Whether it is an image shows when it is unpacked.
    api.shared.check(partial.path()).await.map_err(|why| bad(format!("image {name}: {why}")))?;
    let pin = partial.finish().map_err(|error| full(&what, error.to_string()))?;
    let command = images::Command::Name { name: name.clone(), digest, bytes };
    proposed(&api.shared.daemon.agreement, &Command::Images(command)).await?;
    drop(pin);
    let gone = || Failure(StatusCode::CONFLICT, format!("image {name} was removed at once"));
    api.find(&name).await?.map(Json).ok_or_else(gone)
}

async fn forget(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
) -> Result<Json<Image>, Failure> {
    let missing = || Failure(StatusCode::NOT_FOUND, format!("there is no image {name}"));
    let image = api.find(&name).await?.ok_or_else(missing)?;
    let command = images::Command::Forget { name: name.clone() };
    proposed(&api.shared.daemon.agreement, &Command::Images(command)).await?;
    Ok(Json(image))
}

async fn archive(
    State(api): State<Arc<Api>>,
    Path(digest): Path<String>,
) -> Result<Response, Failure> {
    let permit = api.transfer()?;
    let digest: Digest = digest.parse().map_err(bad)?;
    let path = api.shared.archives.path(digest);
    let missing = |error| {
        Failure(StatusCode::NOT_FOUND, format!("this node has no archive {digest}: {error}"))
    };
    let file = blocking(move || File::open(path)).await.map_err(missing)?;
    let body: Body = stream::of_file(file, permit).map_err(missing)?;
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], body).into_response())
}
