// SPDX-License-Identifier: MIT OR Apache-2.0
//! Disks that fail, disks that take no writes, and images that lie, while files are changed.

use crate::tools::{fsck, mkfs};
use mol_fs::disk::{Attempt, Disk, DiskError, Memory};
use mol_fs::format::{make, ROOT};
use mol_fs::volume::{New, Options, User};
use mol_fs::{Damage, Error, Volume};
use mol_protocol::file::SetTime;
use mol_protocol::Errno;
use proptest::prelude::*;

const USER: User<'static> = User::SUPERUSER;

/// A disk of which one request fails: the one that comes after so many.
struct Faulty {
    disk: Memory,
    left: u32,
    failed: Option<Attempt>,
}

impl Faulty {
    fn count(&mut self, attempt: Attempt) -> Result<(), DiskError> {
        let fails = self.left == 0 && self.failed.is_none();
        self.left = self.left.saturating_sub(1);
        if fails {
            self.failed = Some(attempt);
            return Err(DiskError::new(attempt, 0, 0, "it was told to"));
        }
        Ok(())
    }
}

impl Disk for Faulty {
    fn bytes(&self) -> u64 {
        self.disk.bytes()
    }

    fn is_read_only(&self) -> bool {
        false
    }

    fn read(&mut self, position: u64, into: &mut [u8]) -> Result<(), DiskError> {
        self.count(Attempt::Read)?;
        self.disk.read(position, into)
    }

    fn write(&mut self, position: u64, from: &[u8]) -> Result<(), DiskError> {
        self.count(Attempt::Write)?;
        self.disk.write(position, from)
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        self.count(Attempt::Flush)
    }
}

fn empty() -> Memory {
    let mut disk = Memory::new(1 << 20);
    make(&mut disk, 1024, 128, 0).unwrap();
    disk
}

/// A write that is cut short by a failure says so by its count.
fn write_all<D: Disk>(
    volume: &mut Volume<D>,
    file: u32,
    position: u64,
    data: &[u8],
) -> Result<(), Error> {
    let done = volume.write(file, position, data)?;
    if done < data.len() {
        Err(Errno::Io.into())
    } else {
        Ok(())
    }
}

/// One of everything, with a sync in between.
fn work<D: Disk>(volume: &mut Volume<D>, steps: &mut Vec<&'static str>) -> Result<(), Error> {
    let directory = volume.make(&USER, ROOT, b"d", 0o755, New::Directory)?;
    let kept = volume.make(&USER, directory, b"kept", 0o644, New::File)?;
    write_all(volume, kept, 0, &[7; 20_000])?;
    volume.make(&USER, ROOT, b"s", 0o777, New::SymbolicLink(b"d/kept"))?;
    volume.sync()?;
    steps.push("synced");
    let file = volume.make(&USER, ROOT, b"f", 0o644, New::File)?;
    write_all(volume, file, 300_000, &[8; 5000])?;
    volume.truncate(file, 1000)?;
    volume.link(&USER, file, directory, b"g")?;
    volume.rename(&USER, directory, b"g", ROOT, b"h", false)?;
    volume.unlink(&USER, ROOT, b"s")?;
    volume.read(kept, 0, &mut [0; 20_000])?;
    volume.sync()?;
    steps.push("all");
    Ok(())
}

#[test]
fn after_any_failure_of_the_disk_what_was_synced_is_there() {
    let options = Options { cache_bytes: 0, ..Options::default() };
    let mut kinds = Vec::new();
    for left in 0.. {
        let disk = Faulty { disk: empty(), left, failed: None };
        let mut volume = match Volume::mount(disk, options) {
            Ok(volume) => volume,
            Err(error) => {
                assert!(matches!(error, Error::Disk(_)), "{error}");
                continue;
            }
        };
        let mut steps = Vec::new();
        let done = work(&mut volume, &mut steps);
        let worked = done.is_ok();
        let again = volume.sync();
        let made = volume.make(&USER, ROOT, b"new", 0o644, New::File);
        let disk = volume.into_disk();
        let Some(attempt) = disk.failed else {
            done.unwrap();
            break;
        };
        kinds.push(attempt);
        let told = done.and(again.clone()).and(made.clone().map(drop));
        let error = told.expect_err("a failure that nobody is told of");
        assert_eq!(error.errno(), Errno::Io, "{error}");
        if attempt != Attempt::Read && !worked {
            // What was written is in doubt, and no later success may hide it.
            assert_eq!(again, Err(Error::Failed));
            assert_eq!(made, Err(Error::Failed));
        }

        let mut volume = Volume::mount(disk.disk, Options::default()).unwrap();
        if steps.contains(&"synced") {
            let directory = volume.lookup(ROOT, b"d").unwrap();
            let kept = volume.lookup(directory, b"kept").unwrap();
            let mut content = vec![0; 20_001];
            assert_eq!(volume.read(kept, 0, &mut content), Ok(20_000));
            assert!(content[..20_000].iter().all(|byte| *byte == 7), "after {left} requests");
        }
        let disk = volume.unmount().map_err(|(_, error)| error).unwrap();
        assert_eq!(fsck(disk.content()), None, "after {left} requests");
    }
    for attempt in [Attempt::Read, Attempt::Write, Attempt::Flush] {
        assert!(kinds.contains(&attempt), "{attempt:?} never failed");
    }
}

/// Everything that changes something, tried on a file system with a file `f`, a directory `d` and a link `s`.
fn try_changes<D: Disk>(volume: &mut Volume<D>) -> Vec<Result<(), Error>> {
    let file = volume.lookup(ROOT, b"f").unwrap();
    vec![
        volume.make(&USER, ROOT, b"n", 0o644, New::File).map(drop),
        volume.make(&USER, ROOT, b"n", 0o755, New::Directory).map(drop),
        volume.link(&USER, file, ROOT, b"n"),
        volume.unlink(&USER, ROOT, b"f"),
        volume.remove_directory(&USER, ROOT, b"d"),
        volume.rename(&USER, ROOT, b"f", ROOT, b"n", false),
        volume.write(file, 0, b"x").map(drop),
        volume.truncate(file, 0),
        volume.set_mode(&USER, file, 0o600),
        volume.set_owner(&USER, file, 1, 1),
        volume.set_times(&USER, file, SetTime::Now, SetTime::Now),
    ]
}

#[test]
fn what_is_mounted_for_reading_is_not_changed() {
    let mut volume = Volume::mount(empty(), Options::default()).unwrap();
    let file = volume.make(&USER, ROOT, b"f", 0o644, New::File).unwrap();
    volume.make(&USER, ROOT, b"d", 0o755, New::Directory).unwrap();
    volume.write(file, 0, b"content").unwrap();
    volume.sync().unwrap();
    // It was not unmounted, and is not cleared up either.
    let before = volume.into_disk();
    let options = Options { read_only: true, ..Options::default() };
    let mut volume = Volume::mount(before.clone(), options).unwrap();
    volume.set_time(99);
    for (index, done) in try_changes(&mut volume).into_iter().enumerate() {
        assert_eq!(done, Err(Errno::ReadOnly.into()), "change {index}");
    }
    let mut content = [0; 9];
    assert_eq!(volume.read(file, 0, &mut content), Ok(7));
    volume.touch_read(file).unwrap();
    volume.hold(file).unwrap();
    volume.release(file, 1).unwrap();
    volume.sync().unwrap();
    assert_eq!(volume.unmount().map_err(|(_, error)| error), Ok(before));
}

#[test]
fn old_formats_are_for_reading_only() {
    for arguments in [["-1"], ["-2"]] {
        let disk = Memory::from(mkfs(&arguments, 1 << 20));
        let mounted = Volume::mount(disk, Options::default());
        assert_eq!(mounted.err(), Some(Errno::ReadOnly.into()), "{arguments:?}");
    }
}

#[test]
fn damage_is_not_cleared_up() {
    // Two directories with one block of entries, on a file system that was not unmounted.
    let mut volume = Volume::mount(empty(), Options::default()).unwrap();
    let first = volume.make(&USER, ROOT, b"a", 0o755, New::Directory).unwrap();
    let second = volume.make(&USER, ROOT, b"b", 0o755, New::Directory).unwrap();
    volume.sync().unwrap();
    let places = [first, second].map(|number| {
        let (block, at) = volume.layout().inode_place(number);
        block as usize * 1024 + at
    });
    let mut bytes = volume.into_disk().content().to_vec();
    let zones: [u8; 4] = bytes[places[0] + 24..][..4].try_into().unwrap();
    bytes[places[1] + 24..][..4].copy_from_slice(&zones);
    let disk = Memory::from(bytes);
    let error = Volume::mount(disk.clone(), Options::default()).err().unwrap();
    assert!(matches!(error, Error::Damaged(_)), "{error}");
    // Who only reads it gets what is not damaged.
    let options = Options { read_only: true, ..Options::default() };
    let mut volume = Volume::mount(disk, options).unwrap();
    assert!(!volume.check().unwrap().damage.is_empty());
    assert_eq!(volume.lookup(ROOT, b"a"), Ok(first));
}

#[test]
fn what_others_left_behind_the_end_of_a_file_does_not_come_into_it() {
    let mut volume = Volume::mount(empty(), Options::default()).unwrap();
    let file = volume.make(&USER, ROOT, b"f", 0o644, New::File).unwrap();
    volume.write(file, 0, &[1; 100]).unwrap();
    let at = volume.status(file).unwrap().inode.zones[0] as usize * 1024;
    let disk = volume.unmount().map_err(|(_, error)| error).unwrap();
    let mut bytes = disk.content().to_vec();
    bytes[at + 100..at + 1024].fill(9);
    let longer: [fn(&mut Volume<Memory>, u32); 3] = [
        |volume, file| volume.truncate(file, 2000).unwrap(),
        |volume, file| assert_eq!(volume.write(file, 600, &[2]), Ok(1)),
        |volume, file| assert_eq!(volume.write(file, 3000, &[2]), Ok(1)),
    ];
    for make_longer in longer {
        let mut volume = Volume::mount(Memory::from(bytes.clone()), Options::default()).unwrap();
        make_longer(&mut volume, file);
        let mut content = [7; 500];
        assert_eq!(volume.read(file, 100, &mut content), Ok(500));
        assert_eq!(content, [0; 500]);
    }
}

#[test]
fn directories_in_each_other_are_not_taken_for_one_that_was_moved() {
    let mut volume = Volume::mount(empty(), Options::default()).unwrap();
    let outer = volume.make(&USER, ROOT, b"outer", 0o755, New::Directory).unwrap();
    let inner = volume.make(&USER, outer, b"inner", 0o755, New::Directory).unwrap();
    volume.make(&USER, inner, b"x", 0o644, New::File).unwrap();
    volume.sync().unwrap();
    let zone = |volume: &mut Volume<Memory>, number| {
        volume.status(number).unwrap().inode.zones[0] as usize * 1024
    };
    let (outer_at, inner_at) = (zone(&mut volume, outer), zone(&mut volume, inner));
    let links = [outer, inner].map(|number| {
        let (block, at) = volume.layout().inode_place(number);
        block as usize * 1024 + at + 2
    });
    let mut bytes = volume.into_disk().content().to_vec();
    // The file in the inner one is the outer one now, which says so, too.
    bytes[inner_at + 128..][..4].copy_from_slice(&outer.to_le_bytes());
    bytes[outer_at + 64..][..4].copy_from_slice(&inner.to_le_bytes());
    // Their counts of names are high enough for all that, so that these say nothing.
    links.into_iter().for_each(|at| bytes[at] = 9);
    let error = Volume::mount(Memory::from(bytes), Options::default()).err().unwrap();
    assert!(matches!(error, Error::Damaged(Damage::Loop { .. })), "{error}");
}

/// Does something of everything with all that is found, whatever comes of it.
fn change_all(volume: &mut Volume<Memory>, directory: u32, depth: usize) {
    let mut found = Vec::new();
    let _ = volume.list(directory, 0, |entry| {
        found.push(entry.name.to_vec());
        true
    });
    let _ = volume.make(&USER, directory, b"made", 0o644, New::File);
    let _ = volume.make(&USER, directory, b"made-directory", 0o755, New::Directory);
    for name in found {
        let Ok(number) = volume.lookup(directory, &name) else { continue };
        let _ = volume.write(number, 500, &[1; 9000]);
        let _ = volume.truncate(number, 700);
        let _ = volume.link(&USER, number, directory, b"linked");
        let _ = volume.rename(&USER, directory, &name, directory, b"renamed", false);
        if depth > 0 && name != b"." && name != b".." {
            change_all(volume, number, depth - 1);
        }
        let _ = volume.unlink(&USER, directory, b"renamed");
        let _ = volume.remove_directory(&USER, directory, b"renamed");
        let _ = volume.sync();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn any_image_is_changed_or_refused_and_never_a_panic(
        changes in proptest::collection::vec((0_usize..100 * 1024, any::<u8>()), 1..12),
        clean: bool,
    ) {
        let mut volume = Volume::mount(empty(), Options::default()).unwrap();
        let directory = volume.make(&USER, ROOT, b"d", 0o755, New::Directory).unwrap();
        let file = volume.make(&USER, directory, b"f", 0o644, New::File).unwrap();
        volume.write(file, 0, &[5; 12_000]).unwrap();
        volume.make(&USER, ROOT, b"s", 0o777, New::SymbolicLink(b"d/f")).unwrap();
        let disk = volume.unmount().map_err(|(_, error)| error).unwrap();
        let mut bytes = disk.content().to_vec();
        for (at, value) in changes {
            // Most hit what has a meaning: the maps, the first inodes, the blocks in use.
            let at = match value % 4 {
                0 => at,
                1 => 2048 + at % 2048,
                2 => 4096 + at % 320,
                _ => 12_288 + at % 20_480,
            };
            bytes[at] = value;
        }
        bytes[1024 + 14] = clean.into();
        if let Ok(mut volume) = Volume::mount(Memory::from(bytes), Options::default()) {
            change_all(&mut volume, ROOT, 2);
            let _ = volume.unmount();
        }
    }
}
