// SPDX-License-Identifier: MIT OR Apache-2.0
//! The root file system of a container, put together by root of the node in a mount namespace that nobody else sees.
//!
//! The image is mounted with its ids mapped to the container's, so that containers of different ids share one copy of it. Over it
//! is a writable layer on a tmpfs with a limit. What the container writes there counts as its memory, since the kernel charges the
//! pages of a tmpfs to the cgroup of who writes them. Device nodes are made in a tmpfs that belongs to the initial user
//! namespace: in one of the container's own, the kernel would not let them be opened.

use std::ffi::CString;
use std::fs;
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::unix::fs::{symlink, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{ensure, Context, Result};
use composefs_ioctls::mount::mount_setattr_idmap;
use rustix::fs::{chmod, makedev, mknodat, Dev, FileType, Mode, CWD};
use rustix::mount::{
    mount, mount_change, move_mount, open_tree, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags,
};

use crate::fault::{refuse, Kind};
use crate::spec::{Ids, Spec};

/// The devices that every container has: name, major and minor number (Documentation/admin-guide/devices.txt).
const DEVICES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

/// Links in `/dev` that programs expect.
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// A file for each so many bytes of the writable layer, so that files without content are bounded as well.
const BYTES_PER_FILE: u64 = 4096;

/// Where the parts of a root are put together.
#[derive(Clone, Debug)]
pub(crate) struct Stage {
    path: PathBuf,
}

impl Stage {
    pub(crate) fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// The finished root.
    pub(crate) fn root(&self) -> PathBuf {
        self.path.join("root")
    }

    /// Puts the root together from the image at `lower`. `users` is the container's user namespace.
    ///
    /// # Errors
    /// When the kernel refuses, or the image or the container's device is not as it must be.
    pub(crate) fn build(&self, spec: &Spec, lower: &Path, users: &impl AsFd) -> Result<()> {
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
            .context("keeping the container's mounts to itself")?;
        let inert = MountFlags::NOSUID | MountFlags::NODEV;
        let files = spec.limits.writable / BYTES_PER_FILE + 64;
        let size = format!("size={},nr_inodes={files},mode=0755", spec.limits.writable);
        mounted("tmpfs", &self.path, inert, &size)?;
        let parts = ["lower", "upper", "work", "root"].map(|part| self.path.join(part));
        for part in &parts {
            fs::create_dir(part).with_context(|| format!("creating {}", part.display()))?;
        }
        let [image, upper, work, root] = &parts;
        mapped(lower, image, users)?;
        given(upper, spec.ids)?;
        let layers = format!(
            "lowerdir={},upperdir={},workdir={}",
            image.display(),
            upper.display(),
            work.display()
        );
        mounted("overlay", root, inert, &layers)?;
        for name in ["proc", "sys", "dev"] {
            mount_point(&root.join(name), spec.ids)?;
        }
        devices(&root.join("dev"), spec)
    }
}

/// Mounts the tree `from` at `to`, with the ids of its files mapped.
fn mapped(from: &Path, to: &Path, users: &impl AsFd) -> Result<()> {
    let tree =
        open_tree(CWD, from, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)
            .with_context(|| format!("opening the image {}", from.display()))?;
    mount_setattr_idmap(&tree, users)
        .with_context(|| format!("mapping the ids of the image {}", from.display()))?;
    move_mount(tree, "", CWD, to, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .with_context(|| format!("mounting the image at {}", to.display()))
}

/// Mounts a file system that has no device.
pub(crate) fn mounted(kind: &str, at: &Path, flags: MountFlags, options: &str) -> Result<()> {
    let options = CString::new(options).context("mounting: an option has a byte 0")?;
    mount(kind, at, kind, flags, &*options)
        .with_context(|| format!("mounting a {kind} on {}", at.display()))
}

/// Sees to it that there is a directory. A link would lead what is mounted there, and whoever looks for it, somewhere else.
fn mount_point(path: &Path, ids: Ids) -> Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => {
            ensure!(
                metadata.is_dir(),
                "mounting on {}: the image has something there that is no directory",
                path.display()
            );
            Ok(())
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            fs::create_dir(path).with_context(|| format!("creating {}", path.display()))?;
            given(path, ids)
        }
        Err(error) => Err(error).with_context(|| format!("looking at {}", path.display())),
    }
}

/// Gives a file to the root of the container.
fn given(path: &Path, ids: Ids) -> Result<()> {
    std::os::unix::fs::lchown(path, Some(ids.first), Some(ids.first))
        .with_context(|| format!("giving {} to the container", path.display()))
}

/// Fills `/dev`.
fn devices(at: &Path, spec: &Spec) -> Result<()> {
    let ids = spec.ids;
    let options = format!("size=64k,nr_inodes=64,mode=0755,uid={0},gid={0}", ids.first);
    mounted("tmpfs", at, MountFlags::NOSUID | MountFlags::NOEXEC, &options)?;
    for (name, major, minor) in DEVICES {
        device(&at.join(name), makedev(major, minor), ids)?;
    }
    device(&at.join("dvk"), dvk(spec.dvk)?, ids)?;
    for (name, target) in LINKS {
        let path = at.join(name);
        symlink(target, &path).with_context(|| format!("linking {}", path.display()))?;
        given(&path, ids)?;
    }
    for (name, mode) in [("pts", 0o755), ("shm", 0o1777), ("mqueue", 0o1777)] {
        let path = at.join(name);
        fs::create_dir(&path).with_context(|| format!("creating {}", path.display()))?;
        chmod(&path, Mode::from_raw_mode(mode))
            .with_context(|| format!("changing the mode of {}", path.display()))?;
        given(&path, ids)?;
    }
    Ok(())
}

fn device(path: &Path, number: Dev, ids: Ids) -> Result<()> {
    // Whoever is in the container may use what the container has.
    let mode = Mode::from_raw_mode(0o666);
    mknodat(CWD, path, FileType::CharacterDevice, mode, number)
        .and_then(|()| chmod(path, mode))
        .with_context(|| format!("making the device {}", path.display()))?;
    given(path, ids)
}

/// The number of the device of a Distributed Container.
pub(crate) fn dvk(container: u32) -> Result<Dev> {
    let path = format!("/dev/dvk-dc{container}");
    let metadata = match fs::metadata(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return refuse(
                Kind::NotFound,
                format!("looking for {path}: the Distributed Container {container} is not declared on this node"),
            );
        }
        other => other.with_context(|| format!("looking for {path}"))?,
    };
    ensure!(
        metadata.file_type().is_char_device(),
        "giving {path} to the container: it is no device"
    );
    Ok(metadata.rdev())
}
