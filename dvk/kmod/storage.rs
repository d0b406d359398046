// SPDX-License-Identifier: GPL-2.0
//! The kernel's memory behind the storage traits of `dvk-core`. Everything is allocated without
//! sleeping, since the core runs under spin locks and in softirqs.

use super::rules::fifo::{Array, NoMemory, Storage};
use super::rules::table::BlockStorage;
use kernel::prelude::*;

/// An array of the kernel's.
pub(crate) struct KernelArray<T>(KVec<T>);

impl<T> Default for KernelArray<T> {
    fn default() -> Self {
        Self(KVec::new())
    }
}

impl<T> Array<T> for KernelArray<T> {
    fn as_slice(&self) -> &[T] {
        self.0.as_slice()
    }

    fn as_mut_slice(&mut self) -> &mut [T] {
        self.0.as_mut_slice()
    }

    fn push(&mut self, element: T) -> Result<(), NoMemory> {
        self.0.push(element, GFP_ATOMIC | kernel::alloc::flags::__GFP_NOWARN).map_err(|_| NoMemory)
    }

    fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }
}

/// The storage of everything in the driver.
pub(crate) struct KernelStorage;

impl Storage for KernelStorage {
    type Array<T> = KernelArray<T>;
}

impl BlockStorage for KernelStorage {
    type Boxed<T> = KBox<T>;

    fn boxed<T>(value: T) -> Option<KBox<T>> {
        KBox::new(value, GFP_ATOMIC).ok()
    }
}
