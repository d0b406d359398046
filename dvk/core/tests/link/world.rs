// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Two nodes and the network between them, in virtual time, with a model that judges what is
//! delivered.

use dvk_core::abi::wire::frame::{Frame, Header, Kind, Versions, HEADER_BYTES};
use dvk_core::link::{Config, Event, Link, Slot, State, Storage, SubmitError, Timing};
use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU32;

pub(crate) const MS: u64 = 1_000_000;
pub(crate) const S: u64 = 1_000 * MS;
pub(crate) const CLUSTER: u64 = 0x1122_3344_5566_7788;

/// SplitMix64.
pub(crate) struct Rng(pub u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    pub(crate) fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }
}

/// Storage of `Vec`s that refuses a share of the buffers asked for.
pub(crate) struct Vecs {
    pub(crate) refuse_percent: u64,
    pub(crate) rng: Rng,
}

impl Storage for Vecs {
    type Buffer = Vec<u8>;
    type Slots = Vec<Slot<Vec<u8>>>;

    fn slots(&mut self, count: usize) -> Option<Self::Slots> {
        Some((0..count).map(|_| Slot::EMPTY).collect())
    }

    fn buffer(&mut self, bytes: usize) -> Option<Vec<u8>> {
        (!self.rng.percent(self.refuse_percent)).then(|| vec![0xee; bytes])
    }
}

pub(crate) fn incarnation(value: u32) -> NonZeroU32 {
    NonZeroU32::new(value).expect("incarnations are not 0")
}

pub(crate) fn config(local: u16, peer: u16, run: u32) -> Config {
    Config {
        cluster: CLUSTER,
        local_node: local,
        peer_node: peer,
        local_incarnation: incarnation(run),
        versions: Versions::SUPPORTED,
        receive_window: 64,
        first_sequence: 0,
        timing: Timing::DEFAULT,
    }
}

/// What the network does to frames; percentages, and nanoseconds.
#[derive(Clone, Copy, Default)]
pub(crate) struct Faults {
    pub(crate) loss: u64,
    pub(crate) duplicate: u64,
    pub(crate) truncate: u64,
    pub(crate) garbage: u64,
    /// Replays any frame ever sent.
    pub(crate) replay: u64,
    pub(crate) delay: u64,
    pub(crate) jitter: u64,
    pub(crate) refuse_buffers: u64,
}

/// A node: its link and what the model knows of it.
pub(crate) struct Host {
    pub(crate) link: Link<Vecs>,
    pub(crate) run: u32,
    pub(crate) first_sequence: u32,
    pub(crate) payload_bytes: usize,
    /// Number of the current life of the stream at this end, over all runs.
    pub(crate) life: u32,
    /// Records submitted in this life.
    pub(crate) submitted: u32,
    /// Life of the peer that this stream hears, and the number of the next record of it.
    pub(crate) hearing: Option<(u32, u32)>,
    /// No life up to this may be heard any more.
    pub(crate) heard_life: u32,
    pub(crate) partial: Vec<u8>,
    /// Length of every record submitted, by life and number.
    pub(crate) lengths: HashMap<(u32, u32), usize>,
    pub(crate) events: Vec<Event>,
    pub(crate) frames: HashMap<u8, u64>,
    acked: Option<(u32, u32)>,
}

impl Host {
    fn begin_life(&mut self) {
        self.life += 1;
        self.submitted = 0;
        self.partial.clear();
        if let Some((life, _)) = self.hearing.take() {
            self.heard_life = life;
        }
    }

    /// Gives the model's record; returns whether the link took it.
    pub(crate) fn submit(&mut self, bytes: usize) -> Result<(), SubmitError> {
        self.submit_by(bytes, Link::submit)
    }

    /// Gives the model's record as bulk data.
    pub(crate) fn submit_bulk(&mut self, bytes: usize) -> Result<(), SubmitError> {
        self.submit_by(bytes, Link::submit_bulk)
    }

    fn submit_by(
        &mut self,
        bytes: usize,
        submit: impl FnOnce(&mut Link<Vecs>, &[u8]) -> Result<(), SubmitError>,
    ) -> Result<(), SubmitError> {
        let record = content(self.life, self.submitted, bytes.max(8));
        submit(&mut self.link, &record)?;
        self.lengths.insert((self.life, self.submitted), record.len());
        self.submitted += 1;
        Ok(())
    }
}

pub(crate) fn content(life: u32, number: u32, bytes: usize) -> Vec<u8> {
    let mut record = Vec::with_capacity(bytes);
    record.extend(life.to_le_bytes());
    record.extend(number.to_le_bytes());
    while record.len() < bytes {
        record.push((record.len() as u32).wrapping_mul(31).wrapping_add(number) as u8);
    }
    record
}

pub(crate) struct World {
    pub(crate) now: u64,
    pub(crate) hosts: [Host; 2],
    pub(crate) faults: Faults,
    pub(crate) rng: Rng,
    /// Frames under way: by time and a number, to whom.
    air: BTreeMap<(u64, u64), (usize, Vec<u8>)>,
    flown: u64,
    pub(crate) sent: u64,
    history: Vec<(usize, Vec<u8>)>,
    pub(crate) context: String,
}

impl World {
    pub(crate) fn new(
        seed: u64,
        faults: Faults,
        first_sequence: [u32; 2],
        payload: [usize; 2],
    ) -> Self {
        let now = 5 * S;
        let host = |index: usize| Host {
            link: make(index, 1, first_sequence[index], faults, seed),
            run: 1,
            first_sequence: first_sequence[index],
            payload_bytes: payload[index],
            life: 1,
            submitted: 0,
            hearing: None,
            heard_life: 0,
            partial: Vec::new(),
            lengths: HashMap::new(),
            events: Vec::new(),
            frames: HashMap::new(),
            acked: None,
        };
        let mut world = Self {
            now,
            hosts: [host(0), host(1)],
            faults,
            rng: Rng(seed),
            air: BTreeMap::new(),
            flown: 0,
            sent: 0,
            history: Vec::new(),
            context: format!("seed {seed}"),
        };
        for index in 0..2 {
            let payload_bytes = world.hosts[index].payload_bytes;
            world.hosts[index].link.attach(now, payload_bytes).expect("payload is long enough");
        }
        world
    }

    /// Both control planes know of both nodes.
    pub(crate) fn connect(&mut self) {
        for index in 0..2 {
            let run = self.hosts[1 - index].run;
            self.hosts[index].link.peer_up(self.now, incarnation(run));
            self.pump(index);
        }
    }

    /// The control plane of `index` ends the stream and begins a new one.
    pub(crate) fn flap(&mut self, index: usize) {
        self.hosts[index].link.peer_down();
        self.pump(index);
        self.tell(index);
    }

    /// The control plane of `index` learns which run of the peer there is.
    pub(crate) fn tell(&mut self, index: usize) {
        let run = incarnation(self.hosts[1 - index].run);
        if self.hosts[index].link.peer_incarnation() != Some(run) {
            self.hosts[index].begin_life();
            self.hosts[index].link.peer_up(self.now, run);
        }
        self.pump(index);
    }

    /// Node `index` boots again; its peer is not told yet.
    pub(crate) fn reboot(&mut self, index: usize) {
        let faults = self.faults;
        let seed = self.rng.next();
        let host = &mut self.hosts[index];
        host.run += 1;
        host.link = make(index, host.run, host.first_sequence, faults, seed);
        host.acked = None;
        host.link.attach(self.now, host.payload_bytes).expect("payload is long enough");
        self.tell(index);
    }

    /// Hands over whatever the link of `index` has for its owner and for the network.
    pub(crate) fn pump(&mut self, index: usize) {
        let mut out = vec![0u8; HEADER_BYTES + 16_384];
        loop {
            while let Some(event) = self.hosts[index].link.poll_event() {
                self.hosts[index].events.push(event);
                if event == Event::Reset {
                    assert_eq!(self.hosts[index].link.state(), State::Broken, "{}", self.context);
                    let run = self.hosts[1 - index].run;
                    let host = &mut self.hosts[index];
                    host.begin_life();
                    // What was told stays told: the owner does not learn of a reboot this way.
                    let told = host.link.peer_incarnation().unwrap_or(incarnation(run));
                    host.link.peer_up(self.now, told);
                }
            }
            let expected = self.hosts[index].link.transmit_bytes();
            let written = self.hosts[index].link.poll_transmit(self.now, &mut out);
            assert_eq!(expected, written, "{}", self.context);
            let Some(bytes) = written else { break };
            self.inspect(index, &out[..bytes]);
            self.transmit(1 - index, &out[..bytes]);
        }
        assert_eq!(self.hosts[index].link.poll_event(), None);
    }

    /// Checks a frame that `index` sends.
    fn inspect(&mut self, index: usize, bytes: &[u8]) {
        let frame = Frame::decode(bytes).expect("links write frames");
        assert_eq!(HEADER_BYTES + frame.payload.len(), bytes.len());
        let host = &mut self.hosts[index];
        *host.frames.entry(frame.header.kind as u8).or_default() += 1;
        assert!(frame.payload.len() <= host.payload_bytes);
        if frame.header.kind == Kind::Data {
            let base = match host.acked {
                Some((stream, ack)) if stream == frame.header.source.stream => ack,
                _ => host.first_sequence,
            };
            let ahead = frame.header.sequence.wrapping_sub(base);
            assert!(ahead < 64, "{}: window exceeded: {ahead}", self.context);
        }
        self.sent += 1;
    }

    fn transmit(&mut self, to: usize, bytes: &[u8]) {
        let faults = self.faults;
        if faults.replay != 0 {
            self.history.push((to, bytes.to_vec()));
            if self.rng.percent(faults.replay) {
                let old = self.rng.below(self.history.len() as u64) as usize;
                let (to, bytes) = self.history[old].clone();
                self.fly(to, bytes);
            }
        }
        if self.rng.percent(faults.garbage) {
            let length = self.rng.below(200) as usize;
            let garbage = (0..length).map(|_| self.rng.next() as u8).collect();
            self.fly(to, garbage);
        }
        if self.rng.percent(faults.loss) {
            return;
        }
        let mut bytes = bytes.to_vec();
        if self.rng.percent(faults.truncate) {
            let length = self.rng.below(bytes.len() as u64) as usize;
            bytes.truncate(length);
        } else if bytes.len() < 80 {
            bytes.resize(80, 0x55);
        }
        if self.rng.percent(faults.duplicate) {
            self.fly(to, bytes.clone());
        }
        self.fly(to, bytes);
    }

    fn fly(&mut self, to: usize, bytes: Vec<u8>) {
        let arrival = self.now + 50_000 + self.faults.delay + self.rng.below(self.faults.jitter);
        self.flown += 1;
        self.air.insert((arrival, self.flown), (to, bytes));
    }

    /// Loses one frame that is under way to `to`.
    pub(crate) fn drop_one_towards(&mut self, to: usize) {
        let key = self.air.iter().find(|(_, frame)| frame.0 == to).map(|(key, _)| *key);
        self.air.remove(&key.expect("a frame is under way"));
    }

    /// Makes the link of `index` anew, with another receive window.
    pub(crate) fn set_receive_window(&mut self, index: usize, frames: u16) {
        let storage = Vecs { refuse_percent: 0, rng: Rng(0) };
        let config = Config { receive_window: frames, ..config(index as u16, 1 - index as u16, 1) };
        let host = &mut self.hosts[index];
        host.link = Link::new(config, storage).unwrap_or_else(|_| panic!("slots"));
        host.link.attach(self.now, host.payload_bytes).expect("payload is long enough");
    }

    /// Nobody hears what is under way.
    /// Gives a host another transport, if that loses nothing.
    pub(crate) fn change_transport(&mut self, index: usize, payload_bytes: usize) {
        let host = &mut self.hosts[index];
        if host.link.state() == State::Up && host.link.narrow(payload_bytes) {
            host.payload_bytes = payload_bytes;
            host.link.attach(self.now, payload_bytes).expect("long enough");
            self.pump(index);
        }
    }

    /// Length of the longest frame that is under way to a host.
    pub(crate) fn longest_to(&self, host: usize) -> usize {
        let lengths = self.air.values().filter(|(to, _)| *to == host).map(|(_, frame)| frame.len());
        lengths.max().unwrap_or(0)
    }

    pub(crate) fn clear_air(&mut self) {
        self.air.clear();
    }

    pub(crate) fn deliver(&mut self, to: usize, bytes: &[u8]) {
        let Ok(frame) = Frame::decode(bytes) else { return };
        let context = self.context.clone();
        let host = &mut self.hosts[to];
        let taken = host.link.on_frame(self.now, &frame);
        if let Ok(chunks) = taken {
            note_ack(host, &frame.header);
            for chunk in chunks {
                judge(host, chunk.first, chunk.last, chunk.data, &context);
            }
            while let Some(stored) = host.link.next_stored() {
                for chunk in stored.chunks() {
                    judge(host, chunk.first, chunk.last, chunk.data, &context);
                }
            }
        }
        self.pump(to);
    }

    /// Runs until `until`, or until nothing is going to happen.
    pub(crate) fn run(&mut self, until: u64) {
        loop {
            let air = self.air.keys().next().map_or(u64::MAX, |key| key.0);
            let deadlines = [0, 1]
                .map(|index: usize| self.hosts[index].link.next_deadline().unwrap_or(u64::MAX));
            let next = air.min(deadlines[0]).min(deadlines[1]);
            if next > until {
                self.now = until;
                return;
            }
            assert!(next >= self.now, "{}: time stands still", self.context);
            self.now = next;
            if air == next {
                let (to, bytes) = self.air.pop_first().expect("a frame is under way").1;
                self.deliver(to, &bytes);
                continue;
            }
            for (index, deadline) in deadlines.into_iter().enumerate() {
                if deadline == next {
                    self.hosts[index].link.on_timer(next);
                    let later = self.hosts[index].link.next_deadline();
                    assert!(later.is_none_or(|at| at > next), "{}: busy timer", self.context);
                    self.pump(index);
                }
            }
        }
    }

    /// Checks that all that was submitted in the current lives has been delivered.
    pub(crate) fn assert_all_delivered(&self) {
        for index in 0..2 {
            let (from, to) = (&self.hosts[index], &self.hosts[1 - index]);
            assert_eq!(from.link.state(), State::Up, "{}", self.context);
            let expected = (from.submitted > 0).then_some((from.life, from.submitted));
            assert_eq!(to.hearing, expected, "{}: from {index}", self.context);
            assert!(to.partial.is_empty(), "{}", self.context);
        }
    }
}

fn make(index: usize, run: u32, first: u32, faults: Faults, seed: u64) -> Link<Vecs> {
    let storage = Vecs { refuse_percent: faults.refuse_buffers, rng: Rng(seed ^ index as u64) };
    // In every third pair the second host is a version behind.
    let newest = if index == 1 && seed % 3 == 0 { 1 } else { u8::MAX };
    let config = Config {
        first_sequence: first,
        versions: Versions::up_to(newest),
        ..config(index as u16, 1 - index as u16, run)
    };
    Link::new(config, storage).unwrap_or_else(|_| panic!("the storage gives slots"))
}

fn note_ack(host: &mut Host, header: &Header) {
    if header.kind.is_greeting() || header.kind == Kind::Reset {
        return;
    }
    let stream = header.destination.stream;
    match host.acked {
        Some((known, ack)) if known == stream && (header.ack.wrapping_sub(ack) as i32) <= 0 => {}
        _ => host.acked = Some((stream, header.ack)),
    }
}

/// The model: records of one life of the peer, in order, each once, each as it was submitted.
fn judge(host: &mut Host, first: bool, last: bool, data: &[u8], context: &str) {
    assert_eq!(first, host.partial.is_empty(), "{context}: chunks out of order");
    host.partial.extend_from_slice(data);
    if !last {
        return;
    }
    let record = std::mem::take(&mut host.partial);
    let word = |at: usize| u32::from_le_bytes(record[at..at + 4].try_into().expect("four bytes"));
    let (life, number) = (word(0), word(4));
    assert_eq!(record, content(life, number, record.len()), "{context}: damaged record");
    let expected = match host.hearing {
        Some(expected) => expected,
        None => {
            assert!(life > host.heard_life, "{context}: record of an earlier life");
            (life, 0)
        }
    };
    assert_eq!((life, number), expected, "{context}: wrong record");
    host.hearing = Some((life, number + 1));
}
