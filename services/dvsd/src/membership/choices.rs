// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is to carry this node's links: a register for each pair of nodes, held by both of them.
//!
//! Nothing is agreed upon. The last writer wins: a new choice has the next revision, and of two
//! made at once at both ends one is the greater ([`Choice`]), whichever end looks. Both tell each
//! other their choices and take the greater one, so they end with the same. A node that
//! restarts knows none, and learns them from its peers; a pair of which both restart at once
//! starts with the default.

use std::collections::BTreeMap;

use dvs_api::Transport;
use dvs_config::Mac;

use crate::beacon::Choice;

#[derive(Clone, Copy, Debug)]
struct Held {
    /// The machine at the other end: whoever gets its id later has not been chosen for.
    machine: Mac,
    choice: Choice,
}

/// The choices for this node's links, by the node at the other end.
#[derive(Debug, Default)]
pub(super) struct Choices(BTreeMap<u16, Held>);

impl Choices {
    /// What is to carry the link to `peer`.
    pub(super) fn get(&self, peer: u16) -> Choice {
        self.0.get(&peer).map(|held| held.choice).unwrap_or_default()
    }

    /// Somebody chooses here. Says whether that is something new.
    pub(super) fn set(&mut self, peer: u16, machine: Mac, transport: Transport) -> bool {
        let before = self.get(peer);
        if before.transport == transport {
            return false;
        }
        // After four thousand million choices, the greater transport would win.
        let choice = Choice { revision: before.revision.saturating_add(1), transport };
        self.0.insert(peer, Held { machine, choice });
        true
    }

    /// Takes what the node at the other end holds. Says whether that was something new.
    pub(super) fn hear(&mut self, peer: u16, machine: Mac, theirs: Choice) -> bool {
        let news = theirs > self.get(peer);
        if news {
            self.0.insert(peer, Held { machine, choice: theirs });
        }
        news
    }

    /// Forgets what was chosen for machines that have lost their ids: `holder` says who has one.
    pub(super) fn forget_gone(&mut self, holder: impl Fn(u16) -> Option<Mac>) {
        self.0.retain(|peer, held| holder(*peer) == Some(held.machine));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: Mac = Mac([2, 0, 0, 0, 0, 9]);

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
            assert!(choices.hear(1, MACHINE, first));
            assert_eq!(choices.hear(1, MACHINE, second), second > first);
            assert_eq!(choices.get(1), udp);
            assert!(!choices.hear(1, MACHINE, choice(3, Transport::Quic)));
            assert_eq!(choices.get(1), udp);
        }
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
