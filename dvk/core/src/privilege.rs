// SPDX-License-Identifier: GPL-2.0 OR MIT
//! What an endpoint may do: the least-privilege records of MINIX 3 and of the original DVS
//! (allowed calls, whom it may send to, which bits it may notify), kept where the endpoint lives.

use super::abi::errno::Errno;
use super::abi::ioctl::{Privileges, MAY_ALL, MAY_REACH_OTHERS, MAY_SET_PRIVILEGES};
use super::abi::limits::SERVER_SLOTS;
use super::abi::Endpoint;

/// The calls, destinations and notification bits open to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Privilege {
    servers: u64,
    notify: u64,
    calls: u32,
}

impl Privilege {
    /// What the endpoint of `slot` may do after its bind: everything, but that only servers say
    /// what others may do.
    pub const fn initial(slot: u32) -> Self {
        let calls = if slot < SERVER_SLOTS { MAY_ALL } else { MAY_ALL & !MAY_SET_PRIVILEGES };
        Self { servers: u64::MAX, notify: u64::MAX, calls }
    }

    /// What an argument block asks for.
    ///
    /// # Errors
    /// [`Errno::Invalid`] for calls that do not exist, or a reserved field that is not 0.
    pub const fn from_block(block: &Privileges) -> Result<Self, Errno> {
        if block.calls & !MAY_ALL != 0 || block.flags != 0 {
            return Err(Errno::Invalid);
        }
        Ok(Self { servers: block.servers, notify: block.notify, calls: block.calls })
    }

    /// The argument block that says what `endpoint` may do.
    pub const fn to_block(self, endpoint: Endpoint) -> Privileges {
        Privileges {
            endpoint: endpoint.raw(),
            servers: self.servers,
            notify: self.notify,
            calls: self.calls,
            flags: 0,
        }
    }

    /// Whether everything that `other` may do is open to this one, too.
    pub const fn covers(self, other: Self) -> bool {
        other.servers & !self.servers == 0
            && other.notify & !self.notify == 0
            && other.calls & !self.calls == 0
    }

    /// Fails with [`Errno::Denied`] unless the calls `may` are open.
    pub const fn check(self, may: u32) -> Result<(), Errno> {
        if self.calls & may == may {
            Ok(())
        } else {
            Err(Errno::Denied)
        }
    }

    /// Fails with [`Errno::Denied`] unless the call `may` is open towards `to`.
    pub const fn check_to(self, may: u32, to: Endpoint) -> Result<(), Errno> {
        let reaches = if to.slot() < SERVER_SLOTS {
            self.servers >> to.slot() & 1 != 0
        } else {
            self.calls & MAY_REACH_OTHERS != 0
        };
        if reaches {
            self.check(may)
        } else {
            Err(Errno::Denied)
        }
    }

    /// Fails with [`Errno::Denied`] unless `bits` may be set.
    pub const fn check_bits(self, bits: u64) -> Result<(), Errno> {
        if bits & !self.notify == 0 {
            Ok(())
        } else {
            Err(Errno::Denied)
        }
    }

    /// What `by` makes of the privileges of another endpoint, or of its own.
    ///
    /// # Errors
    /// [`Errno::Denied`] if it may not set those of others, or asks for more than it has.
    pub fn granted_by(self, by: Self, own: bool) -> Result<Self, Errno> {
        if !own {
            by.check(MAY_SET_PRIVILEGES)?;
        }
        if by.covers(self) {
            Ok(self)
        } else {
            Err(Errno::Denied)
        }
    }
}
