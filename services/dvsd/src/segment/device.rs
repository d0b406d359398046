// SPDX-License-Identifier: MIT OR Apache-2.0
//! What one MACsec device has been told, and what it is still to be told.
//!
//! As with the kernel's tables, a plan is a pure function of what is there and what is wanted; a
//! call that failed is planned again. One thing is not: a key that this node may have sent with is
//! never given to the device a second time.

use std::collections::BTreeMap;
use std::fmt;

use dvs_config::Mac;

use super::key::{association, KeyName};
use super::schedule::Announced;
use super::senders::Keys;

/// Something to tell a MACsec device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Take a key of this node's own.
    AddOwnKey(KeyName),
    /// Send with the key of this number.
    SendWith(u8),
    /// Forget an own key.
    RemoveOwnKey(u8),
    /// Expect frames from an interface of another node.
    AddSender(Mac),
    /// Expect none any more.
    RemoveSender(Mac),
    /// Take a key to understand a sender.
    AddKey(KeyName),
    /// Forget one.
    RemoveKey(Mac, u8),
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddOwnKey(name) => write!(f, "add this node's key {}", name.generation),
            Self::SendWith(association) => write!(f, "send with association {association}"),
            Self::RemoveOwnKey(association) => {
                write!(f, "remove this node's key of association {association}")
            }
            Self::AddSender(mac) => write!(f, "expect frames from {mac}"),
            Self::RemoveSender(mac) => write!(f, "expect no more frames from {mac}"),
            Self::AddKey(KeyName { mac, generation, .. }) => {
                write!(f, "add key {generation} of {mac}")
            }
            Self::RemoveKey(mac, association) => {
                write!(f, "remove the key of association {association} of {mac}")
            }
        }
    }
}

/// What a device has been told since it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    own: BTreeMap<u8, KeyName>,
    sends: Option<u8>,
    senders: BTreeMap<Mac, Keys>,
}

/// What a device should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// This node's newest key for the device.
    pub newest: KeyName,
    /// Whether the one before is still to be sent with.
    pub pending: bool,
    /// The keys of others.
    pub senders: BTreeMap<Mac, Keys>,
}

impl Wanted {
    /// What follows from the announcement of the run `instance` for its interface `mac`.
    pub fn new(
        announced: Announced,
        mac: Mac,
        instance: u64,
        senders: BTreeMap<Mac, Keys>,
    ) -> Self {
        let newest = KeyName { mac, instance, generation: announced.generation };
        Self { newest, pending: announced.pending, senders }
    }

    fn sending(&self) -> KeyName {
        KeyName { generation: self.newest.generation - u32::from(self.pending), ..self.newest }
    }
}

impl Told {
    /// The calls that make the device know what it should. Keys to understand others come first.
    pub fn plan(&self, wanted: &Wanted) -> Vec<Call> {
        let mut told = self.clone();
        let mut calls = Vec::new();
        let mut call = |told: &mut Self, call: Call| {
            told.done(&call);
            calls.push(call);
        };
        let gone = |mac: &Mac| !wanted.senders.contains_key(mac);
        for mac in self.senders.keys().copied().filter(gone) {
            call(&mut told, Call::RemoveSender(mac));
        }
        for (mac, keys) in &wanted.senders {
            let held = self.senders.get(mac).cloned().unwrap_or_default();
            if !self.senders.contains_key(mac) {
                call(&mut told, Call::AddSender(*mac));
            }
            for (association, name) in &held {
                if keys.get(association) != Some(name) {
                    call(&mut told, Call::RemoveKey(*mac, *association));
                }
            }
            for (association, name) in keys {
                if held.get(association) != Some(name) {
                    call(&mut told, Call::AddKey(*name));
                }
            }
        }
        let sending = wanted.sending();
        for name in [sending, wanted.newest] {
            let number = name.association();
            if name.generation == 0 || told.own.get(&number) == Some(&name) {
                continue;
            }
            if told.own.contains_key(&number) {
                call(&mut told, Call::RemoveOwnKey(number));
            }
            call(&mut told, Call::AddOwnKey(name));
        }
        if sending.generation != 0 && told.sends != Some(sending.association()) {
            call(&mut told, Call::SendWith(sending.association()));
        }
        let stale = |name: &&KeyName| ![sending, wanted.newest].contains(name);
        for name in self.own.values().filter(stale) {
            if told.own.get(&name.association()) == Some(name) {
                call(&mut told, Call::RemoveOwnKey(name.association()));
            }
        }
        calls
    }

    /// Records a call that the device took.
    pub fn done(&mut self, call: &Call) {
        match *call {
            Call::AddOwnKey(name) => {
                self.own.insert(name.association(), name);
            }
            Call::SendWith(association) => self.sends = Some(association),
            Call::RemoveOwnKey(association) => {
                self.own.remove(&association);
                if self.sends == Some(association) {
                    self.sends = None;
                }
            }
            Call::AddSender(mac) => {
                self.senders.entry(mac).or_default();
            }
            Call::RemoveSender(mac) => {
                self.senders.remove(&mac);
            }
            Call::AddKey(name) => {
                self.senders.entry(name.mac).or_default().insert(name.association(), name);
            }
            Call::RemoveKey(mac, association) => {
                if let Some(keys) = self.senders.get_mut(&mac) {
                    keys.remove(&association);
                }
            }
        }
    }

    /// Whether a key of another node's is there.
    pub fn holds(&self, name: &KeyName) -> bool {
        self.senders.get(&name.mac).and_then(|keys| keys.get(&name.association())) == Some(name)
    }

    /// Whether a generation of this node's own is there.
    pub fn has_own(&self, generation: u32) -> bool {
        let own = self.own.get(&association(generation));
        own.is_some_and(|name| name.generation == generation)
    }

    /// Whether the device has a key to send with.
    pub fn sends(&self) -> bool {
        self.sends.is_some()
    }

    /// Whether there is any key for frames from an interface of another node.
    pub fn understands(&self, mac: Mac) -> bool {
        self.senders.get(&mac).is_some_and(|keys| !keys.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const PEER: Mac = Mac([2, 0, 0, 0, 0, 9]);

    fn own(generation: u32) -> KeyName {
        KeyName { mac: OWN, instance: 7, generation }
    }

    fn peer(instance: u64, generation: u32) -> KeyName {
        KeyName { mac: PEER, instance, generation }
    }

    fn wanted(generation: u32, pending: bool, peers: &[KeyName]) -> Wanted {
        let mut senders = BTreeMap::new();
        if !peers.is_empty() {
            let keys = peers.iter().map(|name| (name.association(), *name)).collect();
            senders.insert(PEER, keys);
        }
        Wanted::new(Announced { generation, pending }, OWN, 7, senders)
    }

    fn carry_out(told: &mut Told, wanted: &Wanted) -> Vec<Call> {
        let calls = told.plan(wanted);
        calls.iter().for_each(|call| told.done(call));
        assert_eq!(told.plan(wanted), [], "a plan carried out leaves nothing to do");
        calls
    }

    #[test]
    fn a_new_device_understands_before_it_speaks() {
        let mut told = Told::default();
        let calls = carry_out(&mut told, &wanted(1, false, &[peer(3, 5)]));
        let expected = [
            Call::AddSender(PEER),
            Call::AddKey(peer(3, 5)),
            Call::AddOwnKey(own(1)),
            Call::SendWith(1),
        ];
        assert_eq!(calls, expected);
        assert!(told.holds(&peer(3, 5)) && !told.holds(&peer(4, 5)) && !told.holds(&peer(3, 1)));
        assert!(told.has_own(1) && !told.has_own(5));
    }

    #[test]
    fn a_rotation_adds_then_switches_then_removes() {
        let mut told = Told::default();
        carry_out(&mut told, &wanted(3, false, &[]));
        assert_eq!(carry_out(&mut told, &wanted(4, true, &[])), [Call::AddOwnKey(own(4))]);
        let calls = carry_out(&mut told, &wanted(4, false, &[]));
        assert_eq!(calls, [Call::SendWith(0), Call::RemoveOwnKey(3)]);
    }

    #[test]
    fn a_number_is_freed_before_another_key_gets_it() {
        let mut told = Told::default();
        carry_out(&mut told, &wanted(1, false, &[peer(3, 5)]));
        let calls = carry_out(&mut told, &wanted(1, false, &[peer(4, 1)]));
        assert_eq!(calls, [Call::RemoveKey(PEER, 1), Call::AddKey(peer(4, 1))]);
        assert_eq!(carry_out(&mut told, &wanted(1, false, &[])), [Call::RemoveSender(PEER)]);
        let calls = carry_out(&mut told, &wanted(5, false, &[]));
        let expected = [Call::RemoveOwnKey(1), Call::AddOwnKey(own(5)), Call::SendWith(1)];
        assert_eq!(calls, expected);
    }

    #[test]
    fn a_key_that_is_only_announced_is_not_sent_with() {
        let mut told = Told::default();
        assert_eq!(carry_out(&mut told, &wanted(1, true, &[])), [Call::AddOwnKey(own(1))]);
        assert!(!told.sends());
    }
}
