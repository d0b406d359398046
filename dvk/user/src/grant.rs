// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory that is lent to other endpoints, and copies out of and into it.
//!
//! A grant is a right to a range of the granter's memory, for reading or writing or both, for one
//! endpoint or for all of the container. Its id is a number that travels in messages; the kernel
//! checks it, the bounds and the right at every copy, and copies once, from one address space into
//! the other or, between nodes, onto the wire. This is MINIX 3's `cpf_grant_direct`, `cpf_revoke`,
//! `sys_safecopyfrom` and `sys_safecopyto`; the original DVS has `vcopy`, which takes any address.

use crate::error::{Call, Error, Subject};
use crate::payload::Field;
use crate::port::Port;
use crate::sys::{self, Memory, OwnMemory};
use crate::timeout::Timeout;
use core::fmt;
use dvk_abi::{ioctl, Endpoint};
use rustix::fd::AsFd;

/// The number of a grant among those of its endpoint, as a message carries it. 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct GrantId(u64);

impl GrantId {
    /// Names no grant.
    pub const NONE: Self = Self(0);

    /// Takes a value as it stands in a message. Whether it names a grant is for the kernel to say.
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// The value as it stands in a message.
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// What `endpoint` granted with this id, from byte `offset` on.
    pub const fn of(self, endpoint: Endpoint, offset: u64) -> Granted {
        Granted { endpoint, grant: self, offset }
    }
}

impl Field for GrantId {
    const BYTES: usize = 8;

    fn write(&self, to: &mut [u8]) {
        self.0.write(to);
    }

    fn read(from: &[u8]) -> Option<Self> {
        u64::read(from).map(Self)
    }
}

/// A place in what an endpoint granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Granted {
    /// Who granted it.
    pub endpoint: Endpoint,
    /// The grant.
    pub grant: GrantId,
    /// Bytes from the beginning of the grant.
    pub offset: u64,
}

impl Granted {
    fn block(self) -> ioctl::Granted {
        let Self { endpoint, grant, offset } = self;
        ioctl::Granted { endpoint: endpoint.raw(), grant: grant.raw(), offset }
    }
}

impl fmt::Display for Granted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "grant {:#x} of {} from byte {}", self.grant.0, self.endpoint, self.offset)
    }
}

/// What others may do with lent memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Copy out of it.
    Read,
    /// Copy into it.
    Write,
    /// Both.
    ReadWrite,
}

impl Access {
    fn bits(self) -> u32 {
        match self {
            Self::Read => ioctl::GRANT_READ,
            Self::Write => ioctl::GRANT_WRITE,
            Self::ReadWrite => ioctl::GRANT_READ | ioctl::GRANT_WRITE,
        }
    }
}

/// A copy that failed, perhaps after a part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyError {
    /// How many bytes arrived; they are the first ones.
    pub copied: u64,
    /// Why there are no more.
    pub error: Error,
}

impl fmt::Display for CopyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (after {} bytes)", self.error, self.copied)
    }
}

impl std::error::Error for CopyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

impl From<CopyError> for Error {
    fn from(error: CopyError) -> Self {
        error.error
    }
}

/// Grants and copies.
impl Port {
    /// Lends `memory` to `to`, or to everybody with [`Endpoint::ANY`], for reading, for the time of
    /// `work`: typically a request whose message names the grant.
    ///
    /// A loan for a time of its own is a [`Loan`].
    ///
    /// # Errors
    /// `EINVAL` for no memory, `EACCES` if this endpoint may not grant, `ENOSPC` if the container
    /// has as many grants as it may. Then `work` is not done.
    pub fn lend<R>(
        &self,
        to: Endpoint,
        memory: &[u8],
        work: impl FnOnce(GrantId) -> R,
    ) -> Result<R, Error> {
        self.lend_memory(to, Memory::Shared(memory), Access::Read, work)
    }

    /// Lends `memory` to `to` for `access`, as [`lend`](Self::lend) does.
    ///
    /// ```no_run
    /// use dvk::{Access, Endpoint, Ipc, Message, Port, Timeout};
    ///
    /// fn read(port: &Port, server: Endpoint, into: &mut [u8]) -> Result<Message, dvk::Error> {
    ///     port.lend_mut(server, into, Access::Write, |grant| {
    ///         let mut request = Message::new(0x201);
    ///         request.payload[..8].copy_from_slice(&grant.raw().to_le_bytes());
    ///         port.sendrec(server, &request, Timeout::Forever)
    ///     })?
    /// }
    /// ```
    ///
    /// # Errors
    /// As there.
    pub fn lend_mut<R>(
        &self,
        to: Endpoint,
        memory: &mut [u8],
        access: Access,
        work: impl FnOnce(GrantId) -> R,
    ) -> Result<R, Error> {
        self.lend_memory(to, Memory::Exclusive(memory), access, work)
    }

    fn lend_memory<R>(
        &self,
        to: Endpoint,
        memory: Memory<'_>,
        access: Access,
        work: impl FnOnce(GrantId) -> R,
    ) -> Result<R, Error> {
        sys::lend(self.as_fd(), memory, to.raw(), access.bits(), |grant| work(GrantId(grant)))
            .map_err(|errno| self.error(Call::Grant, Subject::To(to), errno))
    }

    /// Copies out of what a peer granted. `timeout` is for copies from other nodes; a local one is
    /// not a wait.
    ///
    /// # Errors
    /// `EACCES` if there is no such grant (any more), or not for this endpoint, for reading or for
    /// so many bytes; `EFAULT` if a part of the memory is not there; `ESRCH`, `ESTALE`,
    /// `EOWNERDEAD`, `EHOSTUNREACH` and `ENOTCONN` as [`sendrec`](Self::sendrec); `EAGAIN`,
    /// `ETIMEDOUT` or `EINTR` if it did not come in time. A part may have been copied.
    pub fn copy_from(
        &self,
        from: Granted,
        into: &mut [u8],
        timeout: Timeout,
    ) -> Result<(), CopyError> {
        sys::copy_into(self, from.block(), into, timeout.as_ns())
            .map_err(|failed| self.copy_error(Call::CopyFrom, from, failed))
    }

    /// Copies into what a peer granted.
    ///
    /// # Errors
    /// As [`copy_from`](Self::copy_from), with the right to write.
    pub fn copy_to(&self, to: Granted, from: &[u8], timeout: Timeout) -> Result<(), CopyError> {
        sys::copy(self, to.block(), from, timeout.as_ns())
            .map_err(|failed| self.copy_error(Call::CopyTo, to, failed))
    }

    /// Copies `len` bytes out of what one peer granted into what another did. The bytes do not pass
    /// through the caller.
    ///
    /// # Errors
    /// As [`copy_from`](Self::copy_from), for both.
    pub fn copy_between(
        &self,
        from: Granted,
        to: Granted,
        len: u64,
        timeout: Timeout,
    ) -> Result<(), CopyError> {
        let mut block = ioctl::CopyBetween {
            source: from.block(),
            destination: to.block(),
            len,
            timeout_ns: timeout.as_ns(),
            copied: 0,
        };
        let result = sys::call::<{ ioctl::COPY_BETWEEN }, _>(self, &mut block);
        result.map_err(|errno| self.copy_error(Call::CopyBetween, from, (errno, block.copied)))
    }

    fn copy_error(
        &self,
        call: Call,
        granted: Granted,
        (errno, copied): (rustix::io::Errno, u64),
    ) -> CopyError {
        CopyError { copied, error: self.error(call, Subject::Granted(granted), errno) }
    }
}

/// Memory that is lent for as long as the value lives, such as a buffer that serves many requests.
///
/// Others read and write it at any moment, so it is reached by copies only. Dropping it ends the
/// grant, and so does the end of the endpoint; if it is forgotten, its memory stays lent and is
/// never freed.
pub struct Loan<'p> {
    memory: OwnMemory<'p>,
}

impl<'p> Loan<'p> {
    /// Lends `bytes` bytes of zeros to `to`, or to everybody with [`Endpoint::ANY`].
    ///
    /// # Errors
    /// As [`Port::lend`].
    pub fn new(port: &'p Port, to: Endpoint, bytes: usize, access: Access) -> Result<Self, Error> {
        match OwnMemory::new(port.as_fd(), bytes, to.raw(), access.bits()) {
            Ok(memory) => Ok(Self { memory }),
            Err(errno) => Err(port.error(Call::Grant, Subject::To(to), errno)),
        }
    }

    /// The grant.
    pub fn grant(&self) -> GrantId {
        GrantId(self.memory.grant())
    }

    /// How many bytes are lent.
    pub fn bytes(&self) -> usize {
        self.memory.len()
    }

    /// Copies what is there now, from byte `offset` on. What a peer copies into it at the same
    /// moment may be seen in part.
    ///
    /// # Panics
    /// Beyond the end.
    pub fn read(&self, offset: usize, into: &mut [u8]) {
        self.memory.read(offset, into);
    }

    /// Copies `from` there, from byte `offset` on. Writes of others to the same eight bytes at the
    /// same moment may be lost.
    ///
    /// # Panics
    /// Beyond the end.
    pub fn write(&self, offset: usize, from: &[u8]) {
        self.memory.write(offset, from);
    }
}

impl fmt::Debug for Loan<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Loan({:#x}, {} bytes)", self.grant().0, self.bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::num::NonZeroU32;

    crate::payload! {
        struct Read: 0x201 {
            into: GrantId,
        }
    }

    #[test]
    fn a_grant_is_a_field_of_a_message() {
        use crate::Payload;
        let message = Read { into: GrantId::from_raw(0x0201) }.message();
        assert_eq!(message.payload[..3], [1, 2, 0]);
        assert_eq!(Read::view(&message).unwrap().into.raw(), 0x0201);
    }

    #[test]
    fn a_failed_copy_says_how_far_it_came() {
        let granted = GrantId::from_raw(0x1_0000_0002).of(Endpoint::new(65, NonZeroU32::MIN), 4096);
        let error = Error {
            call: Call::CopyFrom,
            subject: Subject::Granted(granted),
            container: Some(0),
            errno: rustix::io::Errno::FAULT,
        };
        assert_eq!(
            CopyError { copied: 512, error }.to_string(),
            "copy_from with grant 0x100000002 of 65.1 from byte 4096 in container 0: \
             an address is not readable or writable (EFAULT) (after 512 bytes)"
        );
    }

    #[test]
    fn access_is_that_of_the_abi() {
        let bits = [Access::Read, Access::Write, Access::ReadWrite].map(Access::bits);
        assert_eq!(bits, [1, 2, 3]);
    }
}
