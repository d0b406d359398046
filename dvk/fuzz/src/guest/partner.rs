// SPDX-License-Identifier: MIT OR Apache-2.0
//! A peer node: the other end of a link to the kernel, behind a virtual Ethernet interface.
//!
//! Most of the time it speaks the protocol, so that remote exchanges come about, and answers what
//! it is asked at random. Now and then it lies: it repeats and spoils frames and records, speaks
//! for others, begins new streams, and takes its interface away.

mod copies;

use core::sync::atomic::Ordering::Relaxed;
use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::num::NonZeroU32;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Instant;

use anyhow::{Context, Result};
use dvk_abi::errno::Errno;
use dvk_abi::ioctl::{Privileges, MAY_ALL, MAY_SEND};
use dvk_abi::wire::frame::{Frame, Versions, HEADER_BYTES, MAX_PAYLOAD_BYTES, MIN_PAYLOAD_BYTES};
use dvk_abi::wire::record::{Record, Step, RECORD_BYTES};
use dvk_abi::wire::ETHERTYPE;
use dvk_abi::{Endpoint, Message};
use dvk_core::link::{Config, Link, State, Timing};
use dvk_fuzz::call::errors;
use dvk_fuzz::hostile::spoil;
use dvk_fuzz::link::Vecs;
use dvk_fuzz::program::{lease_slot, CONTAINERS, GENERATION};
use dvk_fuzz::rng::Rng;
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;

use self::copies::Copies;
use super::board::{Board, Event};
use super::sys;
use super::world::CLUSTER;

const ETHERNET_BYTES: usize = 14;
/// Records and frames that are kept, to be repeated and spoilt.
const KEPT: usize = 32;
/// Longer records are not repeated.
const REPEATED_BYTES: usize = 200;
/// Chances, in 1 of so many turns.
const RESTART: u64 = 4_000;
const NEW_INTERFACE: u64 = 20_000;
const NEW_MTU: u64 = 3_000;
/// What the protocol needs.
const MIN_MTU: usize = HEADER_BYTES + MIN_PAYLOAD_BYTES;

/// A virtual Ethernet interface whose other end is this process.
struct Interface {
    file: File,
    name: String,
    /// The kernel's address.
    address: [u8; 6],
}

impl Interface {
    fn make(board: &Board, node: u16) -> Result<Self> {
        let name = format!("dvkfuzz{node}");
        let file = File::options()
            .read(true)
            .write(true)
            .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
            .open("/dev/net/tun")
            .context("opening /dev/net/tun; it takes CONFIG_TUN")?;
        sys::become_interface(&file, &name).with_context(|| format!("making {name}"))?;
        // What IPv6 does by itself would be noise. A kernel without it has no such file.
        let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1");
        let place = format!("/sys/class/net/{name}");
        let read = |attribute: &str| {
            let path = format!("{place}/{attribute}");
            fs::read_to_string(&path).with_context(|| format!("reading {path}"))
        };
        let index: u32 = read("ifindex")?.trim().parse().context("an interface index")?;
        let mut address = [0; 6];
        for (byte, text) in address.iter_mut().zip(read("address")?.trim().split(':')) {
            *byte = u8::from_str_radix(text, 16).context("an Ethernet address")?;
        }
        let flags = u32::from_str_radix(read("flags")?.trim().trim_start_matches("0x"), 16)?;
        fs::write(format!("{place}/flags"), format!("{:#x}", flags | 1))
            .with_context(|| format!("setting {name} up"))?;
        board.interfaces[usize::from(node) - 1].store(index, Relaxed);
        board.note(Event::InterfaceMade);
        Ok(Self { file, name, address })
    }

    fn send(&mut self, node: u16, payload: &[u8], rng: &mut Rng) {
        let mut frame = Vec::with_capacity(ETHERNET_BYTES + payload.len());
        frame.extend(self.address);
        let odd = rng.below(200);
        // The source of another, or a destination that is not this machine.
        frame.extend([2, 0, 0, 0, 0, if odd == 0 { 9 } else { node as u8 }]);
        frame.extend(ETHERTYPE.to_be_bytes());
        frame.extend(payload);
        if odd == 1 {
            frame[0] ^= 2;
        }
        // A full queue loses frames, as networks do.
        let _ = self.file.write(&frame);
    }
}

/// Is node `node` until it is killed; `slow` multiplies how long it does nothing.
pub(crate) fn run(board: &'static Board, node: u16, seed: u64, slow: u32) -> Result<()> {
    let mut partner = Partner {
        board,
        node,
        rng: Rng::part(seed, u64::from(node)),
        interface: Interface::make(board, node)?,
        started: Instant::now(),
        link: None,
        mine: 1,
        theirs: 1,
        records: VecDeque::new(),
        frames: VecDeque::new(),
        partial: Vec::new(),
        copies: Copies::default(),
        mtu: 1500,
    };
    let mut buffer = vec![0; ETHERNET_BYTES + HEADER_BYTES + MAX_PAYLOAD_BYTES];
    loop {
        // It is not to take the time that the programs need.
        let patience = Timespec { tv_sec: 0, tv_nsec: 4_000_000 * i64::from(slow) };
        let mut polled = [PollFd::new(&partner.interface.file, PollFlags::IN)];
        // An interrupted wait is a short one.
        let _ = poll(&mut polled, Some(&patience));
        for _ in 0..64 {
            let Ok(len) = partner.interface.file.read(&mut buffer) else { break };
            partner.take(&buffer[..len]);
        }
        partner.speak();
        partner.transmit();
        partner.misbehave()?;
    }
}

struct Partner {
    board: &'static Board,
    node: u16,
    rng: Rng,
    interface: Interface,
    started: Instant,
    link: Option<Link<Vecs>>,
    /// The incarnation that the kernel takes this node to have, and the kernel's own.
    mine: u32,
    theirs: u32,
    records: VecDeque<Vec<u8>>,
    frames: VecDeque<Vec<u8>>,
    partial: Vec<u8>,
    copies: Copies,
    mtu: usize,
}

impl Partner {
    fn now(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64 + 1
    }

    /// Begins a life as the node that the kernel greets.
    fn begin(&mut self) {
        let now = self.now();
        let incarnation = |value| NonZeroU32::new(value).unwrap_or(NonZeroU32::MIN);
        let config = Config {
            cluster: CLUSTER,
            local_node: self.node,
            peer_node: 0,
            local_incarnation: incarnation(self.mine),
            versions: Versions::SUPPORTED,
            receive_window: 1 + self.rng.below(64) as u16,
            first_sequence: self.rng.draw() as u32,
            timing: Timing::DEFAULT,
        };
        let Ok(mut link) = Link::new(config, Vecs::default()) else { return };
        let payload = self.rng.pick(&[512, 1400, 1400, 1436]);
        // No less than the least payload is offered.
        let _ = link.attach(now, payload);
        link.peer_up(now, incarnation(self.theirs));
        self.partial.clear();
        self.link = Some(link);
        self.board.note(Event::StreamBegun);
    }

    fn take(&mut self, bytes: &[u8]) {
        let Some((head, payload)) = bytes.split_at_checked(ETHERNET_BYTES) else { return };
        if head[12..] != ETHERTYPE.to_be_bytes() {
            return;
        }
        self.board.note(Event::FrameReceived);
        let Ok(frame) = Frame::decode(payload) else { return };
        let header = frame.header;
        let lives = (header.destination.incarnation, header.source.incarnation);
        if self.link.is_none() || lives != (self.mine, self.theirs) {
            (self.mine, self.theirs) = lives;
            self.begin();
        }
        let now = self.now();
        let Some(link) = &mut self.link else { return };
        let mut chunks = Vec::new();
        if let Ok(arrived) = link.on_frame(now, &frame) {
            chunks.extend(arrived.map(|chunk| (chunk.first, chunk.last, chunk.data.to_vec())));
            while let Some(stored) = link.next_stored() {
                let more =
                    stored.chunks().map(|chunk| (chunk.first, chunk.last, chunk.data.to_vec()));
                chunks.extend(more);
            }
        }
        if link.state() == State::Broken {
            link.peer_up(now, NonZeroU32::new(self.theirs).unwrap_or(NonZeroU32::MIN));
        }
        while link.poll_event().is_some() {}
        for (first, last, data) in chunks {
            if first {
                self.partial.clear();
            }
            self.partial.extend(data);
            if last {
                let record = core::mem::take(&mut self.partial);
                self.board.note(Event::RecordReceived);
                self.answer(&record);
                let Self { board, rng, link, copies, .. } = self;
                copies.hear(rng, &record, &mut |bytes| say(board, link, bytes));
                if record.len() <= REPEATED_BYTES {
                    keep(&mut self.records, record);
                }
            }
        }
    }

    fn answer(&mut self, bytes: &[u8]) {
        let Ok(record) = Record::decode(bytes) else { return };
        let call = record.step.call();
        let message = Message::new(self.rng.draw() as u32);
        let mut from = record.to;
        let step = match (record.step, self.rng.below(10)) {
            // Who gives up waits for the answer to that, with signals or without.
            (Step::Cancel { .. }, 1..) => Step::Cancelled { call },
            (_, 0) => return,
            (_, 1) => Step::Failed { call, error: error(&mut self.rng) },
            (Step::Send { .. } | Step::Privilege { .. }, _) => Step::Accepted { call },
            (Step::Request { .. }, _) => Step::Reply { call, message },
            (Step::AwaitBind { .. }, 2..6) => {
                // The slot is given with a generation that means nothing.
                from = endpoint(record.to.slot(), GENERATION);
                Step::Bound { call }
            }
            (Step::Watch { .. }, 2..5) => Step::Failed { call, error: Errno::OwnerDead },
            _ => return,
        };
        self.submit(&Record { from, to: record.from, step, ..record });
    }

    fn submit(&mut self, record: &Record) {
        let mut bytes = [0; RECORD_BYTES];
        let len = record.encode(&mut bytes);
        self.submit_bytes(&bytes[..len]);
    }

    fn submit_bytes(&mut self, bytes: &[u8]) {
        // What finds no room is not said.
        let _ = say(self.board, &mut self.link, bytes);
    }

    /// Says something of its own.
    fn speak(&mut self) {
        for _ in 0..self.rng.below(4) {
            let what = self.rng.below(100);
            if what < 50 {
                let record = self.record();
                self.submit(&record);
            } else if what < 70 {
                self.ask_for_copy();
            } else if !self.records.is_empty() {
                let nth = self.rng.below(self.records.len() as u64) as usize;
                let mut bytes = self.records[nth].clone();
                if self.rng.percent(70) && bytes.len() >= 24 {
                    // As if said by the one who was spoken to.
                    let (from, to) = bytes[8..24].split_at_mut(8);
                    from.swap_with_slice(to);
                }
                spoil(&mut self.rng, &mut bytes);
                self.submit_bytes(&bytes);
            }
        }
    }

    fn record(&mut self) -> Record {
        let privileges = self.privileges();
        let rng = &mut self.rng;
        let call = rng.below(40) as u32;
        let message = Message::new(rng.draw() as u32);
        let step = match rng.below(16) {
            0..=2 => Step::Send { call, message },
            3..=5 => Step::Request { call, message },
            6 => Step::Accepted { call },
            7 => Step::Reply { call, message },
            8 => Step::Failed { call, error: error(rng) },
            9 => Step::Cancel { call },
            10 => Step::Watch { call },
            11 => Step::AwaitBind { call },
            12 => Step::Bound { call },
            13 => Step::Cancelled { call },
            14 => privileges,
            _ => Step::Notify { bits: 1 << rng.below(64) },
        };
        let to = Endpoint::from_raw(self.board.endpoints[rng.below(16) as usize].load(Relaxed));
        let to = if matches!(step, Step::AwaitBind { .. }) {
            endpoint(lease_slot(0) + rng.below(16) as u32, GENERATION)
        } else {
            to
        };
        Record { container: rng.below(CONTAINERS.into()) as u16, from: self.own(), to, step }
    }

    /// Privileges for somebody, said by an endpoint that may or may not.
    fn privileges(&mut self) -> Step {
        let call = self.rng.below(40) as u32;
        let privileges = Privileges {
            endpoint: 0,
            servers: self.rng.pick(&[u64::MAX, u64::MAX, 0xff]),
            notify: self.rng.pick(&[u64::MAX, u64::MAX, 1]),
            calls: self.rng.pick(&[MAY_ALL, MAY_ALL, MAY_ALL & !MAY_SEND]),
            flags: 0,
        };
        Step::Privilege { call, privileges }
    }

    /// An endpoint of this node; sometimes one of another, in whose name it must not speak.
    fn own(&mut self) -> Endpoint {
        let rng = &mut self.rng;
        let node = if rng.percent(90) { u32::from(self.node) } else { rng.below(4) as u32 };
        let slot = lease_slot(node) + rng.below(8) as u32;
        endpoint(slot, GENERATION + rng.below(2) as u32)
    }

    fn ask_for_copy(&mut self) {
        let from = self.own();
        let Self { board, rng, link, copies, .. } = self;
        let mut lender = || {
            let nth = rng.below(16) as usize;
            let endpoint = Endpoint::from_raw(board.lenders[nth].load(Relaxed));
            (endpoint, board.grants[nth].load(Relaxed))
        };
        let (one, other) = (lender(), lender());
        // Mostly where most of it happens.
        let container = rng.pick(&[0, 0, 0, 1, 1, 2, 3, 4]);
        copies.ask(rng, container, from, one, other, &mut |bytes| say(board, link, bytes));
    }

    fn transmit(&mut self) {
        let now = self.now();
        let Some(link) = &mut self.link else { return };
        if link.next_deadline().is_some_and(|at| at <= now) {
            link.on_timer(now);
        }
        let mut out = [0; HEADER_BYTES + MAX_PAYLOAD_BYTES];
        let mut sent = 0;
        while let Some(bytes) =
            self.link.as_mut().and_then(|link| link.poll_transmit(now, &mut out))
        {
            let frame = &out[..bytes];
            self.board.note(Event::FrameSent);
            if !self.rng.percent(2) {
                self.interface.send(self.node, frame, &mut self.rng);
            }
            if self.rng.percent(10) {
                keep(&mut self.frames, frame.to_vec());
            }
            sent += 1;
            if sent == 200 {
                break;
            }
        }
    }

    fn misbehave(&mut self) -> Result<()> {
        if self.rng.percent(25) && !self.frames.is_empty() {
            let nth = self.rng.below(self.frames.len() as u64) as usize;
            let mut frame = self.frames[nth].clone();
            spoil(&mut self.rng, &mut frame);
            self.board.note(Event::FrameSpoilt);
            self.interface.send(self.node, &frame, &mut self.rng);
        }
        if self.rng.below(RESTART) == 0 {
            self.begin();
        }
        // With one that is too small there is no link: not for long.
        if self.rng.below(if self.mtu < MIN_MTU { NEW_MTU / 30 } else { NEW_MTU }) == 0 {
            let mtu = self.rng.pick(&[400, 600, 620, 1500, 1500, 9000]);
            self.mtu = mtu;
            // A size that the kernel does not take is one fewer.
            let _ =
                fs::write(format!("/sys/class/net/{}/mtu", self.interface.name), mtu.to_string());
        }
        if self.rng.below(NEW_INTERFACE) == 0 {
            let none = File::open("/dev/null").context("opening /dev/null")?;
            self.interface.file = none;
            self.interface = Interface::make(self.board, self.node)?;
            self.mtu = 1500;
        }
        Ok(())
    }
}

/// One that a program may be told of.
fn error(rng: &mut Rng) -> Errno {
    let nth = rng.below(errors().count() as u64) as usize;
    errors().nth(nth).unwrap_or(Errno::Invalid)
}

fn endpoint(slot: u32, generation: u32) -> Endpoint {
    Endpoint::from_raw(u64::from(generation) << 32 | u64::from(slot))
}

/// Says it over the link if there is room; returns whether there was.
fn say(board: &Board, link: &mut Option<Link<Vecs>>, bytes: &[u8]) -> bool {
    board.note(Event::RecordSent);
    link.as_mut().is_some_and(|link| link.submit(bytes).is_ok())
}

fn keep(kept: &mut VecDeque<Vec<u8>>, bytes: Vec<u8>) {
    if kept.len() == KEPT {
        kept.pop_front();
    }
    kept.push_back(bytes);
}
