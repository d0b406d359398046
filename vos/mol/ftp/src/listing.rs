// SPDX-License-Identifier: MIT OR Apache-2.0
//! Lists of directories.

use core::fmt;
use mol_fs::client::{Files, FilesError};
use mol_protocol::directory::Kind;
use mol_protocol::file::Attributes;
use mol_protocol::Errno;
use mol_vdd::lend::Lend;
use serde::Serialize;
use vos_transfer::name_of;

/// Something with a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// The name; what is no text is escaped.
    pub name: String,
    /// `file`, `directory`, `link`, or `other`.
    pub kind: &'static str,
    /// The permissions.
    pub mode: u16,
    /// How many names it has.
    pub links: u16,
    /// The owner.
    pub user: u32,
    /// The group.
    pub group: u32,
    /// Bytes of its content.
    pub bytes: u64,
    /// When that was changed last, in seconds since 1970.
    pub modified_s: u32,
}

fn listed(name: &[u8], it: &Attributes) -> Listed {
    let kind = match Kind::of_mode(it.mode) {
        Kind::Regular => "file",
        Kind::Directory => "directory",
        Kind::SymbolicLink => "link",
        _ => "other",
    };
    let name = match core::str::from_utf8(name) {
        Ok(text) if !text.contains(char::is_control) => text.to_owned(),
        _ => name.escape_ascii().to_string(),
    };
    let Attributes { links, user, group, bytes, modified, .. } = *it;
    Listed { name, kind, mode: it.mode & 0o7777, links, user, group, bytes, modified_s: modified }
}

/// What is in a directory, by name; or a file itself.
///
/// # Errors
/// [`FilesError`].
pub fn list<I: Lend>(
    files: &Files<'_, I>,
    label: &str,
    path: &[u8],
) -> Result<Vec<Listed>, FilesError>
where
    I::Error: fmt::Display,
{
    use std::os::unix::ffi::OsStrExt;
    let node = files.follow(label, path)?;
    if Kind::of_mode(node.attributes.mode) != Kind::Directory {
        let name = name_of(std::path::Path::new(std::ffi::OsStr::from_bytes(path)));
        let name = name.unwrap_or_default();
        return Ok(vec![listed(name.as_bytes(), &node.attributes)]);
    }
    let mut names = node.list()?;
    names.sort_by(|one, other| one.name.cmp(&other.name));
    let mut all = Vec::new();
    for named in names {
        match node.lookup(&named.name) {
            Ok(found) => all.push(listed(&named.name, &found.attributes)),
            // Somebody else has removed it.
            Err(error) if error.errno == Some(Errno::NoEntry) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

/// A list for people.
pub fn table(all: &[Listed]) -> String {
    let line = |it: &Listed| {
        let kind = if it.kind == "file" { '-' } else { it.kind.chars().next().unwrap_or('?') };
        let Listed { mode, links, user, group, bytes, name, .. } = it;
        format!("{kind} {mode:04o} {links:3} {user:5} {group:5} {bytes:10} {name}\n")
    };
    all.iter().map(line).collect()
}
