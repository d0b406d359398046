// SPDX-License-Identifier: MIT OR Apache-2.0
//! Endpoints as open files.

use crate::device::{info, Device, Slot};
use crate::error::{Call, Error, Subject};
use crate::sys;
use crate::timeout::Timeout;
use dvk_abi::ioctl::{self, Exchange, Info, Privileges};
use dvk_abi::{Endpoint, Message};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;

/// How a received message was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum How {
    /// By `send`; the sender has gone on.
    Send,
    /// By `sendrec`; the sender waits for a reply.
    Request,
    /// By `notify`; [`Message::notify_bits`] has the bits.
    Notify,
    /// As the reply to this endpoint's own `sendrec`.
    Reply,
    /// In a way this version of the library does not know; the value is the kernel's.
    Other(u32),
}

impl How {
    fn from_raw(raw: u32) -> Self {
        match raw {
            ioctl::HOW_SEND => Self::Send,
            ioctl::HOW_REQUEST => Self::Request,
            ioctl::HOW_NOTIFY => Self::Notify,
            ioctl::HOW_REPLY => Self::Reply,
            other => Self::Other(other),
        }
    }
}

/// What a `receive` gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// The message; its source is set by the kernel.
    pub message: Message,
    /// How it was sent.
    pub how: How,
}

impl Received {
    /// The sender.
    pub fn source(&self) -> Endpoint {
        self.message.source()
    }
}

/// An endpoint: a bound file.
///
/// In the paper's terms it is a process of a DC, with its endpoint (Pessolani et al. 2018, III-B),
/// and the calls are M3-IPC (III-D), whose primitives and semantics are MINIX 3's; where they
/// differ is said at each. That the endpoint is a file, and ends with it, is this DVK's own.
///
/// Dropping it unbinds, and so does the end of the process, however it comes; peers that wait for
/// it are told `EOWNERDEAD`. It may be shared by threads, but only one of them can be blocked in it
/// at a time; a second one gets `EBUSY`.
///
/// Its file descriptor polls readable when a [`receive`](Self::receive) from anybody would not
/// wait.
///
/// Every call can fail with `ENOTCONN` once the container was destroyed, and with `EACCES` if the
/// endpoint's [privileges](Self::set_privileges) do not allow it, or not towards that peer; those
/// that wait can fail with `EINTR` when a signal comes (even if its handler was installed with
/// `SA_RESTART`), and with `EBUSY` while another thread waits in the endpoint.
#[derive(Debug)]
pub struct Port {
    device: Device,
    endpoint: Endpoint,
}

impl Port {
    pub(crate) fn of(device: Device, endpoint: Endpoint) -> Self {
        Self { device, endpoint }
    }

    /// Opens the device of `container` and binds to a slot.
    ///
    /// # Errors
    /// Those of [`Device::open`] and [`Device::bind`].
    pub fn bind(container: u32, slot: Slot) -> Result<Self, Error> {
        Device::open(container)?.bind(slot)
    }

    /// Opens the device at `path` and binds to a slot.
    ///
    /// # Errors
    /// Those of [`Device::open_at`] and [`Device::bind`].
    pub fn open(path: impl AsRef<Path>, slot: Slot) -> Result<Self, Error> {
        Device::open_at(path)?.bind(slot)
    }

    /// Takes an open file that is bound, such as one that was inherited.
    ///
    /// # Errors
    /// `ENOTTY` if it is no file of a container's device, `ENOTCONN` if it is not bound.
    pub fn from_fd(file: OwnedFd) -> Result<Self, Error> {
        let info = info(&file)?;
        let endpoint = Endpoint::from_raw(info.endpoint);
        let device = Device { file, container: info.container };
        if endpoint.is_name() {
            return Ok(Self { device, endpoint });
        }
        Err(Error {
            call: Call::GetInfo,
            subject: Subject::None,
            container: Some(info.container),
            errno: rustix::io::Errno::NOTCONN,
        })
    }

    /// Unbinds and keeps the device open.
    ///
    /// # Errors
    /// `ENOTCONN` if it is unbound already, by another process that shares the file.
    pub fn unbind(self) -> Result<Device, Error> {
        sys::call_bare::<{ ioctl::UNBIND }>(&self.device.file)
            .map_err(|errno| self.error(Call::Unbind, Subject::None, errno))?;
        Ok(self.device)
    }

    /// The endpoint.
    pub fn endpoint(&self) -> Endpoint {
        self.endpoint
    }

    /// The container it is in.
    pub fn container(&self) -> u32 {
        self.device.container
    }

    /// What the kernel knows of the endpoint: counters and queue lengths.
    ///
    /// # Errors
    /// None but those named for every call.
    pub fn info(&self) -> Result<Info, Error> {
        self.device.info()
    }

    /// Sends `message` to `to` and waits until it is received: MINIX 3's `send`, a rendezvous
    /// without buffers. There is no `sendnb` or `senda`: [`Timeout::NoWait`] is the former.
    ///
    /// # Errors
    /// Those of [`sendrec`](Self::sendrec), except that a time-out or signal means that the
    /// message was not received.
    pub fn send(&self, to: Endpoint, message: &Message, timeout: Timeout) -> Result<(), Error> {
        let mut block = Exchange { message: *message, ..sending(to, timeout) };
        sys::call::<{ ioctl::SEND }, _>(self, &mut block)
            .map_err(|errno| self.error(Call::Send, Subject::To(to), errno))
    }

    /// Waits for a message, sent in whatever way, from `from` or, with [`Endpoint::ANY`], from
    /// anybody. Notifications come first, then messages in the order of their arrival. MINIX 3's
    /// `receive`, with a timeout, and with [`How`] in place of a status word.
    ///
    /// # Errors
    /// `EAGAIN` or `ETIMEDOUT` if none comes in time; `ESRCH` or `ESTALE` if `from` names nobody,
    /// `EOWNERDEAD` if it dies meanwhile, `EHOSTUNREACH` if its node goes down.
    pub fn receive(&self, from: Endpoint, timeout: Timeout) -> Result<Received, Error> {
        let mut block = receiving(from, timeout);
        sys::call::<{ ioctl::RECEIVE }, _>(self, &mut block)
            .map_err(|errno| self.error(Call::Receive, Subject::From(from), errno))?;
        Ok(received(&block))
    }

    /// Like [`receive`](Self::receive), but takes only messages sent by
    /// [`sendrec`](Self::sendrec), and leaves others queued. M3-IPC's `rcvrqst`.
    ///
    /// # Errors
    /// Those of [`receive`](Self::receive).
    pub fn receive_request(&self, from: Endpoint, timeout: Timeout) -> Result<Received, Error> {
        let mut block = receiving(from, timeout);
        sys::call::<{ ioctl::RECEIVE_REQUEST }, _>(self, &mut block)
            .map_err(|errno| self.error(Call::ReceiveRequest, Subject::From(from), errno))?;
        Ok(received(&block))
    }

    /// Sends `message` to `to` and waits for its reply: MINIX 3's `sendrec`. Notifications that
    /// come meanwhile are kept for later.
    ///
    /// # Errors
    /// `ESRCH` if `to` is nobody, `ESTALE` if it was somebody, `EINVAL` if it is a reserved value,
    /// `EDEADLK` if it is this endpoint or waits for it, directly or through others; `EOWNERDEAD` if it dies meanwhile, `EHOSTUNREACH` if its
    /// node is or goes down, `ENOTCONN` if there is no link to it; `EAGAIN`, `ETIMEDOUT` or `EINTR`
    /// if no reply came, though `to` may have received the message and its reply be refused.
    pub fn sendrec(
        &self,
        to: Endpoint,
        message: &Message,
        timeout: Timeout,
    ) -> Result<Message, Error> {
        let mut block = Exchange { message: *message, ..sending(to, timeout) };
        sys::call::<{ ioctl::SENDREC }, _>(self, &mut block)
            .map_err(|errno| self.error(Call::Sendrec, Subject::To(to), errno))?;
        Ok(block.message)
    }

    /// Answers `to`, whose request this endpoint received. Never waits. M3-IPC's `reply`; in MINIX
    /// 3 a server answers by `send`, which a client that is not there can block.
    ///
    /// # Errors
    /// `EAGAIN` if `to` is not waiting for a reply of this endpoint (any more).
    pub fn reply(&self, to: Endpoint, message: &Message) -> Result<(), Error> {
        let mut block = Exchange { message: *message, ..sending(to, Timeout::NoWait) };
        sys::call::<{ ioctl::REPLY }, _>(self, &mut block)
            .map_err(|errno| self.error(Call::Reply, Subject::To(to), errno))
    }

    /// [`reply`](Self::reply) and then [`receive`](Self::receive), in one call, as servers of the L4
    /// kernels do it: for each request there is one entry into the kernel.
    ///
    /// # Errors
    /// Those of both. An error of the reply comes at once and nothing is received; after any other
    /// the reply has been given. With [`Timeout::NoWait`], `EAGAIN` can be either: use two calls
    /// where that matters. `EBUSY` of an endpoint that moves can be either, too: whoever goes on as
    /// the endpoint repeats the reply, and `EAGAIN` says that it was given.
    pub fn reply_receive(
        &self,
        to: Endpoint,
        message: &Message,
        from: Endpoint,
        timeout: Timeout,
    ) -> Result<Received, Error> {
        let mut block = Exchange { message: *message, peer: to.raw(), ..receiving(from, timeout) };
        sys::call::<{ ioctl::REPLY_RECEIVE }, _>(self, &mut block)
            .map_err(|errno| self.error(Call::ReplyReceive, Subject::To(to), errno))?;
        Ok(received(&block))
    }

    /// Sets notification `bits`, not 0, at `to`. Never waits; bits set before `to` receives them
    /// are OR-ed. MINIX 3's `notify`, whose one bit per source is 64 here.
    ///
    /// # Errors
    /// `EINVAL` if `bits` is 0; as [`sendrec`](Self::sendrec) for what `to` is.
    pub fn notify(&self, to: Endpoint, bits: u64) -> Result<(), Error> {
        let mut block = ioctl::Notify { peer: to.raw(), bits };
        sys::call::<{ ioctl::NOTIFY }, _>(self, &mut block)
            .map_err(|errno| self.error(Call::Notify, Subject::To(to), errno))
    }

    /// Waits until somebody is bound to `slot`, on whatever node, and gives the endpoint: a client
    /// that starts before its server. M3-IPC's `wait4bind`.
    ///
    /// # Errors
    /// `EAGAIN` or `ETIMEDOUT` if nobody is in time, `EINVAL` for a slot out of range.
    pub fn wait_bind(&self, slot: u32, timeout: Timeout) -> Result<Endpoint, Error> {
        let timeout_ns = timeout.as_ns();
        let mut block = ioctl::WaitBind { slot, timeout_ns, ..ioctl::WaitBind::default() };
        sys::call::<{ ioctl::WAIT_BIND }, _>(self, &mut block)
            .map_err(|errno| self.error(Call::WaitBind, Subject::Number(slot), errno))?;
        Ok(Endpoint::from_raw(block.endpoint))
    }

    /// Waits until `endpoint` is dead. The other half of M3-IPC's `wait4bind`.
    ///
    /// # Errors
    /// `EAGAIN` or `ETIMEDOUT` if it lives that long, `ESRCH` if it is nobody, `EINVAL` if it is a
    /// reserved value.
    pub fn wait_unbind(&self, endpoint: Endpoint, timeout: Timeout) -> Result<(), Error> {
        let mut block = ioctl::WaitUnbind { endpoint: endpoint.raw(), timeout_ns: timeout.as_ns() };
        sys::call::<{ ioctl::WAIT_UNBIND }, _>(self, &mut block)
            .map_err(|errno| self.error(Call::WaitUnbind, Subject::Of(endpoint), errno))
    }

    /// What this endpoint may do.
    ///
    /// # Errors
    /// None but those named for every call.
    pub fn privileges(&self) -> Result<Privileges, Error> {
        let mut block = Privileges { endpoint: 0, servers: 0, notify: 0, calls: 0, flags: 0 };
        sys::call::<{ ioctl::GET_PRIVILEGES }, _>(self, &mut block)
            .map_err(|errno| self.error(Call::GetPrivileges, Subject::None, errno))?;
        Ok(block)
    }

    /// Says what an endpoint may do, with the bits of [`abi::ioctl`](crate::abi::ioctl). It may
    /// take from itself ([`Endpoint::SELF`]) what it has; MINIX 3 and the original DVS keep such a
    /// record, with the same masks, for each process.
    ///
    /// # Errors
    /// `EACCES` if it is another endpoint and the caller may not, or has less itself; `ESRCH` or
    /// `ESTALE` if there is no such endpoint; `EINVAL` for bits that the kernel does not know.
    pub fn set_privileges(&self, privileges: &Privileges) -> Result<(), Error> {
        let mut block = *privileges;
        let of = Subject::Of(Endpoint::from_raw(privileges.endpoint));
        sys::call::<{ ioctl::SET_PRIVILEGES }, _>(self, &mut block)
            .map_err(|errno| self.error(Call::SetPrivileges, of, errno))
    }

    pub(crate) fn error(&self, call: Call, subject: Subject, errno: rustix::io::Errno) -> Error {
        Error { call, subject, container: Some(self.device.container), errno }
    }
}

impl AsFd for Port {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

impl AsRawFd for Port {
    fn as_raw_fd(&self) -> RawFd {
        self.device.file.as_raw_fd()
    }
}

impl From<Port> for OwnedFd {
    fn from(port: Port) -> Self {
        port.device.file
    }
}

fn sending(to: Endpoint, timeout: Timeout) -> Exchange {
    Exchange { peer: to.raw(), timeout_ns: timeout.as_ns(), ..Exchange::default() }
}

fn receiving(from: Endpoint, timeout: Timeout) -> Exchange {
    Exchange { from: from.raw(), timeout_ns: timeout.as_ns(), ..Exchange::default() }
}

fn received(block: &Exchange) -> Received {
    Received { message: block.message, how: How::from_raw(block.how) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn is_shared<T: Send + Sync>() {}
    const _: () = is_shared::<Port>();

    #[test]
    fn a_missing_device_is_named() {
        let error = Port::bind(4_000_000_000, Slot::Any).unwrap_err();
        assert_eq!(error.call(), Call::Open);
        assert!(error.to_string().starts_with("open /dev/dvk-dc4000000000: no such device"));
    }

    #[test]
    fn a_file_of_something_else_is_refused() {
        let error = Device::open_at("/dev/null").unwrap_err();
        assert_eq!(error.to_string(), "get_info: not a call of this device (ENOTTY)");
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(Port::from_fd(file.into()).unwrap_err().is(crate::Errno::NotACall));
    }

    #[test]
    fn every_way_of_the_abi_is_known() {
        let ways = [ioctl::HOW_SEND, ioctl::HOW_REQUEST, ioctl::HOW_NOTIFY, ioctl::HOW_REPLY];
        let ways = ways.map(How::from_raw);
        assert_eq!(ways, [How::Send, How::Request, How::Notify, How::Reply]);
        assert_eq!(How::from_raw(0), How::Other(0));
    }
}
