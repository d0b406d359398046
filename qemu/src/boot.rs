// SPDX-License-Identifier: MIT OR Apache-2.0
//! What machines boot from: memory that QEMU has filled, a CD, a disk or the network.

use std::fs::File;
use std::io::Cursor;
use std::net::Ipv4Addr;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use dvs_config::{InterfaceSelector, Mac, Netboot, Source};
use dvs_image::disk::{self, Part};
use dvs_image::volume;
use dvs_netboot::files::{script, Content, Files, COMMAND_LINE, INITRAMFS, LINUX, SCRIPT, UNIFIED};
use dvs_netboot::offer::Pool;
use dvs_netboot::station::Station;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// How the nodes of a cluster boot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Boot {
    /// QEMU puts the kernel and its initial RAM file system into memory.
    #[default]
    Direct,
    /// All from this image of a CD.
    Cd(PathBuf),
    /// Each from its own copy of this image of a disk. The machine configuration is a file on it, as it is on a machine that is no
    /// virtual one.
    Disk(PathBuf),
    /// All over the first segment, on which a boot server has the files of this folder: those of [`dvs_netboot::files`].
    Network(PathBuf),
    /// Node 0 from this image of a CD, and the others over the first segment from node 0, which serves what it runs itself.
    Seed(PathBuf),
}

/// The boot server: an address that no machine has, in a network that is used for booting and nothing else.
const SERVER_MAC: Mac = Mac([0x52, 0x54, 2, 0xd5, 0, 0]);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 213, 0, 1);
const POOL: Pool =
    Pool { first: Ipv4Addr::new(10, 213, 0, 2), count: 1024, mask: Ipv4Addr::new(255, 255, 0, 0) };

/// UEFI firmware for QEMU. Machines without have a BIOS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Firmware {
    /// Its program.
    pub code: PathBuf,
    /// The variables that it starts with. A machine forgets those that it sets as its power goes off.
    pub variables: PathBuf,
}

impl Boot {
    /// The file that must be there.
    pub(crate) fn image(&self) -> Option<&Path> {
        match self {
            Boot::Direct => None,
            Boot::Cd(image) | Boot::Disk(image) | Boot::Network(image) | Boot::Seed(image) => {
                Some(image)
            }
        }
    }

    /// What the configuration of node `number` says of booting others, whose interface on the first segment has the address `mac`.
    pub(crate) fn netboot(&self, number: usize, mac: Mac) -> Option<Netboot> {
        let seeds = matches!(self, Boot::Seed(_)) && number == 0;
        seeds.then(|| {
            let Pool { first, count, mask } = POOL;
            let last = Ipv4Addr::from_bits(first.to_bits() + count - 1);
            let own = format!("{SERVER}/{}", mask.to_bits().leading_ones());
            Netboot {
                interface: InterfaceSelector::Mac(mac),
                address: own.parse().ok(),
                addresses: format!("{first}-{last}").parse().ok(),
                append: None,
            }
        })
    }

    /// The boot server that the machines need besides the nodes.
    pub(crate) fn server(&self) -> Result<Option<Station>> {
        let Boot::Network(folder) = self else { return Ok(None) };
        let read = |name: &str| {
            let path = folder.join(name);
            std::fs::read(&path).map_err(Error::file("reading", &path))
        };
        let mut files = Files::default();
        for name in [LINUX, INITRAMFS, UNIFIED] {
            files.add(name, Content::of(read(name)?));
        }
        let command_line = String::from_utf8_lossy(&read(COMMAND_LINE)?).trim().to_owned();
        files.add(SCRIPT, Content::of(script(&command_line).into_bytes()));
        Ok(Some(Station::new(SERVER_MAC, SERVER, POOL, files)))
    }
}

/// Bytes of an empty disk, which take no space before they are written.
const EMPTY: u64 = 256 << 20;

/// Makes `target` an empty disk that only its owner may read.
pub(crate) fn empty_disk(target: &Path) -> Result<()> {
    let file = File::options().write(true).create_new(true).mode(0o600).open(target);
    file.and_then(|file| file.set_len(EMPTY)).map_err(Error::file("writing", target))
}

/// Makes `target` a copy of the disk `image`, with the machine configuration `config` on the volume that it boots from. Runs of zeros
/// take no space, and only the owner may read it, as there may be a secret in it.
pub(crate) fn prepare_disk(image: &Path, target: &Path, config: &str) -> Result<()> {
    let content = std::fs::read(image).map_err(Error::file("reading", image))?;
    let mut disk = Cursor::new(content);
    let wrong = Error::file("putting the machine configuration on a copy of", image);
    let mut put = || {
        let range = disk::find(&mut disk, disk::BOOT_PARTITION)?;
        let range =
            range.ok_or_else(|| std::io::Error::other("it has no partition to boot from"))?;
        let file = volume::File { path: Source::VOLUME_FILE, content: config.as_bytes() };
        volume::put(&mut Part::new(&mut disk, range), file)
    };
    put().map_err(wrong)?;
    let disk = disk.into_inner();
    let write = || {
        let file = File::options().write(true).create_new(true).mode(0o600).open(target)?;
        file.set_len(disk.len() as u64)?;
        disk::occupied(&disk).try_for_each(|(at, piece)| file.write_all_at(piece, at))
    };
    write().map_err(Error::file("writing", target))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_copied_with_its_configuration_for_its_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let (image, target) = (folder.path().join("image"), folder.path().join("disk"));
        let program = volume::File { path: "program", content: &[9; 10_000] };
        let boot = volume::build(2 << 20, volume::Kind::Fitting, volume::BOOT_LABEL, &[program]);
        std::fs::write(&image, disk::build(&boot.unwrap()).unwrap()).unwrap();
        prepare_disk(&image, &target, "[node]\n").unwrap();
        let mut copy = Cursor::new(std::fs::read(&target).unwrap());
        let range = disk::find(&mut copy, disk::BOOT_PARTITION).unwrap().unwrap();
        let mut part = Part::new(&mut copy, range);
        let config = volume::read(&mut part, Source::VOLUME_FILE).unwrap();
        assert_eq!(config.as_deref(), Some(&b"[node]\n"[..]));
        assert_eq!(volume::read(&mut part, "program").unwrap().unwrap(), program.content);
        assert_eq!(std::fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_boot_server_needs_all_files() {
        let folder = tempfile::tempdir().unwrap();
        let boot = Boot::Network(folder.path().to_owned());
        for name in [LINUX, INITRAMFS, UNIFIED, COMMAND_LINE] {
            let error = boot.server().unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
            std::fs::write(folder.path().join(name), "x").unwrap();
        }
        assert!(boot.server().unwrap().is_some());
        assert!(Boot::Direct.server().unwrap().is_none());
    }

    #[test]
    fn the_first_node_serves_the_others_where_it_is_to() {
        let mac = Mac([0x52, 0x54, 0, 0xd5, 0, 0]);
        let seed = Boot::Seed("/b/dvs.iso".into());
        let netboot = seed.netboot(0, mac).unwrap();
        let (own, addresses) = (netboot.address.unwrap(), netboot.addresses.unwrap());
        assert_eq!(Pool::of(addresses, own), Ok(POOL));
        assert_eq!(own.address(), SERVER);
        assert!(seed.netboot(1, mac).is_none());
        assert!(seed.server().unwrap().is_none(), "nobody else serves");
        assert!(Boot::Network("/b/pxe".into()).netboot(0, mac).is_none());
    }

    #[test]
    fn what_is_no_disk_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        std::fs::write(&image, [0; 5000]).unwrap();
        let error = prepare_disk(&image, &folder.path().join("disk"), "").unwrap_err().to_string();
        assert!(error.starts_with("putting the machine configuration on a copy of "), "{error}");
    }
}
