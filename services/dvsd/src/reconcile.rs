// SPDX-License-Identifier: MIT OR Apache-2.0
//! Keeps the kernel's tables in step with the membership.
//!
//! [`Desired`] is what the tables should be, derived from a [`View`]; [`Tables`] is what has been
//! programmed. [`Tables::plan`] lists the calls that lead from one to the other, in the order in
//! which the kernel takes them; it is a pure function, so that a call which failed is simply
//! planned again, and a plan that was carried out leads to an empty one.

use std::collections::BTreeMap;
use std::fmt;

use dvk_abi::limits::{LEASE_SLOTS, SERVER_SLOTS, SLOTS};
use dvs_api::Transport;

use crate::beacon::Seat;
use crate::carrier::{Carrier, OwnEnd, ProxyRoute, Route};
use crate::membership::{Liveness, MemberView, Standing, View};

/// The container in which the services of the nodes talk to each other.
pub const SYSTEM_CONTAINER: u32 = 0;
/// Its name.
pub const SYSTEM_NAME: &str = "system";

/// A control call of the DVK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Leave whatever DVS the kernel is in.
    End,
    /// Become a node.
    Init {
        /// Id of the cluster.
        cluster: u64,
        /// This node.
        seat: Seat,
    },
    /// Make the system container.
    CreateContainer,
    /// Let a node bind its slots of the system container.
    AddNode {
        /// The node.
        seat: Seat,
        /// Its first slot.
        first_slot: u32,
        /// Generation of the first bind of each.
        first_generation: u32,
    },
    /// Take a node's slots back and forget its endpoints.
    RemoveNode {
        /// The node.
        node: u16,
    },
    /// A peer runs.
    NodeUp {
        /// The peer.
        seat: Seat,
    },
    /// A peer is gone.
    NodeDown {
        /// The peer.
        node: u16,
    },
    /// Have the link to a peer carried, in place of what carries it now.
    LinkAttach {
        /// The peer.
        node: u16,
        /// By what. A proxy attaches itself to the link once it reaches that of the peer.
        carrier: Carrier,
    },
    /// Stop reaching a peer.
    LinkDetach {
        /// The peer.
        node: u16,
    },
    /// A peer's echo server.
    SetRemote {
        /// The peer.
        node: u16,
        /// Its endpoint in the system container.
        endpoint: u64,
    },
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::End => write!(f, "leave the previous DVS"),
            Self::Init { cluster, seat } => write!(
                f,
                "become node {} of cluster {cluster:016x}, incarnation {}",
                seat.id, seat.incarnation
            ),
            Self::CreateContainer => write!(f, "create the container \"{SYSTEM_NAME}\""),
            Self::AddNode { seat, .. } => write!(f, "lease slots to node {}", seat.id),
            Self::RemoveNode { node } => write!(f, "take back the slots of node {node}"),
            Self::NodeUp { seat } => write!(f, "set node {} up", seat.id),
            Self::NodeDown { node } => write!(f, "set node {node} down"),
            Self::LinkAttach { node, carrier } => {
                write!(f, "attach the link to node {node} to {carrier}")
            }
            Self::LinkDetach { node } => write!(f, "detach the link to node {node}"),
            Self::SetRemote { node, .. } => write!(f, "make the echo server of node {node} known"),
        }
    }
}

/// What the tables should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desired {
    cluster: u64,
    own: Seat,
    /// Peers by node id.
    peers: BTreeMap<u16, DesiredPeer>,
    /// For people: why nothing can carry the link to a peer as it was chosen.
    obstacles: BTreeMap<u16, String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct DesiredPeer {
    seat: Seat,
    /// Whether it is heard and can be reached.
    up: bool,
    /// What is to carry the link to it; `None` if nothing can for now: then it stays as it is.
    carrier: Option<Carrier>,
    /// Its echo server; 0 while it has none.
    echo: u64,
}

impl Desired {
    /// What follows from the membership; `None` for a node that is in no cluster. `protect` leads the way
    /// to a member over what encrypts, and gives none while that is not ready.
    pub fn of(
        view: &View,
        end: &OwnEnd,
        protect: impl Fn(&MemberView, Route) -> Option<Route>,
    ) -> Option<Self> {
        let Standing::Member { cluster, seat: own } = view.standing else { return None };
        let (mut peers, mut obstacles) = (BTreeMap::new(), BTreeMap::new());
        for member in view.members.iter().filter(|member| !member.local) {
            let id = member.seat.id;
            let said = member.said.as_ref().filter(|_| member.liveness == Liveness::Alive);
            let carrier = said.map(|said| {
                let carrier = end.carrier(own.id, member, said)?;
                let path = said.path.map(|path| Route { interface: path.interface, mac: path.mac });
                let route = path.and_then(|route| protect(member, route));
                match carrier {
                    Carrier::Ethernet(_) => route.map(Carrier::Ethernet).ok_or_else(unprotected),
                    Carrier::Tipc => route.map(|_| carrier).ok_or_else(unprotected),
                    Carrier::Proxy(_) => Ok(carrier),
                }
            });
            if let Some(Err(obstacle)) = &carrier {
                obstacles.insert(id, obstacle.clone());
            }
            let peer = DesiredPeer {
                seat: member.seat,
                up: said.is_some(),
                carrier: carrier.and_then(Result::ok),
                echo: said.map_or(0, |said| said.echo),
            };
            peers.insert(id, peer);
        }
        Some(Self { cluster, own, peers, obstacles })
    }

    /// What is to carry the link to a peer, if that is up and something can.
    pub fn carrier(&self, node: u16) -> Option<Carrier> {
        self.peers.get(&node).and_then(|peer| peer.carrier)
    }

    /// For people: why what was chosen to carry a link cannot, by the node at its other end.
    pub fn obstacles(&self) -> &BTreeMap<u16, String> {
        &self.obstacles
    }
}

fn unprotected() -> String {
    "the two nodes have not exchanged their keys yet".into()
}

/// What has been programmed since `dvsd` started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// Nothing that an earlier run of `dvsd` left is there any more.
    clean: bool,
    init: Option<(u64, Seat)>,
    container: bool,
    /// Whose slots are leased, and for which incarnation.
    leases: BTreeMap<u16, u32>,
    up: BTreeMap<u16, u32>,
    links: BTreeMap<u16, Carrier>,
    remotes: BTreeMap<u16, u64>,
}

/// What to call, and what cannot be done at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In this order.
    pub calls: Vec<Call>,
    /// For people: what the limits of the DVK do not allow.
    pub impossible: Vec<String>,
}

/// The slots of a node in the system container: the first one, and the generation they start from.
///
/// # Errors
/// Says which limit does not allow it.
fn lease(seat: Seat) -> Result<(u32, u32), String> {
    let Seat { id, incarnation } = seat;
    let first_slot = SERVER_SLOTS + u32::from(id) * LEASE_SLOTS;
    if first_slot + LEASE_SLOTS > SLOTS {
        let most = (SLOTS - SERVER_SLOTS) / LEASE_SLOTS;
        return Err(format!(
            "node {id} has no slots in the container \"{SYSTEM_NAME}\": it has room for {most} nodes"
        ));
    }
    // Every incarnation has 65,536 binds per slot before it would meet the next one's.
    incarnation.checked_mul(1 << 16).map(|generation| (first_slot, generation)).ok_or(format!(
        "node {id} has restarted {incarnation} times and no generations are left for its endpoints; \
         restart all nodes to form a new cluster"
    ))
}

impl Tables {
    /// The calls that make the tables what is desired.
    pub fn plan(&self, desired: Option<&Desired>) -> Plan {
        let mut plan = Plan::default();
        let mut tables = self.clone();
        let mut call = |tables: &mut Self, call: Call| {
            tables.done(&call);
            plan.calls.push(call);
        };
        let wanted = desired.map(|desired| (desired.cluster, desired.own));
        // A node can't change its id or incarnation; and what an earlier run of dvsd programmed is
        // not known.
        if !tables.clean || (tables.init.is_some() && tables.init != wanted) {
            call(&mut tables, Call::End);
        }
        let Some(desired) = desired else { return plan };
        if tables.init.is_none() {
            call(&mut tables, Call::Init { cluster: desired.cluster, seat: desired.own });
        }
        if !tables.container {
            call(&mut tables, Call::CreateContainer);
        }
        let gone = |node: &u16| !desired.peers.contains_key(node) && *node != desired.own.id;
        for node in tables.up.keys().copied().filter(gone).collect::<Vec<_>>() {
            if tables.links.contains_key(&node) {
                call(&mut tables, Call::LinkDetach { node });
            }
            call(&mut tables, Call::NodeDown { node });
        }
        for node in tables.leases.keys().copied().filter(gone).collect::<Vec<_>>() {
            call(&mut tables, Call::RemoveNode { node });
        }
        let mut impossible = Vec::new();
        match lease(desired.own) {
            Ok((first_slot, first_generation)) => {
                if !tables.leases.contains_key(&desired.own.id) {
                    let seat = desired.own;
                    call(&mut tables, Call::AddNode { seat, first_slot, first_generation });
                }
            }
            Err(reason) => impossible.push(reason),
        }
        for peer in desired.peers.values() {
            let (seat, node) = (peer.seat, peer.seat.id);
            let up = tables.up.get(&node).copied();
            // What carries the link changes without a detach, so that no call finds none.
            let over = up.is_some() && (!peer.up || up != Some(seat.incarnation));
            if over && tables.links.contains_key(&node) {
                call(&mut tables, Call::LinkDetach { node });
            }
            if over {
                call(&mut tables, Call::NodeDown { node });
            }
            let leased = tables.leases.get(&node).copied();
            if leased.is_some_and(|incarnation| incarnation != seat.incarnation) {
                call(&mut tables, Call::RemoveNode { node });
            }
            if !peer.up {
                continue;
            }
            match lease(seat) {
                Ok((first_slot, first_generation)) => {
                    if !tables.leases.contains_key(&node) {
                        call(&mut tables, Call::AddNode { seat, first_slot, first_generation });
                    }
                }
                Err(reason) => impossible.push(reason),
            }
            if !tables.up.contains_key(&node) {
                call(&mut tables, Call::NodeUp { seat });
            }
            if let Some(carrier) = peer.carrier.filter(|it| tables.links.get(&node) != Some(it)) {
                call(&mut tables, Call::LinkAttach { node, carrier });
            }
            if peer.echo != 0 && tables.remotes.get(&node) != Some(&peer.echo) {
                call(&mut tables, Call::SetRemote { node, endpoint: peer.echo });
            }
        }
        plan.impossible = impossible;
        plan
    }

    /// Records what the kernel says carries a link. What the kernel was told to carry and something else carries is forgotten, so
    /// that it is attached again: a proxy attaches itself when it has reached the peer's, and may do that after another choice was
    /// carried out.
    pub fn seen(&mut self, node: u16, carried: Option<Transport>) {
        let strayed = |carrier: &Carrier| {
            let by_kernel = !matches!(carrier, Carrier::Proxy(_));
            by_kernel && carried.is_some_and(|carried| carried != carrier.transport())
        };
        if self.links.get(&node).is_some_and(strayed) {
            self.links.remove(&node);
        }
    }

    /// Records a call that the kernel took.
    pub fn done(&mut self, call: &Call) {
        match *call {
            Call::End => *self = Self { clean: true, ..Self::default() },
            Call::Init { cluster, seat } => self.init = Some((cluster, seat)),
            Call::CreateContainer => self.container = true,
            Call::AddNode { seat, .. } => {
                self.leases.insert(seat.id, seat.incarnation);
            }
            Call::RemoveNode { node } => {
                self.leases.remove(&node);
                self.remotes.remove(&node);
            }
            Call::NodeUp { seat } => {
                self.up.insert(seat.id, seat.incarnation);
            }
            Call::NodeDown { node } => {
                self.up.remove(&node);
            }
            Call::LinkAttach { node, carrier } => {
                self.links.insert(node, carrier);
            }
            Call::LinkDetach { node } => {
                self.links.remove(&node);
            }
            Call::SetRemote { node, endpoint } => {
                self.remotes.insert(node, endpoint);
            }
        }
    }

    /// Whether this node is initialised and its own slots are leased: endpoints can be bound.
    pub fn is_usable(&self) -> bool {
        self.init.is_some_and(|(_, own)| self.leases.contains_key(&own.id))
    }

    /// This node as it was programmed.
    pub fn own(&self) -> Option<Seat> {
        self.init.map(|(_, own)| own)
    }

    /// The peers that are up.
    pub fn up(&self) -> impl Iterator<Item = u16> + '_ {
        self.up.keys().copied()
    }

    /// What is to carry the link to a peer.
    pub fn carrier(&self, node: u16) -> Option<Carrier> {
        self.links.get(&node).copied()
    }

    /// The links that a proxy is to carry.
    pub fn proxied(&self) -> BTreeMap<u16, ProxyRoute> {
        let proxied = |(node, carrier): (&u16, &Carrier)| match carrier {
            Carrier::Proxy(route) => Some((*node, *route)),
            Carrier::Ethernet(_) | Carrier::Tipc => None,
        };
        self.links.iter().filter_map(proxied).collect()
    }

    /// The echo server of a peer, once the kernel knows it.
    pub fn echo_of(&self, node: u16) -> Option<u64> {
        self.remotes.get(&node).copied()
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use dvs_config::Mac;

    use super::*;
    use crate::carrier::{Role, Route};

    const OWN: Seat = Seat { id: 1, incarnation: 1 };

    fn route(n: u8) -> Carrier {
        Carrier::Ethernet(Route { interface: 2, mac: Mac([2, 0, 0, 0, 0, n]) })
    }

    fn proxy(over: Transport, port: u16) -> Carrier {
        let local = SocketAddr::new(std::net::Ipv4Addr::LOCALHOST.into(), port);
        Carrier::Proxy(ProxyRoute { over, role: Role::Exchange, local, peer: local })
    }

    fn desired(peers: &[(u16, u32, Option<Carrier>, u64)]) -> Desired {
        let peer = |&(id, incarnation, carrier, echo): &(u16, u32, Option<Carrier>, u64)| {
            let (seat, up) = (Seat { id, incarnation }, carrier.is_some());
            (id, DesiredPeer { seat, up, carrier, echo })
        };
        let peers = peers.iter().map(peer).collect();
        Desired { cluster: 7, own: OWN, peers, obstacles: BTreeMap::new() }
    }

    fn carry_out(tables: &mut Tables, desired: Option<&Desired>) -> Vec<Call> {
        let Plan { calls, impossible } = tables.plan(desired);
        assert_eq!(impossible, Vec::<String>::new());
        calls.iter().for_each(|call| tables.done(call));
        assert_eq!(
            tables.plan(desired),
            Plan::default(),
            "a plan carried out leaves nothing to do"
        );
        calls
    }

    fn add(id: u16, incarnation: u32) -> Call {
        Call::AddNode {
            seat: Seat { id, incarnation },
            first_slot: 64 + 32 * u32::from(id),
            first_generation: incarnation << 16,
        }
    }

    #[test]
    fn a_new_member_programs_itself_and_its_peers() {
        let mut tables = Tables::default();
        assert_eq!(carry_out(&mut tables, None), [Call::End]);
        let calls = carry_out(&mut tables, Some(&desired(&[(0, 3, Some(route(1)), 99)])));
        let seat = Seat { id: 0, incarnation: 3 };
        assert_eq!(
            calls,
            [
                Call::Init { cluster: 7, seat: OWN },
                Call::CreateContainer,
                add(1, 1),
                add(0, 3),
                Call::NodeUp { seat },
                Call::LinkAttach { node: 0, carrier: route(1) },
                Call::SetRemote { node: 0, endpoint: 99 },
            ]
        );
        assert!(tables.is_usable());
        assert_eq!(tables.echo_of(0), Some(99));
    }

    #[test]
    fn a_peer_that_goes_down_and_comes_back_keeps_its_slots() {
        let mut tables = Tables::default();
        carry_out(&mut tables, Some(&desired(&[(0, 3, Some(route(1)), 99)])));
        let calls = carry_out(&mut tables, Some(&desired(&[(0, 3, None, 0)])));
        assert_eq!(calls, [Call::LinkDetach { node: 0 }, Call::NodeDown { node: 0 }]);
        let calls = carry_out(&mut tables, Some(&desired(&[(0, 3, Some(route(1)), 99)])));
        let seat = Seat { id: 0, incarnation: 3 };
        assert_eq!(
            calls,
            [Call::NodeUp { seat }, Call::LinkAttach { node: 0, carrier: route(1) }],
            "its endpoints are those it had"
        );
    }

    #[test]
    fn a_restarted_peer_starts_over() {
        let mut tables = Tables::default();
        carry_out(&mut tables, Some(&desired(&[(0, 3, Some(route(1)), 99)])));
        let calls = carry_out(&mut tables, Some(&desired(&[(0, 4, Some(route(1)), 0)])));
        assert_eq!(
            calls,
            [
                Call::LinkDetach { node: 0 },
                Call::NodeDown { node: 0 },
                Call::RemoveNode { node: 0 },
                add(0, 4),
                Call::NodeUp { seat: Seat { id: 0, incarnation: 4 } },
                Call::LinkAttach { node: 0, carrier: route(1) },
            ]
        );
        assert_eq!(tables.echo_of(0), None);
        let calls = carry_out(&mut tables, Some(&desired(&[(0, 4, Some(route(1)), 100)])));
        assert_eq!(calls, [Call::SetRemote { node: 0, endpoint: 100 }]);
    }

    #[test]
    fn a_peer_on_another_path_is_attached_there_without_going_down() {
        let mut tables = Tables::default();
        carry_out(&mut tables, Some(&desired(&[(0, 3, Some(route(1)), 99)])));
        let calls = carry_out(&mut tables, Some(&desired(&[(0, 3, Some(route(9)), 99)])));
        assert_eq!(calls, [Call::LinkAttach { node: 0, carrier: route(9) }]);
    }

    #[test]
    fn whatever_carries_a_link_is_replaced_without_a_moment_in_which_nothing_does() {
        let mut tables = Tables::default();
        carry_out(&mut tables, Some(&desired(&[(0, 3, Some(route(1)), 99)])));
        let (tcp, udp) = (proxy(Transport::Tcp, 1), proxy(Transport::Udp, 1));
        for carrier in [tcp, udp, proxy(Transport::Udp, 2), Carrier::Tipc, route(1)] {
            let calls = carry_out(&mut tables, Some(&desired(&[(0, 3, Some(carrier), 99)])));
            assert_eq!(calls, [Call::LinkAttach { node: 0, carrier }]);
            let proxied: Vec<_> = tables.proxied().into_values().map(Carrier::Proxy).collect();
            let expected: Vec<_> =
                [carrier].into_iter().filter(|it| matches!(it, Carrier::Proxy(_))).collect();
            assert_eq!(proxied, expected);
        }
        carry_out(&mut tables, Some(&desired(&[(0, 3, Some(tcp), 99)])));
        // What was chosen cannot carry it for now: that is no reason to take away what does.
        let mut stuck = desired(&[(0, 3, None, 99)]);
        stuck.peers.get_mut(&0).unwrap().up = true;
        assert_eq!(carry_out(&mut tables, Some(&stuck)), []);
        assert_eq!(tables.carrier(0), Some(tcp));
        carry_out(&mut tables, Some(&desired(&[(0, 3, None, 0)])));
        assert!(tables.proxied().is_empty(), "nobody is to be reached any more");
    }

    #[test]
    fn a_link_that_a_proxy_took_too_late_is_attached_again() {
        let mut tables = Tables::default();
        for (carrier, is_kernels) in
            [(route(1), true), (Carrier::Tipc, true), (proxy(Transport::Udp, 1), false)]
        {
            let desired = desired(&[(0, 3, Some(carrier), 99)]);
            carry_out(&mut tables, Some(&desired));
            // What is as it was told, and what nobody carries at the moment, is left alone.
            for carried in [Some(carrier.transport()), None] {
                tables.seen(0, carried);
                assert_eq!(tables.plan(Some(&desired)), Plan::default());
            }
            tables.seen(0, Some(Transport::Tcp));
            let again = is_kernels.then_some(Call::LinkAttach { node: 0, carrier });
            assert_eq!(carry_out(&mut tables, Some(&desired)), Vec::from_iter(again), "{carrier}");
        }
    }

    #[test]
    fn a_node_with_another_seat_leaves_first_and_a_peer_without_one_is_removed() {
        let mut tables = Tables::default();
        carry_out(&mut tables, Some(&desired(&[(0, 3, Some(route(1)), 99)])));
        let calls = carry_out(&mut tables, Some(&desired(&[])));
        let (down, remove) = (Call::NodeDown { node: 0 }, Call::RemoveNode { node: 0 });
        assert_eq!(calls, [Call::LinkDetach { node: 0 }, down, remove]);
        let moved = Desired { own: Seat { id: 5, incarnation: 1 }, ..desired(&[]) };
        assert_eq!(carry_out(&mut tables, Some(&moved))[0], Call::End);
        assert_eq!(carry_out(&mut tables, None), [Call::End]);
        assert!(!tables.is_usable());
    }

    #[test]
    fn limits_are_named_and_the_rest_is_done() {
        let mut tables = Tables::default();
        let plan = tables.plan(Some(&desired(&[
            (3_000, 1, Some(route(1)), 0),
            (2, 1 << 16, Some(route(2)), 0),
            (3, 1, Some(route(3)), 0),
        ])));
        assert!(plan.impossible[0].contains("node 2 has restarted 65536 times"));
        assert!(plan.impossible[1].contains("room for 2046 nodes"), "{:?}", plan.impossible);
        assert!(plan.calls.contains(&Call::LinkAttach { node: 3, carrier: route(3) }));
        plan.calls.iter().for_each(|call| tables.done(call));
        assert_eq!(tables.plan(Some(&desired(&[]))).calls.len(), 3 * 3 - 2);
    }
}
