// SPDX-License-Identifier: MIT OR Apache-2.0
//! The content of files.

use super::map::content_role;
use super::{Mode, Volume};
use crate::cache::Tag;
use crate::disk::Disk;
use crate::error::Error;
use crate::format::Kind;
use mol_protocol::Errno;

/// How many blocks are read ahead of a reader that goes on where it was.
const AHEAD: u32 = 64;

impl<D: Disk> Volume<D> {
    /// Copies the content of a file from byte `position` on into `into`. The result is how many bytes; it is
    /// less only at the end of the file.
    ///
    /// # Errors
    /// It is no file, or damaged, or the disk failed.
    pub fn read(&mut self, number: u32, position: u64, into: &mut [u8]) -> Result<usize, Error> {
        match self.node(number)?.kind {
            Kind::Regular => self.read_content(number, position, into),
            Kind::Directory => Err(Errno::IsDirectory.into()),
            _ => Err(Errno::Invalid.into()),
        }
    }

    /// The same for whatever has content.
    pub(super) fn read_content(
        &mut self,
        number: u32,
        position: u64,
        into: &mut [u8],
    ) -> Result<usize, Error> {
        let node = self.node(number)?;
        let tag = Tag { owner: number, role: content_role(node.kind) };
        let left = u64::from(node.inode.bytes).saturating_sub(position);
        let count = left.min(into.len() as u64) as usize;
        let block_bytes = u64::from(self.layout.block_bytes);
        let mut done = 0;
        while done < count {
            let at = position + done as u64;
            let (index, offset) = ((at / block_bytes) as u32, (at % block_bytes) as usize);
            let part = (block_bytes as usize - offset).min(count - done);
            let to = &mut into[done..done + part];
            match self.zone_at(number, index)? {
                0 => to.fill(0),
                zone => {
                    self.read_ahead(number, index, zone, tag)?;
                    to.copy_from_slice(&self.cache.block(zone, tag)?[offset..offset + part]);
                }
            }
            done += part;
        }
        Ok(count)
    }

    /// Reads blocks that lie behind block `index` of the file on the disk as well, if it is read in order.
    fn read_ahead(&mut self, number: u32, index: u32, zone: u32, tag: Tag) -> Result<(), Error> {
        let node = self.node(number)?;
        let (ahead, bytes) = (node.ahead, node.inode.bytes);
        // Who begins at the beginning is expected to go on; who comes in between is not.
        if index != ahead {
            if index > ahead || index + AHEAD < ahead {
                self.node_mut(number)?.ahead = index + 1;
            }
            return Ok(());
        }
        let last = bytes.div_ceil(self.layout.block_bytes);
        let mut run = 1;
        while run < AHEAD && index + run < last && self.zone_at(number, index + run)? == zone + run
        {
            run += 1;
        }
        self.cache.read_ahead(zone, run, tag)?;
        self.node_mut(number)?.ahead = index + run;
        Ok(())
    }

    /// Copies `data` into a file from byte `position` on, which may be behind its end. The result is how many
    /// bytes; it is less only if the disk is full or failed, or the file cannot be larger.
    ///
    /// # Errors
    /// `EFBIG` or `ENOSPC` if not one byte has room; it is no file, or damaged, or the disk failed.
    pub fn write(&mut self, number: u32, position: u64, data: &[u8]) -> Result<usize, Error> {
        self.begin_change()?;
        self.check_regular(number)?;
        if data.is_empty() {
            return Ok(0);
        }
        let room = u64::from(self.layout.file_max).saturating_sub(position);
        if room == 0 {
            return Err(Errno::TooLarge.into());
        }
        if position > u64::from(self.node(number)?.inode.bytes) {
            self.clear_tail(number)?;
        }
        let data = &data[..room.min(data.len() as u64) as usize];
        let tag = self.content_tag(number)?;
        let block_bytes = self.layout.block_bytes as usize;
        let mut done = 0;
        while done < data.len() {
            let at = position + done as u64;
            let (index, offset) =
                ((at / block_bytes as u64) as u32, (at % block_bytes as u64) as usize);
            let part = &data[done..data.len().min(done + block_bytes - offset)];
            if let Err(error) = self.write_part(number, index, offset, part, tag) {
                if done == 0 {
                    return Err(error);
                }
                break;
            }
            done += part.len();
            // All may be written before the next part.
            let end = (position + done as u64) as u32;
            let node = self.node_mut(number)?;
            node.inode.bytes = node.inode.bytes.max(end);
            self.touch_content(number)?;
        }
        Ok(done)
    }

    /// Writes a part of one block.
    fn write_part(
        &mut self,
        number: u32,
        index: u32,
        offset: usize,
        part: &[u8],
        tag: Tag,
    ) -> Result<(), Error> {
        self.make_headroom()?;
        let zone = self.make_zone(number, index)?;
        if part.len() == self.layout.block_bytes as usize {
            return self.cache.overwrite(zone, tag, part);
        }
        self.cache.change(zone, tag)?[offset..offset + part.len()].copy_from_slice(part);
        Ok(())
    }

    /// Makes what is behind the end of a file in its last block zeros, for when the file gets longer.
    fn clear_tail(&mut self, number: u32) -> Result<(), Error> {
        let bytes = self.node(number)?.inode.bytes;
        let offset = (bytes % self.layout.block_bytes) as usize;
        if offset == 0 {
            return Ok(());
        }
        let zone = self.zone_at(number, bytes / self.layout.block_bytes)?;
        let tag = self.content_tag(number)?;
        if zone != 0 && self.cache.block(zone, tag)?[offset..].iter().any(|byte| *byte != 0) {
            self.cache.change(zone, tag)?[offset..].fill(0);
        }
        Ok(())
    }

    /// Cuts a file to `bytes` bytes, or makes it longer by a hole.
    ///
    /// # Errors
    /// `EFBIG`; it is no file, or damaged, or the disk failed.
    pub fn truncate(&mut self, number: u32, bytes: u64) -> Result<(), Error> {
        self.begin_change()?;
        self.check_regular(number)?;
        let max = u64::from(self.layout.file_max);
        let bytes = u32::try_from(bytes).ok().filter(|bytes| u64::from(*bytes) <= max);
        let bytes = bytes.ok_or(Errno::TooLarge)?;
        let before = self.node(number)?.inode.bytes;
        if bytes < before {
            let release = self.plan_release(number, bytes.div_ceil(self.layout.block_bytes))?;
            let done = self.release_zones(number, release);
            self.fail_with(done)?;
        } else if bytes > before {
            self.clear_tail(number)?;
        }
        self.node_mut(number)?.inode.bytes = bytes;
        if bytes < before {
            self.clear_tail(number)?;
        }
        self.touch_content(number)
    }

    fn check_regular(&mut self, number: u32) -> Result<(), Error> {
        match self.node(number)?.kind {
            Kind::Regular => Ok(()),
            Kind::Directory => Err(Errno::IsDirectory.into()),
            _ => Err(Errno::Invalid.into()),
        }
    }

    /// Takes note that a file was read.
    pub fn touch_read(&mut self, number: u32) -> Result<(), Error> {
        let now = self.now;
        if self.mode == Mode::Writable {
            let node = self.node_mut(number)?;
            if node.inode.accessed != now {
                node.inode.accessed = now;
                node.dirty = true;
            }
        }
        Ok(())
    }
}
