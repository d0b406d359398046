// SPDX-License-Identifier: MIT OR Apache-2.0
//! What root of a container sets up in its own namespaces before it gives up the right to.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::mount::{
    mount_bind, mount_bind_recursive, mount_remount, unmount, MountFlags, UnmountFlags,
};
use rustix::process::{chdir, pivot_root, umask};
use rustix::system::sethostname;

use crate::capability::{self, Capability};
use crate::links;
use crate::rootfs::mounted;
use crate::seccomp::Profile;
use crate::spec::Spec;

/// Flags of file systems that hold no programs.
const INERT: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);

/// Paths that tell of the node, or act on it (the defaults of the OCI's runtimes).
const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Paths that may be read but not written.
const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Makes the namespaces those of the container, whose root is at `root`.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn set_up(spec: &Spec, root: &Path) -> Result<()> {
    sethostname(spec.hostname().as_bytes()).context("naming the host")?;
    links::set_up(spec.network.as_ref())?;
    // A mount that came with the namespace is locked to where it is; a bind of it is not, and can become the root.
    mount_bind_recursive(root, root)
        .with_context(|| format!("binding the root {}", root.display()))?;
    // Before the old root is gone: the kernel allows proc and sysfs only to who sees all of them already.
    pseudo_file_systems(root)?;
    chdir(root).and_then(|()| pivot_root(".", ".")).context("changing the root")?;
    // The old root lies over the new one now.
    unmount(".", UnmountFlags::DETACH).context("leaving the old root")?;
    chdir("/").context("entering the new root")?;
    for path in MASKED {
        mask(Path::new(path))?;
    }
    for path in READ_ONLY {
        read_only(Path::new(path))?;
    }
    umask(rustix::fs::Mode::from_raw_mode(0o022));
    Ok(())
}

fn pseudo_file_systems(root: &Path) -> Result<()> {
    mounted("proc", &root.join("proc"), INERT, "")?;
    mounted("sysfs", &root.join("sys"), INERT | MountFlags::RDONLY, "")?;
    mounted("cgroup2", &root.join("sys/fs/cgroup"), INERT | MountFlags::RDONLY, "")?;
    let terminals = "newinstance,ptmxmode=0666,mode=0620,gid=5";
    mounted("devpts", &root.join("dev/pts"), MountFlags::NOSUID | MountFlags::NOEXEC, terminals)?;
    mounted("tmpfs", &root.join("dev/shm"), INERT, "mode=1777")?;
    mounted("mqueue", &root.join("dev/mqueue"), INERT, "")
}

/// Lays nothing over a path, if it is there.
fn mask(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("looking at {}", path.display())),
        Ok(metadata) if metadata.is_dir() => {
            mounted("tmpfs", path, INERT | MountFlags::RDONLY, "size=4k,nr_inodes=2,mode=0755")
        }
        Ok(_) => {
            mount_bind("/dev/null", path).with_context(|| format!("hiding {}", path.display()))
        }
    }
}

fn read_only(path: &Path) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    mount_bind_recursive(path, path)
        .and_then(|()| mount_remount(path, MountFlags::BIND | MountFlags::RDONLY | INERT, c""))
        .with_context(|| format!("keeping {} from being written", path.display()))
}

/// Gives up, for this process and all that it starts, what the container is not to do. The process keeps the capabilities `own`; what
/// it starts gets no more than the container's.
///
/// # Errors
/// When the kernel refuses or does not show that it is given up.
pub(crate) fn lock_down(spec: &Spec, own: &[Capability]) -> Result<()> {
    capability::bound(&spec.capabilities)?;
    let profile = Profile::new(&spec.seccomp.also_deny)?;
    rustix::thread::set_no_new_privs(true).context("giving up to gain privileges")?;
    capability::keep(own)?;
    let status = || fs::read_to_string("/proc/self/status").context("reading /proc/self/status");
    profile.enter(status)
}
