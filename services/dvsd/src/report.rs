// SPDX-License-Identifier: MIT OR Apache-2.0
//! Puts views of the membership and the links into the API's terms.

use std::collections::BTreeMap;
use std::net::{Ipv6Addr, SocketAddr};

use dvk_abi::ioctl::{LINK_CONNECTING, LINK_UP};
use dvs_api::{Link, LinkState, Node, NodeState};

use crate::carrier::Carrier;
use crate::links::Links;
use crate::membership::{Liveness, MemberView, Standing, View};
use crate::segment::{Segment, Totals};
use crate::settings::Settings;

/// The name of a cluster interface; `?` for an index that is none's.
pub fn interface_name(settings: &Settings, index: u32) -> &str {
    let found = settings.interfaces.iter().find(|interface| interface.index == index);
    found.map_or("?", |interface| &interface.name)
}

/// This node's own addresses.
pub fn own_addresses(settings: &Settings, link_locals: &BTreeMap<u32, Ipv6Addr>) -> Vec<String> {
    let scoped = |(index, address): (&u32, &Ipv6Addr)| {
        format!("{address}%{}", interface_name(settings, *index))
    };
    let management = settings.management.iter().map(ToString::to_string);
    link_locals.iter().map(scoped).chain(management).collect()
}

/// All members as the API shows them.
pub fn nodes(
    now_ms: u64,
    view: &View,
    settings: &Settings,
    own_addresses: &[String],
    links: &Links,
    segment: Option<&Segment>,
) -> Vec<Node> {
    let Standing::Member { cluster, .. } = view.standing else { return Vec::new() };
    let node = |member: &MemberView| {
        let said = member.said.as_ref();
        let path = said.and_then(|said| said.path);
        let addresses = match member.local {
            true => own_addresses.to_vec(),
            false => {
                let scoped = path.map(|path| {
                    format!("{}%{}", path.address, interface_name(settings, path.interface))
                });
                let management = said.and_then(|said| said.management);
                scoped.into_iter().chain(management.map(|address| address.to_string())).collect()
            }
        };
        let silent_ms = said.map(|said| now_ms.saturating_sub(said.at_ms));
        Node {
            id: u32::from(member.seat.id),
            name: member.name.clone(),
            state: match member.liveness {
                Liveness::Down => NodeState::Down,
                Liveness::Alive if member.ready => NodeState::Ready,
                Liveness::Alive | Liveness::Expected => NodeState::Joining,
            },
            version: match member.local {
                true => Some(settings.release.clone()),
                false => said.map(|said| said.release.clone()),
            },
            addresses,
            incarnation: member.seat.incarnation,
            mac: member.mac.to_string(),
            cluster: format!("{cluster:016x}"),
            local: member.local,
            uptime_s: match member.local {
                // The daemon's clock starts with it.
                true => Some(now_ms / 1000),
                false => said.zip(silent_ms).map(|(said, ms)| u64::from(said.uptime_s) + ms / 1000),
            },
            last_seen_ms: if member.local { Some(0) } else { silent_ms },
            link: link(member, settings, links, segment),
        }
    };
    view.members.iter().map(node).collect()
}

/// This node's link to a member, if the kernel has one.
fn link(
    member: &MemberView,
    settings: &Settings,
    links: &Links,
    segment: Option<&Segment>,
) -> Option<Link> {
    let id = member.seat.id;
    let report = links.reports().get(&id)?;
    let transport = report.transport();
    // While a change is under way, where the link leads to is not known here.
    let carrier = report.carrier.filter(|carrier| Some(carrier.transport()) == transport);
    let (interface, address) = match carrier {
        Some(Carrier::Ethernet(route)) => {
            let device = segment.and_then(|segment| segment.device(route.interface));
            let interface = match device {
                Some((name, _)) => name.to_owned(),
                None => interface_name(settings, route.interface).to_owned(),
            };
            (Some(interface), Some(route.mac.to_string()))
        }
        Some(Carrier::Proxy(route)) => {
            let interface = match route.peer {
                SocketAddr::V6(peer) if peer.scope_id() != 0 => {
                    Some(interface_name(settings, peer.scope_id()).to_owned())
                }
                _ => None,
            };
            (interface, Some(SocketAddr::new(route.peer.ip(), route.peer.port()).to_string()))
        }
        Some(Carrier::Tipc) | None => (None, None),
    };
    // What is counted of the peer's interface, whatever carries the link at the moment.
    let path = member.said.as_ref().and_then(|said| said.path);
    let counted = segment.zip(path).map(|(segment, path)| {
        let Totals { accepted, forged, replayed, foreign } =
            segment.of_sender(path.interface, path.mac);
        dvs_api::LinkSegment { accepted, forged, replayed, foreign }
    });
    let info = &report.info;
    let [send_bytes_per_s, receive_bytes_per_s] = report.rates;
    Some(Link {
        node: u32::from(id),
        state: match info.state {
            LINK_UP => LinkState::Up,
            LINK_CONNECTING => LinkState::Connecting,
            _ => LinkState::Down,
        },
        transport,
        chosen: member.choice.transport,
        revision: member.choice.revision,
        trouble: links.trouble(id).filter(|_| transport != Some(member.choice.transport)),
        interface,
        address,
        rtt_us: info.rtt_us,
        send_bytes_per_s,
        receive_bytes_per_s,
        frames_sent: info.frames_sent,
        frames_received: info.frames_received,
        bytes_sent: info.bytes_sent,
        bytes_received: info.bytes_received,
        retransmissions: info.retransmissions,
        duplicates: info.duplicates,
        rejected: info.rejected,
        segment: counted,
    })
}
