// SPDX-License-Identifier: MIT OR Apache-2.0
//! CDs and sticks that boot a node: the image that is on them.
//!
//! Nothing tells from which of them a machine has booted, nor whether it has. Whoever wants the image that runs compares releases.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use dvs_image::cd;
use rustix::mount::{mount, unmount, MountFlags, UnmountFlags};

use crate::volume::Error;

/// A medium is read, and nothing on it means anything to Linux.
const INERT: MountFlags =
    MountFlags::RDONLY.union(MountFlags::NOSUID).union(MountFlags::NODEV).union(MountFlags::NOEXEC);

/// The devices, among those listed in `block` and found in `devices`, that are such a medium. A stick is one as a whole; its partitions are
/// none.
pub fn found(block: &Path, devices: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(block).into_iter().flatten().filter_map(Result::ok);
    let is_one = |device: &PathBuf| {
        let mut head = vec![0; cd::HEAD];
        // Drives without a medium cannot be read.
        let read = File::open(device).and_then(|mut file| file.read_exact(&mut head));
        read.is_ok() && cd::label(&head).as_deref() == Some(cd::LABEL)
    };
    let mut found: Vec<_> =
        entries.map(|entry| devices.join(entry.file_name())).filter(is_one).collect();
    found.sort();
    found
}

/// Does something with the unified kernel image on a medium, which is mounted at `point` as long.
///
/// # Errors
/// When the medium cannot be mounted, or has no image.
pub fn with_image<T>(
    device: &Path,
    point: &Path,
    act: impl FnOnce(File) -> Result<T, Error>,
) -> Result<T, Error> {
    let attempt = || Error::when(format!("mount {}", device.display()));
    fs::create_dir_all(point).map_err(attempt())?;
    mount(device, point, "iso9660", INERT, c"").map_err(|errno| attempt()(errno.into()))?;
    let _mounted = Mounted(point);
    let open = File::open(point.join(cd::PROGRAM));
    let file =
        open.map_err(Error::when(format!("open {} on {}", cd::PROGRAM, device.display())))?;
    act(file)
}

struct Mounted<'a>(&'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        if let Err(error) = unmount(self.0, UnmountFlags::empty()) {
            println!("error: unmount {}: {error}", self.0.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_are_known_by_their_label() {
        let folder = tempfile::tempdir().unwrap();
        let (block, devices) = (folder.path().join("block"), folder.path().join("devices"));
        for folder in [&block, &devices] {
            fs::create_dir(folder).unwrap();
        }
        let with_label = |label: &[u8]| {
            let mut head = vec![0; cd::HEAD];
            let at = 16 * cd::SECTOR;
            head[at..at + 6].copy_from_slice(b"\x01CD001");
            head[at + 40..at + 72].fill(b' ');
            head[at + 40..at + 40 + label.len()].copy_from_slice(label);
            head
        };
        let contents = [
            ("sr0", with_label(b"DVS")),
            ("sdb", with_label(b"DVS")),
            ("sda", with_label(b"DVSX")),
            ("vda", vec![0; cd::HEAD]),
            ("loop0", Vec::new()),
        ];
        for (name, content) in contents {
            fs::write(block.join(name), "").unwrap();
            fs::write(devices.join(name), content).unwrap();
        }
        fs::write(block.join("sr1"), "").unwrap();
        assert_eq!(found(&block, &devices), ["sdb", "sr0"].map(|name| devices.join(name)));
        assert!(found(&folder.path().join("none"), &devices).is_empty());
    }

    #[test]
    fn what_cannot_be_mounted_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let device = folder.path().join("none");
        let error = with_image(&device, &folder.path().join("point"), |_| Ok(())).unwrap_err();
        assert!(error.to_string().starts_with(&format!("mount {}: ", device.display())), "{error}");
    }
}
