// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sessions between two proxies: how they begin and follow each other.
//!
//! There is a session to send by, the one before, by which the peer may still send, and, at the end that answers, one
//! that it was not heard by yet. So nothing is lost while one replaces the other: each end sends by the new one only when it knows that the
//! peer has it, and opens what comes by any of the three.

use super::packet::{Challenge, Packet, AUTHENTICATION_BYTES, CHALLENGE_BYTES, HANDSHAKE_BYTES};
use super::session::{Session, NUMBERS};
use crate::protection::{Ends, Keys, Use};
use core::fmt;
use core::time::Duration;
use dvs_secret::Key;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use snow::{Builder, HandshakeState};
use std::collections::VecDeque;
use std::sync::Arc;
use subtle::ConstantTimeEq;

/// The keys of a session serve for so long.
pub(crate) const RENEW_AFTER: Duration = Duration::from_secs(120);
/// Or for so many datagrams in a direction.
const RENEW_AFTER_NUMBERS: u64 = NUMBERS / 2;
/// A session that could not be replaced is given up after this.
pub(crate) const LIFE: Duration = Duration::from_secs(600);
/// How long the session before is kept for what is still under way.
const PREVIOUS_LIFE: Duration = Duration::from_secs(15);
/// What is not answered is sent again after this.
const REPEAT: Duration = Duration::from_millis(250);
/// A challenge that nobody asked for is sent, and heeded, once in this time.
const UNASKED_EVERY: Duration = Duration::from_millis(500);

/// Challenges that served and are remembered, so that nobody who has recorded them can make us begin again. One that is forgotten
/// costs a handshake that changes nothing.
const SPENT_MAX: usize = 256;

const PATTERN: &str = "Noise_NNpsk0_25519_ChaChaPoly_SHA256";
const PROLOGUE: &[u8] = b"dvs-link datagrams 1";

/// What came of a datagram that is not data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing to tell.
    Fine,
    /// There are new keys.
    Agreed,
    /// Its sender does not know the shared key, or has changed it on its way.
    Forged,
    /// It is an old one.
    Replayed,
}

/// Fills bytes at random.
pub(crate) type Random<'a> = &'a mut dyn FnMut(&mut [u8]);

/// A handshake that was begun.
struct Begun {
    own: u32,
    state: HandshakeState,
    datagram: Vec<u8>,
    challenge: Challenge,
    sent: Duration,
}

/// A handshake that was answered.
struct Answered {
    initiation: [u8; HANDSHAKE_BYTES],
    response: Vec<u8>,
}

/// The two parts of a handshake.
enum Part {
    Begins { begun: Option<Box<Begun>>, challenge: Challenge, spent: VecDeque<Challenge> },
    Answers { challenge: Challenge, answered: Option<Answered> },
}

/// One end of the sessions between two proxies.
pub(crate) struct Tunnel {
    shared: Key,
    authenticating: Key,
    part: Part,
    current: Option<Arc<Session>>,
    previous: Option<(Arc<Session>, Duration)>,
    /// At the end that answers: not used by the peer yet.
    next: Option<Arc<Session>>,
    /// When the last challenge that nobody asked for was sent or heeded.
    unasked: Option<Duration>,
    /// When the peer was asked last whether it has the session.
    asked: Option<Duration>,
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel").field("current", &self.current).finish_non_exhaustive()
    }
}

impl Tunnel {
    /// An end that has no session yet.
    pub(crate) fn new(keys: &Keys, ends: Ends, random: Random<'_>) -> Self {
        let part = if ends.own < ends.peer {
            Part::Begins { begun: None, challenge: [0; CHALLENGE_BYTES], spent: VecDeque::new() }
        } else {
            Part::Answers { challenge: challenge(random), answered: None }
        };
        Self {
            shared: keys.between(ends, Use::Handshake),
            authenticating: keys.between(ends, Use::Challenge),
            part,
            current: None,
            previous: None,
            next: None,
            unasked: None,
            asked: None,
        }
    }

    /// By which session frames are to be sent.
    pub(crate) fn current(&self) -> Option<&Arc<Session>> {
        self.current.as_ref()
    }

    /// The session that the peer names like this.
    pub(crate) fn session(&self, own: u32) -> Option<&Arc<Session>> {
        let previous = self.previous.as_ref().map(|(session, _)| session);
        let all = [self.current.as_ref(), previous, self.next.as_ref()];
        all.into_iter().flatten().find(|session| session.own() == own)
    }

    /// Data was opened by a session: it is the one to send by, if it was to be. Data without a frame asks whether this end has it.
    pub(crate) fn heard(
        &mut self,
        own: u32,
        asks: bool,
        now: Duration,
        out: &mut Vec<Vec<u8>>,
    ) -> Outcome {
        let promoted = self.next.take_if(|next| next.own() == own);
        let outcome = if promoted.is_some() { Outcome::Agreed } else { Outcome::Fine };
        if promoted.is_some() {
            self.replace(promoted, now);
        }
        if let (true, Part::Answers { .. }, Some(session)) = (asks, &self.part, self.session(own)) {
            ask(session, out);
        }
        outcome
    }

    /// Somebody sends by a session that is not there (any more): this proxy was started anew.
    pub(crate) fn missed(&mut self, now: Duration, out: &mut Vec<Vec<u8>>) {
        if matches!(self.part, Part::Answers { .. }) {
            self.ask_for_a_handshake(now, out);
        }
    }

    /// What is to be done at this time. To be called several times a second.
    pub(crate) fn tick(&mut self, now: Duration, random: Random<'_>, out: &mut Vec<Vec<u8>>) {
        if self.current.as_ref().is_some_and(|it| now.saturating_sub(it.born) > LIFE) {
            self.current = None;
        }
        if self
            .previous
            .as_ref()
            .is_some_and(|(_, since)| now.saturating_sub(*since) > PREVIOUS_LIFE)
        {
            self.previous = None;
        }
        let due = self.current.as_ref().is_none_or(|session| {
            now.saturating_sub(session.born) > RENEW_AFTER || session.sealed() > RENEW_AFTER_NUMBERS
        });
        match &mut self.part {
            Part::Begins { begun: Some(begun), .. } => {
                if now.saturating_sub(begun.sent) >= REPEAT {
                    begun.sent = now;
                    out.push(begun.datagram.clone());
                }
            }
            Part::Begins { .. } if due => self.begin(now, random, out),
            Part::Begins { .. } => {
                let unheard = self.current.as_ref().filter(|session| !session.was_heard());
                let waited = self.asked.is_none_or(|at| now.saturating_sub(at) >= REPEAT);
                if let Some(session) = unheard.filter(|_| waited) {
                    self.asked = Some(now);
                    ask(session, out);
                }
            }
            // Keys that are used up are an exception; without a session, the peer is to hear of us.
            Part::Answers { .. } if due && self.next.is_none() => {
                let late = self.current.as_ref().is_none_or(|session| {
                    now.saturating_sub(session.born) > RENEW_AFTER * 2
                        || session.sealed() > RENEW_AFTER_NUMBERS
                });
                if late {
                    self.ask_for_a_handshake(now, out);
                }
            }
            Part::Answers { .. } => {}
        }
    }

    /// Takes a datagram that is not data.
    pub(crate) fn receive(
        &mut self,
        packet: &Packet<'_>,
        now: Duration,
        random: Random<'_>,
        out: &mut Vec<Vec<u8>>,
    ) -> Outcome {
        match *packet {
            Packet::Challenge { to, challenge, authentication } => {
                self.challenged(to, challenge, &authentication, now, random, out)
            }
            Packet::Initiation { from, message } => self.answer(from, message, now, random, out),
            Packet::Response { to, from, message } => self.complete(to, from, message, now, out),
            Packet::Data { .. } => Outcome::Fine,
        }
    }

    fn begin(&mut self, now: Duration, random: Random<'_>, out: &mut Vec<Vec<u8>>) {
        let Part::Begins { begun, challenge, .. } = &mut self.part else { return };
        // The library knows its pattern, and its keys have their length: it does not fail but for want of randomness.
        let Some(mut state) = handshake(&self.shared, true) else { return };
        let own = name(random);
        let mut message = [0; HANDSHAKE_BYTES];
        if state.write_message(challenge, &mut message) != Ok(HANDSHAKE_BYTES) {
            return;
        }
        let datagram = Packet::Initiation { from: own, message: &message }.encode();
        out.push(datagram.clone());
        let challenge = *challenge;
        *begun = Some(Box::new(Begun { own, state, datagram, challenge, sent: now }));
    }

    fn challenged(
        &mut self,
        to: u32,
        new: Challenge,
        authentication: &[u8; AUTHENTICATION_BYTES],
        now: Duration,
        random: Random<'_>,
        out: &mut Vec<Vec<u8>>,
    ) -> Outcome {
        let expected = authenticate(&self.authenticating, to, &new);
        if !bool::from(expected.ct_eq(authentication)) {
            return Outcome::Forged;
        }
        let Part::Begins { begun, challenge, spent } = &mut self.part else {
            return Outcome::Replayed;
        };
        match begun {
            Some(begun) if begun.own == to && begun.challenge == new => return Outcome::Replayed,
            Some(begun) if begun.own == to => {}
            // What is under way will be told if it is in vain.
            Some(_) => return Outcome::Fine,
            None if to != 0 || spent.contains(&new) => return Outcome::Replayed,
            None => {
                if self.unasked.is_some_and(|at| now.saturating_sub(at) < UNASKED_EVERY) {
                    return Outcome::Replayed;
                }
                self.unasked = Some(now);
            }
        }
        *challenge = new;
        self.begin(now, random, out);
        Outcome::Fine
    }

    fn answer(
        &mut self,
        from: u32,
        message: &[u8; HANDSHAKE_BYTES],
        now: Duration,
        random: Random<'_>,
        out: &mut Vec<Vec<u8>>,
    ) -> Outcome {
        let Part::Answers { challenge: expected, answered } = &mut self.part else {
            return Outcome::Forged;
        };
        if let Some(answered) = answered.as_ref().filter(|known| known.initiation == *message) {
            // The response was lost, or this is a replay; the same answer tells nobody anything.
            out.push(answered.response.clone());
            return Outcome::Replayed;
        }
        let Some(mut state) = handshake(&self.shared, false) else { return Outcome::Fine };
        let mut shown = [0; HANDSHAKE_BYTES];
        // Up to here, hashes and the opening of 16 bytes: no point of a curve is multiplied for who does not know the key.
        if state.read_message(message, &mut shown) != Ok(CHALLENGE_BYTES) {
            return Outcome::Forged;
        }
        if shown[..CHALLENGE_BYTES] != *expected {
            let authentication = authenticate(&self.authenticating, from, expected);
            let challenge = *expected;
            out.push(Packet::Challenge { to: from, challenge, authentication }.encode());
            return Outcome::Fine;
        }
        // It has served.
        *expected = challenge(random);
        let mut response = [0; HANDSHAKE_BYTES];
        if state.write_message(expected, &mut response) != Ok(HANDSHAKE_BYTES) {
            return Outcome::Fine;
        }
        let Ok(keys) = state.into_stateless_transport_mode() else { return Outcome::Fine };
        let own = name(random);
        let response = Packet::Response { to: from, from: own, message: &response }.encode();
        out.push(response.clone());
        *answered = Some(Answered { initiation: *message, response });
        self.next = Some(Arc::new(Session::new(own, from, keys, now)));
        Outcome::Fine
    }

    fn complete(
        &mut self,
        to: u32,
        from: u32,
        message: &[u8; HANDSHAKE_BYTES],
        now: Duration,
        out: &mut Vec<Vec<u8>>,
    ) -> Outcome {
        let Part::Begins { begun, challenge, spent } = &mut self.part else {
            return Outcome::Forged;
        };
        let Some(waiting) = begun.as_mut().filter(|begun| begun.own == to) else {
            return Outcome::Replayed;
        };
        let mut next = [0; HANDSHAKE_BYTES];
        // After a failure the library is where it was before, so that forgers cannot end a handshake.
        if waiting.state.read_message(message, &mut next) != Ok(CHALLENGE_BYTES) {
            return Outcome::Forged;
        }
        challenge.copy_from_slice(&next[..CHALLENGE_BYTES]);
        let Some(waiting) = begun.take() else { return Outcome::Fine };
        spent.truncate(SPENT_MAX - 1);
        spent.push_front(waiting.challenge);
        let Ok(keys) = waiting.state.into_stateless_transport_mode() else { return Outcome::Fine };
        let session = Arc::new(Session::new(to, from, keys, now));
        // The peer sends by it when it has heard something.
        ask(&session, out);
        self.asked = Some(now);
        self.replace(Some(session), now);
        Outcome::Agreed
    }

    fn ask_for_a_handshake(&mut self, now: Duration, out: &mut Vec<Vec<u8>>) {
        let Part::Answers { challenge, .. } = self.part else { return };
        if self.unasked.is_some_and(|at| now.saturating_sub(at) < UNASKED_EVERY) {
            return;
        }
        self.unasked = Some(now);
        let authentication = authenticate(&self.authenticating, 0, &challenge);
        out.push(Packet::Challenge { to: 0, challenge, authentication }.encode());
    }

    fn replace(&mut self, session: Option<Arc<Session>>, now: Duration) {
        self.previous = core::mem::replace(&mut self.current, session).map(|old| (old, now));
    }
}

/// Data without a frame asks for the same.
fn ask(session: &Session, out: &mut Vec<Vec<u8>>) {
    let mut datagram = Vec::new();
    if session.seal(&[], &mut datagram) {
        out.push(datagram);
    }
}

fn handshake(shared: &Key, begins: bool) -> Option<HandshakeState> {
    let builder = Builder::new(PATTERN.parse().ok()?).prologue(PROLOGUE).ok()?;
    let builder = builder.psk(0, shared).ok()?;
    if begins { builder.build_initiator() } else { builder.build_responder() }.ok()
}

fn challenge(random: Random<'_>) -> Challenge {
    let mut challenge = [0; CHALLENGE_BYTES];
    random(&mut challenge);
    challenge
}

/// A name for a session, not 0.
fn name(random: Random<'_>) -> u32 {
    let mut bytes = [0; 4];
    random(&mut bytes);
    u32::from_le_bytes(bytes).max(1)
}

fn authenticate(key: &Key, to: u32, challenge: &Challenge) -> [u8; AUTHENTICATION_BYTES] {
    // A key of any length will do.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&key[..]) else {
        return [0; AUTHENTICATION_BYTES];
    };
    mac.update(&to.to_le_bytes());
    mac.update(challenge);
    let mut authentication = [0; AUTHENTICATION_BYTES];
    authentication.copy_from_slice(&mac.finalize().into_bytes()[..AUTHENTICATION_BYTES]);
    authentication
}

#[cfg(test)]
mod tests;
