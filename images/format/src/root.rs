// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the initial root of a node has, which the kernel unpacks into memory: PID 1, and the root as a file that stays compressed there.

use std::fmt;
use std::hash::Hasher;
use std::io::{self, Read};

use twox_hash::XxHash64;

/// The file system image with the root, in the initial root.
pub const IMAGE: &str = "/root.squashfs";
/// Its [`Checksum`] in text, in a file beside it. The image is read piece by piece while the node runs: damage that is not found at the
/// start would show as anything, days later.
pub const CHECKSUM: &str = "/root.xxh64";
/// The kind of file system, as the kernel calls it.
pub const KIND: &str = "squashfs";

/// By what damage is found: XXH64, which is quick with the instructions that every processor has. It says nothing of intent: who could change
/// the image could change this as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checksum(u64);

impl Checksum {
    /// That of all that there is to read.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn of(mut content: impl Read) -> io::Result<Self> {
        let mut hasher = XxHash64::with_seed(0);
        let mut piece = vec![0; 128 << 10];
        loop {
            match content.read(&mut piece) {
                Ok(0) => return Ok(Self(hasher.finish())),
                Ok(length) => hasher.write(&piece[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_tells_a_changed_bit() {
        let mut content: Vec<u8> =
            (0..300_000_u32).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect();
        let sound = Checksum::of(&content[..]).unwrap();
        for at in [0, 131_072, content.len() - 1] {
            content[at] ^= 0x10;
            assert_ne!(Checksum::of(&content[..]).unwrap(), sound, "{at}");
            content[at] ^= 0x10;
        }
        assert_eq!(Checksum::of(&content[..]).unwrap(), sound);
        // As the specification of xxHash has it for nothing at all.
        assert_eq!(Checksum::of(&b""[..]).unwrap().to_string(), "ef46db3751d8e999");
    }
}
