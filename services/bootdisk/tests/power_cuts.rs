// SPDX-License-Identifier: MIT OR Apache-2.0
//! The power is cut at every moment of everything that a node writes to the disk that it boots from: the disk boots a whole image then,
//! the confirmed one works, and the next image can be installed.
//!
//! The disk is one of sectors, each of which is written whole or not at all. What lies between two barriers may reach it in any order: a
//! cut leaves what was written until some moment, or any part of it.

mod recorder;

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use dvs_bootdisk::firmware::Started;
use dvs_bootdisk::volume::Place;
use dvs_bootdisk::{layout, BootDisk};
use dvs_image::uki::{self, Section};
use dvs_image::volume::{self, File, Kind, BOOT_LABEL};
use dvs_slots::slots::{Slots, FOLDER, TRIES};
use recorder::{Disk, Event};

/// Bytes of the volume: among the smallest that FAT32 has.
const BYTES: u64 = 68 << 20;
/// Whether the image of this number works. It is told from others by its kernel.
const WORKS: [bool; 5] = [true, true, false, true, true];
/// The image that is installed after a cut.
const NEXT: usize = 4;

/// An image, of a few sectors.
fn image(number: usize) -> Vec<u8> {
    let kernel = vec![number as u8 + 1; 1200];
    let sections = [(".linux", &kernel[..]), (".initrd", &[1]), (".cmdline", &[2])];
    let sections = sections.map(|(name, content)| Section { name, content });
    uki::build(&uki::sample_stub(), &sections).unwrap()
}

/// A disk with one image. `others` are files in its folder that are not ours: with some, names of images are in several sectors, as firmware
/// leaves them.
fn fresh(others: usize) -> Disk {
    let mut disk = Disk::new(BYTES);
    volume::make(&mut disk, Kind::Fat32, BOOT_LABEL).unwrap();
    for other in 0..others {
        let path = format!("{FOLDER}/other file {other}");
        volume::put(&mut disk, File { path: &path, content: b"x" }).unwrap();
    }
    for (path, content) in layout::files(b"loader", &image(0), "1.0") {
        volume::put(&mut disk, File { path: &path, content: &content }).unwrap();
    }
    disk
}

fn slots(disk: &mut Disk) -> Slots {
    let names = volume::names(disk, FOLDER).unwrap();
    Slots::of_names(names.iter().map(String::as_str))
}

/// What the loader starts next, after it has counted; and which image it is, if it is a whole one.
fn start(disk: &mut Disk) -> (Started, Option<usize>) {
    let next = slots(disk).next().expect("there is always something to boot");
    let image = Slots::started(next);
    let path = |name: String| format!("{FOLDER}/{name}");
    if image != next {
        volume::rename(disk, &path(next.to_string()), &path(image.to_string())).unwrap();
    }
    let content = volume::read(disk, &path(image.to_string())).unwrap().unwrap();
    let which = (0..WORKS.len()).find(|number| self::image(*number) == content);
    (Started { image, partition: "ab".into() }, which)
}

/// The loader starts one image after the other until one works.
fn boot(disk: &mut Disk) -> Started {
    for _ in 0..=TRIES {
        let (started, which) = start(disk);
        if WORKS[which.expect("a whole image is started")] {
            return started;
        }
    }
    panic!("no image that works was started: {:?}", slots(disk));
}

/// Does something with a disk; the disk afterwards, and what was written.
fn acted(
    disk: &Disk,
    started: Started,
    act: impl FnOnce(&BootDisk) -> Result<(), dvs_bootdisk::Error>,
) -> (Disk, Vec<Event>) {
    let mut own = disk.clone();
    own.events.clear();
    let shared = Arc::new(Mutex::new(own));
    act(&BootDisk::at(Place::Open(shared.clone()), started)).unwrap();
    let mut disk = shared.lock().unwrap().clone();
    let events = std::mem::take(&mut disk.events);
    (disk, events)
}

/// What is so whenever the power is cut; and the node goes on from there.
fn check(disk: &Disk) {
    let mut disk = disk.clone();
    let confirmed = slots(&mut disk).confirmed().expect("an image is confirmed");
    let path = format!("{FOLDER}/{confirmed}");
    let content = volume::read(&mut disk, &path).unwrap().unwrap();
    let is_good = |number: &usize| WORKS[*number] && image(*number) == content;
    assert!((0..WORKS.len()).any(|number| is_good(&number)), "{path} is no image that works");
    let started = boot(&mut disk);
    let (mut disk, _) = acted(&disk, started.clone(), |node| {
        if node.is_tried() {
            node.confirm()?;
        }
        node.install("9.0", &image(NEXT)).map(drop)
    });
    let (_, which) = start(&mut disk);
    assert_eq!(which, Some(NEXT), "{:?}", slots(&mut disk));
    // What has come is not part of what was there.
    let path = format!("{FOLDER}/{}", slots(&mut disk).confirmed().unwrap());
    let content = volume::read(&mut disk, &path).unwrap().unwrap();
    assert!((0..WORKS.len()).any(|number| WORKS[number] && image(number) == content), "{path}");
}

#[test]
fn the_power_may_be_cut_at_every_moment() {
    cut_everywhere(0);
}

#[test]
fn the_power_may_be_cut_at_every_moment_where_names_are_in_several_sectors() {
    cut_everywhere(6);
}

/// Everything that a node does with its disk, one after the other, and each cut at every moment.
fn cut_everywhere(others: usize) {
    type Act = fn(&BootDisk) -> Result<(), dvs_bootdisk::Error>;
    let acts: [(&str, Act); 8] = [
        ("install the second image", |node| node.install("1.1", &image(1)).map(drop)),
        ("say that it has come so far", |node| node.begin().map(drop)),
        ("confirm it", |node| node.confirm().map(drop)),
        ("install a bad one over the first", |node| node.install("1.2", &image(2)).map(drop)),
        ("give it up", |node| node.give_up("it found nobody")),
        ("install another over it", |node| node.install("1.3", &image(3)).map(drop)),
        ("confirm that", |node| node.confirm().map(drop)),
        ("go back", |node| node.give_up("people say so")),
    ];
    let mut disk = fresh(others);
    let (mut cuts, mut states) = (0, HashSet::new());
    for (what, act) in acts {
        let (started, _) = start(&mut disk);
        let (after, events) = acted(&disk, started, act);
        let barriers = events.iter().filter(|event| matches!(event, Event::Barrier)).count();
        assert!(
            barriers > 0 && matches!(events.last(), Some(Event::Barrier)),
            "{what}: {events:?}"
        );
        for state in recorder::cuts(&disk, &events) {
            cuts += 1;
            if states.insert(state.digest()) {
                check(&state);
            }
        }
        disk = after;
    }
    assert!(cuts > 200 && states.len() > 100, "only {cuts} cuts and {} states", states.len());
}
