// SPDX-License-Identifier: MIT OR Apache-2.0
//! The program: which link, and over what.
#![forbid(unsafe_code)]

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use dvk::{Control, Protocol};
use dvs_proxy::address;
use dvs_proxy::link::KernelLink;
use dvs_proxy::{tcp, udp};
use std::net::SocketAddr;
use std::process::ExitCode;

/// Carries the link between this node and another one, until another transport does.
///
/// Needs CAP_SYS_ADMIN, and a proxy of the same protocol on the other node. The status is 0 when
/// another transport has taken over.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Id of the other node
    #[arg(long)]
    node: u32,
    #[command(subcommand)]
    over: Over,
}

#[derive(Subcommand)]
enum Over {
    /// Over TCP: one of the two proxies listens, the other connects
    #[command(group(clap::ArgGroup::new("role").required(true)))]
    Tcp {
        /// Wait for the other proxy at this address and port
        #[arg(long, group = "role", value_name = "ADDRESS:PORT", value_parser = socket_address)]
        listen: Option<SocketAddr>,
        /// Connect to the other proxy at this address and port
        #[arg(long, group = "role", value_name = "ADDRESS:PORT", value_parser = socket_address)]
        connect: Option<SocketAddr>,
    },
    /// Over UDP, a frame to a datagram
    Udp {
        /// Address and port of this proxy
        #[arg(long, value_name = "ADDRESS:PORT", value_parser = socket_address)]
        local: SocketAddr,
        /// Address and port of the other proxy
        #[arg(long, value_name = "ADDRESS:PORT", value_parser = socket_address)]
        peer: SocketAddr,
        /// Longest frame in bytes. As long as those of the transport before, messages flow on while the link changes to UDP, but
        /// IP cuts a datagram into pieces that is longer than the MTU of the path less 48 (IPv6) or 28 (IPv4) bytes
        #[arg(long, default_value_t = 1500, value_name = "BYTES")]
        frame_bytes: u32,
    },
}

fn socket_address(text: &str) -> Result<SocketAddr> {
    address::parse(text, |name| {
        let path = format!("/sys/class/net/{name}/ifindex");
        let index = std::fs::read_to_string(&path);
        let index = index.with_context(|| format!("looking for the interface {name}: {path}"))?;
        Ok(index.trim_end().parse()?)
    })
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => {
            eprintln!("dvs-proxy: another transport carries the link now");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("dvs-proxy: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let control = Control::open().context("opening the control device")?;
    let link = |protocol, bytes| KernelLink::new(control, arguments.node, protocol, bytes);
    match arguments.over {
        Over::Tcp { listen, connect } => {
            let role = match (listen, connect) {
                (Some(address), _) => tcp::Role::Listen(address),
                (None, Some(address)) => tcp::Role::Connect(address),
                (None, None) => anyhow::bail!("give --listen or --connect"),
            };
            tcp::carry(&link(Protocol::Tcp, 0), role)
        }
        Over::Udp { local, peer, frame_bytes } => {
            udp::carry(&link(Protocol::Udp, frame_bytes), local, peer)
        }
    }
    .with_context(|| format!("carrying the link to node {}", arguments.node))
}
