// SPDX-License-Identifier: MIT OR Apache-2.0
//! A link that changes its transport while messages flow.

use std::time::Duration;

use dvk_abi::ioctl::{TRANSPORT_ETHERNET, TRANSPORT_TCP, TRANSPORT_UDP};
use dvs_qemu::faults::{Faults, Probability};
use dvs_qemu::links::LinkSelector;

use super::bed::Bed;
use super::control::Control;
use super::guest::Guest;
use super::mismatch::{expect, Mismatch};

/// The nodes of the link.
const ENDS: [usize; 2] = [0, 1];
/// Nobody else's.
const CONTAINER: u32 = 52;
/// For all of it together.
const LIMIT: Duration = Duration::from_secs(600);
/// Round trips during each change.
const ROUND_TRIPS: u64 = 3_000;
const PORT: u16 = 7100;
const STEP: &str = "changing the transport of a link";

/// From raw Ethernet to TCP, where a proxy is killed and started again, to UDP on a network that loses frames, and back.
pub(super) fn while_messages_flow(bed: &mut Bed) -> Result<(), Mismatch> {
    let [here, there] = ENDS;
    let addresses = [address(bed, here)?, address(bed, there)?];
    let mut control = Control::create(bed, CONTAINER, LIMIT)?;
    let tcp = |end| over_tcp(&addresses, end);
    let udp = |end| over_udp(&addresses, end);

    let ping = bed.start_ping(here, there, ROUND_TRIPS, 1)?;
    let mut listener = start(bed, 1, &tcp(1))?;
    let mut connector = start(bed, 0, &tcp(0))?;
    carries(&mut connector)?;
    carries(&mut listener)?;
    carried_by(&mut control, TRANSPORT_TCP)?;
    ping.succeed()?;

    // What it had taken and not delivered, the links send again.
    let ping = bed.start_ping(there, here, ROUND_TRIPS, 1)?;
    drop(listener);
    let mut listener = start(bed, 1, &tcp(1))?;
    carries(&mut listener)?;
    ping.succeed()?;

    let ping = bed.start_ping(here, there, ROUND_TRIPS, 1)?;
    let mut pair = [start(bed, 0, &udp(0))?, start(bed, 1, &udp(1))?];
    pair.iter_mut().try_for_each(carries)?;
    carried_by(&mut control, TRANSPORT_UDP)?;
    ping.succeed()?;
    for proxy in [connector, listener] {
        // Another transport has taken over.
        proxy.succeed()?;
    }

    let loss = Probability::percent(2).unwrap_or_default();
    bed.cluster().switch().set_faults(LinkSelector::All, Faults { loss, ..Faults::default() });
    let pinged = bed.ping(here, there, ROUND_TRIPS / 10);
    bed.cluster().switch().set_faults(LinkSelector::All, Faults::default());
    pinged?;

    let ping = bed.start_ping(there, here, ROUND_TRIPS, 1)?;
    attach_ethernet(bed, &mut control)?;
    carried_by(&mut control, TRANSPORT_ETHERNET)?;
    ping.succeed()?;
    for proxy in pair {
        proxy.succeed()?;
    }
    control.destroy(&[0, 1, 2, 3])
}

/// How a proxy is told to carry the link over TCP.
fn over_tcp(addresses: &[String; 2], end: usize) -> Vec<String> {
    let role = if end == 0 { "--connect" } else { "--listen" };
    // Both name the address of the one that listens.
    vec!["tcp".to_owned(), role.to_owned(), format!("{}:{PORT}", addresses[1])]
}

/// The same over UDP.
fn over_udp(addresses: &[String; 2], end: usize) -> Vec<String> {
    let [local, peer] = [end, 1 - end].map(|end| format!("{}:{PORT}", addresses[end]));
    vec!["udp".to_owned(), "--local".to_owned(), local, "--peer".to_owned(), peer]
}

/// Gives the link back to raw Ethernet.
pub(super) fn attach_ethernet(bed: &Bed, control: &mut Control) -> Result<(), Mismatch> {
    for end in [0, 1] {
        let mac = &bed.cluster().description().nodes[ENDS[1 - end]].mac;
        let number = u64::from_str_radix(&mac.replace(':', ""), 16)
            .map_err(|error| Mismatch::new(STEP, "a MAC address", format!("{mac}: {error}")))?;
        control.order(ENDS[end], &format!("ethernet {} {number}", ENDS[1 - end]))?;
    }
    Ok(())
}

/// The proxies at both ends of the link.
pub(super) struct Proxies([Guest; 2]);

impl Proxies {
    /// Has the link carried by proxies, if the transport takes any.
    pub(super) fn start(bed: &Bed, transport: u32) -> Result<Option<Self>, Mismatch> {
        let [here, there] = ENDS;
        let over = match transport {
            TRANSPORT_TCP => over_tcp,
            TRANSPORT_UDP => over_udp,
            _ => return Ok(None),
        };
        let addresses = [address(bed, here)?, address(bed, there)?];
        // The one that listens comes first.
        let listener = start(bed, 1, &over(&addresses, 1))?;
        let mut pair = [start(bed, 0, &over(&addresses, 0))?, listener];
        pair.iter_mut().try_for_each(carries)?;
        Ok(Some(Self(pair)))
    }

    /// Waits for their end, since another transport has taken over.
    pub(super) fn end(self) -> Result<(), Mismatch> {
        self.0.into_iter().try_for_each(|proxy| proxy.succeed().map(drop))
    }
}

/// Starts a proxy at one end of the link.
fn start(bed: &Bed, end: usize, over: &[String]) -> Result<Guest, Mismatch> {
    let peer = ENDS[1 - end].to_string();
    let mut words = vec!["dvs-proxy", "--node", &peer];
    words.extend(over.iter().map(String::as_str));
    bed.start_on(ENDS[end], &words, LIMIT)
}

/// Waits until a proxy says that the link is its.
fn carries(proxy: &mut Guest) -> Result<(), Mismatch> {
    let line = proxy.line()?;
    expect(line.starts_with("carrying"), STEP, "a proxy that carries the link", line)
}

/// Both ends know what carries the link.
pub(super) fn carried_by(control: &mut Control, transport: u32) -> Result<(), Mismatch> {
    for (end, node) in ENDS.iter().enumerate() {
        let told = control.order(*node, &format!("transport {}", ENDS[1 - end]))?;
        expect(told == transport.to_string(), STEP, &format!("transport {transport}"), told)?;
    }
    Ok(())
}

/// The address of a node on the segment, as a socket address has it before the port.
fn address(bed: &Bed, node: usize) -> Result<String, Mismatch> {
    let nodes = bed.seen_by(node).map_err(|why| Mismatch::new(STEP, "a list of nodes", why))?;
    let found = nodes.get(node).and_then(|node| {
        node.addresses.iter().map(ToString::to_string).find(|text| text.starts_with("fe80:"))
    });
    let found =
        found.ok_or_else(|| Mismatch::new(STEP, "a link-local address", format!("{nodes:?}")))?;
    Ok(format!("[{found}]"))
}
