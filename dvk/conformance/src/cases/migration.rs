// SPDX-License-Identifier: MIT OR Apache-2.0
//! Endpoints that move, stand by and are replicated, as far as one node can show: the other one is
//! down, so that nothing is on its way to or from it. What several nodes make of it is shown by the
//! cluster's scenarios.

use super::Case;
use crate::blocked::{blocked, until, Blocked};
use crate::check::{equal, fails, refused};
use crate::dvs::{Scratch, NODE};
use anyhow::{ensure, Context, Result};
use dvk::{raw, Control, Device, Endpoint, Errno, How, Message, Migration, Port, Slot, Timeout};
use dvk_abi::ioctl;
use std::sync::Arc;

/// Why no case is run between nodes.
const WHY: &str = "its steps are made by hand on one node; scenarios of the cluster tests move servers between nodes";

pub(super) const CASES: &[Case] = &[
    Case::alone("moving-endpoint-is-frozen", WHY, frozen),
    Case::alone("moving-ends-a-waiting-receive-as-ebusy", WHY, ends_receive),
    Case::alone("moving-waits-for-the-open-call", WHY, awaits_call),
    Case::alone("moving-holds-senders", WHY, holds_senders),
    Case::alone("moving-keeps-notifications", WHY, keeps_notifications),
    Case::alone("moved-endpoint-is-estale-for-ever", WHY, departed),
    Case::alone("moved-endpoint-comes-back-with-its-clients", WHY, comes_back),
    Case::alone("moved-endpoint-gets-its-replies", WHY, gets_replies),
    Case::alone("adopted-endpoint-waits-to-settle", WHY, adopted),
    Case::alone("adopting-needs-a-move", WHY, adopting),
    Case::alone("rollback-lets-the-endpoint-go-on", WHY, stays),
    Case::alone("rollback-of-a-closed-endpoint-is-its-death", WHY, stays_closed),
    Case::alone("epochs-only-grow", WHY, epochs),
    Case::alone("migration-can-be-told-twice", WHY, twice),
    Case::alone("migration-state-must-have-room", WHY, room),
    Case::alone("backup-stands-by", WHY, backup),
    Case::alone("promotion-makes-the-backup-the-endpoint", WHY, promoted),
    Case::alone("promotion-ends-the-primary", WHY, replaced),
    Case::alone("replica-has-the-endpoint-of-the-others", WHY, replica),
    Case::alone("replica-needs-a-replicated-endpoint", WHY, no_replica),
];

/// A node that is down.
const PEER: u32 = 9;
const SLOT: u32 = 6;
const LIMIT: Timeout = Timeout::After(core::time::Duration::from_secs(5));

/// A container with a server here, and somebody to talk to it.
struct World {
    control: Control,
    scratch: Scratch,
    server: Arc<Port>,
    client: Arc<Port>,
}

impl World {
    fn new() -> Result<Self> {
        let (control, scratch) = (Control::open()?, Scratch::new(0)?);
        scratch.lease(64, 32)?;
        let server = Arc::new(Port::bind(scratch.id, Slot::Server(SLOT))?);
        let client = Arc::new(scratch.bind()?);
        Ok(Self { control, scratch, server, client })
    }

    fn endpoint(&self) -> Endpoint {
        self.server.endpoint()
    }

    fn migration(&self, source: u32, destination: u32, epoch: u32) -> Migration {
        let (container, endpoint) = (self.scratch.id, self.endpoint());
        Migration { container, endpoint, source, destination, epoch }
    }

    /// Begins the move of the server to the peer; gives its state.
    fn leave(&self, epoch: u32) -> Result<(Migration, Vec<u8>)> {
        let migration = self.migration(NODE, PEER, epoch);
        let state = self.control.migrate_start(&migration, LIMIT)?;
        Ok((migration, state))
    }

    /// Moves the server to the peer.
    fn depart(&self, epoch: u32) -> Result<Vec<u8>> {
        let (migration, state) = self.leave(epoch)?;
        self.control.migrate_commit(&migration)?;
        Ok(state)
    }

    /// Begins the move of the server from the peer, which gives it the state that it was given.
    fn arrive(&self, epoch: u32, mut state: Vec<u8>) -> Result<Migration> {
        // The second word is the epoch.
        state[4..8].copy_from_slice(&epoch.to_le_bytes());
        let migration = self.migration(PEER, NODE, epoch);
        self.control.migrate_follow(&migration, &state, LIMIT)?;
        Ok(migration)
    }

    fn adopt(&self) -> Result<Port, dvk::Error> {
        Port::bind(self.scratch.id, Slot::Adopt(self.endpoint()))
    }

    /// The client sends in a thread of its own.
    fn send(&self, kind: u32) -> Result<Blocked<Result<(), dvk::Error>>> {
        let (client, to) = (self.client.clone(), self.endpoint());
        blocked(move || client.send(to, &Message::new(kind), Timeout::Forever))
    }
}

/// Whatever says something to others, or begins to wait, fails like this.
fn all_fail(port: &Port, peer: Endpoint, expected: Errno) -> Result<()> {
    let message = Message::new(1);
    fails("receive", port.receive(Endpoint::ANY, LIMIT), expected)?;
    fails("send", port.send(peer, &message, LIMIT), expected)?;
    fails("sendrec", port.sendrec(peer, &message, LIMIT), expected)?;
    fails("reply", port.reply(peer, &message), expected)?;
    fails("notify", port.notify(peer, 1), expected)
}

fn frozen() -> Result<()> {
    let world = World::new()?;
    let (migration, state) = world.leave(1)?;
    ensure!(!state.is_empty(), "no state was given");
    all_fail(&world.server, world.client.endpoint(), Errno::Busy)?;
    let info = world.server.info()?;
    equal("state", info.state, ioctl::STATE_MOVING)?;
    equal("epoch", info.epoch, 1)?;
    Ok(world.control.migrate_rollback(&migration)?)
}

fn ends_receive() -> Result<()> {
    let world = World::new()?;
    let server = world.server.clone();
    let receive = blocked(move || server.receive(Endpoint::ANY, Timeout::Forever))?;
    world.leave(1)?;
    fails("receive", receive.join("receive to end")?, Errno::Busy)
}

fn awaits_call() -> Result<()> {
    let world = World::new()?;
    let (server, to) = (world.server.clone(), world.client.endpoint());
    let send = blocked(move || server.send(to, &Message::new(1), Timeout::Forever))?;
    let migration = world.migration(NODE, PEER, 1);
    let start = |timeout| world.control.migrate_start(&migration, timeout);
    fails("migrate_start", start(Timeout::from_millis(30)), Errno::TimedOut)?;
    fails("migrate_start", start(Timeout::from_millis(0)), Errno::WouldBlock)?;
    world.client.receive(Endpoint::ANY, LIMIT)?;
    send.join("send to end")??;
    start(LIMIT)?;
    Ok(())
}

fn holds_senders() -> Result<()> {
    let world = World::new()?;
    let before = world.send(3)?;
    let (migration, _) = world.leave(1)?;
    before.waits("a send from before the move")?;
    let (late, to) = (world.scratch.bind()?, world.endpoint());
    let message = Message::new(4);
    fails("send", late.send(to, &message, Timeout::from_millis(20)), Errno::TimedOut)?;
    fails("send", late.send(to, &message, Timeout::from_millis(0)), Errno::WouldBlock)?;
    let request = late.sendrec(to, &message, Timeout::from_millis(0));
    fails("sendrec", request, Errno::WouldBlock)?;
    fails("receive", late.receive(to, Timeout::from_millis(20)), Errno::TimedOut)?;
    // It lives on, wherever, so it can be granted something.
    late.lend(to, &[1; 8], |_| ())?;
    let after = blocked(move || late.send(to, &message, Timeout::Forever))?;
    world.control.migrate_rollback(&migration)?;
    let mut kinds = [0; 2];
    for kind in &mut kinds {
        *kind = world.server.receive(Endpoint::ANY, LIMIT)?.message.kind;
    }
    kinds.sort_unstable();
    equal("what was sent", kinds, [3, 4])?;
    before.join("send to end")??;
    after.join("send to end")??;
    let more = world.server.receive(Endpoint::ANY, Timeout::from_millis(0));
    fails("receive", more, Errno::WouldBlock)
}

fn keeps_notifications() -> Result<()> {
    let world = World::new()?;
    world.client.notify(world.endpoint(), 1)?;
    let (migration, _) = world.leave(1)?;
    for bits in [2, 4] {
        world.client.notify(world.endpoint(), bits)?;
    }
    world.control.migrate_rollback(&migration)?;
    let received = world.server.receive(Endpoint::ANY, LIMIT)?;
    equal("source", received.source(), world.client.endpoint())?;
    equal("bits", received.message.notify_bits(), Some(7))?;
    let more = world.server.receive(Endpoint::ANY, Timeout::from_millis(0));
    fails("receive", more, Errno::WouldBlock)
}

fn departed() -> Result<()> {
    let world = World::new()?;
    let send = world.send(1)?;
    world.depart(1)?;
    all_fail(&world.server, world.client.endpoint(), Errno::Stale)?;
    // Who waited goes where it is now.
    fails("send", send.join("send to end")?, Errno::NodeDown)?;
    let again = Port::bind(world.scratch.id, Slot::Server(SLOT));
    fails("bind", again, Errno::Busy)?;
    let info = world.control.endpoint_info(world.scratch.id, SLOT)?.context("an endpoint")?;
    equal("node", info.node, PEER)?;
    // Closing what it was does not disturb it.
    let endpoint = world.endpoint();
    let World { control, scratch, server, client: _client } = world;
    drop(server);
    let info = control.endpoint_info(scratch.id, SLOT)?.context("an endpoint")?;
    equal("endpoint", info.endpoint, endpoint.raw())
}

fn comes_back() -> Result<()> {
    let world = World::new()?;
    let (client, to) = (world.client.clone(), world.endpoint());
    let request = blocked(move || client.sendrec(to, &Message::new(5), Timeout::Forever))?;
    let received = world.server.receive(Endpoint::ANY, LIMIT)?;
    let (late, pending) = (world.scratch.bind()?, 0x30);
    late.notify(to, pending)?;
    let state = world.depart(1)?;
    request.waits("a request that was received")?;
    let migration = world.arrive(2, state)?;
    let adopted = world.adopt()?;
    equal("endpoint", adopted.endpoint(), to)?;
    world.control.migrate_commit(&migration)?;
    adopted.reply(received.source(), &Message::new(6))?;
    equal("reply", request.join("sendrec to end")??.kind, 6)?;
    let notification = adopted.receive(Endpoint::ANY, LIMIT)?;
    equal("bits", notification.message.notify_bits(), Some(pending))?;
    all_fail(&world.server, world.client.endpoint(), Errno::Stale)?;
    // Closing the file that had it does not disturb the one that has.
    let World { control: _control, scratch: _scratch, server, client } = world;
    drop(server);
    let sender = client.clone();
    let send = blocked(move || sender.send(to, &Message::new(7), Timeout::Forever))?;
    equal("kind", adopted.receive(Endpoint::ANY, LIMIT)?.message.kind, 7)?;
    Ok(send.join("send to end")??)
}

fn gets_replies() -> Result<()> {
    let world = World::new()?;
    // Whoever answers has answered it before it moves.
    let peer = world.client.clone();
    let exchange = |asker: Arc<Port>, kind: u32| -> Result<()> {
        let to = peer.endpoint();
        let request = blocked(move || asker.sendrec(to, &Message::new(kind), LIMIT))?;
        let received = peer.receive(Endpoint::ANY, LIMIT)?;
        peer.reply(received.source(), &Message::new(kind + 1))?;
        equal("reply", request.join("sendrec to end")??.kind, kind + 1)
    };
    exchange(world.server.clone(), 10)?;
    let state = world.depart(1)?;
    let migration = world.arrive(2, state)?;
    let adopted = Arc::new(world.adopt()?);
    world.control.migrate_commit(&migration)?;
    exchange(adopted, 20)
}

fn adopted() -> Result<()> {
    let world = World::new()?;
    let state = world.depart(1)?;
    let migration = world.arrive(2, state)?;
    fails("migrate_commit", world.control.migrate_commit(&migration), Errno::NotConnected)?;
    let adopted = Arc::new(world.adopt()?);
    fails("a second adoption", world.adopt(), Errno::Busy)?;
    fails("notify", adopted.notify(world.client.endpoint(), 1), Errno::Busy)?;
    equal("state", adopted.info()?.state, ioctl::STATE_MOVING)?;
    let send = world.send(8)?;
    let server = adopted.clone();
    let receive = blocked(move || server.receive(Endpoint::ANY, Timeout::Forever))?;
    receive.waits("receive of an endpoint that has not settled")?;
    world.control.migrate_commit(&migration)?;
    equal("kind", receive.join("receive to end")??.message.kind, 8)?;
    Ok(send.join("send to end")??)
}

fn adopting() -> Result<()> {
    let world = World::new()?;
    fails("adopting who is here", world.adopt(), Errno::NoEndpoint)?;
    let state = world.depart(1)?;
    fails("adopting who is elsewhere", world.adopt(), Errno::NoEndpoint)?;
    let migration = world.arrive(2, state)?;
    // One that is given up can be adopted by another.
    drop(world.adopt()?);
    let adopted = world.adopt()?;
    world.control.migrate_rollback(&migration)?;
    all_fail(&adopted, world.client.endpoint(), Errno::Stale)?;
    let device = Device::open(world.scratch.id)?;
    let mut block =
        ioctl::Bind { slot: SLOT, flags: ioctl::BIND_ADOPT, endpoint: world.endpoint().raw() };
    let bind = raw::call::<{ ioctl::BIND }, _>(&device, &mut block);
    refused("adopting a server as none", bind, Errno::Invalid)
}

fn stays() -> Result<()> {
    let world = World::new()?;
    let (migration, _) = world.leave(1)?;
    world.control.migrate_rollback(&migration)?;
    let send = world.send(9)?;
    let received = world.server.receive(Endpoint::ANY, LIMIT)?;
    equal("how", received.how, How::Send)?;
    send.join("send to end")??;
    equal("state", world.server.info()?.state, ioctl::STATE_IDLE)
}

fn stays_closed() -> Result<()> {
    let world = World::new()?;
    let send = world.send(1)?;
    let (migration, _) = world.leave(1)?;
    let World { control, scratch, server, client: _client } = world;
    drop(server);
    send.waits("a send to an endpoint whose file is closed")?;
    control.migrate_rollback(&migration)?;
    fails("send", send.join("send to end")?, Errno::Stale)?;
    Port::bind(scratch.id, Slot::Server(SLOT))?;
    Ok(())
}

fn epochs() -> Result<()> {
    let world = World::new()?;
    let start = |epoch| world.control.migrate_start(&world.migration(NODE, PEER, epoch), LIMIT);
    fails("epoch 0", start(0), Errno::Invalid)?;
    let (migration, _) = world.leave(5)?;
    fails("another move", start(6), Errno::Busy)?;
    let other = world.migration(NODE, PEER, 4);
    fails("migrate_commit", world.control.migrate_commit(&other), Errno::Stale)?;
    fails("migrate_rollback", world.control.migrate_rollback(&other), Errno::Stale)?;
    world.control.migrate_rollback(&migration)?;
    for epoch in [4, 5] {
        fails("an epoch of before", start(epoch), Errno::Stale)?;
    }
    start(6)?;
    Ok(())
}

fn twice() -> Result<()> {
    let world = World::new()?;
    let (migration, state) = world.leave(1)?;
    equal("state", world.leave(1)?.1, state.clone())?;
    for _ in 0..2 {
        world.control.migrate_commit(&migration)?;
    }
    fails("migrate_rollback", world.control.migrate_rollback(&migration), Errno::Stale)?;
    let again = world.control.migrate_start(&migration, LIMIT);
    fails("migrate_start", again, Errno::Stale)?;
    let migration = world.arrive(2, state.clone())?;
    equal("migration", world.arrive(2, state)?, migration)?;
    for _ in 0..2 {
        world.control.migrate_rollback(&migration)?;
    }
    fails("migrate_commit", world.control.migrate_commit(&migration), Errno::Stale)
}

fn room() -> Result<()> {
    let world = World::new()?;
    // Each is another endpoint, and takes 16 bytes: more than the library begins with.
    let sources = 300;
    for _ in 0..sources {
        world.scratch.bind()?.notify(world.endpoint(), 1)?;
    }
    let (migration, state) = world.leave(1)?;
    ensure!(state.len() > 16 * sources, "a state of {} bytes", state.len());
    world.control.migrate_rollback(&migration)?;
    for _ in 0..sources {
        world.server.receive(Endpoint::ANY, Timeout::from_millis(0))?;
    }
    world.depart(2)?;
    let migration = world.migration(PEER, NODE, 3);
    for wrong in [&state[..], &state[1..], &[]] {
        let follow = world.control.migrate_follow(&migration, wrong, LIMIT);
        fails("migrate_start with another state", follow, Errno::Invalid)?;
    }
    Ok(())
}

/// A container where a server of the peer is known, and its backup is here.
fn standing_by() -> Result<(World, Arc<Port>, Endpoint)> {
    let world = World::new()?;
    let primary = Endpoint::from_raw(7 << 32 | 20);
    world.control.endpoint_set_remote(world.scratch.id, primary, PEER)?;
    let backup = Arc::new(Port::bind(world.scratch.id, Slot::Backup(20))?);
    Ok((world, backup, primary))
}

fn backup() -> Result<()> {
    let (world, backup, primary) = standing_by()?;
    equal("endpoint", backup.endpoint(), primary)?;
    equal("role", backup.info()?.role, ioctl::ROLE_BACKUP)?;
    let (peer, message) = (world.client.endpoint(), Message::new(1));
    fails("send", backup.send(peer, &message, LIMIT), Errno::Denied)?;
    fails("notify", backup.notify(peer, 1), Errno::Denied)?;
    let receive = backup.receive(Endpoint::ANY, Timeout::from_millis(20));
    fails("receive", receive, Errno::TimedOut)?;
    fails("send to the primary", world.client.send(primary, &message, LIMIT), Errno::NodeDown)?;
    let second = Port::bind(world.scratch.id, Slot::Backup(20));
    fails("a second backup", second, Errno::Busy)?;
    fails("a backup of nobody", Port::bind(world.scratch.id, Slot::Backup(21)), Errno::NoEndpoint)?;
    fails("a backup of one's own", Port::bind(world.scratch.id, Slot::Backup(SLOT)), Errno::Busy)?;
    drop(backup);
    Port::bind(world.scratch.id, Slot::Backup(20))?;
    Ok(())
}

fn promoted() -> Result<()> {
    let (world, backup, primary) = standing_by()?;
    let server = backup.clone();
    let receive = blocked(move || server.receive(Endpoint::ANY, Timeout::Forever))?;
    let promote = |epoch| world.control.promote_backup(world.scratch.id, primary, NODE, epoch);
    promote(1)?;
    receive.waits("receive of the promoted")?;
    promote(1)?;
    let (client, message) = (world.client.clone(), Message::new(2));
    let send = blocked(move || client.send(primary, &message, Timeout::Forever))?;
    equal("kind", receive.join("receive to end")??.message.kind, 2)?;
    send.join("send to end")??;
    let info = backup.info()?;
    equal("role and epoch", (info.role, info.epoch), (ioctl::ROLE_PRIMARY, 1))?;
    let nobody = Endpoint::from_raw(7 << 32 | 21);
    world.control.endpoint_set_remote(world.scratch.id, nobody, PEER)?;
    let promote = world.control.promote_backup(world.scratch.id, nobody, NODE, 1);
    fails("a promotion without a backup", promote, Errno::NotConnected)
}

fn replaced() -> Result<()> {
    let world = World::new()?;
    let (client, to) = (world.client.clone(), world.endpoint());
    let request = blocked(move || client.sendrec(to, &Message::new(1), Timeout::Forever))?;
    world.server.receive(Endpoint::ANY, LIMIT)?;
    let queued = world.scratch.bind()?;
    let queued = blocked(move || queued.send(to, &Message::new(2), Timeout::Forever))?;
    let server = world.server.clone();
    // A thread that waits in it hears it, too.
    let receive = blocked(move || server.receive_request(Endpoint::ANY, Timeout::Forever))?;
    world.control.promote_backup(world.scratch.id, to, PEER, 1)?;
    fails("receive", receive.join("receive to end")?, Errno::Stale)?;
    fails("sendrec", request.join("sendrec to end")?, Errno::OwnerDead)?;
    fails("send", queued.join("send to end")?, Errno::OwnerDead)?;
    all_fail(&world.server, world.client.endpoint(), Errno::Stale)?;
    let send = world.client.send(to, &Message::new(3), LIMIT);
    fails("send to where it is", send, Errno::NodeDown)
}

fn replica() -> Result<()> {
    let world = World::new()?;
    let (control, id) = (&world.control, world.scratch.id);
    let first = Port::bind(id, Slot::Replica(30))?;
    equal("role", first.info()?.role, ioctl::ROLE_REPLICA)?;
    let remote = Endpoint::from_raw(7 << 32 | 31);
    control.endpoint_set_replicated(id, remote, PEER)?;
    let (client, message) = (world.client.clone(), Message::new(2));
    fails("send", client.send(remote, &message, LIMIT), Errno::NodeDown)?;
    let second = Arc::new(Port::bind(id, Slot::Replica(31))?);
    equal("endpoint", second.endpoint(), remote)?;
    let send = blocked(move || client.send(remote, &message, Timeout::Forever))?;
    equal("kind", second.receive(Endpoint::ANY, LIMIT)?.message.kind, 2)?;
    send.join("send to end")??;
    // Without the one here, that of the peer is left.
    drop(second);
    let gone = || Ok(control.endpoint_info(id, 31)?.is_some_and(|info| info.node == PEER));
    until("the other replica to be known", gone)?;
    let send = world.client.send(remote, &Message::new(3), LIMIT);
    fails("send to the other replica", send, Errno::NodeDown)
}

fn no_replica() -> Result<()> {
    let world = World::new()?;
    let id = world.scratch.id;
    fails("a replica of a server here", Port::bind(id, Slot::Replica(SLOT)), Errno::Busy)?;
    let remote = Endpoint::from_raw(7 << 32 | 31);
    world.control.endpoint_set_remote(id, remote, PEER)?;
    fails("a replica of a plain server", Port::bind(id, Slot::Replica(31)), Errno::Busy)?;
    let replica = Port::bind(id, Slot::Replica(30))?;
    let migration = Migration { endpoint: replica.endpoint(), ..world.migration(NODE, PEER, 1) };
    let start = world.control.migrate_start(&migration, LIMIT);
    fails("moving a replica", start, Errno::Invalid)
}
