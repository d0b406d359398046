// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is done with images without a server: making and checking file systems.

use super::RunError;
use crate::disk::Image;
use crate::format::{make, Layout};
use crate::volume::{Options, Report, Volume};
use std::fs::OpenOptions;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Makes an empty file system in the file or on the block device at `path`. With `bytes`, it is a file that is made, with
/// this size; it must not be there. What is on a device or in a file that is there is lost.
///
/// # Errors
/// [`RunError::File`], [`RunError::Make`].
pub fn make_image(
    path: &Path,
    bytes: Option<u64>,
    block_bytes: u32,
    inodes: u32,
) -> Result<Layout, RunError> {
    let failed = |what| move |error| RunError::File { what, path: path.to_path_buf(), error };
    if let Some(bytes) = bytes {
        let file = OpenOptions::new().write(true).create_new(true).open(path);
        let file = file.map_err(failed("make"))?;
        file.set_len(bytes).map_err(failed("size"))?;
    }
    let mut image = Image::open(path, false).map_err(failed("open"))?;
    make(&mut image, block_bytes, inodes, seconds())
        .map_err(|error| RunError::Make { path: path.to_path_buf(), error })
}

/// What time it is, in seconds since 1970.
pub(super) fn seconds() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_secs().try_into().unwrap_or(u32::MAX)
}

/// What a check has found.
#[derive(Clone, Debug)]
pub struct Checked {
    /// What was there.
    pub report: Report,
    /// Whether it was cleared up.
    pub is_cleared: bool,
}

/// Checks a file system that is not mounted. With `clear_up`, what a power cut left is cleared up, if there is no damage.
///
/// # Errors
/// [`RunError::File`], [`RunError::FileSystem`].
pub fn check(path: &Path, clear_up: bool) -> Result<Checked, RunError> {
    let failed = |error| RunError::FileSystem { path: path.to_path_buf(), error };
    let open = |read_only| {
        let opened = Image::open(path, read_only);
        opened.map_err(|error| RunError::File { what: "open", path: path.to_path_buf(), error })
    };
    let options = Options { read_only: true, ..Options::default() };
    let mut volume = Volume::mount(open(true)?, options).map_err(failed)?;
    let report = volume.check().map_err(failed)?;
    let is_cleared = clear_up && !report.is_sound() && report.damage.is_empty();
    if is_cleared {
        drop(volume);
        // One that says that it was unmounted is not looked at by mounting it.
        let mut volume = Volume::mount(open(false)?, Options::default()).map_err(failed)?;
        let report = volume.check().map_err(failed)?;
        if !report.is_sound() {
            volume.clear_up(&report).map_err(failed)?;
        }
        volume.unmount().map_err(|(_, error)| failed(error))?;
    }
    Ok(Checked { report, is_cleared })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::ROOT;
    use crate::volume::{New, User};

    #[test]
    fn what_a_power_cut_left_is_found_and_cleared_up_if_that_is_wanted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        let layout = make_image(&path, Some(1 << 20), 1024, 64).unwrap();
        assert_eq!((layout.zones, layout.inodes), (1024, 64));
        assert!(make_image(&path, Some(1 << 20), 1024, 64).is_err(), "it is there");
        assert!(check(&path, true).unwrap().report.is_sound());

        let mut volume =
            Volume::mount(Image::open(&path, false).unwrap(), Options::default()).unwrap();
        let number = volume.make(&User::SUPERUSER, ROOT, b"f", 0o644, New::File).unwrap();
        volume.write(number, 0, &[1; 5000]).unwrap();
        volume.hold(number).unwrap();
        volume.unlink(&User::SUPERUSER, ROOT, b"f").unwrap();
        volume.sync().unwrap();
        drop(volume.into_disk());

        let checked = check(&path, false).unwrap();
        assert_eq!((checked.report.inodes, checked.report.zones.len()), (vec![number], 5));
        assert!(!checked.is_cleared);
        assert!(check(&path, true).unwrap().is_cleared);
        assert!(check(&path, true).unwrap().report.is_sound());
    }
}
