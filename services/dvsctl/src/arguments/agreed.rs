// SPDX-License-Identifier: MIT OR Apache-2.0
//! The commands about what the nodes agree on.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// How the nodes agree: who leads, who votes, and whether enough of them are there
    Status,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KvCommand {
    /// Print a key's value, byte for byte
    ///
    /// Exit status 1 if there is no such key.
    Get {
        /// The key
        key: String,
        /// Take what the node has that is asked, which may be behind; needs no majority
        #[arg(long)]
        stale: bool,
    },
    /// Write a key
    Put(PutArguments),
    /// Delete a key; says how many were deleted, and that there was none is no error
    Delete {
        /// The key
        key: String,
        /// Delete all keys that begin so
        #[arg(long)]
        prefix: bool,
    },
    /// All keys that begin with PREFIX, in the order of their bytes
    List {
        /// How they begin
        #[arg(default_value = "")]
        prefix: String,
        /// Most keys to list
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000))]
        limit: Option<u64>,
        /// Take what the node has that is asked, which may be behind; needs no majority
        #[arg(long)]
        stale: bool,
    },
    /// Print changes of keys that begin with PREFIX as they happen, a line each, until interrupted
    Watch {
        /// How they begin
        #[arg(default_value = "")]
        prefix: String,
        /// Begin with this revision [default: the one after the present]
        #[arg(long = "from", value_name = "REVISION")]
        from: Option<u64>,
        /// End after so many changes
        #[arg(long, value_name = "N")]
        count: Option<u64>,
    },
    /// Compare keys, then do one thing or the other, at once
    ///
    /// FILE is JSON: {"compare":[{"key":"a","modified":0}],"then":[{"put":{"key":"a","value":"1"}}],
    /// "otherwise":[{"get":{"key":"a"}}]}. A comparison is with "value" or "modified", the revision that wrote
    /// the key last, 0 if there is none; an operation is get, put or delete. Exit status 1 if a
    /// comparison did not hold.
    Txn {
        /// The file; - for stdin
        file: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct PutArguments {
    /// The key
    pub(crate) key: String,
    /// Its value; - for what is on stdin
    pub(crate) value: String,
    /// Write only if there is no such key; else exit status 1
    #[arg(long, conflicts_with = "if_modified")]
    pub(crate) if_absent: bool,
    /// Write only if this revision wrote the key last; else exit status 1
    #[arg(long, value_name = "REVISION")]
    pub(crate) if_modified: Option<u64>,
    /// Lease with which the key ends
    #[arg(long, value_name = "LEASE")]
    pub(crate) lease: Option<u64>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum LockCommand {
    /// Take a lock, and run a command under it
    ///
    /// With a command, the lock is held until the command ends, and the exit status is the command's. It finds the
    /// lock's name, fencing token and lease in DVS_LOCK, DVS_LOCK_FENCE and DVS_LOCK_LEASE: whoever guards a
    /// resource should refuse a token that is lower than one that it has seen. Should the lock be lost,
    /// because this machine cannot reach the cluster for longer than the TTL, the command is killed.
    ///
    /// Without a command, the lock is held until it is released or the TTL is over.
    Acquire(AcquireArguments),
    /// Give a lock back, or get out of line
    Release {
        /// The lock
        name: String,
        /// The lease under which it is held, as `lock acquire` and `lock list` print it
        #[arg(long)]
        lease: u64,
    },
    /// All locks that are held: who holds them and who waits
    List,
}

#[derive(Debug, Args)]
pub(crate) struct AcquireArguments {
    /// The lock; it exists while somebody holds it
    pub(crate) name: String,
    /// Seconds for which the lock outlives whoever holds it, should that die
    #[arg(long = "ttl", value_name = "S", default_value_t = 30,
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) ttl_s: u64,
    /// Fail if the lock is not free, instead of waiting for it
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// How many can hold the lock at once; all who ask for it must say the same
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=4_096))]
    pub(crate) places: u32,
    /// Who holds it, for people [default: the command, or dvsctl]
    #[arg(long)]
    pub(crate) label: Option<String>,
    /// What to run under the lock
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum LeaseCommand {
    /// All leases that have not ended: how long each lasts, and whose it is
    List,
    /// End a lease, and with it what is held under it: locks, candidates, arrivals, memberships and keys
    Revoke {
        /// Its id, as `lease list` prints it
        lease: u64,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ElectionCommand {
    /// Stand for election, and run a command while leading
    ///
    /// Waits until this candidate leads, runs the command, and resigns when it ends; the exit status is the command's. It
    /// finds the election's name, the term and the lease in DVS_ELECTION, DVS_ELECTION_TERM and DVS_ELECTION_LEASE: terms grow
    /// from leader to leader, so whoever guards a resource should refuse a lower one than it has seen. Should the lead be lost,
    /// because this machine cannot reach the cluster for longer than the TTL, the command is killed.
    Campaign(CampaignArguments),
    /// Who leads; exit status 1 if nobody does
    Observe {
        /// The election
        name: String,
        /// Go on, with a line whenever somebody else leads
        #[arg(short, long)]
        follow: bool,
    },
    /// All elections in which somebody stands
    List,
}

#[derive(Debug, Args)]
pub(crate) struct CampaignArguments {
    /// The election; it exists while somebody stands
    pub(crate) name: String,
    /// Seconds after which another one leads, should this candidate die
    #[arg(long = "ttl", value_name = "S", default_value_t = 10,
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) ttl_s: u64,
    /// What others should know of this candidate once it leads, such as its address
    #[arg(long)]
    pub(crate) value: Option<String>,
    /// What to run while leading
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BarrierCommand {
    /// Wait until so many have arrived, this one included
    Wait(BarrierWaitArguments),
    /// All barriers at which somebody waits
    List,
}

#[derive(Debug, Args)]
pub(crate) struct BarrierWaitArguments {
    /// The barrier; it exists while somebody waits
    pub(crate) name: String,
    /// How many it takes; all who arrive must say the same
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4_096))]
    pub(crate) parties: u32,
    /// Give up after so many seconds
    #[arg(long = "timeout", value_name = "S")]
    pub(crate) timeout_s: Option<u64>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum GroupCommand {
    /// Become a member, and print every message and every change of the members, in the order in which all see them
    Join(GroupJoinArguments),
    /// All groups that have members
    List,
}

#[derive(Debug, Args)]
pub(crate) struct GroupJoinArguments {
    /// The group; it exists while it has members
    pub(crate) group: String,
    /// By which name the others know this member
    #[arg(long = "as", value_name = "NAME", default_value = "dvsctl")]
    pub(crate) name: String,
    /// Seconds for which it is a member after it died
    #[arg(long = "ttl", value_name = "S", default_value_t = 10,
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) ttl_s: u64,
    /// Send each line of standard input as a message, and leave when the input has ended and all of them have come back
    #[arg(long)]
    pub(crate) send: bool,
}
