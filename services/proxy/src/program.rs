// SPDX-License-Identifier: MIT OR Apache-2.0
//! The program: which link, and over what.

use crate::batch::Compression;
use crate::counters::Counters;
use crate::gain::Coding;
use crate::link::KernelLink;
use crate::passage::{Log, Passage};
use crate::protection::{Ends, SPOKEN};
use crate::settings::Settings;
use crate::tcp::Role;
use crate::{address, quic, tcp, udp};
use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand, ValueEnum};
use dvk::{Control, Protocol};
use dvs_authority::Identity;
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

/// Carries the link between this node and another one, until another transport does.
///
/// Needs CAP_SYS_ADMIN, and a proxy of the same protocol on the other node. What is carried is encrypted, and accepted from the other
/// node only, by keys of the cluster token; where the machine configuration says `cluster.insecure = true`, TCP and UDP carry it as it
/// is. The status is 0 when another transport has taken over. At its end, and whenever it gets SIGUSR1, it prints what it has
/// counted: one line of JSON.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Id of the other node
    #[arg(long)]
    node: u32,
    /// Where PID 1 and dvsd keep config.toml and status.json
    #[arg(long, value_name = "DIR", default_value = "/run/dvs")]
    config: PathBuf,
    #[command(subcommand)]
    over: Over,
}

#[derive(Subcommand)]
enum Over {
    /// Over TCP: one of the two proxies listens, the other connects
    Tcp(Stream),
    /// Over QUIC: one of the two proxies listens, the other connects. Always encrypted, so that it needs a cluster token in any case
    Quic(Stream),
    /// Over UDP, a frame to a datagram
    Udp {
        /// Address and port of this proxy
        #[arg(long, value_name = "ADDRESS:PORT", value_parser = socket_address)]
        local: SocketAddr,
        /// Address and port of the other proxy
        #[arg(long, value_name = "ADDRESS:PORT", value_parser = socket_address)]
        peer: SocketAddr,
        /// Longest frame in bytes. As long as those of the transport before, messages flow on while the link changes to UDP, but
        /// IP cuts a datagram into pieces that is longer than the MTU of the path less 80 (IPv6) or 60 (IPv4) bytes, or, where
        /// cluster.insecure is true, less 48 or 28
        #[arg(long, default_value_t = 1500, value_name = "BYTES")]
        frame_bytes: u32,
    },
}

/// What is said of a stream.
#[derive(Args)]
#[command(group(clap::ArgGroup::new("role").required(true)))]
struct Stream {
    /// Wait for the other proxy at this address and port
    #[arg(long, group = "role", value_name = "ADDRESS:PORT", value_parser = socket_address)]
    listen: Option<SocketAddr>,
    /// Connect to the other proxy at this address and port
    #[arg(long, group = "role", value_name = "ADDRESS:PORT", value_parser = socket_address)]
    connect: Option<SocketAddr>,
    /// How frames are compressed
    #[arg(long, default_value = "auto")]
    compression: Choice,
}

#[derive(Clone, Copy, ValueEnum)]
enum Choice {
    /// As it gains most time, which is not at all where the path is fast
    Auto,
    /// Not at all
    None,
    /// By LZ4
    Lz4,
    /// By Zstandard
    Zstd,
}

impl Choice {
    fn compression(self) -> Compression {
        match self {
            Self::Auto => Compression::Auto,
            Self::None => Compression::Always(Coding::Plain),
            Self::Lz4 => Compression::Always(Coding::Lz4),
            Self::Zstd => Compression::Always(Coding::Zstd),
        }
    }
}

impl Stream {
    fn role(&self) -> Result<Role> {
        match (self.listen, self.connect) {
            (Some(address), _) => Ok(Role::Listen(address)),
            (None, Some(address)) => Ok(Role::Connect(address)),
            (None, None) => anyhow::bail!("give --listen or --connect"),
        }
    }
}

fn socket_address(text: &str) -> Result<SocketAddr> {
    address::parse(text, |name| {
        let path = format!("/sys/class/net/{name}/ifindex");
        let index = std::fs::read_to_string(&path);
        let index = index.with_context(|| format!("looking for the interface {name}: {path}"))?;
        Ok(index.trim_end().parse()?)
    })
}

/// The program: carries the link that its arguments name.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let counters = Arc::new(Counters::default());
    let result = watch_signals(counters.clone()).and_then(|()| run(&arguments, &counters));
    print(&counters);
    match result {
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

/// Prints the counters when asked, and before a signal ends the program.
fn watch_signals(counters: Arc<Counters>) -> Result<()> {
    let mut signals =
        Signals::new([SIGUSR1, SIGTERM, SIGINT]).context("preparing to be signalled")?;
    std::thread::spawn(move || {
        for signal in &mut signals {
            print(&counters);
            if signal != SIGUSR1 {
                // The kernel takes the link back only when another transport is attached; who ends us knows.
                std::process::exit(128 + signal);
            }
        }
    });
    Ok(())
}

fn print(counters: &Counters) {
    // Whoever reads them may have gone.
    let _ = writeln!(std::io::stdout(), "{}", counters.snapshot().line());
}

fn run(arguments: &Arguments, counters: &Counters) -> Result<()> {
    let settings = Settings::read(&arguments.config)
        .with_context(|| format!("learning how to carry the link to node {}", arguments.node))?;
    let ends = Ends { own: settings.node, peer: arguments.node };
    anyhow::ensure!(
        ends.own != ends.peer,
        "node {} is this node; it has no link to itself",
        ends.own
    );
    let control = Control::open().context("opening the control device")?;
    let link = |protocol, bytes| KernelLink::new(control, arguments.node, protocol, bytes);
    let identity = identity(&settings, ends)?;
    let log = Log::new(|line| eprintln!("dvs-proxy: {line}"));
    let passage = |link, compression| Passage {
        link,
        ends,
        protection: &settings.protection,
        identity: identity.as_ref(),
        compression,
        counters,
        log: &log,
    };
    match &arguments.over {
        Over::Tcp(stream) => {
            let link = link(Protocol::Tcp, 0);
            tcp::carry(passage(&link, stream.compression.compression()), stream.role()?)
        }
        Over::Quic(stream) => {
            let link = link(Protocol::Quic, 0);
            quic::carry(passage(&link, stream.compression.compression()), stream.role()?)
        }
        Over::Udp { local, peer, frame_bytes } => {
            let link = link(Protocol::Udp, *frame_bytes);
            // A datagram is a frame: there is nothing to gain by what does not make fewer of them.
            udp::carry(passage(&link, Compression::Always(Coding::Plain)), *local, *peer)
        }
    }
    .with_context(|| format!("carrying the link to node {}", arguments.node))
}

/// What this node proves itself by, if the cluster has anything to prove it by.
fn identity(settings: &Settings, ends: Ends) -> Result<Option<Identity>> {
    let authority = settings.authority.as_ref();
    let identity =
        authority.map(|authority| authority.identity(ends.own, ends.peer, SPOKEN)).transpose();
    identity.context("making a certificate for this node")
}
