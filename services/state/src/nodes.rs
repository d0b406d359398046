// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which machine is which node, in which life, and what it is for.

use std::collections::BTreeMap;
use std::fmt;

use dvk_abi::limits::NODES;
use serde::{Deserialize, Serialize};

use crate::refusal::{Refusal, Thing};

/// The id of a node, below [`NODES`].
pub type NodeId = u16;

/// The name of a voter or learner in the consensus. A node that keeps what it has voted for keeps it; a diskless one gets
/// another with every start, since it must not vote as somebody whose votes it has forgotten.
pub type MemberId = u64;

/// What makes a machine the same machine after a restart: the lowest MAC address of its cluster interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Machine(pub [u8; 6]);

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// One life of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Seat {
    /// The node.
    pub id: NodeId,
    /// Which of its lives, from 1.
    pub incarnation: u32,
}

impl fmt::Display for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in incarnation {}", self.id, self.incarnation)
    }
}

/// Whether a node may vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// It may be made a voter.
    Voter,
    /// It never votes.
    Learner,
}

/// How far a node has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// It has its place; its tables are not complete yet.
    Joining,
    /// It is a node like any other.
    Ready,
    /// Nothing new is placed on it, and what is there moves away.
    Draining,
    /// It is no node any more. Its id is kept, so that its incarnations go on should the machine come back.
    Removed,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// The machine.
    pub machine: Machine,
    /// Which run of its daemon has this incarnation; so that a request that is made again gets the same one.
    pub run: u64,
    /// Which of its lives this is, from 1.
    pub incarnation: u32,
    /// Its name.
    pub name: String,
    /// Whether it may vote.
    pub role: Role,
    /// How far it has come.
    pub phase: Phase,
    /// Whether the others hear it.
    pub up: bool,
    /// Who it is in the consensus; `None` if it takes no part.
    pub member: Option<MemberId>,
    /// The latest version of the state that it understands.
    pub understands: u16,
}

/// What can be done with nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Gives a machine a place: the id it had, in the next incarnation, or a new one.
    Join(Join),
    /// Changes how far a node has come. Removing it is final for its incarnation.
    SetPhase {
        /// Which life of which node.
        seat: Seat,
        /// How far it has come.
        phase: Phase,
    },
    /// Says whether the others hear a node.
    SetUp {
        /// Which life of which node.
        seat: Seat,
        /// Whether they do.
        up: bool,
    },
    /// Says whether a node may vote.
    SetRole {
        /// Which node.
        id: NodeId,
        /// Whether it may.
        role: Role,
    },
    /// Gives a node another name.
    Rename {
        /// Which node.
        id: NodeId,
        /// Its name.
        name: String,
    },
}

/// A machine that asks for a place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    /// The machine.
    pub machine: Machine,
    /// Which run of its daemon asks.
    pub run: u64,
    /// The name it wants; it gets `nodeN` without one.
    pub name: Option<String>,
    /// Whether it may vote.
    pub role: Role,
    /// Who it is in the consensus.
    pub member: Option<MemberId>,
    /// The latest version of the state that it understands.
    pub understands: u16,
    /// The place that it has, where somebody else than the state gives places.
    pub place: Option<Seat>,
}

/// The nodes by id, those that were removed included.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nodes {
    by_id: BTreeMap<NodeId, Node>,
}

impl Nodes {
    /// A node that has not been removed.
    pub fn get(&self, id: NodeId) -> Option<&Node> {
        self.by_id.get(&id).filter(|node| node.phase != Phase::Removed)
    }

    /// Those that have not been removed, by id.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &Node)> + '_ {
        let present = self.by_id.iter().filter(|(_, node)| node.phase != Phase::Removed);
        present.map(|(id, node)| (*id, node))
    }

    /// Those that were removed, by id.
    pub fn removed(&self) -> impl Iterator<Item = (NodeId, &Node)> + '_ {
        let removed = self.by_id.iter().filter(|(_, node)| node.phase == Phase::Removed);
        removed.map(|(id, node)| (*id, node))
    }

    /// The node that a machine is.
    pub fn of_machine(&self, machine: Machine) -> Option<(NodeId, &Node)> {
        self.iter().find(|(_, node)| node.machine == machine)
    }

    /// Whether this life of the node is its present one.
    pub fn is_present(&self, seat: Seat) -> bool {
        self.get(seat.id).is_some_and(|node| node.incarnation == seat.incarnation)
    }

    /// Whether this life of the node is its present one and the others hear it.
    pub fn is_up(&self, seat: Seat) -> bool {
        self.get(seat.id).is_some_and(|node| node.incarnation == seat.incarnation && node.up)
    }

    /// The present life of a node.
    ///
    /// # Errors
    /// [`Refusal::Missing`] without such a node.
    pub fn seat(&self, id: NodeId) -> Result<Seat, Refusal> {
        let node = self.get(id).ok_or_else(|| Refusal::missing(Thing::Node, id))?;
        Ok(Seat { id, incarnation: node.incarnation })
    }

    /// The latest version of the state that all nodes understand.
    pub fn understood(&self) -> Option<u16> {
        self.iter().map(|(_, node)| node.understands).min()
    }

    /// Gives the place, and whose earlier lives have ended by that.
    pub(crate) fn join(
        &mut self,
        join: &Join,
        agreed: u16,
    ) -> Result<(Seat, Vec<NodeId>), Refusal> {
        if join.understands < agreed {
            return Err(Refusal::TooNew { needed: agreed, agreed: join.understands });
        }
        let held = |(_, node): &(&NodeId, &Node)| node.machine == join.machine;
        let present = self.by_id.iter().filter(|(_, node)| node.phase != Phase::Removed).find(held);
        let known = present.or_else(|| self.by_id.iter().find(held));
        let known = known.map(|(id, node)| (*id, node.clone()));
        if let Some((id, node)) = &known {
            let seat = Seat { id: *id, incarnation: node.incarnation };
            let as_placed = join.place.is_none_or(|place| place == seat);
            if node.run == join.run && node.phase != Phase::Removed && as_placed {
                return Ok((seat, Vec::new()));
            }
        }
        let id = match (join.place, &known) {
            (Some(place), _) => self.check_place(join.machine, place)?.id,
            (None, Some((id, _))) => *id,
            (None, None) => self.free_id()?,
        };
        let name = match (&join.name, &known) {
            (Some(name), _) => name.clone(),
            (None, Some((_, node))) if !self.has_name(id, &node.name) => node.name.clone(),
            // Somebody else may be called as it would be.
            (None, _) if self.has_name(id, &format!("node{id}")) => join.machine.to_string(),
            (None, _) => format!("node{id}"),
        };
        self.check_name(id, &name)?;
        let before = self.by_id.get(&id);
        let incarnation = match join.place {
            Some(place) => Some(place.incarnation),
            None => before.map_or(Some(1), |node| node.incarnation.checked_add(1)),
        };
        let incarnation = incarnation
            .ok_or_else(|| Refusal::limit(format!("incarnations of node {id}"), u32::MAX))?;
        let mut ended: Vec<_> = self.get(id).map(|_| id).into_iter().collect();
        // A machine has one place; who was given another one has lost the one before.
        if let Some((other, node)) = known.filter(|(other, _)| *other != id) {
            if self.get(other).is_some() {
                let removed = Node { phase: Phase::Removed, up: false, member: None, ..node };
                self.by_id.insert(other, removed);
                ended.push(other);
            }
        }
        let node = Node {
            machine: join.machine,
            run: join.run,
            incarnation,
            name,
            role: join.role,
            phase: Phase::Joining,
            up: true,
            member: join.member,
            understands: join.understands,
        };
        self.by_id.insert(id, node);
        Ok((Seat { id, incarnation }, ended))
    }

    /// The lowest id that never was a node's, else the lowest of a node that was removed.
    fn free_id(&self) -> Result<NodeId, Refusal> {
        let never = (0..=NodeId::MAX).find(|id| !self.by_id.contains_key(id));
        let removed = || self.by_id.keys().copied().find(|id| self.get(*id).is_none());
        never.or_else(removed).ok_or_else(|| Refusal::limit("the number of nodes", NODES))
    }

    /// Whether another node than `id` has a name.
    pub fn has_name(&self, id: NodeId, name: &str) -> bool {
        self.iter().any(|(other, node)| other != id && node.name == name)
    }

    /// A machine gets a place that it had only in a later life.
    fn check_place(&self, machine: Machine, place: Seat) -> Result<Seat, Refusal> {
        let before = self.by_id.get(&place.id).filter(|node| node.machine == machine);
        match before {
            Some(node) if node.incarnation >= place.incarnation => Err(Refusal::Stale {
                what: Thing::Node,
                name: place.id.to_string(),
                current: node.incarnation.into(),
                given: place.incarnation.into(),
            }),
            _ => Ok(place),
        }
    }

    fn check_name(&self, id: NodeId, name: &str) -> Result<(), Refusal> {
        crate::check_name("a node", name)?;
        match self.has_name(id, name) {
            true => Err(Refusal::exists(Thing::Node, name)),
            false => Ok(()),
        }
    }

    /// Refuses what is said of, or by, a life of a node that is not its present one.
    pub(crate) fn check_present(&self, seat: Seat) -> Result<(), Refusal> {
        let current = self.seat(seat.id)?.incarnation;
        if current != seat.incarnation {
            return Err(Refusal::Stale {
                what: Thing::Node,
                name: seat.id.to_string(),
                current: current.into(),
                given: seat.incarnation.into(),
            });
        }
        Ok(())
    }

    fn present(&mut self, seat: Seat) -> Result<&mut Node, Refusal> {
        self.check_present(seat)?;
        self.by_id.get_mut(&seat.id).ok_or_else(|| Refusal::missing(Thing::Node, seat.id))
    }

    pub(crate) fn set_phase(&mut self, seat: Seat, phase: Phase) -> Result<(), Refusal> {
        let node = self.present(seat)?;
        node.phase = phase;
        if phase == Phase::Removed {
            node.up = false;
            node.member = None;
        }
        Ok(())
    }

    pub(crate) fn set_up(&mut self, seat: Seat, up: bool) -> Result<(), Refusal> {
        self.present(seat)?.up = up;
        Ok(())
    }

    pub(crate) fn set_role(&mut self, id: NodeId, role: Role) -> Result<(), Refusal> {
        let seat = self.seat(id)?;
        self.present(seat)?.role = role;
        Ok(())
    }

    pub(crate) fn rename(&mut self, id: NodeId, name: &str) -> Result<(), Refusal> {
        let seat = self.seat(id)?;
        self.check_name(id, name)?;
        self.present(seat)?.name = name.to_owned();
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn join(machine: u8, run: u64) -> Join {
        Join {
            machine: Machine([2, 0, 0, 0, 0, machine]),
            run,
            name: None,
            role: Role::Voter,
            member: Some(run),
            understands: 1,
            place: None,
        }
    }

    #[test]
    fn a_machine_that_comes_back_has_its_id_and_the_next_incarnation() {
        let mut nodes = Nodes::default();
        let first = nodes.join(&join(1, 10), 1).unwrap();
        assert_eq!(first, (Seat { id: 0, incarnation: 1 }, vec![]));
        assert_eq!(nodes.join(&join(2, 20), 1).unwrap().0.id, 1);
        assert_eq!(nodes.join(&join(1, 11), 1).unwrap(), (Seat { id: 0, incarnation: 2 }, vec![0]));
        assert!(!nodes.is_present(Seat { id: 0, incarnation: 1 }));
    }

    #[test]
    fn asking_again_in_the_same_run_gives_the_same_place() {
        let mut nodes = Nodes::default();
        nodes.join(&join(1, 10), 1).unwrap();
        let before = nodes.clone();
        let again = nodes.join(&join(1, 10), 1).unwrap();
        assert_eq!(again, (Seat { id: 0, incarnation: 1 }, vec![]));
        assert_eq!(nodes, before);
    }

    #[test]
    fn a_removed_node_is_gone_and_its_incarnations_go_on() {
        let mut nodes = Nodes::default();
        let (seat, _) = nodes.join(&join(1, 10), 1).unwrap();
        nodes.set_phase(seat, Phase::Removed).unwrap();
        assert_eq!((nodes.iter().count(), nodes.is_present(seat)), (0, false));
        assert!(nodes.set_up(seat, true).is_err());
        // Another machine does not get its id, and the same machine a later life.
        assert_eq!(nodes.join(&join(2, 20), 1).unwrap().0.id, 1);
        let back = nodes.join(&join(1, 10), 1).unwrap();
        assert_eq!(back, (Seat { id: 0, incarnation: 2 }, vec![]));
    }

    #[test]
    fn what_is_said_of_an_earlier_life_is_refused() {
        let mut nodes = Nodes::default();
        let (old, _) = nodes.join(&join(1, 10), 1).unwrap();
        let (new, _) = nodes.join(&join(1, 11), 1).unwrap();
        let stale = nodes.set_up(old, false).unwrap_err();
        assert!(matches!(stale, Refusal::Stale { current: 2, given: 1, .. }), "{stale}");
        assert!(nodes.is_up(new));
    }

    #[test]
    fn names_are_told_apart() {
        let mut nodes = Nodes::default();
        nodes.join(&join(1, 10), 1).unwrap();
        let named = Join { name: Some("node0".into()), ..join(2, 20) };
        assert_eq!(nodes.join(&named, 1), Err(Refusal::exists(Thing::Node, "node0")));
        nodes.join(&join(2, 20), 1).unwrap();
        assert!(nodes.rename(1, "node0").is_err());
        nodes.rename(1, "east").unwrap();
        assert_eq!(nodes.get(1).unwrap().name, "east");
        // It is still called so when it comes back.
        nodes.join(&join(2, 21), 1).unwrap();
        assert_eq!(nodes.get(1).unwrap().name, "east");
    }

    #[test]
    fn a_place_that_was_given_elsewhere_is_taken_over() {
        let seat = |id, incarnation| Seat { id, incarnation };
        let placed = |machine, run, id, incarnation| Join {
            place: Some(seat(id, incarnation)),
            ..join(machine, run)
        };
        let mut nodes = Nodes::default();
        assert_eq!(nodes.join(&placed(1, 10, 4, 1), 1), Ok((seat(4, 1), vec![])));
        assert_eq!(nodes.join(&placed(1, 10, 4, 1), 1), Ok((seat(4, 1), vec![])));
        assert_eq!(nodes.join(&placed(1, 11, 4, 3), 1), Ok((seat(4, 3), vec![4])));
        assert!(nodes.join(&placed(1, 12, 4, 3), 1).is_err(), "another run is another life");
        // Another machine was given the id, and the first one another.
        assert_eq!(nodes.join(&placed(2, 20, 4, 1), 1), Ok((seat(4, 1), vec![4])));
        assert_eq!(nodes.join(&placed(1, 11, 5, 1), 1), Ok((seat(5, 1), vec![])));
        assert_eq!(nodes.join(&placed(1, 11, 6, 1), 1), Ok((seat(6, 1), vec![5])));
        assert_eq!(nodes.iter().map(|(id, _)| id).collect::<Vec<_>>(), [4, 6]);
        assert_eq!(nodes.join(&placed(1, 11, 6, 1), 1), Ok((seat(6, 1), vec![])));
    }

    #[test]
    fn who_does_not_understand_the_state_cannot_join() {
        let mut nodes = Nodes::default();
        assert!(nodes.join(&join(1, 10), 2).is_err());
        assert_eq!(nodes.understood(), None);
        nodes.join(&join(1, 10), 1).unwrap();
        nodes.join(&Join { understands: 3, ..join(2, 20) }, 1).unwrap();
        assert_eq!(nodes.understood(), Some(1));
    }
}
