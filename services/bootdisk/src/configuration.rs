// SPDX-License-Identifier: MIT OR Apache-2.0
//! The volume that a machine has its configuration from when it starts, and how another one gets there.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use dvs_config::Source;
use dvs_image::held::{Change, Held};
use dvs_image::mend::mend;
use dvs_image::volume::{self, BOOT_LABEL, CONFIG_LABEL};
use rustix::fs::OFlags;

use crate::install::Machine;
use crate::volume::{Device, Error};

/// The kernel argument without which PID 1 looks for no volume.
const ARGUMENT: &str = "dvs_volume=";
/// What QEMU hands over goes before any volume.
const FW_CFG: &str = "qemu_fw_cfg/by_name/opt/dvs/config/raw";
/// What tells which kind of volume one is.
const SECTOR: usize = 512;

/// The volume that the configuration is read from at the next start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigVolume {
    device: PathBuf,
}

impl ConfigVolume {
    /// That of a machine.
    ///
    /// # Errors
    /// For people: why there is none.
    pub fn of(machine: &Machine) -> Result<Self, String> {
        if machine.firmware.join(FW_CFG).exists() {
            return Err(format!("it takes its configuration from QEMU's {}", Source::FW_CFG_NAME));
        }
        let command_line = fs::read_to_string(&machine.command_line).unwrap_or_default();
        if !command_line.split_ascii_whitespace().any(|word| word.starts_with(ARGUMENT)) {
            return Err(
                "it does not look for a volume with its configuration when it starts".into()
            );
        }
        let found = candidates(&machine.block, &machine.devices);
        let has_one = |device: &&PathBuf| {
            let length = |mut file: File| volume::length(&mut file, Source::VOLUME_FILE);
            File::open(device).and_then(length).is_ok_and(|length| length.is_some())
        };
        // PID 1 takes the first that has one, whatever others are called.
        let device = found.iter().find(has_one).or_else(|| found.first());
        let device = device.ok_or_else(|| {
            format!("it has no volume {BOOT_LABEL} or {CONFIG_LABEL} plugged in that could be written to")
        })?;
        Ok(Self { device: device.clone() })
    }

    /// The block device that it is on.
    pub fn device(&self) -> &Path {
        &self.device
    }

    /// Has it hold this configuration. On a disk that boots, one of the two is whole at any moment, whenever the power is cut.
    ///
    /// # Errors
    /// When it is in use, full, or fails.
    pub fn write(&self, text: &str) -> Result<(), Error> {
        let device = self.device.display();
        let attempt = format!("write {} on the volume {device}", Source::VOLUME_FILE);
        let write = || -> io::Result<()> {
            // Exclusive: nobody has it mounted meanwhile.
            let flags = OFlags::EXCL.bits().cast_signed();
            let mut options = File::options();
            let opened = options.read(true).write(true).custom_flags(flags).open(&self.device);
            replace(&mut opened?, text)
        };
        write().map_err(Error::when(attempt))
    }
}

/// The volumes of ours among the block devices, in the order in which PID 1 looks at them.
fn candidates(block: &Path, devices: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(block).into_iter().flatten().filter_map(Result::ok);
    let mut found: Vec<_> = entries
        .filter_map(|entry| {
            let device = devices.join(entry.file_name());
            let mut sector = [0; SECTOR];
            File::open(&device).and_then(|mut file| file.read_exact(&mut sector)).ok()?;
            let label = volume::label(&sector)?;
            let rank = [CONFIG_LABEL, BOOT_LABEL].iter().position(|ours| label == *ours)?;
            Some((rank, device))
        })
        .collect();
    found.sort();
    found.into_iter().map(|(_, device)| device).collect()
}

/// Has a volume hold another configuration.
fn replace(mut device: &mut dyn Device, text: &str) -> io::Result<()> {
    // Volumes of other kinds of FAT are on sticks that only serve to start from; there is no order that is safe for them.
    if Held::new(&mut device).is_err() {
        plain(device, Source::NEXT_FILE, text)?;
        plain(device, Source::VOLUME_FILE, text)?;
        volume::remove(&mut device, Source::NEXT_FILE)?;
        return device.sync();
    }
    mend(&mut device, |device| device.sync())?;
    for name in [Source::NEXT_FILE, Source::VOLUME_FILE] {
        remove(device, name)?;
        let content = text.as_bytes();
        let file = volume::File { path: name, content };
        change(device, Change::Addition, |held| volume::put(held, file))?;
    }
    remove(device, Source::NEXT_FILE)
}

fn plain(mut device: &mut dyn Device, path: &str, text: &str) -> io::Result<()> {
    volume::put(&mut device, volume::File { path, content: text.as_bytes() })?;
    device.sync()
}

fn remove(device: &mut dyn Device, path: &str) -> io::Result<()> {
    match change(device, Change::Removal, |held| volume::remove(held, path)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

fn change<'a>(
    device: &'a mut dyn Device,
    change: Change,
    act: impl FnOnce(&mut Held<'_, &'a mut dyn Device>) -> io::Result<()>,
) -> io::Result<()> {
    let mut device = device;
    let mut held = Held::new(&mut device)?;
    act(&mut held)?;
    held.commit(change, |device| device.sync())
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Seek, SeekFrom, Write};

    use dvs_image::volume::{build, Kind};

    use super::*;

    /// A machine with these volumes, whose configuration comes from one of them.
    fn machine(volumes: &[(&str, Vec<u8>)]) -> (tempfile::TempDir, Machine) {
        let folder = tempfile::tempdir().unwrap();
        let under = |name: &str| folder.path().join(name);
        let machine = Machine {
            block: under("block"),
            devices: under("devices"),
            mounts: under("mounts"),
            command_line: under("cmdline"),
            firmware: under("firmware"),
        };
        fs::create_dir(&machine.block).unwrap();
        fs::create_dir(&machine.devices).unwrap();
        fs::write(&machine.command_line, "quiet dvs_volume=5\n").unwrap();
        for (name, content) in volumes {
            fs::write(machine.block.join(name), "").unwrap();
            fs::write(machine.devices.join(name), content).unwrap();
        }
        (folder, machine)
    }

    fn of(kind: Kind, label: &str, config: Option<&str>) -> Vec<u8> {
        let size = if kind == Kind::Fat32 { 68 << 20 } else { 2 << 20 };
        let file = |text: &'static str| volume::File { path: "other", content: text.as_bytes() };
        let mut files = vec![file("stays")];
        files.extend(
            config.map(|text| volume::File { path: Source::VOLUME_FILE, content: text.as_bytes() }),
        );
        build(size, kind, label, &files).unwrap()
    }

    #[test]
    fn a_volume_gets_another_configuration_and_keeps_all_else() {
        for kind in [Kind::Fitting, Kind::Fat32] {
            for before in [None, Some("[node]\nname = 'before'\n")] {
                let (_folder, machine) = machine(&[("vda1", of(kind, BOOT_LABEL, before))]);
                let volume = ConfigVolume::of(&machine).unwrap();
                assert_eq!(volume.device(), machine.devices.join("vda1"));
                for text in ["[node]\nname = 'one'\n", "[node]\nname = 'another'\n"] {
                    volume.write(text).unwrap();
                    let mut disk = File::open(volume.device()).unwrap();
                    let mut read = |path| volume::read(&mut disk, path).unwrap();
                    assert_eq!(read(Source::VOLUME_FILE).as_deref(), Some(text.as_bytes()));
                    assert_eq!(read("other").as_deref(), Some(&b"stays"[..]));
                    assert_eq!(read(Source::NEXT_FILE), None);
                }
            }
        }
    }

    #[test]
    fn the_volume_is_the_one_that_the_machine_reads() {
        let fitting = |label, config| of(Kind::Fitting, label, config);
        let volumes = [
            ("vda1", fitting(BOOT_LABEL, Some("x"))),
            ("vdb", fitting(CONFIG_LABEL, None)),
            ("vdc", fitting("HOLIDAY", Some("x"))),
        ];
        let (_folder, both) = machine(&volumes);
        let device = |machine| ConfigVolume::of(machine).unwrap().device().to_owned();
        assert_eq!(device(&both), both.devices.join("vda1"));
        // Where none has one, the one that is there for it comes first.
        let (_folder, none) =
            machine(&[("vda1", fitting(BOOT_LABEL, None)), ("vdb", fitting(CONFIG_LABEL, None))]);
        assert_eq!(device(&none), none.devices.join("vdb"));
        let (_folder, machine) = machine(&volumes[2..]);
        let why = ConfigVolume::of(&machine).unwrap_err();
        assert!(why.starts_with("it has no volume DVS-BOOT or DVS-CONFIG"), "{why}");
        fs::write(&both.command_line, "quiet\n").unwrap();
        let why = ConfigVolume::of(&both).unwrap_err();
        assert_eq!(why, "it does not look for a volume with its configuration when it starts");
        fs::create_dir_all(both.firmware.join(FW_CFG)).unwrap();
        let why = ConfigVolume::of(&both).unwrap_err();
        assert_eq!(why, "it takes its configuration from QEMU's opt/dvs/config");
    }

    /// A disk whose power is cut after so many times that it was told to write all.
    #[derive(Debug)]
    struct Cut {
        disk: Cursor<Vec<u8>>,
        left: usize,
        kept: Vec<u8>,
    }

    impl Read for Cut {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.disk.read(buffer)
        }
    }

    impl Write for Cut {
        fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
            self.disk.write(buffer)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Seek for Cut {
        fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
            self.disk.seek(to)
        }
    }

    impl Device for Cut {
        fn sync(&mut self) -> io::Result<()> {
            if self.left == 0 {
                return Err(io::Error::other("the power was cut"));
            }
            self.left -= 1;
            self.kept.clone_from(self.disk.get_ref());
            Ok(())
        }
    }

    #[test]
    fn whenever_the_power_is_cut_a_disk_has_a_whole_configuration() {
        let before = "[node]\nname = 'before'\n";
        let after = "[node]\nname = 'after'\n".repeat(400);
        let disk = of(Kind::Fat32, BOOT_LABEL, Some(before));
        let mut cuts = 0;
        for left in 0.. {
            let mut device = Cut { disk: Cursor::new(disk.clone()), left, kept: disk.clone() };
            let done = replace(&mut device, &after).is_ok();
            let mut kept = Cursor::new(device.kept);
            let mut read = |path| volume::read(&mut kept, path).unwrap();
            let text = read(Source::VOLUME_FILE).or_else(|| read(Source::NEXT_FILE)).unwrap();
            let text = String::from_utf8(text).unwrap();
            assert!(text == before || text == after, "{left}: {text}");
            if done {
                assert_eq!(text, after);
                break;
            }
            cuts = left + 1;
        }
        assert!(cuts > 5, "{cuts}");
    }
}
