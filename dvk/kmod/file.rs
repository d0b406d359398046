// SPDX-License-Identifier: GPL-2.0
//! Open files: the control device, and the device of a container, which binds to one endpoint.

use super::abi::errno::Errno;
use super::abi::ioctl::{
    self, Bind, Info, Notify, Privileges, WaitBind, WaitUnbind, BIND_ADOPT, BIND_BACKUP,
    BIND_REPLICA, BIND_SERVER, MAY_NOTIFY, MAY_WAIT, SLOT_ANY,
};
use super::abi::limits::{SERVER_SLOTS, SLOTS};
use super::abi::wire::record::Step;
use super::abi::{Endpoint, Message};
use super::container::{Container, SlotChoice, Target};
use super::control;
use super::copy::{self, Caller};
use super::dvs;
use super::local_port::{LocalPort, Rest, Timeout};
use super::rules::migration::Parked;
use super::rules::port::{Answer, Mode, Outcome, Peer, PeerCall};
use super::rules::privilege::Privilege;
use super::sys::{self, PollQueue, SoftirqsHeld};
use super::trace;
use super::uapi::Argument;
use super::watch::ControlFile;
use core::num::NonZeroU32;
use kernel::prelude::*;
use kernel::sync::{new_spinlock, Arc, SpinLock};

mod exchange;

/// What is behind an open file.
pub(crate) enum File {
    /// `/dev/dvk`.
    Control(Pin<KBox<ControlFile>>),
    /// `/dev/dvk-dc<N>`.
    Container(Pin<KBox<ContainerFile>>),
}

impl File {
    /// Opens the device of a container, or the control device. Who may write to the first may be a
    /// server.
    pub(crate) fn open(container: Option<u16>, writable: bool) -> Result<Self, Errno> {
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
            may_serve: writable,
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
    /// Whether it may take a slot by its number.
    may_serve: bool,
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
        const BACKUP: u32 = BIND_SERVER | BIND_BACKUP;
        const REPLICA: u32 = BIND_SERVER | BIND_REPLICA;
        const ADOPTED_SERVER: u32 = BIND_SERVER | BIND_ADOPT;
        let server = |slot: u32| slot < SERVER_SLOTS;
        let endpoint = Endpoint::from_raw(block.endpoint);
        let slot = match (block.flags, block.slot) {
            (0, SLOT_ANY) => SlotChoice::Any,
            (BIND_SERVER, number) if server(number) => SlotChoice::Server(number),
            (BACKUP, number) if server(number) => SlotChoice::Backup(number),
            (REPLICA, number) if server(number) => SlotChoice::Replica(number),
            (BIND_ADOPT | ADOPTED_SERVER, number)
                if (number == SLOT_ANY || number == endpoint.slot())
                    && endpoint.is_name()
                    && server(endpoint.slot()) == (block.flags == ADOPTED_SERVER) =>
            {
                SlotChoice::Adopt(endpoint)
            }
            _ => return Err(Errno::Invalid),
        };
        if block.flags != 0 && !self.may_serve {
            return Err(Errno::Denied);
        }
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

    /// Waits until a call may be made anew that found `endpoint` on the move.
    fn await_settled(
        &self,
        endpoint: Endpoint,
        seen: &mut Option<u64>,
        timeout: Timeout,
    ) -> Result<(), Errno> {
        // It may be where it was before, in another guise.
        self.forget(endpoint);
        self.container.await_settled(endpoint, seen, timeout)
    }

    /// Forgets the port of `endpoint`, if that is the peer of before, so that it is looked up again:
    /// of one that several nodes have, another may be left. Returns whether it was.
    fn forget(&self, endpoint: Endpoint) -> bool {
        let known = |last: &mut Arc<LocalPort>| last.endpoint() == endpoint;
        let last = self.bound.lock().last.take_if(known);
        last.is_some()
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
        let mut seen = None;
        loop {
            match self.try_wait_unbind(&port, endpoint, timeout) {
                Err(Errno::Moved) => self.await_settled(endpoint, &mut seen, timeout)?,
                other => return other,
            }
        }
    }

    fn try_wait_unbind(
        &self,
        port: &LocalPort,
        endpoint: Endpoint,
        timeout: Timeout,
    ) -> Result<(), Errno> {
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
        self.ask(port, peer, &target, call, &Step::Watch { call });
        match self.finish(port, held, call, timeout, &mut Message::ZERO.clone()) {
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
        let mut seen = None;
        loop {
            match self.try_set_privileges(&port, endpoint, wanted) {
                Err(Errno::Moved) => self.await_settled(endpoint, &mut seen, Timeout::Forever)?,
                other => return other,
            }
        }
    }

    fn try_set_privileges(
        &self,
        port: &LocalPort,
        endpoint: Endpoint,
        wanted: Privilege,
    ) -> Result<(), Errno> {
        let held = SoftirqsHeld::new();
        let (peer, target) = self.source(endpoint)?;
        let (call, _) = port.begin(&held, Rest::Sleep, |state| {
            wanted.granted_by(state.privilege(), false)?;
            let call = state.begin_step(peer)?;
            Ok((call, Some(call)))
        })?;
        let privileges = wanted.to_block(endpoint);
        self.ask(port, peer, &target, call, &Step::Privilege { call, privileges });
        match self.finish(port, held, call, Timeout::Forever, &mut Message::ZERO.clone()) {
            Outcome::Failed(error) => Err(error),
            _ => Ok(()),
        }
    }

    fn notify(&self, block: &Notify) -> Result<(), Errno> {
        if block.bits == 0 {
            return Err(Errno::Invalid);
        }
        let to = Endpoint::from_raw(block.peer);
        let port = self.port()?;
        let step = Step::Notify { bits: block.bits };
        let given = loop {
            match self.try_notify(&port, to, &step, block.bits)? {
                Some(Answer::Failed(Errno::Stale)) if self.forget(to) => {}
                given => break given,
            }
        };
        match given {
            Some(Answer::Failed(error)) => return Err(error),
            Some(Answer::Returned) => {
                if let Some(parked) = Parked::of(port.endpoint(), to, &step) {
                    self.container.hand(parked)?;
                }
            }
            _ => {}
        }
        port.with(|state| state.count_notify());
        trace::notified(self.container.id(), port.endpoint(), to, block.bits);
        Ok(())
    }

    /// Gives a notification to where `to` is known to be.
    fn try_notify(
        &self,
        port: &LocalPort,
        to: Endpoint,
        step: &Step,
        bits: u64,
    ) -> Result<Option<Answer>, Errno> {
        let held = SoftirqsHeld::new();
        port.with_in(&held, |state| {
            state.check_speaks()?;
            state.privilege().check_to(MAY_NOTIFY, to)?;
            state.privilege().check_bits(bits)
        })?;
        match self.port_and_target(to) {
            Ok((_, target)) => self.container.give(port.endpoint(), &target, to, step, || true),
            Err(Errno::Moved) => Ok(Some(Answer::Returned)),
            Err(error) => Err(error),
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
            self.container.describe(&port, &mut info);
        }
        info
    }
}
