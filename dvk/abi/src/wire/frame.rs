// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Frames: the unit that a transport carries between two nodes.
//!
//! A frame is a [`Header`] of [`HEADER_BYTES`] and a payload whose length the header tells, so that
//! the padding of short Ethernet frames is not taken for content. The payload of a data frame is
//! a sequence of [`Chunk`]s; that of a greeting is a [`Greeting`]; other frames have none. There
//! is no checksum: transports bring their own (Ethernet's FCS, MACsec's ICV). The state machine
//! that makes a link of this is `dvk-core::link`; `docs/wire-protocol.md` shows the tables.

/// The first two bytes of every frame, as a little-endian number.
pub const MAGIC: u16 = 0x5644;
/// Bytes of a header.
pub const HEADER_BYTES: usize = 64;
/// Payload that every transport carries. A link uses no more until the greeting has told what
/// the peer takes.
pub const MIN_PAYLOAD_BYTES: usize = 512;
/// The longest payload of a frame, whatever the transport could carry.
pub const MAX_PAYLOAD_BYTES: usize = 16_384;
/// Frames ahead of the cumulative acknowledgement that a frame can name: the largest window.
pub const MAX_WINDOW: u16 = 64;
/// The longest record: 64 KiB of bulk data and 512 bytes for what describes it.
pub const MAX_RECORD_BYTES: usize = 65_536 + 512;
/// Bytes before the data of a chunk.
pub const CHUNK_HEAD_BYTES: usize = 2;
/// The version whose layout greetings keep for ever.
pub const GREETING_VERSION: u8 = 1;

/// An inclusive range of protocol versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// The oldest.
    pub min: u8,
    /// The newest.
    pub max: u8,
}

impl Versions {
    /// What this codec reads and writes.
    pub const SUPPORTED: Self = Self { min: 1, max: 2 };

    /// Of what this codec speaks, what is not newer than `newest`; the oldest at least.
    pub const fn up_to(newest: u8) -> Self {
        let Self { min, max } = Self::SUPPORTED;
        let newest = if newest < max { newest } else { max };
        Self { min, max: if newest < min { min } else { newest } }
    }

    /// The newest version that both sides speak.
    pub fn agree(self, other: Self) -> Option<u8> {
        let newest = self.max.min(other.max);
        (newest >= self.min.max(other.min)).then_some(newest)
    }
}

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Tells the sender's stream and what it can do, and asks for the same. Its `sequence` is that
    /// of the first data frame to come.
    Hello = 1,
    /// A [`Hello`](Self::Hello) from one who has heard the destination's.
    HelloAck = 2,
    /// Carries records.
    Data = 3,
    /// Carries an acknowledgement only.
    Ack = 4,
    /// Asks for an [`Ack`](Self::Ack).
    Keepalive = 5,
    /// The sender has given the stream up.
    Reset = 6,
}

impl Kind {
    const fn from_raw(raw: u8) -> Option<Self> {
        Some(match raw {
            1 => Self::Hello,
            2 => Self::HelloAck,
            3 => Self::Data,
            4 => Self::Ack,
            5 => Self::Keepalive,
            6 => Self::Reset,
            _ => return None,
        })
    }

    /// Whether the frame is a greeting, whose layout never changes.
    pub const fn is_greeting(self) -> bool {
        matches!(self, Self::Hello | Self::HelloAck)
    }
}

/// One end of a link: a node, in one of its lives, in one life of the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The node's id.
    pub node: u16,
    /// The node's incarnation, never 0.
    pub incarnation: u32,
    /// The life of the link at that end; grows with each, never 0. As destination of a
    /// [`Kind::Hello`] it is 0: not known yet.
    pub stream: u32,
}

/// What stands before the payload. Its length is not a field: it follows from the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Protocol version; [`GREETING_VERSION`] in greetings.
    pub version: u8,
    /// What the frame is for.
    pub kind: Kind,
    /// The DVS it belongs to.
    pub cluster: u64,
    /// Who sends it.
    pub source: Address,
    /// Whom it is for.
    pub destination: Address,
    /// Number of a data frame; in other frames that of the next one.
    pub sequence: u32,
    /// Every data frame before this number has arrived; 0 in greetings.
    pub ack: u32,
    /// Bit `i`: data frame `ack + 1 + i` has arrived too.
    pub selective: u64,
    /// Data frames from `ack` on that the sender takes.
    pub window: u16,
    /// The sender's clock in microseconds, modulo 2^32.
    pub timestamp: u32,
    /// Timestamp of the first frame to be acknowledged since the last frame sent.
    pub echo: Option<u32>,
    /// Of a data frame from [`VERSION_ASKING`] on: the sender wants to have it acknowledged at once.
    /// In others false.
    pub asks: bool,
}

/// Why bytes are not a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// Shorter than a header, or than the header says.
    Truncated,
    /// Does not begin with [`MAGIC`].
    Magic,
    /// Of a version that this codec does not read.
    Version(u8),
    /// Of no known kind.
    Kind(u8),
    /// A reserved bit is not 0, or a field has a value that no sender writes.
    Field,
    /// The payload does not suit the kind.
    Payload,
}

/// The `echo` field is valid.
const FLAG_ECHO: u8 = 1;
/// See [`Header::asks`].
const FLAG_ASKS: u8 = 1 << 1;

/// The version from which on the sender of data says when it is to be acknowledged. Before it,
/// every second frame is.
pub const VERSION_ASKING: u8 = 2;

/// Whether frames of this version and kind can ask.
const fn can_ask(version: u8, kind: Kind) -> bool {
    version >= VERSION_ASKING && matches!(kind, Kind::Data)
}

impl Header {
    /// Writes header and payload to the front of `out`; returns the bytes written.
    ///
    /// `None`, with `out` as it was, if `out` is too short or the payload longer than
    /// [`MAX_PAYLOAD_BYTES`].
    pub fn encode(&self, payload: &[u8], out: &mut [u8]) -> Option<usize> {
        if payload.len() > MAX_PAYLOAD_BYTES {
            return None;
        }
        let total = HEADER_BYTES.wrapping_add(payload.len());
        let (head, rest) = out.get_mut(..total)?.split_first_chunk_mut::<HEADER_BYTES>()?;
        self.encode_head(payload.len() as u16, head);
        rest.copy_from_slice(payload);
        Some(total)
    }

    /// Writes the header of a frame whose payload has so many bytes.
    pub fn encode_head(&self, payload_bytes: u16, head: &mut [u8; HEADER_BYTES]) {
        head[0..2].copy_from_slice(&MAGIC.to_le_bytes());
        head[2] = self.version;
        head[3] = self.kind as u8;
        let asks = self.asks && can_ask(self.version, self.kind);
        head[4] =
            if self.echo.is_some() { FLAG_ECHO } else { 0 } | if asks { FLAG_ASKS } else { 0 };
        head[5] = 0;
        head[6..8].copy_from_slice(&payload_bytes.to_le_bytes());
        head[8..16].copy_from_slice(&self.cluster.to_le_bytes());
        head[16..18].copy_from_slice(&self.source.node.to_le_bytes());
        head[18..20].copy_from_slice(&self.destination.node.to_le_bytes());
        head[20..24].copy_from_slice(&self.source.incarnation.to_le_bytes());
        head[24..28].copy_from_slice(&self.destination.incarnation.to_le_bytes());
        head[28..32].copy_from_slice(&self.source.stream.to_le_bytes());
        head[32..36].copy_from_slice(&self.destination.stream.to_le_bytes());
        head[36..40].copy_from_slice(&self.sequence.to_le_bytes());
        head[40..44].copy_from_slice(&self.ack.to_le_bytes());
        head[44..48].copy_from_slice(&self.timestamp.to_le_bytes());
        head[48..56].copy_from_slice(&self.selective.to_le_bytes());
        head[56..60].copy_from_slice(&self.echo.unwrap_or(0).to_le_bytes());
        head[60..62].copy_from_slice(&self.window.to_le_bytes());
        head[62..64].copy_from_slice(&[0; 2]);
    }
}

/// A frame as it came: its header and its payload without the transport's padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The header.
    pub header: Header,
    /// The payload.
    pub payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Reads a frame at the front of `bytes`; what follows its payload is padding.
    ///
    /// The chunks of a data frame are not looked at: see [`Chunks::new`].
    ///
    /// # Errors
    /// Says what is wrong with bytes that [`Header::encode`] never writes.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, FrameError> {
        let (head, rest) =
            bytes.split_first_chunk::<HEADER_BYTES>().ok_or(FrameError::Truncated)?;
        let u16_at = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
        let u32_at = |at: usize| u32::from(u16_at(at + 2)) << 16 | u32::from(u16_at(at));
        let u64_at = |at: usize| u64::from(u32_at(at + 4)) << 32 | u64::from(u32_at(at));
        if u16_at(0) != MAGIC {
            return Err(FrameError::Magic);
        }
        let (version, flags) = (head[2], head[4]);
        let kind = Kind::from_raw(head[3]).ok_or(FrameError::Kind(head[3]))?;
        let known = if kind.is_greeting() {
            version == GREETING_VERSION
        } else {
            Versions::SUPPORTED.min <= version && version <= Versions::SUPPORTED.max
        };
        if !known {
            return Err(FrameError::Version(version));
        }
        let echo = u32_at(56);
        let header = Header {
            version,
            kind,
            cluster: u64_at(8),
            source: Address { node: u16_at(16), incarnation: u32_at(20), stream: u32_at(28) },
            destination: Address { node: u16_at(18), incarnation: u32_at(24), stream: u32_at(32) },
            sequence: u32_at(36),
            ack: u32_at(40),
            selective: u64_at(48),
            window: u16_at(60),
            timestamp: u32_at(44),
            echo: (flags & FLAG_ECHO != 0).then_some(echo),
            asks: flags & FLAG_ASKS != 0,
        };
        let known = FLAG_ECHO | if can_ask(version, kind) { FLAG_ASKS } else { 0 };
        let absent_echo = header.echo.is_none() && echo != 0;
        let unknown_stream = header.destination.stream == 0 && kind != Kind::Hello;
        if flags & !known != 0
            || head[5] != 0
            || u16_at(62) != 0
            || absent_echo
            || unknown_stream
            || header.source.incarnation == 0
            || header.destination.incarnation == 0
            || header.source.stream == 0
        {
            return Err(FrameError::Field);
        }
        let length = usize::from(u16_at(6));
        let suits = match kind {
            Kind::Hello | Kind::HelloAck => length >= Greeting::BYTES,
            Kind::Data => length > CHUNK_HEAD_BYTES,
            Kind::Ack | Kind::Keepalive | Kind::Reset => length == 0,
        };
        if !suits || length > MAX_PAYLOAD_BYTES {
            return Err(FrameError::Payload);
        }
        let payload = rest.get(..length).ok_or(FrameError::Truncated)?;
        Ok(Self { header, payload })
    }
}

/// What an end of a link tells about itself: the payload of a greeting.
///
/// Later versions may append to it; what a receiver does not know it skips.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// The versions it speaks.
    pub versions: Versions,
    /// The longest payload it can receive, from [`MIN_PAYLOAD_BYTES`] to [`MAX_PAYLOAD_BYTES`].
    pub payload_bytes: u16,
}

impl Greeting {
    /// Bytes of a greeting as this version writes it.
    pub const BYTES: usize = 8;

    /// The greeting as it stands on the wire.
    pub fn encode(&self) -> [u8; Self::BYTES] {
        let [low, high] = self.payload_bytes.to_le_bytes();
        [self.versions.min, self.versions.max, low, high, 0, 0, 0, 0]
    }

    /// Reads the payload of a greeting.
    ///
    /// # Errors
    /// [`FrameError::Payload`] if it is too short, [`FrameError::Field`] if a value in it cannot be.
    pub fn decode(payload: &[u8]) -> Result<Self, FrameError> {
        let (&[min, max, low, high, _, _, _, _], _) =
            payload.split_first_chunk::<{ Self::BYTES }>().ok_or(FrameError::Payload)?;
        let payload_bytes = u16::from_le_bytes([low, high]);
        let size = usize::from(payload_bytes);
        if min == 0 || min > max || !(MIN_PAYLOAD_BYTES..=MAX_PAYLOAD_BYTES).contains(&size) {
            return Err(FrameError::Field);
        }
        Ok(Self { versions: Versions { min, max }, payload_bytes })
    }
}

/// A record or a part of one, as it stands in a data frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk<'a> {
    /// The record begins here.
    pub first: bool,
    /// The record ends here.
    pub last: bool,
    /// At least one byte.
    pub data: &'a [u8],
}

const CHUNK_FIRST: u16 = 1 << 14;
const CHUNK_LAST: u16 = 1 << 15;
const CHUNK_LENGTH: u16 = CHUNK_FIRST - 1;

impl<'a> Chunk<'a> {
    /// Writes the chunk to the front of `out`; returns the bytes written.
    ///
    /// `None`, with `out` as it was, if `out` is too short or the data empty or longer than a
    /// frame can hold.
    pub fn encode(&self, out: &mut [u8]) -> Option<usize> {
        let total = CHUNK_HEAD_BYTES.wrapping_add(self.data.len());
        if self.data.is_empty() || total > MAX_PAYLOAD_BYTES {
            return None;
        }
        let (head, rest) = out.get_mut(..total)?.split_first_chunk_mut::<CHUNK_HEAD_BYTES>()?;
        let first = if self.first { CHUNK_FIRST } else { 0 };
        let last = if self.last { CHUNK_LAST } else { 0 };
        *head = (self.data.len() as u16 | first | last).to_le_bytes();
        rest.copy_from_slice(self.data);
        Some(total)
    }

    fn split(payload: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (head, rest) = payload.split_first_chunk::<CHUNK_HEAD_BYTES>()?;
        let word = u16::from_le_bytes(*head);
        let length = usize::from(word & CHUNK_LENGTH);
        if length == 0 {
            return None;
        }
        let (data, rest) = rest.split_at_checked(length)?;
        Some((Self { first: word & CHUNK_FIRST != 0, last: word & CHUNK_LAST != 0, data }, rest))
    }
}

/// The chunks of a data frame, in order.
#[derive(Clone, Debug)]
pub struct Chunks<'a> {
    rest: &'a [u8],
}

impl<'a> Chunks<'a> {
    /// No chunks.
    pub const NONE: Self = Self { rest: &[] };

    /// The chunks of a payload, which they fill exactly.
    ///
    /// # Errors
    /// [`FrameError::Payload`] if they do not.
    pub fn new(payload: &'a [u8]) -> Result<Self, FrameError> {
        let mut rest = payload;
        while !rest.is_empty() {
            (_, rest) = Chunk::split(rest).ok_or(FrameError::Payload)?;
        }
        Ok(Self { rest: payload })
    }
}

impl<'a> Iterator for Chunks<'a> {
    type Item = Chunk<'a>;

    fn next(&mut self) -> Option<Chunk<'a>> {
        let (chunk, rest) = Chunk::split(self.rest)?;
        self.rest = rest;
        Some(chunk)
    }
}
