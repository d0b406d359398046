// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Where a link keeps frames: memory that its owner provides.

use core::ops::{Deref, DerefMut};

/// The memory of a link.
///
/// The kernel gives vectors of its allocators, tests give `Vec`s.
pub trait Storage {
    /// The payload of one frame; dropping it frees it.
    type Buffer: DerefMut + Deref<Target = [u8]>;
    /// An array of slots.
    type Slots: DerefMut + Deref<Target = [Slot<Self::Buffer>]>;

    /// `count` empty slots; called twice, by [`Link::new`](super::Link::new).
    fn slots(&mut self, count: usize) -> Option<Self::Slots>;

    /// A buffer of at least `bytes` (at most the payload length the link was attached with), its
    /// content does not matter. Called from [`Link::submit`](super::Link::submit) for every new
    /// frame and from [`Link::on_frame`](super::Link::on_frame) for a frame that comes early; `None`
    /// fails the first and drops the second, which the peer then repeats.
    fn buffer(&mut self, bytes: usize) -> Option<Self::Buffer>;
}

/// Room for one frame's payload.
#[derive(Debug)]
pub struct Slot<B> {
    pub(super) buffer: Option<B>,
    /// Bytes of the buffer that are payload.
    pub(super) bytes: u16,
}

impl<B> Slot<B> {
    /// Nothing in it.
    pub const EMPTY: Self = Self { buffer: None, bytes: 0 };
}

impl<B: Deref<Target = [u8]>> Slot<B> {
    pub(super) fn payload(&self) -> &[u8] {
        self.buffer.as_ref().and_then(|buffer| buffer.get(..usize::from(self.bytes))).unwrap_or(&[])
    }
}
