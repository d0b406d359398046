// SPDX-License-Identifier: MIT OR Apache-2.0
//! The grammar: from a seed to what the threads of a process do.
//!
//! A thread plays a part (a server, a client, one who lends memory…) and does, over and over, one
//! of the phrases of that part: a few operations that make sense together, which is what reaches
//! deep states. Now and then an operation is spoilt: a field, the block's place, the number. Now
//! and then a thread does something of no part at all.
//!
//! A script is made while it is run and allocates nothing, so that it can be gone on with after a
//! fork.

mod value;

use dvk_abi::{ioctl, Endpoint};

use crate::call::{index_of, Call, Device, Role, CALLS, FIELDS_MAX};
use crate::program::{
    lease_slot, Block, Death, Invocation, Lent, Mapping, Op, Opened, Place, Somebody, Value,
    CONTAINERS, FILES, LEASED, SERVERS, THREADS_MAX,
};
use crate::rng::Rng;

/// Files that scripts keep for the control device.
const CONTROL_FILES: [u8; 2] = [6, 7];
/// The most operations of a phrase.
const PHRASE_MAX: usize = 24;
/// Calls of a process that is left to end by itself.
const CALLS_OF_A_PROCESS: u64 = 3_000;

/// What one process does.
#[derive(Clone, Debug)]
pub struct Program {
    seed: u64,
    /// How many threads it has.
    pub threads: usize,
    /// Calls of all threads together.
    pub calls: u32,
    /// Whether it keeps its capabilities.
    pub privileged: bool,
    /// The container that most of it happens in.
    pub home: u32,
    /// After how many microseconds it is killed.
    pub killed_after_us: Option<u32>,
}

impl Program {
    /// The program number `number` of `seed`.
    pub fn new(seed: u64, number: u64) -> Self {
        let mut rng = Rng::part(seed, number);
        let threads = 2 + rng.below(THREADS_MAX as u64 - 1) as usize;
        Self {
            threads,
            calls: (CALLS_OF_A_PROCESS / 2 + rng.below(CALLS_OF_A_PROCESS)) as u32,
            privileged: !rng.percent(10),
            home: rng.weighted(&[(12, 0), (4, 1), (1, 2), (1, 3)]),
            killed_after_us: rng.percent(15).then(|| 1_000 + rng.below(1_500_000) as u32),
            seed: rng.draw(),
        }
    }

    /// What thread number `thread` does.
    pub fn script(&self, thread: usize) -> Script {
        let mut rng = Rng::part(self.seed, thread as u64);
        // Every process has somebody to talk to.
        let part = if thread == 0 { Part::Server } else { rng.weighted(PARTS) };
        let calls = self.calls / self.threads as u32;
        let mut script = Script::new(rng, part, thread as u8, self.threads as u8, self.home, calls);
        script.enter();
        script
    }

    /// What a forked child of the thread `thread` does that was given this seed.
    pub fn child(&self, thread: usize, seed: u64, calls: u8) -> Script {
        let rng = Rng::new(seed);
        Script::new(rng, Part::Child, thread as u8, self.threads as u8, self.home, calls.into())
    }
}

/// What a thread is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Server,
    Client,
    Pair,
    Lender,
    Operator,
    Vandal,
    Child,
}

const PARTS: &[(u32, Part)] = &[
    (3, Part::Server),
    (9, Part::Client),
    (5, Part::Pair),
    (7, Part::Lender),
    (2, Part::Operator),
    (3, Part::Vandal),
];

/// What a thread does, one operation after the other.
#[derive(Clone, Debug)]
pub struct Script {
    rng: Rng,
    part: Part,
    thread: u8,
    threads: u8,
    home: u32,
    calls_left: u32,
    phrase: [Option<Op>; PHRASE_MAX],
    at: usize,
    end: usize,
}

impl Iterator for Script {
    type Item = Op;

    fn next(&mut self) -> Option<Op> {
        while self.at == self.end {
            if self.calls_left == 0 {
                return None;
            }
            (self.at, self.end) = (0, 0);
            self.say();
        }
        let op = self.phrase[self.at].take();
        self.at += 1;
        self.calls_left -= u32::from(matches!(op, Some(Op::Call(_)))).min(self.calls_left);
        op
    }
}

type Phrase = fn(&mut Script);

impl Script {
    fn new(rng: Rng, part: Part, thread: u8, threads: u8, home: u32, calls_left: u32) -> Self {
        let phrase = [None; PHRASE_MAX];
        Self { rng, part, thread, threads, home, calls_left, phrase, at: 0, end: 0 }
    }

    fn push(&mut self, op: Op) {
        // A phrase that is too long ends early.
        if let Some(place) = self.phrase.get_mut(self.end) {
            *place = Some(op);
            self.end += 1;
        }
    }

    /// How many of 100 fields have a wrong value: few enough that most calls are made in earnest.
    fn wrong_percent(&self) -> u64 {
        match self.part {
            Part::Vandal => 6,
            Part::Child => 3,
            _ => 1,
        }
    }

    /// The file that this thread mostly uses.
    fn own(&self) -> u8 {
        self.thread % CONTROL_FILES[0]
    }

    fn file(&mut self) -> u8 {
        if self.rng.percent(92) {
            self.own()
        } else {
            self.rng.below(FILES.into()) as u8
        }
    }

    /// One phrase.
    fn say(&mut self) {
        let file = self.own();
        if self.rng.percent(60) {
            self.push(Op::IfLost { file, ops: 2 });
            // Where it is full, somewhere else.
            let container = if self.rng.percent(80) { self.home } else { self.rng.below(2) as u32 };
            self.push(Op::Open { file, device: Opened::Container(container) });
            self.bind_any(file);
        }
        const ANYBODY: &[(u32, Phrase)] = &[
            (4, Script::look),
            (3, Script::wait_for_somebody),
            (3, Script::watch_files),
            (2, Script::restrict),
            (2, Script::rebind),
            (5, Script::anything),
            (2, Script::interrupt),
            (1, Script::change_files),
            (1, Script::fork),
            (1, Script::starve),
            (2, Script::remap),
            (1, Script::perish),
        ];
        const SERVER: &[(u32, Phrase)] =
            &[(12, Script::serve), (2, Script::receive), (1, Script::notify)];
        const CLIENT: &[(u32, Phrase)] =
            &[(10, Script::request), (4, Script::send), (3, Script::notify), (2, Script::receive)];
        const PAIR: &[(u32, Phrase)] =
            &[(6, Script::send), (6, Script::receive), (2, Script::request), (2, Script::reply)];
        const LENDER: &[(u32, Phrase)] =
            &[(8, Script::lend), (10, Script::copy), (4, Script::remap), (2, Script::request)];
        const OPERATOR: &[(u32, Phrase)] = &[
            (6, Script::look_around),
            (4, Script::steer_nodes),
            (3, Script::steer_links),
            (2, Script::carry),
            (3, Script::steer_containers),
            (5, Script::place_endpoints),
            (5, Script::migrate),
            (3, Script::take_events),
        ];
        const VANDAL: &[(u32, Phrase)] = &[
            (6, Script::change_files),
            (6, Script::remap),
            (4, Script::interrupt),
            (4, Script::scribble),
            (12, Script::anything),
            (3, Script::fork),
            (3, Script::starve),
            (3, Script::rebind),
        ];
        const CHILD: &[(u32, Phrase)] = &[
            (3, Script::request),
            (3, Script::receive),
            (3, Script::copy),
            (3, Script::lend),
            (2, Script::remap),
            (3, Script::anything),
        ];
        let own = match self.part {
            Part::Server => SERVER,
            Part::Client => CLIENT,
            Part::Pair => PAIR,
            Part::Lender => LENDER,
            Part::Operator => OPERATOR,
            Part::Vandal => VANDAL,
            Part::Child => CHILD,
        };
        let strays = self.part != Part::Child && self.rng.percent(15);
        let phrase = self.rng.weighted(if strays { ANYBODY } else { own });
        phrase(self);
    }

    /// What a thread begins with.
    fn enter(&mut self) {
        let file = self.own();
        self.push(Op::Open { file, device: Opened::Container(self.home) });
        if self.part == Part::Server {
            let slot = self.rng.below(SERVERS.into());
            let server = Value::Number(ioctl::BIND_SERVER.into());
            self.call(ioctl::BIND, file, &[("slot", Value::Number(slot)), ("flags", server)]);
        }
        // Refused where the thread is a server by now.
        self.bind_any(file);
    }

    fn bind_any(&mut self, file: u8) {
        let any = Value::Number(ioctl::SLOT_ANY.into());
        self.call(ioctl::BIND, file, &[("slot", any), ("flags", Value::Number(0))]);
    }

    // Messages.

    fn request(&mut self) {
        for _ in 0..1 + self.rng.below(3) {
            let file = self.file();
            self.call(ioctl::SENDREC, file, &[]);
        }
    }

    fn send(&mut self) {
        let file = self.file();
        self.call(ioctl::SEND, file, &[]);
    }

    fn receive(&mut self) {
        let file = self.file();
        let call = self.rng.pick(&[ioctl::RECEIVE, ioctl::RECEIVE, ioctl::RECEIVE_REQUEST]);
        self.call(call, file, &[]);
        if self.rng.percent(80) {
            self.push(Op::IfAsked { ops: 1 });
        }
        self.call(ioctl::REPLY, file, &[("peer", Value::Somebody(Somebody::Source))]);
    }

    fn reply(&mut self) {
        let file = self.file();
        let source = [("peer", Value::Somebody(Somebody::Source))];
        let whom: &[_] = if self.rng.percent(60) { &source } else { &[] };
        self.call(ioctl::REPLY, file, whom);
    }

    fn serve(&mut self) {
        let file = self.own();
        let from = ("from", Value::Number(Endpoint::ANY.raw()));
        self.call(ioctl::RECEIVE, file, &[from]);
        for _ in 0..1 + self.rng.below(8) {
            let peer = ("peer", Value::Somebody(Somebody::Source));
            if self.rng.percent(95) {
                self.push(Op::IfAsked { ops: 1 });
            }
            self.call(ioctl::REPLY_RECEIVE, file, &[peer, from]);
        }
        if self.rng.percent(30) {
            // What it was lent is read before it answers.
            self.copy();
        }
    }

    fn notify(&mut self) {
        let file = self.file();
        for _ in 0..1 + self.rng.below(6) {
            self.call(ioctl::NOTIFY, file, &[]);
        }
    }

    fn wait_for_somebody(&mut self) {
        let file = self.file();
        let call = self.rng.pick(&[ioctl::WAIT_BIND, ioctl::WAIT_UNBIND]);
        self.call(call, file, &[]);
    }

    fn look(&mut self) {
        let file = self.file();
        let call = self.rng.pick(&[ioctl::GET_INFO, ioctl::GET_PRIVILEGES]);
        self.call(call, file, &[]);
    }

    fn restrict(&mut self) {
        let file = self.file();
        let oneself = [("endpoint", Value::Number(Endpoint::SELF.raw()))];
        let whose: &[_] = if self.rng.percent(50) { &oneself } else { &[] };
        self.call(ioctl::SET_PRIVILEGES, file, whose);
        self.call(ioctl::GET_PRIVILEGES, file, &[]);
    }

    // Memory.

    fn lend(&mut self) {
        let file = self.file();
        for _ in 0..1 + self.rng.below(3) {
            // Room for most copies.
            let len = self.rng.pick(&[8, 4096, 1 << 16, 1 << 16, 1 << 18, 1 << 18, 1 << 18]);
            let terms = [("len", Value::Number(len)), ("to", Value::Number(Endpoint::ANY.raw()))];
            let given = if self.rng.percent(80) { &terms[..] } else { &terms[..1] };
            self.call(ioctl::GRANT, file, given);
        }
        if self.rng.percent(50) {
            self.call(ioctl::SENDREC, file, &[]);
        }
        if self.rng.percent(20) {
            self.call(ioctl::REVOKE, file, &[]);
        }
    }

    fn copy(&mut self) {
        let file = self.file();
        for _ in 0..1 + self.rng.below(4) {
            let call = self.rng.pick(&[ioctl::COPY_FROM, ioctl::COPY_TO, ioctl::COPY_BETWEEN]);
            // A grant and who made it must fit together, or nothing is copied.
            let (of, grant) = self.lender();
            if call == ioctl::COPY_BETWEEN {
                let (to, other) = self.lender();
                let both = [
                    ("source.endpoint", of),
                    ("source.grant", grant),
                    ("destination.endpoint", to),
                    ("destination.grant", other),
                ];
                self.call(call, file, &both);
            } else {
                self.call(call, file, &[("granted.endpoint", of), ("granted.grant", grant)]);
            }
        }
    }

    /// Somebody who lends something, and what.
    fn lender(&mut self) -> (Value, Value) {
        let nth = self.rng.below(16) as u8;
        let (of, grant) = match self.rng.below(100) {
            0..=69 => (Somebody::Lender(nth), Lent::Theirs(nth)),
            // The partners lend whatever they are asked for.
            70..=84 => (self.remote(), Lent::Theirs(nth)),
            _ => {
                let file = self.rng.below(self.threads.into()) as u8;
                (Somebody::File(file), Lent::Mine(file))
            }
        };
        (Value::Somebody(of), Value::Lent(grant))
    }

    fn remap(&mut self) {
        let mapping = self.rng.pick(&[
            Mapping::Fresh,
            Mapping::Shared,
            Mapping::ReadOnly,
            Mapping::ReadWrite,
            Mapping::ReadWrite,
            Mapping::NoAccess,
            Mapping::Unmapped,
            Mapping::Discarded,
        ]);
        let page = self.rng.below(value::PAGES) as u8;
        let pages = 1 + self.rng.below(6) as u8;
        self.push(Op::Map { page, pages, mapping });
        if self.rng.percent(70) {
            self.push(Op::Map { page, pages, mapping: Mapping::Fresh });
        }
    }

    // Files, threads, processes.

    fn rebind(&mut self) {
        let file = self.file();
        self.call(ioctl::UNBIND, file, &[]);
        if self.rng.percent(30) {
            self.call(ioctl::BIND, file, &[]);
        }
        self.bind_any(file);
    }

    fn change_files(&mut self) {
        let file = self.file();
        match self.rng.below(4) {
            0 => self.push(Op::Close { file }),
            1 => {
                let from = self.rng.below(FILES.into()) as u8;
                self.push(Op::Duplicate { from, to: file });
            }
            _ => {}
        }
        let elsewhere = self.rng.below(CONTAINERS.into()) as u32;
        let device = match self.rng.below(20) {
            0 => Opened::Null,
            1 => Opened::Control,
            2..=4 => Opened::Container(elsewhere),
            _ => Opened::Container(self.home),
        };
        self.push(Op::Open { file, device });
        self.bind_any(file);
    }

    fn watch_files(&mut self) {
        let timeout_ms = self.rng.pick(&[0, 0, 1, 5]);
        if self.rng.percent(60) {
            let files = self.rng.draw() as u8;
            self.push(Op::Poll { files, timeout_ms });
        } else {
            let file = self.file();
            self.push(Op::Epoll { file, timeout_ms });
        }
    }

    fn interrupt(&mut self) {
        for _ in 0..1 + self.rng.below(3) {
            let thread = self.rng.below(self.threads.into()) as u8;
            self.push(Op::Signal { thread });
        }
        let us = self.rng.below(500) as u16;
        self.push(Op::Pause { us });
    }

    fn scribble(&mut self) {
        for _ in 0..6 {
            let thread = self.rng.below(self.threads.into()) as u8;
            let (offset, mut value) = (self.rng.below(128) as u8, self.rng.draw() as u8);
            if offset % 8 == 5 {
                // An address whose byte this is stays one of the fuzzer's: see `Op::Scribble`.
                value = 0x10 | value & 0xf;
            }
            self.push(Op::Scribble { thread, offset, value });
        }
    }

    fn fork(&mut self) {
        let (seed, calls) = (self.rng.draw(), 1 + self.rng.below(12) as u8);
        self.push(Op::Fork { seed, calls });
    }

    fn starve(&mut self) {
        for _ in 0..1 + self.rng.below(3) {
            let nth = 1 + self.rng.below(8) as u8;
            self.push(Op::Starve { nth });
            let call = self.any_call();
            // No signal ends it meanwhile, so it must end by itself.
            let waits = CALLS[call].fields.iter().any(|field| field.name == "timeout_ns");
            let timeout = [("timeout_ns", Value::Number(1_000_000))];
            let given = if waits { &timeout[..] } else { &[] };
            self.call(CALLS[call].number, self.usual_file(call), given);
        }
    }

    fn perish(&mut self) {
        if self.rng.percent(4) {
            let death = self.rng.pick(&[Death::Exits, Death::Killed, Death::Replaced]);
            self.push(Op::Die(death));
        }
    }

    // Control.

    fn look_around(&mut self) {
        let file = self.control();
        let call = self.rng.pick(&[ioctl::LINK_INFO, ioctl::ENDPOINT_INFO]);
        self.call(call, file, &[]);
    }

    fn steer_nodes(&mut self) {
        let file = self.control();
        self.call(ioctl::NODE_DOWN, file, &[]);
        self.call(ioctl::NODE_UP, file, &[]);
    }

    fn steer_links(&mut self) {
        let file = self.control();
        self.call(ioctl::LINK_DETACH, file, &[]);
        let node = 1 + self.rng.below(3) as u8;
        let interface = if self.rng.percent(80) { node - 1 } else { self.rng.below(4) as u8 };
        self.attach_interface(file, node, interface);
    }

    fn attach_interface(&mut self, file: u8, node: u8, interface: u8) {
        let attach = [
            ("node", Value::Number(node.into())),
            ("transport", Value::Number(ioctl::TRANSPORT_ETHERNET.into())),
            ("interface", Value::Interface(interface)),
            ("frame_bytes", Value::Number(0)),
            ("address", Value::Mac(node)),
        ];
        self.call(ioctl::LINK_ATTACH, file, &attach);
    }

    /// A link is a proxy's for a while.
    fn carry(&mut self) {
        let file = self.control();
        let peer = 1 + self.rng.below(3) as u8;
        let node = ("node", Value::Number(peer.into()));
        let attach = [
            node,
            ("transport", Value::Number(ioctl::TRANSPORT_UDP.into())),
            ("interface", Value::Number(0)),
            ("address", Value::Number(0)),
        ];
        self.call(ioctl::LINK_ATTACH, file, &attach);
        for _ in 0..1 + self.rng.below(4) {
            // Room for the longest frame there is, and back again with what came.
            let address = ("address", Value::Place(Place::Page(0)));
            let room = ("len", Value::Number(1 << 17));
            self.call(ioctl::PROXY_GET, file, &[node, address, room]);
            self.call(ioctl::PROXY_PUT, file, &[node, address]);
        }
        if self.rng.percent(90) {
            self.attach_interface(file, peer, peer - 1);
        }
    }

    fn steer_containers(&mut self) {
        let file = self.control();
        let container = self.value(Role::Container);
        let that = ("container", container);
        match self.rng.below(6) {
            0 => {
                self.call(ioctl::DC_DESTROY, file, &[that]);
                if self.rng.percent(80) {
                    // The next one by that name, while some still have files of the last.
                    let room = ("max_endpoints", Value::Number(0));
                    self.call(ioctl::DC_CREATE, file, &[that, room]);
                    let here = ("node", Value::Number(0));
                    let lease = ("first_slot", Value::Number(lease_slot(0).into()));
                    let slots = ("slots", Value::Number(LEASED.into()));
                    self.call(ioctl::DC_ADD_NODE, file, &[that, here, lease, slots]);
                }
            }
            1 => self.call(ioctl::DC_REMOVE_NODE, file, &[]),
            2 => self.call(ioctl::DC_CREATE, file, &[that]),
            3 if self.rng.percent(5) => self.call(ioctl::DVS_END, file, &[]),
            3 => self.call(ioctl::DVS_INIT, file, &[]),
            _ => self.call(ioctl::DC_ADD_NODE, file, &[]),
        }
    }

    fn place_endpoints(&mut self) {
        let file = self.control();
        for _ in 0..1 + self.rng.below(3) {
            self.call(ioctl::ENDPOINT_SET_REMOTE, file, &[]);
        }
    }

    /// A move of somebody of this process, or as much of one as comes to pass.
    fn migrate(&mut self) {
        let file = self.control();
        let who = ("endpoint", Value::Somebody(Somebody::File(self.rng.below(6) as u8)));
        let epoch = ("epoch", Value::Number(1 + self.rng.below(40)));
        let container = ("container", Value::Number(self.home.into()));
        let node = Value::Number(1 + self.rng.below(3));
        if self.rng.percent(15) {
            self.call(ioctl::PROMOTE_BACKUP, file, &[who, epoch, container, ("node", node)]);
            return;
        }
        let place = self.rng.below(4096) as u32;
        let plan = [
            who,
            epoch,
            container,
            ("source", Value::Number(0)),
            ("destination", node),
            ("state", Value::Place(Place::Page(place))),
            ("state_len", Value::Number(8192)),
        ];
        self.call(ioctl::MIGRATE_START, file, &plan);
        let end = self.rng.pick(&[ioctl::MIGRATE_COMMIT, ioctl::MIGRATE_ROLLBACK]);
        if self.rng.percent(90) {
            self.call(end, file, &[who, epoch, container]);
        }
    }

    fn take_events(&mut self) {
        let file = self.control();
        self.call(ioctl::EVENTS, file, &[]);
    }

    fn control(&mut self) -> u8 {
        self.rng.pick(&CONTROL_FILES)
    }

    // Calls.

    /// Any call at all, of those that do not undo what everybody works with.
    fn any_call(&mut self) -> usize {
        loop {
            let call = self.rng.below(CALLS.len() as u64) as usize;
            let wanted = match CALLS[call].number {
                ioctl::DVS_END | ioctl::DC_DESTROY => 2,
                ioctl::NODE_DOWN | ioctl::LINK_DETACH | ioctl::DC_REMOVE_NODE => 25,
                _ => 100,
            };
            if self.rng.percent(wanted) {
                return call;
            }
        }
    }

    fn usual_file(&self, call: usize) -> u8 {
        match CALLS[call].device {
            Device::Container => self.own(),
            Device::Control => CONTROL_FILES[0],
        }
    }

    fn anything(&mut self) {
        for _ in 0..1 + self.rng.below(4) {
            let call = self.any_call();
            let file =
                if self.rng.percent(90) { self.usual_file(call) } else { self.rng.below(8) as u8 };
            self.call(CALLS[call].number, file, &[]);
        }
    }

    /// A call whose fields have the values `given`, and the grammar's where none is.
    fn call(&mut self, number: u32, file: u8, given: &[(&str, Value)]) {
        let index = index_of(number);
        let call = &CALLS[index];
        let mut values = [Value::Number(0); FIELDS_MAX];
        for (value, field) in values.iter_mut().zip(call.fields) {
            *value = match given.iter().find(|(name, _)| *name == field.name) {
                Some((_, value)) if !self.rng.percent(2) => *value,
                _ => self.value(field.role),
            };
        }
        debug_assert!(
            given.iter().all(|(name, _)| call.fields.iter().any(|field| field.name == *name)),
            "{} has no field of one of these names: {given:?}",
            call.name
        );
        let number = if self.rng.percent(1) { self.strange_number(call) } else { call.number };
        let block = self.block(call);
        self.push(Op::Call(Invocation { call: index as u8, file, number, block, values }));
    }

    fn strange_number(&mut self, call: &Call) -> u32 {
        match self.rng.below(4) {
            // Another size, another direction, another call, anything.
            0 => call.number & 0xc000_ffff | (self.rng.below(1 << 14) as u32) << 16,
            1 => call.number ^ (1 + self.rng.below(3) as u32) << 30,
            2 => call.number & !0xff | self.rng.below(256) as u32,
            _ => self.rng.draw() as u32,
        }
    }

    fn block(&mut self, call: &Call) -> Block {
        if !self.rng.percent(2 * self.wrong_percent()) {
            return Block::Proper;
        }
        match self.rng.below(8) {
            0 => Block::Misaligned,
            1 | 2 => Block::AtEnd,
            3 | 4 => Block::Cut(self.rng.below(call.size.max(1) as u64) as u8),
            5 => Block::ReadOnly,
            _ => Block::At(self.place()),
        }
    }
}

#[cfg(test)]
mod tests;
