// SPDX-License-Identifier: MIT OR Apache-2.0
//! Setting permissions, owners and times.

use super::user::{User, SET_GROUP, SET_USER};
use super::Volume;
use crate::disk::Disk;
use crate::error::Error;
use mol_protocol::file::{SetTime, MAY_WRITE};
use mol_protocol::Errno;

impl<D: Disk> Volume<D> {
    /// Sets the permissions of a file.
    ///
    /// # Errors
    /// `EPERM` for others than the owner and the superuser, `EINVAL` for bits that are no permissions.
    pub fn set_mode(&mut self, user: &User<'_>, number: u32, mode: u16) -> Result<(), Error> {
        self.begin_change()?;
        if mode & !0o7777 != 0 {
            return Err(Errno::Invalid.into());
        }
        let node = self.node_mut(number)?;
        if !user.owns(&node.inode) {
            return Err(Errno::NotPermitted.into());
        }
        let foreign = !user.is_superuser() && !user.is_in(node.inode.group.into());
        let mode = if foreign { mode & !SET_GROUP } else { mode };
        node.inode.mode = node.kind as u16 | mode;
        self.touch(number)
    }

    /// Sets owner and group; `u32::MAX` leaves one as it is.
    ///
    /// # Errors
    /// `EPERM` where only the superuser, or the owner with its own groups, may; `EINVAL` for what the
    /// format has no number for.
    pub fn set_owner(
        &mut self,
        user: &User<'_>,
        number: u32,
        owner: u32,
        group: u32,
    ) -> Result<(), Error> {
        self.begin_change()?;
        let node = self.node_mut(number)?;
        let inode = &mut node.inode;
        let new = |new: u32, old: u16| match new {
            u32::MAX => Ok(old),
            new => u16::try_from(new).map_err(|_| Errno::Invalid),
        };
        let (owner, group) = (new(owner, inode.user)?, new(group, inode.group)?);
        if !user.is_superuser() {
            let may_group = group == inode.group || user.is_in(group.into());
            if !user.owns(inode) || owner != inode.user || !may_group {
                return Err(Errno::NotPermitted.into());
            }
            if !inode.is_directory() {
                inode.mode &= !(SET_USER | SET_GROUP);
            }
        }
        inode.user = owner;
        inode.group = group;
        self.touch(number)
    }

    /// Sets when a file was read and changed last.
    ///
    /// # Errors
    /// `EPERM`, or `EACCES` if it is set to now by somebody who may not write.
    pub fn set_times(
        &mut self,
        user: &User<'_>,
        number: u32,
        accessed: SetTime,
        modified: SetTime,
    ) -> Result<(), Error> {
        self.begin_change()?;
        let now = self.now;
        let node = self.node_mut(number)?;
        if !user.owns(&node.inode) {
            match (accessed, modified) {
                (SetTime::Keep, SetTime::Keep) => {}
                (SetTime::Now, SetTime::Now) if user.may(&node.inode, MAY_WRITE) => {}
                (SetTime::Now, SetTime::Now) => return Err(Errno::Denied.into()),
                _ => return Err(Errno::NotPermitted.into()),
            }
        }
        if (accessed, modified) == (SetTime::Keep, SetTime::Keep) {
            return Ok(());
        }
        let time = |set, old| match set {
            SetTime::Keep => old,
            SetTime::Now => now,
            SetTime::To(time) => time,
        };
        node.inode.accessed = time(accessed, node.inode.accessed);
        node.inode.modified = time(modified, node.inode.modified);
        self.touch(number)
    }

    /// Takes off the bits that let a file be executed as its owner or group, since `user` has written it.
    ///
    /// # Errors
    /// The inode is damaged, or the disk failed.
    pub fn drop_privileges(&mut self, user: u32, number: u32) -> Result<(), Error> {
        let node = self.node_mut(number)?;
        if user != 0 && node.inode.mode & (SET_USER | SET_GROUP) != 0 {
            node.inode.mode &= !(SET_USER | SET_GROUP);
            node.dirty = true;
        }
        Ok(())
    }
}
