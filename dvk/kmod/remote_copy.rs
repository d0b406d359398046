// SPDX-License-Identifier: GPL-2.0
//! Copies from and to other nodes, as the one who makes them sees them.
//!
//! A copy goes in parts, one after the other; `wire::transfer` says what is said for each. Giving
//! up takes two stages, as in all calls between nodes: the granter's node is asked to stop, and
//! what it says is how far the part got. Only a thread that is being killed does not wait for that.

use super::abi::errno::Errno;
use super::abi::ioctl::{Granted, GRANT_READ, GRANT_WRITE};
use super::abi::wire::transfer::{CopyRecord, CopyStep, DataHead, Flow, Place, MAX_PART_BYTES};
use super::abi::Endpoint;
use super::copy::Caller;
use super::dvs;
use super::grants::Borrowed;
use super::local_port::{LocalPort, Timeout};
use super::memory::{read_caller, Copied, Direction, LiveMemory};
use super::peer::PeerLink;
use super::serve;
use super::sys::WokenBy;
use super::transfer::{end, Transfer, Window};
use kernel::prelude::*;
use kernel::sync::Arc;

/// Bytes that a copy from one peer to another keeps on the way.
const RELAY_BYTES: u32 = 64 * 1024;
/// Bytes that two endpoints of one peer are let to copy before it says how far it got.
const BETWEEN_BYTES: u64 = 64 << 20;

/// The memory on this node of a copy from or to another.
#[derive(Clone, Copy)]
pub(crate) enum Side<'a> {
    /// The caller's own.
    Caller {
        /// Its first byte.
        address: u64,
    },
    /// What an endpoint of this node granted to the caller.
    Lent {
        /// Who.
        granter: &'a Arc<LocalPort>,
        /// What.
        place: Place,
    },
    /// The kernel's, on the way from one peer to another.
    Buffer(&'a [u8]),
}

impl Side<'_> {
    /// Uses `len` bytes from `at` on of what was granted.
    fn borrow(
        granter: &Arc<LocalPort>,
        place: Place,
        by: Endpoint,
        access: u32,
        at: u64,
        len: u64,
    ) -> Result<Borrowed, Errno> {
        let offset = place.offset.saturating_add(at);
        Borrowed::begin(granter, place.grant, by, access, offset, len)
    }

    /// Checks that there are `len` bytes to be read or written here, as far as that is known.
    fn check(&self, by: Endpoint, direction: Direction, len: u64) -> Result<(), Errno> {
        if let Self::Lent { granter, place } = *self {
            let access = match direction {
                Direction::Out => GRANT_WRITE,
                Direction::In => GRANT_READ,
            };
            drop(Self::borrow(granter, place, by, access, 0, len)?);
        }
        Ok(())
    }

    /// Memory for the bytes from `at` on to arrive in: as much as there is of `len`.
    fn window(&self, by: Endpoint, at: u64, len: u64) -> Result<Window, Errno> {
        match *self {
            Self::Caller { address } => {
                let range = LiveMemory::current()?.pin(address.saturating_add(at), len)?;
                Ok(Window::Pinned { range, _lent: None })
            }
            Self::Lent { granter, place } => {
                let mut lent = Self::borrow(granter, place, by, GRANT_WRITE, at, len)?;
                let range = {
                    let (memory, address) = lent.memory()?;
                    memory.pin(address, len)?
                };
                lent.let_go();
                Ok(Window::Pinned { range, _lent: Some(lent) })
            }
            Self::Buffer(_) => Err(Errno::Invalid),
        }
    }

    /// Reads the bytes from `at` on.
    fn read(&self, by: Endpoint, at: u64, bytes: &mut [u8]) -> Copied {
        let len = bytes.len() as u64;
        match *self {
            Self::Caller { address } => read_caller(address.saturating_add(at), bytes),
            Self::Lent { granter, place } => {
                let lent = match Self::borrow(granter, place, by, GRANT_READ, at, len) {
                    Ok(lent) => lent,
                    Err(error) => return (0, Err(error)),
                };
                match lent.memory() {
                    Ok((memory, address)) => memory.read(address, bytes),
                    Err(error) => (0, Err(error)),
                }
            }
            Self::Buffer(buffer) => {
                let from = buffer.get(at as usize..).and_then(|rest| rest.get(..bytes.len()));
                match from {
                    Some(from) => {
                        bytes.copy_from_slice(from);
                        (len, Ok(()))
                    }
                    None => (0, Err(Errno::Fault)),
                }
            }
        }
    }

    /// The grant that bytes which arrive go to.
    fn lent(&self) -> Option<(Endpoint, u64)> {
        match self {
            Self::Lent { granter, place } => Some((granter.endpoint(), place.grant)),
            Self::Caller { .. } | Self::Buffer(_) => None,
        }
    }
}

/// A part that this node asked for, which is taken out when it is over.
struct Part {
    peer: Arc<PeerLink>,
    transfer: Arc<Transfer>,
}

impl Drop for Part {
    fn drop(&mut self) {
        self.peer.transfers.finish(&self.transfer);
        drop(self.transfer.take_window());
    }
}

/// A copy that other nodes take part in.
pub(crate) struct Remote<'a> {
    pub(crate) caller: Caller<'a>,
    pub(crate) timeout: Timeout,
}

/// The place that lies `done` bytes behind another.
fn behind(granted: &Granted, done: u64) -> Result<Place, Errno> {
    let offset = granted.offset.checked_add(done).ok_or(Errno::Denied)?;
    Ok(Place { grant: granted.grant, offset })
}

impl Remote<'_> {
    /// Copies between what was granted on `node` and memory of this node.
    pub(crate) fn copy(
        &self,
        node: u16,
        granted: &Granted,
        side: Side<'_>,
        len: u64,
        direction: Direction,
    ) -> Copied {
        let checked = self.check(granted, len);
        let by = self.caller.endpoint();
        if let Err(error) = checked.and_then(|()| side.check(by, direction, len)) {
            return (0, Err(error));
        }
        self.in_parts(len, self.most().into(), |done, part| match direction {
            Direction::Out if part == 0 => self.fetch(node, granted, done, (0, 0), None, None).0,
            Direction::Out => {
                // A window shorter than the part makes a shorter part; the next one is at the hole.
                let window = match side.window(by, done, part.into()) {
                    Ok(window) => window,
                    Err(error) => return (0, Err(error)),
                };
                let part = part.min(window.len());
                self.fetch(node, granted, done, (part, len - done), Some(window), side.lent()).0
            }
            Direction::In => self.store(node, granted, done, (part, len - done), side, done),
        })
    }

    /// Copies between two grants on `node`.
    pub(crate) fn between(
        &self,
        node: u16,
        source: &Granted,
        destination: &Granted,
        len: u64,
    ) -> Copied {
        let checked = self.check(source, len).and_then(|()| self.check(destination, len));
        if let Err(error) = checked {
            return (0, Err(error));
        }
        self.in_parts(len, BETWEEN_BYTES, |done, part| {
            let begun = behind(source, done).and_then(|from| {
                let step = CopyStep::CopyBetween {
                    source: from,
                    receiver: Endpoint::from_raw(destination.endpoint),
                    destination: behind(destination, done)?,
                    len: part,
                    rest: len - done,
                };
                self.begin(node, source, step, 0, None, None)
            });
            match begun {
                Ok(part) => self.conclude(&part, None),
                Err(error) => (0, Err(error)),
            }
        })
    }

    /// Copies from a grant on one node to one on another. The bytes pass through this node, because
    /// no node acts in the name of an endpoint of another.
    pub(crate) fn relay(
        &self,
        from: u16,
        source: &Granted,
        to: u16,
        destination: &Granted,
        len: u64,
    ) -> Copied {
        let checked = self.check(source, len).and_then(|()| self.check(destination, len));
        if let Err(error) = checked {
            return (0, Err(error));
        }
        let most = self.most().min(RELAY_BYTES);
        self.in_parts(len, most.into(), |done, part| {
            let Ok(buffer) = KVVec::from_elem(0u8, part as usize, GFP_KERNEL) else {
                return (0, Err(Errno::NoMemory));
            };
            let window = Some(Window::Buffer(buffer));
            let ((there, fetched), window) =
                self.fetch(from, source, done, (part, len - done), window, None);
            let Some(Window::Buffer(buffer)) = window else { return (0, fetched) };
            if there == 0 && part != 0 {
                return (0, fetched);
            }
            let side = Side::Buffer(&buffer);
            let parts = (there as u32, len - done);
            let (copied, stored) = self.store(to, destination, done, parts, side, 0);
            (copied, stored.and(fetched))
        })
    }

    /// What all of them have in common.
    fn check(&self, granted: &Granted, len: u64) -> Result<(), Errno> {
        if self.timeout == Timeout::Never {
            // The other node cannot have answered at once.
            return Err(Errno::WouldBlock);
        }
        granted.offset.checked_add(len).map(drop).ok_or(Errno::Denied)
    }

    /// The longest part whose bytes travel.
    fn most(&self) -> u32 {
        self.caller.container.limits().most_bytes().min(MAX_PART_BYTES.into()) as u32
    }

    /// Copies part by part; `copy` is given what is done and how much comes next.
    fn in_parts(&self, len: u64, most: u64, mut copy: impl FnMut(u64, u32) -> Copied) -> Copied {
        let mut done = 0;
        loop {
            let (copied, result) = copy(done, (len - done).min(most) as u32);
            done += copied;
            if result.is_err() || done == len {
                return (done, result);
            }
            if let Err(error) = self.caller.go_on() {
                return (done, Err(error));
            }
            if copied == 0 {
                return (done, Err(Errno::Invalid));
            }
        }
    }

    /// Lets `len` bytes of what was granted, of the `rest` that is wanted, arrive in `window`, which
    /// is given back.
    fn fetch(
        &self,
        node: u16,
        granted: &Granted,
        done: u64,
        (len, rest): (u32, u64),
        window: Option<Window>,
        lent: Option<(Endpoint, u64)>,
    ) -> (Copied, Option<Window>) {
        let begun = behind(granted, done).and_then(|source| {
            let step = CopyStep::CopyFrom { source, len, rest };
            self.begin(node, granted, step, len, lent, window)
        });
        match begun {
            Ok(part) => {
                let copied = self.conclude(&part, None);
                (copied, part.transfer.take_window())
            }
            Err(error) => ((0, Err(error)), None),
        }
    }

    /// Sends `len` bytes from `at` on of `side`, of the `rest` that is to come, to what was granted.
    fn store(
        &self,
        node: u16,
        granted: &Granted,
        done: u64,
        (len, rest): (u32, u64),
        side: Side<'_>,
        at: u64,
    ) -> Copied {
        let begun = behind(granted, done).and_then(|destination| {
            let step = CopyStep::CopyTo { destination, len, rest };
            self.begin(node, granted, step, len, None, None)
        });
        let part = match begun {
            Ok(part) => part,
            Err(error) => return (0, Err(error)),
        };
        let ready = |rules: &super::rules::transfer::Transfer| rules.is_open();
        if let Err(reason) = part.transfer.wait(self.timeout, WokenBy::Signals, ready) {
            return self.conclude(&part, Some(reason));
        }
        let data = DataHead { head: part.transfer.head, flow: Flow::Stored, offset: 0 };
        let by = self.caller.endpoint();
        let (_, sent) = serve::send(
            &part.peer,
            data,
            len,
            self.timeout,
            |sent, bytes| side.read(by, at + u64::from(sent), bytes),
            || part.transfer.look(|rules| rules.is_open()),
        );
        self.conclude(&part, sent.err())
    }

    /// Asks `node` for a part.
    fn begin(
        &self,
        node: u16,
        granted: &Granted,
        step: CopyStep,
        room: u32,
        lent: Option<(Endpoint, u64)>,
        window: Option<Window>,
    ) -> Result<Part, Errno> {
        let Caller { container, port } = self.caller;
        let room = container.limits().bytes(room)?;
        let peer = dvs::get()?.peers.get(node).ok_or(Errno::NodeDown)?;
        let to = Endpoint::from_raw(granted.endpoint);
        let transfer = peer.transfers.ask(container.id(), port.endpoint(), to, step, lent, room)?;
        let part = Part { peer, transfer };
        if let Some(window) = window {
            part.transfer.open_window(window);
        }
        if port.is_dead() {
            // What ends the parts of a dying endpoint may have come before this one.
            return Err(Errno::NotConnected);
        }
        let record = CopyRecord { head: part.transfer.head, step };
        let wanted = || part.transfer.look(|rules| rules.end().is_none());
        part.peer.ask_copy(&record, wanted)?;
        Ok(part)
    }

    /// Waits for the end of a part; `given_up` says why it is to end before it is complete.
    fn conclude(&self, part: &Part, given_up: Option<Errno>) -> Copied {
        let Part { peer, transfer } = part;
        let (mut timeout, mut by) = (self.timeout, WokenBy::Signals);
        let mut reason = given_up;
        let mut stop = given_up.is_some();
        loop {
            if stop {
                (timeout, by) = (Timeout::Forever, WokenBy::FatalSignals);
                if transfer.act(|rules| rules.stop()) {
                    peer.answer_copy(&CopyRecord { head: transfer.head, step: CopyStep::Stop });
                }
            }
            match transfer.wait(timeout, by, |_| false) {
                Ok(()) => break,
                Err(error) if stop => {
                    // It is being killed.
                    transfer.fail(error);
                    break;
                }
                Err(error) => {
                    reason = Some(error);
                    stop = true;
                }
            }
        }
        let end = end(transfer);
        let result = match (end.error, reason) {
            (None, _) => Ok(()),
            (Some(Errno::Interrupted), Some(reason)) => Err(reason),
            (Some(error), _) => Err(error),
        };
        (end.copied.into(), result)
    }
}
