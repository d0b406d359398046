// SPDX-License-Identifier: MIT OR Apache-2.0
//! What travels between the members: numbered requests and answers on a stream.
//!
//! A frame is its length in bytes without itself (4), a number (8), and the body; integers are
//! little-endian. A request and its answer have the same number. The body of a request begins with
//! its [kind](Kind). An answer has no kind.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Most bytes of a body: more than a member sends at once, and not so much that it hurts a node.
const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// Only that there is an answer.
    Probe = 0,
    /// Something of a member's consensus.
    Consensus = 1,
}

/// A request or an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) number: u64,
    pub(super) body: Vec<u8>,
}

impl Frame {
    pub(super) fn request(number: u64, kind: Kind, content: &[u8]) -> Self {
        let mut body = Vec::with_capacity(1 + content.len());
        body.push(kind as u8);
        body.extend_from_slice(content);
        Self { number, body }
    }

    /// What a request asks for, and the rest of it; `None` for what nobody asks for.
    pub(super) fn content(&self) -> Option<(Kind, &[u8])> {
        let (kind, content) = self.body.split_first()?;
        match kind {
            0 if content.is_empty() => Some((Kind::Probe, content)),
            1 => Some((Kind::Consensus, content)),
            _ => None,
        }
    }

    /// Reads the next one. Not to be given up half way.
    pub(super) async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Self> {
        let length = from.read_u32_le().await? as usize;
        let number = from.read_u64_le().await?;
        let Some(bytes) = length.checked_sub(8).filter(|bytes| *bytes <= BODY_BYTES_MAX) else {
            let text = format!("a frame of {length} bytes, which no member sends");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        };
        // Memory is taken for what comes, not for what is said to come.
        let mut body = Vec::new();
        from.take(bytes as u64).read_to_end(&mut body).await?;
        match body.len() == bytes {
            true => Ok(Self { number, body }),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    pub(super) async fn write(&self, to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        if self.body.len() > BODY_BYTES_MAX {
            let text = format!("{} bytes are more than a frame can have", self.body.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let mut head = [0; 12];
        head[..4].copy_from_slice(&(self.body.len() as u32 + 8).to_le_bytes());
        head[4..].copy_from_slice(&self.number.to_le_bytes());
        to.write_all(&head).await?;
        to.write_all(&self.body).await?;
        to.flush().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(mut bytes: &[u8]) -> io::Result<Frame> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(Frame::read(&mut bytes))
    }

    fn written(frame: &Frame) -> Vec<u8> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut bytes = Vec::new();
        runtime.block_on(frame.write(&mut bytes)).unwrap();
        bytes
    }

    #[test]
    fn what_is_written_is_read() {
        let frame = Frame::request(7, Kind::Consensus, b"abc");
        assert_eq!(written(&frame), b"\x0c\0\0\0\x07\0\0\0\0\0\0\0\x01abc");
        assert_eq!(read(&written(&frame)).unwrap(), frame);
        assert_eq!(frame.content(), Some((Kind::Consensus, &b"abc"[..])));
        let probe = Frame::request(8, Kind::Probe, &[]);
        assert_eq!(read(&written(&probe)).unwrap().content(), Some((Kind::Probe, &[][..])));
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        let whole = written(&Frame::request(7, Kind::Consensus, b"abc"));
        for end in 0..whole.len() {
            assert_eq!(read(&whole[..end]).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        }
        for length in [0u32, 7, BODY_BYTES_MAX as u32 + 9, u32::MAX] {
            let bytes = [&length.to_le_bytes()[..], &[0; 64]].concat();
            assert_eq!(read(&bytes).unwrap_err().kind(), io::ErrorKind::InvalidData, "{length}");
        }
        for body in [vec![], vec![0, 1], vec![2], vec![0xff; 3]] {
            assert_eq!(Frame { number: 1, body }.content(), None);
        }
    }
}
