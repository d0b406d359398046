// SPDX-License-Identifier: MIT OR Apache-2.0
//! The machine configuration on a volume: the one that the machine boots from, or one that somebody has plugged in for that.
//!
//! Disks show up when their drivers have found them, so this has to wait; it does so only where the kernel's command line says that
//! there may be one, as that of the images for CDs and disks does.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use dvs_config::Source;
use dvs_image::volume::{label, BOOT_LABEL, CONFIG_LABEL};
use rustix::io::Errno;
use rustix::mount::{mount, unmount, MountFlags, UnmountFlags};

use crate::fault::Fault;

/// The kernel argument that says for how many seconds to look for a volume.
const ARGUMENT: &str = "dvs_volume=";
/// The longest that anybody waits.
const PATIENCE_MAX: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(100);
/// Where a volume is mounted while it is read.
const MOUNT_POINT: &str = "/run/dvs/volume";
const SECTOR: usize = 512;

/// For how long the command line says to look for a volume; `None`: not at all.
pub(crate) fn patience(command_line: &str) -> Option<Duration> {
    let values =
        command_line.split_ascii_whitespace().filter_map(|word| word.strip_prefix(ARGUMENT));
    let seconds = values.last()?.parse().ok()?;
    Some(Duration::from_secs(seconds).min(PATIENCE_MAX))
}

/// Looks until there is a volume with a configuration, or patience is over. Returns the device and the configuration, of at most
/// `limit` bytes. Does `meanwhile` before each device: one that fails may take its time.
///
/// # Errors
/// When a volume has one that cannot be read: going on without it would make this another machine than it is meant to be.
pub(crate) fn find(
    patience: Duration,
    limit: u64,
    meanwhile: &mut dyn FnMut(),
) -> Result<Option<(PathBuf, String)>, Fault> {
    let deadline = Instant::now() + patience;
    loop {
        meanwhile();
        for device in candidates(Path::new("/sys/class/block"), Path::new("/dev"), meanwhile) {
            meanwhile();
            let attempt =
                format!("read {} on the volume {}", Source::VOLUME_FILE, device.display());
            if let Some(text) = read(&device, limit).map_err(Fault::when(attempt))? {
                return Ok(Some((device, text)));
            }
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        thread::sleep(POLL);
    }
}

/// The block devices listed in `list`, found in `devices`, that are volumes of ours: first those that are there for a configuration.
fn candidates(list: &Path, devices: &Path, meanwhile: &mut dyn FnMut()) -> Vec<PathBuf> {
    let entries = fs::read_dir(list).into_iter().flatten().filter_map(Result::ok);
    let mut found: Vec<_> = entries
        .filter_map(|entry| {
            meanwhile();
            let device = devices.join(entry.file_name());
            // Loop devices, and drives without a medium, cannot be read.
            let mut sector = [0; SECTOR];
            File::open(&device).and_then(|mut file| file.read_exact(&mut sector)).ok()?;
            let label = label(&sector)?;
            let rank = [CONFIG_LABEL, BOOT_LABEL].iter().position(|ours| label == *ours)?;
            Some((rank, device))
        })
        .collect();
    found.sort();
    found.into_iter().map(|(_, device)| device).collect()
}

/// The configuration on a volume, if there is one.
fn read(device: &Path, limit: u64) -> io::Result<Option<String>> {
    let point = Path::new(MOUNT_POINT);
    match fs::create_dir(point) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let inert = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    match mount(device, point, "vfat", inert | MountFlags::RDONLY, c"") {
        // It was pulled out, or is no volume after all.
        Err(Errno::NODEV | Errno::NXIO | Errno::INVAL | Errno::NOMEDIUM) => return Ok(None),
        mounted => mounted?,
    }
    let text = read_in(point, limit);
    unmount(point, UnmountFlags::empty())?;
    text
}

/// The configuration in the folder of a volume. A power cut while it was replaced has left the next one at least.
fn read_in(folder: &Path, limit: u64) -> io::Result<Option<String>> {
    for name in [Source::VOLUME_FILE, Source::NEXT_FILE] {
        match File::open(folder.join(name)) {
            Ok(file) => return crate::sources::read_limited(file, limit).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_says_how_long_to_look() {
        assert_eq!(patience("quiet console=ttyS0"), None);
        assert_eq!(patience("quiet dvs_volume=5 x"), Some(Duration::from_secs(5)));
        assert_eq!(patience("dvs_volume=5 dvs_volume=0"), Some(Duration::ZERO));
        assert_eq!(patience("dvs_volume=9999"), Some(PATIENCE_MAX));
        assert_eq!(patience("dvs_volume=soon"), None);
    }

    #[test]
    fn the_next_configuration_counts_where_a_power_cut_has_left_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let read = || read_in(folder.path(), 100).unwrap();
        assert_eq!(read(), None);
        fs::write(folder.path().join(Source::NEXT_FILE), "next").unwrap();
        assert_eq!(read().as_deref(), Some("next"));
        fs::write(folder.path().join(Source::VOLUME_FILE), "now").unwrap();
        assert_eq!(read().as_deref(), Some("now"));
    }

    #[test]
    fn volumes_of_ours_are_found_those_for_a_configuration_first() {
        let folder = tempfile::tempdir().unwrap();
        let (list, devices) = (folder.path().join("list"), folder.path().join("devices"));
        fs::create_dir(&list).unwrap();
        fs::create_dir(&devices).unwrap();
        let volume = |label: &[u8; 11]| {
            let mut sector = vec![0; SECTOR];
            sector[43..54].copy_from_slice(label);
            sector[54..62].copy_from_slice(b"FAT16   ");
            (sector[510], sector[511]) = (0x55, 0xaa);
            sector
        };
        let contents = [
            ("vda", vec![0; SECTOR]),
            ("vda1", volume(b"DVS-BOOT   ")),
            ("vdb", volume(b"DVS-CONFIG ")),
            ("vdc", volume(b"HOLIDAY    ")),
            ("loop0", Vec::new()),
        ];
        for (name, content) in contents {
            fs::write(list.join(name), "").unwrap();
            fs::write(devices.join(name), content).unwrap();
        }
        fs::write(list.join("sr0"), "").unwrap();
        let expected = ["vdb", "vda1"].map(|name| devices.join(name));
        assert_eq!(candidates(&list, &devices, &mut || {}), expected);
        assert_eq!(
            candidates(&folder.path().join("none"), &devices, &mut || {}),
            [""; 0].map(PathBuf::from)
        );
    }
}
