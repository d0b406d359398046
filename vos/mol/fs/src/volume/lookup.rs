// SPDX-License-Identifier: MIT OR Apache-2.0
//! From names to inodes.

use super::Volume;
use crate::disk::Disk;
use crate::error::{Damage, Error};
use crate::format::{Kind, DOT, DOT_DOT, ROOT};
use mol_protocol::Errno;

impl<D: Disk> Volume<D> {
    /// The inode of a name in a directory. `.` and `..` are names, too; `..` of the root is the root.
    ///
    /// # Errors
    /// There is no such name, it is too long, the first is no directory, or something is damaged.
    pub fn lookup(&mut self, directory: u32, name: &[u8]) -> Result<u32, Error> {
        self.check_directory(directory)?;
        self.check_name(name)?;
        if name == DOT || name == DOT_DOT && directory == ROOT {
            return Ok(directory);
        }
        let (_, number) = self.find(directory, name)?.ok_or(Errno::NoEntry)?;
        let node = self.node(number)?;
        if node.inode.links == 0 {
            return Err(Damage::InodeFree { inode: number }.into());
        }
        Ok(number)
    }

    /// Refuses what cannot be a name.
    pub(super) fn check_name(&self, name: &[u8]) -> Result<(), Error> {
        if name.is_empty() || name.iter().any(|byte| matches!(byte, 0 | b'/')) {
            return Err(Errno::Invalid.into());
        }
        if name.len() > self.layout.name_bytes {
            return Err(Errno::NameTooLong.into());
        }
        Ok(())
    }

    /// The path in a symbolic link.
    ///
    /// # Errors
    /// It is no symbolic link, or damaged.
    pub fn read_link(&mut self, number: u32) -> Result<Vec<u8>, Error> {
        let node = self.node(number)?;
        if node.kind != Kind::SymbolicLink {
            return Err(Errno::Invalid.into());
        }
        let mut path = vec![0; node.inode.bytes as usize];
        self.read_content(number, 0, &mut path)?;
        Ok(path)
    }
}
