// SPDX-License-Identifier: MIT OR Apache-2.0
//! Puts views of the membership and the links into the API's terms.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use dvk_abi::ioctl::{LinkInfo, LINK_CONNECTING, LINK_UP};
use dvs_api::{Link, LinkState, Node, NodeState};

use crate::membership::{Liveness, MemberView, Standing, View};
use crate::reconcile::Route;
use crate::segment::{Segment, Totals};
use crate::settings::Settings;

/// The kernel's link to a node.
#[derive(Clone, Copy, Debug)]
pub struct LinkReport {
    /// State and counters.
    pub info: LinkInfo,
    /// Where it leads.
    pub route: Route,
}

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
    links: &BTreeMap<u16, LinkReport>,
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
                true => Some(env!("CARGO_PKG_VERSION").to_owned()),
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
            link: links.get(&member.seat.id).map(|link| {
                let LinkReport { info, route } = link;
                let device = segment.and_then(|segment| segment.device(route.interface));
                Link {
                    node: u32::from(member.seat.id),
                    state: match info.state {
                        LINK_UP => LinkState::Up,
                        LINK_CONNECTING => LinkState::Connecting,
                        _ => LinkState::Down,
                    },
                    interface: Some(match device {
                        Some((name, _)) => name.to_owned(),
                        None => interface_name(settings, route.interface).to_owned(),
                    }),
                    address: Some(route.mac.to_string()),
                    rtt_us: info.rtt_us,
                    frames_sent: info.frames_sent,
                    frames_received: info.frames_received,
                    bytes_sent: info.bytes_sent,
                    bytes_received: info.bytes_received,
                    retransmissions: info.retransmissions,
                    duplicates: info.duplicates,
                    rejected: info.rejected,
                    segment: segment.zip(device).map(|(segment, (_, lower))| {
                        let totals = segment.of_sender(lower, route.mac);
                        let Totals { accepted, forged, replayed, foreign } = totals;
                        dvs_api::LinkSegment { accepted, forged, replayed, foreign }
                    }),
                }
            }),
        }
    };
    view.members.iter().map(node).collect()
}
