// SPDX-License-Identifier: MIT OR Apache-2.0
//! Disk servers, clients and their memory in one thread and simulated time. What a kernel does is done here by function calls; the servers, what carries
//! their words, the decisions and the client are those that run on nodes.

use crate::services::Services;
use core::num::NonZeroU32;
use core::time::Duration;
use dvk::protocol::ErrorCode;
use dvk::{Endpoint, Errno, GrantId, Granted, How, Ipc, Message, Received, Then, Timeout};
use dvk_services::Client;
use mol_protocol::block::BlockDevice;
use mol_protocol::replica::ReplicaServer;
use mol_vdd::board::{Board, BoardError, Standing};
use mol_vdd::client::{Disk, DiskError, Finder};
use mol_vdd::feeder::{exchange, take_next, Route};
use mol_vdd::lend::Lend;
use mol_vdd::replica::{Contents, Life, Lineup, Message as ReplicaMessage, Notice, ReplicaId};
use mol_vdd::server::{News, Outside, Role, Server};
use mol_vdd::store::Store;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

const STEP: Duration = Duration::from_millis(5);

/// What everybody shares.
#[derive(Default)]
pub(crate) struct Lab {
    now: Cell<Duration>,
    /// How much later it is for servers: what a slow store has added.
    pub(crate) late_ms: Arc<AtomicU64>,
    next_slot: Cell<u32>,
    next_grant: Cell<u64>,
    memory: RefCell<BTreeMap<(u64, u64), (bool, Vec<u8>)>>,
    dead: RefCell<BTreeSet<Endpoint>>,
    replies: RefCell<BTreeMap<Endpoint, Message>>,
    machines: RefCell<BTreeMap<Endpoint, Rc<RefCell<Machine>>>>,
    pub(crate) services: Services,
    /// Which replicas hear nothing, and are not heard.
    pub(crate) cut: RefCell<BTreeSet<ReplicaId>>,
    pub(crate) notices: RefCell<Vec<(ReplicaId, Notice)>>,
    pub(crate) failed: RefCell<Vec<ReplicaId>>,
    /// Who ended because it is not meant any more.
    pub(crate) retired: RefCell<Vec<ReplicaId>>,
}

/// A server and what its process does beside.
pub(crate) struct Machine {
    pub(crate) server: Server<Reach>,
    id: ReplicaId,
    life: Life,
    board: Option<Board<Services>>,
    seen: u64,
    servers: BTreeMap<ReplicaId, (Life, Endpoint)>,
    queues: BTreeMap<(ReplicaId, Life), VecDeque<ReplicaMessage>>,
    feeder: Endpoint,
    next_tick: Duration,
    next_stay: Duration,
}

/// The lab, as a server reaches it.
pub(crate) struct Reach(Rc<Lab>);

impl Outside for Reach {
    fn now(&self) -> Duration {
        self.0.now.get() + Duration::from_millis(self.0.late_ms.load(Ordering::Relaxed))
    }

    fn copy_from(&self, from: Granted, into: &mut [u8]) -> Result<(), mol_protocol::Errno> {
        let memory = self.0.memory.borrow();
        let lent = memory.get(&(from.endpoint.raw(), from.grant.raw()));
        let (_, bytes) = lent.filter(|lent| !lent.0).ok_or(mol_protocol::Errno::Fault)?;
        let range = bytes.get(from.offset as usize..).and_then(|it| it.get(..into.len()));
        into.copy_from_slice(range.ok_or(mol_protocol::Errno::Fault)?);
        Ok(())
    }

    fn copy_to(&self, to: Granted, from: &[u8]) -> Result<(), mol_protocol::Errno> {
        let mut memory = self.0.memory.borrow_mut();
        let lent = memory.get_mut(&(to.endpoint.raw(), to.grant.raw()));
        let (_, bytes) = lent.filter(|lent| lent.0).ok_or(mol_protocol::Errno::Fault)?;
        let range = bytes.get_mut(to.offset as usize..).and_then(|it| it.get_mut(..from.len()));
        range.ok_or(mol_protocol::Errno::Fault)?.copy_from_slice(from);
        Ok(())
    }

    fn is_gone(&self, client: Endpoint) -> bool {
        self.0.dead.borrow().contains(&client)
    }
}

impl Machine {
    /// What holds now, if there is something new.
    fn follow_board(
        &mut self,
        now: Duration,
        revision: u64,
        proposals: Vec<(u32, Lineup)>,
    ) -> Result<Option<Standing>, BoardError> {
        let Some(board) = &mut self.board else { return Ok(None) };
        let mut standing = None;
        if now >= self.next_stay {
            self.next_stay = now + Duration::from_millis(750);
            board.stay()?;
        }
        for (_, lineup) in proposals {
            standing = Some(board.propose(0, &lineup)?);
        }
        if self.seen != revision {
            standing = Some(board.look(0)?);
            self.seen = revision;
        }
        Ok(standing)
    }
}

impl Lab {
    pub(crate) fn new() -> Rc<Self> {
        let lab = Self::default();
        lab.next_slot.set(64);
        Rc::new(lab)
    }

    pub(crate) fn new_endpoint(&self) -> Endpoint {
        self.next_slot.set(self.next_slot.get() + 1);
        Endpoint::new(self.next_slot.get(), NonZeroU32::MIN)
    }

    /// A client of its own endpoint.
    pub(crate) fn client(self: &Rc<Self>) -> Desk {
        Desk { lab: self.clone(), me: self.new_endpoint() }
    }

    fn install(self: &Rc<Self>, server: Server<Reach>, me: Endpoint, id: ReplicaId) {
        let machine = Machine {
            server,
            id,
            life: Life(0),
            board: None,
            seen: 0,
            servers: BTreeMap::new(),
            queues: BTreeMap::new(),
            feeder: self.new_endpoint(),
            next_tick: Duration::ZERO,
            next_stay: Duration::ZERO,
        };
        self.machines.borrow_mut().insert(me, Rc::new(RefCell::new(machine)));
    }

    /// Starts a server of devices without replicas.
    pub(crate) fn start(self: &Rc<Self>, stores: Vec<Box<dyn Store>>) -> Endpoint {
        let me = self.new_endpoint();
        let mut server = Server::new(me, Reach(self.clone()));
        for store in stores {
            server.add(store);
        }
        self.install(server, me, ReplicaId(0));
        me
    }

    /// Starts the server of a replica. If it is given an identity, it may make the device.
    pub(crate) fn start_replica(
        self: &Rc<Self>,
        id: u32,
        store: Box<dyn Store>,
        boot: u128,
        begins: Option<u128>,
    ) -> Result<Endpoint, BoardError> {
        let me = self.new_endpoint();
        let mut server = Server::new(me, Reach(self.clone()));
        let minor = server.add_replica(store).expect("a store for a replica");
        let id = ReplicaId(id);
        let mut board = Board::new(Client::by(self.services.clone()), "disks", id, me);
        let shape = server.shape(minor).expect("a device");
        let kept = server.kept(minor, boot);
        let contents = |identity| match kept {
            Some((of, contents)) if of == identity => contents,
            _ => Contents::None,
        };
        let (identity, life) = board.come_forward(minor, &shape, contents, begins)?;
        server.join(minor, Role { id, life, boot, identity });
        self.install(server, me, id);
        let machine = self.machine(me).expect("it was made");
        machine.borrow_mut().life = life;
        machine.borrow_mut().board = Some(board);
        Ok(me)
    }

    pub(crate) fn machine(&self, endpoint: Endpoint) -> Option<Rc<RefCell<Machine>>> {
        self.machines.borrow().get(&endpoint).cloned()
    }

    /// A server's process ends, and the others see it.
    pub(crate) fn kill(&self, endpoint: Endpoint) {
        let ended = self.machines.borrow_mut().remove(&endpoint);
        self.dead.borrow_mut().insert(endpoint);
        let Some(ended) = ended else { return };
        let (id, life) = (ended.borrow().id, ended.borrow().life);
        for machine in self.all() {
            if let Some(board) = &mut machine.borrow_mut().board {
                board.is_gone(0, id, life).expect("it can be said");
            }
        }
    }

    /// A client dies.
    pub(crate) fn end_client(&self, client: Endpoint) {
        self.dead.borrow_mut().insert(client);
    }

    fn all(&self) -> Vec<Rc<RefCell<Machine>>> {
        self.machines.borrow().values().cloned().collect()
    }

    fn ask(
        &self,
        from: Endpoint,
        to: Endpoint,
        message: &Message,
    ) -> Result<Option<Message>, Errno> {
        let machine = self.machine(to).ok_or(Errno::OwnerDead)?;
        let message = Message { source: from.raw(), ..*message };
        let received = Received { message, how: How::Request };
        let server = &mut machine.borrow_mut().server;
        let then = BlockDevice::dispatch(server, &received)
            .unwrap_or_else(|| ReplicaServer::handle(server, &received));
        match then {
            Then::Reply(reply) => Ok(Some(reply)),
            Then::Continue | Then::Stop => Ok(None),
        }
    }

    /// Lets a little time pass, and everybody do what is due.
    pub(crate) fn step(self: &Rc<Self>) {
        self.now.set(self.now.get() + STEP);
        self.services.advance(STEP.as_millis() as u64);
        for machine in self.all() {
            self.run(&machine);
        }
    }

    pub(crate) fn pass(self: &Rc<Self>, time: Duration) {
        let end = self.now.get() + time;
        while self.now.get() < end {
            self.step();
        }
    }

    fn run(self: &Rc<Self>, machine: &Rc<RefCell<Machine>>) {
        let now = self.now.get();
        let is_cut = |id: ReplicaId| self.cut.borrow().contains(&id);
        {
            let it = &mut *machine.borrow_mut();
            if now >= it.next_tick {
                it.next_tick = now + Duration::from_millis(25);
                it.server.tick();
            }
            let out = it.server.take_out();
            for (client, reply) in out.replies {
                // It takes the first one that comes.
                self.replies.borrow_mut().entry(client).or_insert(reply);
            }
            for letter in out.letters {
                it.queues.entry(letter.to).or_default().push_back(letter.message);
            }
            for (_, news) in out.news {
                match news {
                    News::Notice(notice) => self.notices.borrow_mut().push((it.id, notice)),
                    News::Failed(_) => {
                        self.failed.borrow_mut().push(it.id);
                        it.board.as_mut().unwrap().withdraw(0).unwrap();
                    }
                }
            }
            let standing = match is_cut(it.id) {
                true => Ok(None),
                false => it.follow_board(now, self.services.revision(), out.proposals),
            };
            match standing {
                Ok(None) => {}
                Ok(Some(Standing { lineup, servers, .. })) => {
                    it.servers = servers.clone();
                    it.server.take_lineup(0, lineup, servers);
                }
                Err(BoardError::Superseded { id, .. } | BoardError::Removed { id, .. }) => {
                    self.retired.borrow_mut().push(id);
                    self.machines.borrow_mut().retain(|_, other| !Rc::ptr_eq(other, machine));
                    return;
                }
                Err(error) => panic!("{}: {error}", it.id),
            }
        }
        let queues = core::mem::take(&mut machine.borrow_mut().queues);
        for (to, mut queue) in queues {
            while !queue.is_empty() {
                let messages = take_next(&mut queue);
                let it = machine.borrow();
                let (from, me) = ((it.id, it.life), it.feeder);
                let server = it.servers.get(&to.0).filter(|it| it.0 == to.1).map(|it| it.1);
                drop(it);
                let Some(server) = server.filter(|_| !is_cut(to.0) && !is_cut(from.0)) else {
                    continue;
                };
                let desk = Desk { lab: self.clone(), me };
                let route = Route { minor: 0, from, to, server };
                let answers = exchange(&desk, &route, &messages, Timeout::Forever);
                for answer in answers.unwrap_or_default() {
                    machine.borrow_mut().server.take_answer(0, to, answer);
                }
            }
        }
    }

    /// Opens the device of the replicas.
    pub(crate) fn disk<'d>(
        self: &Rc<Self>,
        desk: &'d Desk,
        flags: u32,
    ) -> Result<Disk<'d, Desk, Finding>, DiskError> {
        Disk::open(desk, Finding(self.clone()), 0, flags, Duration::from_secs(20))
    }
}

/// A client's calls.
pub(crate) struct Desk {
    lab: Rc<Lab>,
    pub(crate) me: Endpoint,
}

impl Desk {
    fn lend_memory<R>(
        &self,
        is_for_writing: bool,
        memory: &mut Vec<u8>,
        work: impl FnOnce(GrantId) -> R,
    ) -> R {
        let grant = self.lab.next_grant.get() + 1;
        self.lab.next_grant.set(grant);
        let key = (self.me.raw(), grant);
        let lent = (is_for_writing, core::mem::take(memory));
        self.lab.memory.borrow_mut().insert(key, lent);
        let result = work(GrantId::from_raw(grant));
        *memory = self.lab.memory.borrow_mut().remove(&key).unwrap().1;
        result
    }
}

impl Ipc for Desk {
    type Error = Errno;

    fn send(&self, _: Endpoint, _: &Message, _: Timeout) -> Result<(), Errno> {
        Err(Errno::Invalid)
    }

    fn sendrec(&self, to: Endpoint, message: &Message, timeout: Timeout) -> Result<Message, Errno> {
        self.lab.replies.borrow_mut().remove(&self.me);
        if let Some(reply) = self.lab.ask(self.me, to, message)? {
            return Ok(reply);
        }
        let Timeout::After(limit) = timeout else { return Err(Errno::Invalid) };
        let end = self.lab.now.get() + limit;
        while self.lab.now.get() < end {
            self.lab.step();
            if let Some(reply) = self.lab.replies.borrow_mut().remove(&self.me) {
                return Ok(reply);
            }
            if self.lab.machine(to).is_none() {
                return Err(Errno::OwnerDead);
            }
        }
        Err(Errno::TimedOut)
    }

    fn reply(&self, _: Endpoint, _: &Message) -> Result<(), Errno> {
        Err(Errno::Invalid)
    }

    fn notify(&self, _: Endpoint, _: u64) -> Result<(), Errno> {
        Err(Errno::Invalid)
    }
}

impl Lend for Desk {
    fn lend<R>(
        &self,
        _: Endpoint,
        memory: &[u8],
        work: impl FnOnce(GrantId) -> R,
    ) -> Result<R, Errno> {
        Ok(self.lend_memory(false, &mut memory.to_vec(), work))
    }

    fn lend_mut<R>(
        &self,
        _: Endpoint,
        memory: &mut [u8],
        work: impl FnOnce(GrantId) -> R,
    ) -> Result<R, Errno> {
        let mut lent = memory.to_vec();
        let result = self.lend_memory(true, &mut lent, work);
        memory.copy_from_slice(&lent);
        Ok(result)
    }
}

/// Finds the server of a device by what was decided, and lets simulated time pass.
pub(crate) struct Finding(Rc<Lab>);

impl Finder for Finding {
    fn find(&self) -> Option<Endpoint> {
        mol_vdd::board::find(&Client::by(self.0.services.clone()), "disks", 0).ok().flatten()
    }

    fn now(&self) -> Duration {
        self.0.now.get()
    }

    fn pause(&self, time: Duration) {
        self.0.pass(time);
    }
}

/// The errno of a refusal.
pub(crate) fn refusal<E: ErrorCode, I: core::fmt::Debug>(
    result: Result<impl core::fmt::Debug, dvk::CallError<E, I>>,
) -> Option<E> {
    result.expect_err("a refusal").refusal()
}
