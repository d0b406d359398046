// SPDX-License-Identifier: GPL-2.0
//! Links whose frames a program carries: a proxy, in the papers' word.
//!
//! A proxy takes frames out of the link when it is ready to send them, so that none waits in a second
//! queue where its time stamps would grow old. It may lose, repeat and reorder them, or be killed and
//! started again: that the link delivers each record once is its own affair. (The original's
//! proxies carry commands, and lose those that are under way when they end.)

use super::super::abi::errno::Errno;
use super::super::abi::ioctl::{ProxyFrames, PROXY_BYTES_MAX};
use super::super::carrier::Carrier;
use super::super::local_port::Timeout;
use super::super::sys;
use super::super::uapi::{Argument, Memory};
use super::PeerLink;
use kernel::prelude::*;

/// The most that is given at once: clearing more memory than a link's window fills would cost more than
/// the frames do.
const BATCH_BYTES: usize = 1 << 17;

/// Bytes that say how long a frame is.
const LENGTH_BYTES: usize = 4;

impl PeerLink {
    /// Gives frames for the peer to a proxy: as many as there are and room for, at least one.
    pub(crate) fn proxy_get(&self, argument: Argument) -> Result<(), Errno> {
        let mut block: ProxyFrames = argument.read()?;
        let room = room(&block)?.min(BATCH_BYTES);
        let longest = self.proxied(block.transport)?;
        if room < LENGTH_BYTES + longest {
            return Err(Errno::TooLong);
        }
        let mut bytes = KVVec::from_elem(0, room, GFP_KERNEL).map_err(|_| Errno::NoMemory)?;
        let mut filled = self.fetch(block.transport, &mut bytes);
        let timeout = Timeout::from_ns(block.timeout_ns);
        if filled == Ok(0) {
            let deadline = match timeout {
                Timeout::Never => return Err(Errno::WouldBlock),
                Timeout::Until(at) => Some(at),
                Timeout::Forever => None,
            };
            self.outgoing.wait(deadline, || {
                if filled == Ok(0) {
                    filled = self.fetch(block.transport, &mut bytes);
                }
                filled != Ok(0)
            })?;
        }
        let filled = filled?;
        block.len = filled as u64;
        // A frame that cannot be written is lost, like any that the proxy loses.
        Memory(block.address).write(&bytes[..filled])?;
        argument.write(&block)
    }

    /// The longest frame, if a proxy that speaks this carries them.
    fn proxied(&self, transport: u32) -> Result<usize, Errno> {
        longest(&self.state.lock().carrier, transport)
    }

    /// Fills `bytes` with frames, and returns how many bytes of it. Stops being the peer's proxy when
    /// another transport is attached.
    fn fetch(&self, transport: u32, bytes: &mut [u8]) -> Result<usize, Errno> {
        let now = sys::now_ns();
        let mut state = self.state.lock();
        let longest = longest(&state.carrier, transport)?;
        let mut filled = 0;
        while let Some(rest) = bytes.get_mut(filled..).filter(|rest| rest.len() >= LENGTH_BYTES) {
            let (length, frame) = rest.split_at_mut(LENGTH_BYTES);
            let Some(frame) = frame.get_mut(..longest) else { break };
            let Some(len) = state.link.poll_transmit(now, frame) else { break };
            length.copy_from_slice(&(len as u32).to_le_bytes());
            filled += LENGTH_BYTES + len;
        }
        if filled != 0 {
            self.rearm(&mut state, now);
        }
        Ok(filled)
    }

    /// Takes frames of the peer from a proxy. What is no frame of the peer is counted and dropped.
    pub(crate) fn proxy_put(&self, argument: Argument) -> Result<(), Errno> {
        let mut block: ProxyFrames = argument.read()?;
        let bytes = Memory(block.address).read(room(&block)?)?;
        self.proxied(block.transport)?;
        let mut taken = 0;
        while let Some((frame, rest)) = split(&bytes[taken..]) {
            self.bring(block.transport, frame)?;
            taken = bytes.len() - rest.len();
        }
        block.len = taken as u64;
        argument.write(&block)?;
        if taken != bytes.len() {
            // A length that reaches beyond the end.
            return Err(Errno::Invalid);
        }
        Ok(())
    }

    fn bring(&self, transport: u32, bytes: &[u8]) -> Result<(), Errno> {
        let now = sys::now_ns();
        let mut state = self.state.lock();
        longest(&state.carrier, transport)?;
        self.take_bytes(&mut state, now, bytes);
        Ok(())
    }
}

/// The longest frame of a link that a proxy which speaks this carries.
fn longest(carrier: &Option<Carrier>, transport: u32) -> Result<usize, Errno> {
    let carrier = carrier.as_ref().filter(|known| known.transport() == transport);
    carrier.and_then(Carrier::proxied).ok_or(Errno::NotConnected)
}

/// How many bytes a block names.
fn room(block: &ProxyFrames) -> Result<usize, Errno> {
    if block.len == 0 {
        return Err(Errno::Invalid);
    }
    usize::try_from(block.len.min(PROXY_BYTES_MAX)).map_err(|_| Errno::Invalid)
}

/// The first frame of a batch, and what follows it.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<LENGTH_BYTES>()?;
    let len = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    rest.split_at_checked(len)
}
