// SPDX-License-Identifier: MIT OR Apache-2.0
//! Making a disk one that boots.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use dvs_config::Source;
use dvs_image::disk::{self, Part, BOOT_VOLUME};
use dvs_image::volume::{self, Kind, BOOT_LABEL};
use rustix::fs::OFlags;

use crate::boot_disk::check;
use crate::firmware;
use crate::layout;

/// How much of a disk is looked at to see whether there is something on it: tables and the beginnings of file systems are there.
const LOOKED_AT: u64 = 1 << 20;

/// Why a disk is not made one that boots.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be, whatever anybody says.
    #[error("{}: {why}", disk.display())]
    Unfit {
        /// The disk.
        disk: PathBuf,
        /// Why.
        why: String,
    },
    /// There is something on it, and nobody has said that it may go.
    #[error("{} has {found}, which would be lost; say that it may be wiped if you mean it", disk.display())]
    InUse {
        /// The disk.
        disk: PathBuf,
        /// What is on it.
        found: String,
    },
    /// The image is none.
    #[error(transparent)]
    Image(#[from] crate::Error),
    /// It fails.
    #[error("{attempt} {}: {source}", disk.display())]
    Disk {
        /// What was attempted.
        attempt: &'static str,
        /// The disk.
        disk: PathBuf,
        /// Why it was not done.
        source: io::Error,
    },
}

/// What goes onto a disk.
#[derive(Clone, Copy, Debug)]
pub struct Content<'a> {
    /// systemd's boot loader.
    pub loader: &'a [u8],
    /// The unified kernel image.
    pub image: &'a [u8],
    /// Its version.
    pub version: &'a str,
    /// The machine configuration.
    pub config: &'a str,
}

/// A disk that could be made one that boots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    path: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
    /// What is on it, for people; `None` for nothing.
    pub found: Option<String>,
}

/// A disk that could be written to, and whether it could be made one that boots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its path.
    pub path: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
    /// Its model, as it says itself.
    pub model: Option<String>,
    /// What is on it, for people, if anything; or why it cannot be used.
    pub state: Result<Option<String>, String>,
}

/// Where Linux tells of disks.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Block devices by name.
    pub block: PathBuf,
    /// The devices by name.
    pub devices: PathBuf,
    /// What is mounted.
    pub mounts: PathBuf,
    /// What the kernel was told as it started.
    pub command_line: PathBuf,
    /// What firmware has left for Linux.
    pub firmware: PathBuf,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            block: firmware::BLOCK.into(),
            devices: "/dev".into(),
            mounts: "/proc/self/mounts".into(),
            command_line: "/proc/cmdline".into(),
            firmware: "/sys/firmware".into(),
        }
    }
}

impl Machine {
    /// Looks at a disk, given by its path or name.
    ///
    /// # Errors
    /// When it cannot be made one that boots.
    pub fn examine(&self, disk: &str) -> Result<Target, Error> {
        let name = disk.strip_prefix("/dev/").unwrap_or(disk);
        let path = self.devices.join(name);
        let unfit = |why: String| Error::Unfit { disk: path.clone(), why };
        let about = self.block.join(name);
        if name.is_empty() || name.contains(['/', '.']) || !about.exists() {
            let disks = self.disks().join(", ");
            let there =
                if disks.is_empty() { "it has none".into() } else { format!("it has {disks}") };
            return Err(unfit(format!("this machine has no such disk; {there}")));
        }
        let number = |file: &str| {
            let text = fs::read_to_string(about.join(file)).ok()?;
            text.trim().parse::<u64>().ok()
        };
        if about.join("partition").exists() {
            return Err(unfit("it is a part of a disk; name the whole disk".into()));
        }
        if number("ro") == Some(1) {
            return Err(unfit("it cannot be written to".into()));
        }
        match number("queue/logical_block_size") {
            Some(512) => {}
            size => {
                let size = size.map_or("unknown".into(), |size| format!("{size} bytes"));
                return Err(unfit(format!("its sectors are of {size}; only disks with sectors of 512 bytes can be used so far")));
            }
        }
        // Linux counts in sectors of 512 bytes, whatever those of the disk are.
        let bytes = number("size").unwrap_or(0) * 512;
        let least = disk::size_for(BOOT_VOLUME);
        if bytes < least {
            return Err(unfit(format!(
                "it has {bytes} bytes, and a disk that boots takes {least}"
            )));
        }
        if let Some(user) = self.user(name) {
            return Err(unfit(format!("it is in use: {user}")));
        }
        let mut file = File::open(&path).map_err(failed("open", &path))?;
        let found = found(&mut file).map_err(failed("read", &path))?;
        Ok(Target { path, bytes, found })
    }

    /// All whole disks that could be written to and are not empty drives.
    pub fn list(&self) -> Vec<Listed> {
        let listed = |disk: String| {
            let name = disk.strip_prefix("/dev/")?;
            let about = |file: &str| fs::read_to_string(self.block.join(name).join(file)).ok();
            let sectors = about("size").and_then(|text| text.trim().parse::<u64>().ok());
            let bytes = sectors.filter(|sectors| *sectors > 0)? * 512;
            let model = about("device/model").map(|text| text.trim().to_owned());
            let state = match self.examine(name) {
                Ok(target) => Ok(target.found),
                Err(Error::Unfit { why, .. }) => Err(why),
                Err(error) => Err(error.to_string()),
            };
            let model = model.filter(|model| !model.is_empty());
            Some(Listed { path: self.devices.join(name), bytes, model, state })
        };
        self.disks().into_iter().filter_map(listed).collect()
    }

    /// The names of whole disks that could be written to.
    fn disks(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.block).into_iter().flatten().filter_map(Result::ok);
        let mut disks: Vec<_> = entries
            .filter(|entry| entry.path().join("device").exists())
            .filter(|entry| {
                fs::read_to_string(entry.path().join("ro")).is_ok_and(|ro| ro.trim() == "0")
            })
            .map(|entry| format!("/dev/{}", entry.file_name().to_string_lossy()))
            .collect();
        disks.sort();
        disks
    }

    /// Who uses a disk or a part of it, for people.
    fn user(&self, name: &str) -> Option<String> {
        let entries =
            fs::read_dir(self.block.join(name)).into_iter().flatten().filter_map(Result::ok);
        let parts = entries
            .filter(|entry| entry.path().join("partition").exists())
            .map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mounts = fs::read_to_string(&self.mounts).unwrap_or_default();
        for part in [name.to_owned()].into_iter().chain(parts) {
            let device = format!("/dev/{part}");
            let mounted = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
            if let Some(fields) = { mounted }.find(|fields| fields.len() > 1 && fields[0] == device)
            {
                return Some(format!("{device} is mounted on {}", fields[1]));
            }
            let holders = self.block.join(&part).join("holders");
            let holder = fs::read_dir(holders).into_iter().flatten().filter_map(Result::ok).next();
            if let Some(holder) = holder {
                return Some(format!(
                    "{device} is part of {}",
                    holder.file_name().to_string_lossy()
                ));
            }
        }
        None
    }
}

fn failed(attempt: &'static str, disk: &Path) -> impl FnOnce(io::Error) -> Error {
    let disk = disk.to_owned();
    move |source| Error::Disk { attempt, disk, source }
}

/// What is on a disk, for people.
fn found(disk: &mut File) -> io::Result<Option<String>> {
    if let Ok(names) = disk::names(&mut ReadOnly(disk)) {
        let names: Vec<_> = names
            .iter()
            .map(|name| if name.is_empty() { "one without a name" } else { name })
            .collect();
        return Ok(Some(match &names[..] {
            [] => "a partition table without partitions".to_owned(),
            names => format!("partitions: {}", names.join(", ")),
        }));
    }
    disk.seek(SeekFrom::Start(0))?;
    let mut beginning = Vec::new();
    disk.take(LOOKED_AT).read_to_end(&mut beginning)?;
    let used = beginning.iter().any(|byte| *byte != 0);
    Ok(used.then(|| "data in its first mebibyte".to_owned()))
}

/// A disk that is only read, for readers that might write.
#[derive(Debug)]
struct ReadOnly<'a>(&'a mut File);

impl Read for ReadOnly<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Seek for ReadOnly<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.0.seek(to)
    }
}

impl io::Write for ReadOnly<'_> {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Target {
    /// The device.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// For `map_err`: what was attempted.
    pub(crate) fn failed(&self, attempt: &'static str) -> impl FnOnce(io::Error) -> Error {
        failed(attempt, &self.path)
    }

    /// Makes the disk one that boots, with `identifiers`, random numbers by which it is told from others. What was on it is lost; it
    /// must be allowed to be, with `wipe`.
    ///
    /// It boots once all is on it: until then, firmware finds nothing there that it could start.
    ///
    /// # Errors
    /// When something is on it, the image is none, or the disk fails.
    pub fn install(
        &self,
        content: &Content<'_>,
        identifiers: [u128; 2],
        wipe: bool,
    ) -> Result<(), Error> {
        if let (Some(found), false) = (&self.found, wipe) {
            return Err(Error::InUse { disk: self.path.clone(), found: found.clone() });
        }
        check(content.image)?;
        let failed = |attempt| failed(attempt, &self.path);
        // Linux lets nobody else use a disk that was opened so.
        let exclusive = OFlags::EXCL.bits().cast_signed();
        let mut options = File::options();
        let opened = options.read(true).write(true).custom_flags(exclusive).open(&self.path);
        let mut device = opened.map_err(failed("open"))?;
        let files = layout::files(content.loader, content.image, content.version);
        let mut write = || -> io::Result<()> {
            let range = disk::partition(&mut device, BOOT_VOLUME, identifiers)?;
            let mut part = Part::new(&mut device, range);
            volume::make(&mut part, Kind::Fat32, BOOT_LABEL)?;
            let config = (Source::VOLUME_FILE.to_owned(), content.config.as_bytes().to_vec());
            for (path, content) in [&[config], &files[..]].concat() {
                volume::put(&mut part, volume::File { path: &path, content: &content })?;
            }
            device.sync_all()
        };
        write().map_err(failed("write to"))?;
        // What is read is to come from the disk, not from memory.
        let dropped = rustix::fs::fadvise(&device, 0, None, rustix::fs::Advice::DontNeed);
        dropped.map_err(|errno| failed("read back")(errno.into()))?;
        let mut read = || -> io::Result<()> {
            let range = disk::find(&mut device, disk::BOOT_PARTITION)?;
            let range = range.ok_or_else(|| io::Error::other("the partition is not there"))?;
            let mut part = Part::new(&mut device, range);
            for (path, content) in &files {
                if !volume::is_same(&mut part, path, content)? {
                    let text =
                        format!("the disk does not give back what was written to it: {path}");
                    return Err(io::Error::other(text));
                }
            }
            Ok(())
        };
        read().map_err(failed("read back"))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::boot_disk::tests::image;

    /// A machine with one disk of so many bytes, `sda`, whose content is a file.
    struct Fake {
        folder: tempfile::TempDir,
        machine: Machine,
    }

    impl Fake {
        fn new(bytes: u64) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let under = |name: &str| folder.path().join(name);
            let machine = Machine {
                block: under("block"),
                devices: under("dev"),
                mounts: under("mounts"),
                command_line: under("cmdline"),
                firmware: under("firmware"),
            };
            let fake = Self { folder, machine };
            for (file, text) in
                [("ro", "0\n"), ("queue/logical_block_size", "512\n"), ("device/x", "")]
            {
                fake.tell(file, text);
            }
            fake.tell("size", &format!("{}\n", bytes / 512));
            fs::create_dir(&fake.machine.devices).unwrap();
            File::create(fake.disk()).unwrap().set_len(bytes).unwrap();
            fake
        }

        fn disk(&self) -> PathBuf {
            self.machine.devices.join("sda")
        }

        fn tell(&self, file: &str, text: &str) {
            let path = self.machine.block.join("sda").join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn refusal(&self) -> String {
            self.machine.examine("/dev/sda").unwrap_err().to_string()
        }
    }

    const SIZE: u64 = 120 << 20;

    #[test]
    fn an_empty_disk_becomes_one_that_boots() {
        let fake = Fake::new(SIZE);
        let target = fake.machine.examine("/dev/sda").unwrap();
        assert_eq!((target.bytes, &target.found), (SIZE, &None));
        let image = image(1);
        let content =
            Content { loader: b"loader", image: &image, version: "1.0", config: "[node]\n" };
        target.install(&content, [7, 8], false).unwrap();
        let mut disk = Cursor::new(fs::read(fake.disk()).unwrap());
        let range = disk::find(&mut disk, disk::BOOT_PARTITION).unwrap().unwrap();
        let mut part = Part::new(&mut disk, range);
        let mut read = |path| volume::read(&mut part, path).unwrap().unwrap();
        assert_eq!(read(Source::VOLUME_FILE), b"[node]\n");
        assert_eq!(read("EFI/Linux/dvs-1.efi"), image);
        assert_eq!(read(layout::FALLBACK), b"loader");
        // Now there is something on it.
        let target = fake.machine.examine("sda").unwrap();
        let error = target.install(&content, [7, 8], false).unwrap_err().to_string();
        assert!(error.contains("has partitions: dvs-boot, which would be lost"), "{error}");
        target.install(&content, [9, 10], true).unwrap();
    }

    #[test]
    fn only_a_disk_that_boots_a_node_and_nothing_else_is_wiped() {
        let fake = Fake::new(SIZE);
        let refused = |fake: &Fake| fake.machine.examine_boot_disk("sda").unwrap_err().to_string();
        assert!(refused(&fake).contains("does not boot a node: it has no partition dvs-boot"));
        let image = image(1);
        let config = "[cluster]\ntoken = 'a token of sixteen letters'\n";
        let content = Content { loader: b"loader", image: &image, version: "1.0", config };
        fake.machine.examine("sda").unwrap().install(&content, [7, 8], false).unwrap();
        let before = fs::read(fake.disk()).unwrap();
        // What is behind the partition is not the node's, but for the second table at the end.
        let mut marked = before.clone();
        marked[110 << 20] = 1;
        fs::write(fake.disk(), &marked).unwrap();
        fake.tell("holders/md0", "");
        assert!(refused(&fake).contains("it is in use"));
        fs::remove_dir_all(fake.machine.block.join("sda/holders")).unwrap();
        let target = fake.machine.examine_boot_disk("/dev/sda").unwrap();
        target.wipe().unwrap();
        let after = fs::read(fake.disk()).unwrap();
        let left: Vec<_> = (0..after.len()).filter(|at| after[*at] != 0).collect();
        assert_eq!(left, [110 << 20]);
        assert!(refused(&fake).contains("does not boot a node"));
        assert!(matches!(target.wipe(), Err(Error::Unfit { .. } | Error::Disk { .. })));
    }

    #[test]
    fn disks_with_data_are_not_overwritten_unasked() {
        let fake = Fake::new(SIZE);
        let mut content = vec![0; SIZE as usize];
        content[70_000] = 1;
        fs::write(fake.disk(), &content).unwrap();
        let target = fake.machine.examine("sda").unwrap();
        assert_eq!(target.found.as_deref(), Some("data in its first mebibyte"));
        let image = image(1);
        let wanted = Content { loader: b"", image: &image, version: "1.0", config: "" };
        assert!(matches!(target.install(&wanted, [1, 2], false), Err(Error::InUse { .. })));
        assert!(fs::read(fake.disk()).unwrap() == content, "the disk was changed");
        let none = Content { image: b"MZ", ..wanted };
        assert!(matches!(target.install(&none, [1, 2], true), Err(Error::Image(_))));
        assert!(fs::read(fake.disk()).unwrap() == content, "the disk was changed");
    }

    #[test]
    fn disks_are_listed_with_what_is_on_them_or_speaks_against_them() {
        let fake = Fake::new(SIZE);
        fake.tell("device/model", "QEMU HARDDISK   \n");
        let expected = Listed {
            path: fake.disk(),
            bytes: SIZE,
            model: Some("QEMU HARDDISK".into()),
            state: Ok(None),
        };
        assert_eq!(fake.machine.list(), std::slice::from_ref(&expected));
        fake.tell("holders/md0", "");
        let state = Err("it is in use: /dev/sda is part of md0".into());
        assert_eq!(fake.machine.list(), [Listed { state, ..expected }]);
        // A drive without a medium.
        fake.tell("size", "0\n");
        assert_eq!(fake.machine.list(), []);
    }

    #[test]
    fn disks_that_cannot_boot_or_are_in_use_are_refused() {
        let none = Fake::new(SIZE).machine.examine("/dev/sdb").unwrap_err().to_string();
        assert!(none.ends_with("this machine has no such disk; it has /dev/sda"), "{none}");
        let of = |file: &str, text: &str| {
            let fake = Fake::new(SIZE);
            fake.tell(file, text);
            fake.refusal()
        };
        assert!(of("partition", "1\n").ends_with("name the whole disk"));
        assert!(of("ro", "1\n").ends_with("it cannot be written to"));
        assert!(of("queue/logical_block_size", "4096\n").contains("sectors are of 4096 bytes"));
        assert!(of("holders/md0", "").ends_with("/dev/sda is part of md0"));
        assert!(Fake::new(90 << 20).refusal().contains("a disk that boots takes"));
        let fake = Fake::new(SIZE);
        fake.tell("sda1/partition", "1\n");
        fs::write(
            fake.folder.path().join("mounts"),
            "/dev/sda10 /x ext4\n/dev/sda1 /mnt vfat rw 0 0\n",
        )
        .unwrap();
        assert!(fake.refusal().ends_with("it is in use: /dev/sda1 is mounted on /mnt"));
    }
}
