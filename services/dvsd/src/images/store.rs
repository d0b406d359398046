// SPDX-License-Identifier: MIT OR Apache-2.0
//! The archives of this node, for others than containers.

use std::path::PathBuf;

use axum::body::Body;
use axum::http::StatusCode;
use dvs_state::images::Digest;
use tokio::sync::watch;
use tokio::time::{timeout, Duration};

use super::archives::Partial;
use super::{stream, Progress, Shared, States};
use crate::api::{bad, Failure};
use crate::containers::blocking;

/// How long the next bytes of an archive may take.
const SILENCE: Duration = Duration::from_secs(30);

/// What this node has of what all nodes agree on that somebody is to have.
#[derive(Clone, Debug)]
pub struct Store {
    pub(super) shared: Shared,
    pub(super) states: watch::Receiver<States>,
}

impl Store {
    /// How far an archive has come that this node needs.
    pub(crate) fn state(&self, digest: Digest) -> Option<Progress> {
        self.states.borrow().get(&digest).cloned()
    }

    /// Where an archive is, if it is there.
    pub(crate) fn path(&self, digest: Digest) -> PathBuf {
        self.shared.archives.path(digest)
    }

    /// Takes in the body of a request. `what` says what it is, for people. It counts once it is finished.
    pub(crate) async fn receive(&self, what: &str, body: Body) -> Result<Partial, Failure> {
        self.shared.receive(what, body).await
    }
}

impl Shared {
    /// As [`Store::receive`].
    pub(super) async fn receive(&self, what: &str, mut body: Body) -> Result<Partial, Failure> {
        let mut partial = self.begin().map_err(|why| full(what, why))?;
        loop {
            let bytes = timeout(SILENCE, stream::next(&mut body)).await;
            let bytes = bytes.map_err(|_| bad(format!("{what}: nothing more of it has come")))?;
            let bytes = bytes.map_err(|why| bad(format!("{what}: {why}")))?;
            let Some(bytes) = bytes else { return Ok(partial) };
            partial = blocking(move || partial.write(&bytes).map(|()| partial))
                .await
                .map_err(|error| full(what, error.to_string()))?;
        }
    }
}

/// There is no room for an archive.
pub(super) fn full(what: &str, why: String) -> Failure {
    Failure(StatusCode::INSUFFICIENT_STORAGE, format!("{what}: {why}"))
}
