// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which machines a beacon tells of, where it has not room for all that are heard.

use std::collections::BTreeMap;

use dvs_config::Mac;

use super::peers::Heard;
use super::roster::Roster;
use super::{Membership, Role, CANDIDATE_MS};
use crate::beacon::{Beacon, PeerEntry, FOUNDERS_MAX};

impl Membership {
    /// Puts into a beacon whom it is to tell of. Those come first, always the same, that everybody must tell of: of candidates those with
    /// the lowest identities, so that all who form a cluster mean the same; once there are members, those whose turn it is to let others
    /// in. The others take turns.
    pub(super) fn list(&mut self, now_ms: u64, beacon: &mut Beacon) {
        let empty = Roster::default();
        let roster = match &self.role {
            Role::Candidate(formation) => formation.proposal().unwrap_or(&empty),
            Role::Member(member) => &member.roster,
        };
        let is_proposal = matches!(self.role, Role::Candidate(_)) && !roster.is_empty();
        let heard = self.heard(now_ms);
        let mut entries = Vec::new();
        if is_proposal {
            let own = (self.identity.mac, self.identity.instance);
            entries.extend(roster.entries().map(|place| {
                let run = (place.mac, place.instance);
                PeerEntry {
                    seat: Some(place.seat),
                    ..entry(run, run == own || heard.values().any(|(it, _)| it.run() == run))
                }
            }));
        }
        let is_member = matches!(self.role, Role::Member(_));
        let mut others: Vec<_> = heard
            .into_values()
            .filter(|(heard, _)| {
                let (mac, instance) = heard.run();
                let place = roster.of_instance(mac, instance);
                // Members learn of each other by messages.
                let settled =
                    heard.beacon.phase.is_member() && heard.beacon.cluster == beacon.cluster;
                place.is_none() || (is_member && !settled)
            })
            .collect();
        if others.iter().any(|(heard, _)| heard.beacon.phase.is_member()) {
            others.sort_by_key(|(heard, _)| {
                let id = heard.beacon.place.map(|place| place.seat.id);
                (!heard.beacon.phase.is_member(), id, heard.beacon.mac)
            });
        }
        let others = others.into_iter().map(|(heard, confirmed)| {
            let run = heard.run();
            let place = roster.of_instance(run.0, run.1).filter(|_| is_member);
            PeerEntry {
                seat: place.map(|entry| entry.seat),
                confirmed,
                removed: self.removals.concern(run.0, heard.beacon.phase.is_member()),
                known: is_member && roster.of_machine(run.0).is_some(),
                ..entry(run, true)
            }
        });
        let mut others: Vec<PeerEntry> = others.collect();
        let mut room = beacon.room().saturating_sub(entries.iter().map(PeerEntry::length).sum());
        let fixed = others.len().min(FOUNDERS_MAX);
        let turns = others.len() - fixed;
        if turns > 0 {
            others[fixed..].rotate_left(self.turn % turns);
        }
        let mut told: usize = 0;
        for entry in others {
            // A byte counts them.
            if entry.length() > room || entries.len() >= usize::from(u8::MAX) {
                break;
            }
            room -= entry.length();
            entries.push(entry);
            told += 1;
        }
        self.turns_told = told.saturating_sub(fixed);
        beacon.peers = entries;
    }

    /// All who were heard lately, by identity, and whether that is certain: of a machine of which one run is certain and another one may
    /// be a replay, the latter is told as well as long as there is no other way to find out.
    fn heard(&self, now_ms: u64) -> BTreeMap<(Mac, u64), (&Heard, bool)> {
        let confirmed = self.peers.confirmed().filter(|heard| heard.is_live(now_ms, CANDIDATE_MS));
        let provisional = self.peers.provisional(now_ms, CANDIDATE_MS);
        let confirmed = confirmed.map(|heard| (heard.run(), (heard, true)));
        confirmed.chain(provisional.map(|heard| (heard.run(), (heard, false)))).collect()
    }
}

fn entry((mac, instance): (Mac, u64), heard: bool) -> PeerEntry {
    PeerEntry { mac, instance, seat: None, heard, confirmed: heard, removed: false, known: false }
}
