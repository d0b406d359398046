// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory that the kernel reads or writes by an address in an argument block.
//!
//! A copy, and the buffer of `events` and `migrate_start`, concern the kernel until the call
//! returns: an exclusive or shared reference for that time is enough. A grant lasts until it is
//! revoked, and peers read and write the memory at any moment until then. So nothing that could
//! be forgotten may hold back the revocation:
//! - [`lend`] revokes on its own stack, and what it lends is borrowed meanwhile;
//! - [`OwnMemory`] owns what is lent, as words that anybody may change (atomics); forgotten, it is
//!   leaked and stays lent.
//!
//! Both rely on what the DVK promises of `revoke`: when it returns, with success or because there
//! is no such grant any more, nobody touches the memory through the grant.

use super::call_naming_memory;
use core::sync::atomic::{AtomicU64, Ordering};
use dvk_abi::ioctl;
use rustix::fd::{AsFd, BorrowedFd};
use rustix::io::{Errno, Result};

/// Memory to be lent.
pub(crate) enum Memory<'m> {
    /// For peers to read.
    Shared(&'m [u8]),
    /// For peers to write, or to read and write.
    Exclusive(&'m mut [u8]),
}

/// A grant in force.
struct Lent<'f> {
    file: BorrowedFd<'f>,
    grant: u64,
}

impl<'f> Lent<'f> {
    /// Makes a grant.
    ///
    /// # Safety
    /// Until the value is dropped, others may read the memory and, as `access` says, write it.
    unsafe fn new(file: BorrowedFd<'f>, mut block: ioctl::Grant) -> Result<Self> {
        // SAFETY: by this function's contract.
        unsafe { call_naming_memory::<{ ioctl::GRANT }, _>(file, &mut block)? };
        Ok(Self { file, grant: block.grant })
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        loop {
            let mut block = ioctl::Revoke { grant: self.grant };
            // Any other error says that there is no such grant: it ended with its endpoint.
            if super::call::<{ ioctl::REVOKE }, _>(self.file, &mut block) != Err(Errno::INTR) {
                return;
            }
        }
    }
}

/// Lends `memory` to `to` for the time of `work`, which gets the grant's id.
///
/// `exclusive` memory is lent with `access`, other memory for reading only.
pub(crate) fn lend<R>(
    file: BorrowedFd<'_>,
    memory: Memory<'_>,
    to: u64,
    access: u32,
    work: impl FnOnce(u64) -> R,
) -> Result<R> {
    let (address, len, access) = match memory {
        Memory::Shared(bytes) => {
            (bytes.as_ptr().expose_provenance(), bytes.len(), ioctl::GRANT_READ)
        }
        Memory::Exclusive(bytes) => (bytes.as_mut_ptr().expose_provenance(), bytes.len(), access),
    };
    let block = ioctl::Grant {
        address: address as u64,
        len: len as u64,
        to,
        access,
        ..ioctl::Grant::default()
    };
    // SAFETY: the memory is borrowed beyond this function, exclusively if others may write it, and
    // the value is dropped in it, also if `work` panics.
    let lent = unsafe { Lent::new(file, block)? };
    let result = work(lent.grant);
    drop(lent);
    Ok(result)
}

/// Memory of its own that is lent for as long as the value lives.
pub(crate) struct OwnMemory<'f> {
    // In this order: what is lent is freed after the revocation.
    lent: Lent<'f>,
    words: Box<[AtomicU64]>,
    len: usize,
}

impl<'f> OwnMemory<'f> {
    /// Lends `len` bytes of zeros.
    pub(crate) fn new(file: BorrowedFd<'f>, len: usize, to: u64, access: u32) -> Result<Self> {
        let words: Box<[AtomicU64]> =
            (0..len.div_ceil(size_of::<u64>())).map(|_| AtomicU64::new(0)).collect();
        let block = ioctl::Grant {
            address: words.as_ptr().expose_provenance() as u64,
            len: len as u64,
            to,
            access,
            ..ioctl::Grant::default()
        };
        // SAFETY: the words are freed after the value is dropped, and if it is forgotten, never;
        // as atomics they may be changed by others at any time.
        let lent = unsafe { Lent::new(file, block)? };
        Ok(Self { lent, words, len })
    }

    pub(crate) fn grant(&self) -> u64 {
        self.lent.grant
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Reads from byte `offset` on. Panics beyond the end.
    pub(crate) fn read(&self, offset: usize, into: &mut [u8]) {
        self.check(offset, into.len());
        read_words(&self.words, offset, into);
    }

    /// Writes from byte `offset` on. Panics beyond the end.
    pub(crate) fn write(&self, offset: usize, from: &[u8]) {
        self.check(offset, from.len());
        write_words(&self.words, offset, from);
    }

    fn check(&self, offset: usize, len: usize) {
        let end = offset.checked_add(len);
        assert!(
            end.is_some_and(|end| end <= self.len),
            "{len} bytes from {offset} are not within {} bytes",
            self.len
        );
    }
}

const WORD: usize = size_of::<u64>();

fn read_words(words: &[AtomicU64], mut offset: usize, mut into: &mut [u8]) {
    while !into.is_empty() {
        let bytes = words[offset / WORD].load(Ordering::Relaxed).to_ne_bytes();
        let part = &bytes[offset % WORD..];
        let part = &part[..part.len().min(into.len())];
        let (now, rest) = into.split_at_mut(part.len());
        now.copy_from_slice(part);
        (offset, into) = (offset + part.len(), rest);
    }
}

/// A word of which only a part is written keeps the rest; what a peer writes there at the same
/// moment is lost, as it is by any two writers of one word.
fn write_words(words: &[AtomicU64], mut offset: usize, mut from: &[u8]) {
    while !from.is_empty() {
        let word = &words[offset / WORD];
        let start = offset % WORD;
        let len = (WORD - start).min(from.len());
        let mut bytes =
            if len == WORD { [0; WORD] } else { word.load(Ordering::Relaxed).to_ne_bytes() };
        bytes[start..start + len].copy_from_slice(&from[..len]);
        word.store(u64::from_ne_bytes(bytes), Ordering::Relaxed);
        (offset, from) = (offset + len, &from[len..]);
    }
}

/// Makes `COPY_TO`: out of `from`. Fails with how many bytes were copied.
pub(crate) fn copy(
    file: impl AsFd,
    granted: ioctl::Granted,
    from: &[u8],
    timeout_ns: i64,
) -> core::result::Result<(), (Errno, u64)> {
    let address = from.as_ptr().expose_provenance() as u64;
    let mut block = ioctl::Copy { granted, address, len: from.len() as u64, timeout_ns, copied: 0 };
    // SAFETY: the kernel reads as many bytes there, and only until the call returns.
    let result = unsafe { call_naming_memory::<{ ioctl::COPY_TO }, _>(file, &mut block) };
    result.map_err(|errno| (errno, block.copied))
}

/// Makes `COPY_FROM`: into `into`. Fails with how many bytes were copied.
pub(crate) fn copy_into(
    file: impl AsFd,
    granted: ioctl::Granted,
    into: &mut [u8],
    timeout_ns: i64,
) -> core::result::Result<(), (Errno, u64)> {
    let address = into.as_mut_ptr().expose_provenance() as u64;
    let mut block = ioctl::Copy { granted, address, len: into.len() as u64, timeout_ns, copied: 0 };
    // SAFETY: the kernel writes as many bytes there, and only until the call returns.
    let result = unsafe { call_naming_memory::<{ ioctl::COPY_FROM }, _>(file, &mut block) };
    result.map_err(|errno| (errno, block.copied))
}

/// Makes `EVENTS`: how many came, and how many were lost before them.
pub(crate) fn events(
    file: impl AsFd,
    into: &mut [ioctl::Event],
    timeout_ns: i64,
) -> Result<(usize, u64)> {
    let address = into.as_mut_ptr().expose_provenance() as u64;
    let count = u32::try_from(into.len()).unwrap_or(u32::MAX);
    let mut block = ioctl::Events { address, count, timeout_ns, ..ioctl::Events::default() };
    // SAFETY: the kernel writes as many events there, of which every bit pattern is a value, and
    // only until the call returns.
    unsafe { call_naming_memory::<{ ioctl::EVENTS }, _>(file, &mut block)? };
    Ok((into.len().min(block.count as usize), block.lost))
}

/// Makes `MIGRATE_START` with `state`, which the kernel reads or writes; its new length is what
/// was written, or, where the call fails with `EMSGSIZE`, what is needed.
pub(crate) fn migrate_start(
    file: impl AsFd,
    mut block: ioctl::Migrate,
    state: &mut [u8],
) -> (Result<()>, u64) {
    block.state = state.as_mut_ptr().expose_provenance() as u64;
    block.state_len = state.len() as u64;
    // SAFETY: the kernel reads or writes at most as many bytes there, and only until the call
    // returns.
    let result = unsafe { call_naming_memory::<{ ioctl::MIGRATE_START }, _>(file, &mut block) };
    (result, block.state_len)
}

/// Makes `PROXY_GET`: how many bytes of `into` are frames now.
pub(crate) fn proxy_get(
    file: impl AsFd,
    (node, transport): (u32, u32),
    into: &mut [u8],
    timeout_ns: i64,
) -> Result<usize> {
    let address = into.as_mut_ptr().expose_provenance() as u64;
    let len = into.len() as u64;
    let mut block = ioctl::ProxyFrames { node, transport, address, len, timeout_ns };
    // SAFETY: the kernel writes at most as many bytes there, and only until the call returns.
    unsafe { call_naming_memory::<{ ioctl::PROXY_GET }, _>(file, &mut block)? };
    Ok(into.len().min(block.len as usize))
}

/// Makes `PROXY_PUT` with the frames in `from`: how many bytes of them were taken.
pub(crate) fn proxy_put(
    file: impl AsFd,
    (node, transport): (u32, u32),
    from: &[u8],
) -> Result<usize> {
    let address = from.as_ptr().expose_provenance() as u64;
    let len = from.len() as u64;
    let mut block = ioctl::ProxyFrames { node, transport, address, len, timeout_ns: 0 };
    // SAFETY: the kernel reads at most as many bytes there, and only until the call returns.
    unsafe { call_naming_memory::<{ ioctl::PROXY_PUT }, _>(file, &mut block)? };
    Ok(from.len().min(block.len as usize))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn words_are_read_and_written_like_bytes(
            writes in prop::collection::vec((0usize..64, prop::collection::vec(any::<u8>(), 0..20)), 0..20),
            start in 0usize..64,
        ) {
            let words: Vec<_> = (0..8).map(|_| AtomicU64::new(0)).collect();
            let mut bytes = [0; 64];
            for (offset, data) in writes {
                let data = &data[..data.len().min(64 - offset)];
                write_words(&words, offset, data);
                bytes[offset..offset + data.len()].copy_from_slice(data);
            }
            let mut read = vec![0; 64 - start];
            read_words(&words, start, &mut read);
            prop_assert_eq!(read, &bytes[start..]);
        }
    }

    #[test]
    fn a_grant_that_is_refused_lends_nothing() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let called = lend(file.as_fd(), Memory::Exclusive(&mut [0; 8]), 0, 3, |_| panic!("lent"));
        assert_eq!(called, Err(Errno::NOTTY));
        assert!(OwnMemory::new(file.as_fd(), 8, 0, 3).is_err());
    }
}
