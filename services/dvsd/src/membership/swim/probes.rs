// SPDX-License-Identifier: MIT OR Apache-2.0
//! Questions that are waiting for an answer: this node's own, and those it asks for others.

use std::collections::BTreeMap;

#[derive(Debug)]
struct Probe {
    target: u16,
    started_ms: u64,
    until_ms: u64,
    /// Others were asked to ask.
    helped: bool,
    /// Somebody got an answer.
    reached: bool,
}

#[derive(Debug)]
struct Relay {
    target: u16,
    origin: u16,
    number: u32,
    until_ms: u64,
}

/// What has become of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It was not answered in time: others are to ask, and this node once more.
    Help { target: u16, number: u32, started_ms: u64 },
    /// Others got an answer, this node did not.
    Reached { target: u16 },
    /// Nobody got an answer.
    Silent { target: u16 },
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Probes {
    own: BTreeMap<u32, Probe>,
    relays: BTreeMap<u32, Relay>,
    last: u32,
}

impl Probes {
    fn number(&mut self) -> u32 {
        self.last = self.last.wrapping_add(1);
        self.last
    }

    /// Begins a probe, unless there is one of the target. Gives its number.
    pub(super) fn start(&mut self, target: u16, now_ms: u64, answer_ms: u64) -> Option<u32> {
        if self.own.values().any(|probe| probe.target == target) {
            return None;
        }
        let number = self.number();
        let until_ms = now_ms + answer_ms;
        let probe = Probe { target, started_ms: now_ms, until_ms, helped: false, reached: false };
        self.own.insert(number, probe);
        Some(number)
    }

    /// Begins a question for another node. Gives its number.
    pub(super) fn relay(&mut self, target: u16, origin: u16, number: u32, until_ms: u64) -> u32 {
        let own = self.number();
        self.relays.insert(own, Relay { target, origin, number, until_ms });
        own
    }

    /// Whom an answer is to be passed on to, and with which number.
    pub(super) fn relayed(&mut self, from: u16, number: u32) -> Option<(u16, u32)> {
        self.relays.get(&number).filter(|relay| relay.target == from)?;
        self.relays.remove(&number).map(|relay| (relay.origin, relay.number))
    }

    /// Takes an answer of `whose` that came from `from`. Says whether it was waited for.
    pub(super) fn answered(&mut self, from: u16, number: u32, whose: u16) -> bool {
        let Some(probe) = self.own.get_mut(&number).filter(|probe| probe.target == whose) else {
            return false;
        };
        match from == whose {
            true => drop(self.own.remove(&number)),
            false => probe.reached = true,
        }
        true
    }

    /// What is due.
    pub(super) fn due(&mut self, now_ms: u64, help_ms: u64) -> Vec<Outcome> {
        self.relays.retain(|_, relay| relay.until_ms > now_ms);
        let mut outcomes = Vec::new();
        self.own.retain(|number, probe| {
            let Probe { target, started_ms, .. } = *probe;
            if probe.until_ms > now_ms {
                return true;
            }
            if !probe.helped {
                probe.helped = true;
                probe.until_ms = now_ms + help_ms;
                outcomes.push(Outcome::Help { target, number: *number, started_ms });
                return true;
            }
            outcomes.push(match probe.reached {
                true => Outcome::Reached { target },
                false => Outcome::Silent { target },
            });
            false
        });
        outcomes
    }

    /// Forgets what was asked of a member.
    pub(super) fn drop(&mut self, target: u16) {
        self.own.retain(|_, probe| probe.target != target);
        self.relays.retain(|_, relay| relay.target != target);
    }

    /// Forgets what was asked of everybody.
    pub(super) fn forgive(&mut self) {
        self.own.clear();
    }
}
