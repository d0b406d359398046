// SPDX-License-Identifier: MIT OR Apache-2.0
//! cpio archives in the "newc" form that the kernel unpacks as its initial root
//! (Documentation/driver-api/early-userspace/buffer-format.rst), the same bytes for the same content.

use std::collections::BTreeMap;
use std::fmt;

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    /// A directory.
    Directory,
    /// A file and its content.
    File(Vec<u8>),
    /// A symbolic link and where it points.
    Link(String),
    /// A character device.
    Device {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
}

/// An archive being put together. Owner and group of everything are root, times are 0, inode numbers count up.
#[derive(Clone, Debug, Default)]
pub(crate) struct Archive {
    entries: BTreeMap<String, (u32, Node)>,
}

/// A path that cannot be added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It is not absolute, or has empty, `.` or `..` parts.
    Path(String),
    /// Something else has that name.
    Taken(String),
    /// A part of it is not a directory.
    Below(String),
    /// The content is too long for the format.
    Size(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => {
                write!(f, "`{path}` is not an absolute path without `.`, `..` and empty parts")
            }
            Self::Taken(path) => write!(f, "`{path}` is given twice"),
            Self::Below(path) => write!(f, "`{path}` is used as a directory but is none"),
            Self::Size(path) => {
                write!(f, "`{path}` is larger than 4 GiB, which a cpio archive cannot hold")
            }
        }
    }
}

impl std::error::Error for Refusal {}

impl Archive {
    /// Adds an entry; the directories above it appear with mode 0755 unless they are added themselves.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub(crate) fn add(&mut self, path: &str, mode: u32, node: Node) -> Result<(), Refusal> {
        let name = path.strip_prefix('/').ok_or_else(|| Refusal::Path(path.to_owned()))?;
        if name.split('/').any(|part| matches!(part, "" | "." | "..") || part.contains('\0')) {
            return Err(Refusal::Path(path.to_owned()));
        }
        if let Node::File(content) = &node {
            u32::try_from(content.len()).map_err(|_| Refusal::Size(path.to_owned()))?;
        }
        for (end, _) in name.match_indices('/') {
            match self.entries.get(&name[..end]) {
                Some((_, Node::Directory)) => {}
                Some(_) => return Err(Refusal::Below(format!("/{}", &name[..end]))),
                None => {
                    self.entries.insert(name[..end].to_owned(), (IMPLIED, Node::Directory));
                }
            }
        }
        match self.entries.get(name) {
            // A directory that so far was only implied by what is in it.
            Some((IMPLIED, Node::Directory)) if node == Node::Directory => {}
            Some(_) => return Err(Refusal::Taken(path.to_owned())),
            None => {}
        }
        self.entries.insert(name.to_owned(), (mode & 0o7777, node));
        Ok(())
    }

    /// Its entries, each directory before what is in it: the path without a slash at its beginning, the mode, and what it stands for.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&str, u32, &Node)> {
        self.entries.iter().map(|(name, (mode, node))| {
            let mode = if *mode == IMPLIED { 0o755 } else { *mode };
            (name.as_str(), mode, node)
        })
    }

    /// The archive's bytes.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut inode = 0;
        for (name, mode, node) in self.entries() {
            inode += 1;
            write_entry(&mut bytes, inode, name, mode, node);
        }
        write_entry(&mut bytes, 0, "TRAILER!!!", 0, &Node::File(Vec::new()));
        bytes
    }
}

/// Marks a directory that was not added itself; no real mode has these bits.
const IMPLIED: u32 = u32::MAX;

fn write_entry(bytes: &mut Vec<u8>, inode: u32, name: &str, mode: u32, node: &Node) {
    let (kind, links, content, device): (u32, u32, &[u8], _) = match node {
        Node::Directory => (0o040_000, 2, &[], (0, 0)),
        // The trailer is a file of mode 0 in every respect.
        Node::File(_) if inode == 0 => (0, 1, &[], (0, 0)),
        Node::File(content) => (0o100_000, 1, content, (0, 0)),
        Node::Link(target) => (0o120_000, 1, target.as_bytes(), (0, 0)),
        Node::Device { major, minor } => (0o020_000, 1, &[], (*major, *minor)),
    };
    bytes.extend_from_slice(b"070701");
    #[expect(
        clippy::cast_possible_truncation,
        reason = "`add` refuses content of 4 GiB and names are short"
    )]
    for field in [
        inode,
        kind | mode,
        0, // owner
        0, // group
        links,
        0, // time of modification
        content.len() as u32,
        0, // device that holds the file: major,
        0, // and minor
        device.0,
        device.1,
        name.len() as u32 + 1,
        0, // checksum, not used in this form
    ] {
        bytes.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    bytes.extend_from_slice(name.as_bytes());
    bytes.push(0);
    pad(bytes);
    bytes.extend_from_slice(content);
    pad(bytes);
}

/// Names and contents end at multiples of four.
fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Name, mode, content and device numbers.
    type Entry = (String, u32, Vec<u8>, (u32, u32));

    /// A reader written from the format's description, to check the writer.
    fn read(bytes: &[u8]) -> Vec<Entry> {
        let mut entries = Vec::new();
        let mut at = 0;
        loop {
            assert_eq!(at % 4, 0);
            assert_eq!(&bytes[at..at + 6], b"070701");
            let field = |n: usize| {
                let from = at + 6 + n * 8;
                u32::from_str_radix(std::str::from_utf8(&bytes[from..from + 8]).unwrap(), 16)
                    .unwrap()
            };
            assert_eq!((field(2), field(3), field(5)), (0, 0, 0), "owner, group, time");
            let (mode, size, name_size) = (field(1), field(6) as usize, field(11) as usize);
            let name = &bytes[at + 110..at + 110 + name_size];
            assert_eq!(name.last(), Some(&0));
            let name = String::from_utf8(name[..name_size - 1].to_vec()).unwrap();
            let device = (field(9), field(10));
            at = (at + 110 + name_size).next_multiple_of(4);
            if name == "TRAILER!!!" {
                assert_eq!(at, bytes.len());
                return entries;
            }
            entries.push((name, mode, bytes[at..at + size].to_vec(), device));
            at = (at + size).next_multiple_of(4);
        }
    }

    fn file(content: &str) -> Node {
        Node::File(content.as_bytes().to_vec())
    }

    #[test]
    fn entries_are_sorted_and_parents_come_first() {
        let mut archive = Archive::default();
        archive.add("/init", 0o755, file("program")).unwrap();
        archive.add("/dev/console", 0o600, Node::Device { major: 5, minor: 1 }).unwrap();
        archive.add("/dev", 0o700, Node::Directory).unwrap();
        archive.add("/usr/bin/sh", 0o777, Node::Link("dvsctl".into())).unwrap();
        let entry = |name: &str, mode, content: &str, device| {
            (name.to_owned(), mode, content.as_bytes().to_vec(), device)
        };
        assert_eq!(
            read(&archive.bytes()),
            [
                entry("dev", 0o040_700, "", (0, 0)),
                entry("dev/console", 0o020_600, "", (5, 1)),
                entry("init", 0o100_755, "program", (0, 0)),
                entry("usr", 0o040_755, "", (0, 0)),
                entry("usr/bin", 0o040_755, "", (0, 0)),
                entry("usr/bin/sh", 0o120_777, "dvsctl", (0, 0)),
            ]
        );
    }

    #[test]
    fn nonsense_is_refused() {
        let mut archive = Archive::default();
        archive.add("/a", 0o644, file("")).unwrap();
        for path in ["a", "", "/", "/../a", "/a//b", "/./a", "/d/"] {
            let refusal = archive.add(path, 0o644, file("")).unwrap_err();
            assert_eq!(refusal, Refusal::Path(path.to_owned()));
        }
        assert_eq!(archive.add("/a", 0o644, file("")), Err(Refusal::Taken("/a".into())));
        assert_eq!(archive.add("/a/b", 0o644, file("")), Err(Refusal::Below("/a".into())));
        archive.add("/d", 0o755, Node::Directory).unwrap();
        assert_eq!(archive.add("/d", 0o755, Node::Directory), Err(Refusal::Taken("/d".into())));
    }

    proptest! {
        /// The same files give the same bytes, whatever the order in which they were added, and come out as they went in.
        #[test]
        fn bytes_depend_on_content_only(
            files in prop::collection::btree_map("[a-c]{1,2}", (0u32..0o1000, prop::collection::vec(any::<u8>(), 0..9)), 0..6),
            order in any::<prop::sample::Index>(),
        ) {
            let files: Vec<_> = files.into_iter().collect();
            let archive = |start: usize| {
                let mut archive = Archive::default();
                for (name, (mode, content)) in files[start..].iter().chain(&files[..start]) {
                    archive.add(&format!("/d/{name}"), *mode, Node::File(content.clone())).unwrap();
                }
                archive.bytes()
            };
            let bytes = archive(0);
            prop_assert_eq!(&bytes, &archive(order.index(files.len() + 1).min(files.len())));
            let read: Vec<_> = read(&bytes).into_iter().filter(|entry| entry.0 != "d").collect();
            let expected: Vec<_> = files
                .iter()
                .map(|(name, (mode, content))| (format!("d/{name}"), 0o100_000 | mode, content.clone(), (0, 0)))
                .collect();
            prop_assert_eq!(read, expected);
        }
    }
}
