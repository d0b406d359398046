// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Where a link keeps frames: memory that its owner provides.

use super::super::abi::wire::frame::HEADER_BYTES;
use core::ops::{Deref, DerefMut};

/// The memory of a link.
///
/// The kernel gives vectors of its allocators, tests give `Vec`s.
pub trait Storage {
    /// One frame: room for its header, and its payload. Dropping it frees it.
    type Buffer: DerefMut + Deref<Target = [u8]>;
    /// An array of slots.
    type Slots: DerefMut + Deref<Target = [Slot<Self::Buffer>]>;

    /// `count` empty slots; called twice, by [`Link::new`](super::Link::new).
    fn slots(&mut self, count: usize) -> Option<Self::Slots>;

    /// A buffer of at least `bytes` (at most a header and the payload length the link was attached
    /// with), its content does not matter. Called from [`Link::submit`](super::Link::submit) for every new
    /// frame and from [`Link::on_frame`](super::Link::on_frame) for a frame that comes early; `None`
    /// fails the first and drops the second, which the peer then repeats.
    fn buffer(&mut self, bytes: usize) -> Option<Self::Buffer>;

    /// Called before a frame's header is written, perhaps not for the first time. An owner who has
    /// lent the buffer, to a device that may still read it, replaces it by a copy. Returns whether
    /// it can be written to; if not, the frame is sent later.
    fn make_exclusive(&mut self, buffer: &mut Self::Buffer) -> bool {
        let _ = buffer;
        true
    }
}

/// Room for one frame.
#[derive(Debug)]
pub struct Slot<B> {
    pub(super) buffer: Option<B>,
    /// Bytes of the payload, which begins after the room for the header.
    pub(super) bytes: u16,
}

impl<B> Slot<B> {
    /// Nothing in it.
    pub const EMPTY: Self = Self { buffer: None, bytes: 0 };
}

impl<B: Deref<Target = [u8]>> Slot<B> {
    pub(super) fn payload(&self) -> &[u8] {
        let end = HEADER_BYTES.saturating_add(usize::from(self.bytes));
        self.buffer.as_ref().and_then(|buffer| buffer.get(HEADER_BYTES..end)).unwrap_or(&[])
    }
}
