// SPDX-License-Identifier: MIT OR Apache-2.0
//! The entries of a directory, as a server writes them into a client's memory.
//!
//! Each is a record without padding: the number of its inode (8 bytes), the position of the entry after it
//! (8), its kind (1), the length of its name (2) and the name. A client that stops in between goes on from
//! the position of the last entry that it took.

use crate::record::take;

/// The longest name that any file system may have, in bytes. That of MINIX is 60.
pub const NAME_MAX: usize = 255;

const HEAD_BYTES: usize = 19;

/// What kind of thing a name is for; the values are those of Linux's `d_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// The file system does not say before the node is looked up.
    Unknown = 0,
    /// A named pipe.
    Pipe = 1,
    /// A character device.
    CharacterDevice = 2,
    /// A directory.
    Directory = 4,
    /// A block device.
    BlockDevice = 6,
    /// A regular file.
    Regular = 8,
    /// A symbolic link.
    SymbolicLink = 10,
    /// A socket.
    Socket = 12,
}

impl Kind {
    const ALL: [Self; 8] = [
        Self::Unknown,
        Self::Pipe,
        Self::CharacterDevice,
        Self::Directory,
        Self::BlockDevice,
        Self::Regular,
        Self::SymbolicLink,
        Self::Socket,
    ];

    /// The kind that the file type in `mode` says; `Unknown` for bits that are no type.
    pub fn of_mode(mode: u16) -> Self {
        Self::from_raw((mode >> 12) as u8).unwrap_or(Self::Unknown)
    }

    fn from_raw(raw: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == raw)
    }
}

/// A name in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'b> {
    /// The number of the inode, for people and for `d_ino`. It is no right to the node: that is given by
    /// looking the name up.
    pub inode: u64,
    /// Where the next entry is.
    pub next: u64,
    /// What it is.
    pub kind: Kind,
    /// The name: at least one byte, at most [`NAME_MAX`], without `/` and 0.
    pub name: &'b [u8],
}

impl Entry<'_> {
    /// Appends the entry to `records`, unless they would be longer than `most` bytes. Says whether it did.
    ///
    /// # Panics
    /// If the name is longer than [`NAME_MAX`].
    pub fn append(&self, records: &mut Vec<u8>, most: usize) -> bool {
        assert!(self.name.len() <= NAME_MAX, "a name of {} bytes", self.name.len());
        let room = most.saturating_sub(records.len());
        if room < HEAD_BYTES + self.name.len() {
            return false;
        }
        records.extend_from_slice(&self.inode.to_le_bytes());
        records.extend_from_slice(&self.next.to_le_bytes());
        records.push(self.kind as u8);
        records.extend_from_slice(&(self.name.len() as u16).to_le_bytes());
        records.extend_from_slice(self.name);
        true
    }
}

/// Reads entries one by one. It ends with an `Err` at bytes that no server should have written: a record
/// cut short, an unknown kind, a name that is none.
#[derive(Clone, Debug)]
pub struct Entries<'b> {
    records: &'b [u8],
}

/// The bytes are no entry of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoEntry;

impl core::fmt::Display for NoEntry {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("the server's list of a directory has an entry that is none")
    }
}

impl core::error::Error for NoEntry {}

impl<'b> Entries<'b> {
    /// The entries in `records`.
    pub fn new(records: &'b [u8]) -> Self {
        Self { records }
    }

    fn take(&mut self) -> Option<Entry<'b>> {
        let rest = &mut self.records;
        let inode = take(rest).map(u64::from_le_bytes)?;
        let next = take(rest).map(u64::from_le_bytes)?;
        let kind = take(rest).and_then(|[raw]| Kind::from_raw(raw))?;
        let len = take(rest).map(u16::from_le_bytes)?.into();
        let (name, after) = rest.split_at_checked(len)?;
        let is_name =
            (1..=NAME_MAX).contains(&len) && !name.iter().any(|byte| b"/\0".contains(byte));
        *rest = after;
        is_name.then_some(Entry { inode, next, kind, name })
    }
}

impl<'b> Iterator for Entries<'b> {
    type Item = Result<Entry<'b>, NoEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.records.is_empty() {
            return None;
        }
        let entry = self.take().ok_or(NoEntry);
        if entry.is_err() {
            self.records = &[];
        }
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_entry_that_does_not_fit_is_left_for_the_next_call() {
        let entry = Entry { inode: 1, next: 64, kind: Kind::Directory, name: b"etc" };
        let mut records = Vec::new();
        assert!(entry.append(&mut records, 22));
        assert!(!entry.append(&mut records, 43));
        assert_eq!(records.len(), 22);
        assert!(entry.append(&mut records, 44));
        assert_eq!(Entries::new(&records).collect::<Vec<_>>(), [Ok(entry), Ok(entry)]);
    }

    #[test]
    fn what_is_no_entry_ends_the_list() {
        let mut records = Vec::new();
        let entry = Entry { inode: 1, next: 64, kind: Kind::Regular, name: b"a" };
        assert!(entry.append(&mut records, 100));
        let after = |last: &[u8]| {
            let records = [&records[..], last].concat();
            Entries::new(&records).map(|entry| entry.is_ok()).collect::<Vec<_>>()
        };
        let last = |kind: u8, len: u8, name: &[u8]| [&[0; 16][..], &[kind, len, 0], name].concat();
        assert_eq!(after(&last(8, 1, b"b")), [true, true]);
        assert_eq!(after(&[0; 18]), [true, false], "cut short");
        assert_eq!(after(&last(8, 2, b"b")), [true, false], "a name cut short");
        assert_eq!(after(&last(3, 1, b"b")), [true, false], "an unknown kind");
        assert_eq!(after(&last(8, 0, b"")), [true, false], "no name");
        assert_eq!(after(&last(8, 1, b"/")), [true, false], "a path");
        assert_eq!(after(&last(8, 1, b"\0")), [true, false], "not of a name");
    }

    #[test]
    fn the_kind_of_a_mode_is_its_file_type() {
        assert_eq!(Kind::of_mode(0o040_755), Kind::Directory);
        assert_eq!(Kind::of_mode(0o100_644), Kind::Regular);
        assert_eq!(Kind::of_mode(0o120_777), Kind::SymbolicLink);
        assert_eq!(Kind::of_mode(0o060_600), Kind::BlockDevice);
        assert_eq!(Kind::of_mode(0o170_000), Kind::Unknown);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(records in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut again = Vec::new();
            let mut whole = true;
            for entry in Entries::new(&records) {
                whole &= entry.is_ok_and(|entry| entry.append(&mut again, usize::MAX));
            }
            prop_assert!(records.starts_with(&again));
            prop_assert!(!whole || again == records);
        }
    }
}
