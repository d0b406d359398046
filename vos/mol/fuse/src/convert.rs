// SPDX-License-Identifier: MIT OR Apache-2.0
//! What Linux and the server say in their own ways.

use dvk::protocol::ErrorCode;
use dvk::CallError;
use fuser::{FileAttr, FileType, INodeNo, OpenAccMode, OpenFlags, TimeOrNow};
use mol_protocol::directory::Kind;
use mol_protocol::file::{Attributes, SetTime, OPEN_APPEND, OPEN_READ, OPEN_WRITE};
use mol_protocol::Errno;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The flag of `open` for appending, of Linux on x86-64.
const O_APPEND: i32 = 0o2000;

/// How a type of file is said to Linux; one that the server does not know is a file until it is looked up.
pub(crate) fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::Pipe => FileType::NamedPipe,
        Kind::CharacterDevice => FileType::CharDevice,
        Kind::Directory => FileType::Directory,
        Kind::BlockDevice => FileType::BlockDevice,
        Kind::SymbolicLink => FileType::Symlink,
        Kind::Socket => FileType::Socket,
        Kind::Regular | Kind::Unknown => FileType::RegularFile,
    }
}

/// What a node is, for Linux.
pub(crate) fn attributes(of: &Attributes, block_bytes: u32) -> FileAttr {
    let kind = Kind::of_mode(of.mode);
    let is_device = matches!(kind, Kind::CharacterDevice | Kind::BlockDevice);
    let (rdev, blocks) =
        if is_device { (of.blocks_or_device, 0) } else { (0, of.blocks_or_device) };
    let time = |seconds: u32| UNIX_EPOCH + Duration::from_secs(seconds.into());
    FileAttr {
        ino: INodeNo(of.inode.into()),
        size: of.bytes,
        blocks: blocks.into(),
        atime: time(of.accessed),
        mtime: time(of.modified),
        ctime: time(of.changed),
        crtime: UNIX_EPOCH,
        kind: file_type(kind),
        perm: of.mode & 0o7777,
        nlink: of.links.into(),
        uid: of.user,
        gid: of.group,
        rdev,
        blksize: block_bytes,
        flags: 0,
    }
}

/// What a file is opened for.
pub(crate) fn open_flags(flags: OpenFlags) -> u32 {
    let mode = match flags.acc_mode() {
        OpenAccMode::O_RDONLY => OPEN_READ,
        OpenAccMode::O_WRONLY => OPEN_WRITE,
        OpenAccMode::O_RDWR => OPEN_READ | OPEN_WRITE,
    };
    // Linux takes care of O_SYNC and O_TRUNC itself.
    if flags.0 & O_APPEND != 0 {
        mode | OPEN_APPEND
    } else {
        mode
    }
}

/// What becomes of a time. The format has seconds from 1970 on.
pub(crate) fn set_time(time: Option<TimeOrNow>) -> SetTime {
    match time {
        None => SetTime::Keep,
        Some(TimeOrNow::Now) => SetTime::Now,
        Some(TimeOrNow::SpecificTime(time)) => SetTime::To(seconds(time)),
    }
}

fn seconds(time: SystemTime) -> u32 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_secs().try_into().unwrap_or(u32::MAX)
}

/// Why a request had no result. Without an answer it is `EIO`: nobody knows whether it was done.
pub(crate) fn errno<I>(error: &CallError<Errno, I>) -> fuser::Errno {
    told(error.refusal().unwrap_or(Errno::Io))
}

pub(crate) fn told(errno: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(errno.code() as i32)
}

/// The groups of a process besides its own, out of its `status` in `/proc`.
pub(crate) fn groups(status: &str) -> Vec<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("Groups:"));
    line.unwrap_or_default().split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_of_open_are_those_of_linux() {
        use rustix::fs::OFlags;
        let flags = |flags: OFlags| open_flags(OpenFlags(flags.bits() as i32));
        assert_eq!(flags(OFlags::RDONLY), OPEN_READ);
        assert_eq!(flags(OFlags::WRONLY | OFlags::APPEND), OPEN_WRITE | OPEN_APPEND);
        assert_eq!(flags(OFlags::RDWR | OFlags::TRUNC), OPEN_READ | OPEN_WRITE);
    }

    #[test]
    fn times_out_of_range_are_the_nearest() {
        let at = |time| set_time(Some(TimeOrNow::SpecificTime(time)));
        assert_eq!(at(UNIX_EPOCH + Duration::from_millis(5999)), SetTime::To(5));
        assert_eq!(at(UNIX_EPOCH - Duration::from_secs(5)), SetTime::To(0));
        assert_eq!(at(UNIX_EPOCH + Duration::from_secs(1 << 40)), SetTime::To(u32::MAX));
        assert_eq!(set_time(None), SetTime::Keep);
    }

    #[test]
    fn groups_are_read_from_the_status_of_a_process() {
        assert_eq!(groups("Gid:\t1 2\nGroups:\t3 40 \nNStgid:\t5\n"), [3, 40]);
        assert_eq!(groups("Groups:\t\n"), [0; 0]);
        assert_eq!(groups(""), [0; 0]);
    }
}
