// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which keys of other nodes this one must hold, by what they said.

use std::collections::{BTreeMap, BTreeSet};

use dvs_config::Mac;

use super::key::{association, KeyName};
use super::schedule::Announced;

/// Milliseconds for which a key that is not sent with any more is kept for frames under way.
pub const GRACE_MS: u64 = 3_000;

/// What another node says of its keys, and how it is heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// The machine.
    pub identity: Mac,
    /// Which run of its `dvsd`.
    pub instance: u64,
    /// Index of the local interface by which it is heard.
    pub interface: u32,
    /// MAC address of its interface.
    pub mac: Mac,
    /// Its keys.
    pub announced: Announced,
    /// Association number of the newest of this node's keys that it holds.
    pub holds: Option<u8>,
}

/// The keys of one sender by their association numbers.
pub type Keys = BTreeMap<u8, KeyName>;

#[derive(Debug)]
struct Sender {
    instance: u64,
    announced: Announced,
    /// A generation that was sent with before, and until when it is kept.
    former: Option<(u32, u64)>,
    /// By which interfaces it was heard, and from which of its own.
    places: BTreeMap<u32, Mac>,
    /// It has said that it holds a key of this node's.
    answers: bool,
}

/// The other members of the cluster.
#[derive(Debug, Default)]
pub struct Senders(BTreeMap<Mac, Sender>);

impl Senders {
    /// Takes in what a member said last.
    pub fn hear(&mut self, now_ms: u64, heard: &Heard) {
        let Heard { instance, announced, .. } = *heard;
        let sender = self.0.entry(heard.identity).or_insert(Sender {
            instance,
            announced,
            former: None,
            places: BTreeMap::new(),
            answers: false,
        });
        if sender.instance != instance {
            // Another run counts its generations anew, with other keys.
            *sender = Sender {
                instance,
                announced,
                former: None,
                places: BTreeMap::new(),
                answers: false,
            };
        }
        let before = sender.announced.sending();
        if before != announced.sending() {
            sender.former = Some((before, now_ms + GRACE_MS));
        }
        sender.announced = announced;
        sender.places.insert(heard.interface, heard.mac);
        sender.answers |= heard.holds.is_some();
    }

    /// Forgets all who are no members any more; says whether there were any.
    pub fn keep(&mut self, members: &BTreeSet<Mac>) -> bool {
        let before = self.0.len();
        self.0.retain(|identity, _| members.contains(identity));
        self.0.len() != before
    }

    /// The keys to be held on an interface, by the address of the interface that sends with them.
    pub fn wanted(&self, now_ms: u64, interface: u32) -> BTreeMap<Mac, Keys> {
        let places = self.0.values().filter_map(|sender| {
            let mac = *sender.places.get(&interface)?;
            Some((mac, sender.keys(now_ms, mac)))
        });
        places.collect()
    }

    /// The newest key of a machine, as sent from the interface `mac`.
    pub fn newest(&self, identity: Mac, instance: u64, mac: Mac) -> Option<KeyName> {
        let sender = self.0.get(&identity).filter(|sender| sender.instance == instance)?;
        Some(KeyName { mac, instance, generation: sender.announced.generation })
    }

    /// Whether a machine has said that it can understand this node.
    pub fn answers(&self, identity: Mac, instance: u64) -> bool {
        self.0.get(&identity).is_some_and(|sender| sender.instance == instance && sender.answers)
    }
}

impl Sender {
    fn keys(&self, now_ms: u64, mac: Mac) -> Keys {
        let former = self.former.filter(|(_, until_ms)| now_ms < *until_ms);
        let former = former.map(|(generation, _)| generation);
        // In this order: where two share a number, the later one needs it.
        let generations =
            former.into_iter().chain([self.announced.sending(), self.announced.generation]);
        generations
            .filter(|generation| *generation != 0)
            .map(|generation| {
                let name = KeyName { mac, instance: self.instance, generation };
                (association(generation), name)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 9]);

    fn heard(instance: u64, generation: u32, pending: bool) -> Heard {
        Heard {
            identity: MAC,
            instance,
            interface: 2,
            mac: MAC,
            announced: Announced { generation, pending },
            holds: None,
        }
    }

    fn generations(senders: &Senders, now_ms: u64) -> Vec<u32> {
        let wanted = senders.wanted(now_ms, 2);
        wanted[&MAC].values().map(|name| name.generation).collect()
    }

    #[test]
    fn the_next_key_is_held_early_and_the_former_one_for_a_while() {
        let mut senders = Senders::default();
        senders.hear(0, &heard(1, 5, false));
        assert_eq!(generations(&senders, 0), [5]);
        senders.hear(10, &heard(1, 6, true));
        assert_eq!(generations(&senders, 10), [5, 6]);
        senders.hear(20, &heard(1, 6, false));
        assert_eq!(generations(&senders, 20), [5, 6]);
        assert_eq!(generations(&senders, 20 + GRACE_MS), [6]);
    }

    #[test]
    fn missed_announcements_are_caught_up_with() {
        let mut senders = Senders::default();
        senders.hear(0, &heard(1, 5, false));
        senders.hear(10, &heard(1, 9, true));
        let wanted = &senders.wanted(10, 2)[&MAC];
        assert_eq!(wanted[&0].generation, 8);
        assert_eq!(wanted[&1].generation, 9, "5 had the same number and gives way");
        assert_eq!(wanted.len(), 2);
    }

    #[test]
    fn another_run_has_nothing_of_the_one_before() {
        let mut senders = Senders::default();
        senders.hear(0, &Heard { holds: Some(1), ..heard(1, 5, false) });
        assert!(senders.answers(MAC, 1));
        senders.hear(10, &heard(2, 1, false));
        let wanted = &senders.wanted(10, 2)[&MAC];
        assert_eq!(wanted[&1], KeyName { mac: MAC, instance: 2, generation: 1 });
        assert_eq!(wanted.len(), 1);
        assert!(!senders.answers(MAC, 1) && !senders.answers(MAC, 2));
    }

    #[test]
    fn keys_are_held_wherever_the_sender_was_heard() {
        let mut senders = Senders::default();
        let other = Mac([2, 0, 0, 0, 0, 10]);
        senders.hear(0, &heard(1, 1, false));
        senders.hear(10, &Heard { interface: 3, mac: other, ..heard(1, 1, false) });
        assert_eq!(senders.wanted(10, 2)[&MAC].len(), 1);
        assert_eq!(senders.wanted(10, 3)[&other][&1].mac, other);
        assert!(senders.keep(&BTreeSet::new()));
        assert!(senders.wanted(10, 2).is_empty());
        assert!(!senders.keep(&BTreeSet::new()));
    }
}
