// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests that name memory.

use dvk::{Access, Endpoint, GrantId, Ipc, Port};

/// Calls that protocols are made of, and memory that is lent for the time of one. A [`Port`] does it in the kernel.
pub trait Lend: Ipc {
    /// As [`Port::lend`].
    ///
    /// # Errors
    /// As there.
    fn lend<R>(
        &self,
        to: Endpoint,
        memory: &[u8],
        work: impl FnOnce(GrantId) -> R,
    ) -> Result<R, Self::Error>;

    /// As [`Port::lend_mut`], for writing.
    ///
    /// # Errors
    /// As there.
    fn lend_mut<R>(
        &self,
        to: Endpoint,
        memory: &mut [u8],
        work: impl FnOnce(GrantId) -> R,
    ) -> Result<R, Self::Error>;
}

impl Lend for Port {
    fn lend<R>(
        &self,
        to: Endpoint,
        memory: &[u8],
        work: impl FnOnce(GrantId) -> R,
    ) -> Result<R, Self::Error> {
        Port::lend(self, to, memory, work)
    }

    fn lend_mut<R>(
        &self,
        to: Endpoint,
        memory: &mut [u8],
        work: impl FnOnce(GrantId) -> R,
    ) -> Result<R, Self::Error> {
        Port::lend_mut(self, to, memory, Access::Write, work)
    }
}
