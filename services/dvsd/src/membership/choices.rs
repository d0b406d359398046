// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is to carry this node's links: a register for each pair of nodes, held by both of them.
//!
//! Nothing is agreed upon. The last writer wins: a new choice has the next revision, and of two
//! made at once at both ends one is the greater ([`Choice`]), whichever end looks. Both tell
//! their choices in beacons and take the greater one, so they end with the same. A node that
//! restarts knows none, and learns them from its peers; a pair of which both restart at once
//! starts with the default.

use std::collections::BTreeMap;

use dvs_api::Transport;
use dvs_config::Mac;

use crate::beacon::{Choice, ChoiceEntry, Seat};

#[derive(Clone, Copy, Debug)]
struct Held {
    /// The machine at the other end: whoever gets its id later has not been chosen for.
    machine: Mac,
    choice: Choice,
    /// The incarnation in which the other end has shown that it knows the choice.
    known_to: Option<u32>,
}

/// The choices for this node's links, by the node at the other end.
#[derive(Debug, Default)]
pub(super) struct Choices {
    held: BTreeMap<u16, Held>,
    /// The first one to be told next, if nothing is more urgent.
    next: u16,
}

impl Choices {
    /// What is to carry the link to `peer`.
    pub(super) fn get(&self, peer: u16) -> Choice {
        self.held.get(&peer).map(|held| held.choice).unwrap_or_default()
    }

    /// Somebody chooses here. Says whether that is something new.
    pub(super) fn set(&mut self, peer: u16, machine: Mac, transport: Transport) -> bool {
        let before = self.get(peer);
        if before.transport == transport {
            return false;
        }
        // After four thousand million choices, the greater transport would win.
        let choice = Choice { revision: before.revision.saturating_add(1), transport };
        self.held.insert(peer, Held { machine, choice, known_to: None });
        true
    }

    /// Takes what the node at the other end holds. Says whether that was something new.
    pub(super) fn hear(&mut self, peer: Seat, machine: Mac, theirs: Choice) -> bool {
        // Nobody chose the default; a beacon that says so tells nothing.
        if theirs.revision == 0 {
            return false;
        }
        let ours = self.get(peer.id);
        let known_to = Some(peer.incarnation);
        if theirs >= ours {
            self.held.insert(peer.id, Held { machine, choice: theirs, known_to });
        }
        theirs > ours
    }

    /// Forgets what was chosen for machines that have lost their ids: `holder` says who has one.
    pub(super) fn forget_gone(&mut self, holder: impl Fn(u16) -> Option<Mac>) {
        self.held.retain(|peer, held| holder(*peer) == Some(held.machine));
    }

    /// At most `room` choices to tell. Those come first that a live peer has not shown to know;
    /// `live` gives the incarnation of one that is heard. The others take turns.
    pub(super) fn telling(
        &self,
        room: usize,
        live: impl Fn(u16) -> Option<u32>,
    ) -> Vec<ChoiceEntry> {
        let mut order: Vec<_> = self
            .held
            .iter()
            .map(|(peer, held)| {
                let urgent = live(*peer).is_some_and(|now| held.known_to != Some(now));
                let entry = ChoiceEntry { peer: *peer, choice: held.choice };
                (!urgent, peer.wrapping_sub(self.next), entry)
            })
            .collect();
        order.sort_unstable_by_key(|(later, turn, _)| (*later, *turn));
        order.into_iter().map(|(_, _, entry)| entry).take(room).collect()
    }

    /// These have been told on every interface: others have their turn.
    pub(super) fn told(&mut self, last: u16) {
        self.next = last.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: Mac = Mac([2, 0, 0, 0, 0, 9]);

    fn seat(id: u16) -> Seat {
        Seat { id, incarnation: 1 }
    }

    fn choice(revision: u32, transport: Transport) -> Choice {
        Choice { revision, transport }
    }

    #[test]
    fn every_choice_has_the_next_revision_and_choosing_the_same_is_none() {
        let mut choices = Choices::default();
        assert!(!choices.set(3, MACHINE, Transport::Ethernet), "it is the default");
        assert!(choices.set(3, MACHINE, Transport::Tcp));
        assert!(!choices.set(3, MACHINE, Transport::Tcp));
        assert_eq!(choices.get(3), choice(1, Transport::Tcp));
        assert!(choices.set(3, MACHINE, Transport::Ethernet));
        assert_eq!(choices.get(3), choice(2, Transport::Ethernet));
        assert_eq!(choices.get(4), Choice::default());
    }

    #[test]
    fn the_greater_choice_holds_whoever_hears_of_it() {
        let (tcp, udp) = (choice(4, Transport::Tcp), choice(4, Transport::Udp));
        for (first, second) in [(tcp, udp), (udp, tcp)] {
            let mut choices = Choices::default();
            assert!(choices.hear(seat(1), MACHINE, first));
            assert_eq!(choices.hear(seat(1), MACHINE, second), second > first);
            assert_eq!(choices.get(1), udp);
            assert!(!choices.hear(seat(1), MACHINE, choice(3, Transport::Quic)));
            assert_eq!(choices.get(1), udp);
        }
    }

    #[test]
    fn what_a_live_peer_does_not_know_is_told_first_and_the_others_take_turns() {
        let mut choices = Choices::default();
        for peer in 0..10 {
            choices.hear(seat(peer), MACHINE, choice(1, Transport::Tcp));
        }
        let live = |peer| (peer != 8).then_some(1);
        let mut told = Vec::new();
        for _ in 0..5 {
            let telling = choices.telling(2, live);
            told.extend(telling.iter().map(|entry| entry.peer));
            choices.told(told[told.len() - 1]);
        }
        assert_eq!(told, Vec::from_iter(0..10));
        // The choice for the one that is down can wait.
        choices.set(8, MACHINE, Transport::Udp);
        choices.set(5, MACHINE, Transport::Udp);
        let peers = |telling: Vec<ChoiceEntry>| -> Vec<_> {
            telling.into_iter().map(|entry| entry.peer).collect()
        };
        assert_eq!(peers(choices.telling(3, live)), [5, 0, 1]);
        // One that has restarted knows nothing.
        let restarted = |peer| Some(if peer == 7 { 2 } else { 1 });
        assert_eq!(peers(choices.telling(3, restarted)), [5, 7, 8]);
        choices.hear(seat(5), MACHINE, choice(2, Transport::Udp));
        assert_eq!(peers(choices.telling(3, live)), [0, 1, 2]);
    }

    #[test]
    fn whoever_gets_an_id_after_another_machine_has_not_been_chosen_for() {
        let mut choices = Choices::default();
        choices.set(1, MACHINE, Transport::Tcp);
        choices.set(2, MACHINE, Transport::Tcp);
        choices.forget_gone(|peer| Some(if peer == 1 { MACHINE } else { Mac([2; 6]) }));
        assert_eq!(choices.get(1).transport, Transport::Tcp);
        assert_eq!(choices.get(2), Choice::default());
    }
}
