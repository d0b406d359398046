// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who decides on the line-up of a device. It must be one for all replicas, and forget nothing: the
//! cluster's agreed state, or something that keeps what it says as well. This is what it has to decide,
//! without how it is kept.

use super::lineup::{Life, Lineup, Member, ReplicaId, Standing};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a life of a replica has of what the lives before it had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Contents {
    /// Nothing: another disk, or memory.
    None,
    /// What was flushed, and of the rest perhaps some: power was lost.
    Stable,
    /// All that was written: only the server ended, and Linux has kept its pages.
    Whole,
}

/// What is known of a replica that has come forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Presence {
    /// Its last life.
    pub life: Life,
    /// What that had when it began.
    pub contents: Contents,
    /// Whether it is believed to go on.
    pub is_alive: bool,
}

/// The decisions on one device.
#[derive(Clone, Debug)]
pub struct Authority {
    lineup: Lineup,
    present: BTreeMap<ReplicaId, Presence>,
}

impl Authority {
    /// Begins with a line-up, of which nobody has come forward.
    pub fn new(lineup: Lineup) -> Self {
        Self { lineup, present: BTreeMap::new() }
    }

    /// Goes on from what was decided and is known, and decides what has to be.
    pub fn restore(lineup: Lineup, present: BTreeMap<ReplicaId, Presence>) -> Self {
        let mut authority = Self { lineup, present };
        authority.decide();
        authority
    }

    /// What holds.
    pub fn lineup(&self) -> &Lineup {
        &self.lineup
    }

    /// A life of a replica says that it is there. It may say so again.
    pub fn come_forward(&mut self, id: ReplicaId, life: Life, contents: Contents) {
        match self.present.get_mut(&id) {
            Some(presence) if presence.life > life => return,
            Some(presence) if presence.life == life => presence.is_alive = true,
            _ => {
                self.present.insert(id, Presence { life, contents, is_alive: true });
            }
        }
        self.decide();
    }

    /// Somebody believes that a life of a replica has ended. If it has not, it goes on as a member that is
    /// behind: an error costs time and no data.
    pub fn is_gone(&mut self, id: ReplicaId, life: Life) {
        if let Some(presence) = self.present.get_mut(&id).filter(|presence| presence.life == life) {
            presence.is_alive = false;
        }
        self.decide();
    }

    /// The primary wants the next line-up: with others in step. It is taken if it follows the one that
    /// holds; whether it was, is seen from the one that holds then.
    pub fn propose(&mut self, from: (ReplicaId, Life), proposal: Lineup) {
        let follows = proposal.epoch == self.lineup.epoch + 1
            && proposal.term == self.lineup.term
            && proposal.primary == self.lineup.primary
            && self.lineup.is_primary(from.0, from.1)
            && proposal.standing(from.0, from.1) == Some(Standing::InStep);
        if follows {
            self.lineup = proposal;
            self.decide();
        }
    }

    /// An administrator gives the device one replica more.
    pub fn add(&mut self, id: ReplicaId) {
        // Until it comes forward, no life of it is meant.
        let member = Member::new(Life(0), Standing::Behind);
        let mut members = self.lineup.members.clone();
        if members.insert(id, member).is_none() {
            self.lineup = self.lineup.with_members(members);
            self.decide();
        }
    }

    /// An administrator takes a replica away, or knows that it never comes back. The last one in step stays.
    pub fn remove(&mut self, id: ReplicaId) {
        let mut members = self.lineup.members.clone();
        let removed = members.remove(&id);
        let in_step = |member: &Member| member.standing == Standing::InStep;
        if removed.is_none() || !members.values().any(in_step) {
            return;
        }
        self.lineup = match self.lineup.primary == id {
            false => self.lineup.with_members(members),
            true => {
                let is_heir = |(id, member): (&ReplicaId, &Member)| {
                    (in_step(member) && self.is_live(*id, member.life)).then_some(*id)
                };
                let heir = members.iter().find_map(is_heir);
                let any = || members.iter().find(|(_, member)| in_step(member)).map(|(&id, _)| id);
                match heir.or_else(any) {
                    Some(heir) => self.lineup.with_primary(heir, members),
                    None => return,
                }
            }
        };
        self.decide();
    }

    fn is_live(&self, id: ReplicaId, life: Life) -> bool {
        self.present.get(&id).is_some_and(|presence| presence.life == life && presence.is_alive)
    }

    /// Goes on to the next line-up if what is known of the replicas asks for it.
    ///
    /// It takes nobody out of step, however dead it seems: only a primary does, by its proposal, which shows that
    /// the primary itself is alive. Else one that has everything could be given up for one that is gone, too.
    fn decide(&mut self) {
        let primary = self.choose_primary();
        let mut members = self.lineup.members.clone();
        for (&id, member) in &mut members {
            let Some(presence) = self.present.get(&id) else { continue };
            let is_over = presence.life != member.life;
            match member.standing {
                Standing::Behind => *member = Member::new(presence.life, Standing::Behind),
                Standing::InStep if primary == Some(id) => {
                    *member = Member::new(presence.life, Standing::InStep);
                }
                // One that only seems gone is for its primary to find out, unless that is a new one.
                Standing::InStep => {
                    member.is_gone |= is_over || primary.is_some() && !presence.is_alive
                }
            }
        }
        if let Some(primary) = primary {
            self.lineup = self.lineup.with_primary(primary, members);
        } else if members != self.lineup.members {
            self.lineup = self.lineup.with_members(members);
        }
    }

    /// Who is to become the primary, if that is to be another one, or another life of the same.
    fn choose_primary(&self) -> Option<ReplicaId> {
        let lineup = &self.lineup;
        let mut in_step = lineup.in_step();
        let is_live = |(id, member): &(ReplicaId, Member)| self.is_live(*id, member.life);
        if in_step.any(|(id, member)| id == lineup.primary && self.is_live(id, member.life)) {
            return None;
        }
        if let Some((heir, _)) = lineup.in_step().find(is_live) {
            return Some(heir);
        }
        // Nobody has kept everything in its memory. Who was in step has on its disk what was flushed, and one
        // whose server only ended has it all, so each is waited for before one is taken.
        let mut best: Option<(Contents, ReplicaId)> = None;
        for (id, member) in lineup.in_step() {
            let returned = |presence: &&Presence| presence.life != member.life && presence.is_alive;
            let contents = self.present.get(&id).filter(returned)?.contents;
            if contents != Contents::None && best.is_none_or(|best| contents > best.0) {
                best = Some((contents, id));
            }
        }
        best.map(|(_, heir)| heir)
    }
}
