// SPDX-License-Identifier: GPL-2.0 OR MIT
//! What the owner of a link can see of it and should know of.

/// What a link is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The peer is not up. Nothing is sent, nothing accepted.
    Down,
    /// The two ends have not both heard of each other. Records are queued.
    Connecting,
    /// Records flow.
    Up,
    /// The stream has ended without the owner's doing; see [`Event::Reset`].
    Broken,
}

/// What the owner should know of. Each kind is reported once, however often it happened since the
/// last [`poll_event`](super::Link::poll_event).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Event {
    /// The stream has ended: the peer began a new one, or a transport was attached that a queued
    /// frame does not fit into. Records not delivered are gone; the link is [`State::Broken`] until
    /// [`Link::peer_up`](super::Link::peer_up) or [`Link::peer_down`](super::Link::peer_down).
    Reset = 0,
    /// Records flow now.
    Up = 1,
    /// The peer has not answered for a while. The link goes on trying: whether the node is down is
    /// not for the link to say.
    Lost = 2,
    /// A peer that was lost is heard again; nothing was lost meanwhile.
    Found = 3,
    /// A record that was refused with [`SubmitError::Full`](super::SubmitError::Full) may be tried again. A long one may
    /// need more room still; it will be told again.
    Room = 4,
    /// The peer speaks none of this node's protocol versions. The link goes on trying.
    Incompatible = 5,
}

impl Event {
    pub(super) const ALL: [Self; 6] =
        [Self::Reset, Self::Up, Self::Lost, Self::Found, Self::Room, Self::Incompatible];

    pub(super) const fn bit(self) -> u8 {
        1 << self as u8
    }
}
