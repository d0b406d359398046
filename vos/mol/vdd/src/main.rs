// SPDX-License-Identifier: MIT OR Apache-2.0
//! The disk server as a program. Everything it does is in the library.

#![forbid(unsafe_code)]

use clap::{Args, Parser, Subcommand};
use mol_vdd::replica::ReplicaId;
use mol_vdd::run::{self, Found, GatewayPlan, Listen, Plan, ReplicaPlan, Target, UblkPlan};
use mol_vdd::store::StoreSpec;
use std::path::PathBuf;
use std::process::ExitCode;

/// MoL's disk server: block devices in memory, in files and on disks, with or without replicas
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Arguments {
    /// The device of the container
    #[arg(long, default_value = "/dev/dvk", global = true, value_name = "FILE")]
    dvk: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve devices
    Serve(Serve),
    /// Pass a device on to NBD clients, such as those of Linux and QEMU
    Nbd(Nbd),
    /// Have Linux use a device as the block device /dev/ublkbN, until SIGTERM or SIGINT: on a node, not in a container
    Ublk(Ublk),
    /// Show who has replicas of a device, who is in step and who is the primary
    Show(Device),
    /// Compare the blocks of all replicas of a device that are in step; the server of the primary tells what differs
    Scrub(Device),
    /// Take a replica away from a device, such as one that never comes back
    Remove {
        #[command(flatten)]
        device: Device,
        /// The number of the replica
        #[arg(long, value_name = "N")]
        replica: u32,
    },
}

#[derive(Args)]
struct Serve {
    /// Bind this server slot, by which clients on this node find the server (0 to 62); else any slot
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..63))]
    slot: Option<u32>,
    /// A device: `memory:SIZE[,block=BYTES]`, `file:PATH[,read-only][,create=SIZE]`, `disk:PATH[,read-only]`, or a volume of
    /// an NBD server, `nbd://ADDRESS[:PORT]/EXPORT[,read-only]` or `nbd+unix:///EXPORT?socket=PATH[,read-only]`; the first one
    /// has the minor 0, and so on
    #[arg(long = "device", value_name = "STORE", required = true)]
    devices: Vec<StoreSpec>,
    /// Have replicas of the devices of this group
    #[arg(long, value_name = "NAME", requires = "replica", value_parser = group)]
    group: Option<String>,
    /// Which replica, a number of its own among the servers of the group
    #[arg(long, value_name = "N", requires = "group")]
    replica: Option<u32>,
    /// Make the devices if the group has none yet, from what this server's stores have
    #[arg(long, requires = "group")]
    begin: bool,
}

#[derive(Args)]
struct Nbd {
    /// Where to listen: `unix:PATH`, or `tcp:ADDRESS:PORT`, which is neither encrypted nor asks who comes
    #[arg(long, value_name = "WHERE")]
    listen: Listen,
    #[command(flatten)]
    passed: Passed,
}

#[derive(Args)]
struct Ublk {
    #[command(flatten)]
    passed: Passed,
    /// The number N of /dev/ublkbN; else any
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..1 << 20))]
    id: Option<u32>,
    /// How many requests are done at once, as far as the node has processors
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    queues: u16,
    /// How many requests Linux hands over at once for each of them; each has 256 KiB of memory for its data
    #[arg(long, default_value_t = 16, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    depth: u16,
}

/// The device that a gateway passes on
#[derive(Args)]
struct Passed {
    /// A device with replicas: of this group of servers
    #[arg(long, value_name = "NAME", required_unless_present = "slot", value_parser = group)]
    group: Option<String>,
    /// A device of the server on this node that has this slot
    #[arg(long, value_name = "N", conflicts_with = "group")]
    slot: Option<u32>,
    /// The device's minor
    #[arg(long, default_value_t = 0, value_name = "MINOR")]
    device: u32,
}

impl Passed {
    fn target(self, dvk: PathBuf) -> Target {
        let slot = || Found::Slot(self.slot.unwrap_or_default());
        Target { dvk, server: self.group.map_or_else(slot, Found::Group), minor: self.device }
    }
}

#[derive(Args)]
struct Device {
    /// The group of servers
    #[arg(long, value_name = "NAME", value_parser = group)]
    group: String,
    /// The device's minor
    #[arg(long, default_value_t = 0, value_name = "MINOR")]
    device: u32,
}

fn group(text: &str) -> Result<String, String> {
    let is_name = (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    match is_name {
        true => Ok(text.to_owned()),
        false => Err("a group has a name of 1 to 64 letters, digits, `-`, `_` and `.`".to_owned()),
    }
}

fn main() -> ExitCode {
    let Arguments { dvk, command } = Arguments::parse();
    let done = match command {
        Command::Serve(serve) => {
            let replica = serve.group.zip(serve.replica).map(|(group, id)| ReplicaPlan {
                group,
                id: ReplicaId(id),
                begins: serve.begin,
            });
            run::serve(&Plan { dvk, slot: serve.slot, stores: serve.devices, replica })
        }
        Command::Nbd(Nbd { listen, passed }) => {
            run::gateway(&GatewayPlan { target: passed.target(dvk), listen })
        }
        Command::Ublk(Ublk { passed, id, queues, depth }) => {
            run::ublk(&UblkPlan { target: passed.target(dvk), id, queues, depth })
        }
        Command::Show(device) => {
            run::show(&dvk, &device.group, device.device).map(|text| print!("{text}"))
        }
        Command::Scrub(device) => {
            run::scrub(&dvk, &device.group, device.device).map(|text| print!("{text}"))
        }
        Command::Remove { device, replica } => {
            run::remove(&dvk, &device.group, device.device, ReplicaId(replica))
                .map(|text| print!("{text}"))
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_one() {
        Arguments::command().debug_assert();
        let parsed = |words: &str| Arguments::try_parse_from(words.split(' '));
        assert!(parsed("mol-vdd serve --device memory:1M --slot 62").is_ok());
        assert!(parsed("mol-vdd serve --device memory:1M --slot 63").is_err(), "the services'");
        assert!(parsed("mol-vdd serve --device memory:1M --group a").is_err(), "no number");
        assert!(parsed("mol-vdd serve --device memory:1M --group a/b --replica 1").is_err());
        assert!(parsed("mol-vdd serve --device memory:1M --group a --replica 1 --begin").is_ok());
        assert!(parsed("mol-vdd serve").is_err(), "no device");
        assert!(parsed("mol-vdd nbd --listen unix:/run/a --group a").is_ok());
        assert!(parsed("mol-vdd nbd --listen tcp:127.0.0.1:1 --slot 1").is_ok());
        assert!(parsed("mol-vdd nbd --listen unix:/run/a").is_err(), "nobody's device");
        assert!(parsed("mol-vdd nbd --listen here --slot 1").is_err());
        assert!(parsed("mol-vdd ublk --group a --device 1 --id 3 --queues 4").is_ok());
        assert!(parsed("mol-vdd ublk --slot 1").is_ok());
        assert!(parsed("mol-vdd ublk --slot 1 --group a").is_err(), "two servers");
        assert!(parsed("mol-vdd ublk").is_err(), "nobody's device");
        assert!(parsed("mol-vdd ublk --slot 1 --depth 0").is_err());
    }
}
