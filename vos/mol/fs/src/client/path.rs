// SPDX-License-Identifier: MIT OR Apache-2.0
//! Walking along paths.

use super::{Files, FilesError, Node};
use core::fmt;
use mol_protocol::directory::Kind;
use mol_protocol::Errno;
use mol_vdd::lend::Lend;

/// How many symbolic links a path may lead through, as in Linux.
const LINKS_MAX: usize = 40;

/// The names of a path, the last one first.
fn names(path: &[u8]) -> Vec<Vec<u8>> {
    let names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty());
    names.rev().map(<[u8]>::to_vec).collect()
}

impl<I: Lend> Files<'_, I>
where
    I::Error: fmt::Display,
{
    /// What a path from the root of a mount leads to. Symbolic links are followed, the last one only if that is
    /// wanted by a `/` at the end.
    ///
    /// # Errors
    /// [`FilesError`]; `ELOOP` if it leads through more than 40 links.
    pub fn find(&self, label: &str, path: &[u8]) -> Result<Node<'_, I>, FilesError> {
        let follows = path.ends_with(b"/");
        self.walk(label, path, follows)
    }

    /// The same, with the last link followed as well.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    pub fn follow(&self, label: &str, path: &[u8]) -> Result<Node<'_, I>, FilesError> {
        self.walk(label, path, true)
    }

    /// The directory that a path leads into, and the last name.
    ///
    /// # Errors
    /// As [`find`](Self::find); `EINVAL` if the path has no name.
    pub fn parent<'p>(
        &self,
        label: &str,
        path: &'p [u8],
    ) -> Result<(Node<'_, I>, &'p [u8]), FilesError> {
        let end = path.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1);
        let path = &path[..end];
        let begin = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        if begin == end {
            return Err(FilesError::refused("make or remove a root", Errno::Invalid));
        }
        Ok((self.walk(label, &path[..begin], true)?, &path[begin..]))
    }

    fn walk(&self, label: &str, path: &[u8], follows: bool) -> Result<Node<'_, I>, FilesError> {
        let in_path = |error: FilesError| {
            let what = format!("{} in `{}`", error.what, String::from_utf8_lossy(path));
            FilesError { what, ..error }
        };
        let mut rest = names(path);
        let mut at = self.root(label)?;
        let mut links = 0;
        while let Some(name) = rest.pop() {
            let found = at.lookup(&name).map_err(in_path)?;
            let is_link = Kind::of_mode(found.attributes.mode) == Kind::SymbolicLink;
            if !is_link || rest.is_empty() && !follows {
                at = found;
                continue;
            }
            links += 1;
            if links > LINKS_MAX {
                let what = format!("follow `{}`", String::from_utf8_lossy(path));
                return Err(FilesError::refused(what, Errno::LinkLoop));
            }
            let to = found.read_link().map_err(in_path)?;
            if to.starts_with(b"/") {
                at = self.root(label)?;
            }
            rest.extend(names(&to));
        }
        Ok(at)
    }
}
