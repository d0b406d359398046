// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where the endpoints of a container are that others have to know of: servers, those that have moved, and those that somebody
//! stands by for.
//!
//! What happens to an endpoint's place is numbered: each move and each promotion of a backup has the next *epoch*. A command
//! names the epoch that it was made for, so of two that meet only one counts.

use std::collections::BTreeMap;

use dvk_abi::Endpoint;
use serde::{Deserialize, Serialize};

use crate::nodes::NodeId;
use crate::refusal::{Refusal, Thing};

/// Most nodes that stand by for one endpoint.
pub const BACKUPS_MAX: usize = 7;

/// Where an endpoint is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Location {
    /// The generation of its binding.
    pub generation: u32,
    /// On which node.
    pub node: NodeId,
    /// Number of the last move or promotion.
    pub epoch: u32,
    /// Which nodes stand by for it, the first to be promoted first.
    pub backups: Vec<NodeId>,
}

/// What became of an endpoint when its node died.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fate {
    /// A backup has taken its place.
    Promoted {
        /// Which endpoint.
        endpoint: u64,
        /// Where it is now.
        node: NodeId,
        /// The number of the promotion.
        epoch: u32,
    },
    /// Nobody stood by for it.
    Lost {
        /// Which endpoint.
        endpoint: u64,
    },
}

/// The endpoints of one container, by slot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoints {
    by_slot: BTreeMap<u32, Location>,
}

fn name_of(endpoint: u64) -> Result<(u32, u32), Refusal> {
    let endpoint = Endpoint::from_raw(endpoint);
    match endpoint.is_name() {
        true => Ok((endpoint.slot(), endpoint.generation())),
        false => Err(Refusal::Invalid(format!("{endpoint} names no endpoint"))),
    }
}

fn raw(slot: u32, generation: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(slot)
}

impl Endpoints {
    /// Where an endpoint is.
    pub fn get(&self, endpoint: u64) -> Option<&Location> {
        let (slot, generation) = name_of(endpoint).ok()?;
        self.by_slot.get(&slot).filter(|location| location.generation == generation)
    }

    /// All of them by slot.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &Location)> + '_ {
        self.by_slot.iter().map(|(slot, location)| (raw(*slot, location.generation), location))
    }

    /// Makes an endpoint known. A later generation takes the place of an earlier one; saying the same again changes nothing.
    pub(super) fn register(
        &mut self,
        endpoint: u64,
        node: NodeId,
        backups: &[NodeId],
    ) -> Result<u32, Refusal> {
        let (slot, generation) = name_of(endpoint)?;
        check_backups(node, backups)?;
        if let Some(known) = self.by_slot.get(&slot) {
            if known.generation == generation && known.node == node && known.backups == backups {
                return Ok(known.epoch);
            }
            if known.generation >= generation {
                return Err(stale(slot, known.generation, generation));
            }
        }
        let location = Location { generation, node, epoch: 0, backups: backups.to_owned() };
        self.by_slot.insert(slot, location);
        Ok(0)
    }

    /// Says that an endpoint is no more.
    pub(super) fn remove(&mut self, endpoint: u64) -> Result<(), Refusal> {
        let (slot, _) = name_of(endpoint)?;
        self.located(endpoint)?;
        self.by_slot.remove(&slot);
        Ok(())
    }

    /// Says that an endpoint is on another node now. A backup there stops to be one.
    pub(super) fn relocate(
        &mut self,
        endpoint: u64,
        epoch: u32,
        node: NodeId,
    ) -> Result<u32, Refusal> {
        let location = self.at_epoch(endpoint, epoch)?;
        location.epoch += 1;
        location.node = node;
        location.backups.retain(|backup| *backup != node);
        Ok(location.epoch)
    }

    /// Says who stands by for an endpoint.
    pub(super) fn set_backups(
        &mut self,
        endpoint: u64,
        epoch: u32,
        backups: &[NodeId],
    ) -> Result<u32, Refusal> {
        let location = self.at_epoch(endpoint, epoch)?;
        check_backups(location.node, backups)?;
        location.backups = backups.to_owned();
        Ok(location.epoch)
    }

    /// Takes a node away: of each endpoint on it the first backup that `is_up` takes the place, and what has none is lost.
    pub(super) fn node_down(&mut self, node: NodeId, is_up: impl Fn(NodeId) -> bool) -> Vec<Fate> {
        let mut fates = Vec::new();
        self.by_slot.retain(|slot, location| {
            location.backups.retain(|backup| *backup != node);
            if location.node != node {
                return true;
            }
            let endpoint = raw(*slot, location.generation);
            let Some(at) = location.backups.iter().position(|backup| is_up(*backup)) else {
                fates.push(Fate::Lost { endpoint });
                return false;
            };
            location.node = location.backups.remove(at);
            location.epoch += 1;
            let (node, epoch) = (location.node, location.epoch);
            fates.push(Fate::Promoted { endpoint, node, epoch });
            true
        });
        fates
    }

    fn located(&mut self, endpoint: u64) -> Result<&mut Location, Refusal> {
        let (slot, generation) = name_of(endpoint)?;
        let missing = || Refusal::missing(Thing::Endpoint, Endpoint::from_raw(endpoint));
        let location = self.by_slot.get_mut(&slot).ok_or_else(missing)?;
        match location.generation == generation {
            true => Ok(location),
            false => Err(stale(slot, location.generation, generation)),
        }
    }

    fn at_epoch(&mut self, endpoint: u64, epoch: u32) -> Result<&mut Location, Refusal> {
        let location = self.located(endpoint)?;
        match location.epoch == epoch {
            true => Ok(location),
            false => Err(Refusal::Stale {
                what: Thing::Endpoint,
                name: Endpoint::from_raw(endpoint).to_string(),
                current: location.epoch.into(),
                given: epoch.into(),
            }),
        }
    }
}

fn stale(slot: u32, current: u32, given: u32) -> Refusal {
    let name = format!("in slot {slot}");
    Refusal::Stale { what: Thing::Endpoint, name, current: current.into(), given: given.into() }
}

fn check_backups(node: NodeId, backups: &[NodeId]) -> Result<(), Refusal> {
    if backups.len() > BACKUPS_MAX {
        return Err(Refusal::limit("backups of an endpoint", BACKUPS_MAX));
    }
    for (at, backup) in backups.iter().enumerate() {
        if *backup == node || backups[..at].contains(backup) {
            return Err(Refusal::Invalid(format!(
                "node {backup} cannot stand by twice, nor for an endpoint that it has"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: u64 = 5 << 32 | 10;

    #[test]
    fn the_first_backup_that_lives_is_promoted_with_a_new_epoch() {
        let mut endpoints = Endpoints::default();
        assert_eq!(endpoints.register(SERVER, 0, &[1, 2, 3]), Ok(0));
        let fates = endpoints.node_down(0, |node| node != 1);
        assert_eq!(fates, [Fate::Promoted { endpoint: SERVER, node: 2, epoch: 1 }]);
        assert_eq!(endpoints.get(SERVER).unwrap().backups, [1, 3]);
        endpoints.node_down(3, |_| true);
        assert_eq!(endpoints.get(SERVER).unwrap().backups, [1]);
        assert_eq!(endpoints.node_down(2, |_| false), [Fate::Lost { endpoint: SERVER }]);
        assert_eq!(endpoints, Endpoints::default());
    }

    #[test]
    fn of_two_moves_of_the_same_epoch_one_counts() {
        let mut endpoints = Endpoints::default();
        endpoints.register(SERVER, 0, &[1]).unwrap();
        assert_eq!(endpoints.relocate(SERVER, 0, 1), Ok(1));
        assert!(endpoints.get(SERVER).unwrap().backups.is_empty());
        let refused = endpoints.relocate(SERVER, 0, 2).unwrap_err();
        assert!(matches!(refused, Refusal::Stale { current: 1, given: 0, .. }), "{refused}");
        assert_eq!(endpoints.set_backups(SERVER, 1, &[0]), Ok(1));
        assert!(endpoints.set_backups(SERVER, 1, &[1]).is_err());
        assert!(endpoints.set_backups(SERVER, 1, &[0, 0]).is_err());
    }

    #[test]
    fn a_later_generation_takes_the_slot_and_an_earlier_one_does_not() {
        let mut endpoints = Endpoints::default();
        let next = 6 << 32 | 10;
        endpoints.register(SERVER, 0, &[]).unwrap();
        assert_eq!(endpoints.register(SERVER, 0, &[]), Ok(0));
        assert!(endpoints.register(SERVER, 1, &[]).is_err());
        endpoints.register(next, 1, &[]).unwrap();
        assert!(endpoints.register(SERVER, 0, &[]).is_err());
        assert!(endpoints.remove(SERVER).is_err() && endpoints.get(SERVER).is_none());
        endpoints.remove(next).unwrap();
        assert!(endpoints.remove(next).is_err());
    }

    #[test]
    fn reserved_values_name_nobody() {
        let mut endpoints = Endpoints::default();
        for raw in [Endpoint::ANY.raw(), Endpoint::NONE.raw(), 7, 1 << 32 | 65_536] {
            assert!(endpoints.register(raw, 0, &[]).is_err(), "{raw:x}");
        }
    }
}
