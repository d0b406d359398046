// SPDX-License-Identifier: MIT OR Apache-2.0
//! Frames and their codec.

use thiserror::Error;

use crate::request::{Request, Size};

/// The most bytes that a frame carries.
pub const PAYLOAD_MAX: usize = 64 << 10;

/// The tag and the length.
const HEADER: usize = 5;

/// One thing that is said over the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// To the command's side, once and first: what to run.
    Run(Box<Request>),
    /// To it: bytes of standard input, or what is typed.
    Input(Vec<u8>),
    /// To it: there is no more input. With a terminal, as if the end of a file had been typed.
    EndOfInput,
    /// To it: the terminal has this size now.
    Resize(Size),
    /// To it: a signal for the command, by its number on Linux.
    Signal(u8),
    /// From it: bytes of standard output, or of the terminal.
    Output(Vec<u8>),
    /// From it: bytes of standard error. With a terminal there are none.
    Error(Vec<u8>),
    /// From it, last: the exit status, 128 and the signal's number if one ended the command, 125 to 127 if it could not be run.
    Exited(u8),
    /// From it, last: the command could not be run, and why.
    Refused(String),
}

/// Why a stream makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Fault {
    /// A tag of another version, or no stream of this kind.
    #[error("reading the stream of a command: the tag {0} is not known; is the other end of another version?")]
    Tag(u8),
    /// More than a frame can carry.
    #[error("reading the stream of a command: a frame announces {0} bytes, and at most {PAYLOAD_MAX} can be")]
    Length(usize),
    /// The payload is not that of its tag.
    #[error("reading the stream of a command: a frame of tag {0} has a payload that is none: {1}")]
    Payload(u8, String),
}

impl Frame {
    fn tag(&self) -> u8 {
        match self {
            Self::Run(_) => 1,
            Self::Input(_) => 2,
            Self::EndOfInput => 3,
            Self::Resize(_) => 4,
            Self::Signal(_) => 5,
            Self::Output(_) => 6,
            Self::Error(_) => 7,
            Self::Exited(_) => 8,
            Self::Refused(_) => 9,
        }
    }

    /// Appends the frame's bytes to `to`. Bytes of input and output that are too many for one frame become several.
    ///
    /// # Errors
    /// When what is to be run, or why it was refused, is longer than a frame; then nothing is appended.
    pub fn encode(&self, to: &mut Vec<u8>) -> Result<(), Fault> {
        let whole = |to: &mut Vec<u8>, payload: &[u8]| {
            if payload.len() > PAYLOAD_MAX {
                return Err(Fault::Length(payload.len()));
            }
            to.push(self.tag());
            // It fits: it was compared with the most there can be.
            to.extend_from_slice(&(payload.len() as u32).to_le_bytes());
            to.extend_from_slice(payload);
            Ok(())
        };
        match self {
            Self::Run(request) => {
                let text = serde_json::to_vec(request)
                    .map_err(|error| Fault::Payload(self.tag(), error.to_string()))?;
                whole(to, &text)
            }
            Self::Input(bytes) | Self::Output(bytes) | Self::Error(bytes) => {
                bytes.chunks(PAYLOAD_MAX).try_for_each(|part| whole(to, part))
            }
            Self::EndOfInput => whole(to, &[]),
            Self::Resize(Size { rows, columns }) => {
                let [rows, columns] = [rows, columns].map(|number| number.to_le_bytes());
                whole(to, &[rows[0], rows[1], columns[0], columns[1]])
            }
            Self::Signal(byte) | Self::Exited(byte) => whole(to, &[*byte]),
            Self::Refused(why) => whole(to, why.as_bytes()),
        }
    }

    fn decode(tag: u8, payload: &[u8]) -> Result<Self, Fault> {
        let wrong = |why: &dyn std::fmt::Display| Fault::Payload(tag, why.to_string());
        let byte = || match payload {
            [byte] => Ok(*byte),
            _ => Err(wrong(&"it must be one byte")),
        };
        match tag {
            1 => {
                let request = serde_json::from_slice(payload).map_err(|error| wrong(&error))?;
                Ok(Self::Run(Box::new(request)))
            }
            2 => Ok(Self::Input(payload.to_vec())),
            3 if payload.is_empty() => Ok(Self::EndOfInput),
            3 => Err(wrong(&"it must be empty")),
            4 => match *payload {
                [a, b, c, d] => Ok(Self::Resize(Size {
                    rows: u16::from_le_bytes([a, b]),
                    columns: u16::from_le_bytes([c, d]),
                })),
                _ => Err(wrong(&"it must be four bytes")),
            },
            5 => byte().map(Self::Signal),
            6 => Ok(Self::Output(payload.to_vec())),
            7 => Ok(Self::Error(payload.to_vec())),
            8 => byte().map(Self::Exited),
            9 => {
                let text = String::from_utf8(payload.to_vec()).map_err(|error| wrong(&error))?;
                Ok(Self::Refused(text))
            }
            _ => Err(Fault::Tag(tag)),
        }
    }
}

/// Takes the bytes of a stream as they come, and gives its frames. It holds no more than was pushed and not yet taken.
#[derive(Clone, Debug, Default)]
pub struct Decoder {
    bytes: Vec<u8>,
    taken: usize,
}

impl Decoder {
    /// Takes more of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        // What was given out goes before more comes, so that the rest is moved once for each push.
        self.bytes.drain(..self.taken);
        self.taken = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// The next frame, or none until more is pushed.
    ///
    /// # Errors
    /// When the stream makes no sense; it makes none from then on.
    pub fn take(&mut self) -> Result<Option<Frame>, Fault> {
        let rest = &self.bytes[self.taken..];
        let Some((&tag, after)) = rest.split_first() else { return Ok(None) };
        if !(1..=9).contains(&tag) {
            return Err(Fault::Tag(tag));
        }
        let Some(length) = after.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*length) as usize;
        if length > PAYLOAD_MAX {
            return Err(Fault::Length(length));
        }
        let Some(payload) = rest.get(HEADER..HEADER + length) else { return Ok(None) };
        let frame = Frame::decode(tag, payload)?;
        self.taken += HEADER + length;
        Ok(Some(frame))
    }

    /// What was pushed and not taken, for who passes the rest of the stream on.
    pub fn into_rest(mut self) -> Vec<u8> {
        self.bytes.split_off(self.taken)
    }

    /// Whether the stream may end here: no frame has begun.
    pub fn is_between_frames(&self) -> bool {
        self.taken == self.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame() -> impl Strategy<Value = Frame> {
        let bytes = || prop::collection::vec(any::<u8>(), 1..300);
        prop_oneof![
            prop::collection::vec(".{0,20}", 0..4).prop_map(|command| {
                Frame::Run(Box::new(Request { command, ..Request::default() }))
            }),
            bytes().prop_map(Frame::Input),
            Just(Frame::EndOfInput),
            any::<(u16, u16)>().prop_map(|(rows, columns)| Frame::Resize(Size { rows, columns })),
            any::<u8>().prop_map(Frame::Signal),
            bytes().prop_map(Frame::Output),
            bytes().prop_map(Frame::Error),
            any::<u8>().prop_map(Frame::Exited),
            ".{0,40}".prop_map(Frame::Refused),
        ]
    }

    proptest! {
        #[test]
        fn what_was_said_is_heard_however_it_is_cut(
            frames in prop::collection::vec(frame(), 0..12),
            cuts in prop::collection::vec(1..64_usize, 1..40),
        ) {
            let mut stream = Vec::new();
            for frame in &frames {
                frame.encode(&mut stream).unwrap();
            }
            let mut decoder = Decoder::default();
            let mut heard = Vec::new();
            let mut cuts = cuts.into_iter().cycle();
            let mut rest = stream.as_slice();
            while !rest.is_empty() {
                let (now, later) = rest.split_at(cuts.next().unwrap().min(rest.len()));
                decoder.push(now);
                rest = later;
                while let Some(frame) = decoder.take().unwrap() {
                    heard.push(frame);
                }
            }
            prop_assert!(decoder.is_between_frames());
            prop_assert_eq!(heard, frames);
        }

        #[test]
        fn no_bytes_make_it_panic_or_go_on_for_ever(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let mut decoder = Decoder::default();
            decoder.push(&bytes);
            for _ in 0..=bytes.len() {
                match decoder.take() {
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => return Ok(()),
                }
            }
            prop_assert!(false, "more frames than bytes");
        }
    }

    #[test]
    fn much_output_becomes_several_frames() {
        let mut stream = Vec::new();
        Frame::Output(vec![7; PAYLOAD_MAX + 1]).encode(&mut stream).unwrap();
        let mut decoder = Decoder::default();
        decoder.push(&stream);
        let lengths: Vec<_> = std::iter::from_fn(|| decoder.take().unwrap())
            .map(|frame| match frame {
                Frame::Output(bytes) => bytes.len(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(lengths, [PAYLOAD_MAX, 1]);
    }

    #[test]
    fn what_is_too_long_is_refused_before_it_is_waited_for() {
        let mut decoder = Decoder::default();
        decoder.push(&[2, 0, 0, 1, 1]);
        assert_eq!(decoder.take(), Err(Fault::Length(0x0101_0000)));
        let mut stream = Vec::new();
        let long = Frame::Refused("x".repeat(PAYLOAD_MAX + 1));
        assert_eq!(long.encode(&mut stream), Err(Fault::Length(PAYLOAD_MAX + 1)));
        assert!(stream.is_empty());
    }

    #[test]
    fn payloads_that_are_none_are_refused() {
        for (tag, payload) in
            [(1, &b"{}x"[..]), (3, b"x"), (4, b"abc"), (5, b""), (8, b"ab"), (9, b"\xff")]
        {
            let mut decoder = Decoder::default();
            decoder.push(&[&[tag, payload.len() as u8, 0, 0, 0], payload].concat());
            assert!(
                matches!(decoder.take(), Err(Fault::Payload(wrong, _)) if wrong == tag),
                "{tag}"
            );
        }
        let mut decoder = Decoder::default();
        decoder.push(&[10]);
        assert_eq!(decoder.take(), Err(Fault::Tag(10)));
    }
}
