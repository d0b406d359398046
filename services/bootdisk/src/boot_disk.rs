// SPDX-License-Identifier: MIT OR Apache-2.0
//! The slots of a disk, and what a node does with them.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use dvs_image::uki;
use dvs_slots::install::{self, Refusal, Step};
use dvs_slots::record::{self, Entry, Fate, Record};
use dvs_slots::slots::{Mark, Number, Slots};

use crate::firmware::{self, Started};
use crate::volume::{self, hash_of, Place, Volume};

/// Why something cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not in this state of the slots.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It is no image.
    #[error("it is no image of a node: {0}")]
    NoImage(String),
    /// The disk fails, or is full.
    #[error(transparent)]
    Disk(#[from] volume::Error),
}

/// The disk with slots that this machine has booted from.
#[derive(Debug)]
pub struct BootDisk {
    place: Place,
    started: Started,
    /// Held while the volume is in use.
    using: Mutex<()>,
}

/// An image that is on the disk, or was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its number.
    pub number: Number,
    /// Its version and the SHA-256 of its file, as far as known.
    pub known: Option<(String, String)>,
    /// What came of it.
    pub fate: Fate,
    /// Whether it runs.
    pub runs: bool,
    /// Whether it is started next.
    pub next: bool,
}

impl BootDisk {
    /// The disk that the boot loader has told of.
    ///
    /// # Errors
    /// For people: why there is none.
    pub fn found() -> Result<Self, String> {
        Self::of(Path::new(firmware::VARIABLES), Path::new(firmware::BLOCK))
    }

    fn of(variables: &Path, block: &Path) -> Result<Self, String> {
        let started = firmware::started(variables).ok_or(
            "this node has not booted from a disk with slots: what it boots is changed where it boots from",
        )?;
        let devices = firmware::devices(block, &started.partition);
        match &devices[..] {
            [name] => Ok(Self::at(Place::Device(firmware::device(name)), started)),
            [] => Err(format!(
                "the partition {} that this node has booted from is not there any more",
                started.partition
            )),
            several => Err(format!(
                "the partitions {} are copies of each other, and nobody can tell from which one this node has booted; remove one",
                several.join(" and ")
            )),
        }
    }

    /// One whose volume is at a place.
    pub fn at(place: Place, started: Started) -> Self {
        Self { place, started, using: Mutex::new(()) }
    }

    /// Does something with the volume while nobody else does.
    fn with<T>(
        &self,
        writable: bool,
        act: impl FnOnce(&mut Volume<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        // Whoever panicked left nothing that is not told by the files themselves.
        let _using = self.using.lock().unwrap_or_else(PoisonError::into_inner);
        self.place.with(writable, act)
    }

    /// Where the volume is; nowhere in particular if it was open before.
    pub fn device(&self) -> PathBuf {
        match &self.place {
            Place::Device(path) => path.clone(),
            Place::Open(_) => PathBuf::new(),
        }
    }

    /// Whether the image that runs was still being tried when it was started.
    pub fn is_tried(&self) -> bool {
        self.started.image.mark != Mark::Confirmed
    }

    /// All images that are on the disk or remembered, by number.
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub fn list(&self) -> Result<Vec<Listed>, Error> {
        self.with(false, |volume| {
            Ok(listed(&volume.slots()?, &volume.record(), self.started.image.number))
        })
    }

    /// Does something with the image that runs, as it is on the disk.
    ///
    /// # Errors
    /// When it is not there any more, the disk fails, or `act` does.
    pub fn with_running<T>(
        &self,
        act: impl FnOnce(&[u8]) -> Result<T, volume::Error>,
    ) -> Result<T, Error> {
        self.with(false, |volume| {
            let number = self.started.image.number;
            let image = volume.slots()?.image(number);
            let image = image.ok_or_else(|| {
                Error::NoImage(format!("image {number}, which runs, is not on the disk any more"))
            })?;
            Ok(act(&volume.read_image(image)?)?)
        })
    }

    /// Puts a unified kernel image on the disk, so that it is tried when the machine starts next. Its number.
    ///
    /// # Errors
    /// When it is none, another is still tried, or the disk is full or fails. What was booted before is booted still then.
    pub fn install(&self, version: &str, image: &[u8]) -> Result<Number, Error> {
        check(image)?;
        self.with(true, |volume| {
            let plan = install::install(&volume.slots()?)?;
            volume.check_room(&plan, image.len() as u64)?;
            let mut record = volume.record();
            record.add(Entry {
                number: plan.number,
                version: version.to_owned(),
                sha256: hash_of(image),
                trouble: None,
            });
            volume.remember(&record)?;
            for step in &plan.steps {
                match step {
                    Step::Write => volume.write(image)?,
                    step => volume.carry_out(step)?,
                }
            }
            Ok(plan.number)
        })
    }

    /// Notes that the image that runs, which is being tried, has got as far as its services: what is told of it if nothing else is to be
    /// heard. Whether it is still being tried: it may have been confirmed since the machine started.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn begin(&self) -> Result<bool, Error> {
        self.with(true, |volume| {
            let number = self.started.image.number;
            let image = volume.slots()?.image(number);
            if image.is_some_and(|image| image.mark == Mark::Confirmed) {
                return Ok(false);
            }
            let mut record = volume.record();
            record.note(number, record::STARTED);
            note(volume, &record);
            Ok(true)
        })
    }

    /// Notes that the node works with the image that runs: it is started from now on. Whether that is news.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn confirm(&self) -> Result<bool, Error> {
        self.with(true, |volume| {
            let step = install::confirm(&volume.slots()?, self.started.image.number)?;
            step.as_ref().map_or(Ok(()), |step| volume.carry_out(step))?;
            let mut record = volume.record();
            if record.clear(self.started.image.number) {
                note(volume, &record);
            }
            Ok(step.is_some())
        })
    }

    /// Gives the image that runs up for a reason, so that the one before is started next.
    ///
    /// # Errors
    /// When no other is confirmed, or the disk fails.
    pub fn give_up(&self, why: &str) -> Result<(), Error> {
        self.with(true, |volume| {
            let number = self.started.image.number;
            let step = install::give_up(&volume.slots()?, number)?;
            let mut record = volume.record();
            record.note(number, why);
            note(volume, &record);
            Ok(step.as_ref().map_or(Ok(()), |step| volume.carry_out(step))?)
        })
    }
}

/// Keeps a record as far as that can be done: what is remembered decides nothing.
fn note(volume: &mut Volume<'_>, record: &Record) {
    if let Err(error) = volume.remember(record) {
        println!("warning: {error}");
    }
}

/// Refuses what is no unified kernel image.
pub(crate) fn check(image: &[u8]) -> Result<(), Error> {
    for name in [".linux", ".initrd", ".cmdline"] {
        match uki::section(image, name) {
            Ok(Some(content)) if !content.is_empty() => {}
            Ok(_) => return Err(Error::NoImage(format!("it has no section `{name}`"))),
            Err(error) => return Err(Error::NoImage(error.to_string())),
        }
    }
    Ok(())
}

fn listed(slots: &Slots, record: &Record, running: Number) -> Vec<Listed> {
    let next = slots.next().map(|image| image.number);
    let known: Vec<_> = record.fates(slots).collect();
    let remembered = known.iter().map(|(entry, _)| entry.number);
    let mut numbers: Vec<_> = slots.images().map(|image| image.number).chain(remembered).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let list = numbers.into_iter().map(|number| {
        let known = known.iter().find(|(entry, _)| entry.number == number);
        let unknown = || match slots.image(number).map(|image| image.mark) {
            Some(Mark::Confirmed) => Fate::Confirmed,
            Some(mark) if mark.is_bad() => Fate::GivenUp("nobody has noted why".to_owned()),
            _ => Fate::Trying,
        };
        Listed {
            number,
            known: known.map(|(entry, _)| (entry.version.clone(), entry.sha256.clone())),
            fate: known.map_or_else(unknown, |(_, fate)| fate.clone()),
            runs: number == running,
            next: next == Some(number),
        }
    });
    list.collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs;
    use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};
    use std::sync::Arc;

    use dvs_image::held::Held;
    use dvs_image::uki::Section;
    use dvs_image::volume::{self as fat, Kind, BOOT_LABEL};
    use dvs_slots::install::TEMPORARY;
    use dvs_slots::loader::{PARTITION, SELECTED};
    use dvs_slots::slots::{Image, FOLDER};

    use super::*;
    use crate::layout;
    use crate::volume::Device;

    /// An image, which tells itself from others by its kernel.
    pub(crate) fn image(kernel: u8) -> Vec<u8> {
        let sections =
            [(".linux", vec![kernel; 3000]), (".initrd", vec![1]), (".cmdline", vec![2])];
        let sections: Vec<_> =
            sections.iter().map(|(name, content)| Section { name, content }).collect();
        uki::build(&uki::sample_stub(), &sections).unwrap()
    }

    /// A boot volume in memory.
    #[derive(Debug)]
    struct Memory(Cursor<Vec<u8>>);

    impl Read for Memory {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.read(buffer)
        }
    }

    impl Write for Memory {
        fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
            self.0.write(buffer)
        }

        fn flush(&mut self) -> io::Result<()> {
            self.0.flush()
        }
    }

    impl Seek for Memory {
        fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
            self.0.seek(to)
        }
    }

    impl Device for Memory {
        fn sync(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    type Disk = Arc<Mutex<Memory>>;

    /// A disk as it is made, on which image 1 was started.
    fn fresh() -> Disk {
        let files = layout::files(b"loader", &image(1), "1.0");
        let files: Vec<_> =
            files.iter().map(|(path, content)| fat::File { path, content }).collect();
        let volume = fat::build(68 << 20, Kind::Fat32, BOOT_LABEL, &files).unwrap();
        Arc::new(Mutex::new(Memory(Cursor::new(volume))))
    }

    /// The disk once the loader has started what it starts next, as it would count.
    fn booted(disk: &Disk) -> BootDisk {
        let volume = &mut *disk.lock().unwrap();
        let names = fat::names(volume, FOLDER).unwrap();
        let next = Slots::of_names(names.iter().map(String::as_str)).next().unwrap();
        let started = Slots::started(next);
        if started != next {
            let path = |image: Image| format!("{FOLDER}/{image}");
            fat::rename(volume, &path(next), &path(started)).unwrap();
        }
        let started = Started { image: started, partition: "ab".into() };
        BootDisk::at(Place::Open(disk.clone()), started)
    }

    fn fates(disk: &BootDisk) -> Vec<(Number, Fate, bool, bool)> {
        let list = disk.list().unwrap().into_iter();
        list.map(|image| (image.number, image.fate, image.runs, image.next)).collect()
    }

    #[test]
    fn an_image_is_installed_tried_and_confirmed() {
        let folder = fresh();
        let disk = booted(&folder);
        assert!(!disk.is_tried());
        assert_eq!(disk.install("1.1", &image(2)).unwrap(), 2);
        let (confirmed, trying) = (Fate::Confirmed, Fate::Trying);
        let expected = [(1, confirmed.clone(), true, false), (2, trying.clone(), false, true)];
        assert_eq!(fates(&disk), expected);
        let disk = booted(&folder);
        assert!(disk.is_tried());
        assert_eq!(fates(&disk), [(1, confirmed.clone(), false, false), (2, trying, true, true)]);
        assert!(disk
            .install("1.2", &image(3))
            .unwrap_err()
            .to_string()
            .contains("still being tried"));
        assert!(disk.confirm().unwrap());
        assert!(!disk.confirm().unwrap());
        assert_eq!(
            fates(&disk),
            [(1, confirmed.clone(), false, false), (2, confirmed, true, true)]
        );
        let known = disk.list().unwrap().pop().unwrap().known.unwrap();
        assert_eq!(known, ("1.1".to_owned(), hash_of(&image(2))));
        // The third takes the slot of the first.
        assert_eq!(disk.install("1.2", &image(3)).unwrap(), 3);
        assert_eq!(fates(&disk)[0], (1, Fate::Replaced, false, false));
    }

    #[test]
    fn the_image_that_runs_is_read_whatever_its_name_has_become() {
        let folder = fresh();
        booted(&folder).install("1.1", &image(2)).unwrap();
        let disk = booted(&folder);
        let read = || disk.with_running(|content| Ok(content.to_vec()));
        assert!(read().unwrap() == image(2));
        disk.confirm().unwrap();
        assert!(read().unwrap() == image(2));
        fat::remove(&mut *folder.lock().unwrap(), &format!("{FOLDER}/dvs-2.efi")).unwrap();
        assert!(read().unwrap_err().to_string().contains("not on the disk any more"));
    }

    #[test]
    fn an_image_that_is_given_up_leaves_its_reason_and_the_one_before() {
        let folder = fresh();
        booted(&folder).install("1.1", &image(2)).unwrap();
        let disk = booted(&folder);
        disk.give_up("it found nobody").unwrap();
        let given_up = Fate::GivenUp("it found nobody".to_owned());
        let expected = [(1, Fate::Confirmed, false, true), (2, given_up.clone(), true, false)];
        assert_eq!(fates(&disk), expected);
        let disk = booted(&folder);
        assert_eq!(fates(&disk), [(1, Fate::Confirmed, true, true), (2, given_up, false, false)]);
        let error = disk.give_up("x").unwrap_err().to_string();
        assert!(error.contains("no image on this disk is confirmed"), "{error}");
    }

    #[test]
    fn an_image_that_says_nothing_is_given_up_after_three_starts() {
        let folder = fresh();
        booted(&folder).install("1.1", &image(2)).unwrap();
        let started: Vec<_> = (0..4).map(|_| booted(&folder).started.image.number).collect();
        assert_eq!(started, [2, 2, 2, 1]);
        let Fate::GivenUp(why) = fates(&booted(&folder))[1].1.clone() else { panic!() };
        assert!(why.contains("never said that it works"), "{why}");
    }

    #[test]
    fn an_image_that_hangs_once_its_services_run_has_told_how_far_it_came() {
        let folder = fresh();
        booted(&folder).install("1.1", &image(2)).unwrap();
        (0..3).for_each(|_| assert!(booted(&folder).begin().unwrap()));
        let Fate::GivenUp(why) = fates(&booted(&folder))[1].1.clone() else { panic!() };
        assert!(why.contains("services were started"), "{why}");
        // The next one works, at its second start.
        assert_eq!(booted(&folder).install("1.2", &image(3)).unwrap(), 3);
        booted(&folder).begin().unwrap();
        let disk = booted(&folder);
        disk.begin().unwrap();
        assert!(disk.confirm().unwrap());
        // A daemon that is started anew finds that it has been confirmed, and leaves it so.
        assert!(!disk.begin().unwrap());
        assert_eq!(booted(&folder).install("1.3", &image(4)).unwrap(), 4);
        let (number, fate, ..) = fates(&booted(&folder))[2].clone();
        assert_eq!((number, fate), (3, Fate::Confirmed));
    }

    #[test]
    fn what_is_no_image_changes_nothing() {
        let folder = fresh();
        let disk = booted(&folder);
        let before = disk.list().unwrap();
        for image in [&b""[..], b"MZ", &image(2)[..2500]] {
            let error = disk.install("1.1", image).unwrap_err().to_string();
            assert!(error.starts_with("it is no image of a node: "), "{error}");
        }
        assert_eq!(disk.list().unwrap(), before);
        let names = fat::names(&mut *folder.lock().unwrap(), FOLDER).unwrap();
        assert!(!names.iter().any(|name| name == TEMPORARY), "{names:?}");
    }

    #[test]
    fn an_image_without_room_is_refused_before_anything_is_removed() {
        let folder = fresh();
        let room = |bytes| {
            Place::Open(folder.clone()).with(true, |volume| {
                let plan = install::install(&volume.slots()?).unwrap();
                volume.check_room(&plan, bytes)
            })
        };
        assert!(room(1).is_ok());
        let error: volume::Error = room(u64::MAX).unwrap_err();
        assert!(error.is_full() && error.to_string().contains("only "), "{error}");
    }

    #[test]
    fn a_full_disk_stays_as_it_is_and_its_node_goes_on() {
        let folder = fresh();
        let disk = booted(&folder);
        let before = disk.list().unwrap();
        let free = fat::free(&mut *folder.lock().unwrap()).unwrap();
        // Somebody has put something there that leaves less than an image takes.
        let content = vec![7; usize::try_from(free).unwrap() - (100 << 10)];
        let put = |content: &[u8]| {
            fat::put(&mut *folder.lock().unwrap(), fat::File { path: "other", content })
        };
        put(&content).unwrap();
        let bytes = folder.lock().unwrap().0.get_ref().clone();
        let error = disk.install("1.1", &image(2)).unwrap_err();
        let Error::Disk(full) = &error else { panic!("{error}") };
        assert!(full.is_full(), "{error}");
        let text = error.to_string();
        assert!(
            text.starts_with("make room for the image on the boot volume: it needs "),
            "{text}"
        );
        assert!(*folder.lock().unwrap().0.get_ref() == bytes, "the disk was changed");
        assert_eq!(disk.list().unwrap(), before);
        // Whoever has read too much into that can still not write more than there is room for.
        let mut device = folder.lock().unwrap();
        let mut held = Held::new(&mut *device).unwrap();
        let large = vec![8; 101 << 10];
        fat::put(&mut held, fat::File { path: "more", content: &large }).unwrap_err();
        drop(device);
        put(b"").unwrap();
        assert_eq!(disk.install("1.1", &image(2)).unwrap(), 2);
    }

    #[test]
    fn a_record_that_is_damaged_hinders_nobody() {
        let folder = fresh();
        let damaged = fat::File { path: record::FILE, content: b"[[image]]\nnumb" };
        fat::put(&mut *folder.lock().unwrap(), damaged).unwrap();
        let disk = booted(&folder);
        assert_eq!(fates(&disk), [(1, Fate::Confirmed, true, true)]);
        assert_eq!(disk.install("1.1", &image(2)).unwrap(), 2);
    }

    #[test]
    fn the_disk_is_the_one_that_the_loader_has_told_of() {
        let folder = tempfile::tempdir().unwrap();
        let (variables, block) = (folder.path().join("variables"), folder.path().join("block"));
        fs::create_dir(&variables).unwrap();
        let find = || BootDisk::of(&variables, &block);
        assert!(find().unwrap_err().contains("has not booted from a disk with slots"));
        firmware::tests::set(&variables, SELECTED, "dvs-7.efi");
        firmware::tests::set(&variables, PARTITION, "AB");
        assert!(find().unwrap_err().contains("partition ab that"));
        for name in ["vda1", "vdb1"] {
            fs::create_dir_all(block.join(name)).unwrap();
            fs::write(block.join(name).join("uevent"), "PARTUUID=ab\n").unwrap();
            let found = find().map(|disk| (disk.device(), disk.started.image));
            match name {
                "vda1" => {
                    let image = Image { number: 7, mark: Mark::Confirmed };
                    assert_eq!(found, Ok(("/dev/vda1".into(), image)));
                }
                _ => assert!(found.unwrap_err().contains("vda1 and vdb1 are copies")),
            }
        }
    }
}
