// SPDX-License-Identifier: MIT OR Apache-2.0
//! All that can happen to a disk, with the power cut before, in and after each step: whatever comes, it boots an image that is confirmed or
//! is being tried, and a disk on which nothing new works ends on an image that does.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};

use dvs_slots::install::{confirm, give_up, install, Step, TEMPORARY};
use dvs_slots::slots::{Image, Mark, Slots, TRIES};

/// Whether an image works, and is whole: what a file is, apart from its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Content {
    Works,
    Broken,
    Torn,
}

/// The files of the folder.
type Files = BTreeMap<String, Content>;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Disk {
    files: Files,
    /// How many installations have begun, and so many more things can happen.
    begun: u32,
}

fn slots(files: &Files) -> Slots {
    Slots::of_names(files.keys().map(String::as_str))
}

/// All states in which a power cut in the middle of `step` can leave the files, the step done included.
fn outcomes(files: &Files, step: &Step, content: Content) -> Vec<Files> {
    let mut done = files.clone();
    match step {
        Step::Remove(name) => {
            done.remove(name).expect("a step removes what is there");
            vec![done]
        }
        Step::Write => {
            let mut torn = files.clone();
            torn.insert(TEMPORARY.to_owned(), Content::Torn);
            done.insert(TEMPORARY.to_owned(), content);
            vec![torn, done]
        }
        Step::Rename { from, to } => {
            let moved = done.remove(from).expect("a step renames what is there");
            done.insert(to.clone(), moved);
            // One write to the disk: the folder has so few names that all are in one sector.
            vec![done]
        }
    }
}

/// What the loader starts: the file of the image, and the files once it has counted.
fn start(files: &Files) -> (Image, Content, Files) {
    let image = slots(files).next().expect("there is always something to boot");
    let content = files[&image.to_string()];
    let counted = Slots::started(image);
    let mut after = files.clone();
    after.remove(&image.to_string());
    after.insert(counted.to_string(), content);
    (counted, content, after)
}

/// Every state that can follow: installing with a cut anywhere, booting, confirming, giving up.
fn successors(disk: &Disk) -> Vec<Disk> {
    let mut found = Vec::new();
    let (running, content, files) = start(&disk.files);
    found.push(Disk { files: files.clone(), ..disk.clone() });
    if content != Content::Works {
        // It hangs or reboots, and counting is all that happens.
        return found;
    }
    let mut cut = |files: &Files, step: &Step, content, begun| {
        let all = outcomes(files, step, content);
        let done = all.last().cloned().expect("a step can be done");
        found.extend(all.into_iter().map(|files| Disk { files, begun }));
        done
    };
    let confirmed = match confirm(&slots(&files), running.number).expect("what runs is there") {
        Some(step) => cut(&files, &step, Content::Works, disk.begun),
        None => files.clone(),
    };
    if let Ok(Some(step)) = give_up(&slots(&confirmed), running.number) {
        cut(&confirmed, &step, Content::Works, disk.begun);
    }
    if disk.begun < 3 {
        for content in [Content::Works, Content::Broken] {
            let Ok(plan) = install(&slots(&confirmed)) else { continue };
            let mut files = confirmed.clone();
            for step in &plan.steps {
                files = cut(&files, step, content, disk.begun + 1);
            }
        }
    }
    found
}

/// Everything that can be reached from a disk as it is made.
fn reachable() -> HashSet<Disk> {
    let first = Image { number: 1, mark: Mark::Confirmed };
    let files = Files::from([(first.to_string(), Content::Works)]);
    let mut seen = HashSet::new();
    let mut open = VecDeque::from([Disk { files, begun: 0 }]);
    while let Some(disk) = open.pop_front() {
        if seen.insert(disk.clone()) {
            open.extend(successors(&disk));
        }
    }
    seen
}

#[test]
fn whatever_happens_a_whole_image_is_started_and_one_that_works_is_confirmed() {
    let all = reachable();
    assert!(all.len() > 100, "only {} states", all.len());
    for disk in &all {
        let (_, content, _) = start(&disk.files);
        assert_ne!(content, Content::Torn, "{disk:?}");
        let confirmed = slots(&disk.files).confirmed();
        let works = |image: Image| disk.files[&image.to_string()] == Content::Works;
        assert!(confirmed.is_some_and(works), "{disk:?}");
    }
}

#[test]
fn every_disk_ends_on_an_image_that_works() {
    for disk in reachable() {
        let mut files = disk.files.clone();
        // A failing image is started until its tries are used up; then another has its turn.
        let ended = (0..=TRIES * 4).any(|_| {
            let (_, content, after) = start(&files);
            files = after;
            content == Content::Works
        });
        assert!(ended, "{disk:?}");
    }
}

#[test]
fn there_are_never_more_images_than_slots() {
    for disk in reachable() {
        let numbers: BTreeSet<_> = slots(&disk.files).images().map(|image| image.number).collect();
        assert!(numbers.len() <= dvs_slots::slots::SLOTS, "{disk:?}");
    }
}
