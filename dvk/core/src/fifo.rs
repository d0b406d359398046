// SPDX-License-Identifier: GPL-2.0 OR MIT
//! First-in-first-out queues over storage that somebody else allocates.

/// The storage had no room and could not get more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoMemory;

/// A growable array. The kernel implements it over its own vector, tests over `Vec`.
pub trait Array<T> {
    /// The elements.
    fn as_slice(&self) -> &[T];
    /// The elements, to change.
    fn as_mut_slice(&mut self) -> &mut [T];
    /// Adds an element, allocating without sleeping where there is no room.
    ///
    /// # Errors
    /// [`NoMemory`]; the array is as it was.
    fn push(&mut self, element: T) -> Result<(), NoMemory>;
    /// Drops all elements from `len` on; the room stays.
    fn truncate(&mut self, len: usize);
}

/// Where the arrays of a port or table come from.
pub trait Storage {
    /// An array of this storage.
    type Array<T>: Array<T> + Default;
}

/// A queue that also gives up elements from its middle.
///
/// Elements taken leave a hole; holes at the front are skipped for good, and the elements move
/// down when half of the array is holes, so that each operation at the ends costs O(1) amortised.
/// Searching costs O(length).
pub struct Fifo<T, A> {
    entries: A,
    /// Index of the first entry that may be occupied.
    head: usize,
    len: usize,
    _element: core::marker::PhantomData<T>,
}

impl<T, A: Default> Default for Fifo<T, A> {
    fn default() -> Self {
        Self { entries: A::default(), head: 0, len: 0, _element: core::marker::PhantomData }
    }
}

impl<T, A: Array<Option<T>>> Fifo<T, A> {
    /// Elements in the queue.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds `element` at the end.
    ///
    /// # Errors
    /// [`NoMemory`]; the queue is as it was.
    pub fn push(&mut self, element: T) -> Result<(), NoMemory> {
        if self.len * 2 < self.entries.as_slice().len() {
            self.close_holes();
        }
        self.entries.push(Some(element))?;
        self.len += 1;
        Ok(())
    }

    /// The first element that `wanted` accepts.
    pub fn find(&mut self, mut wanted: impl FnMut(&T) -> bool) -> Option<&mut T> {
        if self.len == 0 {
            return None;
        }
        let occupied = self.entries.as_mut_slice().get_mut(self.head..)?;
        occupied.iter_mut().flatten().find(|element| wanted(element))
    }

    /// Takes the first element that `wanted` accepts.
    pub fn take(&mut self, mut wanted: impl FnMut(&T) -> bool) -> Option<T> {
        let accepted = |entry: &Option<T>| entry.as_ref().is_some_and(&mut wanted);
        let at = self.entries.as_slice().get(self.head..)?.iter().position(accepted)?;
        self.take_at(self.head + at)
    }

    /// Takes the last element that `wanted` accepts.
    pub fn take_last(&mut self, mut wanted: impl FnMut(&T) -> bool) -> Option<T> {
        let accepted = |entry: &Option<T>| entry.as_ref().is_some_and(&mut wanted);
        let at = self.entries.as_slice().get(self.head..)?.iter().rposition(accepted)?;
        self.take_at(self.head + at)
    }

    fn take_at(&mut self, at: usize) -> Option<T> {
        let taken = self.entries.as_mut_slice().get_mut(at)?.take()?;
        self.len -= 1;
        if self.len == 0 {
            self.entries.truncate(0);
            self.head = 0;
        } else if at == self.head {
            let rest = self.entries.as_slice().get(at..)?;
            self.head += rest.iter().take_while(|entry| entry.is_none()).count();
        }
        Some(taken)
    }

    /// Calls `visit` with each element in order.
    pub fn for_each(&self, visit: impl FnMut(&T)) {
        self.entries.as_slice().iter().flatten().for_each(visit);
    }

    /// Keeps only the elements that `wanted` accepts.
    pub fn retain(&mut self, mut wanted: impl FnMut(&T) -> bool) {
        let mut len = 0;
        for entry in self.entries.as_mut_slice() {
            if entry.as_ref().is_some_and(&mut wanted) {
                len += 1;
            } else {
                *entry = None;
            }
        }
        self.len = len;
        self.close_holes();
    }

    fn close_holes(&mut self) {
        let mut next = 0;
        let entries = self.entries.as_mut_slice();
        for at in 0..entries.len() {
            if entries[at].is_some() {
                entries.swap(next, at);
                next += 1;
            }
        }
        self.entries.truncate(next);
        self.head = 0;
    }
}
