// SPDX-License-Identifier: MIT OR Apache-2.0
//! Frames in a stream of bytes: batches, each compressed or not, behind a head that says how.
//!
//! | bytes | |
//! |---|---|
//! | 0 | 0: as it is, 1: an LZ4 block, 2: a Zstandard frame |
//! | 1 to 3 | 0 |
//! | 4 to 7 | how many bytes follow the head, little-endian |
//! | 8 to 11 | how many bytes of frames they are, little-endian |
//!
//! The frames are as the kernel gives and takes them: length (4 bytes, little-endian) and frame, again and again.

use crate::gain::{Coding, Gain};
use anyhow::{bail, ensure, Context, Result};
use dvk::Frames;
use std::time::Instant;

/// Bytes of the head.
pub const HEAD_BYTES: usize = 12;
/// The most bytes of frames in one batch. What comes in one piece must be there to its last byte before the first frame of it can be
/// used, so a batch takes no longer than a few frames of Ethernet.
pub const PLAIN_BYTES_MAX: usize = 1 << 17;
/// Frames are put together up to this many bytes. One more is at most half as long.
const PLAIN_BYTES: usize = 1 << 16;
const LENGTH_BYTES: usize = 4;
/// Thorough enough: what a higher level gains is a few percent, for a multiple of the time.
const ZSTD_LEVEL: i32 = 1;

/// What is compressed, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Whatever gains most time.
    Auto,
    /// Always this.
    Always(Coding),
}

/// Writes batches.
pub struct Encoder {
    compression: Compression,
    gain: Gain,
    zstd: zstd::bulk::Compressor<'static>,
    scratch: Vec<u8>,
}

impl core::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Encoder").field("compression", &self.compression).finish_non_exhaustive()
    }
}

impl Encoder {
    /// An encoder that compresses like this.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn new(compression: Compression) -> Result<Self> {
        let zstd = zstd::bulk::Compressor::new(ZSTD_LEVEL).context("preparing to compress")?;
        Ok(Self { compression, gain: Gain::default(), zstd, scratch: Vec::new() })
    }

    /// Adds a batch to `out`: the frames in `plain`, as [`pieces`] gives them.
    ///
    /// # Errors
    /// When the library fails at it.
    pub fn encode(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let coding = match self.compression {
            Compression::Auto => self.gain.choose(plain.len()),
            Compression::Always(coding) => coding,
        };
        let began = Instant::now();
        let room = match coding {
            Coding::Plain => 0,
            Coding::Lz4 => lz4_flex::block::get_maximum_output_size(plain.len()),
            Coding::Zstd => zstd::zstd_safe::compress_bound(plain.len()),
        };
        if self.scratch.len() < room {
            self.scratch.resize(room, 0);
        }
        let left = match coding {
            Coding::Plain => plain.len(),
            Coding::Lz4 => lz4_flex::block::compress_into(plain, &mut self.scratch)
                .context("compressing a batch by LZ4")?,
            Coding::Zstd => self
                .zstd
                .compress_to_buffer(plain, &mut self.scratch[..])
                .context("compressing a batch by Zstandard")?,
        };
        if coding != Coding::Plain {
            self.gain.compressed(coding, plain.len(), left, began.elapsed());
        }
        // What became longer goes as it was.
        let (coding, bytes) = match coding {
            Coding::Plain => (coding, plain),
            _ if left >= plain.len() => (Coding::Plain, plain),
            _ => (coding, &self.scratch[..left]),
        };
        out.extend_from_slice(&head(coding, bytes.len(), plain.len()));
        out.extend_from_slice(bytes);
        Ok(())
    }

    /// What became of the bytes: the transport took so many in this time.
    pub fn taken(&mut self, bytes: usize, spent: core::time::Duration) {
        self.gain.taken(bytes, spent);
    }
}

fn head(coding: Coding, bytes: usize, plain: usize) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    head[0] = coding as u8;
    // Batches are far shorter than 4 GiB.
    head[4..8].copy_from_slice(&(bytes as u32).to_le_bytes());
    head[8..].copy_from_slice(&(plain as u32).to_le_bytes());
    head
}

/// Cuts frames, as the kernel gives them, into pieces for one batch each.
pub fn pieces(mut frames: &[u8]) -> impl Iterator<Item = &[u8]> {
    core::iter::from_fn(move || {
        let mut end = 0;
        while let Some(length) = frames[end..].first_chunk::<LENGTH_BYTES>() {
            let next = end + LENGTH_BYTES + u32::from_le_bytes(*length) as usize;
            if next > frames.len() || (end > 0 && next > PLAIN_BYTES) {
                break;
            }
            end = next;
        }
        let (piece, rest) = frames.split_at(end);
        frames = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

/// Takes batches apart, however their bytes come in.
#[derive(Default)]
pub struct Decoder {
    rest: Vec<u8>,
    /// Bytes of `rest` that were taken.
    taken: usize,
    zstd: Option<zstd::bulk::Decompressor<'static>>,
    plain: Vec<u8>,
}

impl core::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Decoder").field("rest", &self.rest.len()).finish_non_exhaustive()
    }
}

impl Decoder {
    /// Where bytes that came are to be added.
    pub fn incoming(&mut self) -> &mut Vec<u8> {
        self.rest.drain(..core::mem::take(&mut self.taken));
        &mut self.rest
    }

    /// Replaces `frames` by those of the next batch that is complete, and returns how many bytes it came in; `None` if none is.
    ///
    /// # Errors
    /// When it is no batch. Nothing more can be understood then.
    pub fn next(&mut self, frames: &mut Frames) -> Result<Option<usize>> {
        frames.clear();
        let bytes = &self.rest[self.taken..];
        let Some((head, body)) = bytes.split_first_chunk::<HEAD_BYTES>() else { return Ok(None) };
        let [coding, 0, 0, 0, a, b, c, d, e, f, g, h] = *head else {
            bail!("a batch began with {head:02x?}, which no dvs-proxy of this version writes")
        };
        let [len, plain_len] =
            [[a, b, c, d], [e, f, g, h]].map(|it| u32::from_le_bytes(it) as usize);
        ensure!(
            len <= PLAIN_BYTES_MAX && plain_len <= PLAIN_BYTES_MAX,
            "a batch of {len} bytes for {plain_len} bytes of frames was announced; the longest has {PLAIN_BYTES_MAX}"
        );
        let Some(body) = body.get(..len) else { return Ok(None) };
        if coding != Coding::Plain as u8 {
            self.plain.resize(PLAIN_BYTES_MAX, 0);
        }
        // Neither library writes beyond the room that it is given.
        let plain = match coding {
            0 => body,
            1 => {
                let room = &mut self.plain[..plain_len];
                let len = lz4_flex::block::decompress_into(body, room)
                    .context("decompressing a batch by LZ4")?;
                &self.plain[..len]
            }
            2 => {
                let zstd = match &mut self.zstd {
                    Some(zstd) => zstd,
                    none => none.insert(
                        zstd::bulk::Decompressor::new().context("preparing to decompress")?,
                    ),
                };
                let room = &mut self.plain[..plain_len];
                let len = zstd
                    .decompress_to_buffer(body, room)
                    .context("decompressing a batch by Zstandard")?;
                &self.plain[..len]
            }
            other => bail!("a batch is compressed by method {other}, which is not known"),
        };
        ensure!(
            plain.len() == plain_len,
            "a batch has {} bytes of frames instead of {plain_len}",
            plain.len()
        );
        let mut rest = plain;
        while let Some((length, behind)) = rest.split_first_chunk::<LENGTH_BYTES>() {
            let length = u32::from_le_bytes(*length) as usize;
            let Some((frame, behind)) = behind.split_at_checked(length) else { break };
            frames.push(frame);
            rest = behind;
        }
        ensure!(rest.is_empty(), "the last frame of a batch reaches beyond its end");
        self.taken += HEAD_BYTES + len;
        Ok(Some(HEAD_BYTES + len))
    }

    /// Whether all that came was taken.
    pub fn is_empty(&self) -> bool {
        self.taken == self.rest.len()
    }
}

#[cfg(test)]
mod tests;
