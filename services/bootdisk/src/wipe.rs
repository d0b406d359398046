// SPDX-License-Identifier: MIT OR Apache-2.0
//! Making a disk that boots a node one that boots nothing: its secrets and its way to start go.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;

use dvs_image::disk;
use rustix::fs::OFlags;

use crate::install::{Error, Machine, Target};

/// How much is written at once.
const PIECE: usize = 1 << 20;

impl Machine {
    /// Looks at a disk that boots a node and nothing else.
    ///
    /// # Errors
    /// When it is not one, has something else as well, or is in use.
    pub fn examine_boot_disk(&self, disk: &str) -> Result<Target, Error> {
        let target = self.examine(disk)?;
        let unfit = |why: String| Error::Unfit { disk: target.path().to_owned(), why };
        let mut file = File::open(target.path()).map_err(target.failed("open"))?;
        match disk::names(&mut file).as_deref() {
            Ok([only]) if only == disk::BOOT_PARTITION => Ok(target),
            Ok(names) if names.iter().any(|name| name == disk::BOOT_PARTITION) => Err(unfit(
                format!("it has more than what boots a node: partitions {}", names.join(", ")),
            )),
            _ => Err(unfit(format!(
                "it does not boot a node: it has no partition {}",
                disk::BOOT_PARTITION
            ))),
        }
    }
}

impl Target {
    /// Writes zeros over the partition that boots a node, with the configuration and its secrets in it, and over both partition tables.
    ///
    /// What makes the disk boot goes first: whenever the power is cut, it boots the node or nothing.
    ///
    /// # Errors
    /// When the disk is in use or fails.
    pub fn wipe(&self) -> Result<(), Error> {
        // Linux lets nobody else use a disk that was opened so.
        let exclusive = OFlags::EXCL.bits().cast_signed();
        let mut options = File::options();
        let opened = options.read(true).write(true).custom_flags(exclusive).open(self.path());
        let mut device = opened.map_err(self.failed("open"))?;
        let range = disk::find(&mut device, disk::BOOT_PARTITION).map_err(self.failed("read"))?;
        let range = range.ok_or_else(|| Error::Unfit {
            disk: self.path().to_owned(),
            why: format!("it has no partition {} any more", disk::BOOT_PARTITION),
        })?;
        let end = device.seek(SeekFrom::End(0)).map_err(self.failed("read"))?;
        let mut zero = || -> io::Result<()> {
            zeros(&mut device, range.start..range.end)?;
            device.sync_all()?;
            // The second table is at the end; the first, in front of the partition, leads to it.
            zeros(&mut device, end.saturating_sub(PIECE as u64).max(range.end)..end)?;
            zeros(&mut device, 0..range.start.min(PIECE as u64))?;
            device.sync_all()
        };
        zero().map_err(self.failed("write to"))
    }
}

fn zeros(device: &mut File, range: std::ops::Range<u64>) -> io::Result<()> {
    let zeros = vec![0; PIECE];
    device.seek(SeekFrom::Start(range.start))?;
    let mut left = range.end - range.start;
    while left > 0 {
        let length = left.min(PIECE as u64);
        device.write_all(&zeros[..length as usize])?;
        left -= length;
    }
    Ok(())
}
