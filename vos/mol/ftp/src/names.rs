// SPDX-License-Identifier: MIT OR Apache-2.0
//! Names that are made and removed.

use core::fmt;
use mol_fs::client::{Files, FilesError, Named, Node};
use mol_protocol::directory::Kind;
use mol_protocol::Errno;
use mol_vdd::lend::Lend;

/// Makes a directory; with `parents`, also those above it, and it may be there.
///
/// # Errors
/// [`FilesError`].
pub fn make_directory<I: Lend>(
    files: &Files<'_, I>,
    label: &str,
    path: &[u8],
    parents: bool,
) -> Result<(), FilesError>
where
    I::Error: fmt::Display,
{
    if !parents {
        let (above, name) = files.parent(label, path)?;
        return above.make_directory(name, 0o755).map(drop);
    }
    let mut at = files.root(label)?;
    let mut end = 0;
    for name in path.split(|byte| *byte == b'/') {
        end += name.len() + 1;
        if name.is_empty() {
            continue;
        }
        at = match files.follow(label, &path[..end - 1]) {
            Err(error) if error.errno == Some(Errno::NoEntry) => {
                match at.make_directory(name, 0o755) {
                    // Somebody else was faster.
                    Err(error) if error.errno == Some(Errno::Exists) => at.lookup(name)?,
                    made => made?,
                }
            }
            found => found?,
        };
    }
    match Kind::of_mode(at.attributes.mode) {
        Kind::Directory => Ok(()),
        _ => files.follow(label, &[path, b"/."].concat()).map(drop),
    }
}

/// Removes a name; with `recursive`, of a directory with all that is in it.
///
/// # Errors
/// [`FilesError`]. A part may be gone.
pub fn remove<I: Lend>(
    files: &Files<'_, I>,
    label: &str,
    path: &[u8],
    recursive: bool,
) -> Result<(), FilesError>
where
    I::Error: fmt::Display,
{
    let (above, name) = files.parent(label, path)?;
    match above.unlink(name) {
        Err(error) if error.errno == Some(Errno::IsDirectory) && recursive => {}
        done => return done,
    }
    let top = above.lookup(name)?;
    empty(&top)?;
    above.remove_directory(name)
}

/// Removes all that is in a directory. No more than the way down is kept, however much there is.
fn empty<I: Lend>(top: &Node<'_, I>) -> Result<(), FilesError>
where
    I::Error: fmt::Display,
{
    let mut way: Vec<(Vec<u8>, Node<'_, I>, Vec<Named>)> = Vec::new();
    let mut rest = top.list()?;
    loop {
        let at = way.last().map_or(top, |(_, node, _)| node);
        if let Some(named) = rest.pop() {
            match at.unlink(&named.name) {
                Ok(()) => {}
                // Somebody else has removed it.
                Err(error) if error.errno == Some(Errno::NoEntry) => {}
                Err(error) if error.errno == Some(Errno::IsDirectory) => {
                    let node = at.lookup(&named.name)?;
                    let names = node.list()?;
                    way.push((named.name, node, core::mem::replace(&mut rest, names)));
                }
                Err(error) => return Err(error),
            }
        } else if let Some((name, node, before)) = way.pop() {
            drop(node);
            way.last().map_or(top, |(_, node, _)| node).remove_directory(&name)?;
            rest = before;
        } else {
            return Ok(());
        }
    }
}
