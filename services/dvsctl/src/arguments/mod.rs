// SPDX-License-Identifier: MIT OR Apache-2.0
//! The command line.

mod agreed;
mod config;
mod console;
mod context;
mod dc;
mod fs;
mod image;
mod look;
mod net;
mod pxe;
mod upgrade;
mod vos;

use clap::builder::{PossibleValuesParser, Resettable, TypedValueParser};
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use dvs_api::{Transport, PING_COUNT_MAX};
use dvs_client::Address;

pub(crate) use agreed::{
    AcquireArguments, BarrierCommand, BarrierWaitArguments, CampaignArguments, ClusterCommand,
    ElectionCommand, GroupCommand, GroupJoinArguments, KvCommand, LeaseCommand, LockCommand,
    PutArguments,
};
pub(crate) use config::{ApplyArguments, ConfigCommand, Which};
pub(crate) use console::ConsoleArguments;
pub(crate) use context::{AddArguments, ContextCommand, TokenArguments};
pub(crate) use dc::{
    CreateArguments, DcCommand, DcLogsArguments, DcSetArguments, DefinitionArguments,
    ExecArguments, NodeSet, Restart, ScaleArguments, Unset, WaitArguments,
};
pub(crate) use fs::{CpArguments, FsCommand, FsPlace, MountArguments, Side, There};
pub(crate) use image::ImageCommand;
pub(crate) use look::{DmesgArguments, LogsArguments, SupportArguments, TopArguments};
pub(crate) use net::{
    DnsArguments, NetCommand, NetPingArguments, ProbeArguments, TargetArguments, TcpArguments,
    TraceArguments,
};
pub(crate) use pxe::{EnableArguments, PxeCommand};
pub(crate) use upgrade::{PaceArguments, UpgradeArguments, UpgradeCommand};
pub(crate) use vos::{RunArguments, VosCommand, VosPlace};

/// Look at and work with a DVS.
///
/// Exit status: 0 if the command did what it says, 1 if it failed, 2 if it was called wrongly.
#[derive(Debug, Parser)]
#[command(name = "dvsctl", disable_version_flag = true, disable_help_subcommand = true)]
pub(crate) struct Arguments {
    /// Context with which the cluster is reached: see `dvsctl context` [default: the one that is in use; on a node, the node]
    #[arg(long, value_name = "NAME", env = "DVSCTL_CONTEXT", value_parser = context_name, global = true)]
    pub(crate) context: Option<String>,
    /// API of a node, such as https://10.0.0.1:7700, in place of those of the context. Repeat it, or separate several by
    /// commas, to have others tried when one does not answer, and to reach given nodes. http:// reaches a node without a cluster token
    /// on its own machine, unix:/run/dvs/api.sock the node that dvsctl runs on
    #[arg(
        long = "endpoint",
        value_name = "URL",
        env = "DVSCTL_ENDPOINTS",
        value_delimiter = ',',
        global = true
    )]
    pub(crate) endpoints: Option<Vec<Address>>,
    /// Form of the output on stdout
    #[arg(short, long, value_enum, default_value_t = Output::Table, global = true)]
    pub(crate) output: Output,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people; may change between versions
    Table,
    /// The same with more columns
    Wide,
    /// One JSON value, as the API has it
    Json,
    /// The same value as YAML
    Yaml,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The nodes of the cluster
    #[command(subcommand)]
    Node(NodeCommand),
    /// Join tokens, with which machines become nodes
    #[command(subcommand)]
    Token(TokenCommand),
    /// The links between nodes, and what carries them
    #[command(subcommand)]
    Link(LinkCommand),
    /// M3-IPC, the message passing between nodes
    #[command(subcommand)]
    Ipc(IpcCommand),
    /// The endpoints of M3-IPC, between which messages are sent
    #[command(subcommand)]
    Endpoint(EndpointCommand),
    /// The keys that encrypt messages between nodes, and the frames that were dropped
    #[command(subcommand)]
    Segment(SegmentCommand),
    /// How the nodes agree
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Distributed Containers, which span nodes
    #[command(subcommand)]
    Dc(DcCommand),
    /// Virtual operating systems, whose servers run in containers
    #[command(subcommand)]
    Vos(VosCommand),
    /// Files that a file server of MoL has in a container: copy them there and back, list and remove them, mount them
    #[command(subcommand)]
    Fs(FsCommand),
    /// Images, of which containers are made
    #[command(subcommand)]
    Image(ImageCommand),
    /// What has happened to the cluster, in the same order whichever node is asked
    Events(EventsArguments),
    /// Keys and values that the nodes agree on
    #[command(subcommand)]
    Kv(KvCommand),
    /// Locks that the nodes agree on
    #[command(subcommand)]
    Lock(LockCommand),
    /// Leases, with which locks, candidates, arrivals and keys end
    #[command(subcommand)]
    Lease(LeaseCommand),
    /// Elections: of those who stand, one leads
    #[command(subcommand)]
    Election(ElectionCommand),
    /// Barriers: nobody goes on before so many have arrived
    #[command(subcommand)]
    Barrier(BarrierCommand),
    /// Groups, whose members all see the same messages in the same order
    #[command(subcommand)]
    Group(GroupCommand),
    /// What a node sees of the network: who answers, over which routers, by which name, on which port
    #[command(subcommand)]
    Net(NetCommand),
    /// Machines that nodes boot over the network
    #[command(subcommand)]
    Pxe(PxeCommand),
    /// The last lines of a service's log
    Logs(LogsArguments),
    /// What the kernel of a node said
    Dmesg(DmesgArguments),
    /// What nodes and links are doing
    Top(TopArguments),
    /// The machine configuration of nodes
    #[command(subcommand)]
    Config(ConfigCommand),
    Upgrade(UpgradeArguments),
    /// Move nodes back to what they ran before the last upgrade, one after the other
    Rollback(PaceArguments),
    /// Collect everything that helps to find out what is wrong, from all nodes, into one file
    Support(SupportArguments),
    /// Clusters, and what proves to them that you are an administrator
    #[command(subcommand)]
    Context(ContextCommand),
    /// Versions of dvsctl and of each node that is reached
    Version,
    /// Show the state of the node that this runs on on a terminal, with a menu: PID 1 starts it
    #[command(hide = true)]
    Console(ConsoleArguments),
    /// Print what makes a shell complete dvsctl's words, such as: source <(dvsctl completions bash)
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write manual pages, one for each command, such as dvsctl-node-list.1
    Man {
        /// Where to write them; made if it is not there
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// All nodes and their state, as the first endpoint that answers sees them
    List,
    /// Everything about a node, and the link to it from the first endpoint that answers
    Show {
        /// Id of the node
        node: u32,
    },
    /// Empty a node: nothing new is placed on it, and it neither votes nor leads
    ///
    /// Waits until its vote has gone to another node. It stays drained when it restarts. Containers that it has
    /// stay: scale them off it.
    Drain(DrainArguments),
    /// Make a drained node one like any other again
    Undrain {
        /// Id of the node
        node: u32,
    },
    /// Give a node another name, which it keeps when it restarts
    Rename {
        /// Id of the node
        node: u32,
        /// Its name
        name: String,
    },
    /// Restart a node's machine, and wait until it is back
    ///
    /// Its vote goes to another node first, and the others are told that it is going. It must be among the endpoints.
    Reboot(PowerArguments),
    /// Switch a node's machine off, and wait until it is gone
    ///
    /// As `node reboot`. It stays a node that is down; `node remove` makes it none.
    Shutdown(PowerArguments),
    /// Make a node none any more, dead or alive
    ///
    /// Its id is given to no other machine, the others change their keys, and its machine stays out of the cluster, whatever
    /// token it has, until `node reset`.
    Remove(RemoveArguments),
    /// Make a disk of a node's machine one that boots it
    ///
    /// The disk gets a boot loader for UEFI, an image in the first of its two slots, and the machine configuration that the node has now, its
    /// secrets included. The node goes on as it runs; what it boots next is up to its firmware.
    Install(InstallArguments),
    /// Which images the disks of nodes have, which runs, and what became of the others
    Images {
        /// Id of the only node to ask
        #[arg(long)]
        node: Option<u32>,
    },
    /// Have a node come back as if it had never been one; one that was removed may come back
    ///
    /// One that is a node gives its vote away, is removed, restarts with nothing of what it was, and joins again. With --disk, what
    /// boots a node on that disk is wiped when it was removed, its configuration and secrets included. With --disk or --shutdown, the
    /// machine stays out of the cluster as after `node remove`.
    Reset(ResetArguments),
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token with which machines may join, and print it: this once
    ///
    /// It is cluster.join_token in the machine configuration of a machine that is to join, which need not know the cluster's own
    /// token then.
    Create {
        /// The token, ID.SECRET, if you have chosen it yourself; it shows in the list of processes [default: one is drawn]
        token: Option<String>,
        /// How long it is valid, such as 30m or 24h; 0s for ever
        #[arg(long, value_name = "TIME", default_value = "24h", value_parser = humantime::parse_duration)]
        ttl: std::time::Duration,
        /// How many machines may join with it [default: any number]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        uses: Option<u32>,
        /// What it is for
        #[arg(long)]
        description: Option<String>,
    },
    /// The tokens that have not ended, and the machines that have joined with them and may again, even with one that is used up
    List,
    /// Make a token invalid; nodes that have joined with it stay until they restart, and know the cluster token by then
    Revoke {
        /// Its id: what stands before the dot
        id: String,
    },
}

#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct DrainArguments {
    /// Id of the node
    pub(crate) node: u32,
    /// Drain it even if no other node could vote instead
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct RemoveArguments {
    /// Id of the node
    pub(crate) node: u32,
    /// Remove it even if no other node could vote instead
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct PowerArguments {
    /// Id of the node
    pub(crate) node: u32,
    /// Do it even if no other node could vote meanwhile: the nodes may lose what they have agreed on
    #[arg(long)]
    pub(crate) force: bool,
    /// Only have it begin
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// Seconds after which waiting ends with an error
    #[arg(long = "timeout", value_name = "S", default_value_t = 180,
          value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub(crate) timeout_s: u64,
}

#[derive(Debug, Args)]
pub(crate) struct ResetArguments {
    #[command(flatten)]
    pub(crate) power: PowerArguments,
    /// Wipe what boots a node on this disk of its machine, such as /dev/vda. One that has anything else is refused
    #[arg(long, value_name = "DISK")]
    pub(crate) disk: Option<String>,
    /// Wipe the disk without being asked
    #[arg(long, requires = "disk")]
    pub(crate) wipe: bool,
    /// Switch the machine off instead of having it come back
    #[arg(long)]
    pub(crate) shutdown: bool,
}

#[derive(Debug, Args)]
pub(crate) struct InstallArguments {
    /// Id of the node
    pub(crate) node: u32,
    /// The disk, such as /dev/vda or /dev/nvme0n1; a wrong name is answered with those that there are
    pub(crate) disk: String,
    /// The unified kernel image, as `cargo xtask image pxe` makes it: dvs.efi [default: the one that the node runs]
    #[arg(long, value_name = "FILE")]
    pub(crate) image: Option<PathBuf>,
    /// The version of the image, for people [default: that of dvsctl]
    #[arg(long, value_name = "VERSION", requires = "image")]
    pub(crate) image_version: Option<String>,
    /// Lose what is on the disk, without being asked
    #[arg(long)]
    pub(crate) wipe: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SegmentCommand {
    /// What each node that is reached encrypts with, and which frames it dropped
    Show {
        /// Id of the only node to ask
        #[arg(long)]
        node: Option<u32>,
    },
    /// Have each node that is reached send with another key, and wait until it does
    Rotate {
        /// Id of the only node to do so
        #[arg(long)]
        node: Option<u32>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum LinkCommand {
    /// All links that the endpoints have an end of: what carries each and how well
    ///
    /// OUT and IN are bytes per second as the first of the two nodes sees them, or the other one if
    /// that is not among the endpoints. LOSS is the part of all frames that had to be sent again.
    List,
    /// Choose what carries the link between two nodes, while messages flow
    ///
    /// Both ends change to it, and nothing is lost. Waits until they have and a message has gone
    /// there and back. The choice stays until the next one, also when a node restarts; only when both
    /// nodes are off at once the link goes back to ethernet.
    Set(SetArguments),
}

#[derive(Debug, Subcommand)]
pub(crate) enum EndpointCommand {
    /// All endpoints of all nodes: what each is doing, whom it waits for and what it has sent
    ///
    /// ENDPOINT is the slot, and how often it has been bound. STATE is what its thread does: receive (waits for a
    /// message), request (waits for a reply), send (waits until its message is taken), copy, wait (for another
    /// endpoint to come or go), moving, or idle. -o wide tells of notifications, memory lent and moves as well.
    List {
        /// Only those of this container; system for that of the nodes themselves
        #[arg(long, value_name = "NAME")]
        dc: Option<String>,
        /// Only those on this node
        #[arg(long)]
        node: Option<u32>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct SetArguments {
    /// Ids of the two nodes, in either order. One of them must be among the endpoints
    #[arg(value_name = "NODE", num_args = 2, required = true)]
    pub(crate) nodes: Vec<u32>,
    /// What is to carry the link: ethernet or tipc, by the kernels of nodes on one segment; tcp, udp
    /// or quic, by a proxy on each node
    #[arg(long, value_name = "TRANSPORT", value_parser = transport())]
    pub(crate) transport: Transport,
    /// Only make the choice
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// Seconds after which waiting ends with an error
    #[arg(long = "timeout", value_name = "S", default_value_t = 20,
          value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub(crate) timeout_s: u64,
}

#[derive(Debug, Subcommand)]
pub(crate) enum IpcCommand {
    /// Exchange messages between two nodes and say how long that takes
    Ping(PingArguments),
}

#[derive(Debug, Args)]
pub(crate) struct PingArguments {
    /// Id of the node that sends [default: that of the first endpoint that answers]
    #[arg(long, value_name = "NODE")]
    pub(crate) from: Option<u32>,
    /// Id of the node that answers; may be the one that sends
    #[arg(long, value_name = "NODE")]
    pub(crate) to: u32,
    /// Number of round trips, one after the other
    #[arg(long, value_name = "N", default_value_t = 10,
          value_parser = clap::value_parser!(u64).range(1..=PING_COUNT_MAX))]
    pub(crate) count: u64,
    /// Milliseconds after which a round trip counts as lost
    #[arg(long = "timeout", value_name = "MS", default_value_t = 5_000,
          value_parser = clap::value_parser!(u64).range(1..=60_000))]
    pub(crate) timeout_ms: u64,
    /// Milliseconds to wait between two round trips
    #[arg(long = "interval", value_name = "MS", default_value_t = 0,
          value_parser = clap::value_parser!(u64).range(0..=60_000))]
    pub(crate) interval_ms: u64,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct EventsArguments {
    /// Go on and print events as they happen, a line each, until interrupted
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only what happened within this time, such as 10m or 2h
    #[arg(long, value_name = "AGE", value_parser = humantime::parse_duration)]
    pub(crate) since: Option<std::time::Duration>,
    /// Only events with numbers above this one
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub(crate) after: u64,
    /// Only what is about this node
    #[arg(long)]
    pub(crate) node: Option<u32>,
    /// Only events of this kind, such as node-down; may be repeated
    #[arg(long, value_name = "KIND")]
    pub(crate) kind: Vec<String>,
    /// End after so many events
    #[arg(long, value_name = "N", requires = "follow")]
    pub(crate) count: Option<u64>,
}

impl Arguments {
    /// Those of the program. What is wrong with them is told, and ends it.
    pub(crate) fn of_program() -> Self {
        let mut command = Self::command();
        // An empty variable is one that is not set.
        for (argument, variable) in
            [("context", "DVSCTL_CONTEXT"), ("endpoints", "DVSCTL_ENDPOINTS")]
        {
            if std::env::var_os(variable).is_some_and(|text| text.is_empty()) {
                command = command.mut_arg(argument, |it| it.env(Resettable::Reset));
            }
        }
        let matches = command.get_matches();
        let mut arguments = Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
        // A context that is named means its own endpoints, whatever the environment says of others.
        let source = |name| matches.value_source(name);
        if source("context") == Some(ValueSource::CommandLine)
            && source("endpoints") == Some(ValueSource::EnvVariable)
        {
            arguments.endpoints = None;
        }
        arguments
    }
}

fn context_name(text: &str) -> Result<String, String> {
    dvs_client::check_name(text).map(|()| text.to_owned())
}

fn transport() -> impl TypedValueParser<Value = Transport> {
    PossibleValuesParser::new(Transport::ALL.map(Transport::as_str))
        .try_map(|name| name.parse::<Transport>())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn endpoints_are_checked_and_completed() {
        let parse = |list: &str| {
            let arguments = ["dvsctl", "version", "--endpoint", list];
            Arguments::try_parse_from(arguments).map(|arguments| arguments.endpoints)
        };
        let both = parse("http://a:1/,[::1]:2,unix:/x").unwrap().unwrap();
        let both: Vec<_> = both.iter().map(ToString::to_string).collect();
        assert_eq!(both, ["http://a:1", "https://[::1]:2", "unix:/x"]);
        for bad in ["", "ftp://a:1", "http://a/b", "http://a:1,", "unix:x"] {
            assert_eq!(parse(bad).unwrap_err().exit_code(), 2, "{bad}");
        }
    }

    #[test]
    fn a_link_has_two_ends_and_a_transport_that_exists() {
        let parse = |line: &str| {
            let arguments = Arguments::try_parse_from(line.split(' '));
            arguments.map(|arguments| match arguments.command {
                Command::Link(LinkCommand::Set(set)) => {
                    (set.nodes, set.transport, set.no_wait, set.timeout_s)
                }
                other => panic!("{other:?}"),
            })
        };
        let set = parse("dvsctl link set 3 0 --transport tcp").unwrap();
        assert_eq!(set, (vec![3, 0], Transport::Tcp, false, 20));
        for wrong in [
            "dvsctl link set 3 --transport tcp",
            "dvsctl link set 3 0",
            "dvsctl link set 3 0 1 --transport tcp",
            "dvsctl link set 3 0 --transport pigeon",
        ] {
            assert_eq!(parse(wrong).unwrap_err().exit_code(), 2, "{wrong}");
        }
    }

    #[test]
    fn output_and_endpoint_stand_anywhere() {
        let line = "dvsctl -o json ipc ping --to 3 --count 7 --endpoint http://h:1";
        let arguments = Arguments::try_parse_from(line.split(' ')).unwrap();
        assert_eq!(arguments.output, Output::Json);
        let Command::Ipc(IpcCommand::Ping(ping)) = arguments.command else { panic!("no ping") };
        assert_eq!((ping.from, ping.to, ping.count, ping.timeout_ms), (None, 3, 7, 5_000));
    }
}
