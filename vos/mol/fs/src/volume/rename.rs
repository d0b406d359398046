// SPDX-License-Identifier: MIT OR Apache-2.0
//! Renaming.

use super::directory::Slot;
use super::names::LINKS_MAX;
use super::user::User;
use super::Volume;
use crate::disk::Disk;
use crate::error::Error;
use crate::format::{Kind, DOT, DOT_DOT};
use mol_protocol::file::MAY_WRITE;
use mol_protocol::Errno;

impl<D: Disk> Volume<D> {
    /// Gives what has a name in `from` another one in `to`, in place of what has that. With `keep`, nothing is
    /// replaced.
    ///
    /// # Errors
    /// Those of POSIX.
    #[allow(clippy::too_many_arguments, reason = "two places and who asks")]
    pub fn rename(
        &mut self,
        user: &User<'_>,
        from: u32,
        old: &[u8],
        to: u32,
        new: &[u8],
        keep: bool,
    ) -> Result<(), Error> {
        self.begin_change()?;
        self.check_name(new)?;
        if new == DOT || new == DOT_DOT {
            return Err(Errno::Invalid.into());
        }
        self.check_directory(to)?;
        let (old_slot, number) = self.check_unname(user, from, old, Errno::Invalid)?;
        let above = self.check_alive(to)?;
        self.check_may_name(user, to)?;
        let inode = self.node(number)?.inode;
        let is_directory = inode.is_directory();
        let (target, room) = self.find_or_room(to, new)?;
        if keep && target.is_some() {
            return Err(Errno::Exists.into());
        }
        if target.is_some_and(|(_, replaced)| replaced == number) {
            return Ok(());
        }
        // A directory that gets another parent changes: its `..` does.
        let moves = is_directory && from != to;
        let parents = if moves { self.with_parents(to)? } else { Vec::new() };
        if parents.contains(&number) {
            return Err(Errno::Invalid.into());
        }
        if moves && !user.may(&inode, MAY_WRITE) {
            return Err(Errno::Denied.into());
        }
        let mut release = None;
        let mut lost = 0;
        if let Some((_, replaced)) = target {
            self.check_replaced(user, to, replaced, is_directory)?;
            lost = if is_directory { self.node(replaced)?.inode.links } else { 1 };
            release = self.plan_unlink(replaced, lost)?;
        } else if moves && above.links >= LINKS_MAX {
            return Err(Errno::TooManyLinks.into());
        }
        let dot_dot = if moves { Some(self.parent(number)?.0) } else { None };
        // What a name is taken from must be on the disk by its other names, and so must what was moved out of a
        // directory that is replaced. Of moves into each other, the disk must not have the half.
        let waits = target.is_some_and(|(slot, replaced)| {
            self.batch.is_needed(slot.place(), replaced) || is_directory && self.batch.has_held()
        });
        if waits || parents.iter().any(|above| self.batch.moved.contains(above)) {
            self.sync()?;
        }
        let place = match target {
            Some((slot, _)) => slot,
            None => self.room(to, room)?,
        };

        let done = self.move_names(number, (from, old_slot), (to, place), new, target.is_some());
        self.fail_with(done)?;
        // For a while, the disk has both names.
        let node = self.node_mut(number)?;
        node.lost_links = node.lost_links.saturating_add(1);
        self.touch(number)?;
        if let Some(dot_dot) = dot_dot {
            let done = self.replace_entry(number, dot_dot, to);
            self.fail_with(done)?;
            self.batch.move_parent(dot_dot.place());
            self.batch.moved.insert(number);
            self.node_mut(to)?.inode.links += 1;
            self.lose_links(from, 1, None)?;
        }
        if let Some((_, replaced)) = target {
            if is_directory {
                self.lose_links(to, 1, None)?;
            }
            self.lose_links(replaced, lost, release)?;
        }
        Ok(())
    }

    fn check_replaced(
        &mut self,
        user: &User<'_>,
        directory: u32,
        replaced: u32,
        by_directory: bool,
    ) -> Result<(), Error> {
        self.check_may_unname(user, directory, replaced)?;
        match (by_directory, self.node(replaced)?.kind == Kind::Directory) {
            (true, false) => Err(Errno::NotDirectory.into()),
            (false, true) => Err(Errno::IsDirectory.into()),
            (true, true) => self.check_empty(replaced),
            (false, false) => Ok(()),
        }
    }

    fn move_names(
        &mut self,
        number: u32,
        (from, old): (u32, Slot),
        (to, place): (u32, Slot),
        name: &[u8],
        replaces: bool,
    ) -> Result<(), Error> {
        if replaces {
            self.replace_entry(to, place, number)?;
            self.batch.need(number);
        } else {
            self.put_entry(to, place, name, number)?;
        }
        self.remove_entry(from, old)
    }
}
