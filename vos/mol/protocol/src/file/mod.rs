// SPDX-License-Identifier: MIT OR Apache-2.0
//! File systems: what a file server is asked.
//!
//! A *node* is a file, directory or other thing with an inode, known to clients by a [`NodeId`] that the
//! server gives. A client begins at the [`root`](FileServer::root) of a mount and *looks up* one name after
//! the other; walking along paths, and following symbolic links, is the client's. In MINIX 3 its VFS walks
//! together with the file system.
//!
//! # Holding and opening
//! Every request that answers with [`Attributes`] of a node that it found or made *holds* the node for the
//! client once more; [`release`](FileServer::release) gives back a number of holds, as MINIX's `putnode` and
//! FUSE's `forget` do. What a client does not hold it cannot name: `ESTALE`. A node that is held or open stays
//! usable when its last name is gone, and is freed with the last hold. [`open`](FileServer::open) checks the
//! permissions and gives a [`FileId`]; reading and writing take their position with each request, so nothing
//! else is kept. When a client dies, its holds and open files are given back.
//!
//! # Names and data
//! Names and data are in memory that the client lends to the server. A name is of 1 to 255 bytes, without `/`
//! and 0; `.` and `..` can be looked up, and neither made nor removed. One that is longer than the format
//! allows (60 bytes in MINIX V3) is `ENAMETOOLONG`, never cut.
//!
//! # Who asks
//! [`Who`] is the user on whose behalf a client asks, as MINIX's VFS says it to a file system. The server
//! believes it: who may talk to a file server at all is said by the privileges of its container, and a
//! gateway, which others cannot evade, says who its users are. User 0 passes the checks of permissions, but
//! for executing what nobody may execute.
//!
//! # Errors
//! Those of POSIX for the function of the name, and for all requests `ESTALE` for a node that is not held,
//! `EBADF` for a file that is not open or not for this, `EFAULT` for memory that is not lent, not for this or
//! too small, `EINVAL` for flags that are unknown, `EROFS` on a file system that is mounted read-only, and
//! `EIO` if the device failed or what is on it is damaged. A request that is refused has changed nothing, but
//! with `EIO`.

mod attributes;
mod requests;
mod who;

pub use self::attributes::{Attributes, DirectoryPart, FileSystem, SetTime};
pub use self::requests::{
    Access, Close, Create, FileClient, FileServer, GetFileSystem, GetRoot, Link, Lookup,
    MakeDirectory, MakeNode, MakeSymbolicLink, Mount, Open, OpenMade, Read, ReadDirectory,
    ReadLink, Release, RemoveDirectory, Rename, SetMode, SetOwner, SetTimes, Stat, Sync, SyncFile,
    Truncate, TruncateOpen, Unlink, Unmount, Write, TRANSFER_MAX,
};
pub use self::who::{FileId, NodeId, Who, GROUPS_MAX};

/// Flag of [`open`](FileServer::open): for reading, or for the entries of a directory.
pub const OPEN_READ: u32 = 1;
/// Flag of [`open`](FileServer::open): for writing.
pub const OPEN_WRITE: u32 = 2;
/// Flag of [`open`](FileServer::open): every write goes to the end, whatever its position.
pub const OPEN_APPEND: u32 = 4;
/// Flag of [`open`](FileServer::open): every write is answered when it is on stable storage.
pub const OPEN_DURABLE: u32 = 8;

/// Right of [`access`](FileServer::access): to execute, or to search a directory. The values are those of
/// POSIX's `access`.
pub const MAY_EXECUTE: u32 = 1;
/// Right of [`access`](FileServer::access): to write.
pub const MAY_WRITE: u32 = 2;
/// Right of [`access`](FileServer::access): to read.
pub const MAY_READ: u32 = 4;

/// Flag of [`rename`](FileServer::rename): do not replace what has the new name; `EEXIST`.
pub const RENAME_KEEP: u32 = 1;

/// Flag of [`mount`](FileServer::mount): nothing on the device is changed.
pub const MOUNT_READ_ONLY: u32 = 1;
