// SPDX-License-Identifier: MIT OR Apache-2.0
//! Replicas, clients and the authority on a network, with faults, in simulated time.

use crate::chance::Chance;
use crate::disk::{Disk, End, BLOCK};
use crate::history::{History, Moment};
use core::fmt;
use core::time::Duration;
use mol_vdd::replica::{
    Action, Authority, Change, Contents, Input, Item, Life, Lineup, Message, Notice, Regions,
    Replica, ReplicaId, Request, RequestId, Settings,
};
use mol_vdd::store::Safety;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::sync::Arc;

const MS: u64 = 1_000_000;
const BLOCKS: u64 = 48;
/// Those that clients read; what is behind is zeroed and written, and looked at in the end only.
const SEEN: u64 = 32;
const REGION: u64 = 4 * BLOCK;
const CLIENTS: usize = 3;
const TICK: u64 = 10 * MS;

/// What a run is like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) replicas: u32,
    /// Whether stores last longer than their servers.
    pub(crate) lasts: bool,
    /// How long there are faults, in milliseconds.
    pub(crate) faults_ms: u64,
    /// Whether all may lose power at once.
    pub(crate) blackouts: bool,
    /// Whether to tell what happens.
    pub(crate) tells: bool,
}

/// Who sends and receives. Clients and the authority are places on the network, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Node(u32),
    Client(usize),
    Authority,
}

#[derive(Clone, Debug)]
enum Letter {
    Replica(Life, Life, Message),
    Ask {
        client: usize,
        ask: u64,
        request: Request,
    },
    /// Values read, or `None` if it was refused.
    Told {
        ask: u64,
        answer: Option<Vec<u64>>,
    },
    ComeForward(Life, Contents),
    Propose(Life, Lineup),
    Lineup(Lineup),
}

#[derive(Debug)]
enum Event {
    Arrives(Place, Place, Letter),
    Tick(u32, Life),
    Start(u32),
    ClientGoesOn(usize, u64),
    Fault,
    Heal(Place),
    Resume(u32, Life),
    Watch,
    /// An administrator gives the device a replica.
    Add(u32),
}

struct Node {
    id: u32,
    life: u64,
    replica: Option<Replica>,
    disk: Disk,
    /// What the disk had when this life began.
    contents: Contents,
    /// Its clock: where it began, and how fast it runs in thousandths.
    clock: (u64, u64),
    /// What is to be done, while the process is stopped.
    halted: Option<(VecDeque<Action>, Vec<Input>)>,
    requests: BTreeMap<RequestId, (usize, u64, Request)>,
    next_request: u64,
    /// Whether it may have lost what it had when it was in step.
    is_tainted: bool,
}

struct Client {
    ask: u64,
    doing: Option<(Request, Moment)>,
    server: u32,
}

/// What came of a run.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) answered_writes: usize,
    pub(crate) reads: usize,
    pub(crate) flushes: usize,
    pub(crate) kills: usize,
    pub(crate) failovers: u64,
    pub(crate) fills: usize,
    pub(crate) part_fills: usize,
    pub(crate) repairs: usize,
    pub(crate) blackouts: usize,
    /// From each loss of a primary that ended with another serving, in milliseconds.
    pub(crate) pauses_ms: Vec<u64>,
}

impl Counts {
    pub(crate) fn add(&mut self, other: Self) {
        self.answered_writes += other.answered_writes;
        self.reads += other.reads;
        self.flushes += other.flushes;
        self.kills += other.kills;
        self.failovers += other.failovers;
        self.fills += other.fills;
        self.part_fills += other.part_fills;
        self.repairs += other.repairs;
        self.blackouts += other.blackouts;
        self.pauses_ms.extend(other.pauses_ms);
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut pauses = self.pauses_ms.clone();
        pauses.sort_unstable();
        let at = |part: usize| pauses.get(pauses.len() * part / 100).copied().unwrap_or(0);
        write!(
            f,
            "{} blocks written and answered, {} read, {} flushes; {} kills, {} blackouts, {} terms; {} fills, {} of \
             them partial, {} repairs; from a primary's end to the next serving: median {} ms, nine in ten {} ms",
            self.answered_writes,
            self.reads,
            self.flushes,
            self.kills,
            self.blackouts,
            self.failovers,
            self.fills,
            self.part_fills,
            self.repairs,
            at(50),
            at(90),
        )
    }
}

pub(crate) struct World {
    plan: Plan,
    chance: Chance,
    now: u64,
    moment: Moment,
    order: u64,
    events: BinaryHeap<Reverse<(u64, u64, usize)>>,
    payload: BTreeMap<usize, Event>,
    nodes: Vec<Node>,
    clients: Vec<Client>,
    authority: Authority,
    seen_at: BTreeMap<u32, u64>,
    /// Who is cut off, and whether from clients, too.
    cut: BTreeMap<Place, bool>,
    /// When the last letter of one place to another arrives.
    lines: BTreeMap<(Place, Place), u64>,
    history: History,
    counts: Counts,
    next_value: u64,
    has_faults: bool,
    loss: u64,
    primary_lost_at: Option<u64>,
    /// The epoch up to which line-ups were noted.
    told: u64,
}

fn settings() -> Settings {
    Settings {
        regions: Regions::with_size(BLOCKS * BLOCK, REGION),
        // So small that clients overrun a replica that is filled.
        window: 4,
        window_bytes: 2048,
        backlog: 6,
        backlog_bytes: 4096,
        slack: 1,
        ..Settings::of(BLOCKS * BLOCK)
    }
}

impl World {
    pub(crate) fn new(plan: Plan) -> Self {
        let mut chance = Chance::new(plan.seed);
        let node = |id| Node {
            id,
            life: 1,
            replica: None,
            disk: Disk::new(plan.lasts, BLOCKS as usize),
            contents: Contents::None,
            clock: (chance.below(1 << 40), chance.between(960, 1040)),
            halted: None,
            requests: BTreeMap::new(),
            next_request: 0,
            is_tainted: false,
        };
        let nodes: Vec<_> = (0..plan.replicas).map(node).collect();
        let lives = (0..plan.replicas).map(|id| (ReplicaId(id), Life(1)));
        let authority = Authority::new(Lineup::first(ReplicaId(0), lives));
        let client = |_| Client { ask: 0, doing: None, server: 0 };
        let mut world = Self {
            loss: chance.below(40),
            plan,
            chance,
            now: 0,
            moment: 1,
            order: 0,
            events: BinaryHeap::new(),
            payload: BTreeMap::new(),
            nodes,
            clients: (0..CLIENTS).map(client).collect(),
            authority,
            seen_at: BTreeMap::new(),
            cut: BTreeMap::new(),
            lines: BTreeMap::new(),
            history: History::default(),
            counts: Counts::default(),
            next_value: 1,
            has_faults: true,
            primary_lost_at: None,
            told: 0,
        };
        for id in 0..plan.replicas {
            world.after(0, Event::Start(id));
        }
        for client in 0..CLIENTS {
            world.after(50 * MS, Event::ClientGoesOn(client, 0));
        }
        world.after(300 * MS, Event::Fault);
        world.after(100 * MS, Event::Watch);
        world
    }

    fn after(&mut self, delay: u64, event: Event) {
        self.order += 1;
        self.payload.insert(self.order as usize, event);
        self.events.push(Reverse((self.now + delay, self.order, self.order as usize)));
    }

    /// Tells what happens, if somebody wants to know.
    fn note(&self, text: impl FnOnce() -> String) {
        if self.plan.tells {
            println!("{:9.3} ms, moment {}: {}", self.now as f64 / MS as f64, self.moment, text());
        }
    }

    fn next_moment(&mut self) -> Moment {
        self.moment += 1;
        self.moment
    }

    fn run_until(&mut self, end: u64) {
        while let Some(&Reverse((at, _, key))) = self.events.peek() {
            if at > end {
                break;
            }
            self.events.pop();
            self.now = at;
            let event = self.payload.remove(&key).expect("each event is once");
            self.happen(event);
        }
        self.now = end;
    }

    /// Plays a run without faults but one: blocks of a replica go bad, and are looked for.
    pub(crate) fn play_scrub(mut self) -> Result<Counts, String> {
        self.loss = 0;
        self.has_faults = false;
        self.run_until(2000 * MS);
        if !self.authority.lineup().is_whole() {
            return Err(format!("after 2 s, not all are in step: {}", self.describe()));
        }
        let primary = self.authority.lineup().primary.0;
        let other = &mut self.nodes[((primary + 1) % self.plan.replicas) as usize];
        for block in [1, 2, BLOCKS as usize - 1] {
            other.disk.spoil(block);
        }
        self.input(primary, Input::Scrub);
        self.run_until(4000 * MS);
        match self.is_calm() {
            true => Ok(self.counts),
            false => Err(format!("blocks still differ: {}", self.describe())),
        }
    }

    /// Plays the run and says what is wrong with it.
    pub(crate) fn play(mut self) -> Result<Counts, String> {
        self.run_until(self.plan.faults_ms * MS);
        self.has_faults = false;
        self.cut.clear();
        self.loss = 0;
        for id in 0..self.nodes.len() {
            if self.nodes[id].halted.is_some() {
                let life = self.nodes[id].life;
                self.after(0, Event::Resume(id as u32, Life(life)));
            }
        }
        let healed = self.now;
        while !(self.is_calm() && self.is_settled()) {
            if self.now > healed + 20_000 * MS {
                return Err(format!(
                    "20 s after the last fault, it is not calm: {}",
                    self.describe()
                ));
            }
            self.run_until(self.now + 50 * MS);
        }
        self.counts.answered_writes = self.history.answered_writes();
        self.counts.reads = self.history.reads();
        self.counts.flushes = self.history.flushes();
        let wrong = match self.counts.blackouts {
            0 => self.history.contradiction(),
            _ => self.history.lost_flush(),
        };
        match wrong {
            Some(text) => Err(text),
            None => Ok(self.counts),
        }
    }

    /// Whether all are in step and have the same.
    fn is_calm(&self) -> bool {
        let lineup = self.authority.lineup();
        let know = self.nodes.iter().all(|node| {
            node.replica.as_ref().is_some_and(|replica| replica.lineup().epoch == lineup.epoch)
        });
        let is_whole = know && lineup.is_whole() && lineup.members.len() == self.nodes.len();
        let primary = &self.nodes[lineup.primary.0 as usize];
        let serves = primary.replica.as_ref().is_some_and(Replica::is_serving);
        if !is_whole || !serves {
            return false;
        }
        let blocks = primary.disk.read(0, BLOCKS * BLOCK);
        let is_same = |node: &Node| node.disk.read(0, BLOCKS * BLOCK) == blocks;
        self.nodes.iter().all(is_same)
    }

    fn is_settled(&self) -> bool {
        self.nodes
            .iter()
            .all(|node| node.replica.as_ref().is_some_and(|it| it.unsettled_count() == 0))
    }

    fn describe(&self) -> String {
        let mut text = format!("the line-up is {:?}", self.authority.lineup());
        for node in &self.nodes {
            let state = node
                .replica
                .as_ref()
                .map(|it| (it.lineup().epoch, it.is_serving(), it.unsettled_count()));
            text += &format!(
                "; node {} life {}: {state:?} {:?}",
                node.id,
                node.life,
                node.disk.read(0, BLOCKS * BLOCK)
            );
        }
        text
    }

    // The network.

    fn send(&mut self, from: Place, to: Place, letter: Letter) {
        let copies = 1 + u64::from(self.chance.permille(self.loss / 2));
        // A client's request is not sent twice: the DVK delivers once.
        let copies = if matches!(letter, Letter::Ask { .. }) { 1 } else { copies };
        for _ in 0..copies {
            if self.chance.permille(self.loss) {
                continue;
            }
            // Now and then one is late; all others keep their order.
            let late = self.has_faults && self.chance.permille(5);
            let mut delay = self.chance.between(50, 1000) * 1000;
            if late {
                delay = self.chance.between(1, 800) * MS;
            } else {
                let line = self.lines.entry((from, to)).or_default();
                *line = (*line).max(self.now + delay);
                delay = *line - self.now;
            }
            self.after(delay, Event::Arrives(from, to, letter.clone()));
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrives(from, to, letter) => {
                let is_clients = matches!(from, Place::Client(_)) || matches!(to, Place::Client(_));
                let is_cut = |place| {
                    self.cut.get(place).is_some_and(|&clients_too| clients_too || !is_clients)
                };
                if !is_cut(&from) && !is_cut(&to) {
                    self.arrive(from, to, letter);
                }
            }
            Event::Start(id) => self.start(id),
            Event::Tick(id, life) => self.tick(id, life),
            Event::ClientGoesOn(client, ask) => self.client_goes_on(client, ask),
            Event::Fault => self.fault(),
            Event::Heal(place) => {
                self.cut.remove(&place);
            }
            Event::Resume(id, life) => self.resume(id, life),
            Event::Watch => self.watch(),
            Event::Add(id) => {
                self.authority.add(ReplicaId(id));
                self.follow_authority();
            }
        }
    }

    fn arrive(&mut self, from: Place, to: Place, letter: Letter) {
        match (to, letter) {
            (Place::Node(id), Letter::Replica(sender, receiver, message)) => {
                let Place::Node(other) = from else { return };
                if self.nodes[id as usize].life == receiver.0 {
                    self.input(id, Input::Message(ReplicaId(other), sender, message));
                }
            }
            (Place::Node(id), Letter::Lineup(lineup)) => self.input(id, Input::Lineup(lineup)),
            (Place::Node(id), Letter::Ask { client, ask, request }) => {
                self.take_ask(id, client, ask, request)
            }
            (Place::Client(client), Letter::Told { ask, answer }) => {
                self.take_told(client, ask, answer)
            }
            (Place::Authority, letter) => {
                let Place::Node(id) = from else { return };
                match letter {
                    Letter::ComeForward(life, contents) => {
                        self.seen_at.insert(id, self.now);
                        self.authority.come_forward(ReplicaId(id), life, contents);
                    }
                    Letter::Propose(life, lineup) => {
                        self.authority.propose((ReplicaId(id), life), lineup);
                    }
                    _ => return,
                }
                self.follow_authority();
                let lineup = self.authority.lineup().clone();
                self.send(Place::Authority, from, Letter::Lineup(lineup));
            }
            _ => {}
        }
    }

    /// The authority misses who does not come forward, and tells all what holds.
    fn watch(&mut self) {
        for id in 0..self.plan.replicas {
            let seen = self.seen_at.get(&id).copied().unwrap_or(0);
            if self.now > seen + 300 * MS {
                let member = self.authority.lineup().members.get(&ReplicaId(id)).copied();
                if let Some(member) = member {
                    self.authority.is_gone(ReplicaId(id), member.life);
                }
            }
        }
        self.follow_authority();
        for id in 0..self.plan.replicas {
            let lineup = self.authority.lineup().clone();
            self.send(Place::Authority, Place::Node(id), Letter::Lineup(lineup));
        }
        self.after(100 * MS, Event::Watch);
    }

    fn follow_authority(&mut self) {
        self.counts.failovers = self.counts.failovers.max(self.authority.lineup().term);
        if self.told < self.authority.lineup().epoch {
            self.told = self.authority.lineup().epoch;
            self.note(|| format!("{:?}", self.authority.lineup()));
        }
        for node in &mut self.nodes {
            let standing = self.authority.lineup().standing(ReplicaId(node.id), Life(node.life));
            if standing == Some(mol_vdd::replica::Standing::InStep) {
                node.is_tainted = false;
            }
        }
    }

    // Nodes.

    fn clock(&self, id: u32) -> Duration {
        let (begin, rate) = self.nodes[id as usize].clock;
        Duration::from_nanos(begin + self.now / 1000 * rate)
    }

    fn start(&mut self, id: u32) {
        let now = self.clock(id);
        let node = &mut self.nodes[id as usize];
        let life = Life(node.life);
        node.contents = node.disk.contents();
        let text = format!(
            "{id} starts as life {} with {:?} {:?}",
            node.life, node.contents, node.disk.record
        );
        let (record, boot) = (node.disk.record.clone(), node.disk.boot);
        node.replica = Some(Replica::new((ReplicaId(id), life), settings(), record, boot, now));
        self.note(|| text);
        self.after(0, Event::Tick(id, life));
    }

    fn tick(&mut self, id: u32, life: Life) {
        let node = &self.nodes[id as usize];
        if node.life != life.0 || node.replica.is_none() {
            return;
        }
        if self.now / TICK % 8 == u64::from(id) && node.halted.is_none() {
            let letter = Letter::ComeForward(life, node.contents);
            self.send(Place::Node(id), Place::Authority, letter);
        }
        self.input(id, Input::Tick);
        self.after(TICK, Event::Tick(id, life));
    }

    fn input(&mut self, id: u32, input: Input) {
        let now = self.clock(id);
        let node = &mut self.nodes[id as usize];
        match (&mut node.halted, &mut node.replica) {
            // A stopped process finds its timer expired once, and its messages all.
            (Some((_, inputs)), Some(_)) if !matches!(input, Input::Tick) => inputs.push(input),
            (None, Some(replica)) => {
                let actions = replica.handle(now, input).into();
                self.act(id, actions);
            }
            _ => {}
        }
    }

    fn resume(&mut self, id: u32, life: Life) {
        let node = &mut self.nodes[id as usize];
        if node.life != life.0 {
            return;
        }
        let Some((actions, inputs)) = node.halted.take() else { return };
        self.act(id, actions);
        for input in inputs {
            self.input(id, input);
        }
    }

    /// Does what a replica says, unless it dies or is stopped in the middle.
    fn act(&mut self, id: u32, mut actions: VecDeque<Action>) {
        let life = self.nodes[id as usize].life;
        while let Some(action) = actions.pop_front() {
            // What an action led to may have ended it.
            if self.nodes[id as usize].life != life {
                return;
            }
            if self.has_faults && self.chance.below(20_000) == 0 {
                actions.push_front(action);
                self.note(|| format!("{id} stops before {:?}", actions[0]));
                self.nodes[id as usize].halted = Some((actions, Vec::new()));
                let pause = self.chance.between(50, 2500) * MS;
                self.after(pause, Event::Resume(id, Life(life)));
                return;
            }
            if self.has_faults && self.chance.below(20_000) == 0 {
                let end = self.some_end();
                if self.kill(id, end) {
                    return;
                }
            }
            self.do_action(id, action);
        }
    }

    fn do_action(&mut self, id: u32, action: Action) {
        let now = self.clock(id);
        let node = &mut self.nodes[id as usize];
        let (place, life) = (Place::Node(id), Life(node.life));
        match action {
            Action::Change(change) => node.disk.change(&change),
            Action::Flush => node.disk.flush(),
            Action::Keep(record) => node.disk.record = record,
            Action::Read { request, position, bytes, until } => {
                let values = node.disk.read(position, bytes);
                let Some((client, ask, again)) = node.requests.remove(&request) else { return };
                match now < until {
                    true => self.tell(id, client, ask, Some(values)),
                    false => self.take_ask(id, client, ask, again),
                }
            }
            Action::Answer(request, result) => {
                let Some((client, ask, _)) = node.requests.remove(&request) else { return };
                self.tell(id, client, ask, result.ok().map(|()| Vec::new()));
            }
            Action::Send(to, to_life, message) => {
                self.send(place, Place::Node(to.0), Letter::Replica(life, to_life, message));
            }
            Action::SendBlocks { to, epoch, feed, sequence, position, bytes } => {
                let data = Arc::from(node.disk.bytes(position, bytes));
                let change = Change::Write { position, data, safety: Safety::AtFlush };
                let message = Message::Feed { epoch, feed, sequence, item: Item::Change(change) };
                self.send(place, Place::Node(to.0 .0), Letter::Replica(life, to.1, message));
            }
            Action::SendSum { to, epoch, feed, sequence, position, bytes } => {
                let sum = node.disk.sum(position, bytes);
                let item = Item::Compare { position, bytes, sum };
                let message = Message::Feed { epoch, feed, sequence, item };
                self.send(place, Place::Node(to.0 .0), Letter::Replica(life, to.1, message));
            }
            Action::Compare { feed, sequence, position, bytes, sum } => {
                let is_same = node.disk.sum(position, bytes) == sum;
                self.input(id, Input::Compared { feed, sequence, is_same });
            }
            Action::Propose(lineup) => {
                self.send(place, Place::Authority, Letter::Propose(life, lineup))
            }
            Action::Tell(notice) => {
                self.note(|| format!("{id}: {notice:?}"));
                self.notice(notice);
            }
        }
    }

    fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::Serving { .. } => {
                if let Some(lost) = self.primary_lost_at.take() {
                    self.counts.pauses_ms.push((self.now - lost) / MS);
                }
            }
            Notice::Filling { regions, .. } => {
                self.counts.fills += 1;
                self.counts.part_fills += usize::from(regions < settings().regions.count());
            }
            Notice::Differs { .. } => self.counts.repairs += 1,
            _ => {}
        }
    }

    fn tell(&mut self, id: u32, client: usize, ask: u64, answer: Option<Vec<u64>>) {
        self.send(Place::Node(id), Place::Client(client), Letter::Told { ask, answer });
    }

    fn take_ask(&mut self, id: u32, client: usize, ask: u64, request: Request) {
        let node = &mut self.nodes[id as usize];
        if node.replica.is_none() {
            return;
        }
        node.next_request += 1;
        let number = RequestId(node.next_request);
        node.requests.insert(number, (client, ask, request.clone()));
        self.input(id, Input::Request(number, request));
    }

    // Clients.

    fn client_goes_on(&mut self, client: usize, ask: u64) {
        if self.clients[client].ask != ask {
            return;
        }
        if self.clients[client].doing.take().is_some() {
            // No answer came. Another server may know more.
            self.clients[client].server = self.chance.below(self.plan.replicas.into()) as u32;
        }
        let request = self.some_request();
        let begin = self.next_moment();
        if let Request::Change(change @ Change::Write { .. }) = &request {
            for (block, value) in blocks(change).filter(|&(block, _)| block < SEEN) {
                self.history.write_begins(block, value, begin);
            }
        }
        let state = &mut self.clients[client];
        state.ask += 1;
        state.doing = Some((request.clone(), begin));
        let (ask, server) = (state.ask, state.server);
        self.send(Place::Client(client), Place::Node(server), Letter::Ask { client, ask, request });
        self.after(400 * MS, Event::ClientGoesOn(client, ask));
    }

    fn some_request(&mut self) -> Request {
        if !self.has_faults {
            return Request::Flush;
        }
        let first = self.chance.below(SEEN);
        let count = self.chance.between(1, 6).min(SEEN - first);
        match self.chance.below(20) {
            0 => Request::Flush,
            1 => {
                let position = self.chance.between(SEEN, BLOCKS - 1) * BLOCK;
                Request::Change(Change::Zero { position, bytes: BLOCK })
            }
            2 => self.some_write(self.next_value % (BLOCKS - SEEN) + SEEN, 1),
            3..11 => Request::Read { position: first * BLOCK, bytes: count * BLOCK },
            _ => self.some_write(first, count),
        }
    }

    fn some_write(&mut self, first: u64, count: u64) -> Request {
        let values = self.next_value..self.next_value + count;
        self.next_value += count;
        let data: Vec<u8> = values.flat_map(u64::to_le_bytes).collect();
        let safety = if self.chance.permille(100) { Safety::AtOnce } else { Safety::AtFlush };
        Request::Change(Change::Write { position: first * BLOCK, data: data.into(), safety })
    }

    fn take_told(&mut self, client: usize, ask: u64, answer: Option<Vec<u64>>) {
        if self.clients[client].ask != ask {
            return;
        }
        let Some((request, begin)) = self.clients[client].doing.take() else { return };
        let end = self.next_moment();
        match (answer, request) {
            (None, _) => {
                self.clients[client].server = self.chance.below(self.plan.replicas.into()) as u32;
            }
            (Some(values), Request::Read { position, .. }) => {
                for (index, value) in values.into_iter().enumerate() {
                    self.history.read(position / BLOCK + index as u64, value, begin, end);
                }
            }
            (Some(_), Request::Change(change @ Change::Write { .. })) => {
                for (block, value) in blocks(&change).filter(|&(block, _)| block < SEEN) {
                    self.history.write_ends(block, value, end);
                }
            }
            (Some(_), Request::Flush) => self.history.flushed(begin, end),
            (Some(_), Request::Change(Change::Zero { .. })) => {}
        }
        let rest = self.chance.between(0, 20) * MS;
        self.after(rest, Event::ClientGoesOn(client, ask));
    }

    // Faults.

    fn some_end(&mut self) -> End {
        match self.chance.below(10) {
            0..6 => End::Process,
            6..9 => End::Power,
            _ => End::Disk,
        }
    }

    /// Whether somebody else has everything that was answered, if this node loses what it has.
    fn may_lose(&self, id: u32) -> bool {
        let in_step: Vec<_> = self.authority.lineup().in_step().map(|(id, _)| id.0).collect();
        !in_step.contains(&id)
            || in_step.iter().any(|&other| other != id && !self.nodes[other as usize].is_tainted)
    }

    fn kill(&mut self, id: u32, end: End) -> bool {
        let survives = self.nodes[id as usize].disk.survives(end);
        if self.nodes[id as usize].replica.is_none() || !survives && !self.may_lose(id) {
            return false;
        }
        self.end(id, end);
        let rest = self.chance.between(20, 2000) * MS;
        self.after(rest, Event::Start(id));
        true
    }

    fn end(&mut self, id: u32, end: End) {
        if self.authority.lineup().is_primary(ReplicaId(id), Life(self.nodes[id as usize].life)) {
            self.primary_lost_at = Some(self.now);
        }
        self.note(|| format!("{id} ends by {end:?}, of {:?}", self.authority.lineup()));
        let node = &mut self.nodes[id as usize];
        node.is_tainted |= !node.disk.survives(end);
        node.disk.end(end, &mut self.chance);
        node.replica = None;
        node.halted = None;
        node.requests.clear();
        node.life += 1;
        self.counts.kills += 1;
    }

    fn fault(&mut self) {
        if !self.has_faults {
            return;
        }
        let id = self.chance.below(self.plan.replicas.into()) as u32;
        match self.chance.below(10) {
            0..5 => {
                let end = self.some_end();
                self.kill(id, end);
            }
            5..8 => {
                let place = match self.chance.below(8) {
                    0 => Place::Authority,
                    _ => Place::Node(id),
                };
                self.note(|| format!("{place:?} is cut off"));
                let clients_too = self.chance.permille(500);
                self.cut.insert(place, clients_too);
                let rest = self.chance.between(50, 2500) * MS;
                self.after(rest, Event::Heal(place));
            }
            8 => self.input(id, Input::Scrub),
            _ if self.plan.blackouts => self.black_out(),
            // An administrator takes a replica away and gives the device another one.
            _ => {
                let is_primary = self.authority.lineup().primary.0 == id;
                if !is_primary && self.may_lose(id) {
                    self.authority.remove(ReplicaId(id));
                    self.follow_authority();
                    let rest = self.chance.between(50, 1500) * MS;
                    self.after(rest, Event::Add(id));
                }
            }
        }
        let rest = self.chance.between(100, 1200) * MS;
        self.after(rest, Event::Fault);
    }

    fn black_out(&mut self) {
        self.counts.blackouts += 1;
        let moment = self.next_moment();
        self.history.blacked_out(moment);
        for id in 0..self.plan.replicas {
            if self.nodes[id as usize].replica.is_some() {
                self.end(id, End::Power);
                let rest = self.chance.between(20, 1000) * MS;
                self.after(rest, Event::Start(id));
            } else {
                // It is off already; what its machine had in memory is gone now.
                let node = &mut self.nodes[id as usize];
                node.disk.end(End::Power, &mut self.chance);
                node.is_tainted = true;
            }
        }
    }
}

/// The blocks that a write is of, with their values.
fn blocks(change: &Change) -> impl Iterator<Item = (u64, u64)> + '_ {
    let (position, _) = change.range();
    let data = match change {
        Change::Write { data, .. } => &data[..],
        Change::Zero { .. } => &[],
    };
    let value = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
    data.chunks_exact(BLOCK as usize)
        .enumerate()
        .map(move |(index, bytes)| (position / BLOCK + index as u64, value(bytes)))
}
