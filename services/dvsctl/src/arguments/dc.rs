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
    /// Change what a container may use or is made of, and wait until it is so on all its nodes
    ///
    /// What is not named stays as it is. Where only limits change, and not that of the writable layer, what runs in it goes on; otherwise it
    /// is made anew on all nodes.
    Set(DcSetArguments),
    /// Change the nodes that a container spans, and wait until it runs on all of them and has left the others
    Scale(ScaleArguments),
    /// Run a command in a container on one of its nodes
    ///
    /// Input, output and exit status are the command's. It has a terminal if dvsctl has one at both ends. It ends when dvsctl does. Exit
    /// status 125 to 127 if it could not be run.
    Exec(ExecArguments),
    /// What the command of a container has written, as far as it is kept: the newest 256 to 512 KiB on each node
    ///
    /// With several nodes, each line begins with the node's id.
    Logs(DcLogsArguments),
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
    #[command(flatten)]
    pub(crate) definition: DefinitionArguments,
    #[command(flatten)]
    pub(crate) wait: WaitArguments,
}

#[derive(Debug, Args)]
pub(crate) struct DcSetArguments {
    /// Name of the container
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) definition: DefinitionArguments,
    /// What is to be as if it had not been given; may be repeated
    #[arg(long, value_name = "WHAT")]
    pub(crate) unset: Vec<Unset>,
    #[command(flatten)]
    pub(crate) wait: WaitArguments,
}

/// What can be unset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Unset {
    Memory,
    Cpus,
    Pids,
    Endpoints,
    Swap,
    Writable,
    CpuWeight,
    CpuSet,
    Io,
    Image,
    Env,
    Directory,
    User,
    Network,
    NetRate,
    Publish,
    Command,
}

/// What a container may use and is made of.
#[derive(Debug, Default, Args)]
pub(crate) struct DefinitionArguments {
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
    /// Swap space on each node, where it has some [default: none]
    #[arg(long, value_name = "BYTES")]
    pub(crate) swap: Option<Bytes>,
    /// How much it may write into files on each node, which counts as memory [default: half of its memory]
    #[arg(long, value_name = "BYTES")]
    pub(crate) writable: Option<Bytes>,
    /// Its share of processors where containers compete, from 1 to 10000 [default: 100]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) cpu_weight: Option<u32>,
    /// Processors of each node that it may use, such as 0-2,4 [default: all]
    #[arg(long, value_name = "LIST")]
    pub(crate) cpu_set: Option<String>,
    /// Rates of a block device, such as 8:0,read=10M,writes=100: bytes read and written, reads and writes, per second; may be repeated
    #[arg(long, value_name = "DEVICE,RATES")]
    pub(crate) io: Vec<IoRates>,
    /// Image: one that the cluster has (see `dvsctl image`), or the file of an archive to be imported first [default: a small root with
    /// busybox]
    #[arg(long, value_name = "NAME|FILE")]
    pub(crate) image: Option<String>,
    /// A variable of the environment; may be repeated
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = variable)]
    pub(crate) environment: Vec<(String, String)>,
    /// Directory in which the command runs [default: what the image says]
    #[arg(long, value_name = "PATH")]
    pub(crate) directory: Option<String>,
    /// User and group id with which the command runs [default: 0:0, of the container]
    #[arg(long, value_name = "UID:GID")]
    pub(crate) user: Option<Ids>,
    /// What is done when the command ends [default: always]
    #[arg(long, value_enum)]
    pub(crate) restart: Option<Restart>,
    /// Give it a network of its own that spans its nodes, in which node N has the address N + 1 [default: none; 10.1.0.0/16 if no SUBNET is
    /// given]
    #[arg(long, value_name = "SUBNET", num_args = 0..=1, default_missing_value = "10.1.0.0/16", require_equals = true)]
    pub(crate) network: Option<String>,
    /// Bits per second that it may send and be sent on each node, such as 10M
    #[arg(long, value_name = "BITS")]
    pub(crate) net_rate: Option<Bits>,
    /// Have a TCP port of each node lead to one of the container there, such as 8080:80; may be repeated
    #[arg(long, value_name = "NODE:CONTAINER")]
    pub(crate) publish: Vec<Ports>,
    /// What runs in it, and its arguments [default: nothing; it is kept open for `dvsctl dc exec`]
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

/// See [`DefinitionArguments::restart`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Restart {
    /// Start it again
    Always,
    /// The same, unless it ended with status 0
    OnFailure,
    /// Leave it as it ended
    Never,
}

#[derive(Debug, Args)]
pub(crate) struct DcLogsArguments {
    /// Name of the container
    pub(crate) name: String,
    /// Id of the node [default: all of its nodes]
    #[arg(long)]
    pub(crate) node: Option<u32>,
    /// Go on with what is written from now on
    #[arg(short, long)]
    pub(crate) follow: bool,
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
        scaled(text, 1 << 10)
            .map(Self)
            .ok_or_else(|| format!("`{text}` is no amount of memory; write 512M or 1G"))
    }
}

/// A number of bits per second, written `10M` or `1G`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bits(pub(crate) u64);

impl FromStr for Bits {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // Of lines, not of memory: these are thousands.
        scaled(text, 1000)
            .map(Self)
            .ok_or_else(|| format!("`{text}` is no number of bits per second; write 10M or 1G"))
    }
}

/// A number with a unit of thousands, millions or thousands of millions, or of powers of 1024.
fn scaled(text: &str, thousand: u64) -> Option<u64> {
    let (number, unit) = match text.char_indices().last() {
        Some((at, 'k' | 'K')) => (&text[..at], thousand),
        Some((at, 'm' | 'M')) => (&text[..at], thousand.pow(2)),
        Some((at, 'g' | 'G')) => (&text[..at], thousand.pow(3)),
        _ => (text, 1),
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

/// A port of a node and one of a container, written `8080:80`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ports {
    pub(crate) node: u16,
    pub(crate) container: u16,
}

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = || {
            let (node, container) = text.split_once(':')?;
            Some(Self { node: node.parse().ok()?, container: container.parse().ok()? })
        };
        read().ok_or_else(|| format!("`{text}` names no ports; write 8080:80"))
    }
}

/// Rates of a block device, written `8:0,read=10M,writes=100`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct IoRates {
    pub(crate) device: String,
    pub(crate) read_bytes: Option<u64>,
    pub(crate) write_bytes: Option<u64>,
    pub(crate) reads: Option<u64>,
    pub(crate) writes: Option<u64>,
}

impl FromStr for IoRates {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("`{text}` is no device with rates; write 8:0,read=10M,write=5M,reads=100,writes=100")
        };
        let mut parts = text.split(',');
        let device = parts.next().unwrap_or_default().to_owned();
        let mut rates = Self { device, ..Self::default() };
        for part in parts {
            let (name, rate) = part.split_once('=').ok_or_else(wrong)?;
            let rate = scaled(rate, 1 << 10).ok_or_else(wrong)?;
            let place = match name {
                "read" => &mut rates.read_bytes,
                "write" => &mut rates.write_bytes,
                "reads" => &mut rates.reads,
                "writes" => &mut rates.writes,
                _ => return Err(wrong()),
            };
            *place = Some(rate);
        }
        Ok(rates)
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
        assert_eq!("10M".parse(), Ok(Bits(10_000_000)));
        assert_eq!("8080:80".parse(), Ok(Ports { node: 8080, container: 80 }));
        let rates = IoRates {
            device: "8:0".into(),
            read_bytes: Some(10 << 20),
            writes: Some(100),
            ..IoRates::default()
        };
        assert_eq!("8:0,read=10M,writes=100".parse(), Ok(rates));
        for text in ["8:0,read", "8:0,reed=1", "8:0,read=x"] {
            assert!(text.parse::<IoRates>().is_err(), "{text}");
        }
        assert_eq!("1000:100".parse(), Ok(Ids { uid: 1000, gid: 100 }));
        assert!("root".parse::<Ids>().is_err());
    }
}
