// SPDX-License-Identifier: GPL-2.0
//! Open files: the control device, and the device of a container, which binds to one endpoint.

use super::abi::errno::Errno;
use super::abi::ioctl::{self, Bind, Exchange, Info, Notify, BIND_SERVER, SLOT_ANY};
use super::abi::limits::SERVER_SLOTS;
use super::abi::wire::record::Step;
use super::abi::Endpoint;
use super::container::{Container, SlotChoice, Target};
use super::control;
use super::dvs;
use super::local_port::{LocalPort, Timeout};
use super::rules::port::{Answer, Filter, Mode, Outcome, Peer, PeerCall, Receive};
use super::sys::{self, new_bh_lock, BhLock, PollQueue};
use super::uapi::Argument;
use kernel::prelude::*;
use kernel::sync::Arc;

/// What is behind an open file.
pub(crate) enum File {
    /// `/dev/dvk`.
    Control,
    /// `/dev/dvk-dc<N>`.
    Container(Pin<KBox<ContainerFile>>),
}

impl File {
    /// Opens the device of a container, or the control device.
    pub(crate) fn open(container: Option<u16>) -> Result<Self, Errno> {
        let Some(id) = container else {
            return if sys::may_control() { Ok(Self::Control) } else { Err(Errno::NotPermitted) };
        };
        let container = dvs::get()?.containers.get(id).ok_or(Errno::NoDevice)?;
        let poll = Arc::pin_init(PollQueue::new(), GFP_KERNEL).map_err(|_| Errno::NoMemory)?;
        let file = pin_init!(ContainerFile {
            container,
            poll,
            bound <- new_bh_lock!(None, c"dvk_file"),
        });
        Ok(Self::Container(KBox::pin_init(file, GFP_KERNEL).map_err(|_| Errno::NoMemory)?))
    }

    /// Carries out an ioctl.
    pub(crate) fn ioctl(&self, cmd: u32, argument: Argument) -> Result<(), Errno> {
        match self {
            Self::Control => control::ioctl(cmd, argument),
            Self::Container(file) => file.ioctl(cmd, argument),
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
    bound: BhLock<Option<Arc<LocalPort>>>,
}

#[pinned_drop]
impl PinnedDrop for ContainerFile {
    fn drop(self: Pin<&mut Self>) {
        let port = self.bound.lock().take();
        if let Some(port) = port {
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
    fn ioctl(&self, cmd: u32, argument: Argument) -> Result<(), Errno> {
        match cmd {
            ioctl::SENDREC => {
                self.exchange(argument, |port, block| self.send(port, block, Mode::Request))
            }
            ioctl::REPLY_RECEIVE => self.exchange(argument, |port, block| {
                self.reply(port, block)?;
                self.receive(port, block, false)
            }),
            ioctl::RECEIVE => {
                self.exchange(argument, |port, block| self.receive(port, block, false))
            }
            ioctl::REPLY => self.exchange_in(argument, |port, block| self.reply(port, block)),
            ioctl::SEND => {
                self.exchange_in(argument, |port, block| self.send(port, block, Mode::Send))
            }
            ioctl::RECEIVE_REQUEST => {
                self.exchange(argument, |port, block| self.receive(port, block, true))
            }
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
            ioctl::UNBIND => self.unbind(),
            ioctl::GET_INFO => argument.write(&self.info()),
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

    fn port(&self) -> Result<Arc<LocalPort>, Errno> {
        self.bound.lock().clone().ok_or(Errno::NotConnected)
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
        if self.bound.lock().is_some() {
            return Err(Errno::Busy);
        }
        let port = self.container.bind(slot, self.poll.clone())?;
        let lost = {
            let mut bound = self.bound.lock();
            if bound.is_some() {
                true
            } else {
                *bound = Some(port.clone());
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
        let port = self.bound.lock().take().ok_or(Errno::NotConnected)?;
        self.container.unbind(&port);
        Ok(())
    }

    /// A call that takes and gives a message.
    fn exchange(
        &self,
        argument: Argument,
        call: impl FnOnce(&LocalPort, &mut Exchange) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let mut block = read_exchange(argument)?;
        call(&*self.port()?, &mut block)?;
        argument.write(&block)
    }

    /// A call that only takes one.
    fn exchange_in(
        &self,
        argument: Argument,
        call: impl FnOnce(&LocalPort, &mut Exchange) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        call(&*self.port()?, &mut read_exchange(argument)?)
    }

    fn send(&self, port: &LocalPort, block: &mut Exchange, mode: Mode) -> Result<(), Errno> {
        let to = Endpoint::from_raw(block.peer);
        let timeout = Timeout::from_ns(block.timeout_ns);
        let target = self.container.route(to)?;
        let peer = self.container.peer(to, &target);
        if mode == Mode::Request && timeout == Timeout::Never {
            // No reply can be there at once, and a request must not be left with the peer.
            return Err(Errno::WouldBlock);
        }
        let call = port.begin_send(peer, mode)?;
        let message = block.message;
        let step = match mode {
            Mode::Send => Step::Send { call, message },
            Mode::Request => Step::Request { call, message },
        };
        self.ask(port, peer, &target, call, &step);
        self.finish(port, block, timeout)
    }

    fn reply(&self, port: &LocalPort, block: &Exchange) -> Result<(), Errno> {
        let PeerCall { peer, call } = port.reply(Endpoint::from_raw(block.peer))?;
        self.container.tell(port.endpoint(), peer, &Step::Reply { call, message: block.message });
        Ok(())
    }

    fn receive(
        &self,
        port: &LocalPort,
        block: &mut Exchange,
        requests_only: bool,
    ) -> Result<(), Errno> {
        let from = Endpoint::from_raw(block.from);
        let timeout = Timeout::from_ns(block.timeout_ns);
        // The source's node is known from here on, so that the wait ends when it goes down.
        let source = if from == Endpoint::ANY {
            None
        } else {
            let target = self.container.route(from)?;
            Some((self.container.peer(from, &target), target))
        };
        let from = source.as_ref().map(|(peer, _)| *peer);
        match port.begin_receive(Filter { from, requests_only })? {
            Receive::Done { message, how, accepted } => {
                block.message = message;
                block.how = how;
                if let Some(PeerCall { peer, call }) = accepted {
                    self.container.tell(port.endpoint(), peer, &Step::Accepted { call });
                }
                return Ok(());
            }
            Receive::Wait { call } => {
                if let Some((peer, target)) = source.filter(|_| timeout != Timeout::Never) {
                    // Only the source can end the call, so it is to say when it dies.
                    self.ask(port, peer, &target, call, &Step::Watch { call });
                }
            }
        }
        self.finish(port, block, timeout)
    }

    /// Gives `peer` a step of the open call, and the call what comes of it.
    fn ask(&self, port: &LocalPort, peer: Peer, target: &Target, call: u32, step: &Step) {
        let open = || port.is_open(call);
        match self.container.give(port.endpoint(), target, peer.endpoint, step, open) {
            Ok(Some(answer)) => {
                port.apply(peer, &answer.step(call));
            }
            Ok(None) => {}
            Err(error) => port.fail(call, error),
        }
    }

    fn finish(
        &self,
        port: &LocalPort,
        block: &mut Exchange,
        timeout: Timeout,
    ) -> Result<(), Errno> {
        // The peer remembered by the call is asked, wherever the endpoint may be by now. One that
        // is gone has said already how the call ended.
        let cancel = |PeerCall { peer, call }: PeerCall| {
            let step = Step::Cancel { call };
            if let Some(answer) = self.container.tell(port.endpoint(), peer, &step) {
                port.apply(peer, &answer.step(call));
            }
        };
        match port.wait(timeout, cancel) {
            Outcome::Sent => Ok(()),
            Outcome::Received { message, how } => {
                block.message = message;
                block.how = how;
                Ok(())
            }
            Outcome::Failed(error) => Err(error),
        }
    }

    fn notify(&self, block: &Notify) -> Result<(), Errno> {
        if block.bits == 0 {
            return Err(Errno::Invalid);
        }
        let port = self.port()?;
        let to = Endpoint::from_raw(block.peer);
        let target = self.container.route(to)?;
        let step = Step::Notify { bits: block.bits };
        match self.container.give(port.endpoint(), &target, to, &step, || true)? {
            Some(Answer::Failed(error)) => Err(error),
            _ => {
                port.count_notify();
                Ok(())
            }
        }
    }

    fn info(&self) -> Info {
        let mut info = Info {
            endpoint: Endpoint::NONE.raw(),
            container: u32::from(self.container.id()),
            node: u32::from(self.container.local()),
            ..Info::default()
        };
        if let Ok(port) = self.port() {
            let ((received, sent), (senders, clients)) = port.numbers();
            info.endpoint = port.endpoint().raw();
            (info.received, info.sent) = (received, sent);
            info.senders = u32::try_from(senders).unwrap_or(u32::MAX);
            info.clients = u32::try_from(clients).unwrap_or(u32::MAX);
        }
        info
    }
}

fn read_exchange(argument: Argument) -> Result<Exchange, Errno> {
    let block: Exchange = argument.read()?;
    if block.flags != 0 || block.reserved != [0; 4] {
        return Err(Errno::Invalid);
    }
    Ok(block)
}
