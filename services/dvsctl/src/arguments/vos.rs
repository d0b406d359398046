// SPDX-License-Identifier: MIT OR Apache-2.0
//! The commands about virtual operating systems.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::dc::{DefinitionArguments, NodeSet, WaitArguments};

#[derive(Debug, Subcommand)]
pub(crate) enum VosCommand {
    /// Make a container, run the servers of a virtual OS in it as its manifest says, wait until all of them run, and print where it is
    /// reached
    ///
    /// Options that are those of `dvsctl dc create` mean the same. The image has the virtual OS's own mol-rs, which knows the manifest.
    Run(RunArguments),
    /// Have another manifest hold, on all nodes of the container, and wait until all servers run
    Load {
        #[command(flatten)]
        place: VosPlace,
        /// The manifest
        #[arg(value_name = "FILE")]
        manifest: PathBuf,
        #[command(flatten)]
        wait: WaitArguments,
    },
    /// Where each server is, and how
    Show {
        #[command(flatten)]
        place: VosPlace,
    },
    /// Move a server of which there is one to another node, and wait until it runs there
    Move {
        #[command(flatten)]
        place: VosPlace,
        /// The server
        name: String,
        /// Id of the node
        #[arg(long, value_name = "NODE")]
        to: u32,
        /// Seconds to wait at most
        #[arg(long = "timeout", value_name = "SECONDS", default_value_t = 60)]
        timeout_s: u64,
    },
    /// Print where the virtual OS is reached, as its manifest says
    Url {
        #[command(flatten)]
        place: VosPlace,
    },
}

/// Which virtual OS.
#[derive(Debug, Args)]
pub(crate) struct VosPlace {
    /// Name of its container
    #[arg(long, value_name = "NAME")]
    pub(crate) dc: String,
    /// Where mol-rs is in the container
    #[arg(long, value_name = "PATH", default_value = "/bin/mol-rs")]
    pub(crate) rs: String,
}

#[derive(Debug, Args)]
pub(crate) struct RunArguments {
    /// The virtual OS, such as mol: the name of its image, unless --image says another
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) place: VosPlace,
    /// Ids of the container's nodes, such as 0-3, or 0,2, or all
    #[arg(long)]
    pub(crate) nodes: NodeSet,
    /// The manifest: which servers there are
    #[arg(long, value_name = "FILE")]
    pub(crate) manifest: PathBuf,
    #[command(flatten)]
    pub(crate) definition: DefinitionArguments,
    /// Seconds to wait at most, for the container and then for its servers
    #[arg(long = "timeout", value_name = "SECONDS", default_value_t = 60)]
    pub(crate) timeout_s: u64,
}
