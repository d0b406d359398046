// SPDX-License-Identifier: MIT OR Apache-2.0
//! The proxy's part: carrying the frames of a link over what the kernel does not speak.

use crate::control::{Control, Protocol};
use crate::error::{Call, Error, Subject};
use crate::sys;
use crate::timeout::Timeout;
use dvk_abi::ioctl;

/// Bytes that say how long a frame is.
const LENGTH_BYTES: usize = 4;

/// Frames on their way through a proxy, as the kernel gives and takes them: each with its length
/// before it.
///
/// The original's proxies take one command at a time (`get2rmt`, `put2lcl`), and batch them
/// themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frames {
    bytes: Vec<u8>,
}

impl Frames {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// How many bytes they are, lengths included.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The bytes themselves.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether one more frame of `len` bytes can be given to the kernel with these at once.
    pub fn has_room(&self, len: usize) -> bool {
        self.bytes.len() + LENGTH_BYTES + len <= ioctl::PROXY_BYTES_MAX as usize
    }

    /// Drops all.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }

    /// Adds a frame. Panics if it has 4 GiB or more.
    pub fn push(&mut self, frame: &[u8]) {
        let len = u32::try_from(frame.len()).expect("a frame is short");
        self.bytes.extend_from_slice(&len.to_le_bytes());
        self.bytes.extend_from_slice(frame);
    }

    /// The frames, in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.bytes.as_slice();
        core::iter::from_fn(move || {
            let (length, behind) = rest.split_first_chunk::<LENGTH_BYTES>()?;
            let (frame, behind) = behind.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            rest = behind;
            Some(frame)
        })
    }
}

/// Links that proxies carry.
impl Control {
    /// Takes the frames that the link to `node` has for it, and waits for one if there is none.
    ///
    /// A frame that was taken and is not delivered is sent again by the link.
    ///
    /// # Errors
    /// `ENODEV` for a node that was never up, `ENOTCONN` if its link is not, or not any more,
    /// attached to a proxy that speaks `protocol`, `EAGAIN` or `ETIMEDOUT` if there was no frame in time, `EINTR` if a
    /// signal came.
    pub fn proxy_get(
        &self,
        node: u32,
        protocol: Protocol,
        frames: &mut Frames,
        timeout: Timeout,
    ) -> Result<(), Error> {
        frames.bytes.resize(ioctl::PROXY_BYTES_MAX as usize, 0);
        let got = {
            let link = (node, protocol.number());
            sys::proxy_get(&self.file, link, &mut frames.bytes, timeout.as_ns())
        };
        frames.bytes.truncate(got.unwrap_or(0));
        got.map(drop).map_err(|errno| proxied(Call::ProxyGet, node, errno))
    }

    /// Gives the link frames that came from `node`. What is none of its peer's is dropped and
    /// counted there.
    ///
    /// # Errors
    /// `ENODEV` and `ENOTCONN` as for [`proxy_get`](Self::proxy_get); `EINVAL` if there are none, or
    /// more than [`Frames::has_room`] allows.
    pub fn proxy_put(&self, node: u32, protocol: Protocol, frames: &Frames) -> Result<(), Error> {
        sys::proxy_put(&self.file, (node, protocol.number()), &frames.bytes)
            .map(drop)
            .map_err(|errno| proxied(Call::ProxyPut, node, errno))
    }
}

fn proxied(call: Call, node: u32, errno: rustix::io::Errno) -> Error {
    Error { call, subject: Subject::Node(node), container: None, errno }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in(
            all in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..10),
            cut in any::<usize>(),
        ) {
            let mut frames = Frames::new();
            all.iter().for_each(|frame| frames.push(frame));
            prop_assert!(frames.iter().eq(all.iter().map(Vec::as_slice)));
            // What is cut short ends before the frame that was cut.
            frames.bytes.truncate(cut % (frames.bytes.len() + 1));
            prop_assert!(frames.iter().zip(&all).all(|(got, put)| got == put));
        }
    }

    #[test]
    fn a_batch_is_no_longer_than_the_kernel_takes() {
        let mut frames = Frames::new();
        let frame = [0; 1 << 14];
        while frames.has_room(frame.len()) {
            frames.push(&frame);
        }
        assert!(frames.bytes() <= ioctl::PROXY_BYTES_MAX as usize);
        assert_eq!(frames.iter().count(), 63);
    }
}
