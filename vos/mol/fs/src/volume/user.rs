// SPDX-License-Identifier: MIT OR Apache-2.0
//! Users, and what the permissions of a file let them do.

use super::Volume;
use crate::disk::Disk;
use crate::error::Error;
use crate::format::Inode;
use mol_protocol::file::{MAY_EXECUTE, MAY_READ, MAY_WRITE};
use mol_protocol::Errno;

/// Set-user-ID, set-group-ID and sticky: bits of a mode.
pub(super) const SET_USER: u16 = 0o4000;
pub(super) const SET_GROUP: u16 = 0o2000;
pub(super) const STICKY: u16 = 0o1000;

/// Who wants something done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User<'g> {
    /// The user. 0 is the superuser.
    pub user: u32,
    /// The group, which what is made belongs to.
    pub group: u32,
    /// Further groups.
    pub groups: &'g [u32],
}

impl User<'_> {
    /// The superuser.
    pub const SUPERUSER: User<'static> = User { user: 0, group: 0, groups: &[] };

    /// Whether it is the superuser.
    pub fn is_superuser(&self) -> bool {
        self.user == 0
    }

    /// Whether it is the owner or the superuser.
    pub(super) fn owns(&self, inode: &Inode) -> bool {
        self.is_superuser() || self.user == u32::from(inode.user)
    }

    /// Whether it has a group.
    pub(super) fn is_in(&self, group: u32) -> bool {
        self.group == group || self.groups.contains(&group)
    }

    /// Whether the permissions of a file give all of `rights`.
    pub(super) fn may(&self, inode: &Inode, rights: u32) -> bool {
        let bits = u32::from(inode.mode);
        if self.is_superuser() {
            let executable = inode.is_directory() || bits & 0o111 != 0;
            return rights & MAY_EXECUTE == 0 || executable;
        }
        let class = if self.user == u32::from(inode.user) {
            bits >> 6
        } else if self.is_in(inode.group.into()) {
            bits >> 3
        } else {
            bits
        };
        rights & !class & 0o7 == 0
    }
}

impl<D: Disk> Volume<D> {
    /// Whether a user has all of `rights` (`MAY_READ` and the like of the protocol) to a file.
    ///
    /// # Errors
    /// `EACCES` if one is missing, `EROFS` for writing what cannot be changed here, `EINVAL` for unknown
    /// rights.
    pub fn access(&mut self, user: &User<'_>, number: u32, rights: u32) -> Result<(), Error> {
        if rights & !(MAY_READ | MAY_WRITE | MAY_EXECUTE) != 0 {
            return Err(Errno::Invalid.into());
        }
        let node = self.node(number)?;
        let (inode, has_content) = (node.inode, node.kind.has_content());
        if rights & MAY_WRITE != 0 && has_content && self.is_read_only() {
            return Err(Errno::ReadOnly.into());
        }
        user.may(&inode, rights).then_some(()).ok_or(Errno::Denied.into())
    }

    /// Refuses users that may not change the names in a directory.
    pub(super) fn check_may_name(&mut self, user: &User<'_>, directory: u32) -> Result<(), Error> {
        let may = user.may(&self.node(directory)?.inode, MAY_WRITE | MAY_EXECUTE);
        may.then_some(()).ok_or(Errno::Denied.into())
    }

    /// Refuses users that may not take its name from `number` in a directory with the sticky bit.
    pub(super) fn check_may_unname(
        &mut self,
        user: &User<'_>,
        directory: u32,
        number: u32,
    ) -> Result<(), Error> {
        let directory = self.node(directory)?.inode;
        let inode = self.node(number)?.inode;
        let may = directory.mode & STICKY == 0 || user.owns(&directory) || user.owns(&inode);
        may.then_some(()).ok_or(Errno::NotPermitted.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_class_that_fits_decides() {
        let inode = Inode { mode: 0o100_047, user: 5, group: 6, ..Inode::default() };
        let may =
            |user, groups: &[u32], rights| User { user, group: 9, groups }.may(&inode, rights);
        assert!(!may(5, &[6], MAY_READ), "the owner has less than others");
        assert!(may(7, &[6], MAY_READ) && !may(7, &[6], MAY_WRITE));
        assert!(may(7, &[], MAY_READ | MAY_WRITE | MAY_EXECUTE));
        assert!(User::SUPERUSER.may(&inode, MAY_EXECUTE), "others may execute it");
        let none = Inode { mode: 0o100_600, ..inode };
        assert!(!User::SUPERUSER.may(&none, MAY_EXECUTE));
        assert!(User::SUPERUSER.may(&none, MAY_READ | MAY_WRITE));
    }
}
