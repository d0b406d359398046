// SPDX-License-Identifier: MIT OR Apache-2.0
//! The files that are served, and which of them a machine begins with.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// The kernel.
pub const LINUX: &str = "linux";
/// Its initial root.
pub const INITRAMFS: &str = "initramfs";
/// Both, and the command line, in one UEFI program.
pub const UNIFIED: &str = "dvs.efi";
/// What iPXE does.
pub const SCRIPT: &str = "boot.ipxe";
/// iPXE for a BIOS whose own PXE can do little.
pub const IPXE_BIOS: &str = "undionly.kpxe";

/// The kernel's command line; it is part of the script, and not served itself.
pub const COMMAND_LINE: &str = "command-line";

/// What a file has: pieces of memory, or of files of this machine, one after the other. An image is so large that a node should not have
/// it several times.
#[derive(Clone, Debug, Default)]
pub struct Content(Vec<Piece>);

#[derive(Clone, Debug)]
enum Piece {
    Memory(Arc<[u8]>),
    /// This range of a file.
    Part(Arc<File>, Range<u64>),
}

impl Piece {
    fn len(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::Part(_, range) => range.end - range.start,
        }
    }
}

impl Content {
    /// These bytes.
    pub fn of(bytes: impl Into<Arc<[u8]>>) -> Self {
        Self(vec![Piece::Memory(bytes.into())])
    }

    /// A range of a file, which must have it for as long as it is served.
    pub fn part(file: &Arc<File>, range: Range<u64>) -> Self {
        Self(vec![Piece::Part(Arc::clone(file), range)])
    }

    /// This, and then `more`.
    #[must_use]
    pub fn then(mut self, more: Self) -> Self {
        self.0.extend(more.0);
        self
    }

    /// How many bytes there are.
    pub fn len(&self) -> u64 {
        self.0.iter().map(Piece::len).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes in a range, as far as there are that many.
    ///
    /// # Errors
    /// When a file cannot be read, or has become shorter.
    pub fn read(&self, range: Range<u64>) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut begin = 0;
        for piece in &self.0 {
            let end = begin + piece.len();
            let (from, to) = (range.start.clamp(begin, end), range.end.clamp(begin, end));
            if from < to {
                match piece {
                    Piece::Memory(memory) => {
                        let (from, to) = ((from - begin) as usize, (to - begin) as usize);
                        bytes.extend_from_slice(&memory[from..to]);
                    }
                    Piece::Part(file, part) => {
                        let at = bytes.len();
                        bytes.resize(at + (to - from) as usize, 0);
                        file.read_exact_at(&mut bytes[at..], part.start + (from - begin))?;
                    }
                }
            }
            begin = end;
        }
        Ok(bytes)
    }
}

/// Files by name. There are no folders, and nothing but what is in here is ever served.
#[derive(Clone, Debug, Default)]
pub struct Files(BTreeMap<String, Content>);

impl Files {
    /// Adds a file, in place of one of the same name.
    pub fn add(&mut self, name: &str, content: Content) {
        self.0.insert(name.to_owned(), content);
    }

    /// A file, by the name that a client asks for: one `/` before it does not matter.
    pub fn get(&self, name: &str) -> Option<&Content> {
        self.0.get(name.strip_prefix('/').unwrap_or(name))
    }
}

/// The script that iPXE runs: by BIOS it loads kernel and root, by UEFI the program that holds both, with `command_line` in place of
/// its own.
pub fn script(command_line: &str) -> String {
    format!(
        "#!ipxe\niseq ${{platform}} efi && goto efi ||\nkernel {LINUX} {command_line}\ninitrd {INITRAMFS}\nboot\n\
         :efi\nchain {UNIFIED} {command_line}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_pieces_is_read_as_one() {
        let mut file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut file, b"0123456789").unwrap();
        let file = Arc::new(file);
        let content = Content::of(*b"ab").then(Content::part(&file, 3..7)).then(Content::of(*b"c"));
        let whole = b"ab3456c";
        assert_eq!(content.len(), whole.len() as u64);
        for from in 0..=whole.len() {
            for to in from..=whole.len() {
                let read = content.read(from as u64..to as u64).unwrap();
                assert_eq!(read, &whole[from..to]);
            }
        }
        assert_eq!(content.read(5..u64::MAX).unwrap(), b"6c");
        assert!(Content::part(&file, 5..11).read(0..6).is_err(), "the file is shorter");
        assert!(Content::default().is_empty());
    }

    #[test]
    fn only_what_was_added_is_found() {
        let mut files = Files::default();
        files.add(LINUX, Content::of(*b"kernel"));
        assert_eq!(files.get("linux").unwrap().read(0..99).unwrap(), b"kernel");
        assert!(files.get("/linux").is_some());
        for name in ["//linux", "../linux", "/etc/passwd", "", "linux\0"] {
            assert!(files.get(name).is_none(), "{name}");
        }
    }
}
