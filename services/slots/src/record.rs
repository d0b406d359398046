// SPDX-License-Identifier: MIT OR Apache-2.0
//! What became of the images of a disk, and why: a file beside them that nothing but people and reports depends on.

use serde::{Deserialize, Serialize};

use crate::slots::{Mark, Number, Slots};

/// What the file is called, in the root of the boot volume.
pub const FILE: &str = "dvs-images.toml";
/// How many images are remembered.
const REMEMBERED: usize = 16;
/// What is said of an image that has left no word.
const SILENT: &str = "it was started as often as it may be, and never said that it works: its kernel or PID 1 failed, or hung \
     until a watchdog restarted the machine";
/// What an image is remembered by that has got as far as its services, until it says more or is confirmed.
pub const STARTED: &str = "its services were started, and the machine restarted before they worked: it hung until a watchdog \
     restarted it, its kernel failed, or the power was cut";

/// One image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its number.
    pub number: Number,
    /// The version that it says it is.
    pub version: String,
    /// The SHA-256 of its file.
    pub sha256: String,
    /// Why it does not work, as far as it could say so itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// What came of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// A node works with it, or has.
    Confirmed,
    /// It is still tried.
    Trying,
    /// It was given up; why.
    GivenUp(String),
    /// A newer one has taken its slot.
    Replaced,
}

/// All images that are remembered, the newest last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Record {
    image: Vec<Entry>,
}

impl Record {
    /// Reads the file. One that makes no sense, which a power cut can leave, is taken for an empty one: nothing depends on it.
    pub fn parse(text: &str) -> Self {
        toml::from_str(text).unwrap_or_default()
    }

    /// The content of the file.
    #[expect(clippy::missing_panics_doc, reason = "every record has a TOML form")]
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("every record has a TOML form")
    }

    /// Remembers an image before it is installed.
    pub fn add(&mut self, entry: Entry) {
        self.image.retain(|other| other.number != entry.number);
        self.image.push(entry);
        let surplus = self.image.len().saturating_sub(REMEMBERED);
        self.image.drain(..surplus);
    }

    /// Notes why an image does not work. The last word counts.
    pub fn note(&mut self, number: Number, trouble: &str) {
        if let Some(entry) = self.image.iter_mut().find(|entry| entry.number == number) {
            entry.trouble = Some(trouble.to_owned());
        }
    }

    /// Forgets what was noted of an image: it works. Whether there was something.
    pub fn clear(&mut self, number: Number) -> bool {
        let entry = self.image.iter_mut().find(|entry| entry.number == number);
        entry.and_then(|entry| entry.trouble.take()).is_some()
    }

    /// The images that are remembered, and what came of each.
    pub fn fates<'a>(&'a self, slots: &'a Slots) -> impl Iterator<Item = (&'a Entry, Fate)> {
        self.image.iter().map(|entry| {
            let fate = match slots.image(entry.number).map(|image| image.mark) {
                Some(Mark::Confirmed) => Fate::Confirmed,
                Some(mark) if mark.is_bad() => Fate::GivenUp(reason(entry)),
                Some(_) => Fate::Trying,
                None if entry.trouble.is_some() => Fate::GivenUp(reason(entry)),
                None => Fate::Replaced,
            };
            (entry, fate)
        })
    }
}

fn reason(entry: &Entry) -> String {
    entry.trouble.clone().unwrap_or_else(|| SILENT.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: Number) -> Entry {
        Entry { number, version: "0.2.0".into(), sha256: "ab".into(), trouble: None }
    }

    #[test]
    fn the_record_tells_what_came_of_each_image() {
        let mut record = Record::default();
        (1..=4).for_each(|number| record.add(entry(number)));
        record.note(3, "its dvsd did not become ready in 120 s");
        record.note(9, "nobody");
        let slots = Slots::of_names(["dvs-2.efi", "dvs-3+0-1.efi", "dvs-4+0-3.efi"]);
        let fates: Vec<_> = record.fates(&slots).map(|(_, fate)| fate).collect();
        let given_up = |why: &str| Fate::GivenUp(why.to_owned());
        let expected = [
            Fate::Replaced,
            Fate::Confirmed,
            given_up("its dvsd did not become ready in 120 s"),
            given_up(SILENT),
        ];
        assert_eq!(fates, expected);
        assert_eq!(Record::parse(&record.to_toml()), record);
    }

    #[test]
    fn an_image_that_works_in_the_end_has_had_no_trouble() {
        let mut record = Record::default();
        (1..=2).for_each(|number| record.add(entry(number)));
        record.note(2, STARTED);
        let fate = |record: &Record, name| {
            let slots = Slots::of_names(["dvs-1.efi", name]);
            record.fates(&slots).last().map(|(_, fate)| fate)
        };
        assert_eq!(fate(&record, "dvs-2+1-2.efi"), Some(Fate::Trying));
        assert_eq!(fate(&record, "dvs-2+0-3.efi"), Some(Fate::GivenUp(STARTED.to_owned())));
        assert!(record.clear(2) && !record.clear(2) && !record.clear(9));
        assert_eq!(fate(&record, "dvs-2.efi"), Some(Fate::Confirmed));
        assert_eq!(fate(&record, "dvs-3.efi"), Some(Fate::Replaced));
    }

    #[test]
    fn a_broken_file_is_an_empty_record_and_old_images_are_forgotten() {
        assert_eq!(Record::parse("[[image]]\nnumb"), Record::default());
        let mut record = Record::default();
        (1..=40).for_each(|number| record.add(entry(number)));
        assert_eq!(record.image.len(), REMEMBERED);
        assert_eq!(record.image.last().map(|entry| entry.number), Some(40));
        record.add(entry(40));
        assert_eq!(record.image.len(), REMEMBERED);
    }
}
