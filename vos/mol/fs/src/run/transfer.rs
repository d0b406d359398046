// SPDX-License-Identifier: MIT OR Apache-2.0
//! What people do with files of a server.

use super::{RunError, Servers};
use crate::client::{Files, FilesError};
use core::fmt;
use core::time::Duration;
use dvk::{Port, Slot};
use mol_protocol::directory::Kind;
use mol_protocol::file::{OPEN_READ, OPEN_WRITE, TRANSFER_MAX};
use mol_protocol::Errno;
use mol_vdd::lend::Lend;
use std::io::{self, Read, Write};
use std::path::Path;

/// How long a server is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why nothing came of it.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The file server.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// What is read or written here.
    #[error("cannot {0}: {1}")]
    Here(&'static str, io::Error),
}

/// Does something with the files of a server.
///
/// # Errors
/// [`RunError`].
pub fn with_files(
    dvk: &Path,
    servers: &Servers,
    work: impl FnOnce(&Files<'_, Port>) -> Result<(), TransferError>,
) -> Result<(), RunError> {
    let port = Port::open(dvk, Slot::Any)?;
    let server = servers.find(&port, PATIENCE)?;
    Ok(work(&Files::new(&port, server, 0, 0))?)
}

/// Writes what a directory has, one name a line, with type, permissions, names, owner, group and bytes.
///
/// # Errors
/// [`TransferError`].
pub fn list<I: Lend>(
    files: &Files<'_, I>,
    (label, path): (&str, &[u8]),
    to: &mut impl Write,
) -> Result<(), TransferError>
where
    I::Error: fmt::Display,
{
    let directory = files.follow(label, path)?;
    let mut names = directory.list()?;
    names.sort_by(|one, other| one.name.cmp(&other.name));
    for named in names {
        let found = match directory.lookup(&named.name) {
            Ok(found) => found.attributes,
            // Somebody else has removed it.
            Err(error) if error.errno == Some(Errno::NoEntry) => continue,
            Err(error) => return Err(error.into()),
        };
        let kind = match named.kind {
            Kind::Directory => 'd',
            Kind::SymbolicLink => 'l',
            Kind::Regular => '-',
            Kind::Pipe => 'p',
            Kind::Socket => 's',
            Kind::CharacterDevice => 'c',
            Kind::BlockDevice => 'b',
            Kind::Unknown => '?',
        };
        let (permissions, links) = (found.mode & 0o7777, found.links);
        let name = named.name.escape_ascii();
        let line = format!(
            "{kind} {permissions:04o} {links:3} {:5} {:5} {:10} {name}",
            found.user, found.group, found.bytes
        );
        writeln!(to, "{line}").map_err(|error| TransferError::Here("write the list", error))?;
    }
    Ok(())
}

/// Copies a file of the server to `to`. The result is how many bytes.
///
/// # Errors
/// [`TransferError`].
pub fn get<I: Lend>(
    files: &Files<'_, I>,
    (label, path): (&str, &[u8]),
    to: &mut impl Write,
) -> Result<u64, TransferError>
where
    I::Error: fmt::Display,
{
    let here = |error| TransferError::Here("write what was read", error);
    let file = files.follow(label, path)?.open(OPEN_READ)?;
    let mut buffer = vec![0; TRANSFER_MAX as usize];
    let mut position = 0;
    loop {
        let count = file.read(position, &mut buffer)?;
        to.write_all(&buffer[..count]).map_err(here)?;
        position += count as u64;
        if count < buffer.len() {
            to.flush().map_err(here)?;
            return Ok(position);
        }
    }
}

/// Copies `from` into a file of the server, which is made, or loses what it had. It is on stable storage in the end. The
/// result is how many bytes.
///
/// # Errors
/// [`TransferError`]. The file may have a part of it.
pub fn put<I: Lend>(
    files: &Files<'_, I>,
    (label, path): (&str, &[u8]),
    from: &mut impl Read,
) -> Result<u64, TransferError>
where
    I::Error: fmt::Display,
{
    let (above, name) = files.parent(label, path)?;
    let file = match above.create(name, 0o644, OPEN_WRITE) {
        Err(error) if error.errno == Some(Errno::Exists) => {
            let file = files.follow(label, path)?.open(OPEN_WRITE)?;
            file.truncate(0)?;
            file
        }
        other => other?,
    };
    let mut buffer = Vec::new();
    let mut position = 0;
    loop {
        buffer.clear();
        let read = from.by_ref().take(TRANSFER_MAX.into()).read_to_end(&mut buffer);
        read.map_err(|error| TransferError::Here("read what is to be written", error))?;
        if buffer.is_empty() {
            file.sync()?;
            return Ok(position);
        }
        file.write(position, &buffer)?;
        position += buffer.len() as u64;
    }
}

/// Removes a file, or a directory that is empty.
///
/// # Errors
/// [`TransferError`].
pub fn remove<I: Lend>(
    files: &Files<'_, I>,
    (label, path): (&str, &[u8]),
) -> Result<(), TransferError>
where
    I::Error: fmt::Display,
{
    let (above, name) = files.parent(label, path)?;
    let removed = match above.unlink(name) {
        Err(error) if error.errno == Some(Errno::IsDirectory) => above.remove_directory(name),
        other => other,
    };
    Ok(removed?)
}

/// Gives what a path leads to another path on the same mount, in place of what has that.
///
/// # Errors
/// [`TransferError`].
pub fn rename<I: Lend>(
    files: &Files<'_, I>,
    label: &str,
    old: &[u8],
    new: &[u8],
) -> Result<(), TransferError>
where
    I::Error: fmt::Display,
{
    let ((from, old), (to, new)) = (files.parent(label, old)?, files.parent(label, new)?);
    Ok(from.rename(old, &to, new)?)
}

/// Makes a directory.
///
/// # Errors
/// [`TransferError`].
pub fn make_directory<I: Lend>(
    files: &Files<'_, I>,
    (label, path): (&str, &[u8]),
) -> Result<(), TransferError>
where
    I::Error: fmt::Display,
{
    let (above, name) = files.parent(label, path)?;
    above.make_directory(name, 0o755)?;
    Ok(())
}

/// Writes how much a file system has, and how much of it is free.
///
/// # Errors
/// [`TransferError`].
pub fn usage<I: Lend>(
    files: &Files<'_, I>,
    label: &str,
    to: &mut impl Write,
) -> Result<(), TransferError>
where
    I::Error: fmt::Display,
{
    let of = files.root(label)?.file_system()?;
    let text = format!(
        "MINIX version {}, {} of {} blocks of {} bytes are free, and {} of {} inodes\n",
        of.version, of.blocks_free, of.blocks, of.block_bytes, of.inodes_free, of.inodes
    );
    to.write_all(text.as_bytes()).map_err(|error| TransferError::Here("write the usage", error))
}
