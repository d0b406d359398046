// SPDX-License-Identifier: MIT OR Apache-2.0
//! CDs (ECMA-119, known as ISO 9660): where files of theirs are on the medium.
//!
//! A CD has kernel and root of a node for a BIOS as files, and both once more in the program that UEFI reads from a volume that is on the CD
//! as well. They need not be there twice: a file can be any place of the medium.

use std::ops::Range;

/// Bytes of a sector, at which files begin.
pub const SECTOR: usize = 2048;

/// The label of a CD that boots a node.
pub const LABEL: &str = "DVS";
/// The unified kernel image as a file of it.
pub const PROGRAM: &str = "boot/dvs.efi";

/// Where the first volume descriptor is.
const DESCRIPTOR: usize = 16 * SECTOR;
/// Where in it the record of the root folder is.
const ROOT: usize = 156;

/// Why a file cannot be moved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CdError {
    /// It is no CD.
    #[error("it is no CD image: it has no primary volume descriptor")]
    NotACd,
    /// A folder or file is not there.
    #[error("the CD image has no {0}")]
    Missing(String),
    /// A record points outside of the image.
    #[error("the CD image is damaged: a folder is outside of it")]
    Damaged,
    /// Files begin at sectors.
    #[error("a file cannot begin at byte {0} of a CD, which is in the middle of a sector")]
    Unaligned(usize),
}

/// Makes the file `path` of a CD the bytes `content` of the medium, in place of what it was. Only the name counts that ISO 9660 itself has;
/// upper and lower case are the same.
///
/// # Errors
/// [`CdError`] when there is no such file, or it cannot be there.
pub fn place(image: &mut [u8], path: &str, content: Range<usize>) -> Result<(), CdError> {
    if !content.start.is_multiple_of(SECTOR) {
        return Err(CdError::Unaligned(content.start));
    }
    let (Ok(sector), Ok(length)) =
        (u32::try_from(content.start / SECTOR), u32::try_from(content.len()))
    else {
        return Err(CdError::Damaged);
    };
    if content.end > image.len() {
        return Err(CdError::Damaged);
    }
    if image.get(DESCRIPTOR..DESCRIPTOR + 6) != Some(b"\x01CD001") {
        return Err(CdError::NotACd);
    }
    let mut record = DESCRIPTOR + ROOT;
    for name in path.split('/') {
        record = find(image, record, name)?.ok_or_else(|| CdError::Missing(path.to_owned()))?;
    }
    // Each number is there in both orders of bytes.
    for (at, number) in [(2, sector), (10, length)] {
        let field = image.get_mut(record + at..record + at + 8).ok_or(CdError::Damaged)?;
        field[..4].copy_from_slice(&number.to_le_bytes());
        field[4..].copy_from_slice(&number.to_be_bytes());
    }
    Ok(())
}

/// How many bytes at the beginning of a medium tell its [`label`].
pub const HEAD: usize = DESCRIPTOR + SECTOR;

/// The label of the CD that begins with `head`; `None` when it is no CD.
pub fn label(head: &[u8]) -> Option<String> {
    let descriptor = head.get(DESCRIPTOR..HEAD)?;
    let label = descriptor.starts_with(b"\x01CD001").then(|| &descriptor[40..72])?;
    Some(std::str::from_utf8(label).ok()?.trim_end().to_owned())
}

/// Where the record of `name` is in the folder of the record at `folder`.
fn find(image: &[u8], folder: usize, name: &str) -> Result<Option<usize>, CdError> {
    let number = |at: usize| {
        let bytes = image.get(at..).and_then(|rest| rest.first_chunk::<4>());
        bytes.map(|bytes| u32::from_le_bytes(*bytes) as usize).ok_or(CdError::Damaged)
    };
    let begin = number(folder + 2)?.checked_mul(SECTOR).ok_or(CdError::Damaged)?;
    let end = begin
        .checked_add(number(folder + 10)?)
        .filter(|end| *end <= image.len())
        .ok_or(CdError::Damaged)?;
    let mut at = begin;
    while at < end {
        let length = usize::from(image[at]);
        if length == 0 {
            // No record reaches into another sector.
            at = (at + 1).next_multiple_of(SECTOR);
            continue;
        }
        let own =
            image.get(at + 33..at + 33 + usize::from(*image.get(at + 32).ok_or(CdError::Damaged)?));
        let own = String::from_utf8_lossy(own.ok_or(CdError::Damaged)?);
        let own = own.split(';').next().unwrap_or_default().trim_end_matches('.');
        if own.eq_ignore_ascii_case(name) {
            return Ok(Some(at));
        }
        at += length;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(image: &mut [u8], at: usize, sector: u32, length: u32, name: &[u8]) -> usize {
        let size = (33 + name.len()).next_multiple_of(2);
        image[at] = size as u8;
        image[at + 2..at + 6].copy_from_slice(&sector.to_le_bytes());
        image[at + 10..at + 14].copy_from_slice(&length.to_le_bytes());
        image[at + 32] = name.len() as u8;
        image[at + 33..at + 33 + name.len()].copy_from_slice(name);
        at + size
    }

    /// A CD with a folder in its root, whose last file is in the second sector of the folder.
    fn cd() -> Vec<u8> {
        let mut image = vec![0; 24 * SECTOR];
        image[DESCRIPTOR..DESCRIPTOR + 6].copy_from_slice(b"\x01CD001");
        record(&mut image, DESCRIPTOR + ROOT, 18, 2048, b"\0");
        let at = record(&mut image, 18 * SECTOR, 18, 2048, b"\0");
        record(&mut image, at, 19, 4096, b"BOOT");
        record(&mut image, 19 * SECTOR, 21, 1, b"INITRAMF.;1");
        record(&mut image, 20 * SECTOR, 22, 1, b"LINUX.;1");
        image
    }

    #[test]
    fn a_file_becomes_another_place_of_the_medium() {
        let mut image = cd();
        place(&mut image, "boot/linux", 23 * SECTOR..23 * SECTOR + 700).unwrap();
        let at = 20 * SECTOR;
        assert_eq!(image[at + 2..at + 10], [23, 0, 0, 0, 0, 0, 0, 23]);
        assert_eq!(image[at + 10..at + 18], [0xbc, 2, 0, 0, 0, 0, 2, 0xbc]);
        let mut rest = cd();
        rest[at + 2..at + 18].copy_from_slice(&image[at + 2..at + 18]);
        assert!(rest == image, "something else has changed");
    }

    #[test]
    fn what_is_not_there_or_cannot_be_there_is_refused() {
        let mut image = cd();
        let missing = |path: &str| Err(CdError::Missing(path.to_owned()));
        for path in ["boot/linu", "linux", "boots/linux", ""] {
            assert_eq!(place(&mut image, path, 0..10), missing(path));
        }
        assert_eq!(place(&mut image, "boot/linux", 512..600), Err(CdError::Unaligned(512)));
        assert_eq!(
            place(&mut image, "boot/linux", 23 * SECTOR..25 * SECTOR),
            Err(CdError::Damaged)
        );
        assert_eq!(place(&mut vec![0; 30 * SECTOR], "boot/linux", 0..10), Err(CdError::NotACd));
        assert_eq!(place(&mut [], "boot/linux", 0..0), Err(CdError::NotACd));
        image[18 * SECTOR..20 * SECTOR].fill(0xff);
        assert_eq!(place(&mut image, "boot/linux", 0..10), missing("boot/linux"));
        image[DESCRIPTOR + ROOT + 2..DESCRIPTOR + ROOT + 6].fill(0xff);
        assert_eq!(place(&mut image, "boot/linux", 0..10), Err(CdError::Damaged));
    }
}
