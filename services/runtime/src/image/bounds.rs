// SPDX-License-Identifier: MIT OR Apache-2.0
//! How much an image may be, whatever its archive says, and readers that hold to it.

use std::io::{self, Read};

use anyhow::{ensure, Result};
use sha2::{Digest, Sha256};

/// Limits of an image. What is over them is refused while it is read, so that a small archive cannot fill a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of all files together, unpacked.
    pub bytes: u64,
    /// Files, directories and links together.
    pub entries: u64,
    /// Layers.
    pub layers: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { bytes: 1 << 30, entries: 200_000, layers: 128 }
    }
}

/// Bytes of an archive that an entry takes besides its content: headers, padding, long names.
const ENTRY_OVERHEAD: u64 = 8192;

/// What is left of the limits of an image.
#[derive(Debug)]
pub(super) struct Left {
    bytes: u64,
    entries: u64,
    bounds: Bounds,
}

impl Left {
    pub(super) fn of(bounds: Bounds) -> Self {
        Self { bytes: bounds.bytes, entries: bounds.entries, bounds }
    }

    /// Counts an entry with so many bytes.
    ///
    /// # Errors
    /// When that is too much.
    pub(super) fn take(&mut self, bytes: u64) -> Result<()> {
        ensure!(
            self.entries > 0,
            "unpacking the image: it has more than {} files",
            self.bounds.entries
        );
        ensure!(
            bytes <= self.bytes,
            "unpacking the image: it has more than {} bytes",
            self.bounds.bytes
        );
        self.entries -= 1;
        self.bytes -= bytes;
        Ok(())
    }

    /// Bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The most bytes that the archive of what is left can have.
    pub(super) fn stream(&self) -> u64 {
        self.entries
            .saturating_mul(ENTRY_OVERHEAD)
            .saturating_add(self.bytes)
            .saturating_add(1 << 20)
    }
}

/// Reads no more than it may, and knows the digest of what was read.
#[derive(Debug)]
pub(super) struct Watched<R> {
    inner: R,
    left: u64,
    hasher: Sha256,
}

impl<R: Read> Watched<R> {
    pub(super) fn new(inner: R, most: u64) -> Self {
        Self { inner, left: most, hasher: Sha256::new() }
    }

    /// Reads what nobody wanted, and gives the digest of everything in hexadecimal.
    pub(super) fn finish(mut self) -> io::Result<String> {
        io::copy(&mut self, &mut io::sink())?;
        Ok(hex(&self.hasher.finalize()))
    }
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(length as u64).ok_or_else(|| {
            io::Error::other("it is longer than an image of the size that is allowed")
        })?;
        self.hasher.update(&buffer[..length]);
        Ok(length)
    }
}

/// Bytes as people write digests.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The digest of bytes, in hexadecimal.
pub(super) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_becomes_less() {
        let mut left = Left::of(Bounds { bytes: 10, entries: 2, layers: 1 });
        assert!(left.take(11).is_err());
        left.take(10).unwrap();
        assert!(left.take(1).is_err());
        left.take(0).unwrap();
        assert!(left.take(0).is_err());
    }

    #[test]
    fn a_stream_is_hashed_to_its_end_and_no_longer_than_allowed() {
        let mut watched = Watched::new(&b"abcdef"[..], 6);
        let mut two = [0; 2];
        watched.read_exact(&mut two).unwrap();
        assert_eq!(watched.finish().unwrap(), sha256(b"abcdef"));
        assert!(Watched::new(&b"abcdef"[..], 5).finish().is_err());
    }
}
