// SPDX-License-Identifier: MIT OR Apache-2.0
//! The Ethernet switch of a virtual cluster: one thread that carries frames between the sockets of the QEMUs.
//!
//! A QEMU listens on its port's socket; the switch dials, and redials when the QEMU is started again. It never waits for a
//! guest: what a guest doesn't take is queued up to a limit and then dropped, as in a real switch.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::ops::Add;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{channel, Receiver, Sender};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use dvs_netboot::station::Station;
use rustix::event::{PollFd, PollFlags};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::faults::Faults;
use crate::forwarding::{Destination, Forwarding};
use crate::frame::{encode, Decoder};
use crate::links::{LinkSelector, Links};
use crate::pcap::Pcap;
use crate::socket::{bell, dial, not_now, wait, Bell, Ear};

/// How many bytes may wait for one guest; more are dropped.
const QUEUE_LIMIT: usize = 1 << 20;
/// How many bytes may be under way on slow links in all; more are dropped.
const IN_FLIGHT_LIMIT: usize = 64 << 20;
const REDIAL_FIRST: Duration = Duration::from_millis(10);
const REDIAL_LAST: Duration = Duration::from_millis(500);

/// What passed one port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortCounters {
    /// Frames that the guest sent.
    pub sent: u64,
    /// Frames handed to the guest, duplicates included.
    pub delivered: u64,
    /// Frames to the guest that faults or cut links swallowed.
    pub lost: u64,
    /// Frames to the guest dropped because it took none for too long.
    pub overrun: u64,
}

impl Add for PortCounters {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            sent: self.sent + other.sent,
            delivered: self.delivered + other.delivered,
            lost: self.lost + other.lost,
            overrun: self.overrun + other.overrun,
        }
    }
}

enum Command {
    Redial(usize),
    Cut(LinkSelector),
    Heal(LinkSelector),
    Partition(Vec<Vec<usize>>),
    SetFaults(LinkSelector, Faults),
    Report(Sender<Report>),
    Tap(Sender<Sent>),
    Inject(usize, Vec<u8>),
    Stop,
}

/// A frame that a guest sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// The guest's port, which is the node's number on the first segment.
    pub from: usize,
    /// The frame.
    pub frame: Vec<u8>,
}

/// The state of the switch at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Per port: those of the nodes on the first segment, then those on the next.
    pub ports: Vec<PortCounters>,
    /// The directions (from, to) that are cut.
    pub cut: Vec<(usize, usize)>,
    /// The directions that have faults.
    pub faults: Vec<(usize, usize, Faults)>,
}

/// Reaches the switch's thread.
#[derive(Clone, Debug)]
pub struct SwitchHandle {
    commands: Sender<Command>,
    bell: Bell,
}

impl SwitchHandle {
    fn send(&self, command: Command) {
        // Only a switch that has already stopped doesn't listen, and then nothing flows anyway.
        let _ = self.commands.send(command);
        self.bell.ring();
    }

    /// Dials the ports of a node at once rather than at the next try.
    pub fn redial(&self, node: usize) {
        self.send(Command::Redial(node));
    }

    /// Lets nothing pass on the selected links.
    pub fn cut(&self, links: LinkSelector) {
        self.send(Command::Cut(links));
    }

    /// Undoes cuts.
    pub fn heal(&self, links: LinkSelector) {
        self.send(Command::Heal(links));
    }

    /// Cuts every link between nodes of different groups; a node in no group is alone.
    pub fn partition(&self, groups: Vec<Vec<usize>>) {
        self.send(Command::Partition(groups));
    }

    /// Replaces the faults of the selected links.
    pub fn set_faults(&self, links: LinkSelector, faults: Faults) {
        self.send(Command::SetFaults(links, faults));
    }

    /// Whatever guests send from now on, until the receiver is dropped. It must be read: nothing else bounds it.
    pub fn tap(&self) -> Receiver<Sent> {
        let (sender, receiver) = channel();
        self.send(Command::Tap(sender));
        receiver
    }

    /// Hands a guest a frame on the first segment as if it came from the network, though none has sent it. The switch learns nothing from it.
    pub fn inject(&self, to: usize, frame: Vec<u8>) {
        self.send(Command::Inject(to, frame));
    }

    /// What has passed so far and what is wrong with the links. Sees every command given before.
    pub fn report(&self) -> Report {
        let (sender, receiver) = channel();
        self.send(Command::Report(sender));
        receiver.recv().unwrap_or_default()
    }
}

/// A running switch; stops when dropped.
#[derive(Debug)]
pub struct Switch {
    handle: SwitchHandle,
    thread: Option<JoinHandle<()>>,
}

impl Switch {
    /// Starts a switch whose port to node *n* on segment *s* dials `sockets[s][n]`. Segments share nothing but the state of the links
    /// between nodes. Captures, if `pcap` is given, are there in `node<n>.pcap`, of further segments in `node<n>-segment<s>.pcap`.
    ///
    /// A boot server may be on the first segment. What it and a guest say to each other has no faults and cannot be cut.
    pub fn start(
        sockets: &[Vec<PathBuf>],
        links: Links,
        pcap: Option<&Path>,
        boot_server: Option<Station>,
    ) -> Result<Switch> {
        let mut ports = Vec::new();
        for (segment, sockets) in sockets.iter().enumerate() {
            for (node, socket) in sockets.iter().enumerate() {
                let capture = match pcap {
                    Some(directory) => Some(capture(directory, node, segment)?),
                    None => None,
                };
                ports.push(Port::new(socket.clone(), capture));
            }
        }
        let nodes = sockets.first().map_or(0, Vec::len);
        let (commands, receiver) = channel();
        let (bell, ear) = bell().map_err(Error::system("starting the switch"))?;
        let engine = Engine {
            ports,
            links,
            nodes,
            forwarding: sockets.iter().map(|_| Forwarding::default()).collect(),
            in_flight: BinaryHeap::new(),
            in_flight_bytes: 0,
            sequence: 0,
            taps: Vec::new(),
            boot_server,
            commands: receiver,
            ear,
            epoch: Instant::now(),
        };
        let thread = std::thread::Builder::new()
            .name("switch".to_owned())
            .spawn(move || engine.run())
            .map_err(Error::system("starting the switch"))?;
        Ok(Switch { handle: SwitchHandle { commands, bell }, thread: Some(thread) })
    }

    /// A handle to reach it.
    pub fn handle(&self) -> &SwitchHandle {
        &self.handle
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.handle.send(Command::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

type Capture = Pcap<BufWriter<File>>;

fn capture(directory: &Path, node: usize, segment: usize) -> Result<Capture> {
    let path = directory.join(match segment {
        0 => format!("node{node}.pcap"),
        _ => format!("node{node}-segment{segment}.pcap"),
    });
    let file = File::create(&path).map_err(Error::file("creating the capture", &path))?;
    Pcap::new(BufWriter::new(file)).map_err(Error::file("writing the capture", &path))
}

struct Port {
    socket: PathBuf,
    stream: Option<UnixStream>,
    redial_at: Instant,
    redial_after: Duration,
    decoder: Decoder,
    /// Encoded frames that the guest hasn't taken; those before `sent` are gone.
    queue: Vec<u8>,
    sent: usize,
    capture: Option<Capture>,
    counters: PortCounters,
}

impl Port {
    fn new(socket: PathBuf, capture: Option<Capture>) -> Self {
        Port {
            socket,
            stream: None,
            redial_at: Instant::now(),
            redial_after: REDIAL_FIRST,
            decoder: Decoder::default(),
            queue: Vec::new(),
            sent: 0,
            capture,
            counters: PortCounters::default(),
        }
    }

    fn redial(&mut self, now: Instant) {
        if let Ok(stream) = dial(&self.socket) {
            self.stream = Some(stream);
            self.redial_after = REDIAL_FIRST;
        } else {
            self.redial_at = now + self.redial_after;
            self.redial_after = (2 * self.redial_after).min(REDIAL_LAST);
        }
    }

    fn hang_up(&mut self) {
        self.stream = None;
        self.decoder.reset();
        self.queue.clear();
        self.sent = 0;
        self.redial_at = Instant::now() + REDIAL_FIRST;
    }

    fn deliver(&mut self, frame: &[u8]) {
        if self.stream.is_none() || self.queue.len() - self.sent + frame.len() > QUEUE_LIMIT {
            self.counters.overrun += 1;
            return;
        }
        encode(frame, &mut self.queue);
        self.counters.delivered += 1;
        self.record(frame);
    }

    fn record(&mut self, frame: &[u8]) {
        if let Some(capture) = &mut self.capture {
            let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let recorded = capture.record(time, frame);
            self.check_capture(recorded);
        }
    }

    fn flush(&mut self) {
        if let Some(capture) = &mut self.capture {
            let flushed = capture.flush();
            self.check_capture(flushed);
        }
        let Some(stream) = &mut self.stream else { return };
        while self.sent < self.queue.len() {
            match stream.write(&self.queue[self.sent..]) {
                Ok(0) => return self.hang_up(),
                Ok(count) => self.sent += count,
                Err(error) if not_now(&error) => break,
                Err(_) => return self.hang_up(),
            }
        }
        if self.sent == self.queue.len() {
            self.queue.clear();
            self.sent = 0;
        } else if self.sent >= QUEUE_LIMIT {
            self.queue.drain(..self.sent);
            self.sent = 0;
        }
    }

    /// A full disk ends the capture, not the cluster.
    fn check_capture(&mut self, result: io::Result<()>) {
        if let Err(error) = result {
            eprintln!("warning: the capture of {} ends here: {error}", self.socket.display());
            self.capture = None;
        }
    }
}

/// A frame on a slow link; the heap orders by due time, then by order of sending.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct InFlight {
    due: Duration,
    sequence: u64,
    to: usize,
    frame: Arc<[u8]>,
}

struct Engine {
    ports: Vec<Port>,
    links: Links,
    /// How many nodes have a port on each segment. Ports are in the order of segments, and on each of nodes.
    nodes: usize,
    /// Of each segment.
    forwarding: Vec<Forwarding>,
    in_flight: BinaryHeap<Reverse<InFlight>>,
    in_flight_bytes: usize,
    sequence: u64,
    taps: Vec<Sender<Sent>>,
    boot_server: Option<Station>,
    commands: Receiver<Command>,
    ear: Ear,
    epoch: Instant,
}

impl Engine {
    fn run(mut self) {
        loop {
            let now = Instant::now();
            for port in &mut self.ports {
                if port.stream.is_none() && port.redial_at <= now {
                    port.redial(now);
                }
            }
            let (called, readable) = match self.wait(now) {
                Ok(ready) => ready,
                Err(error) => {
                    eprintln!("warning: the switch stops: waiting for frames: {error}");
                    return;
                }
            };
            if called && !self.obey() {
                return;
            }
            for from in readable {
                self.read(from);
            }
            self.deliver_due();
            self.ports.iter_mut().for_each(Port::flush);
        }
    }

    /// Waits for something to do; says whether the bell rang and which ports have something to read.
    fn wait(&self, now: Instant) -> io::Result<(bool, Vec<usize>)> {
        let due = self.in_flight.peek().map(|Reverse(next)| self.epoch + next.due);
        let redials = self.ports.iter().filter(|p| p.stream.is_none()).map(|p| p.redial_at);
        let next = redials.chain(due).min();
        let mut fds = vec![PollFd::new(&self.ear, PollFlags::IN)];
        let mut numbers = Vec::with_capacity(self.ports.len());
        for (number, port) in self.ports.iter().enumerate() {
            if let Some(stream) = &port.stream {
                let backlog = port.sent < port.queue.len();
                let out = if backlog { PollFlags::OUT } else { PollFlags::empty() };
                fds.push(PollFd::new(stream, PollFlags::IN | out));
                numbers.push(number);
            }
        }
        wait(&mut fds, next.map(|next| next.saturating_duration_since(now)))?;
        let to_read = PollFlags::IN | PollFlags::HUP | PollFlags::ERR;
        let ready = |fd: &PollFd<'_>| fd.revents().intersects(to_read);
        let readable = numbers.into_iter().zip(&fds[1..]).filter(|(_, fd)| ready(fd));
        Ok((ready(&fds[0]), readable.map(|(number, _)| number).collect()))
    }

    /// Carries out what was asked for; false when asked to stop.
    fn obey(&mut self) -> bool {
        self.ear.hear();
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Redial(node) => {
                    for port in self.ports.iter_mut().skip(node).step_by(self.nodes.max(1)) {
                        port.redial_at = Instant::now();
                        port.redial_after = REDIAL_FIRST;
                    }
                }
                Command::Cut(links) => self.links.cut(links),
                Command::Heal(links) => self.links.heal(links),
                Command::Partition(groups) => self.links.partition(&groups),
                Command::SetFaults(links, faults) => self.links.set_faults(links, faults),
                Command::Report(reply) => {
                    let _ = reply.send(self.report());
                }
                Command::Tap(tap) => self.taps.push(tap),
                Command::Inject(to, frame) => {
                    if let Some(port) = self.ports.get_mut(to) {
                        port.deliver(&frame);
                    }
                }
                Command::Stop => return false,
            }
        }
        true
    }

    fn report(&self) -> Report {
        let nodes = self.nodes;
        let faults = (0..nodes)
            .flat_map(|from| (0..nodes).map(move |to| (from, to)))
            .filter(|(from, to)| from != to)
            .map(|(from, to)| (from, to, *self.links.faults(from, to)))
            .filter(|(_, _, faults)| !faults.is_none())
            .collect();
        let ports = self.ports.iter().map(|port| port.counters).collect();
        Report { ports, cut: self.links.cuts(), faults }
    }

    /// Takes in what guest `from` sent: one buffer full, so that no guest starves the others.
    fn read(&mut self, from: usize) {
        let port = &mut self.ports[from];
        let Some(stream) = &mut port.stream else { return };
        match stream.read(port.decoder.space()) {
            Ok(0) => return self.unplug(from),
            Ok(count) => port.decoder.filled(count),
            Err(error) if not_now(&error) => return,
            Err(_) => return self.unplug(from),
        }
        // The decoder lends out the frames, so it leaves the port while they are forwarded.
        let mut decoder = std::mem::take(&mut port.decoder);
        let mut broken = None;
        loop {
            match decoder.take_frame() {
                Ok(Some(frame)) => self.forward(from, frame),
                Ok(None) => break,
                Err(error) => {
                    broken = Some(error);
                    break;
                }
            }
        }
        self.ports[from].decoder = decoder;
        if let Some(error) = broken {
            let node = from % self.nodes;
            eprintln!(
                "warning: node{node}'s network stream is out of step and is dialled anew: {error}"
            );
            self.unplug(from);
        }
    }

    fn unplug(&mut self, port: usize) {
        self.ports[port].hang_up();
        self.forwarding[port / self.nodes].forget(port);
    }

    fn forward(&mut self, from: usize, frame: &[u8]) {
        let now = self.epoch.elapsed();
        self.ports[from].counters.sent += 1;
        self.ports[from].record(frame);
        self.taps.retain(|tap| tap.send(Sent { from, frame: frame.to_vec() }).is_ok());
        let segment = from / self.nodes;
        if let (0, Some(server)) = (segment, &mut self.boot_server) {
            for answer in server.receive(frame, now) {
                self.ports[from].deliver(&answer);
            }
            if frame.starts_with(&server.mac().0) {
                return;
            }
        }
        match self.forwarding[segment].forward(from, frame, now) {
            Destination::Nowhere => {}
            Destination::Port(to) => self.carry(from, to, frame, now, &mut None),
            Destination::Flood => {
                let mut copy = None;
                let first = segment * self.nodes;
                for to in (first..first + self.nodes).filter(|&to| to != from) {
                    self.carry(from, to, frame, now, &mut copy);
                }
            }
        }
    }

    /// Sends `frame` over the link `from` → `to`. `copy` is shared between the links of a flooded frame.
    fn carry(
        &mut self,
        from: usize,
        to: usize,
        frame: &[u8],
        now: Duration,
        copy: &mut Option<Arc<[u8]>>,
    ) {
        let plan = self.links.decide(from % self.nodes, to % self.nodes, now);
        if plan.first.is_none() {
            self.ports[to].counters.lost += 1;
        }
        for due in plan.arrivals() {
            if due <= now {
                self.ports[to].deliver(frame);
            } else if self.in_flight_bytes + frame.len() > IN_FLIGHT_LIMIT {
                self.ports[to].counters.overrun += 1;
            } else {
                let frame = copy.get_or_insert_with(|| Arc::from(frame)).clone();
                self.in_flight_bytes += frame.len();
                self.sequence += 1;
                self.in_flight.push(Reverse(InFlight { due, sequence: self.sequence, to, frame }));
            }
        }
    }

    fn deliver_due(&mut self) {
        let now = self.epoch.elapsed();
        while self.in_flight.peek().is_some_and(|Reverse(next)| next.due <= now) {
            if let Some(Reverse(next)) = self.in_flight.pop() {
                self.in_flight_bytes -= next.frame.len();
                self.ports[next.to].deliver(&next.frame);
            }
        }
    }
}

#[cfg(test)]
mod tests;
