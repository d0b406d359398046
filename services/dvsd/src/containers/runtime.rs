// SPDX-License-Identifier: MIT OR Apache-2.0
//! What makes containers, as `dvsd` uses it.

use std::collections::BTreeSet;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Child;

use dvs_runtime::{Fault, Kind, Log, Request, Spec, Stats, Status};

/// What `dvsd` needs of a runtime; tests put their own in its place. Calls block.
pub trait Runtime: Send + Sync {
    /// Makes a container.
    ///
    /// # Errors
    /// Why it could not be made; nothing is left of it then.
    fn create(&self, spec: &Spec) -> Result<(), Fault>;

    /// Gives it other limits and peers while it is there.
    ///
    /// # Errors
    /// Why it could not be changed; some of it may have been.
    fn update(&self, spec: &Spec) -> Result<(), Fault>;

    /// Starts it.
    ///
    /// # Errors
    /// Why it could not be started.
    fn start(&self, name: &str) -> Result<(), Fault>;

    /// Ends it and removes all that it was made of.
    ///
    /// # Errors
    /// Why something of it is left.
    fn delete(&self, name: &str) -> Result<(), Fault>;

    /// All that there are.
    ///
    /// # Errors
    /// When they cannot be listed.
    fn list(&self) -> Result<Vec<Status>, Fault>;

    /// What one uses.
    ///
    /// # Errors
    /// When there is no such container.
    fn stats(&self, name: &str) -> Result<Stats, Fault>;

    /// Connects to a port of it.
    ///
    /// # Errors
    /// When nobody listens there.
    fn dial(&self, name: &str, port: u16) -> Result<TcpStream, Fault>;

    /// What its command has written after so many bytes.
    ///
    /// # Errors
    /// When there is no such container.
    fn log(&self, name: &str, from: u64) -> Result<Log, Fault>;

    /// The names of all images that are unpacked.
    ///
    /// # Errors
    /// When they cannot be listed.
    fn images(&self) -> Result<BTreeSet<String>, Fault>;

    /// Unpacks an image.
    ///
    /// # Errors
    /// What is wrong with the archive.
    fn import(&self, archive: &Path, name: &str) -> Result<(), Fault>;

    /// Removes an image that no container is made of.
    ///
    /// # Errors
    /// When one is.
    fn remove_image(&self, name: &str) -> Result<(), Fault>;

    /// Runs a command in one: the stream to it, and the process that ends with it.
    ///
    /// # Errors
    /// When there is no program to run it; what else goes wrong is said over the stream.
    fn exec(&self, name: &str, request: Request) -> Result<(UnixStream, Child), Fault>;
}

impl Runtime for dvs_runtime::Runtime {
    fn create(&self, spec: &Spec) -> Result<(), Fault> {
        Self::create(self, spec)
    }

    fn update(&self, spec: &Spec) -> Result<(), Fault> {
        Self::update(self, spec)
    }

    fn dial(&self, name: &str, port: u16) -> Result<TcpStream, Fault> {
        Self::dial(self, name, port)
    }

    fn log(&self, name: &str, from: u64) -> Result<Log, Fault> {
        Self::log_from(self, name, from)
    }

    fn images(&self) -> Result<BTreeSet<String>, Fault> {
        Self::images(self).map(|images| images.into_keys().collect())
    }

    fn import(&self, archive: &Path, name: &str) -> Result<(), Fault> {
        Self::import(self, archive, name, None).map(drop)
    }

    fn remove_image(&self, name: &str) -> Result<(), Fault> {
        Self::remove_image(self, name)
    }

    fn start(&self, name: &str) -> Result<(), Fault> {
        Self::start(self, name)
    }

    fn delete(&self, name: &str) -> Result<(), Fault> {
        match Self::delete(self, name, true) {
            Err(fault) if fault.kind == Kind::NotFound => Ok(()),
            other => other,
        }
    }

    fn list(&self) -> Result<Vec<Status>, Fault> {
        Self::list(self)
    }

    fn stats(&self, name: &str) -> Result<Stats, Fault> {
        Self::stats(self, name)
    }

    fn exec(&self, name: &str, request: Request) -> Result<(UnixStream, Child), Fault> {
        let session = Self::exec(self, name, request)?;
        session.into_parts().ok_or_else(|| Fault {
            kind: Kind::Failed,
            message: format!(
                "running a command in the container {name}: its stream cannot be passed on"
            ),
        })
    }
}
