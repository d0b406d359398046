// SPDX-License-Identifier: GPL-2.0
//! Open files: the control device, and the device of a container, which binds to one endpoint.

use super::abi::errno::Errno;
use super::abi::ioctl::{
    self, Bind, Info, Notify, Privileges, WaitBind, WaitUnbind, BIND_SERVER, MAY_NOTIFY, MAY_WAIT,
    SLOT_ANY,
};
use super::abi::limits::{SERVER_SLOTS, SLOTS};
use super::abi::wire::record::Step;
use super::abi::{Endpoint, Message};
use super::container::{Container, SlotChoice, Target};
use super::control;
use super::copy::{self, Caller};
use super::dvs;
use super::local_port::{LocalPort, Rest, Timeout};
use super::rules::port::{Answer, Filter, Mode, Outcome, Peer, PeerCall, Receive};
use super::rules::privilege::Privilege;
use super::sys::{self, PollQueue, Sleeper, SoftirqsHeld};
use super::trace;
use super::uapi::{Argument, ExchangeArgument};
use super::watch::ControlFile;
use core::mem::MaybeUninit;
use core::num::NonZeroU32;
use kernel::prelude::*;
use kernel::sync::{new_spinlock, Arc, SpinLock};

/// What is behind an open file.
pub(crate) enum File {
    /// `/dev/dvk`.
    Control(Pin<KBox<ControlFile>>),
    /// `/dev/dvk-dc<N>`.
    Container(Pin<KBox<ContainerFile>>),
}

impl File {
    /// Opens the device of a container, or the control device.
    pub(crate) fn open(container: Option<u16>) -> Result<Self, Errno> {
        let Some(id) = container else {
            if !sys::may_control() {
                return Err(Errno::NotPermitted);
            }
            return Ok(Self::Control(ControlFile::new()?));
        };
        let container = dvs::get()?.containers.get(id).ok_or(Errno::NoDevice)?;
        let poll = Arc::pin_init(PollQueue::new(), GFP_KERNEL).map_err(|_| Errno::NoMemory)?;
        let file = pin_init!(ContainerFile {
            container,
            poll,
            bound <- new_spinlock!(Bound::default(), "dvk_file"),
        });
        Ok(Self::Container(KBox::pin_init(file, GFP_KERNEL).map_err(|_| Errno::NoMemory)?))
    }

    /// Carries out an ioctl.
    pub(crate) fn ioctl(&self, cmd: u32, argument: Argument) -> Result<(), Errno> {
        match self {
            Self::Control(file) => control::ioctl(file, cmd, argument),
            Self::Container(file) => {
                trace::call(&**file, cmd, argument, ContainerFile::name, ContainerFile::ioctl)
            }
        }
    }
}

/// An open file of a container's device. While it is bound it *is* the endpoint: releasing it
/// unbinds.
#[pin_data(PinnedDrop)]
pub(crate) struct ContainerFile {
    container: Arc<Container>,
    poll: Arc<PollQueue>,
    #[pin]
    bound: SpinLock<Bound>,
}

/// What a file is bound to.
#[derive(Default)]
struct Bound {
    port: Option<Arc<LocalPort>>,
    /// The peer on this node that it exchanged something with last, so that it is not looked up
    /// again: endpoints do not come back, and one that is gone says so itself.
    last: Option<Arc<LocalPort>>,
}

#[pinned_drop]
impl PinnedDrop for ContainerFile {
    fn drop(self: Pin<&mut Self>) {
        let bound = core::mem::take(&mut *self.bound.lock());
        if let Some(port) = bound.port {
            self.container.unbind(&port);
        }
    }
}

/// What somebody who polls sees.
pub(crate) enum Readiness {
    /// The file is not bound, or its endpoint died.
    Unbound,
    /// `receive` from anybody would wait.
    Waiting,
    /// It would not.
    Readable,
}

impl ContainerFile {
    // Once, whether it is traced or not.
    #[inline(never)]
    fn ioctl(&self, cmd: u32, argument: Argument) -> Result<(), Errno> {
        match cmd {
            ioctl::SENDREC => self.send(argument, Mode::Request),
            ioctl::REPLY_RECEIVE => self.receive(argument, true, false),
            ioctl::RECEIVE => self.receive(argument, false, false),
            ioctl::REPLY => self.reply(argument),
            ioctl::SEND => self.send(argument, Mode::Send),
            ioctl::RECEIVE_REQUEST => self.receive(argument, false, true),
            ioctl::NOTIFY => self.notify(&argument.read()?),
            ioctl::BIND => {
                let mut block: Bind = argument.read()?;
                let port = self.bind(&block)?;
                block.endpoint = port.endpoint().raw();
                argument.write(&block).inspect_err(|_| {
                    // Nobody knows the endpoint, so nobody can have used it.
                    let _ = self.unbind();
                })
            }
            ioctl::COPY_FROM
            | ioctl::COPY_TO
            | ioctl::COPY_BETWEEN
            | ioctl::GRANT
            | ioctl::REVOKE => {
                let caller = Caller { container: &self.container, port: &self.port()? };
                copy::ioctl(caller, cmd, argument)
            }
            ioctl::UNBIND => self.unbind(),
            ioctl::GET_INFO => argument.write(&self.info()),
            ioctl::WAIT_BIND => self.wait_bind(argument),
            ioctl::WAIT_UNBIND => self.wait_unbind(&argument.read()?),
            ioctl::SET_PRIVILEGES => self.set_privileges(&argument.read()?),
            ioctl::GET_PRIVILEGES => {
                let port = self.port()?;
                let privilege = port.with(|state| state.privilege());
                argument.write(&privilege.to_block(port.endpoint()))
            }
            _ => Err(Errno::NotACall),
        }
    }

    /// Registers who polls, and tells what there is.
    ///
    /// # Safety
    /// See [`PollQueue::register`].
    pub(crate) unsafe fn poll(
        &self,
        file: *mut core::ffi::c_void,
        table: *mut core::ffi::c_void,
    ) -> Readiness {
        // SAFETY: by this function's contract; the queue is kept by this open file.
        unsafe { self.poll.register(file, table) };
        match self.port() {
            Ok(port) if port.is_dead() => Readiness::Unbound,
            Ok(port) if port.is_readable() => Readiness::Readable,
            Ok(_) => Readiness::Waiting,
            Err(_) => Readiness::Unbound,
        }
    }

    /// Its container and endpoint.
    fn name(&self) -> (u16, Endpoint) {
        let endpoint = self.port().map_or(Endpoint::NONE, |port| port.endpoint());
        (self.container.id(), endpoint)
    }

    fn port(&self) -> Result<Arc<LocalPort>, Errno> {
        self.bound.lock().port.clone().ok_or(Errno::NotConnected)
    }

    /// The file's own port, and where `to` is.
    fn port_and_target(&self, to: Endpoint) -> Result<(Arc<LocalPort>, Target), Errno> {
        let (port, last) = self.port_and_last(to)?;
        if let Some(last) = last {
            return Ok((port, Target::Local(last)));
        }
        let target = self.container.route(to)?;
        if let Target::Local(peer) = &target {
            self.remember(peer);
        }
        Ok((port, target))
    }

    /// The file's own port, and that of `to` if it is on this node and alive.
    fn port_and_client(
        &self,
        to: Endpoint,
    ) -> Result<(Arc<LocalPort>, Option<Arc<LocalPort>>), Errno> {
        let (port, last) = self.port_and_last(to)?;
        if last.is_some() {
            return Ok((port, last));
        }
        match self.container.route(to) {
            Ok(Target::Local(peer)) => {
                self.remember(&peer);
                Ok((port, Some(peer)))
            }
            _ => Ok((port, None)),
        }
    }

    fn port_and_last(
        &self,
        to: Endpoint,
    ) -> Result<(Arc<LocalPort>, Option<Arc<LocalPort>>), Errno> {
        let bound = self.bound.lock();
        let port = bound.port.clone().ok_or(Errno::NotConnected)?;
        Ok((port, bound.last.as_ref().filter(|last| last.endpoint() == to).cloned()))
    }

    fn remember(&self, peer: &Arc<LocalPort>) {
        let before = self.bound.lock().last.replace(peer.clone());
        drop(before);
    }

    fn bind(&self, block: &Bind) -> Result<Arc<LocalPort>, Errno> {
        let server = match block.flags {
            0 => false,
            BIND_SERVER => true,
            _ => return Err(Errno::Invalid),
        };
        let slot = match (server, block.slot) {
            (false, SLOT_ANY) => SlotChoice::Any,
            (true, number) if number < SERVER_SLOTS => SlotChoice::Server(number),
            _ => return Err(Errno::Invalid),
        };
        if self.bound.lock().port.is_some() {
            return Err(Errno::Busy);
        }
        let port = self.container.bind(slot, self.poll.clone())?;
        let lost = {
            let mut bound = self.bound.lock();
            if bound.port.is_some() {
                true
            } else {
                bound.port = Some(port.clone());
                false
            }
        };
        if lost {
            // Another thread bound the file in the meantime.
            self.container.unbind(&port);
            return Err(Errno::Busy);
        }
        Ok(port)
    }

    fn unbind(&self) -> Result<(), Errno> {
        let port = self.port()?;
        // First, so that whoever finds the file unbound knows that nobody uses its grants.
        self.container.unbind(&port);
        let unbound = {
            let mut bound = self.bound.lock();
            if !bound.port.as_ref().is_some_and(|known| Arc::ptr_eq(known, &port)) {
                // Another thread was faster.
                return Err(Errno::NotConnected);
            }
            core::mem::take(&mut *bound)
        };
        drop(unbound);
        Ok(())
    }

    /// `send` and `sendrec`.
    fn send(&self, argument: Argument, mode: Mode) -> Result<(), Errno> {
        let argument = ExchangeArgument(argument);
        let mut block = MaybeUninit::uninit();
        let block = argument.read(&mut block, mode == Mode::Request)?;
        let to = Endpoint::from_raw(block.peer);
        let (port, target) = self.port_and_target(to)?;
        let timeout = Timeout::from_ns(block.timeout_ns);
        if mode == Mode::Request && timeout == Timeout::Never {
            // No reply can be there at once, and a request must not be left with the peer.
            return Err(Errno::WouldBlock);
        }
        let peer = self.container.peer(to, &target);
        let outcome = match &target {
            Target::Local(server) => {
                self.send_here(&port, server, peer, mode, timeout, &mut block.message)
            }
            Target::Remote(_) => {
                self.send_away(&port, &target, peer, mode, timeout, &mut block.message)
            }
        };
        match outcome? {
            Outcome::Received { how } => {
                block.how = how;
                argument.write(block)
            }
            Outcome::Failed(error) => Err(error),
            _ => Ok(()),
        }
    }

    /// To an endpoint on this node.
    fn send_here(
        &self,
        port: &LocalPort,
        server: &LocalPort,
        peer: Peer,
        mode: Mode,
        timeout: Timeout,
        message: &mut Message,
    ) -> Result<Outcome, Errno> {
        let rest = server.rest_of_partner();
        let held = SoftirqsHeld::new();
        let (call, _) = port.begin(&held, rest, |state| {
            let call = state.begin_send(peer, mode)?;
            Ok((call, Some(call)))
        })?;
        let me = Peer { endpoint: port.endpoint(), node: self.container.local() };
        let (effect, wake) = server.arrive(&held, PeerCall { peer: me, call }, mode, message);
        if let Some(answer) = effect.answer {
            port.take_answer(peer, call, answer);
        } else if effect.readable && self.container.closes_cycle(port) {
            if let Some(answer) = server.apply(me, &Step::Cancel { call }).answer {
                port.take_answer(peer, call, answer);
            }
            port.fail(call, Errno::Deadlock);
        }
        Ok(port.wait(held, wake, (call, rest), timeout, message, |open| self.cancel(port, open)))
    }

    /// To an endpoint on another node.
    fn send_away(
        &self,
        port: &LocalPort,
        target: &Target,
        peer: Peer,
        mode: Mode,
        timeout: Timeout,
        message: &mut Message,
    ) -> Result<Outcome, Errno> {
        let held = SoftirqsHeld::new();
        let (call, _) = port.begin(&held, Rest::Sleep, |state| {
            let call = state.begin_send(peer, mode)?;
            Ok((call, Some(call)))
        })?;
        let step = match mode {
            Mode::Send => Step::Send { call, message: *message },
            Mode::Request => Step::Request { call, message: *message },
        };
        self.ask(port, peer, target, call, &step);
        Ok(self.finish(port, held, call, timeout, message))
    }

    fn reply(&self, argument: Argument) -> Result<(), Errno> {
        let mut block = MaybeUninit::uninit();
        let block = ExchangeArgument(argument).read(&mut block, false)?;
        let (port, target) = self.port_and_client(Endpoint::from_raw(block.peer))?;
        let held = SoftirqsHeld::new();
        let client = port.with_in(&held, |state| state.reply(Endpoint::from_raw(block.peer)))?;
        if let Some(sleeper) = self.give_reply(&held, &port, target, client, &block.message) {
            sleeper.wake(&held);
        }
        Ok(())
    }

    /// Gives a reply; if that is to wake a thread here, says which.
    fn give_reply(
        &self,
        held: &SoftirqsHeld,
        port: &LocalPort,
        target: Option<Arc<LocalPort>>,
        client: PeerCall,
        message: &Message,
    ) -> Option<Sleeper> {
        if client.peer.node != self.container.local() {
            let step = Step::Reply { call: client.call, message: *message };
            self.container.tell(port.endpoint(), client.peer, &step);
            return None;
        }
        // A client that is gone meanwhile needs no reply.
        let me = Peer { endpoint: port.endpoint(), node: self.container.local() };
        target?.answered(held, PeerCall { peer: me, call: client.call }, message)
    }

    /// `receive`, `receive_request` and `reply_receive`.
    fn receive(&self, argument: Argument, replies: bool, requests_only: bool) -> Result<(), Errno> {
        let argument = ExchangeArgument(argument);
        let mut block = MaybeUninit::uninit();
        let block = argument.read(&mut block, true)?;
        let to = Endpoint::from_raw(block.peer);
        let (port, client) = if replies { self.port_and_client(to)? } else { (self.port()?, None) };
        let from = Endpoint::from_raw(block.from);
        // The source's node is known from here on, so that the wait ends when it goes down.
        let source = if from == Endpoint::ANY { Ok(None) } else { self.source(from).map(Some) };
        let timeout = Timeout::from_ns(block.timeout_ns);
        let rest = client.as_ref().map_or(Rest::Sleep, |client| client.rest_of_partner());

        let held = SoftirqsHeld::new();
        let (mut answered, mut received) = (None, None);
        let begun = port.begin(&held, rest, |state| {
            if replies {
                answered = Some(state.reply(to)?);
            }
            let source = source.as_ref().map_err(|error| *error)?;
            let from = source.as_ref().map(|(peer, _)| *peer);
            let begun = state.begin_receive(Filter { from, requests_only })?;
            if let Receive::Wait { call } = begun {
                return Ok((begun, Some(call)));
            }
            received = Some(*state.message());
            Ok((begun, None))
        });
        // What was to be answered is, whatever becomes of the receive.
        let wake = answered
            .and_then(|answered| self.give_reply(&held, &port, client, answered, &block.message));
        let begun = match begun {
            Ok((Receive::Wait { call }, _)) => Ok(Begun::Wait(call)),
            Ok((Receive::Done { how, accepted }, _)) => Ok(Begun::Done(how, accepted)),
            Err(error) => Err(error),
        };
        match begun {
            Ok(Begun::Wait(call)) => {
                if let Ok(Some((peer, target))) = source {
                    if timeout != Timeout::Never {
                        // Only the source can end the call, so it is to say when it dies.
                        self.ask(&port, peer, &target, call, &Step::Watch { call });
                    }
                }
                let cancel = |open| self.cancel(&port, open);
                let message = &mut block.message;
                match port.wait(held, wake, (call, rest), timeout, message, cancel) {
                    Outcome::Received { how } => block.how = how,
                    Outcome::Failed(error) => return Err(error),
                    _ => return Err(Errno::Invalid),
                }
            }
            Ok(Begun::Done(how, accepted)) => {
                if let Some(sleeper) = wake {
                    sleeper.wake(&held);
                }
                if let Some(PeerCall { peer, call }) = accepted {
                    self.container.tell(port.endpoint(), peer, &Step::Accepted { call });
                }
                block.how = how;
                if let Some(message) = received {
                    block.message = message;
                }
                // The block may be in memory that is not there, or that a fork shares, and a page
                // fault is an error where softirqs are held off.
                drop(held);
            }
            Err(error) => {
                if let Some(sleeper) = wake {
                    sleeper.wake(&held);
                }
                return Err(error);
            }
        }
        argument.write(block)
    }

    /// The peer that `from` is, and where.
    fn source(&self, from: Endpoint) -> Result<(Peer, Target), Errno> {
        let target = self.container.route(from)?;
        Ok((self.container.peer(from, &target), target))
    }

    /// Gives `peer` a step of the open call, and the call what comes of it.
    fn ask(&self, port: &LocalPort, peer: Peer, target: &Target, call: u32, step: &Step) {
        let open = || port.is_open(call);
        match self.container.give(port.endpoint(), target, peer.endpoint, step, open) {
            Ok(Some(answer)) => port.take_answer(peer, call, answer),
            Ok(None) => {}
            Err(error) => port.fail(call, error),
        }
    }

    /// Asks the peer of an open call to let go of it: the peer that the call remembers, wherever
    /// the endpoint may be by now. One that is gone has said already how the call ended.
    fn cancel(&self, port: &LocalPort, PeerCall { peer, call }: PeerCall) {
        if let Some(answer) = self.container.tell(port.endpoint(), peer, &Step::Cancel { call }) {
            port.take_answer(peer, call, answer);
        }
    }

    /// Waits for the end of a call whose partner does not need this CPU.
    fn finish(
        &self,
        port: &LocalPort,
        held: SoftirqsHeld,
        call: u32,
        timeout: Timeout,
        message: &mut Message,
    ) -> Outcome {
        let cancel = |open| self.cancel(port, open);
        port.wait(held, None, (call, Rest::Sleep), timeout, message, cancel)
    }

    fn wait_bind(&self, argument: Argument) -> Result<(), Errno> {
        let mut block: WaitBind = argument.read()?;
        if block.flags != 0 || block.slot >= SLOTS {
            return Err(Errno::Invalid);
        }
        let port = self.port()?;
        let timeout = Timeout::from_ns(block.timeout_ns);
        let lessee = self.container.lessee(block.slot)?;
        let held = SoftirqsHeld::new();
        let (call, _) = port.begin(&held, Rest::Sleep, |state| {
            let call = state.begin_wait_bind(lessee)?;
            Ok((call, Some(call)))
        })?;
        let me = Peer { endpoint: port.endpoint(), node: self.container.local() };
        let waiter = PeerCall { peer: me, call };
        match (self.container.await_bind(block.slot, waiter), lessee) {
            (Ok(Some(bound)), _) => {
                // Said by whoever the call listens to.
                let bound = Peer { node: lessee.unwrap_or(bound.node), ..bound };
                port.take_answer(bound, call, Answer::Bound(bound.endpoint));
            }
            (Ok(None), Some(node)) => {
                let to = Endpoint::new(block.slot, NonZeroU32::MIN);
                let peer = Peer { endpoint: to, node };
                self.ask(&port, peer, &Target::Remote(node), call, &Step::AwaitBind { call });
            }
            (Ok(None), None) => {}
            (Err(error), _) => port.fail(call, error),
        }
        let outcome = self.finish(&port, held, call, timeout, &mut Message::ZERO.clone());
        self.container.forget_waiter(waiter);
        match outcome {
            Outcome::Bound(endpoint) => {
                block.endpoint = endpoint.raw();
                argument.write(&block)
            }
            Outcome::Failed(error) => Err(error),
            _ => Err(Errno::Invalid),
        }
    }

    fn wait_unbind(&self, block: &WaitUnbind) -> Result<(), Errno> {
        let endpoint = Endpoint::from_raw(block.endpoint);
        let port = self.port()?;
        let timeout = Timeout::from_ns(block.timeout_ns);
        let (peer, target) = match self.source(endpoint) {
            // It is gone already.
            Err(Errno::Stale) => return port.with(|state| state.privilege().check(MAY_WAIT)),
            other => other?,
        };
        let held = SoftirqsHeld::new();
        let (call, _) = port.begin(&held, Rest::Sleep, |state| {
            let call = state.begin_wait_unbind(peer)?;
            Ok((call, Some(call)))
        })?;
        self.ask(&port, peer, &target, call, &Step::Watch { call });
        match self.finish(&port, held, call, timeout, &mut Message::ZERO.clone()) {
            Outcome::Gone => Ok(()),
            Outcome::Failed(error) => Err(error),
            _ => Err(Errno::Invalid),
        }
    }

    fn set_privileges(&self, block: &Privileges) -> Result<(), Errno> {
        let wanted = Privilege::from_block(block)?;
        let port = self.port()?;
        let endpoint = match Endpoint::from_raw(block.endpoint) {
            Endpoint::SELF => port.endpoint(),
            other => other,
        };
        if endpoint == port.endpoint() {
            return port.with(|state| {
                let granted = wanted.granted_by(state.privilege(), true)?;
                state.set_privilege(granted);
                Ok(())
            });
        }
        let (peer, target) = self.source(endpoint)?;
        let held = SoftirqsHeld::new();
        let (call, _) = port.begin(&held, Rest::Sleep, |state| {
            wanted.granted_by(state.privilege(), false)?;
            let call = state.begin_step(peer)?;
            Ok((call, Some(call)))
        })?;
        let privileges = wanted.to_block(endpoint);
        self.ask(&port, peer, &target, call, &Step::Privilege { call, privileges });
        match self.finish(&port, held, call, Timeout::Forever, &mut Message::ZERO.clone()) {
            Outcome::Failed(error) => Err(error),
            _ => Ok(()),
        }
    }

    fn notify(&self, block: &Notify) -> Result<(), Errno> {
        if block.bits == 0 {
            return Err(Errno::Invalid);
        }
        let to = Endpoint::from_raw(block.peer);
        let (port, target) = self.port_and_target(to)?;
        port.with(|state| {
            state.privilege().check_to(MAY_NOTIFY, to)?;
            state.privilege().check_bits(block.bits)
        })?;
        let step = Step::Notify { bits: block.bits };
        match self.container.give(port.endpoint(), &target, to, &step, || true)? {
            Some(Answer::Failed(error)) => Err(error),
            _ => {
                port.with(|state| state.count_notify());
                trace::notified(self.container.id(), port.endpoint(), to, block.bits);
                Ok(())
            }
        }
    }

    fn info(&self) -> Info {
        let mut info = Info {
            endpoint: Endpoint::NONE.raw(),
            waits_for: Endpoint::NONE.raw(),
            container: u32::from(self.container.id()),
            node: u32::from(self.container.local()),
            ..Info::default()
        };
        if let Ok(port) = self.port() {
            port.describe(&mut info);
        }
        info
    }
}

/// How a `receive` began.
enum Begun {
    /// It waits in this call.
    Wait(u32),
    /// It is over: how the message was sent, and whose `send` it was.
    Done(u32, Option<PeerCall>),
}
