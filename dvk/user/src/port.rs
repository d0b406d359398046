// SPDX-License-Identifier: MIT OR Apache-2.0
//! Endpoints as open files.

use crate::error::{Call, Error, Subject};
use crate::sys;
use crate::timeout::Timeout;
use core::fmt;
use dvk_abi::ioctl::{self, Exchange, Info};
use dvk_abi::{Endpoint, Message};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

/// Where PID 1's device file system has the device of `container`. Inside a container the node may
/// be mounted under another name: see [`Port::open`].
pub fn device_path(container: u32) -> PathBuf {
    PathBuf::from(format!("/dev/dvk-dc{container}"))
}

/// Which slot to bind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Slot {
    /// Any free one of those leased to this node.
    Any,
    /// That of the server with this well-known number, below 64.
    Server(u32),
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any slot"),
            Self::Server(number) => write!(f, "server slot {number}"),
        }
    }
}

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

/// The device of a container, opened and not bound.
///
/// A process reaches the containers whose devices it can open and no others.
#[derive(Debug)]
pub struct Device {
    file: OwnedFd,
    container: u32,
}

impl Device {
    /// Opens the device of `container` at its usual place, close-on-exec.
    ///
    /// # Errors
    /// Those of `open(2)`, and of [`from_fd`](Self::from_fd).
    pub fn open(container: u32) -> Result<Self, Error> {
        Self::open_at(device_path(container))
    }

    /// Opens the device at `path`, close-on-exec.
    ///
    /// # Errors
    /// Those of `open(2)`, and of [`from_fd`](Self::from_fd).
    pub fn open_at(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::from_fd(open(path.as_ref())?)
    }

    /// Takes an open file of a container's device, such as one that was inherited.
    ///
    /// # Errors
    /// `ENOTTY` if it is no such file.
    pub fn from_fd(file: OwnedFd) -> Result<Self, Error> {
        let info = info(&file)?;
        Ok(Self { file, container: info.container })
    }

    /// The container.
    pub fn container(&self) -> u32 {
        self.container
    }

    /// What the kernel knows of the file.
    ///
    /// # Errors
    /// `ENODEV` after the container was destroyed.
    pub fn info(&self) -> Result<Info, Error> {
        info(&self.file)
    }

    /// Binds the file to a slot and so becomes an endpoint. The file is closed if it fails.
    ///
    /// # Errors
    /// `ENOSPC` if no slot is free or this node has no lease, `EBUSY` if the server slot is bound,
    /// here or elsewhere, or the file is, `EINVAL` for a server number from 64 up.
    pub fn bind(self, slot: Slot) -> Result<Port, Error> {
        let (number, flags) = match slot {
            Slot::Any => (ioctl::SLOT_ANY, 0),
            Slot::Server(number) => (number, ioctl::BIND_SERVER),
        };
        let mut block = ioctl::Bind { slot: number, flags, endpoint: 0 };
        sys::call::<{ ioctl::BIND }, _>(&self.file, &mut block).map_err(|errno| Error {
            call: Call::Bind,
            subject: Subject::Slot(slot),
            container: Some(self.container),
            errno,
        })?;
        Ok(Port { device: self, endpoint: Endpoint::from_raw(block.endpoint) })
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// An endpoint: a bound file.
///
/// Dropping it unbinds, and so does the end of the process, however it comes; peers that wait for
/// it are told `EOWNERDEAD`. It may be shared by threads, but only one of them can be blocked in it
/// at a time; a second one gets `EBUSY`.
///
/// Its file descriptor polls readable when a [`receive`](Self::receive) from anybody would not
/// wait.
///
/// Every call can fail with `ENOTCONN` once the container was destroyed, and those that wait with
/// `EINTR` when a signal comes (even if its handler was installed with `SA_RESTART`).
#[derive(Debug)]
pub struct Port {
    device: Device,
    endpoint: Endpoint,
}

impl Port {
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

    /// Sends `message` to `to` and waits until it is received.
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
    /// anybody. Notifications come first, then messages in the order of their arrival.
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
    /// [`sendrec`](Self::sendrec), and leaves others queued.
    ///
    /// # Errors
    /// Those of [`receive`](Self::receive).
    pub fn receive_request(&self, from: Endpoint, timeout: Timeout) -> Result<Received, Error> {
        let mut block = receiving(from, timeout);
        sys::call::<{ ioctl::RECEIVE_REQUEST }, _>(self, &mut block)
            .map_err(|errno| self.error(Call::ReceiveRequest, Subject::From(from), errno))?;
        Ok(received(&block))
    }

    /// Sends `message` to `to` and waits for its reply.
    ///
    /// # Errors
    /// `ESRCH` if `to` is nobody, `ESTALE` if it was somebody, `EINVAL` if it is a reserved value,
    /// `EDEADLK` if it is this endpoint; `EOWNERDEAD` if it dies meanwhile, `EHOSTUNREACH` if its
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

    /// Answers `to`, whose request this endpoint received. Never waits.
    ///
    /// # Errors
    /// `EAGAIN` if `to` is not waiting for a reply of this endpoint (any more).
    pub fn reply(&self, to: Endpoint, message: &Message) -> Result<(), Error> {
        let mut block = Exchange { message: *message, ..sending(to, Timeout::NoWait) };
        sys::call::<{ ioctl::REPLY }, _>(self, &mut block)
            .map_err(|errno| self.error(Call::Reply, Subject::To(to), errno))
    }

    /// [`reply`](Self::reply) and then [`receive`](Self::receive), in one call.
    ///
    /// # Errors
    /// Those of both. An error of the reply comes at once and nothing is received; after any other
    /// the reply has been given. With [`Timeout::NoWait`], `EAGAIN` can be either: use two calls
    /// where that matters.
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
    /// are OR-ed.
    ///
    /// # Errors
    /// `EINVAL` if `bits` is 0; as [`sendrec`](Self::sendrec) for what `to` is.
    pub fn notify(&self, to: Endpoint, bits: u64) -> Result<(), Error> {
        let mut block = ioctl::Notify { peer: to.raw(), bits };
        sys::call::<{ ioctl::NOTIFY }, _>(self, &mut block)
            .map_err(|errno| self.error(Call::Notify, Subject::To(to), errno))
    }

    fn error(&self, call: Call, subject: Subject, errno: rustix::io::Errno) -> Error {
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

/// Opens a device for reading and writing, close-on-exec (as the standard library always does).
pub(crate) fn open(path: &Path) -> Result<OwnedFd, Error> {
    let file = std::fs::File::options().read(true).write(true).open(path);
    file.map(OwnedFd::from).map_err(|error| Error {
        call: Call::Open,
        subject: Subject::Path(path.to_path_buf()),
        container: None,
        errno: rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::IO),
    })
}

fn info(file: &OwnedFd) -> Result<Info, Error> {
    let mut info = Info::default();
    sys::call::<{ ioctl::GET_INFO }, _>(file, &mut info).map_err(|errno| Error {
        call: Call::GetInfo,
        subject: Subject::None,
        container: None,
        errno,
    })?;
    Ok(info)
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
