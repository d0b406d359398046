// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ethernet frames on a byte stream as QEMU's `-netdev stream` sends them: a 4-byte big-endian length, then the frame.

/// The longest frame accepted: QEMU's own bound for a packet with its headers (`NET_BUFSIZE`).
pub const MAX_FRAME: usize = 4096 + 65536;
const PREFIX: usize = 4;
/// Room for one frame of the greatest length and as much again of what follows it.
const BUFFER: usize = 2 * (PREFIX + MAX_FRAME);

/// The stream announces a frame longer than [`MAX_FRAME`]: it is out of step or hostile, and can only be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {0} bytes is announced, {MAX_FRAME} is the most")]
pub struct FrameTooLong(pub u32);

/// Cuts a byte stream into frames.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// What is filled in and not yet taken out.
    start: usize,
    end: usize,
}

impl Decoder {
    /// Where the next bytes of the stream are to be read to; never empty once [`Decoder::take_frame`] has returned `None`.
    pub fn space(&mut self) -> &mut [u8] {
        if self.buffer.is_empty() {
            self.buffer = vec![0; BUFFER];
        }
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.buffer.len() - self.start < PREFIX + MAX_FRAME {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        &mut self.buffer[self.end..]
    }

    /// Says that the first `count` bytes of [`Decoder::space`] have been filled in.
    pub fn filled(&mut self, count: usize) {
        self.end = (self.end + count).min(self.buffer.len());
    }

    /// Takes out the next whole frame.
    pub fn take_frame(&mut self) -> Result<Option<&[u8]>, FrameTooLong> {
        let pending = &self.buffer[self.start..self.end];
        let Some((prefix, rest)) = pending.split_first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        let announced = u32::from_be_bytes(*prefix);
        let length = announced as usize;
        if length > MAX_FRAME {
            return Err(FrameTooLong(announced));
        }
        if rest.len() < length {
            return Ok(None);
        }
        let frame = self.start + PREFIX;
        self.start = frame + length;
        Ok(Some(&self.buffer[frame..frame + length]))
    }

    /// Starts over, for a new stream.
    pub fn reset(&mut self) {
        (self.start, self.end) = (0, 0);
    }
}

/// Appends `frame` to `out` in the form of the stream.
pub fn encode(frame: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(frame.len() as u32).to_be_bytes());
    out.extend_from_slice(frame);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(stream: &[u8], chunk: usize) -> Result<Vec<Vec<u8>>, FrameTooLong> {
        let mut decoder = Decoder::default();
        let mut frames = Vec::new();
        let mut rest = stream;
        while !rest.is_empty() {
            let space = decoder.space();
            let count = chunk.min(space.len()).min(rest.len());
            assert!(count > 0, "the decoder offers no space");
            space[..count].copy_from_slice(&rest[..count]);
            decoder.filled(count);
            rest = &rest[count..];
            while let Some(frame) = decoder.take_frame()? {
                frames.push(frame.to_vec());
            }
        }
        Ok(frames)
    }

    proptest! {
        #[test]
        fn frames_survive_any_chunking(
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20),
            chunk in 1usize..700,
        ) {
            let mut stream = Vec::new();
            frames.iter().for_each(|frame| encode(frame, &mut stream));
            prop_assert_eq!(decode(&stream, chunk).unwrap(), frames);
        }

        #[test]
        fn noise_never_panics(noise in prop::collection::vec(any::<u8>(), 0..2000), chunk in 1usize..99) {
            let _ = decode(&noise, chunk);
        }
    }

    #[test]
    fn the_longest_frames_fit_in_any_position() {
        let mut stream = Vec::new();
        let frames: Vec<Vec<u8>> =
            [1, MAX_FRAME, MAX_FRAME - 1, 7, MAX_FRAME].iter().map(|&n| vec![n as u8; n]).collect();
        frames.iter().for_each(|frame| encode(frame, &mut stream));
        for chunk in [1000, BUFFER] {
            assert_eq!(decode(&stream, chunk).unwrap(), frames);
        }
    }

    #[test]
    fn hostile_lengths_are_refused() {
        for announced in [MAX_FRAME as u32 + 1, u32::MAX] {
            assert_eq!(decode(&announced.to_be_bytes(), 4), Err(FrameTooLong(announced)));
        }
    }
}
