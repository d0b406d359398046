// SPDX-License-Identifier: MIT OR Apache-2.0
//! What carries a link is chosen by its administrator, with `dvsctl`, while messages flow.

use std::time::Duration;

use dvs_api::{Link, LinkState, Transport};
use dvs_qemu::faults::{Faults, Probability};
use dvs_qemu::links::LinkSelector;
use serde::Deserialize;

use super::bed::{Bed, NOTICE, PATIENCE};
use super::mismatch::{expect, Mismatch};
use super::outages::{await_incarnation, incarnation};
use super::program::Ended;

/// The nodes of the link.
const ENDS: [usize; 2] = [0, 1];
/// In this order, from Ethernet and back to it. A transport is added by a line.
const TRANSPORTS: &[(Transport, Trial)] = &[
    (Transport::Tcp, Trial::KilledProxy),
    (Transport::Tipc, Trial::Loss),
    (Transport::Udp, Trial::Loss),
    (Transport::Quic, Trial::KilledProxy),
];
/// Round trips during each change.
const ROUND_TRIPS: u64 = 1_500;
/// For programs that only do as they are told.
const LIMIT: Duration = Duration::from_secs(60);
const STEP: &str = "changing the transport of a link";

/// What a transport has to bear once it carries the link.
#[derive(Clone, Copy)]
enum Trial {
    /// A proxy is killed, and `dvsd` starts another one.
    KilledProxy,
    /// The network loses frames.
    Loss,
}

/// From raw Ethernet to each other transport and back; nothing is lost, whatever happens on the way.
pub(super) fn while_messages_flow(bed: &mut Bed) -> Result<(), Mismatch> {
    let [here, there] = ENDS;
    carried_by(bed, Transport::Ethernet)?;
    for (transport, trial) in TRANSPORTS {
        let ping = bed.start_ping(here, there, ROUND_TRIPS, 1)?;
        choose(bed, *transport)?;
        carried_by(bed, *transport)?;
        ping.succeed()?;
        match trial {
            Trial::KilledProxy => lose_a_proxy(bed)?,
            Trial::Loss => lose_frames(bed)?,
        }
        carried_by(bed, *transport)?;
    }
    let ping = bed.start_ping(there, here, ROUND_TRIPS, 1)?;
    choose(bed, Transport::Ethernet)?;
    carried_by(bed, Transport::Ethernet)?;
    ping.succeed()
}

/// A node loses power, and has a link that was chosen to be carried over TCP: so it is when the node comes back, without
/// anybody doing anything.
pub(super) fn power_cut(bed: &mut Bed) -> Result<(), Mismatch> {
    let [here, there] = ENDS;
    choose(bed, Transport::Tcp)?;
    let before = incarnation(bed, here, there)?;
    bed.act("cutting node1's power", |cluster| cluster.node(there).kill())?;
    bed.await_state(&[here], there, dvs_api::NodeState::Down, NOTICE)?;
    let refused = link_set(bed, Transport::Udp)?;
    let clear = refused.status == Some(1) && refused.stderr.contains("node 1 is down");
    expect(clear, STEP, "a refusal that names the node that is down", refused)?;
    bed.act("giving node1 power", |cluster| cluster.node(there).start())?;
    await_incarnation(bed, there, before)?;
    bed.await_all_ready("waiting for node1 to come back")?;
    bed.ping(there, here, 200)?;
    await_carried_by(bed, Transport::Tcp)?;
    choose(bed, Transport::Ethernet)?;
    bed.ping_all(&ENDS, 50)
}

/// Kills the proxy at each end in turn while messages flow. What it had taken and not delivered, the links send again.
fn lose_a_proxy(bed: &Bed) -> Result<(), Mismatch> {
    for (victim, other) in [(ENDS[1], ENDS[0]), (ENDS[0], ENDS[1])] {
        let ping = bed.start_ping(other, victim, ROUND_TRIPS, 1)?;
        let killed = bed.run_on(victim, &["dvk-scenarios", "kill", "dvs-proxy"], LIMIT)?;
        let step = format!("killing the proxy on node{victim}");
        expect(killed.stdout == "1\n", &step, "the one process there is", killed)?;
        ping.succeed()?;
    }
    Ok(())
}

/// Exchanges messages while the network loses some frames.
fn lose_frames(bed: &Bed) -> Result<(), Mismatch> {
    let [here, there] = ENDS;
    let loss = Probability::percent(2).unwrap_or_default();
    bed.cluster().switch().set_faults(LinkSelector::All, Faults { loss, ..Faults::default() });
    let pinged = bed.ping(here, there, ROUND_TRIPS / 5);
    bed.cluster().switch().set_faults(LinkSelector::All, Faults::default());
    pinged
}

/// Chooses what carries the link, and waits until it does.
fn choose(bed: &Bed, transport: Transport) -> Result<(), Mismatch> {
    let ended = link_set(bed, transport)?;
    let told = format!("the link between nodes 0 and 1 is carried over {transport}\n");
    expect(ended.succeeded() && ended.stdout == told, STEP, &told, ended)
}

fn link_set(bed: &Bed, transport: Transport) -> Result<Ended, Mismatch> {
    let [here, there] = ENDS.map(|node| node.to_string());
    let arguments =
        ["link", "set", &here, &there, "--transport", transport.as_str(), "--timeout", "60"];
    dvsctl(bed, &arguments)
}

/// Runs `dvsctl` with the APIs of both ends.
fn dvsctl(bed: &Bed, arguments: &[&str]) -> Result<Ended, Mismatch> {
    let endpoints = ENDS.map(|node| bed.cluster().api(node).to_string()).join(",");
    let arguments = [arguments, &["--endpoint", &endpoints]].concat();
    let step = format!("dvsctl {}", arguments.join(" "));
    let ended = bed.start_dvsctl(ENDS[0], &arguments, PATIENCE)?.end();
    ended.map_err(|error| Mismatch::new(step, "it can be run", error))
}

#[derive(Deserialize)]
struct Pair {
    nodes: [usize; 2],
    ends: Vec<End>,
}

#[derive(Deserialize)]
struct End {
    link: Link,
}

/// The link as both of its ends see it.
fn seen(bed: &Bed) -> Result<(Vec<Link>, Ended), Mismatch> {
    let ended = dvsctl(bed, &["link", "list", "-o", "json"])?;
    let pairs: Vec<Pair> = serde_json::from_str(&ended.stdout)
        .map_err(|error| Mismatch::new(STEP, "a list of links", format!("{error}: {ended}")))?;
    let pair = pairs.into_iter().find(|pair| pair.nodes == ENDS);
    let links = pair.map(|pair| pair.ends.into_iter().map(|end| end.link).collect());
    Ok((links.unwrap_or_default(), ended))
}

fn is_carried_by(links: &[Link], transport: Transport) -> bool {
    let carried = |link: &Link| {
        let over = (link.chosen, link.transport) == (transport, Some(transport));
        over && link.state == LinkState::Up && link.trouble.is_none()
    };
    links.len() == 2 && links.iter().all(carried)
}

/// Both ends say that the link is up over `transport`, and that it was chosen to be.
fn carried_by(bed: &Bed, transport: Transport) -> Result<(), Mismatch> {
    let (links, ended) = seen(bed)?;
    let expected = format!("both ends of the link up over {transport}");
    expect(is_carried_by(&links, transport), STEP, &expected, ended)
}

/// The same once a node that comes back has heard of the choice.
fn await_carried_by(bed: &Bed, transport: Transport) -> Result<(), Mismatch> {
    let deadline = std::time::Instant::now() + NOTICE;
    while !is_carried_by(&seen(bed)?.0, transport) && std::time::Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(200));
    }
    carried_by(bed, transport)
}
