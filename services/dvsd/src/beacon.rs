// SPDX-License-Identifier: MIT OR Apache-2.0
//! Beacons: what nodes tell each other over multicast, and their form on the wire.
//!
//! A node says one kind of message again and again: who it is, how far it has come, and whom it hears that is
//! no member of its cluster. That is enough to find each other, to form a cluster and to join one; members notice failures by messages
//! to each other ([`swim`](crate::membership::swim)). Nothing is acknowledged and any beacon may be lost, since
//! the next one says everything again.
//!
//! | bytes | field |
//! |---|---|
//! | 4 | magic `dvsB` |
//! | 1 | version, [`VERSION`] |
//! | 1 + n | cluster name |
//! | 6 | identity of the sender |
//! | 8 | instance of the sender |
//! | 8 | counter |
//! | 6 | MAC address of the sending interface |
//! | 1 | phase |
//! | 2 | `bootstrap_expect` |
//! | 8 | cluster id |
//! | 4 | uptime in seconds |
//! | 2 + 4 + 4 + 4 | the sender's id, incarnation, how often it has contradicted, revision of the facts; incarnation 0: it is no member |
//! | 2 + 2 | members of the sender's cluster, and how many of them are not down |
//! | 2 + n | [`Facts`] of the sender |
//! | 1 + … | peers: flags 1: heard 1, confirmed 2, removed 4, known 8, with a place 16; identity 6, instance 8, and with a place id 2, incarnation 4 |
//! | 32 | HMAC-SHA256 of all that comes before, keyed by the cluster token |
//!
//! Numbers are little-endian. Peers are as many as fit: a sender that has more tells some in one
//! beacon and the others in the next ones. The part up to the sender's identity is the same in every version,
//! so that a node can at least say whom it does not understand. The tag is checked before anything
//! behind it is believed.

use std::fmt;

use dvk_abi::ioctl::{
    TRANSPORT_ETHERNET, TRANSPORT_QUIC, TRANSPORT_TCP, TRANSPORT_TIPC, TRANSPORT_UDP,
};
use dvs_api::Transport;
use dvs_config::Mac;
use hmac::{Hmac, KeyInit, Mac as _};
use sha2::Sha256;

use crate::membership::facts::{self, Facts};
use crate::membership::swim::record::{Claim, Health, Record};

/// Version of the format, and of that of [messages](crate::membership::swim::message).
pub const VERSION: u8 = 4;
/// Most members of a cluster: with as many, the failure detection has been simulated.
pub const MEMBERS_MAX: usize = 1_000;
/// Most machines that form a cluster together, since every beacon has room for a proposal of so many; more of them join it at once.
pub const FOUNDERS_MAX: usize = 44;
/// A beacon is never longer, so that it fits one Ethernet frame of the usual MTU.
pub const BYTES_MAX: usize = 1500 - 40 - 8;

const MAGIC: &[u8; 4] = b"dvsB";
pub(crate) const TAG_BYTES: usize = 32;
const PEER_BYTES: usize = 1 + 6 + 8;
const SEAT_BYTES: usize = 2 + 4;
/// All that is in a beacon but the cluster's name, facts and peers.
const FIXED_BYTES: usize =
    4 + 1 + 1 + 6 + 8 + 8 + 6 + 1 + 2 + 8 + 4 + (2 + 4 + 4 + 4) + (2 + 2) + 2 + 1 + TAG_BYTES;
/// Longest name of a cluster or a node.
pub(crate) const NAME_MAX: usize = 63;

const _: () = assert!(
    FIXED_BYTES + NAME_MAX + facts::BYTES_MAX + FOUNDERS_MAX * (PEER_BYTES + SEAT_BYTES)
        <= BYTES_MAX
);

/// Authenticates beacons: whoever has the same cluster token has the same key.
#[derive(Clone)]
pub struct Key(Hmac<Sha256>);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

impl Key {
    /// The key of a cluster token.
    pub fn new(token: &str) -> Self {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(b"dvs beacon key").expect("HMAC takes any key length");
        mac.update(token.as_bytes());
        let key = mac.finalize().into_bytes();
        Self(Hmac::new_from_slice(&key).expect("HMAC takes any key length"))
    }

    pub(crate) fn tag(&self, bytes: &[u8]) -> [u8; TAG_BYTES] {
        self.0.clone().chain_update(bytes).finalize().into_bytes().into()
    }

    pub(crate) fn proves(&self, bytes: &[u8], tag: &[u8]) -> bool {
        self.0.clone().chain_update(bytes).verify_slice(tag).is_ok()
    }
}

/// How far the sender of a beacon has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// In no cluster; `cluster` is the one it wants to join, or 0.
    Candidate,
    /// Proposes to form `cluster` of the peers that have ids.
    Proposer,
    /// Agrees to the proposal `cluster`, and to no other.
    Accepter,
    /// Member of `cluster`; its kernel tables are not complete yet.
    Member,
    /// Member of `cluster`, able to exchange messages with every live member.
    Ready,
    /// It was a member of `cluster` and is going: nothing more will be heard of this run of it.
    Leaving,
}

impl Phase {
    const ALL: [Self; 6] =
        [Self::Candidate, Self::Proposer, Self::Accepter, Self::Member, Self::Ready, Self::Leaving];

    /// Whether the sender belongs to a formed cluster.
    pub fn is_member(self) -> bool {
        matches!(self, Self::Member | Self::Ready)
    }
}

/// One machine as the sender of a beacon knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerEntry {
    /// The machine's identity.
    pub mac: Mac,
    /// Which run of its `dvsd`.
    pub instance: u64,
    /// The place that it has or is to get; `None` for one that is only heard.
    pub seat: Option<Seat>,
    /// Beacons of this instance arrive at the sender.
    pub heard: bool,
    /// They are known to be no replay of old ones.
    pub confirmed: bool,
    /// The nodes have agreed that it is not to be a member.
    pub removed: bool,
    /// The machine is a member, be it in an earlier run.
    pub known: bool,
}

impl PeerEntry {
    /// The bytes that it takes.
    pub fn length(&self) -> usize {
        PEER_BYTES + self.seat.map_or(0, |_| SEAT_BYTES)
    }
}

/// A place in a roster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seat {
    /// Node id.
    pub id: u16,
    /// Incarnation, from 1 up.
    pub incarnation: u32,
}

/// What is to carry a link. The greater one of two holds: the one with the higher revision, and of
/// two that were made at once that with the higher number of the transport.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Choice {
    /// 0 for the default, which nobody chose.
    pub revision: u32,
    /// What was chosen.
    pub transport: Transport,
}

/// The number of a transport, the same as in the kernel's interface.
pub fn transport_number(transport: Transport) -> u32 {
    match transport {
        Transport::Ethernet => TRANSPORT_ETHERNET,
        Transport::Tipc => TRANSPORT_TIPC,
        Transport::Tcp => TRANSPORT_TCP,
        Transport::Udp => TRANSPORT_UDP,
        Transport::Quic => TRANSPORT_QUIC,
    }
}

/// The transport of a number, if it is one's.
pub fn transport_of(number: u32) -> Option<Transport> {
    Transport::ALL.into_iter().find(|transport| transport_number(*transport) == number)
}

/// What a node tells all others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beacon {
    /// Name of the cluster the sender belongs to or looks for.
    pub cluster_name: String,
    /// The sender's identity: the lowest MAC address of its cluster interfaces.
    pub mac: Mac,
    /// A random number of this run of the sender's `dvsd`.
    pub instance: u64,
    /// Grows with every beacon of the instance.
    pub counter: u64,
    /// MAC address of the interface the beacon was sent from.
    pub link_mac: Mac,
    /// How far the sender has come.
    pub phase: Phase,
    /// The sender's `bootstrap_expect`.
    pub expect: u16,
    /// A cluster's id; its meaning depends on `phase`.
    pub cluster: u64,
    /// Seconds since the sender's `dvsd` started.
    pub uptime_s: u32,
    /// The sender's place in its cluster.
    pub place: Option<Place>,
    /// How many members the sender's cluster has.
    pub members: u16,
    /// How many of them are not down.
    pub live: u16,
    /// What the sender tells of itself.
    pub facts: Facts,
    /// Whoever is to become a member, or is heard and is none.
    pub peers: Vec<PeerEntry>,
}

/// The place of a beacon's sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its id and incarnation.
    pub seat: Seat,
    /// How often it has contradicted that it is down.
    pub refutation: u32,
    /// Revision of its facts.
    pub revision: u32,
}

/// Why a datagram is no beacon for this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Rejection {
    /// Not one of ours, or cut off.
    #[error("it is no well-formed beacon")]
    Malformed,
    /// Another version of the format.
    #[error("it uses version {0} of the beacon format, this node {VERSION}")]
    Version(u8),
    /// A cluster of another name.
    #[error("it belongs to another cluster")]
    OtherCluster,
    /// The same cluster name, but the tag does not match.
    #[error("it uses another cluster token")]
    Token,
    /// It is of this cluster, but does not encrypt, and this node does.
    #[error("it does not encrypt its messages")]
    Insecure,
    /// It is of this cluster and encrypts, and this node does not.
    #[error("it encrypts its messages")]
    Secure,
}

/// A rejection, and who sent the datagram as far as it says so itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// The identity it claims; nothing proves it.
    pub mac: Option<Mac>,
    /// Why.
    pub why: Rejection,
}

impl Beacon {
    /// The beacon with its tag.
    ///
    /// # Panics
    /// If there are more peers than [fit](Self::room): whoever makes a beacon keeps this limit.
    pub fn seal(&self, key: &Key) -> Vec<u8> {
        assert!(self.length() <= BYTES_MAX, "{} peers in a beacon", self.peers.len());
        let mut out = Vec::with_capacity(BYTES_MAX);
        out.extend_from_slice(MAGIC);
        out.push(VERSION);
        put_text(&mut out, &self.cluster_name, NAME_MAX);
        out.extend_from_slice(&self.mac.0);
        out.extend_from_slice(&self.instance.to_le_bytes());
        out.extend_from_slice(&self.counter.to_le_bytes());
        out.extend_from_slice(&self.link_mac.0);
        out.push(self.phase as u8);
        out.extend_from_slice(&self.expect.to_le_bytes());
        out.extend_from_slice(&self.cluster.to_le_bytes());
        out.extend_from_slice(&self.uptime_s.to_le_bytes());
        let nowhere = Place { seat: Seat { id: 0, incarnation: 0 }, refutation: 0, revision: 0 };
        let Place { seat, refutation, revision } = self.place.unwrap_or(nowhere);
        out.extend_from_slice(&seat.id.to_le_bytes());
        out.extend_from_slice(&seat.incarnation.to_le_bytes());
        out.extend_from_slice(&refutation.to_le_bytes());
        out.extend_from_slice(&revision.to_le_bytes());
        out.extend_from_slice(&self.members.to_le_bytes());
        out.extend_from_slice(&self.live.to_le_bytes());
        let facts = self.facts.to_bytes();
        out.extend_from_slice(&(facts.len() as u16).to_le_bytes());
        out.extend_from_slice(&facts);
        out.push(self.peers.len() as u8);
        for peer in &self.peers {
            out.push(
                u8::from(peer.heard)
                    | u8::from(peer.confirmed) << 1
                    | u8::from(peer.removed) << 2
                    | u8::from(peer.known) << 3
                    | u8::from(peer.seat.is_some()) << 4,
            );
            out.extend_from_slice(&peer.mac.0);
            out.extend_from_slice(&peer.instance.to_le_bytes());
            if let Some(seat) = peer.seat {
                out.extend_from_slice(&seat.id.to_le_bytes());
                out.extend_from_slice(&seat.incarnation.to_le_bytes());
            }
        }
        out.extend_from_slice(&key.tag(&out));
        debug_assert_eq!(out.len(), self.length());
        out
    }

    /// How many bytes of peers fit into this beacon beside those that it has.
    pub fn room(&self) -> usize {
        BYTES_MAX.saturating_sub(self.length())
    }

    fn length(&self) -> usize {
        let peers: usize = self.peers.iter().map(PeerEntry::length).sum();
        FIXED_BYTES + cut(&self.cluster_name, NAME_MAX).len() + self.facts.length() + peers
    }

    /// What the beacon says of its sender as a member.
    pub fn record(&self) -> Option<Record> {
        let Place { seat, refutation, revision } = self.place?;
        Some(Record {
            claim: Claim { seat, refutation, health: Health::Alive },
            mac: self.mac,
            instance: self.instance,
            revision,
            facts: self.facts.to_bytes().into(),
        })
    }

    /// Reads and authenticates a datagram that came to a node of the cluster `cluster_name`.
    ///
    /// # Errors
    /// Says why the datagram is none of this node's, and who claims to have sent it.
    pub fn open(bytes: &[u8], cluster_name: &str, key: &Key) -> Result<Self, Rejected> {
        let malformed = |mac| Rejected { mac, why: Rejection::Malformed };
        let mut head = Reader(bytes);
        if head.take(MAGIC.len()) != Some(MAGIC) {
            return Err(malformed(None));
        }
        let version = head.byte().ok_or(malformed(None))?;
        let name = head.text(NAME_MAX).ok_or(malformed(None))?.to_owned();
        let mac = head.mac().ok_or(malformed(None))?;
        let rejected = |why| Err(Rejected { mac: Some(mac), why });
        if name != cluster_name {
            return rejected(Rejection::OtherCluster);
        }
        if version != VERSION {
            return rejected(Rejection::Version(version));
        }
        let Some(signed) = bytes.len().checked_sub(TAG_BYTES) else {
            return Err(malformed(Some(mac)));
        };
        let (signed, tag) = bytes.split_at(signed);
        if !key.proves(signed, tag) {
            return rejected(Rejection::Token);
        }
        let read = bytes.len() - head.0.len();
        let mut body = Reader(signed.get(read..).ok_or(malformed(Some(mac)))?);
        Self::body(name, mac, &mut body).ok_or(malformed(Some(mac)))
    }

    /// Whether the sender protects its messages as this node does.
    ///
    /// # Errors
    /// Says that it does not.
    pub fn check_protection(&self, encrypts: bool) -> Result<(), Rejected> {
        let why = match (self.facts.keys.is_some(), encrypts) {
            (false, true) => Rejection::Insecure,
            (true, false) => Rejection::Secure,
            _ => return Ok(()),
        };
        Err(Rejected { mac: Some(self.mac), why })
    }

    fn body(cluster_name: String, mac: Mac, body: &mut Reader<'_>) -> Option<Self> {
        let beacon = Self {
            cluster_name,
            mac,
            instance: body.u64()?,
            counter: body.u64()?,
            link_mac: body.mac()?,
            phase: *Phase::ALL.get(usize::from(body.byte()?))?,
            expect: body.u16()?,
            cluster: body.u64()?,
            uptime_s: body.u32()?,
            place: {
                let seat = Seat { id: body.u16()?, incarnation: body.u32()? };
                let (refutation, revision) = (body.u32()?, body.u32()?);
                // Incarnations start at 1.
                (seat.incarnation != 0).then_some(Place { seat, refutation, revision })
            },
            members: body.u16()?,
            live: body.u16()?,
            facts: {
                let length = usize::from(body.u16()?);
                Facts::read(body.take(length)?)?
            },
            peers: {
                let count = usize::from(body.byte()?);
                (0..count).map(|_| body.peer()).collect::<Option<_>>()?
            },
        };
        body.0.is_empty().then_some(beacon)
    }
}

pub(crate) fn put_text(out: &mut Vec<u8>, text: &str, max: usize) {
    let text = cut(text, max);
    out.push(text.len() as u8);
    out.extend_from_slice(text.as_bytes());
}

/// The beginning of a text, of at most so many bytes.
pub(crate) fn cut(text: &str, max: usize) -> &str {
    let end = (0..=max.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    &text[..end]
}

/// Takes fields off the front; `None` where the bytes end too soon.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(crate) fn byte(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn mac(&mut self) -> Option<Mac> {
        self.array().map(Mac)
    }

    /// A text is shown to people and written to logs: control characters would let a stranger
    /// write there what he likes.
    pub(crate) fn text(&mut self, max: usize) -> Option<&'a str> {
        let length = usize::from(self.byte()?);
        if length > max {
            return None;
        }
        let text = std::str::from_utf8(self.take(length)?).ok()?;
        (!text.chars().any(char::is_control)).then_some(text)
    }

    fn peer(&mut self) -> Option<PeerEntry> {
        let flags = self.byte()?;
        if flags >> 5 != 0 {
            return None;
        }
        Some(PeerEntry {
            mac: self.mac()?,
            instance: self.u64()?,
            seat: match flags & 16 {
                0 => None,
                _ => Some(Seat { id: self.u16()?, incarnation: self.u32()? }),
            },
            heard: flags & 1 != 0,
            confirmed: flags & 2 != 0,
            removed: flags & 4 != 0,
            known: flags & 8 != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::Announced;

    fn beacon(peers: usize) -> Beacon {
        Beacon {
            cluster_name: "dvs".into(),
            mac: Mac([2, 0, 0, 0, 0, 1]),
            instance: 0x1122_3344_5566_7788,
            counter: 9,
            link_mac: Mac([2, 0, 0, 0, 1, 1]),
            phase: Phase::Ready,
            expect: 4,
            cluster: 77,
            uptime_s: 12,
            place: Some(Place { seat: Seat { id: 6, incarnation: 2 }, refutation: 3, revision: 5 }),
            members: 300,
            live: 299,
            facts: Facts {
                keys: Some(Announced { generation: 3, pending: true }),
                management: Some("10.0.2.15".parse().unwrap()),
                release: "0.1.0".into(),
                ..Facts::default()
            },
            peers: (0..peers)
                .map(|n| PeerEntry {
                    mac: Mac([2, 0, 0, 0, 0, n as u8]),
                    instance: n as u64,
                    seat: (n % 3 != 0).then_some(Seat { id: n as u16, incarnation: 1 + n as u32 }),
                    heard: n % 2 == 0,
                    confirmed: n % 5 == 0,
                    removed: n % 4 == 1,
                    known: n % 7 == 0,
                })
                .collect(),
        }
    }

    #[test]
    fn what_is_sealed_opens_unchanged() {
        let key = Key::new("sixteen letters or more");
        for peers in [0, 1, 7, FOUNDERS_MAX] {
            for place in [None, beacon(0).place] {
                let beacon = Beacon { place, ..beacon(peers) };
                assert_eq!(Beacon::open(&beacon.seal(&key), "dvs", &key), Ok(beacon));
            }
        }
    }

    #[test]
    fn the_longest_beacon_has_room_for_a_proposal_and_fits_one_frame() {
        let mut longest = Beacon {
            cluster_name: "c".repeat(NAME_MAX),
            facts: Facts {
                name: "n".repeat(NAME_MAX),
                release: "9".repeat(100),
                management: Some("fd00::1".parse().unwrap()),
                interfaces: vec![(Mac([2; 6]), std::net::Ipv6Addr::LOCALHOST); 9],
                ..Facts::default()
            },
            ..beacon(0)
        };
        let seat = Some(Seat { id: 1, incarnation: 1 });
        let entry = PeerEntry { seat, ..beacon(1).peers[0] };
        assert!(longest.room() >= FOUNDERS_MAX * entry.length(), "{}", longest.room());
        while longest.room() >= entry.length() {
            longest.peers.push(entry);
        }
        let bytes = longest.seal(&Key::new("t")).len();
        assert!(bytes <= BYTES_MAX, "{bytes}");
    }

    #[test]
    fn a_usual_beacon_tells_of_all_that_form_a_cluster_and_some_more() {
        let facts = Facts {
            name: "node51".into(),
            release: "0.1.0".into(),
            interfaces: vec![(Mac([2; 6]), std::net::Ipv6Addr::LOCALHOST)],
            ..Facts::default()
        };
        let usual = Beacon { facts, ..beacon(0) };
        let entries = usual.room() / PeerEntry { seat: None, ..beacon(1).peers[0] }.length();
        assert!(entries >= FOUNDERS_MAX + 30, "{entries}");
    }

    #[test]
    fn strangers_are_told_apart() {
        let (key, other) = (Key::new("one token of many"), Key::new("another token"));
        let sealed = beacon(3).seal(&key);
        let mac = Some(Mac([2, 0, 0, 0, 0, 1]));
        let why = |bytes: &[u8], name, key| Beacon::open(bytes, name, key).unwrap_err();
        assert_eq!(why(&sealed, "dvs", &other), Rejected { mac, why: Rejection::Token });
        assert_eq!(why(&sealed, "dvs2", &key), Rejected { mac, why: Rejection::OtherCluster });
        let mut newer = sealed.clone();
        newer[4] = VERSION + 1;
        assert_eq!(
            why(&newer, "dvs", &key),
            Rejected { mac, why: Rejection::Version(VERSION + 1) }
        );
        assert_eq!(why(b"hello", "dvs", &key), Rejected { mac: None, why: Rejection::Malformed });
    }

    #[test]
    fn no_byte_can_be_changed_and_no_end_cut_off() {
        let key = Key::new("sixteen letters or more");
        let sealed = beacon(2).seal(&key);
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 0x10;
            assert!(Beacon::open(&changed, "dvs", &key).is_err(), "byte {at}");
            assert!(Beacon::open(&sealed[..at], "dvs", &key).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_signed_beacon_with_senseless_fields_is_malformed() {
        let key = Key::new("sixteen letters or more");
        let resign = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = beacon(1).seal(&key);
            bytes.truncate(bytes.len() - TAG_BYTES);
            change(&mut bytes);
            bytes.extend_from_slice(&key.tag(&bytes));
            Beacon::open(&bytes, "dvs", &key).map_err(|rejected| rejected.why)
        };
        assert!(resign(&|_| ()).is_ok());
        let malformed = Err(Rejection::Malformed);
        let phase = 4 + 1 + 4 + 6 + 8 + 8 + 6;
        assert_eq!(resign(&|bytes| bytes[phase] = 6), malformed);
        // The first of the facts: neither ready nor not.
        let facts = phase + 1 + 2 + 8 + 4 + 14 + 4 + 2;
        assert_eq!(resign(&|bytes| bytes[facts] = 2), malformed);
        assert_eq!(resign(&|bytes| bytes[facts - 1] = 0xff), malformed);
        assert_eq!(resign(&|bytes| bytes.push(0)), malformed);
        let flags = |bytes: &mut Vec<u8>| bytes.len() - PEER_BYTES;
        assert_eq!(
            resign(&|bytes| {
                let at = flags(bytes);
                bytes[at] = 0x20
            }),
            malformed
        );
        // With a place, which is not there.
        assert_eq!(
            resign(&|bytes| {
                let at = flags(bytes);
                bytes[at] |= 16
            }),
            malformed
        );
        assert_eq!(resign(&|bytes| bytes.truncate(bytes.len() - 1)), malformed);
        let newline = beacon(1);
        let facts = Facts { name: "a\nerror: b".into(), ..newline.facts.clone() };
        let newline = Beacon { facts, ..newline }.seal(&key);
        assert_eq!(Beacon::open(&newline, "dvs", &key).unwrap_err().why, Rejection::Malformed);
    }
}
