// SPDX-License-Identifier: MIT OR Apache-2.0
//! Entries of directories: the number of an inode and a name.

use super::{u16_at, u32_at, Layout, Version};

/// The name by which a directory has itself.
pub const DOT: &[u8] = b".";
/// The name by which a directory has the one that it is in.
pub const DOT_DOT: &[u8] = b"..";

/// An entry of a directory; a free one has the number 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'b> {
    /// The number of the inode.
    pub inode: u32,
    /// The name, without the zeros that fill it up.
    pub name: &'b [u8],
}

impl<'b> Entry<'b> {
    /// Reads an entry of as many bytes as the layout says.
    ///
    /// # Panics
    /// If there are fewer bytes.
    pub fn decode(layout: &Layout, bytes: &'b [u8]) -> Self {
        let (inode, name) = match layout.version {
            Version::V3 => (u32_at(bytes, 0), &bytes[4..layout.entry_bytes()]),
            _ => (u16_at(bytes, 0).into(), &bytes[2..layout.entry_bytes()]),
        };
        let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
        Self { inode, name: &name[..end] }
    }

    /// Whether the name can be that of a file: not empty, and without `/`.
    pub fn has_name(&self) -> bool {
        !self.name.is_empty() && !self.name.contains(&b'/')
    }

    /// Whether it is `.` or `..`.
    pub fn is_dot(&self) -> bool {
        self.name == DOT || self.name == DOT_DOT
    }

    /// Writes the entry as version 3 has it.
    ///
    /// # Panics
    /// If there are fewer than 64 bytes, or the name has more than 60.
    pub fn encode(&self, into: &mut [u8]) {
        into[..4].copy_from_slice(&self.inode.to_le_bytes());
        let (name, rest) = into[4..64].split_at_mut(self.name.len());
        name.copy_from_slice(self.name);
        rest.fill(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Memory;
    use crate::format::make;

    #[test]
    fn a_name_that_fills_its_entry_has_no_zero() {
        let layout = make(&mut Memory::new(1 << 20), 1024, 64, 0).unwrap();
        let mut bytes = [0xff; 64];
        for name in [&[b'x'; 60][..], b"etc", b""] {
            Entry { inode: 7, name }.encode(&mut bytes);
            assert_eq!(Entry::decode(&layout, &bytes), Entry { inode: 7, name });
        }
        assert!(!Entry { inode: 7, name: b"" }.has_name());
        assert!(!Entry { inode: 7, name: b"a/b" }.has_name());
        assert!(Entry { inode: 7, name: b"..." }.has_name());
    }
}
