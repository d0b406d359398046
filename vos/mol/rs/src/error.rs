// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why something was not done.

use crate::manifest::ManifestError;
use dvk_services::{Error as ServicesError, Reason};
use std::io;
use std::path::PathBuf;

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is no manifest.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The manifest cannot be read.
    #[error("cannot read {path}: {error}", path = path.display())]
    Read {
        /// Where it is.
        path: PathBuf,
        /// What Linux says.
        error: io::Error,
    },
    /// The container's services did not do it.
    #[error("cannot {what}: {error}")]
    Services {
        /// What was to be done.
        what: &'static str,
        /// Why not.
        error: ServicesError,
    },
    /// The DVK.
    #[error(transparent)]
    Dvk(#[from] dvk::Error),
    /// Somebody else has changed it at the same time.
    #[error("the manifest was changed by somebody else meanwhile; look at it with `mol-rs manifest`, and load yours again")]
    Contended,
    /// There is no manifest.
    #[error("no manifest is loaded; write one and load it with `mol-rs load FILE`")]
    NoManifest,
    /// There is no such server.
    #[error("there is no server {name:?}; there are: {there}")]
    NoServer {
        /// What was asked for.
        name: String,
        /// Which ones there are.
        there: String,
    },
    /// It cannot be moved.
    #[error("{name} is not moved to node {node}: {why}")]
    NotMoved {
        /// The server.
        name: String,
        /// Where to.
        node: u32,
        /// Why not.
        why: String,
    },
    /// It did not come about in time.
    #[error("{what} has not come about after {seconds} s: {now}; it goes on, see `mol-rs show`")]
    Late {
        /// What was waited for.
        what: String,
        /// How long.
        seconds: u64,
        /// How it is.
        now: String,
    },
    /// No address is in the manifest.
    #[error("the manifest names no url; write `url = \"http://…\"` at its top")]
    NoUrl,
    /// A thread or a signal.
    #[error("cannot {what}: {error}")]
    Machine {
        /// What was to be done.
        what: &'static str,
        /// What Linux says.
        error: io::Error,
    },
}

impl Error {
    /// Whether nothing was done, as nobody leads, and asking again may succeed.
    pub(crate) fn is_leaderless(&self) -> bool {
        matches!(self, Self::Services { error, .. } if error.reason() == Some(Reason::Leaderless))
    }
}

/// What makes an error of one of the services.
pub(crate) fn services(what: &'static str) -> impl Fn(ServicesError) -> Error {
    move |error| Error::Services { what, error }
}
