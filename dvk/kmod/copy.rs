// SPDX-License-Identifier: GPL-2.0
//! The calls that lend memory and copy it: `grant`, `revoke`, `copy_from`, `copy_to` and
//! `copy_between`.
//!
//! A copy is no exchange: any number of threads may copy in one endpoint at once, and beside the
//! one that is blocked in it. Memory is used a batch of pages at a time, without any lock held.

use super::abi::errno::Errno;
use super::abi::ioctl::{
    self, Copy, CopyBetween, Grant, Granted, Revoke, GRANT_READ, GRANT_WRITE, MAY_COPY, MAY_GRANT,
};
use super::abi::wire::transfer::Place;
use super::abi::Endpoint;
use super::container::{Container, Target};
use super::dvs;
use super::grants::Borrowed;
use super::local_port::{LocalPort, Timeout};
use super::memory::{fault_in, is_user_range, Direction, Halt};
use super::remote_copy::{Remote, Side};
use super::rules::grants::Loan;
use super::sys::{self, WokenBy};
use super::uapi::Argument;
use core::mem::offset_of;
use kernel::prelude::*;
use kernel::sync::Arc;

pub(crate) use super::memory::Copied;

/// Who makes a call.
#[derive(Clone, Copy)]
pub(crate) struct Caller<'a> {
    pub(crate) container: &'a Arc<Container>,
    pub(crate) port: &'a Arc<LocalPort>,
}

/// Carries out one of the calls.
pub(crate) fn ioctl(caller: Caller<'_>, cmd: u32, argument: Argument) -> Result<(), Errno> {
    match cmd {
        ioctl::COPY_FROM => caller.copy(argument, Direction::Out),
        ioctl::COPY_TO => caller.copy(argument, Direction::In),
        ioctl::COPY_BETWEEN => caller.copy_between(argument),
        ioctl::GRANT => caller.grant(argument),
        ioctl::REVOKE => {
            let block: Revoke = argument.read()?;
            caller.revoke(block.grant)
        }
        _ => Err(Errno::NotACall),
    }
}

/// What a copy in this direction asks of a grant.
pub(crate) fn access(direction: Direction) -> u32 {
    match direction {
        Direction::Out => GRANT_READ,
        Direction::In => GRANT_WRITE,
    }
}

impl Caller<'_> {
    /// The calling endpoint.
    pub(crate) fn endpoint(&self) -> Endpoint {
        self.port.endpoint()
    }

    /// Whether the endpoint is alive, and the call `may` open to it.
    fn may(&self, may: u32) -> Result<(), Errno> {
        self.port.with(|state| {
            state.check_speaks()?;
            state.privilege().check(may)
        })
    }

    fn grant(&self, argument: Argument) -> Result<(), Errno> {
        let mut block: Grant = argument.read()?;
        if block.flags != 0 {
            return Err(Errno::Invalid);
        }
        self.may(MAY_GRANT)?;
        let Grant { address, len, to, access, .. } = block;
        let loan = Loan { address, len, to: Endpoint::from_raw(to), access };
        loan.check()?;
        if loan.to != Endpoint::ANY {
            // One that is dead never comes back; one that moves does.
            match self.container.route(loan.to) {
                Ok(_) | Err(Errno::Moved) => {}
                Err(error) => return Err(error),
            }
        }
        block.grant = self.port.grants.add(loan, self.container.limits().grant()?)?;
        argument.write(&block).inspect_err(|_| {
            // Nobody knows its id, so nobody uses it.
            let _ = self.revoke(block.grant);
        })
    }

    fn revoke(&self, grant: u64) -> Result<(), Errno> {
        let (container, granter) = (self.container.id(), self.endpoint());
        self.port.grants.revoke(grant, || {
            if let Ok(dvs) = dvs::get() {
                dvs.peers.for_each(|_, peer| peer.transfers.revoked(container, granter, grant));
            }
        })
    }

    fn copy(&self, argument: Argument, direction: Direction) -> Result<(), Errno> {
        let block: Copy = argument.read()?;
        let (copied, result) = self.copy_block(&block, direction);
        argument.behind(offset_of!(Copy, copied)).write(&copied)?;
        result.map_err(settled)
    }

    fn copy_block(&self, block: &Copy, direction: Direction) -> Copied {
        let &Copy { granted, address, len, timeout_ns, .. } = block;
        if let Err(error) = self.may(MAY_COPY) {
            return (0, Err(error));
        }
        if !is_user_range(address, len) {
            return (0, Err(Errno::Fault));
        }
        match self.container.route(Endpoint::from_raw(granted.endpoint)) {
            Ok(Target::Local(granter)) => {
                self.copy_local(&granter, &granted, address, len, direction)
            }
            Ok(Target::Remote(node)) => {
                let remote = Remote { caller: *self, timeout: Timeout::from_ns(timeout_ns) };
                remote.copy(node, &granted, Side::Caller { address }, len, direction)
            }
            Err(error) => (0, Err(error)),
        }
    }

    fn copy_local(
        &self,
        granter: &Arc<LocalPort>,
        granted: &Granted,
        address: u64,
        len: u64,
        direction: Direction,
    ) -> Copied {
        let mut copied = 0;
        loop {
            let (user, rest) = (address + copied, len - copied);
            let offset = granted.offset.saturating_add(copied);
            let by = self.endpoint();
            let lent = Borrowed::begin(granter, granted.grant, by, access(direction), offset, rest);
            let lent = match lent {
                Ok(lent) => lent,
                // It was alive when the copy began.
                Err(Errno::Stale) => return (copied, Err(Errno::OwnerDead)),
                Err(error) => return (copied, Err(error)),
            };
            let (part, result) = match lent.memory() {
                Ok((memory, at)) if memory.is_callers() && overlap(at, user, rest) => {
                    return (copied, Err(Errno::Invalid));
                }
                Ok(_) if rest == 0 => return (copied, Ok(())),
                Ok((memory, at)) => memory.copy_caller(at, user, rest, direction),
                Err(error) => return (copied, Err(error)),
            };
            // The granter may have its memory back while the caller's is brought in.
            drop(lent);
            copied += part;
            match result {
                Ok(()) if copied == len => return (copied, Ok(())),
                Ok(()) => {}
                Err(Halt::Failed(error)) => return (copied, Err(error)),
                Err(Halt::CallerPage) => {
                    if !fault_in(address + copied, len - copied, direction) {
                        return (copied, Err(Errno::Fault));
                    }
                }
            }
            if let Err(error) = self.go_on() {
                return (copied, Err(error));
            }
        }
    }

    /// Whether a copy may go on after a batch.
    pub(crate) fn go_on(&self) -> Result<(), Errno> {
        if sys::signal_pending(WokenBy::Signals) {
            return Err(Errno::Interrupted);
        }
        if self.port.is_dead() {
            return Err(Errno::OwnerDead);
        }
        Ok(())
    }

    fn copy_between(&self, argument: Argument) -> Result<(), Errno> {
        let block: CopyBetween = argument.read()?;
        let (copied, result) = self.copy_between_block(&block);
        argument.behind(offset_of!(CopyBetween, copied)).write(&copied)?;
        result.map_err(settled)
    }

    fn copy_between_block(&self, block: &CopyBetween) -> Copied {
        let &CopyBetween { source, destination, len, timeout_ns, .. } = block;
        if let Err(error) = self.may(MAY_COPY) {
            return (0, Err(error));
        }
        let route = |granted: &Granted| self.container.route(Endpoint::from_raw(granted.endpoint));
        let (from, to) = match (route(&source), route(&destination)) {
            (Ok(from), Ok(to)) => (from, to),
            (Err(error), _) | (_, Err(error)) => return (0, Err(error)),
        };
        let remote = Remote { caller: *self, timeout: Timeout::from_ns(timeout_ns) };
        let place = |granted: &Granted| Place { grant: granted.grant, offset: granted.offset };
        match (&from, &to) {
            (Target::Local(from), Target::Local(to)) => {
                let between = Between {
                    by: self.endpoint(),
                    source: from,
                    from: place(&source),
                    destination: to,
                    to: place(&destination),
                };
                between.run(len, || self.go_on())
            }
            (Target::Local(granter), Target::Remote(node)) => {
                let side = Side::Lent { granter, place: place(&source) };
                remote.copy(*node, &destination, side, len, Direction::In)
            }
            (Target::Remote(node), Target::Local(granter)) => {
                let side = Side::Lent { granter, place: place(&destination) };
                remote.copy(*node, &source, side, len, Direction::Out)
            }
            (Target::Remote(from), Target::Remote(to)) if from == to => {
                remote.between(*from, &source, &destination, len)
            }
            (Target::Remote(from), Target::Remote(to)) => {
                remote.relay(*from, &source, *to, &destination, len)
            }
        }
    }
}

/// Whether two ranges of one address space have a byte in common.
fn overlap(a: u64, b: u64, len: u64) -> bool {
    a < b.saturating_add(len) && b < a.saturating_add(len)
}

/// A copy from one range that was lent on this node to another.
pub(crate) struct Between<'a> {
    /// Who copies.
    pub(crate) by: Endpoint,
    pub(crate) source: &'a Arc<LocalPort>,
    pub(crate) from: Place,
    pub(crate) destination: &'a Arc<LocalPort>,
    pub(crate) to: Place,
}

impl Between<'_> {
    /// Copies `len` bytes, for as long as `go_on` allows.
    pub(crate) fn run(&self, len: u64, go_on: impl Fn() -> Result<(), Errno>) -> Copied {
        let mut copied = 0;
        loop {
            match self.batch(copied, len - copied) {
                Ok((part, result)) => {
                    copied += part;
                    if copied == len || result.is_err() {
                        return (copied, result);
                    }
                }
                Err(Errno::Stale) => return (copied, Err(Errno::OwnerDead)),
                Err(error) => return (copied, Err(error)),
            }
            if let Err(error) = go_on() {
                return (copied, Err(error));
            }
        }
    }

    fn batch(&self, done: u64, rest: u64) -> Result<Copied, Errno> {
        let begin = |granter, place: Place, access| {
            let offset = place.offset.saturating_add(done);
            Borrowed::begin(granter, place.grant, self.by, access, offset, rest)
        };
        let source = begin(self.source, self.from, GRANT_READ)?;
        let destination = begin(self.destination, self.to, GRANT_WRITE)?;
        let ((from, from_at), (to, to_at)) = (source.memory()?, destination.memory()?);
        if from.is_same(to) && overlap(from_at, to_at, rest) {
            return Err(Errno::Invalid);
        }
        if rest == 0 {
            return Ok((0, Ok(())));
        }
        Ok(from.copy_to(from_at, to, to_at, rest))
    }
}

/// What a program is told of a copy whose granter moves: its grants end with the move, so that
/// waiting for that is of no use.
fn settled(error: Errno) -> Errno {
    match error {
        Errno::Moved => Errno::Busy,
        other => other,
    }
}
