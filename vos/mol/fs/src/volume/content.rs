// SPDX-License-Identifier: MIT OR Apache-2.0
//! The content of files.

use super::map::content_role;
use super::Volume;
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
}
