// SPDX-License-Identifier: GPL-2.0
//! Links whose frames TIPC carries.
//!
//! Each pair of nodes has a pair of sockets, one at either end, that know each other by the names
//! [`tipc_instance`] gives them. Frames are taken out of the socket, and given to TIPC, in softirqs
//! and under the link's lock, so that no thread has to be woken for it. Where TIPC's own link is
//! congested, frames stay in ours until it says that there is room.

use super::super::abi::errno::Errno;
use super::super::abi::wire::{tipc_instance, tipc_service};
use super::super::carrier::Carrier;
use super::super::dvs::Identity;
use super::super::sys::{self, TipcSocket};
use super::PeerLink;
use core::ptr::from_ref;

impl PeerLink {
    /// TIPC as a carrier of this link, in frames of at most `frame_bytes`.
    ///
    /// # Errors
    /// [`Errno::NoMemory`], or [`Errno::NoDevice`] where TIPC gives no socket.
    pub(crate) fn tipc(&self, identity: Identity, frame_bytes: usize) -> Result<Carrier, Errno> {
        let service = tipc_service(identity.cluster);
        let here = tipc_instance(identity.node, self.node);
        let there = tipc_instance(self.node, identity.node);
        // SAFETY: the socket belongs to a carrier of this link, which ends before the link: that is
        // pinned, and gives its carrier up in `shutdown`.
        let socket = unsafe { TipcSocket::open(service, here, there, from_ref(self).cast()) }?;
        Ok(Carrier::Tipc { socket, frame_bytes })
    }

    /// Takes a frame that came by TIPC to the name of this link.
    pub(crate) fn tipc_received(&self, bytes: &[u8]) {
        let now = sys::now_ns();
        let mut state = self.state.lock();
        if state.carrier.as_ref().is_some_and(Carrier::is_tipc) {
            self.take_bytes(&mut state, now, bytes);
        } else {
            self.forged(&mut state, c"sender");
        }
    }

    /// Goes on to send where TIPC was congested: by the timer, since this link's lock may be held by
    /// who says so. The timer that was set before comes earlier by that, which does no harm.
    pub(crate) fn tipc_has_room(&self) {
        let now = sys::now_ns();
        self.timer.set(now, now);
    }
}
