// SPDX-License-Identifier: GPL-2.0
//! Frames that arrive, on the way to the link of the peer that sent them.

use super::super::abi::wire::frame::Frame;
use super::super::carrier::Carrier;
use super::super::{dvs, sys, trace};
use super::{PeerLink, State};
use core::ffi::c_void;
use kernel::sync::Arc;

impl PeerLink {
    /// Takes a frame, the `last` one for now or not, that `device` received from the Ethernet address
    /// `source`.
    ///
    /// `before` is the link that has taken the frame before without answering it, and what is returned
    /// the one that has not answered now, if any: it is to be given to the next call, or told by
    /// [`frames_received`](Self::frames_received).
    pub(crate) fn frame_received(
        device: *const c_void,
        source: &[u8; 6],
        bytes: &[u8],
        last: bool,
        before: Option<Arc<Self>>,
    ) -> Option<Arc<Self>> {
        let Ok(dvs) = dvs::get() else { return before };
        let Ok(frame) = Frame::decode(bytes) else {
            dvs.malformed.increase();
            trace::frame_rejected(None, c"malformed");
            return before;
        };
        let node = frame.header.source.node;
        let peer = match before {
            Some(before) if before.node == node => before,
            before => {
                let Some(peer) = dvs.peers.get(node) else {
                    dvs.strangers.increase();
                    trace::frame_rejected(Some(node), c"stranger");
                    return before;
                };
                if let Some(before) = before {
                    before.frames_received();
                }
                peer
            }
        };
        peer.take_frame(device, source, &frame, last);
        (!last).then_some(peer)
    }

    fn take_frame(&self, device: *const c_void, source: &[u8; 6], frame: &Frame<'_>, last: bool) {
        let now = sys::now_ns();
        let mut state = self.state.lock();
        let expected = |carrier: &Carrier| carrier.is_from(device, source);
        if state.carrier.as_ref().is_some_and(expected) {
            self.take_expected(&mut state, now, frame);
        } else {
            self.forged(&mut state, c"sender");
        }
        if last {
            self.pump(&mut state, now);
        }
    }

    /// Does what is to be done about the frames that came.
    pub(crate) fn frames_received(&self) {
        let now = sys::now_ns();
        self.pump(&mut self.state.lock(), now);
    }

    /// Takes what came the way it is to come: a frame of the peer, if nothing is wrong.
    pub(super) fn take_bytes(&self, state: &mut State, now: u64, bytes: &[u8]) {
        match Frame::decode(bytes) {
            Ok(frame) if frame.header.source.node == self.node => {
                self.take_expected(state, now, &frame);
                self.pump(state, now);
            }
            _ => self.forged(state, c"sender"),
        }
    }

    /// Takes a frame that came the way it is to come. The link is to be pumped then.
    fn take_expected(&self, state: &mut State, now: u64, frame: &Frame<'_>) {
        match state.link.on_frame(now, frame) {
            Ok(chunks) => {
                // After a restart, what else the stream brought belongs to nobody.
                let mut flow = self.take_chunks(state, chunks);
                while flow.is_continue() {
                    let Some(stored) = state.link.next_stored() else { break };
                    flow = self.take_chunks(state, stored.chunks());
                }
            }
            Err(reject) => trace::frame_rejected(Some(self.node), reject.name()),
        }
    }
}
