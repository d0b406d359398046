// SPDX-License-Identifier: MIT OR Apache-2.0
//! Frames in a stream of bytes: each with its length before it, behind a preface that says what is spoken.

use anyhow::{bail, Result};
use dvk::Frames;

/// What each end says first: a name and the version of the format.
pub const PREFACE: [u8; 8] = *b"dvs-lnk\x01";
/// The longest frame of the link protocol, with room for what later versions add.
const FRAME_BYTES_MAX: usize = 1 << 16;
const LENGTH_BYTES: usize = 4;

/// Takes apart what follows the preface, however its bytes come in.
#[derive(Debug, Default)]
pub struct Decoder {
    /// What was not understood yet.
    rest: Vec<u8>,
}

impl Decoder {
    /// Takes bytes, and adds the frames that are complete by them to `frames`. Stops when there is no room for more;
    /// call it with no bytes then, when there is.
    ///
    /// # Errors
    /// When a frame is longer than there are. Nothing more can be understood then.
    pub fn take(&mut self, bytes: &[u8], frames: &mut Frames) -> Result<()> {
        self.rest.extend_from_slice(bytes);
        let mut at = 0;
        while let Some(length) = self.rest[at..].first_chunk::<LENGTH_BYTES>() {
            let length = u32::from_le_bytes(*length) as usize;
            if length > FRAME_BYTES_MAX {
                bail!("a frame of {length} bytes was announced; the longest has {FRAME_BYTES_MAX}");
            }
            let Some(frame) = self.rest[at + LENGTH_BYTES..].get(..length) else { break };
            if !frames.has_room(length) {
                break;
            }
            frames.push(frame);
            at += LENGTH_BYTES + length;
        }
        self.rest.drain(..at);
        Ok(())
    }

    /// Whether [`take`](Self::take) stopped for want of room.
    pub fn is_full(&self) -> bool {
        let length = self.rest.first_chunk::<LENGTH_BYTES>();
        length.is_some_and(|length| {
            self.rest.len() >= LENGTH_BYTES + u32::from_le_bytes(*length) as usize
        })
    }
}

/// The bytes of `frames` in a stream.
pub fn encode(frames: &Frames, out: &mut Vec<u8>) {
    for frame in frames.iter() {
        // A frame of the kernel's is far shorter than 4 GiB.
        out.extend_from_slice(&(frame.len() as u32).to_le_bytes());
        out.extend_from_slice(frame);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn batch(all: &[Vec<u8>]) -> Frames {
        let mut frames = Frames::new();
        all.iter().for_each(|frame| frames.push(frame));
        frames
    }

    proptest! {
        #[test]
        fn frames_survive_any_cutting_of_the_stream(
            all in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20),
            cuts in prop::collection::vec(1usize..400, 1..40),
        ) {
            let mut stream = Vec::new();
            encode(&batch(&all), &mut stream);
            let (mut decoder, mut got) = (Decoder::default(), Frames::new());
            let (mut rest, mut cuts) = (stream.as_slice(), cuts.iter().cycle());
            while !rest.is_empty() {
                let (now, later) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
                decoder.take(now, &mut got).unwrap();
                rest = later;
            }
            prop_assert_eq!(got, batch(&all));
            prop_assert!(!decoder.is_full());
        }

        #[test]
        fn any_bytes_give_frames_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Decoder::default().take(&bytes, &mut Frames::new());
        }
    }

    #[test]
    fn a_full_batch_is_continued_later() {
        let frame = vec![7; 40_000];
        let all = vec![frame; 40];
        let mut stream = Vec::new();
        encode(&batch(&all), &mut stream);
        let (mut decoder, mut got, mut count) = (Decoder::default(), Frames::new(), 0);
        decoder.take(&stream, &mut got).unwrap();
        while decoder.is_full() {
            count += got.iter().count();
            got.clear();
            decoder.take(&[], &mut got).unwrap();
        }
        assert_eq!(count + got.iter().count(), all.len());
        assert!(count > 0);
    }

    #[test]
    fn a_frame_that_cannot_be_is_refused() {
        let announce = |len: u32| Decoder::default().take(&len.to_le_bytes(), &mut Frames::new());
        assert!(announce(1 << 16).is_ok());
        assert!(announce((1 << 16) + 1).is_err());
    }
}
