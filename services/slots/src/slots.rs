// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is in the slots, and what the boot loader makes of it.

use std::collections::BTreeMap;
use std::fmt;

/// How many images there may be at a time.
pub const SLOTS: usize = 2;
/// How often an image is tried before it is given up.
pub const TRIES: u32 = 3;
/// Where images are on the boot volume.
pub const FOLDER: &str = "EFI/Linux";

const PREFIX: &str = "dvs-";
const SUFFIX: &str = ".efi";

/// Numbers images in the order in which they were installed; the first is 1.
pub type Number = u32;

/// What is known about an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mark {
    /// A node has worked with it.
    Confirmed,
    /// It may be tried `left` times; it was tried `done` times. With none left it is bad.
    Counting {
        /// Tries that are left.
        left: u32,
        /// Tries that have been made.
        done: u32,
    },
}

impl Mark {
    /// Of an image that nobody has tried.
    pub const FRESH: Mark = Mark::Counting { left: TRIES, done: 0 };

    /// Whether it was given up.
    pub fn is_bad(self) -> bool {
        matches!(self, Mark::Counting { left: 0, .. })
    }
}

/// An image and its mark: the name of its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Image {
    /// Its number.
    pub number: Number,
    /// What is known about it.
    pub mark: Mark,
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", self.number)?;
        match self.mark {
            Mark::Confirmed => {}
            Mark::Counting { left, done: 0 } => write!(f, "+{left}")?,
            Mark::Counting { left, done } => write!(f, "+{left}-{done}")?,
        }
        f.write_str(SUFFIX)
    }
}

impl Image {
    /// Reads the name of a file, upper and lower case being the same; `None` when it is none of ours.
    pub fn of_name(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        let stem = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
        let number = |text: &str| {
            let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            plain.then(|| text.parse().ok()).flatten()
        };
        let (own, mark) = match stem.split_once('+') {
            None => (stem, Mark::Confirmed),
            Some((own, counters)) => {
                let (left, done) = counters.split_once('-').unwrap_or((counters, "0"));
                (own, Mark::Counting { left: number(left)?, done: number(done)? })
            }
        };
        Some(Self { number: number(own).filter(|number| *number > 0)?, mark })
    }
}

/// The images of a disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slots(BTreeMap<Number, Mark>);

impl Slots {
    /// Those among the files of [`FOLDER`]. Of two files with one number, which is not ours to make, the one that is worth less
    /// counts.
    pub fn of_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut slots = BTreeMap::new();
        for image in names.into_iter().filter_map(Image::of_name) {
            let worth = |mark: Mark| match mark {
                Mark::Confirmed => u32::MAX,
                Mark::Counting { left, .. } => left,
            };
            let mark = slots.entry(image.number).or_insert(image.mark);
            if worth(image.mark) < worth(*mark) {
                *mark = image.mark;
            }
        }
        Self(slots)
    }

    /// All images, by number.
    pub fn images(&self) -> impl DoubleEndedIterator<Item = Image> + '_ {
        self.0.iter().map(|(&number, &mark)| Image { number, mark })
    }

    /// An image, if it is there.
    pub fn image(&self, number: Number) -> Option<Image> {
        self.0.get(&number).map(|&mark| Image { number, mark })
    }

    /// What the loader starts next: the newest that is not bad, or else the newest.
    pub fn next(&self) -> Option<Image> {
        let good = self.images().rev().find(|image| !image.mark.is_bad());
        good.or_else(|| self.images().next_back())
    }

    /// The newest that a node is known to work with.
    pub fn confirmed(&self) -> Option<Image> {
        self.images().rev().find(|image| image.mark == Mark::Confirmed)
    }

    /// What becomes of an image as the loader starts it: a try is counted.
    pub fn started(image: Image) -> Image {
        let mark = match image.mark {
            Mark::Counting { left, done } => {
                Mark::Counting { left: left.saturating_sub(1), done: done.saturating_add(1) }
            }
            Mark::Confirmed => Mark::Confirmed,
        };
        Image { mark, ..image }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_those_that_the_loader_makes() {
        let image = |number, mark| Image { number, mark };
        for (name, expected) in [
            ("dvs-7.efi", image(7, Mark::Confirmed)),
            ("dvs-8+3.efi", image(8, Mark::FRESH)),
            ("dvs-8+2-1.efi", image(8, Mark::Counting { left: 2, done: 1 })),
            ("dvs-8+0-3.efi", image(8, Mark::Counting { left: 0, done: 3 })),
        ] {
            assert_eq!(Image::of_name(name), Some(expected), "{name}");
            assert_eq!(expected.to_string(), name);
            assert_eq!(Image::of_name(&name.to_ascii_uppercase()), Some(expected), "{name}");
        }
        for name in [
            "",
            "dvs-.efi",
            "dvs-0.efi",
            "dvs-a.efi",
            "dvs-1+.efi",
            "dvs-1+-1.efi",
            "dvs-1+1-.efi",
            "dvs-1+2-1-0.efi",
            "dvs--1.efi",
            "dvs-+1.efi",
            "dvs-1.efi.new",
            "linux-1.efi",
            "dvs-99999999999.efi",
        ] {
            assert_eq!(Image::of_name(name), None, "{name}");
        }
    }

    #[test]
    fn the_loader_starts_the_newest_that_is_not_bad() {
        let next =
            |names: &[&str]| Slots::of_names(names.iter().copied()).next().map(|next| next.number);
        assert_eq!(next(&["dvs-7.efi", "dvs-8.efi"]), Some(8));
        assert_eq!(next(&["dvs-7.efi", "dvs-8+1-2.efi"]), Some(8));
        assert_eq!(next(&["dvs-7.efi", "dvs-8+0-3.efi"]), Some(7));
        assert_eq!(next(&["dvs-9.efi", "dvs-10.efi"]), Some(10));
        assert_eq!(next(&["dvs-7+0-3.efi"]), Some(7));
        assert_eq!(next(&["memtest.efi"]), None);
    }

    #[test]
    fn of_two_files_with_one_number_the_lesser_counts() {
        let slots = Slots::of_names(["dvs-8+2-1.efi", "dvs-8+3.efi"]);
        assert_eq!(slots.image(8).unwrap().to_string(), "dvs-8+2-1.efi");
        let slots = Slots::of_names(["dvs-8.efi", "dvs-8+1-2.efi"]);
        assert_eq!(slots.confirmed(), None);
    }

    #[test]
    fn an_image_that_is_never_confirmed_is_bad_after_three_tries() {
        let mut image = Image { number: 2, mark: Mark::FRESH };
        for _ in 0..TRIES {
            assert!(!image.mark.is_bad());
            image = Slots::started(image);
        }
        assert_eq!(image.to_string(), "dvs-2+0-3.efi");
        let confirmed = Image { number: 1, mark: Mark::Confirmed };
        assert_eq!(Slots::started(confirmed), confirmed);
    }

    proptest! {
        #[test]
        fn every_image_is_read_back_from_its_name(number in 1..u32::MAX, left: u32, done: u32) {
            for mark in [Mark::Confirmed, Mark::Counting { left, done }] {
                let image = Image { number, mark };
                prop_assert_eq!(Image::of_name(&image.to_string()), Some(image));
            }
        }
    }
}
