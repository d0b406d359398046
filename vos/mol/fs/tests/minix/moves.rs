// SPDX-License-Identifier: MIT OR Apache-2.0
//! Power cuts while names are exchanged for each other, where half of it would lose a file.

use crate::platter::{Platter, Recorder};
use crate::random::Random;
use mol_fs::disk::Memory;
use mol_fs::format::{make, ROOT};
use mol_fs::volume::{New, Options, User};
use mol_fs::Volume;

type Tree = Volume<Recorder>;

/// How many images are made of each point in time.
const IMAGES: u32 = 40;

/// Directory and name of a path without links.
fn find(volume: &mut Tree, path: &str) -> (u32, Vec<u8>) {
    let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
    let names = above.split('/').filter(|name| !name.is_empty());
    let directory =
        names.fold(ROOT, |directory, name| volume.lookup(directory, name.as_bytes()).unwrap());
    (directory, name.as_bytes().to_vec())
}

fn directory(volume: &mut Tree, path: &str) {
    let (above, name) = find(volume, path);
    volume.make(&User::SUPERUSER, above, &name, 0o755, New::Directory).unwrap();
}

fn file(volume: &mut Tree, path: &str, content: &[u8]) {
    let (above, name) = find(volume, path);
    let number = volume.make(&User::SUPERUSER, above, &name, 0o644, New::File).unwrap();
    volume.write(number, 0, content).unwrap();
}

fn link(volume: &mut Tree, old: &str, new: &str) {
    let (above, name) = find(volume, old);
    let number = volume.lookup(above, &name).unwrap();
    let (above, name) = find(volume, new);
    volume.link(&User::SUPERUSER, number, above, &name).unwrap();
}

fn rename(volume: &mut Tree, old: &str, new: &str) {
    let ((from, old), (to, new)) = (find(volume, old), find(volume, new));
    volume.rename(&User::SUPERUSER, from, &old, to, &new, false).unwrap();
}

fn remove_directory(volume: &mut Tree, path: &str) {
    let (above, name) = find(volume, path);
    volume.remove_directory(&User::SUPERUSER, above, &name).unwrap();
}

/// The content of all files in a directory and those below it.
fn contents(volume: &mut Tree, directory: u32, found: &mut Vec<Vec<u8>>) {
    let mut numbers = Vec::new();
    volume
        .list(directory, 0, |entry| {
            if entry.name != b"." && entry.name != b".." {
                numbers.push(entry.number);
            }
            true
        })
        .unwrap();
    for number in numbers {
        if volume.status(number).unwrap().inode.is_directory() {
            contents(volume, number, found);
        } else {
            let mut content = vec![0; 100];
            let count = volume.read(number, 0, &mut content).unwrap();
            content.truncate(count);
            found.push(content);
        }
    }
}

/// Makes a tree, syncs, changes it, and cuts the power anywhere in what follows. All of `kept` must be in some file
/// then, and something at each of these paths.
fn cut_anywhere(
    make_tree: impl Fn(&mut Tree),
    change: impl Fn(&mut Tree),
    kept: &[&[u8]],
    paths: &[&str],
) {
    let mut disk = Memory::new(200 << 10);
    make(&mut disk, 1024, 64, 0).unwrap();
    let recorder = Recorder::new(disk);
    let mut volume = Volume::mount(recorder.clone(), Options::default()).unwrap();
    make_tree(&mut volume);
    volume.sync().unwrap();
    let mut platter = Platter::new(&recorder.content());
    recorder.take_events();
    change(&mut volume);
    volume.sync().unwrap();
    let mut random = Random::new(1);
    for event in recorder.take_events() {
        platter.apply(&event);
        for _ in 0..IMAGES {
            let recorder = Recorder::new(platter.cut(&mut random, 30));
            let mut volume = Volume::mount(recorder, Options::default()).unwrap();
            let mut found = Vec::new();
            contents(&mut volume, ROOT, &mut found);
            for content in kept {
                assert!(found.iter().any(|found| found == content), "{content:?} of {found:?}");
            }
            for path in paths {
                let (above, name) = find(&mut volume, path);
                assert!(volume.lookup(above, &name).is_ok(), "{path} is gone");
            }
        }
    }
}

#[test]
fn a_name_that_comes_back_waits_for_the_other_name_of_what_had_it() {
    cut_anywhere(
        |tree| {
            directory(tree, "d");
            file(tree, "a", b"one");
        },
        |tree| {
            rename(tree, "a", "d/t");
            file(tree, "a", b"two");
        },
        &[b"one"],
        &[],
    );
}

#[test]
fn what_is_replaced_keeps_its_other_name() {
    cut_anywhere(
        |tree| {
            directory(tree, "d");
            file(tree, "a", b"one");
            file(tree, "x", b"two");
        },
        |tree| {
            link(tree, "a", "d/t");
            rename(tree, "x", "a");
        },
        &[b"one", b"two"],
        &["a"],
    );
}

#[test]
fn what_was_moved_out_of_a_directory_outlives_it() {
    let tree = |tree: &mut Tree| {
        ["a", "b", "d"].iter().for_each(|path| directory(tree, path));
        file(tree, "a/f", b"one");
    };
    let replaced = |tree: &mut Tree| {
        rename(tree, "a/f", "d/f");
        rename(tree, "b", "a");
    };
    cut_anywhere(tree, replaced, &[b"one"], &["a"]);
    let made_again = |tree: &mut Tree| {
        rename(tree, "a/f", "d/f");
        remove_directory(tree, "a");
        directory(tree, "a");
    };
    cut_anywhere(tree, made_again, &[b"one"], &[]);
}

#[test]
fn directories_that_change_places_do_not_end_in_each_other() {
    cut_anywhere(
        |tree| {
            directory(tree, "d");
            directory(tree, "d/e");
            file(tree, "d/e/f", b"one");
            file(tree, "d/g", b"two");
        },
        |tree| {
            rename(tree, "d/e", "e");
            rename(tree, "d", "e/d");
        },
        &[b"one", b"two"],
        &[],
    );
}

#[test]
fn a_directory_does_not_go_back_to_where_it_was_moved_from() {
    cut_anywhere(
        |tree| {
            ["p", "q", "p/x", "q/y"].iter().for_each(|path| directory(tree, path));
            file(tree, "p/x/f", b"one");
        },
        |tree| rename(tree, "p/x", "q/y"),
        &[b"one"],
        &["q/y"],
    );
}

#[test]
fn a_directory_that_gets_another_block_has_no_names_too_early() {
    let tree = |tree: &mut Tree| {
        directory(tree, "d");
        // With `.` and `..`, these fill a block.
        (0..14).for_each(|index| file(tree, &format!("d/{index}"), b"old"));
    };
    cut_anywhere(tree, |tree| file(tree, "d/new", b"new"), &[b"old"], &["d/0", "d/13"]);
}
