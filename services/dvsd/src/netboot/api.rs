// SPDX-License-Identifier: MIT OR Apache-2.0
//! The part of the API that is about booting other machines.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::routing::{get, put};
use axum::{Json, Router};
use dvs_api::{NetbootRequest, NetbootStatus};
use dvs_config::Netboot as Wanted;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::timeout;

use super::image::{Image, Shelf, RECEIVED};
use super::{Netboot, Refused};
use crate::api::{bad, unavailable, Failure};
use crate::containers::blocking;
use crate::daemon::Handle;
use crate::images::stream;
use crate::openapi::Description;

/// How long the next bytes of an image may take.
const SILENCE: Duration = Duration::from_secs(30);

struct Api {
    daemon: Handle,
    netboot: Netboot,
    /// Held while something is changed.
    changing: Mutex<()>,
}

/// The routes.
pub fn routes(daemon: Handle, netboot: Netboot) -> Router {
    let api = Api { daemon, netboot, changing: Mutex::default() };
    Router::new()
        .route("/v1/netboot", get(show).post(enable).delete(disable))
        .route("/v1/netboot/image", put(take_image))
        .with_state(Arc::new(api))
}

/// Describes them.
pub fn describe(api: &mut Description) {
    let summary = "Which machines the answering node boots over the network, and with what";
    api.get("/v1/netboot", summary).answers::<NetbootStatus>();
    let summary = "Have the answering node boot machines on one of its interfaces";
    api.post("/v1/netboot", summary).takes::<NetbootRequest>().answers::<NetbootStatus>();
    let summary = "Have the answering node boot no machines any more";
    api.delete("/v1/netboot", summary).answers::<NetbootStatus>();
    let summary = "Hand over what machines are booted with; the body is a unified kernel image";
    api.put("/v1/netboot/image", summary).answers::<NetbootStatus>();
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Conflict(text) | Refused::Failed(text) => Self(StatusCode::CONFLICT, text),
            Refused::Broken(text) => broken(text),
        }
    }
}

fn broken(text: String) -> Failure {
    Failure(StatusCode::INTERNAL_SERVER_ERROR, text)
}

impl Api {
    fn status(&self) -> NetbootStatus {
        self.netboot.status(self.daemon.snapshots.borrow().status.node)
    }

    fn change(&self) -> Result<MutexGuard<'_, ()>, Failure> {
        let busy = "somebody else is changing how this node boots others; try again";
        self.changing.try_lock().map_err(|_| unavailable(busy))
    }
}

async fn show(State(api): State<Arc<Api>>) -> Json<NetbootStatus> {
    Json(api.status())
}

/// What a request wants.
fn wanted(request: NetbootRequest) -> Result<Wanted, Failure> {
    fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(
        name: &str,
        text: &str,
    ) -> Result<T, Failure> {
        text.parse().map_err(|error| bad(format!("`{name}`: {error}")))
    }
    let NetbootRequest { interface, address, addresses, append } = request;
    let wanted = Wanted {
        interface: parse("interface", &interface)?,
        address: address.map(|text| parse("address", &text)).transpose()?,
        addresses: addresses.map(|text| parse("addresses", &text)).transpose()?,
        append: append.map(|text| parse("append", &text)).transpose()?,
    };
    if let (Some(own), Some(addresses)) = (wanted.address, wanted.addresses) {
        addresses.check_beside(own).map_err(|why| bad(format!("`addresses`: {why}")))?;
    }
    Ok(wanted)
}

async fn enable(State(api): State<Arc<Api>>, body: Bytes) -> Result<Json<NetbootStatus>, Failure> {
    let request = serde_json::from_slice(&body)
        .map_err(|error| bad(format!("how to boot machines: {error}")))?;
    let wanted = wanted(request)?;
    let _changing = api.change()?;
    api.netboot.want(Some(wanted)).await?;
    Ok(Json(api.status()))
}

async fn disable(State(api): State<Arc<Api>>) -> Result<Json<NetbootStatus>, Failure> {
    let _changing = api.change()?;
    api.netboot.want(None).await?;
    Ok(Json(api.status()))
}

/// Keeps an image, with which machines are booted from the next `POST` on.
async fn take_image(
    State(api): State<Arc<Api>>,
    request: Request,
) -> Result<Json<NetbootStatus>, Failure> {
    let _changing = api.change()?;
    let shelf = api.netboot.shelf();
    let (partial, mut file) = shelf.begin(RECEIVED).map_err(broken)?;
    let received = receive(request, &mut file).await;
    let kept = match received {
        Ok(()) => Image::of(file).map_err(bad).and_then(|_| {
            shelf.finish(&partial, "what an administrator has handed over").map_err(broken)
        }),
        Err(failure) => Err(failure),
    };
    if kept.is_err() {
        // It takes memory.
        let _ = std::fs::remove_file(&partial);
    }
    kept.map(|()| Json(api.status()))
}

/// Writes an image to a file, which has to fit into memory.
async fn receive(request: Request, file: &mut File) -> Result<(), Failure> {
    let room = Shelf::room();
    let mut body = request.into_body();
    let mut length = 0;
    loop {
        let bytes = timeout(SILENCE, stream::next(&mut body)).await;
        let bytes = bytes.map_err(|_| bad("the image: nothing more of it has come"))?;
        let Some(bytes) = bytes.map_err(|why| bad(format!("the image: {why}")))? else {
            return Ok(());
        };
        length += bytes.len() as u64;
        let full = |text| Failure(StatusCode::INSUFFICIENT_STORAGE, text);
        if length > room {
            let text = "the image is longer than the bytes of memory that this node has for it";
            return Err(full(format!("{text}: {room}")));
        }
        let mut own = file.try_clone().map_err(|error| full(format!("the image: {error}")))?;
        let written = blocking(move || own.write_all(&bytes)).await;
        written.map_err(|error| full(format!("the image: {error}")))?;
    }
}
