// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kernel's file systems and the temporary ones.

use std::ffi::CStr;
use std::path::PathBuf;
use std::{fs, io};

use rustix::io::Errno;
use rustix::mount::{mount, unmount, MountFlags, UnmountFlags};

use crate::fault::Fault;

struct Mount {
    kind: &'static str,
    target: &'static str,
    flags: MountFlags,
    options: &'static CStr,
    /// Left out silently when the kernel lacks it.
    optional: bool,
}

const PLAIN: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);
const INERT: MountFlags = PLAIN.union(MountFlags::NOEXEC);

/// In mount order.
#[rustfmt::skip]
const MOUNTS: [Mount; 13] = [
    Mount { kind: "proc", target: "/proc", flags: INERT, options: c"", optional: false },
    Mount { kind: "sysfs", target: "/sys", flags: INERT, options: c"", optional: false },
    Mount { kind: "devtmpfs", target: "/dev", flags: MountFlags::NOSUID.union(MountFlags::NOEXEC), options: c"mode=0755", optional: false },
    Mount { kind: "devpts", target: "/dev/pts", flags: MountFlags::NOSUID.union(MountFlags::NOEXEC), options: c"mode=0620,ptmxmode=0666", optional: true },
    Mount { kind: "tmpfs", target: "/dev/shm", flags: INERT, options: c"mode=1777", optional: false },
    Mount { kind: "tmpfs", target: "/run", flags: PLAIN, options: c"mode=0755", optional: false },
    Mount { kind: "tmpfs", target: "/tmp", flags: PLAIN, options: c"mode=1777", optional: false },
    Mount { kind: "cgroup2", target: "/sys/fs/cgroup", flags: INERT, options: c"nsdelegate", optional: true },
    Mount { kind: "debugfs", target: "/sys/kernel/debug", flags: INERT, options: c"mode=0700", optional: true },
    Mount { kind: "tracefs", target: "/sys/kernel/tracing", flags: INERT, options: c"mode=0700", optional: true },
    Mount { kind: "securityfs", target: "/sys/kernel/security", flags: INERT, options: c"", optional: true },
    Mount { kind: "efivarfs", target: "/sys/firmware/efi/efivars", flags: INERT, options: c"", optional: true },
    Mount { kind: "configfs", target: "/sys/kernel/config", flags: INERT, options: c"", optional: true },
];

/// Mounts the devices, which are needed to mount the root.
pub(crate) fn mount_devices() -> Result<(), Fault> {
    MOUNTS.iter().filter(|entry| entry.kind == "devtmpfs").try_for_each(mount_one)
}

/// Mounts everything; returns what failed.
pub(crate) fn mount_all() -> Vec<Fault> {
    MOUNTS.iter().filter_map(|entry| mount_one(entry).err()).collect()
}

fn mount_one(entry: &Mount) -> Result<(), Fault> {
    let Mount { kind, target, flags, options, optional } = entry;
    // sysfs has the mount points of what the kernel can mount there, and takes no others.
    if let Err(error) = fs::create_dir(target) {
        if error.kind() != io::ErrorKind::AlreadyExists {
            if *optional {
                return Ok(());
            }
            return Err(Fault::when(format!("make the folder {target}"))(error));
        }
    }
    match mount(*kind, *target, *kind, *flags, *options) {
        // Busy: it is mounted already, as the devices are.
        Ok(()) | Err(Errno::BUSY) => Ok(()),
        Err(Errno::NODEV | Errno::NOENT) if *optional => Ok(()),
        Err(error) => Err(Fault::when(format!("mount {kind} on {target}"))(error)),
    }
}

/// Unmounts what holds data; returns what failed. What the kernel makes up stays: nothing in it is
/// to be written, and the last messages need `/dev` and `/proc`.
pub(crate) fn unmount_all() -> Vec<Fault> {
    let mounts = match fs::read_to_string("/proc/self/mounts") {
        Ok(mounts) => mounts,
        Err(error) => return vec![Fault::when("read /proc/self/mounts")(error)],
    };
    to_unmount(&mounts)
        .into_iter()
        .filter_map(|target| {
            let attempt = format!("unmount {}", target.display());
            unmount(&target, UnmountFlags::empty()).map_err(Fault::when(attempt)).err()
        })
        .collect()
}

/// The mount points to unmount, the last mounted first, from the text of `/proc/self/mounts`.
fn to_unmount(mounts: &str) -> Vec<PathBuf> {
    let ours = |target: &str| MOUNTS.iter().any(|mount| mount.target == target) || target == "/";
    let mut targets: Vec<_> = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .filter(|target| !ours(target))
        .map(|target| PathBuf::from(unescape(target)))
        .collect();
    targets.reverse();
    targets
}

/// Blanks and backslashes of a path stand as three octal digits in `/proc/self/mounts`.
fn unescape(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        plain += before;
        let code = after.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                plain.push(char::from(code));
                rest = &after[3..];
            }
            None => {
                plain.push('\\');
                rest = after;
            }
        }
    }
    plain + rest
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::to_unmount;

    #[test]
    fn data_is_unmounted_in_reverse_order() {
        let mounts = "rootfs / rootfs rw 0 0\nproc /proc proc rw 0 0\n\
            /dev/vda1 /data\\040disk ext4 rw 0 0\nnone /data\\040disk/in tmpfs rw 0 0\n\
            tmpfs /run tmpfs rw 0 0\n";
        assert_eq!(to_unmount(mounts), [Path::new("/data disk/in"), Path::new("/data disk")]);
    }
}
