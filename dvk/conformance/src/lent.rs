// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory to be lent, copied and looked at, and what is to be in it.

use anyhow::{ensure, Result};
use core::ops::Range;
use dvk::raw::Arena;
use dvk::{CopyError, Endpoint, Errno, GrantId, Granted, Port, Timeout};
use dvk_abi::ioctl;

/// Bytes of a page.
pub(crate) const PAGE: usize = 4096;

/// Bytes that look random, and are the same for the same seed (xorshift, Marsaglia 2003).
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// A number that other bytes hardly have (FNV-1a, Fowler, Noll and Vo), for bytes that are on
/// another node.
pub(crate) fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}

/// What a raw call failed with, as the library's own calls have it.
pub(crate) fn errno(error: rustix::io::Errno) -> Errno {
    let known = u8::try_from(error.raw_os_error()).ok().and_then(Errno::from_raw);
    known.unwrap_or(Errno::NotACall)
}

/// The call copied exactly so much and then failed, for this reason.
pub(crate) fn stops(
    what: &str,
    result: Result<(), CopyError>,
    copied: u64,
    expected: Errno,
) -> Result<()> {
    let Err(failed) = result else {
        anyhow::bail!("{what}: expected {expected}, but it succeeded")
    };
    ensure!(failed.error.is(expected), "{what}: expected {expected}, got: {failed}");
    ensure!(failed.copied == copied, "{what}: expected {copied} bytes, got {}", failed.copied);
    Ok(())
}

/// Some pages, followed by one that cannot be accessed, that an endpoint granted.
#[derive(Clone, Copy)]
pub(crate) struct Lent {
    /// The pages.
    pub(crate) arena: &'static Arena,
    /// The grant.
    pub(crate) grant: GrantId,
    /// Who granted it.
    pub(crate) granter: Endpoint,
}

impl Lent {
    /// Has `port` grant `pages` pages of zeros.
    pub(crate) fn new(port: &Port, pages: usize, to: Endpoint, access: u32) -> Result<Self> {
        let arena = Arena::new(pages)?;
        let grant = grant(port, arena, 0, arena.bytes(), to, access);
        Ok(Self::of(port, arena, grant.map_err(|errno| anyhow::anyhow!("grant: {errno}"))?))
    }

    /// What `port` granted of an arena.
    pub(crate) fn of(port: &Port, arena: &'static Arena, grant: GrantId) -> Self {
        Self { arena, grant, granter: port.endpoint() }
    }

    /// Its byte `offset`.
    pub(crate) fn at(&self, offset: u64) -> Granted {
        self.grant.of(self.granter, offset)
    }

    /// All that is there now.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.arena.bytes()];
        self.arena.read(0, &mut bytes);
        bytes
    }
}

/// Has `port` grant some bytes of an arena, which may reach into the page that is not there.
pub(crate) fn grant(
    port: &Port,
    arena: &Arena,
    offset: usize,
    len: usize,
    to: Endpoint,
    access: u32,
) -> Result<GrantId, Errno> {
    let address = arena.address() + offset as u64;
    let mut block =
        ioctl::Grant { address, len: len as u64, to: to.raw(), access, ..Default::default() };
    arena.call::<{ ioctl::GRANT }, _>(port, &mut block).map_err(errno)?;
    Ok(GrantId::from_raw(block.grant))
}

/// Ends a grant.
pub(crate) fn revoke(port: &Port, grant: GrantId) -> Result<(), Errno> {
    let mut block = ioctl::Revoke { grant: grant.raw() };
    dvk::raw::call::<{ ioctl::REVOKE }, _>(port, &mut block).map_err(errno)
}

/// Has `port` copy between what was granted on this node and its own memory, which is some bytes of
/// an arena.
pub(crate) fn copy(
    port: &Port,
    direction: Direction,
    granted: Granted,
    arena: &Arena,
    offset: usize,
    len: usize,
) -> Result<(), (Errno, u64)> {
    copy_for(Timeout::NoWait, port, direction, granted, arena, offset..offset + len)
}

/// Has `port` copy between what was granted, wherever that is, and some bytes of an arena.
pub(crate) fn copy_for(
    timeout: Timeout,
    port: &Port,
    direction: Direction,
    granted: Granted,
    arena: &Arena,
    range: Range<usize>,
) -> Result<(), (Errno, u64)> {
    let mut block = ioctl::Copy {
        granted: ioctl::Granted {
            endpoint: granted.endpoint.raw(),
            grant: granted.grant.raw(),
            offset: granted.offset,
        },
        address: arena.address() + range.start as u64,
        len: range.len() as u64,
        timeout_ns: timeout.as_ns(),
        copied: u64::MAX,
    };
    let called = match direction {
        Direction::From => arena.call::<{ ioctl::COPY_FROM }, _>(port, &mut block),
        Direction::To => arena.call::<{ ioctl::COPY_TO }, _>(port, &mut block),
    };
    called.map_err(|error| (errno(error), block.copied))
}

/// Which of the two copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// `copy_from`.
    From,
    /// `copy_to`.
    To,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_differ_by_every_byte() {
        assert_eq!(digest(b"a"), 0xaf63_dc4c_8601_ec8c);
        let bytes = noise(5, 40);
        for at in 0..bytes.len() {
            let mut other = bytes.clone();
            other[at] ^= 1;
            assert_ne!(digest(&other), digest(&bytes));
        }
        assert_ne!(digest(&bytes[..39]), digest(&bytes));
    }

    #[test]
    fn noise_repeats_and_differs() {
        assert_eq!(noise(3, 100), noise(3, 100));
        assert_eq!(noise(3, 100)[..7], noise(3, 7));
        assert_ne!(noise(3, 100), noise(4, 100));
        assert_ne!(noise(3, 16)[..8], noise(3, 16)[8..]);
    }
}
