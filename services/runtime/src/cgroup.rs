// SPDX-License-Identifier: MIT OR Apache-2.0
//! The cgroup of a container. All of its processes are in this one group, under a parent that exists as long as it has children.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use rustix::event::{poll, PollFd, PollFlags, Timespec};

use crate::limits::{Limits, Setting};

/// Where cgroup v2 is mounted on a node.
const MOUNT: &str = "/sys/fs/cgroup";

/// The parent of the groups of all containers.
const PARENT: &str = "/sys/fs/cgroup/dvs";

/// What the limits need of the kernel.
const CONTROLLERS: [&str; 5] = ["cpu", "cpuset", "io", "memory", "pids"];

/// The group of a container, which may not exist.
#[derive(Clone, Debug)]
pub(crate) struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// The group of the container `name`.
    pub(crate) fn of(name: &str) -> Self {
        Self { path: Path::new(PARENT).join(name) }
    }

    /// Makes the group with these limits. The caller holds the lock of the [`crate::place`].
    ///
    /// # Errors
    /// When it exists, or the kernel lacks or refuses something.
    pub(crate) fn create(&self, limits: &Limits) -> Result<()> {
        match fs::create_dir(PARENT) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| format!("creating the cgroup {PARENT}"));
            }
            _ => {}
        }
        delegate(Path::new(MOUNT))?;
        delegate(Path::new(PARENT))?;
        fs::create_dir(&self.path)
            .with_context(|| format!("creating the cgroup {}", self.path.display()))?;
        self.limit(&limits.settings())
    }

    /// Writes limits down where the kernel takes them.
    ///
    /// # Errors
    /// When the kernel lacks or refuses something.
    pub(crate) fn limit(&self, settings: &[Setting]) -> Result<()> {
        for setting in settings {
            let path = self.path.join(setting.file);
            if setting.void_without && !path.exists() {
                continue;
            }
            ensure!(
                path.exists(),
                "limiting the container by {}: this kernel has no such limit; leave it out, or build the kernel with it",
                setting.file
            );
            fs::write(&path, &setting.value)
                .with_context(|| format!("writing {:?} into {}", setting.value, path.display()))?;
        }
        Ok(())
    }

    /// Moves this process, which must have one thread, into the group.
    ///
    /// # Errors
    /// When the group does not exist.
    pub(crate) fn enter(&self) -> Result<()> {
        let path = self.path.join("cgroup.procs");
        fs::write(&path, "0").with_context(|| format!("entering by {}", path.display()))
    }

    /// Kills every process in it, without a chance to fork away from it.
    ///
    /// # Errors
    /// When the group does not exist.
    pub(crate) fn kill(&self) -> Result<()> {
        self.write("cgroup.kill", "1")
    }

    /// Stops every process in it, or lets them go on.
    ///
    /// # Errors
    /// When the group does not exist.
    pub(crate) fn freeze(&self, frozen: bool) -> Result<()> {
        self.write("cgroup.freeze", if frozen { "1" } else { "0" })
    }

    fn write(&self, file: &str, value: &str) -> Result<()> {
        let path = self.path.join(file);
        fs::write(&path, value).with_context(|| format!("writing {value} into {}", path.display()))
    }

    /// The text of a file of the group, or none if the kernel has no such file.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn read(&self, file: &str) -> Result<Option<String>> {
        let path = self.path.join(file);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
        }
    }

    /// Waits until no process is left in it.
    ///
    /// # Errors
    /// When there is one after `limit`.
    pub(crate) fn await_empty(&self, limit: Duration) -> Result<()> {
        let path = self.path.join("cgroup.events");
        let file = match fs::File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error).with_context(|| format!("opening {}", path.display())),
        };
        let deadline = Instant::now() + limit;
        loop {
            let text = self.read("cgroup.events")?.unwrap_or_default();
            if !is_populated(&text) {
                return Ok(());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!(
                    "waiting for the processes in {} to end: some are left after {} s",
                    self.path.display(),
                    limit.as_secs()
                );
            }
            let left = Timespec::try_from(left).context("waiting for a cgroup to be empty")?;
            // The kernel says by an exceptional condition that the file has changed since it was read through this descriptor.
            let mut seen = [0; 256];
            rustix::io::pread(&file, &mut seen, 0).context("reading cgroup.events")?;
            if !is_populated(&String::from_utf8_lossy(&seen)) {
                return Ok(());
            }
            let mut descriptors = [PollFd::new(&file, PollFlags::PRI)];
            match poll(&mut descriptors, Some(&left)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error).context("waiting for a cgroup to be empty"),
            }
        }
    }

    /// Removes the group, and its parent if it was the last. The caller holds the lock of the [`crate::place`].
    ///
    /// # Errors
    /// When there are processes in it.
    pub(crate) fn remove(&self) -> Result<()> {
        match fs::remove_dir(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error)
                    .with_context(|| format!("removing the cgroup {}", self.path.display()));
            }
            _ => {}
        }
        match fs::remove_dir(PARENT) {
            Ok(()) => Ok(()),
            // Another container's group is in it.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty | ErrorKind::ResourceBusy
                ) =>
            {
                Ok(())
            }
            Err(error) => Err(error).with_context(|| format!("removing the cgroup {PARENT}")),
        }
    }
}

/// Lets the children of a group have limits.
fn delegate(group: &Path) -> Result<()> {
    let available = group.join("cgroup.controllers");
    let available = fs::read_to_string(&available)
        .with_context(|| format!("reading {}: is cgroup v2 mounted?", available.display()))?;
    for controller in CONTROLLERS {
        ensure!(
            available.split_whitespace().any(|known| known == controller),
            "limiting containers: {} has no controller {controller}; build the kernel with it",
            group.display()
        );
    }
    let path = group.join("cgroup.subtree_control");
    let wanted = CONTROLLERS.map(|controller| format!("+{controller}")).join(" ");
    fs::write(&path, wanted).with_context(|| format!("writing {}", path.display()))
}

fn is_populated(events: &str) -> bool {
    events.lines().any(|line| line == "populated 1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_populated_if_its_events_say_so() {
        assert!(is_populated("populated 1\nfrozen 0\n"));
        assert!(!is_populated("populated 0\nfrozen 1\n"));
    }
}
