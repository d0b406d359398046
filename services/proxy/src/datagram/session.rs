// SPDX-License-Identifier: MIT OR Apache-2.0
//! Two keys, one for each direction, and the datagrams that were sealed by them.

use super::packet::{data_head, DATA_HEAD_BYTES, TAG_BYTES};
use super::window::Window;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;
use snow::StatelessTransportState;
use std::sync::{Mutex, PoisonError};

/// Datagrams that one key seals at most: far below what ChaCha20-Poly1305 would bear, and far beyond what is sent until the next
/// session is due.
pub(crate) const NUMBERS: u64 = 1 << 40;

/// Why sealed data was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rejected {
    /// It came before, or so late that this is not known.
    Replayed,
    /// It is not of the peer's making.
    Forged,
}

/// What was agreed upon by one handshake.
pub(crate) struct Session {
    /// By which number the peer names it here.
    own: u32,
    /// By which it is named at the peer.
    peer: u32,
    /// When it was made.
    pub(crate) born: Duration,
    keys: StatelessTransportState,
    next: AtomicU64,
    window: Mutex<Window>,
    heard: AtomicBool,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("own", &self.own).finish_non_exhaustive()
    }
}

impl Session {
    pub(crate) fn new(own: u32, peer: u32, keys: StatelessTransportState, born: Duration) -> Self {
        let (next, window) = (AtomicU64::new(0), Mutex::default());
        Self { own, peer, born, keys, next, window, heard: AtomicBool::new(false) }
    }

    pub(crate) fn own(&self) -> u32 {
        self.own
    }

    /// Replaces `datagram` by one that carries a frame; false if the keys are used up.
    pub(crate) fn seal(&self, frame: &[u8], datagram: &mut Vec<u8>) -> bool {
        // Each number is given out once, whoever asks. A few more than the limit may be, none is used.
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        if number >= NUMBERS {
            return false;
        }
        datagram.clear();
        datagram.extend(data_head(self.peer, number));
        datagram.resize(DATA_HEAD_BYTES + frame.len() + TAG_BYTES, 0);
        self.keys.write_message(number, frame, &mut datagram[DATA_HEAD_BYTES..]).is_ok()
    }

    /// How many numbers were given out.
    pub(crate) fn sealed(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    /// Replaces `frame` by the frame that is in sealed data.
    pub(crate) fn open(
        &self,
        number: u64,
        sealed: &[u8],
        frame: &mut Vec<u8>,
    ) -> Result<(), Rejected> {
        // A thread that panicked left a window.
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if number >= NUMBERS || sealed.len() < TAG_BYTES {
            return Err(Rejected::Forged);
        }
        if !window.admits(number) {
            return Err(Rejected::Replayed);
        }
        // The library wants room for what authenticates as well.
        frame.clear();
        frame.resize(sealed.len(), 0);
        let len = self.keys.read_message(number, sealed, frame).map_err(|_| Rejected::Forged)?;
        frame.truncate(len);
        // Only now is it known to be the peer's, and may move the window.
        window.accept(number);
        self.heard.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Whether anything came by it: then the peer knows that we have it.
    pub(crate) fn was_heard(&self) -> bool {
        self.heard.load(Ordering::Relaxed)
    }
}
