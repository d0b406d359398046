// SPDX-License-Identifier: MIT OR Apache-2.0
//! The requests to a file server.

use super::attributes::{Attributes, DirectoryPart, FileSystem, SetTime};
use super::who::{FileId, NodeId, Who};
use crate::Errno;
use dvk::GrantId;

dvk::protocol! {
    /// A file server.
    pub trait FileServer: client FileClient, error Errno {
        /// Makes the file system on a device of the server reachable: MINIX's `readsuper`. Only the
        /// superuser may. `EUCLEAN` if there is no file system of a known kind, `EBUSY` if it is mounted.
        fn mount(Mount = 0xa00 {
            /// The name by which the server's configuration knows the device, lent for reading.
            label: GrantId,
            /// Its bytes.
            label_bytes: u16,
            /// [`MOUNT_READ_ONLY`](super::MOUNT_READ_ONLY), or 0.
            flags: u32,
            /// Who asks.
            who: Who,
        }) -> FileSystem;

        /// Writes everything to the device and lets go of it. Only the superuser may. `EBUSY` while a client
        /// holds a node or has a file open.
        fn unmount(Unmount = 0xa01 {
            /// The name of the device, lent for reading.
            label: GrantId,
            /// Its bytes.
            label_bytes: u16,
            /// Who asks.
            who: Who,
        }) -> ();

        /// Holds the root directory of a mounted device. `ENOENT` if none of this name is mounted.
        fn root(GetRoot = 0xa02 {
            /// The name of the device, lent for reading.
            label: GrantId,
            /// Its bytes; 0 for the server's first mount.
            label_bytes: u16,
        }) -> Attributes;

        /// What the file system of a node is.
        fn file_system(GetFileSystem = 0xa03 {
            /// Any of its nodes.
            node: NodeId,
        }) -> FileSystem;

        /// Holds what has a name in a directory. The user must be allowed to search it.
        fn lookup(Lookup = 0xa04 {
            /// The directory.
            directory: NodeId,
            /// The name, lent for reading.
            name: GrantId,
            /// Its bytes.
            name_bytes: u16,
            /// Who asks.
            who: Who,
        }) -> Attributes;

        /// Gives back a number of holds. `EINVAL`, and nothing is given back, if the client has fewer.
        fn release(Release = 0xa05 {
            /// The node.
            node: NodeId,
            /// How many.
            count: u64,
        }) -> ();

        /// What a node is. It holds nothing.
        fn stat(Stat = 0xa06 {
            /// The node.
            node: NodeId,
        }) -> Attributes;

        /// Whether a user has rights to a node: `EACCES` if one of them is missing.
        fn access(Access = 0xa07 {
            /// The node.
            node: NodeId,
            /// [`MAY_READ`](super::MAY_READ), [`MAY_WRITE`](super::MAY_WRITE),
            /// [`MAY_EXECUTE`](super::MAY_EXECUTE).
            rights: u32,
            /// Whose rights.
            who: Who,
        }) -> ();

        /// Makes a file and holds it. It is not opened: who makes a file that he may not write, such as one
        /// of mode 0, opens it by [`open_made`](FileServer::open_made).
        fn create(Create = 0xa10 {
            /// The directory.
            directory: NodeId,
            /// The name, lent for reading.
            name: GrantId,
            /// Its bytes.
            name_bytes: u16,
            /// The permissions; the client has taken its mask off.
            mode: u16,
            /// Who asks.
            who: Who,
        }) -> Attributes;

        /// Makes a directory and holds it.
        fn make_directory(MakeDirectory = 0xa11 {
            /// The directory that it will be in.
            directory: NodeId,
            /// The name, lent for reading.
            name: GrantId,
            /// Its bytes.
            name_bytes: u16,
            /// The permissions; the client has taken its mask off.
            mode: u16,
            /// Who asks.
            who: Who,
        }) -> Attributes;

        /// Makes a pipe, a socket or a device node and holds it. Devices are for the superuser only.
        fn make_node(MakeNode = 0xa12 {
            /// The directory.
            directory: NodeId,
            /// The name, lent for reading.
            name: GrantId,
            /// Its bytes.
            name_bytes: u16,
            /// Type and permissions; the client has taken its mask off.
            mode: u16,
            /// Which device, for a device node; else 0.
            device: u32,
            /// Who asks.
            who: Who,
        }) -> Attributes;

        /// Makes a symbolic link and holds it.
        fn make_symbolic_link(MakeSymbolicLink = 0xa13 {
            /// The directory.
            directory: NodeId,
            /// The name and, right behind it, the path that the link is to have, lent for reading.
            names: GrantId,
            /// Bytes of the name.
            name_bytes: u16,
            /// Bytes of the path.
            path_bytes: u16,
            /// Who asks.
            who: Who,
        }) -> Attributes;

        /// Gives a node, which is no directory, a further name.
        fn link(Link = 0xa14 {
            /// The node.
            node: NodeId,
            /// The directory.
            directory: NodeId,
            /// The name, lent for reading.
            name: GrantId,
            /// Its bytes.
            name_bytes: u16,
            /// Who asks.
            who: Who,
        }) -> ();

        /// Removes a name of something that is no directory.
        fn unlink(Unlink = 0xa15 {
            /// The directory.
            directory: NodeId,
            /// The name, lent for reading.
            name: GrantId,
            /// Its bytes.
            name_bytes: u16,
            /// Who asks.
            who: Who,
        }) -> ();

        /// Removes an empty directory.
        fn remove_directory(RemoveDirectory = 0xa16 {
            /// The directory that it is in.
            directory: NodeId,
            /// The name, lent for reading.
            name: GrantId,
            /// Its bytes.
            name_bytes: u16,
            /// Who asks.
            who: Who,
        }) -> ();

        /// Gives what has a name another one, in place of what has that. Others see the one or the other at
        /// the new name and never none. `EINVAL` if a directory would come into itself.
        fn rename(Rename = 0xa17 {
            /// The directory of the old name.
            from: NodeId,
            /// The directory of the new name.
            to: NodeId,
            /// The old name and, right behind it, the new one, lent for reading.
            names: GrantId,
            /// Bytes of the old name.
            old_bytes: u8,
            /// Bytes of the new name.
            new_bytes: u8,
            /// [`RENAME_KEEP`](super::RENAME_KEEP), or 0.
            flags: u32,
            /// Who asks.
            who: Who,
        }) -> ();

        /// Copies the path in a symbolic link into lent memory. The result is its length in bytes; if the
        /// memory is smaller, only so much is copied.
        fn read_link(ReadLink = 0xa18 {
            /// The link.
            node: NodeId,
            /// Memory lent for writing.
            into: GrantId,
            /// Its bytes.
            bytes: u32,
        }) -> u32;

        /// Sets the permissions. Only the owner and the superuser may.
        fn set_mode(SetMode = 0xa20 {
            /// The node.
            node: NodeId,
            /// The permissions, without a type.
            mode: u16,
            /// Who asks.
            who: Who,
        }) -> Attributes;

        /// Sets owner and group; `u32::MAX` leaves one as it is. A change by a user takes the bits off that
        /// let a file be executed as its owner or group.
        fn set_owner(SetOwner = 0xa21 {
            /// The node.
            node: NodeId,
            /// The owner. Only the superuser may change it.
            user: u32,
            /// The group. The owner may change it to one of its groups.
            group: u32,
            /// Who asks.
            who: Who,
        }) -> Attributes;

        /// Sets the times of reading and of changing.
        fn set_times(SetTimes = 0xa22 {
            /// The node.
            node: NodeId,
            /// When it was read last.
            accessed: SetTime,
            /// When its content was changed last.
            modified: SetTime,
            /// Who asks.
            who: Who,
        }) -> Attributes;

        /// Cuts a file or makes it longer, by zeros that take no space. The user must be allowed to write it.
        fn truncate(Truncate = 0xa23 {
            /// The file.
            node: NodeId,
            /// How many bytes it is to have.
            bytes: u64,
            /// Who asks.
            who: Who,
        }) -> Attributes;

        /// Opens a file or a directory, and holds it until it is closed.
        fn open(Open = 0xa30 {
            /// The node.
            node: NodeId,
            /// [`OPEN_READ`](super::OPEN_READ) and the like; one of reading and writing at least.
            flags: u32,
            /// Who asks.
            who: Who,
        }) -> FileId;

        /// Opens a file that this client made, whatever its mode. It must not have let go of it meanwhile.
        fn open_made(OpenMade = 0xa31 {
            /// The node.
            node: NodeId,
            /// As for [`open`](FileServer::open).
            flags: u32,
        }) -> FileId;

        /// Ends the use of an open file. What was written is not on stable storage yet.
        fn close(Close = 0xa32 {
            /// The open file.
            file: FileId,
        }) -> ();

        /// Copies a part of a file into lent memory. The result is how many bytes; it is less than asked for
        /// only at the end of the file or after [`TRANSFER_MAX`] bytes.
        fn read(Read = 0xa33 {
            /// The open file.
            file: FileId,
            /// The first byte of the file.
            position: u64,
            /// Memory lent for writing.
            into: GrantId,
            /// The first byte of the memory.
            offset: u64,
            /// How many bytes.
            bytes: u32,
        }) -> u32;

        /// Copies lent memory into a part of a file. The result is how many bytes; it is less than asked for
        /// only if the device is full, or after [`TRANSFER_MAX`] bytes.
        fn write(Write = 0xa34 {
            /// The open file.
            file: FileId,
            /// The first byte of the file.
            position: u64,
            /// Memory lent for reading.
            from: GrantId,
            /// The first byte of the memory.
            offset: u64,
            /// How many bytes.
            bytes: u32,
        }) -> u32;

        /// Copies [entries](crate::directory) of an open directory into lent memory. `EINVAL` if not one
        /// fits. What is made or removed meanwhile may be in it or not; everything else is in it once.
        fn read_directory(ReadDirectory = 0xa35 {
            /// The open directory.
            file: FileId,
            /// Where to begin: 0, or what came with an entry or a part before.
            position: u64,
            /// Memory lent for writing.
            into: GrantId,
            /// How many bytes it has.
            bytes: u32,
        }) -> DirectoryPart;

        /// Cuts an open file, or makes it longer, as [`truncate`](FileServer::truncate) does.
        fn truncate_open(TruncateOpen = 0xa36 {
            /// The open file; it must be for writing.
            file: FileId,
            /// How many bytes it is to have.
            bytes: u64,
        }) -> Attributes;

        /// Answers when everything written to the file, and what leads to it, is on stable storage.
        /// After an error, what was written since the last success is in doubt, and a later success does not
        /// mean that it is there.
        fn sync_file(SyncFile = 0xa37 {
            /// The open file or directory.
            file: FileId,
        }) -> ();

        /// Answers when everything written to all of the server's mounts is on stable storage.
        fn sync(Sync = 0xa38 {}) -> ();
    }
}

/// The most bytes that one request reads or writes.
pub const TRANSFER_MAX: u32 = 1 << 20;

const _: () = {
    use dvk::Body;
    assert!(Lookup::BYTES == 36 && Create::BYTES == 38 && MakeNode::BYTES == 42);
    assert!(Link::BYTES == 44 && Rename::BYTES == 48);
    assert!(Read::BYTES == 36 && Write::BYTES == 36);
};
