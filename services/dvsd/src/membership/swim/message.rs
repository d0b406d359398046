// SPDX-License-Identifier: MIT OR Apache-2.0
//! What members send each other, and its form on the wire.
//!
//! | bytes | field |
//! |---|---|
//! | 4 | magic `dvsM` |
//! | 1 | version, [`VERSION`]: the same as that of beacons, and changed with it |
//! | 8 | cluster id |
//! | 2 | id of the sender |
//! | 8 | instance of the sender |
//! | 8 | instance of the receiver |
//! | 8 | counter of the sender's instance |
//! | 16 | aside, for the receiver only: version 4, the newest version of the receiver's that the sender has 4, [`Aside`] 8 |
//! | 1 | kind: ping 0, ping for another 1, answer 2, digests 3, news 4, records 5 |
//! | n | ping: number 4; ping for another: number 4, target 2; answer: number 4, whose 2; digests: 64 × 4; others: none |
//! | 1 + 11 n | claims: id 2, incarnation 4, refutation 4, health 1 |
//! | 1 + … | records: a claim 11, identity 6, instance 8, revision 4, facts 2 + n |
//! | 32 | HMAC-SHA256 of all that comes before, keyed by the cluster token |
//!
//! Numbers are little-endian. A message never exceeds [`BYTES_MAX`].

use dvs_config::Mac;

use super::record::{Claim, Health, Record, FACTS_MAX};
use crate::beacon::{Key, Reader, Rejection, Seat, BYTES_MAX, TAG_BYTES, VERSION};

/// Into how many groups ids are put to compare what two nodes know.
pub const GROUPS: usize = 64;
/// What every message begins with, and no other datagram.
pub const MAGIC: &[u8; 4] = b"dvsM";
const CLAIM_BYTES: usize = 11;
const HEAD_BYTES: usize = 4 + 1 + 8 + 2 + 8 + 8 + 8 + ASIDE_BYTES + 1;
const ASIDE_BYTES: usize = 4 + 4 + 8;

/// What one member tells another one and nobody else. Its form is not this module's business.
pub type Aside = [u8; 8];

/// The aside of a message, and the answer to the other one's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asides {
    /// Grows with every change; 0 for nothing.
    pub version: u32,
    /// The newest version of the receiver's aside that the sender has.
    pub seen: u32,
    /// What is told.
    pub told: Aside,
}

/// What a message is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Asks for an answer.
    Ping {
        /// Comes back in the answer.
        number: u32,
    },
    /// Asks to ask another one.
    PingFor {
        /// Comes back in the answer.
        number: u32,
        /// Whom to ask.
        target: u16,
    },
    /// An answer.
    Answer {
        /// The question's.
        number: u32,
        /// Who answers; it is another than the sender if the sender was asked to ask.
        whose: u16,
    },
    /// What the sender knows, in short: who knows otherwise sends records.
    Digests(Box<[u32; GROUPS]>),
    /// Nothing but what every message carries.
    News,
    /// Records in answer to digests.
    Records,
}

/// A message between members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Id of the cluster.
    pub cluster: u64,
    /// Who sends it.
    pub from: u16,
    /// The sender's instance.
    pub instance: u64,
    /// The receiver's instance, so that what was recorded means nothing to a later one.
    pub to_instance: u64,
    /// Never the same again from this instance.
    pub counter: u64,
    /// What only the receiver is told.
    pub asides: Asides,
    /// What it is for.
    pub body: Body,
    /// News of health.
    pub claims: Vec<Claim>,
    /// News of other kinds.
    pub records: Vec<Record>,
}

impl Message {
    /// Its bytes on the wire without claims and records.
    pub fn bare_bytes(body: &Body) -> usize {
        let body = match body {
            Body::Ping { .. } => 4,
            Body::PingFor { .. } | Body::Answer { .. } => 6,
            Body::Digests(_) => 4 * GROUPS,
            Body::News | Body::Records => 0,
        };
        HEAD_BYTES + body + 1 + 1 + TAG_BYTES
    }

    /// The bytes that a record takes.
    pub fn record_bytes(record: &Record) -> usize {
        CLAIM_BYTES + 6 + 8 + 4 + 2 + record.facts.len()
    }

    /// The bytes that a claim takes.
    pub const fn claim_bytes() -> usize {
        CLAIM_BYTES
    }

    /// The message with its tag.
    pub fn seal(&self, key: &Key) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        out.extend_from_slice(MAGIC);
        out.push(VERSION);
        out.extend_from_slice(&self.cluster.to_le_bytes());
        out.extend_from_slice(&self.from.to_le_bytes());
        out.extend_from_slice(&self.instance.to_le_bytes());
        out.extend_from_slice(&self.to_instance.to_le_bytes());
        out.extend_from_slice(&self.counter.to_le_bytes());
        out.extend_from_slice(&self.asides.version.to_le_bytes());
        out.extend_from_slice(&self.asides.seen.to_le_bytes());
        out.extend_from_slice(&self.asides.told);
        match &self.body {
            Body::Ping { number } => {
                out.push(0);
                out.extend_from_slice(&number.to_le_bytes());
            }
            Body::PingFor { number, target: id } | Body::Answer { number, whose: id } => {
                out.push(if matches!(self.body, Body::Answer { .. }) { 2 } else { 1 });
                out.extend_from_slice(&number.to_le_bytes());
                out.extend_from_slice(&id.to_le_bytes());
            }
            Body::Digests(digests) => {
                out.push(3);
                digests.iter().for_each(|digest| out.extend_from_slice(&digest.to_le_bytes()));
            }
            Body::News => out.push(4),
            Body::Records => out.push(5),
        }
        out.push(self.claims.len() as u8);
        self.claims.iter().for_each(|claim| put_claim(&mut out, claim));
        out.push(self.records.len() as u8);
        for record in &self.records {
            put_claim(&mut out, &record.claim);
            out.extend_from_slice(&record.mac.0);
            out.extend_from_slice(&record.instance.to_le_bytes());
            out.extend_from_slice(&record.revision.to_le_bytes());
            out.extend_from_slice(&(record.facts.len() as u16).to_le_bytes());
            out.extend_from_slice(&record.facts);
        }
        out.extend_from_slice(&key.tag(&out));
        debug_assert!(out.len() <= BYTES_MAX, "{} bytes", out.len());
        out
    }

    /// Whether a datagram is a message, of whatever version and token.
    pub fn is_one(bytes: &[u8]) -> bool {
        bytes.starts_with(MAGIC)
    }

    /// Reads and authenticates a message.
    ///
    /// # Errors
    /// Says why it is none of this version and token.
    pub fn open(bytes: &[u8], key: &Key) -> Result<Self, Rejection> {
        let version = bytes.strip_prefix(MAGIC).and_then(|rest| rest.first());
        match version {
            Some(&VERSION) => {}
            Some(other) => return Err(Rejection::Version(*other)),
            None => return Err(Rejection::Malformed),
        }
        let signed = bytes.len().checked_sub(TAG_BYTES).and_then(|end| bytes.split_at_checked(end));
        let (signed, tag) = signed.ok_or(Rejection::Malformed)?;
        if !key.proves(signed, tag) {
            return Err(Rejection::Token);
        }
        let rest = signed.get(MAGIC.len() + 1..).ok_or(Rejection::Malformed)?;
        Self::read(Reader(rest)).ok_or(Rejection::Malformed)
    }

    fn read(mut reader: Reader<'_>) -> Option<Self> {
        let (cluster, from) = (reader.u64()?, reader.u16()?);
        let (instance, to_instance, counter) = (reader.u64()?, reader.u64()?, reader.u64()?);
        let (version, seen) = (reader.u32()?, reader.u32()?);
        let asides = Asides { version, seen, told: reader.take(8)?.try_into().ok()? };
        let body = match reader.byte()? {
            0 => Body::Ping { number: reader.u32()? },
            1 => Body::PingFor { number: reader.u32()?, target: reader.u16()? },
            2 => Body::Answer { number: reader.u32()?, whose: reader.u16()? },
            3 => {
                let mut digests = Box::new([0; GROUPS]);
                for digest in digests.iter_mut() {
                    *digest = reader.u32()?;
                }
                Body::Digests(digests)
            }
            4 => Body::News,
            5 => Body::Records,
            _ => return None,
        };
        let claims = (0..reader.byte()?).map(|_| claim(&mut reader)).collect::<Option<_>>()?;
        let records = (0..reader.byte()?).map(|_| record(&mut reader)).collect::<Option<_>>()?;
        let end = reader.0.is_empty();
        let message =
            Self { cluster, from, instance, to_instance, counter, asides, body, claims, records };
        end.then_some(message)
    }
}

fn put_claim(out: &mut Vec<u8>, claim: &Claim) {
    out.extend_from_slice(&claim.seat.id.to_le_bytes());
    out.extend_from_slice(&claim.seat.incarnation.to_le_bytes());
    out.extend_from_slice(&claim.refutation.to_le_bytes());
    out.push(claim.health as u8);
}

fn claim(reader: &mut Reader<'_>) -> Option<Claim> {
    let seat = Seat { id: reader.u16()?, incarnation: reader.u32()? };
    let refutation = reader.u32()?;
    let health = *Health::ALL.get(usize::from(reader.byte()?))?;
    Some(Claim { seat, refutation, health })
}

fn record(reader: &mut Reader<'_>) -> Option<Record> {
    let claim = claim(reader)?;
    let mac: Mac = reader.mac()?;
    let (instance, revision) = (reader.u64()?, reader.u32()?);
    let length = usize::from(reader.u16()?);
    if length > FACTS_MAX {
        return None;
    }
    Some(Record { claim, mac, instance, revision, facts: reader.take(length)?.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<Message> {
        let seat = Seat { id: 3, incarnation: 2 };
        let claim = Claim { seat, refutation: 5, health: Health::Suspect };
        let record = Record {
            claim,
            mac: Mac([2, 0, 0, 0, 0, 3]),
            instance: 9,
            revision: 4,
            facts: vec![7; FACTS_MAX].into(),
        };
        let bodies = [
            Body::Ping { number: 1 },
            Body::PingFor { number: 2, target: 3 },
            Body::Answer { number: 4, whose: 5 },
            Body::Digests(Box::new([6; GROUPS])),
            Body::News,
            Body::Records,
        ];
        let message = |body| Message {
            cluster: 1,
            from: 2,
            instance: 3,
            to_instance: 4,
            counter: 5,
            asides: Asides { version: 6, seen: 7, told: [8; 8] },
            body,
            claims: vec![claim; 3],
            records: vec![record.clone()],
        };
        bodies.into_iter().map(message).collect()
    }

    #[test]
    fn a_message_is_read_as_it_was_written_and_takes_as_many_bytes_as_is_said() {
        let key = Key::new("token");
        for message in samples() {
            let sealed = message.seal(&key);
            let claims = CLAIM_BYTES * message.claims.len();
            let records: usize = message.records.iter().map(Message::record_bytes).sum();
            assert_eq!(sealed.len(), Message::bare_bytes(&message.body) + claims + records);
            assert!(Message::is_one(&sealed));
            assert_eq!(Message::open(&sealed, &key), Ok(message));
        }
    }

    #[test]
    fn nothing_that_was_changed_or_cut_or_is_of_another_token_is_read() {
        let key = Key::new("token");
        for message in samples() {
            let sealed = message.seal(&key);
            assert_eq!(Message::open(&sealed, &Key::new("other")), Err(Rejection::Token));
            let mut newer = sealed.clone();
            newer[MAGIC.len()] = VERSION + 1;
            assert_eq!(Message::open(&newer, &key), Err(Rejection::Version(VERSION + 1)));
            for at in 0..sealed.len() {
                assert!(Message::open(&sealed[..at], &key).is_err(), "cut at {at}");
                let mut changed = sealed.clone();
                changed[at] ^= 1;
                assert!(Message::open(&changed, &key).is_err(), "byte {at}");
            }
        }
    }
}
