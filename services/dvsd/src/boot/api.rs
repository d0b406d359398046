// SPDX-License-Identifier: MIT OR Apache-2.0
//! The part of the API that is about what a node boots from.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use dvs_api::{
    BootDisk, BootImage, BootImageState, BootStatus, DiskFound, DiskListed, InstallRequest,
    Installed, WipeRequest, Wiped,
};
use dvs_bootdisk::install::{self, Content};
use dvs_bootdisk::Listed;
use dvs_slots::record::Fate;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::Boot;
use crate::api::{bad, query, unavailable, Failure};
use crate::containers::blocking;
use crate::daemon::Handle;
use crate::images::stream;
use crate::machine;
use crate::netboot::Netboot;
use crate::openapi::Description;
use crate::trial;

/// systemd's boot loader, as it is in the root of a node.
const LOADER: &str = "/usr/libexec/dvs/systemd-bootx64.efi";
/// How long the next bytes of an image may take.
const SILENCE: Duration = Duration::from_secs(30);
/// What part of the memory that a node has left an image may take.
const MEMORY_PART: u64 = 2;

struct Api {
    daemon: Handle,
    boot: Boot,
    /// It knows where the image is that this node runs.
    netboot: Netboot,
    /// Where PID 1 leaves what services need to know.
    directory: PathBuf,
    /// Held while a disk is written.
    installing: Mutex<()>,
}

/// What comes behind the path of a question about a disk.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct DiskQuery {
    /// The disk, such as `/dev/vda`.
    disk: String,
}

/// What comes behind the path of an installation.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct InstallQuery {
    /// The disk, such as `/dev/vda`.
    disk: String,
    /// Whether what is on it may be lost.
    #[serde(default)]
    wipe: bool,
    /// The version of the image.
    version: String,
}

/// The routes. `directory` is where PID 1 leaves what services need to know.
pub fn routes(daemon: Handle, boot: Boot, netboot: Netboot, directory: PathBuf) -> Router {
    let api = Api { daemon, boot, netboot, directory, installing: Mutex::default() };
    Router::new()
        .route("/v1/boot", get(show))
        .route("/v1/boot/disk", get(examine).put(install).post(install_running))
        .route("/v1/boot/disk/wipe", post(wipe))
        .route("/v1/boot/disks", get(list))
        .with_state(Arc::new(api))
}

/// Describes them.
pub fn describe(api: &mut Description) {
    let summary = "Which image the answering node has booted, and which it boots next";
    api.get("/v1/boot", summary).answers::<BootStatus>();
    let summary = "What is on a disk of the answering node that could be made one that boots";
    api.get("/v1/boot/disk", summary).query::<DiskQuery>().answers::<DiskFound>();
    let summary =
        "Make a disk of the answering node one that boots; the body is a unified kernel image";
    api.put("/v1/boot/disk", summary).query::<InstallQuery>().answers::<Installed>();
    let summary =
        "Make a disk of the answering node one that boots, with the image that the node runs";
    api.post("/v1/boot/disk", summary).takes::<InstallRequest>().answers::<Installed>();
    let summary = "Make a disk of the answering node that boots a node one that boots nothing";
    api.post("/v1/boot/disk/wipe", summary).takes::<WipeRequest>().answers::<Wiped>();
    let summary = "The disks of the answering node, and which could be made ones that boot";
    api.get("/v1/boot/disks", summary).answers::<Vec<DiskListed>>();
}

fn broken(error: impl std::fmt::Display) -> Failure {
    Failure(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}

impl Api {
    fn node(&self) -> Option<u32> {
        self.daemon.snapshots.borrow().status.node
    }

    /// Makes a disk one that boots an image. Only one is written at a time.
    async fn write(
        &self,
        disk: String,
        image: Vec<u8>,
        version: String,
        wipe: bool,
    ) -> Result<Json<Installed>, Failure> {
        let (name, machine) = (disk.clone(), self.boot.machine.clone());
        let target = blocking(move || machine.examine(&name)).await.map_err(refused)?;
        let (_, config) = trial::read(&self.directory).map_err(broken)?;
        let random = || -> Result<u128, Failure> {
            let half = || getrandom::u64().map_err(|error| broken(format!("entropy: {error}")));
            Ok(u128::from(half()?) << 64 | u128::from(half()?))
        };
        let identifiers = [random()?, random()?];
        let loader = fs::read(Path::new(LOADER))
            .map_err(|error| broken(format!("read the boot loader {LOADER}: {error}")))?;
        let bytes = target.bytes;
        println!("writing image {version} to {disk}");
        let written = blocking(move || {
            let config = config.to_toml();
            let content =
                Content { loader: &loader, image: &image, version: &version, config: &config };
            target.install(&content, identifiers, wipe)
        });
        written.await.map_err(refused)?;
        println!("{disk} boots this node from now on");
        Ok(Json(Installed { node: self.node(), disk, bytes }))
    }
}

async fn show(State(api): State<Arc<Api>>) -> Result<Json<BootStatus>, Failure> {
    let version = crate::release::own().to_owned();
    let status = BootStatus { node: api.node(), version, disk: None, why: None };
    let own = match &api.boot.disk {
        Ok(own) => Arc::clone(own),
        Err(why) => return Ok(Json(BootStatus { why: Some(why.clone()), ..status })),
    };
    let device = own.device().display().to_string();
    let images = blocking(move || own.list()).await.map_err(broken)?;
    let images = images.into_iter().map(told).collect();
    Ok(Json(BootStatus { disk: Some(BootDisk { device, images }), ..status }))
}

fn told(image: Listed) -> BootImage {
    let Listed { number, known, fate, runs, next } = image;
    let (version, sha256) = known.unzip();
    let (state, cause) = match fate {
        Fate::Confirmed => (BootImageState::Confirmed, None),
        Fate::Trying => (BootImageState::Trying, None),
        Fate::GivenUp(why) => (BootImageState::GivenUp, Some(why)),
        Fate::Replaced => (BootImageState::Replaced, None),
    };
    BootImage { number, version, sha256, state, cause, runs, next }
}

/// Whether a disk could be made one that boots, and what would be lost.
async fn examine(
    State(api): State<Arc<Api>>,
    asked: Result<Query<DiskQuery>, QueryRejection>,
) -> Result<Json<DiskFound>, Failure> {
    let DiskQuery { disk } = query(asked)?;
    let (name, machine) = (disk.clone(), api.boot.machine.clone());
    let target = blocking(move || machine.examine(&name)).await.map_err(refused)?;
    Ok(Json(DiskFound { disk, bytes: target.bytes, found: target.found }))
}

/// All disks.
async fn list(State(api): State<Arc<Api>>) -> Result<Json<Vec<DiskListed>>, Failure> {
    let machine = api.boot.machine.clone();
    let disks = blocking(move || machine.list()).await;
    let told = |listed: install::Listed| {
        let install::Listed { path, bytes, model, state } = listed;
        let (found, unfit) = match state {
            Ok(found) => (found, None),
            Err(why) => (None, Some(why)),
        };
        DiskListed { disk: path.display().to_string(), bytes, model, found, unfit }
    };
    Ok(Json(disks.into_iter().map(told).collect()))
}

/// Writes the image that this node runs to a disk.
async fn install_running(
    State(api): State<Arc<Api>>,
    body: Bytes,
) -> Result<Json<Installed>, Failure> {
    let InstallRequest { disk, wipe } = serde_json::from_slice(&body)
        .map_err(|error| bad(format!("which disk is to be written to: {error}")))?;
    let _installing = api.installing.try_lock().map_err(|_| busy())?;
    // Before anything is copied: what is asked for may be out of the question.
    let (name, machine) = (disk.clone(), api.boot.machine.clone());
    blocking(move || machine.examine(&name)).await.map_err(refused)?;
    let netboot = api.netboot.clone();
    let (image, version) = blocking(move || netboot.running_image()).await.map_err(|why| {
        let text = format!("{why}, or name an image with `dvsctl node install --image`");
        Failure(StatusCode::CONFLICT, text)
    })?;
    api.write(disk, image, version, wipe).await
}

/// Writes zeros over what boots a node on a disk.
async fn wipe(State(api): State<Arc<Api>>, body: Bytes) -> Result<Json<Wiped>, Failure> {
    let WipeRequest { disk, dry_run } = serde_json::from_slice(&body)
        .map_err(|error| bad(format!("which disk is to be wiped: {error}")))?;
    let _installing = api.installing.try_lock().map_err(|_| busy())?;
    let (name, machine) = (disk.clone(), api.boot.machine.clone());
    let wiped = blocking(move || {
        let target = machine.examine_boot_disk(&name)?;
        if dry_run {
            return Ok(());
        }
        println!("wiping {name}");
        target.wipe()
    });
    wiped.await.map_err(refused)?;
    Ok(Json(Wiped { node: api.node(), disk, dry_run }))
}

fn busy() -> Failure {
    unavailable("another disk of this node is being written; try again when that is done")
}

/// Takes an image in and writes it to a disk.
async fn install(
    State(api): State<Arc<Api>>,
    asked: Result<Query<InstallQuery>, QueryRejection>,
    request: Request,
) -> Result<Json<Installed>, Failure> {
    let InstallQuery { disk, wipe, version } = query(asked)?;
    let _installing = api.installing.try_lock().map_err(|_| busy())?;
    // An answer before all has come would not be heard.
    let image = received(request).await?;
    api.write(disk, image, version, wipe).await
}

/// An image, which has to fit into memory.
async fn received(request: Request) -> Result<Vec<u8>, Failure> {
    let free = machine::usage(Path::new(machine::PROC)).memory_available_bytes / MEMORY_PART;
    let mut body = request.into_body();
    let mut image = Vec::new();
    loop {
        let bytes = timeout(SILENCE, stream::next(&mut body)).await;
        let bytes = bytes.map_err(|_| bad("the image: nothing more of it has come"))?;
        let Some(bytes) = bytes.map_err(|why| bad(format!("the image: {why}")))? else { break };
        if (image.len() + bytes.len()) as u64 > free {
            let text = format!(
                "the image is longer than the {free} bytes of memory that this node has for it"
            );
            return Err(Failure(StatusCode::INSUFFICIENT_STORAGE, text));
        }
        image.extend_from_slice(&bytes);
    }
    Ok(image)
}

fn refused(error: install::Error) -> Failure {
    let status = match &error {
        install::Error::Unfit { .. } | install::Error::InUse { .. } => StatusCode::CONFLICT,
        install::Error::Image(_) => StatusCode::BAD_REQUEST,
        install::Error::Disk { .. } => StatusCode::INTERNAL_SERVER_ERROR,
    };
    Failure(status, error.to_string())
}
