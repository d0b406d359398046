// SPDX-License-Identifier: MIT OR Apache-2.0
//! The link state machine: two links and a network between them, in virtual time.
//!
//! In half of the cases the network loses, repeats, delays and cuts frames, or is cut itself, and the
//! links end and begin anew: what arrives must be what was sent, in order and once. In the other half it forges
//! as well; then only safety is asked for, since nothing tells a well-made forgery from the truth.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use dvk_abi::wire::frame::{Frame, Versions, HEADER_BYTES, MAX_PAYLOAD_BYTES};
use dvk_core::link::{Config, Event, Link, Slot, State, Storage, SubmitError, Timing};

use crate::host::Counts;
use crate::hostile::spoil;
use crate::rng::Rng;

const MS: u64 = 1_000_000;
/// Steps of a case.
const STEPS: u64 = 120;
/// How long the network is honest at the end: longer than the longest timeouts.
const HEALED: u64 = 20_000 * MS;
/// More frames than a link has reason to send at once.
const BURST_MAX: u32 = 400;

/// Memory of a link, from the heap. It refuses a share of the buffers asked for.
#[derive(Debug)]
pub struct Vecs {
    rng: Rng,
    refused_percent: u64,
}

impl Default for Vecs {
    fn default() -> Self {
        Self { rng: Rng::new(0), refused_percent: 0 }
    }
}

impl Storage for Vecs {
    type Buffer = Vec<u8>;
    type Slots = Vec<Slot<Vec<u8>>>;

    fn slots(&mut self, count: usize) -> Option<Self::Slots> {
        Some((0..count).map(|_| Slot::EMPTY).collect())
    }

    fn buffer(&mut self, bytes: usize) -> Option<Vec<u8>> {
        (!self.rng.percent(self.refused_percent)).then(|| vec![0xee; bytes])
    }
}

/// A node.
struct Host {
    link: Link<Vecs>,
    payload_bytes: usize,
    /// Number of its stream, and of the next record in it.
    life: u32,
    next: u32,
    /// What it heard last: the peer's life and the number of the record.
    heard: Option<(u32, u32)>,
    partial: Vec<u8>,
    /// It was refused a record for want of room, and waits to hear that there is some.
    wants_room: bool,
}

struct World {
    rng: Rng,
    now: u64,
    hosts: [Host; 2],
    /// Frames on their way, by the time of arrival and a number that makes it unique.
    network: BTreeMap<(u64, u64), (usize, Vec<u8>)>,
    frames: u64,
    old: Vec<Vec<u8>>,
    forging: bool,
    /// The hosts have no version of the protocol in common.
    foreign: bool,
    loss: u64,
    /// Until when nothing arrives at all.
    cut_until: u64,
    honest: bool,
}

/// One world, from the first greeting to the end.
pub(crate) fn case(rng: &mut Rng, counts: &mut Counts) -> Result<(), String> {
    let mut world = World::new(rng);
    for _ in 0..STEPS {
        world.step(counts)?;
    }
    world.honest = true;
    (world.hosts[0].link.storage_mut().refused_percent, world.loss) = (0, 0);
    world.hosts[1].link.storage_mut().refused_percent = 0;
    let healed = world.now + HEALED;
    while world.now < healed {
        world.advance(counts, healed)?;
    }
    if world.forging {
        return Ok(());
    }
    for (at, host) in world.hosts.iter().enumerate() {
        if world.foreign {
            if host.link.state() == State::Up || host.heard.is_some() {
                return Err(format!("host {at} took in what it cannot understand"));
            }
            continue;
        }
        let sent = host.next.checked_sub(1).map(|last| (host.life, last));
        let heard = world.hosts[1 - at].heard.filter(|(life, _)| *life == host.life);
        if host.link.state() != State::Up {
            return Err(format!(
                "host {at} is {:?} long after the network healed",
                host.link.state()
            ));
        }
        if host.wants_room {
            return Err(format!("host {at} was refused for want of room and never heard of any"));
        }
        if sent != heard {
            return Err(format!("host {at} sent {sent:?}, and the other heard {heard:?}"));
        }
    }
    Ok(())
}

fn incarnation() -> NonZeroU32 {
    NonZeroU32::MIN
}

impl World {
    fn new(rng: &mut Rng) -> Self {
        let mut rng = Rng::new(rng.draw());
        let forging = rng.percent(50);
        let foreign = !forging && rng.percent(3);
        let hosts = [0u16, 1].map(|node| {
            let config = Config {
                cluster: 1,
                local_node: node,
                peer_node: 1 - node,
                local_incarnation: incarnation(),
                versions: match node {
                    1 if foreign => Versions { min: 3, max: 4 },
                    // The second is a version behind, now and then.
                    1 if rng.percent(30) => Versions::up_to(1),
                    _ => Versions::SUPPORTED,
                },
                receive_window: 1 + rng.below(64) as u16,
                first_sequence: rng.pick(&[0, u32::MAX - 5, 77]),
                timing: Timing::DEFAULT,
            };
            let refused_percent = rng.pick(&[0, 0, 5, 30]);
            let storage = Vecs { rng: Rng::new(rng.draw()), refused_percent };
            let payload_bytes = rng.pick(&[512, 1400, 9000, MAX_PAYLOAD_BYTES]);
            let link =
                Link::new(config, storage).unwrap_or_else(|_| unreachable!("slots are given"));
            Host {
                link,
                payload_bytes,
                life: 0,
                next: 0,
                heard: None,
                partial: Vec::new(),
                wants_room: false,
            }
        });
        let loss = rng.pick(&[0, 5, 30]);
        let mut world = Self {
            rng,
            now: MS,
            hosts,
            network: BTreeMap::new(),
            frames: 0,
            old: Vec::new(),
            forging,
            foreign,
            loss,
            cut_until: 0,
            honest: false,
        };
        for at in 0..2 {
            let (now, host) = (world.now, &mut world.hosts[at]);
            // It is never below what the protocol needs.
            let _ = host.link.attach(now, host.payload_bytes);
            world.begin(at);
        }
        world
    }

    /// Host `at` begins a stream.
    fn begin(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        host.link.peer_up(self.now, incarnation());
        (host.life, host.next) = (host.life + 1, 0);
        host.partial.clear();
        host.wants_room = false;
    }

    fn step(&mut self, counts: &mut Counts) -> Result<(), String> {
        let at = self.rng.below(2) as usize;
        let now = self.now;
        match self.rng.below(100) {
            0..=49 => self.submit(at, counts),
            50..=51 => {
                counts.call("peer down and up");
                self.hosts[at].link.peer_down();
                self.begin(at);
            }
            52..=53 => {
                let host = &mut self.hosts[at];
                host.link.detach();
                let payload = self.rng.pick(&[100, 512, host.payload_bytes, MAX_PAYLOAD_BYTES]);
                match host.link.attach(now, payload) {
                    Ok(()) => counts.call("attached"),
                    Err(error) => {
                        counts.call(&format!("attaching refused: {error:?}"));
                        // As before, or nothing would ever flow again.
                        let _ = host.link.attach(now, host.payload_bytes);
                    }
                }
            }
            54 => {
                counts.call("network cut");
                self.cut_until = now + self.rng.below(6_000 * MS);
                while self.now < self.cut_until {
                    self.advance(counts, self.cut_until)?;
                }
            }
            55..=61 if self.forging => self.forge(at),
            _ => {
                let until = now + self.rng.below(80 * MS);
                self.advance(counts, until)?;
            }
        }
        self.pump(at, counts)
    }

    fn submit(&mut self, at: usize, counts: &mut Counts) {
        let host = &mut self.hosts[at];
        let len = self.rng.pick(&[8, 9, 100, 700, 5_000, 66_000]);
        let mut record = Vec::with_capacity(len);
        record.extend(host.life.to_le_bytes());
        record.extend(host.next.to_le_bytes());
        record.resize(len, host.next as u8);
        let bulk = self.rng.percent(40);
        let (name, submitted) = if bulk {
            ("bulk record", host.link.submit_bulk(&record))
        } else {
            ("record", host.link.submit(&record))
        };
        match submitted {
            Ok(()) => {
                host.next += 1;
                counts.call(&format!("{name} taken"));
            }
            Err(error) => {
                host.wants_room |= error == SubmitError::Full;
                counts.call(&format!("{name} refused: {error:?}"));
            }
        }
    }

    /// A frame of before, or one like it, to anybody.
    fn forge(&mut self, at: usize) {
        if self.old.is_empty() {
            return;
        }
        let nth = self.rng.below(self.old.len() as u64) as usize;
        let mut frame = self.old[nth].clone();
        spoil(&mut self.rng, &mut frame);
        self.frames += 1;
        self.network.insert((self.now + 1, self.frames), (at, frame));
    }

    /// Lets time pass to the next thing that happens, but not beyond `until`.
    fn advance(&mut self, counts: &mut Counts, until: u64) -> Result<(), String> {
        let arrival = self.network.keys().next().map(|(at, _)| *at);
        let deadlines = self.hosts.iter().filter_map(|host| host.link.next_deadline());
        let next = deadlines.chain(arrival).min().unwrap_or(until).min(until);
        self.now = self.now.max(next);
        if self.now == until {
            self.now = until;
        }
        while let Some(entry) = self.network.first_entry() {
            if entry.key().0 > self.now {
                break;
            }
            let (to, frame) = entry.remove();
            self.arrive(to, &frame, counts)?;
            self.pump(to, counts)?;
        }
        for at in 0..2 {
            let due = self.hosts[at].link.next_deadline().is_some_and(|at| at <= self.now);
            if due {
                counts.call("timer");
                let now = self.now;
                self.hosts[at].link.on_timer(now);
                if self.hosts[at].link.next_deadline().is_some_and(|at| at <= now) {
                    return Err(format!("host {at} wants its timer at once, for ever"));
                }
                self.pump(at, counts)?;
            }
        }
        Ok(())
    }

    fn arrive(&mut self, to: usize, bytes: &[u8], counts: &mut Counts) -> Result<(), String> {
        let Ok(frame) = Frame::decode(bytes) else {
            counts.call("frame refused: not one");
            return Ok(());
        };
        let mut chunks: Vec<(bool, bool, Vec<u8>)> = Vec::new();
        let link = &mut self.hosts[to].link;
        match link.on_frame(self.now, &frame) {
            Ok(arrived) => {
                counts.call(&format!("frame taken: {:?}", frame.header.kind));
                chunks.extend(arrived.map(|chunk| (chunk.first, chunk.last, chunk.data.to_vec())));
                while let Some(stored) = link.next_stored() {
                    let more = stored.chunks();
                    chunks.extend(more.map(|chunk| (chunk.first, chunk.last, chunk.data.to_vec())));
                }
            }
            Err(reject) => counts.call(&format!("frame refused: {reject:?}")),
        }
        for (first, last, data) in chunks {
            if first {
                self.hosts[to].partial.clear();
            }
            self.hosts[to].partial.extend(data);
            if last {
                let record = core::mem::take(&mut self.hosts[to].partial);
                self.hear(to, &record)?;
            }
        }
        Ok(())
    }

    /// A record came out of the link of host `to`.
    fn hear(&mut self, to: usize, record: &[u8]) -> Result<(), String> {
        if self.forging {
            return Ok(());
        }
        let word = |at: usize| {
            let bytes = record.get(at..at + 4).and_then(|bytes| bytes.first_chunk());
            bytes.map(|bytes| u32::from_le_bytes(*bytes)).ok_or("a record that nobody sent")
        };
        let (life, number) = (word(0)?, word(4)?);
        if record[8..].iter().any(|byte| *byte != number as u8) {
            return Err(format!("record {number} of life {life} came with another content"));
        }
        let expected = match self.hosts[to].heard {
            Some((heard, last)) if heard == life => last + 1,
            Some((heard, _)) if heard > life => {
                return Err(format!("life {life} was heard after {heard}"));
            }
            _ => 0,
        };
        if number != expected {
            return Err(format!("host {to} heard record {number} of life {life}, not {expected}"));
        }
        self.hosts[to].heard = Some((life, number));
        Ok(())
    }

    /// Does what the link of host `at` asks for.
    fn pump(&mut self, at: usize, counts: &mut Counts) -> Result<(), String> {
        while let Some(event) = self.hosts[at].link.poll_event() {
            counts.call(&format!("event: {event:?}"));
            match event {
                Event::Reset => self.begin(at),
                Event::Room => self.hosts[at].wants_room = false,
                _ => {}
            }
        }
        let mut out = vec![0; HEADER_BYTES + MAX_PAYLOAD_BYTES];
        let mut burst = 0;
        while let Some(bytes) = self.hosts[at].link.poll_transmit(self.now, &mut out) {
            counts.call("frame sent");
            let frame = &out[..bytes];
            if Frame::decode(frame).is_err() {
                return Err(format!("host {at} sent what is no frame: {frame:02x?}"));
            }
            burst += 1;
            if burst > BURST_MAX {
                return Err(format!("host {at} does not stop sending"));
            }
            self.send(1 - at, frame.to_vec());
        }
        Ok(())
    }

    fn send(&mut self, to: usize, frame: Vec<u8>) {
        if self.old.len() < 64 && self.rng.percent(20) {
            self.old.push(frame.clone());
        }
        let copies = match self.rng.below(100) {
            _ if self.honest => 1,
            _ if self.now < self.cut_until => 0,
            chance if chance < self.loss => 0,
            95.. => 2,
            _ => 1,
        };
        for _ in 0..copies {
            let mut frame = frame.clone();
            if !self.honest && self.rng.percent(2) {
                let len = self.rng.below(frame.len() as u64) as usize;
                frame.truncate(len);
            }
            let delay = if self.honest { MS } else { 1 + self.rng.below(20 * MS) };
            self.frames += 1;
            self.network.insert((self.now + delay, self.frames), (to, frame));
        }
    }
}
