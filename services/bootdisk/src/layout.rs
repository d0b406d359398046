// SPDX-License-Identifier: MIT OR Apache-2.0
//! The files of a boot volume as it begins: the loader, and one image, which is confirmed since there is no other.

use dvs_slots::record::{self, Entry, Record};
use dvs_slots::slots::{Image, Mark, FOLDER};

/// What firmware starts from a disk that it does not know.
pub const FALLBACK: &str = "EFI/BOOT/BOOTX64.EFI";
/// Nobody chooses at every start; holding a key shows the menu. Where firmware or the image itself refuses an image that is tried, the
/// machine starts again, since that used one of its tries: firmware would go on to what else it knows, and often wait for a person.
const LOADER_OPTIONS: &str = "timeout 0\nreboot-on-error auto\n";

/// Their paths and contents, in the order in which they are to be written: the one without which nothing boots comes last.
pub fn files(loader: &[u8], image: &[u8], version: &str) -> Vec<(String, Vec<u8>)> {
    let first = Image { number: 1, mark: Mark::Confirmed };
    let mut record = Record::default();
    record.add(Entry {
        number: first.number,
        version: version.to_owned(),
        sha256: crate::volume::hash_of(image),
        trouble: None,
    });
    vec![
        ("loader/loader.conf".to_owned(), LOADER_OPTIONS.into()),
        (record::FILE.to_owned(), record.to_toml().into_bytes()),
        (format!("{FOLDER}/{first}"), image.to_vec()),
        (FALLBACK.to_owned(), loader.to_vec()),
    ]
}
