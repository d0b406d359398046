// SPDX-License-Identifier: MIT OR Apache-2.0
//! What systemd's boot loader has told of itself, in variables of UEFI.

use std::fs;
use std::path::{Path, PathBuf};

pub use dvs_slots::loader::VARIABLES;
use dvs_slots::loader::{COUNTED, PARTITION, SELECTED};
use dvs_slots::slots::Image;

/// Where Linux lists block devices.
pub const BLOCK: &str = "/sys/class/block";

/// What a machine has booted from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    /// The image, under the name that it had when it was started.
    pub image: Image,
    /// Identifier of the partition that it is on, in lower case.
    pub partition: String,
}

/// What the loader has started; `None` where no disk with slots was booted from.
pub fn started(variables: &Path) -> Option<Started> {
    // The first is only there for an image that is being tried.
    let path = text(variables, COUNTED).or_else(|| text(variables, SELECTED))?;
    let name = path.rsplit('\\').next()?;
    let partition = text(variables, PARTITION)?.to_ascii_lowercase();
    Some(Started { image: Image::of_name(name)?, partition })
}

/// A text among the variables: UTF-16 with a 0 at its end, behind four bytes of attributes.
fn text(variables: &Path, name: &str) -> Option<String> {
    let bytes = fs::read(variables.join(name)).ok()?;
    let pairs = bytes.get(4..)?.chunks_exact(2);
    let units: Vec<u16> = pairs.map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
    let text = String::from_utf16(&units).ok()?;
    Some(text.trim_end_matches('\0').to_owned())
}

/// The names of the devices that are this partition. More than one are where two disks are copies of each other.
pub fn devices(block: &Path, partition: &str) -> Vec<String> {
    let entries = fs::read_dir(block).into_iter().flatten().filter_map(Result::ok);
    let is_it = |line: &str| {
        line.strip_prefix("PARTUUID=").is_some_and(|own| own.eq_ignore_ascii_case(partition))
    };
    let mut found: Vec<_> = entries
        .filter(|entry| {
            let uevent = fs::read_to_string(entry.path().join("uevent")).unwrap_or_default();
            let found = uevent.lines().any(is_it);
            found
        })
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    found.sort();
    found
}

/// The path of a device of this name.
pub fn device(name: &str) -> PathBuf {
    Path::new("/dev").join(name)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn set(folder: &Path, name: &str, text: &str) {
        let mut bytes = vec![6, 0, 0, 0];
        bytes.extend(text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes));
        fs::write(folder.join(name), bytes).unwrap();
    }

    #[test]
    fn the_loader_tells_what_it_has_started() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        assert_eq!(started(folder), None);
        set(folder, PARTITION, "D7B1A5C4-0D15-4E0D-8F4E-647673010001");
        assert_eq!(started(folder), None);
        set(folder, SELECTED, "dvs-2.efi");
        let found = started(folder).unwrap();
        assert_eq!(found.image.to_string(), "dvs-2.efi");
        assert_eq!(found.partition, "d7b1a5c4-0d15-4e0d-8f4e-647673010001");
        set(folder, COUNTED, "\\EFI\\Linux\\dvs-3+0-3.efi");
        assert_eq!(started(folder).unwrap().image.to_string(), "dvs-3+0-3.efi");
        set(folder, COUNTED, "\\EFI\\Linux\\other.efi");
        assert_eq!(started(folder), None);
        fs::write(folder.join(COUNTED), [6, 0]).unwrap();
        assert_eq!(started(folder).unwrap().image.to_string(), "dvs-2.efi");
    }

    #[test]
    fn a_partition_is_found_by_its_identifier() {
        let folder = tempfile::tempdir().unwrap();
        let add = |name: &str, uevent: &str| {
            fs::create_dir(folder.path().join(name)).unwrap();
            fs::write(folder.path().join(name).join("uevent"), uevent).unwrap();
        };
        add("vda", "DEVNAME=vda\nDEVTYPE=disk\n");
        add("vda1", "DEVNAME=vda1\nPARTN=1\nPARTUUID=AB-cd\n");
        add("vda2", "PARTUUID=ab-ce\n");
        assert_eq!(devices(folder.path(), "ab-cd"), ["vda1"]);
        add("vdb1", "PARTUUID=ab-cd\n");
        assert_eq!(devices(folder.path(), "ab-cd").len(), 2);
        assert_eq!(devices(folder.path(), "none").len(), 0);
    }
}
