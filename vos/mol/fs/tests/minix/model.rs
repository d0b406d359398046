// SPDX-License-Identifier: MIT OR Apache-2.0
//! A file system as simple as can be, in memory: what a correct one does.

use mol_protocol::Errno;
use std::collections::BTreeMap;

/// What a model has of a file or directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Thing {
    File(Vec<u8>),
    Link(Vec<u8>),
    Directory { entries: BTreeMap<Vec<u8>, usize>, parent: usize },
}

/// A thing and how many names it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) thing: Thing,
    pub(crate) links: u16,
    pub(crate) holds: u32,
}

/// The root, as the model knows it.
pub(crate) const ROOT_ID: usize = 0;

/// All things that there are.
#[derive(Clone)]
pub(crate) struct Model {
    pub(crate) items: BTreeMap<usize, Item>,
    /// How many there have been.
    pub(crate) made: usize,
}

type Done = Result<(), Errno>;

impl Model {
    pub(crate) fn new() -> Self {
        let entries = BTreeMap::new();
        let root =
            Item { thing: Thing::Directory { entries, parent: ROOT_ID }, links: 2, holds: 0 };
        Self { items: BTreeMap::from([(ROOT_ID, root)]), made: 1 }
    }

    pub(crate) fn item(&self, id: usize) -> &Item {
        self.items.get(&id).expect("only what there is is asked for")
    }

    pub(crate) fn item_mut(&mut self, id: usize) -> &mut Item {
        self.items.get_mut(&id).expect("only what there is is changed")
    }

    pub(crate) fn entries(&self, id: usize) -> Option<&BTreeMap<Vec<u8>, usize>> {
        match &self.item(id).thing {
            Thing::Directory { entries, .. } => Some(entries),
            _ => None,
        }
    }

    fn entries_mut(&mut self, id: usize) -> &mut BTreeMap<Vec<u8>, usize> {
        match &mut self.item_mut(id).thing {
            Thing::Directory { entries, .. } => entries,
            other => panic!("{other:?} is no directory"),
        }
    }

    fn is_directory(&self, id: usize) -> bool {
        self.entries(id).is_some()
    }

    /// Whether something may be made in a directory by this name.
    fn check_new(&self, directory: usize, name: &[u8]) -> Done {
        if name.len() > 60 {
            return Err(Errno::NameTooLong);
        }
        let entries = self.entries(directory).ok_or(Errno::NotDirectory)?;
        if self.item(directory).links == 0 {
            return Err(Errno::NoEntry);
        }
        if entries.contains_key(name) {
            Err(Errno::Exists)
        } else {
            Ok(())
        }
    }

    pub(crate) fn make(
        &mut self,
        directory: usize,
        name: &[u8],
        thing: Thing,
    ) -> Result<usize, Errno> {
        self.check_new(directory, name)?;
        let id = self.made;
        self.made += 1;
        let links = if matches!(thing, Thing::Directory { .. }) { 2 } else { 1 };
        if links == 2 {
            self.item_mut(directory).links += 1;
        }
        self.items.insert(id, Item { thing, links, holds: 0 });
        self.entries_mut(directory).insert(name.to_vec(), id);
        Ok(id)
    }

    pub(crate) fn link(&mut self, id: usize, directory: usize, name: &[u8]) -> Done {
        if name.len() > 60 {
            return Err(Errno::NameTooLong);
        }
        if !self.is_directory(directory) {
            return Err(Errno::NotDirectory);
        }
        if self.is_directory(id) {
            return Err(Errno::NotPermitted);
        }
        if self.item(id).links == 0 {
            return Err(Errno::NoEntry);
        }
        self.check_new(directory, name)?;
        self.item_mut(id).links += 1;
        self.entries_mut(directory).insert(name.to_vec(), id);
        Ok(())
    }

    fn find(&self, directory: usize, name: &[u8]) -> Result<usize, Errno> {
        if name.len() > 60 {
            return Err(Errno::NameTooLong);
        }
        let entries = self.entries(directory).ok_or(Errno::NotDirectory)?;
        entries.get(name).copied().ok_or(Errno::NoEntry)
    }

    pub(crate) fn unlink(&mut self, directory: usize, name: &[u8]) -> Done {
        let id = self.find(directory, name)?;
        if self.is_directory(id) {
            return Err(Errno::IsDirectory);
        }
        self.entries_mut(directory).remove(name);
        self.lose(id, 1);
        Ok(())
    }

    fn check_empty(&self, id: usize) -> Done {
        let empty = self.entries(id).ok_or(Errno::NotDirectory)?.is_empty();
        if empty {
            Ok(())
        } else {
            Err(Errno::NotEmpty)
        }
    }

    pub(crate) fn remove_directory(&mut self, directory: usize, name: &[u8]) -> Done {
        let id = self.find(directory, name)?;
        self.check_empty(id)?;
        self.entries_mut(directory).remove(name);
        self.item_mut(directory).links -= 1;
        self.lose(id, 2);
        Ok(())
    }

    fn lose(&mut self, id: usize, links: u16) {
        let item = self.item_mut(id);
        item.links -= links;
        if item.links == 0 && item.holds == 0 {
            self.items.remove(&id);
        }
    }

    pub(crate) fn release(&mut self, id: usize) {
        self.item_mut(id).holds -= 1;
        self.lose(id, 0);
    }

    pub(crate) fn rename(
        &mut self,
        (from, old): (usize, &[u8]),
        (to, new): (usize, &[u8]),
        keep: bool,
    ) -> Done {
        if new.len() > 60 {
            return Err(Errno::NameTooLong);
        }
        if !self.is_directory(to) {
            return Err(Errno::NotDirectory);
        }
        let id = self.find(from, old)?;
        if self.item(to).links == 0 {
            return Err(Errno::NoEntry);
        }
        let target = self.find(to, new).ok();
        if keep && target.is_some() {
            return Err(Errno::Exists);
        }
        if target == Some(id) {
            return Ok(());
        }
        let is_directory = self.is_directory(id);
        if is_directory && self.is_within(to, id) {
            return Err(Errno::Invalid);
        }
        if let Some(target) = target {
            match (is_directory, self.is_directory(target)) {
                (true, false) => return Err(Errno::NotDirectory),
                (false, true) => return Err(Errno::IsDirectory),
                (true, true) => self.check_empty(target)?,
                (false, false) => {}
            }
        }
        self.entries_mut(from).remove(old);
        self.entries_mut(to).insert(new.to_vec(), id);
        if is_directory {
            self.item_mut(from).links -= 1;
            self.item_mut(to).links += 1;
            if let Thing::Directory { parent, .. } = &mut self.item_mut(id).thing {
                *parent = to;
            }
        }
        if let Some(target) = target {
            if is_directory {
                self.item_mut(to).links -= 1;
            }
            self.lose(target, if is_directory { 2 } else { 1 });
        }
        Ok(())
    }

    /// How many directories a directory is in.
    pub(crate) fn depth(&self, directory: usize) -> usize {
        let mut depth = 0;
        let mut at = directory;
        while let Thing::Directory { parent, .. } = &self.item(at).thing {
            if at == ROOT_ID {
                break;
            }
            at = *parent;
            depth += 1;
        }
        depth
    }

    /// How many directories lie in one another in a thing.
    pub(crate) fn height(&self, id: usize) -> usize {
        let within = self.entries(id).map(|all| all.values().map(|id| self.height(*id)).max());
        within.map_or(0, |within| within.unwrap_or(0) + 1)
    }

    fn is_within(&self, directory: usize, above: usize) -> bool {
        let mut at = directory;
        loop {
            if at == above {
                return true;
            }
            match &self.item(at).thing {
                Thing::Directory { parent, .. } if at != ROOT_ID => at = *parent,
                _ => return false,
            }
        }
    }
}
