// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask fuzz`: random hostile input that a seed repeats. What it finds is printed, and the exit status is 1.

mod api;
pub(crate) mod dvk;
mod host;
mod tally;

use std::process::ExitCode;

use anyhow::Result;

use crate::source::Origin;
use crate::step::Session;

/// What to feed.
#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum Fuzz {
    /// The driver: random programs of many processes and threads in a virtual machine, and peer nodes that lie to it
    Dvk(dvk::Arguments),
    /// The codec of frames and records, on the host
    Wire(host::Arguments),
    /// The state machine of links, on the host: two of them and a bad network
    Link(host::Arguments),
    /// The API of a node, on the host: hostile requests to a whole daemon in one process
    Api(api::Arguments),
}

impl Fuzz {
    /// Feeds it and prints what came of it.
    ///
    /// # Errors
    /// When something does not build, or QEMU cannot be run. What is found is no error.
    pub(crate) fn run(&self, session: &Session, origin: &Origin) -> Result<ExitCode> {
        let found_nothing = match self {
            Self::Dvk(arguments) => dvk::run(arguments, session, origin)?,
            Self::Wire(arguments) => host::run("wire", arguments, session)?,
            Self::Link(arguments) => host::run("link", arguments, session)?,
            Self::Api(arguments) => return api::run(arguments, session),
        };
        Ok(if found_nothing { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
