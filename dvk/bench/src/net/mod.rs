// SPDX-License-Identifier: MIT OR Apache-2.0
//! Measures between two nodes: a program on each takes orders, one as the server of everything and one as the client.

mod bearer;
mod datagram;
mod m3;
mod stream;
mod tipc;

use std::collections::BTreeMap;
use std::io::Write;
use std::net::Ipv6Addr;

use anyhow::{ensure, Context, Result};
use dvk_bench::{Answer, Carrier, Order, Server, Work};

use crate::run::now;
use dvk_bench::Unit;

/// The interface by which the nodes see each other.
const INTERFACE: &str = "eth0";
/// The largest block that is moved.
const BLOCK_BYTES_MAX: usize = 1 << 20;

/// Does one kind of work as often as it is told.
type Client = Box<dyn FnMut(Work, u64) -> Result<()>>;

/// Takes orders until there are no more.
///
/// # Errors
/// When an order makes no sense. That one cannot be carried out is an answer.
pub(crate) fn run() -> Result<()> {
    let mut party = Party::default();
    for line in std::io::stdin().lines() {
        let line = line?;
        let order = serde_json::from_str(&line).with_context(|| format!("no order: {line}"))?;
        let answer = match party.obey(order) {
            Ok(answer) => answer,
            Err(error) => Answer::Failed(format!("{error:#}")),
        };
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", serde_json::to_string(&answer)?)?;
        out.flush()?;
    }
    Ok(())
}

/// One of the two programs.
#[derive(Default)]
struct Party {
    server: Option<Server>,
    clients: BTreeMap<Carrier, Client>,
}

impl Party {
    fn obey(&mut self, order: Order) -> Result<Answer> {
        match order {
            Order::Join { nodes } => {
                m3::join(nodes)?;
                bearer::enable(INTERFACE)?;
            }
            Order::Serve => return serve(),
            Order::Use(server) => self.server = Some(server),
            Order::Ethernet { node, address } => {
                m3::attach_ethernet(node, interface_index()?, address)?;
            }
            Order::Tipc { node } => m3::attach_tipc(node)?,
            Order::Link { node } => return Ok(Answer::Link(m3::transport(node)?)),
            Order::Measure { carrier, work, operations } => {
                return self.measure(carrier, work, operations);
            }
        }
        Ok(Answer::Done)
    }

    fn measure(&mut self, carrier: Carrier, work: Work, operations: u64) -> Result<Answer> {
        ensure!(carrier.can(work), "{carrier} has no {work}");
        let server = self.server.as_ref().context("a server first")?;
        let client = match self.clients.remove(&carrier) {
            Some(client) => client,
            None => client(carrier, server).with_context(|| format!("connecting by {carrier}"))?,
        };
        // One that fails is not kept: what it has sent may still be under way.
        let mut client = client;
        let began = now(Unit::Nanoseconds);
        client(work, operations).with_context(|| format!("{work} by {carrier}"))?;
        let took = now(Unit::Nanoseconds) - began;
        self.clients.insert(carrier, client);
        Ok(Answer::Took(took))
    }
}

/// A client of the server.
fn client(carrier: Carrier, server: &Server) -> Result<Client> {
    let address = || Ok::<_, anyhow::Error>((server.address, interface_index()?));
    match carrier {
        _ if carrier.is_m3() => m3::client(server),
        Carrier::Tcp => stream::tcp_client(address()?),
        Carrier::TipcStream | Carrier::TipcSeqpacket => stream::tipc_client(carrier),
        Carrier::TipcRdm => datagram::tipc_client(),
        _ => datagram::udp_client(address()?),
    }
}

/// Serves everything, each in a thread of its own.
fn serve() -> Result<Answer> {
    let (answers, (lends, grant)) = (m3::answer()?, m3::lend()?);
    let mut missing = Vec::new();
    for (carrier, started) in [
        (Carrier::Tcp, stream::tcp_server()),
        (Carrier::TipcStream, stream::tipc_server(Carrier::TipcStream)),
        (Carrier::TipcSeqpacket, stream::tipc_server(Carrier::TipcSeqpacket)),
        (Carrier::TipcRdm, datagram::tipc_server()),
        (Carrier::Udp, datagram::udp_server()),
    ] {
        if let Err(error) = started {
            missing.push((carrier, format!("{error:#}")));
        }
    }
    Ok(Answer::Serving { answers, lends, grant, missing })
}

/// Runs a server in a thread for as long as the program lives.
fn in_thread(serve: impl FnOnce() -> Result<()> + Send + 'static) {
    std::thread::spawn(move || {
        // A client that goes away ends its connection, and the client knows why.
        if let Err(error) = serve() {
            eprintln!("dvk-bench: {error:#}");
        }
    });
}

fn interface_index() -> Result<u32> {
    let path = format!("/sys/class/net/{INTERFACE}/ifindex");
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    Ok(text.trim_end().parse()?)
}

/// An address with its scope.
fn at((address, scope): (Ipv6Addr, u32), port: u16) -> std::net::SocketAddrV6 {
    std::net::SocketAddrV6::new(address, port, 0, scope)
}
