// SPDX-License-Identifier: MIT OR Apache-2.0
//! What makes containers, as `dvsd` uses it.

use std::os::unix::net::UnixStream;
use std::process::Child;

use dvs_runtime::{Fault, Kind, Request, Spec, Stats, Status};

/// What `dvsd` needs of a runtime; tests put their own in its place. Calls block.
pub trait Runtime: Send + Sync {
    /// Makes a container.
    ///
    /// # Errors
    /// Why it could not be made; nothing is left of it then.
    fn create(&self, spec: &Spec) -> Result<(), Fault>;

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
