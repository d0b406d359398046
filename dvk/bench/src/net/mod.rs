// SPDX-License-Identifier: MIT OR Apache-2.0
//! Measures between two nodes: a program on each takes orders, one as the server of everything and one as the client.

mod datagram;
mod m3;
mod stream;
mod tipc;

use std::collections::BTreeMap;
use std::io::Write;
use std::net::Ipv6Addr;

use anyhow::{ensure, Context, Result};
use dvk_bench::{Answer, Carrier, Order, Server, Unit, Work, PAIRS_MAX};

use crate::run::now;

/// The interface by which the nodes see each other.
const INTERFACE: &str = "eth0";
/// The largest block that is moved.
const BLOCK_BYTES_MAX: usize = 1 << 20;

/// Does one kind of work as often as it is told.
type Client = Box<dyn FnMut(Work, u64) -> Result<()> + Send>;

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
    clients: BTreeMap<Carrier, Vec<Client>>,
}

impl Party {
    fn obey(&mut self, order: Order) -> Result<Answer> {
        match order {
            Order::Join { nodes } => m3::join(nodes)?,
            Order::Serve => return serve(),
            Order::Use(server) => self.server = Some(server),
            Order::Measure { carrier, work, pairs, operations } => {
                return self.measure(carrier, work, pairs, operations);
            }
        }
        Ok(Answer::Done)
    }

    fn measure(
        &mut self,
        carrier: Carrier,
        work: Work,
        pairs: u32,
        operations: u64,
    ) -> Result<Answer> {
        ensure!(carrier.can(work), "{carrier} has no {work}");
        ensure!((1..=PAIRS_MAX).contains(&pairs), "{pairs} pairs: 1 to {PAIRS_MAX}");
        let server = self.server.as_ref().context("a server first")?;
        // Those that fail are not kept: what they have sent may still be under way.
        let mut clients = self.clients.remove(&carrier).unwrap_or_default();
        for number in clients.len() as u32..pairs {
            let made = client(carrier, server, number);
            clients.push(made.with_context(|| format!("connecting by {carrier}"))?);
        }
        let began = now(Unit::Nanoseconds);
        at_once(&mut clients[..pairs as usize], work, operations)
            .with_context(|| format!("{work} by {carrier}"))?;
        let took = now(Unit::Nanoseconds) - began;
        self.clients.insert(carrier, clients);
        Ok(Answer::Took(took))
    }
}

/// Lets all clients work, each in a thread of its own unless there is but one.
fn at_once(clients: &mut [Client], work: Work, operations: u64) -> Result<()> {
    if let [only] = clients {
        return only(work, operations);
    }
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            clients.iter_mut().map(|client| scope.spawn(|| client(work, operations))).collect();
        threads.into_iter().try_for_each(|thread| {
            thread.join().map_err(|_| anyhow::anyhow!("a client panicked"))?
        })
    })
}

/// Client `number` of the server.
fn client(carrier: Carrier, server: &Server, number: u32) -> Result<Client> {
    let address = || Ok::<_, anyhow::Error>((server.address, interface_index()?));
    match carrier {
        _ if carrier.is_m3() => m3::client(server, number),
        Carrier::Tcp => stream::tcp_client(address()?),
        Carrier::TipcStream | Carrier::TipcSeqpacket => stream::tipc_client(carrier),
        Carrier::TipcRdm => datagram::tipc_client(number),
        _ => datagram::udp_client(address()?, number),
    }
}

/// Serves everything, each in a thread of its own.
fn serve() -> Result<Answer> {
    let answers = (0..PAIRS_MAX).map(|_| m3::answer()).collect::<Result<_>>()?;
    let (lends, grant) = m3::lend()?;
    let server = Server { address: link_local()?, answers, lends, grant };
    let mut missing = Vec::new();
    for (carrier, started) in [
        (Carrier::Tcp, stream::tcp_server()),
        (Carrier::TipcStream, stream::tipc_server(Carrier::TipcStream)),
        (Carrier::TipcSeqpacket, stream::tipc_server(Carrier::TipcSeqpacket)),
        (Carrier::TipcRdm, each_pair(datagram::tipc_server)),
        (Carrier::Udp, each_pair(datagram::udp_server)),
    ] {
        if let Err(error) = started {
            missing.push((carrier, format!("{error:#}")));
        }
    }
    Ok(Answer::Serving(server, missing))
}

/// Starts a server for each pair.
fn each_pair(start: impl Fn(u32) -> Result<()>) -> Result<()> {
    (0..PAIRS_MAX).try_for_each(start)
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

/// The link-local address of the interface.
fn link_local() -> Result<Ipv6Addr> {
    let path = "/proc/net/if_inet6";
    let table = std::fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
    let found = table.lines().find_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        let mine = words.last() == Some(&INTERFACE) && line.starts_with("fe80");
        mine.then(|| u128::from_str_radix(words[0], 16).ok()).flatten()
    });
    let found = found.with_context(|| format!("{INTERFACE} has no link-local address: {path}"))?;
    Ok(Ipv6Addr::from_bits(found))
}

/// An address with its scope.
fn at((address, scope): (Ipv6Addr, u32), port: u16) -> std::net::SocketAddrV6 {
    std::net::SocketAddrV6::new(address, port, 0, scope)
}
