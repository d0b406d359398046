// SPDX-License-Identifier: MIT OR Apache-2.0
//! Networks of containers.

use std::net::{IpAddr, Ipv6Addr};
use std::process::Command;

use anyhow::{ensure, Context, Result};
use dvs_runtime::{Frame, Network, Overlay, Session};

use crate::bench::{equal, request, shown, spec, Bench, PATIENCE};

/// The node has it for what ends and starts containers; here it makes a bridge as a control plane would.
const BUSYBOX: &str = "/usr/libexec/dvs/busybox";

/// The bridge of the cases.
const BRIDGE: &str = "bridge-of-cases";

/// How much is fetched, in bytes.
const AMOUNT: u64 = 1 << 20;

fn network(name: &str, address: &str) -> Result<Network> {
    Ok(Network {
        name: name.to_owned(),
        addresses: vec![address.parse().map_err(anyhow::Error::msg)?],
        gateways: Vec::new(),
        mtu: None,
        rate: None,
        overlay: None,
    })
}

fn ip(words: &[&str]) -> Result<()> {
    let output = Command::new(BUSYBOX).arg("ip").args(words).output().context("running ip")?;
    ensure!(
        output.status.success(),
        "ip {}: {}",
        words.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// A bridge that goes when the case is over.
struct Bridge;

impl Bridge {
    fn new() -> Result<Self> {
        ip(&["link", "add", "name", BRIDGE, "type", "bridge"])?;
        let bridge = Self;
        ip(&["link", "set", BRIDGE, "up"])?;
        Ok(bridge)
    }

    fn take(&self, link: &str) -> Result<()> {
        ip(&["link", "set", link, "master", BRIDGE])
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        let _ = ip(&["link", "del", BRIDGE]);
    }
}

/// Starts a server of some bytes in a container, and returns when it listens.
fn served(bench: &Bench, name: &str) -> Result<Session> {
    let amount = AMOUNT.to_string();
    let words = ["/tmp/probe", "serve", "[::]:5000", &amount];
    let mut session = bench.runtime.exec(name, request(&words))?;
    session.set_patience(PATIENCE)?;
    equal(
        "the first output of a server",
        session.next_frame()?,
        Frame::Output(b"listening\n".to_vec()),
    )?;
    Ok(session)
}

/// Fetches them, and says how long that took, in milliseconds.
fn fetched(bench: &Bench, name: &str, from: &str) -> Result<u64> {
    let finished = bench.run(name, &["/tmp/probe", "fetch", from])?;
    let text = String::from_utf8_lossy(&finished.stdout);
    let numbers = text
        .trim()
        .split_once(' ')
        .and_then(|(bytes, time)| Some((bytes.parse::<u64>().ok()?, time.parse::<u64>().ok()?)));
    match numbers {
        Some((bytes, time_ms)) if finished.status == 0 && bytes == AMOUNT => Ok(time_ms),
        _ => anyhow::bail!("fetching from {from} in {name}: {}", shown(&finished)),
    }
}

pub(super) fn is_its_own(bench: &Bench) -> Result<()> {
    const RATE: u64 = 2_000_000;
    let (mut one, mut two, mut slow) = (spec("one"), spec("two"), spec("slow"));
    one.network = Some(network("one", "10.99.0.1/24")?);
    two.network = Some(network("two", "10.99.0.2/24")?);
    slow.network = Some(Network { rate: Some(RATE), ..network("slow", "10.99.0.3/24")? });
    let bridge = Bridge::new()?;
    for spec in [&one, &two, &slow] {
        bench.started(spec)?;
        bench.bring_probe(&spec.name)?;
        bridge.take(&format!("v-{}", spec.name))?;
    }
    let _server = served(bench, "one")?;
    fetched(bench, "two", "10.99.0.1:5000")?;
    // A lower bound, which no slow machine breaks: what is beyond the bucket of 128 KiB comes at the rate.
    let least_ms = (AMOUNT - (128 << 10)) * 8 * 1000 / RATE * 8 / 10;
    let time_ms = fetched(bench, "slow", "10.99.0.1:5000")?;
    ensure!(time_ms >= least_ms, "fetching by a slow link: {time_ms} ms, and at least {least_ms}");
    let _server = served(bench, "slow")?;
    let time_ms = fetched(bench, "two", "10.99.0.3:5000")?;
    ensure!(
        time_ms >= least_ms,
        "being sent by a slow link: {time_ms} ms, and at least {least_ms}"
    );
    // Its rate can be changed while it is there.
    slow.network = Some(Network { rate: None, ..network("slow", "10.99.0.3/24")? });
    bench.runtime.update(&slow)?;
    let time_ms = fetched(bench, "two", "10.99.0.3:5000")?;
    ensure!(time_ms < least_ms, "being sent by a link that is slow no more: {time_ms} ms");
    two.network = Some(Network { rate: Some(RATE), ..network("two", "10.99.0.2/24")? });
    bench.runtime.update(&two)?;
    let time_ms = fetched(bench, "two", "10.99.0.1:5000")?;
    ensure!(time_ms >= least_ms, "fetching by a link that was made slow: {time_ms} ms");
    // No way out of its limits: a container may not change its links.
    let finished = bench.run("slow", &["ip", "link", "set", "eth0", "mtu", "1000"])?;
    ensure!(finished.status != 0, "changing a link in a container: {}", shown(&finished));
    Ok(())
}

pub(super) fn does_not_reach_the_node(bench: &Bench) -> Result<()> {
    // As if it were one of the network in which the node manages itself, and the node on its other end.
    let mut web = spec("web");
    let node: IpAddr = "10.0.2.15".parse().context("reading an address")?;
    web.network = Some(Network { gateways: vec![node], ..network("web", "10.0.2.99/24")? });
    bench.started(&web)?;
    bench.bring_probe("web")?;
    let listener = std::net::TcpListener::bind("[::]:5001").context("listening on the node")?;
    // Where the node is reached by itself, so that the refusal below is one.
    let direct = Command::new("/proc/self/exe").args(["fetch", "10.0.2.15:5001", "--once"]).spawn();
    let mut direct = direct.context("reaching the node")?;
    drop(listener.accept().context("reaching the node")?);
    direct.wait().context("reaching the node")?;
    for target in ["10.0.2.15:5001", "10.0.2.15:7700"] {
        let finished = bench.run("web", &["/tmp/probe", "fetch", target, "--once"])?;
        ensure!(finished.status != 0, "reaching the node from a container: {}", shown(&finished));
    }
    let addresses = std::fs::read_to_string("/proc/net/if_inet6").context("listing addresses")?;
    ensure!(
        !addresses.contains("v-web"),
        "the node has an address in the container's network: {addresses}"
    );
    Ok(())
}

/// The node's own address on an interface, of those that need no configuration.
fn link_local(interface: &str) -> Result<Ipv6Addr> {
    let text = std::fs::read_to_string("/proc/net/if_inet6").context("listing addresses")?;
    let address = text.lines().find_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        let bits = u128::from_str_radix(words.first()?, 16).ok()?;
        (words.last() == Some(&interface) && words.get(3) == Some(&"20"))
            .then(|| Ipv6Addr::from(bits))
    });
    address.with_context(|| format!("looking for an address of {interface}: it has none"))
}

/// Is one of two containers on two nodes. Says the node's address, and is told the other's.
pub(crate) fn span(bench: &Bench, serves: bool) -> Result<()> {
    let interface = "eth0";
    let local = link_local(interface)?;
    println!("{local}");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).context("hearing of the other node")?;
    let peer: Ipv6Addr = line.trim().parse().context("understanding the other node's address")?;
    let mut web = spec("span");
    let address = if serves { "10.98.0.1/24" } else { "10.98.0.2/24" };
    web.network = Some(Network {
        overlay: Some(Overlay {
            id: 77,
            interface: interface.to_owned(),
            local: local.into(),
            peers: vec![peer.into()],
        }),
        ..network("span", address)?
    });
    bench.started(&web)?;
    bench.bring_probe("span")?;
    let result = if serves {
        let server = served(bench, "span")?;
        println!("serves");
        // Until the other has had enough.
        std::io::stdin().read_line(&mut line).context("hearing of the other node")?;
        drop(server);
        Ok(())
    } else {
        fetched(bench, "span", "10.98.0.1:5000").map(|time_ms| println!("fetched {time_ms} ms"))
    };
    bench.sweep()?;
    result
}
