// SPDX-License-Identifier: MIT OR Apache-2.0
//! The processes that make a container are this same program, started again in another role. A new program has one thread and
//! nothing of the memory of who started it, and needs no fork, which would need `unsafe`.

use std::os::unix::process::CommandExt;
use std::process::Command;

/// A role.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stage {
    /// Looks after a container as long as it runs.
    Keep,
    /// Puts a container's root together and goes into its namespaces.
    Assemble,
    /// Makes a user namespace.
    Hold,
    /// Is the first process in a container.
    Init,
    /// Goes into a container and becomes a command.
    Enter,
}

impl Stage {
    /// The hidden subcommand.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Assemble => "assemble",
            Self::Hold => "hold",
            Self::Init => "init",
            Self::Enter => "enter",
        }
    }
}

/// This program in another role, with an empty environment.
pub(crate) fn again(stage: Stage) -> Command {
    // The link is to the file itself, wherever it is and whatever the mount namespace. On a node, the file is all programs of it: the name says
    // which of them is meant.
    let mut command = Command::new("/proc/self/exe");
    command.arg0(env!("CARGO_PKG_NAME")).arg(stage.name()).env_clear();
    command
}
