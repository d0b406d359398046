// SPDX-License-Identifier: MIT OR Apache-2.0
//! The commands about Distributed Containers.

use std::collections::BTreeSet;
use std::str::FromStr;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum DcCommand {
    /// Make a container on several nodes at once, and wait until it runs on all of them
    ///
    /// On each node it is shut in: with users, processes, files, network and a DVK of its own, as /dev/dvk. Programs in it exchange
    /// messages with those of the same container on other nodes, and with nobody else.
    Create(CreateArguments),
    /// All containers
    List,
    /// How far a container has come on each node, and what it may use
    Show {
        /// Name of the container
        name: String,
    },
    /// Change the nodes that a container spans, and wait until it runs on all of them and has left the others
    Scale(ScaleArguments),
    /// Run a command in a container on one of its nodes
    ///
    /// Input, output and exit status are the command's. It has a terminal if dvsctl has one at both ends. It ends when dvsctl does. Exit
    /// status 125 to 127 if it could not be run.
    Exec(ExecArguments),
    /// What a container uses on each node, and in total
    Top {
        /// Name of the container
        name: String,
    },
    /// Remove a container from all its nodes with everything in it, and wait until nothing is left of it
    Delete {
        /// Name of the container
        name: String,
        #[command(flatten)]
        wait: WaitArguments,
    },
}

/// Whether and how long to wait.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct WaitArguments {
    /// Return at once; `dvsctl dc show` says how it goes on
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// Seconds to wait at most
    #[arg(
        long = "timeout",
        value_name = "SECONDS",
        default_value_t = 60,
        conflicts_with = "no_wait"
    )]
    pub(crate) timeout_s: u64,
}

#[derive(Debug, Args)]
pub(crate) struct CreateArguments {
    /// Name of the container, which is its host name, too: a to z, 0 to 9 and -
    pub(crate) name: String,
    /// Ids of its nodes, such as 0-3, or 0,2, or all
    #[arg(long)]
    pub(crate) nodes: NodeSet,
    /// Memory on each node, such as 512M, files that it writes included [default: 64M]
    #[arg(long, value_name = "BYTES")]
    pub(crate) memory: Option<Bytes>,
    /// Processors on each node, such as 1.5 [default: as many as there are]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) cpus: Option<Cpus>,
    /// Processes and threads on each node [default: 128]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) pids: Option<u32>,
    /// Endpoints that its programs may have bound at once on each node [default: as many as there can be]
    #[arg(id = "endpoints_max", long = "endpoints", value_name = "NUMBER")]
    pub(crate) endpoints: Option<u32>,
    #[command(flatten)]
    pub(crate) wait: WaitArguments,
}

#[derive(Debug, Args)]
pub(crate) struct ScaleArguments {
    /// Name of the container
    pub(crate) name: String,
    /// Ids of the nodes that it spans from now on, such as 0-3, or 0,2, or all
    #[arg(long)]
    pub(crate) nodes: NodeSet,
    #[command(flatten)]
    pub(crate) wait: WaitArguments,
}

#[derive(Debug, Args)]
pub(crate) struct ExecArguments {
    /// Name of the container
    pub(crate) name: String,
    /// Id of the node [default: the first on which it runs]
    #[arg(long)]
    pub(crate) node: Option<u32>,
    /// No terminal, though dvsctl has one
    #[arg(long)]
    pub(crate) no_terminal: bool,
    /// User and group id in the container, such as 1000:100 [default: 0:0]
    #[arg(long, value_name = "UID:GID")]
    pub(crate) user: Option<Ids>,
    /// Directory in which it runs
    #[arg(long, value_name = "PATH")]
    pub(crate) directory: Option<String>,
    /// A variable of its environment; may be repeated
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = variable)]
    pub(crate) environment: Vec<(String, String)>,
    /// What to run
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

fn variable(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Which nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NodeSet {
    All,
    Ids(BTreeSet<u32>),
}

impl FromStr for NodeSet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self::All);
        }
        let mut ids = BTreeSet::new();
        let wrong = || format!("`{text}` names no nodes; write 0-3, or 0,2, or all");
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let number = |text: &str| text.parse::<u16>().map(u32::from).map_err(|_| wrong());
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return Err(wrong());
            }
            ids.extend(first..=last);
        }
        Ok(Self::Ids(ids))
    }
}

/// A number of bytes, written `512M` or `1G`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bytes(pub(crate) u64);

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no amount of memory; write 512M or 1G");
        let (number, unit) = match text.char_indices().last() {
            Some((at, 'k' | 'K')) => (&text[..at], 1 << 10),
            Some((at, 'm' | 'M')) => (&text[..at], 1 << 20),
            Some((at, 'g' | 'G')) => (&text[..at], 1 << 30),
            _ => (text, 1),
        };
        let number: u64 = number.parse().map_err(|_| wrong())?;
        number.checked_mul(unit).map(Self).ok_or_else(wrong)
    }
}

/// Thousandths of processors, written `1.5`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cpus(pub(crate) u32);

impl FromStr for Cpus {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{text}` is no number of processors; write 2 or 1.5, to three places");
        let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
        let digits =
            |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(part) || part.len() > 3 {
            return Err(wrong());
        }
        let (whole, part): (u32, u32) = (
            whole.parse().map_err(|_| wrong())?,
            format!("{part:0<3}").parse().map_err(|_| wrong())?,
        );
        whole
            .checked_mul(1000)
            .and_then(|milli| milli.checked_add(part))
            .map(Self)
            .ok_or_else(wrong)
    }
}

/// Ids of a user and a group, written `1000:100`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ids {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl FromStr for Ids {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = || {
            let (uid, gid) = text.split_once(':')?;
            Some(Self { uid: uid.parse().ok()?, gid: gid.parse().ok()? })
        };
        read().ok_or_else(|| format!("`{text}` is no user; write UID:GID, such as 1000:100"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_nodes_are_read() {
        let ids = |text: &str| match text.parse() {
            Ok(NodeSet::Ids(ids)) => Some(ids.into_iter().collect::<Vec<_>>()),
            _ => None,
        };
        assert_eq!("all".parse(), Ok(NodeSet::All));
        assert_eq!(ids("0-3").unwrap(), [0, 1, 2, 3]);
        assert_eq!(ids("7,2-3,2").unwrap(), [2, 3, 7]);
        for text in ["", "-", "3-1", "0-", "a", "1,,2", "70000"] {
            assert_eq!(ids(text), None, "{text}");
        }
    }

    #[test]
    fn amounts_are_read() {
        let bytes = ["512M", "1G", "64k", "100"].map(|text| text.parse::<Bytes>().unwrap().0);
        assert_eq!(bytes, [512 << 20, 1 << 30, 64 << 10, 100]);
        for text in ["", "M", "1.5G", "-1", "99999999999G"] {
            assert!(text.parse::<Bytes>().is_err(), "{text}");
        }
        let cpus = ["2", "1.5", "0.25", "0.001"].map(|text| text.parse::<Cpus>().unwrap().0);
        assert_eq!(cpus, [2000, 1500, 250, 1]);
        for text in ["", ".5", "1.", "1.2345", "-1", "a", "9999999"] {
            assert!(text.parse::<Cpus>().is_err(), "{text}");
        }
        assert_eq!("1000:100".parse(), Ok(Ids { uid: 1000, gid: 100 }));
        assert!("root".parse::<Ids>().is_err());
    }
}
