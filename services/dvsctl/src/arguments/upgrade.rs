// SPDX-License-Identifier: MIT OR Apache-2.0
//! The commands about upgrades of nodes.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::dc::NodeSet;

/// Move nodes to another image, one after the other, and wait until they run it
///
/// A node is emptied of what it does for the others, restarts with the new image, and is upgraded once it is ready again. One that is not in time
/// goes back to the image before, and the upgrade is paused: `dvsctl upgrade status` says why. The cluster goes on by itself, also without dvsctl.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, arg_required_else_help = true)]
pub(crate) struct UpgradeArguments {
    #[command(subcommand)]
    pub(crate) command: Option<UpgradeCommand>,
    /// The bundle of the new image, as `cargo xtask image bundle` makes it
    #[arg(value_name = "BUNDLE")]
    pub(crate) bundle: Option<PathBuf>,
    /// Ids of the nodes, such as 0-3 or 0,2
    #[arg(long, default_value = "all")]
    pub(crate) nodes: NodeSet,
    /// Upgrade nodes to an image of an earlier version than they run
    #[arg(long)]
    pub(crate) allow_downgrade: bool,
    #[command(flatten)]
    pub(crate) pace: PaceArguments,
}

/// How an upgrade is to go.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct PaceArguments {
    /// How many nodes must be upgraded before the others begin
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) canary: u16,
    /// How many nodes of the cluster may be away at a time
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) max_unavailable: u16,
    /// Seconds that a node may take for each step before it has failed
    #[arg(long, value_name = "SECONDS", default_value_t = 180, value_parser = clap::value_parser!(u32).range(10..=86_400))]
    pub(crate) patience: u32,
    /// Return as soon as it is begun
    #[arg(long)]
    pub(crate) no_wait: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum UpgradeCommand {
    /// How far the last upgrade has come, and those before it
    Status,
    /// Let no more nodes begin; those that restart go on
    Pause,
    /// Go on, try nodes again that have failed, and wait until all are done
    Resume {
        /// Return at once
        #[arg(long)]
        no_wait: bool,
    },
    /// End the upgrade; nodes stay with what they run
    Cancel,
}
