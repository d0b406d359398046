// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether an image has the drivers of what this machine has: one that it lacks is found before the machine restarts, not after.
//!
//! Nodes load no modules. Of an image, its `.osrel` section tells which drivers are built into its kernel; of this machine, sysfs tells which
//! drivers its network adapters and disks are used by, and the controllers that these are behind.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use dvs_image::uki;

/// The field of an image's `.osrel` section.
const FIELD: &str = "DVS_DRIVERS=";
/// Where sysfs lists network interfaces and disks.
const CLASSES: [&str; 2] = ["class/net", "block"];
/// Buses whose drivers have the names of modules. The first is where the way up from a device ends: bridges need no driver to work.
const BUSES: [&str; 3] = ["pci", "virtio", "usb"];
/// What drives whole USB devices and hubs; part of the bus.
const OF_THE_BUS: [&str; 2] = ["usb", "hub"];

/// The drivers in use, each with a device that needs it.
pub(super) fn in_use(sys: &Path) -> BTreeMap<String, String> {
    let mut drivers = BTreeMap::new();
    for class in CLASSES {
        let Ok(devices) = fs::read_dir(sys.join(class)) else { continue };
        for device in devices.flatten() {
            let name = device.file_name().to_string_lossy().into_owned();
            // What software has made has no device.
            let Ok(at) = device.path().join("device").canonicalize() else { continue };
            for driver in up_from(&at) {
                drivers.entry(driver).or_insert_with(|| name.clone());
            }
        }
    }
    drivers
}

/// The drivers of a device and of those that it is behind.
fn up_from(device: &Path) -> Vec<String> {
    let mut drivers = Vec::new();
    for at in device.ancestors() {
        let Some(bus) = target(&at.join("subsystem")) else { continue };
        if !BUSES.contains(&bus.as_str()) {
            continue;
        }
        let driver = target(&at.join("driver")).filter(|name| !OF_THE_BUS.contains(&&**name));
        // Several drivers can be of one module; where the kernel does not say of which, they have its name.
        drivers.extend(driver.map(|name| target(&at.join("driver/module")).unwrap_or(name)));
        if bus == BUSES[0] {
            break;
        }
    }
    drivers.iter().map(|name| plain(name)).collect()
}

/// The last part of where a link leads.
fn target(link: &Path) -> Option<String> {
    let target = fs::read_link(link).ok()?;
    Some(target.file_name()?.to_string_lossy().into_owned())
}

/// Names of modules are told with either.
fn plain(name: &str) -> String {
    name.replace('-', "_")
}

/// Says which of the drivers `in_use` a unified kernel image lacks. One that does not tell what it has is believed to have them.
pub(super) fn missing(image: &[u8], in_use: &BTreeMap<String, String>) -> Option<String> {
    let release = uki::section(image, ".osrel").ok().flatten()?;
    let release = String::from_utf8_lossy(release);
    let field = release.lines().find_map(|line| line.strip_prefix(FIELD))?;
    let has: BTreeSet<_> = field.trim_matches('"').split(' ').map(plain).collect();
    let lacks = in_use.iter().filter(|(driver, _)| !has.contains(*driver));
    let lacks: Vec<_> =
        lacks.map(|(driver, device)| format!("{driver}, which {device} needs")).collect();
    (!lacks.is_empty())
        .then(|| format!("the image lacks drivers of this machine: {}", lacks.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dvs_image::uki::Section;
    use std::os::unix::fs::symlink;

    /// A sysfs with a device at each path: bus, driver, module.
    fn sysfs(
        devices: &[(&str, &str, &str, Option<&str>)],
        links: &[(&str, &str)],
    ) -> tempfile::TempDir {
        let sys = tempfile::tempdir().unwrap();
        let at = |path: &str| sys.path().join(path);
        for (path, bus, driver, module) in devices {
            let device = at("devices").join(path);
            let known = at("bus").join(bus).join("drivers").join(driver);
            fs::create_dir_all(&device).unwrap();
            fs::create_dir_all(&known).unwrap();
            symlink(at("bus").join(bus), device.join("subsystem")).unwrap();
            symlink(&known, device.join("driver")).unwrap();
            if let Some(module) = module.filter(|_| !known.join("module").exists()) {
                fs::create_dir_all(at("module").join(module)).unwrap();
                symlink(at("module").join(module), known.join("module")).unwrap();
            }
        }
        for (link, device) in links {
            fs::create_dir_all(at(link)).unwrap();
            symlink(at("devices").join(device), at(link).join("device")).unwrap();
        }
        fs::create_dir_all(at("class/net/lo")).unwrap();
        sys
    }

    fn machine() -> tempfile::TempDir {
        sysfs(
            &[
                ("pci0/1c.0", "pci", "pcieport", None),
                ("pci0/1c.0/02.0", "pci", "e1000e", Some("e1000e")),
                ("pci0/03.0", "pci", "virtio-pci", Some("virtio_pci")),
                ("pci0/03.0/virtio0", "virtio", "virtio_blk", None),
                ("pci0/14.0", "pci", "xhci_hcd", Some("xhci_pci")),
                ("pci0/14.0/usb1", "usb", "usb", None),
                ("pci0/14.0/usb1/1-1", "usb", "usb", None),
                ("pci0/14.0/usb1/1-1/1-1:1.0", "usb", "usb-storage", Some("usb_storage")),
                ("pci0/14.0/usb1/1-1/1-1:1.0/host0/0:0:0:0", "scsi", "sd", None),
            ],
            &[
                ("class/net/eth0", "pci0/1c.0/02.0"),
                ("block/vda", "pci0/03.0/virtio0"),
                ("block/sda", "pci0/14.0/usb1/1-1/1-1:1.0/host0/0:0:0:0"),
            ],
        )
    }

    fn image(release: &str) -> Vec<u8> {
        let sections = [Section { name: ".osrel", content: release.as_bytes() }];
        uki::build(&uki::sample_stub(), &sections).unwrap()
    }

    #[test]
    fn adapters_disks_and_their_controllers_have_drivers() {
        let sys = machine();
        let found = in_use(sys.path());
        let found: Vec<_> = found.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        assert_eq!(
            found,
            [
                ("e1000e", "eth0"),
                ("usb_storage", "sda"),
                ("virtio_blk", "vda"),
                ("virtio_pci", "vda"),
                ("xhci_pci", "sda"),
            ]
        );
    }

    #[test]
    fn an_image_that_lacks_one_is_told_with_the_device() {
        let sys = machine();
        let used = in_use(sys.path());
        let has =
            |drivers: &str| missing(&image(&format!("ID=dvs\nDVS_DRIVERS=\"{drivers}\"\n")), &used);
        assert_eq!(has("e1000e usb-storage virtio_blk virtio_pci xhci-pci nvme"), None);
        assert_eq!(
            has("usb_storage virtio_blk virtio_pci xhci_pci").as_deref(),
            Some("the image lacks drivers of this machine: e1000e, which eth0 needs")
        );
        // An image of before has no list.
        assert_eq!(missing(&image("ID=dvs\n"), &used), None);
    }

    #[test]
    fn this_machine_can_be_asked() {
        for driver in in_use(Path::new("/sys")).keys() {
            assert!(!driver.is_empty() && !driver.contains(['/', '-']), "{driver}");
        }
    }
}
