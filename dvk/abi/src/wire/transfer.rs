// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Records of copies between nodes.
//!
//! The *asker* is the endpoint whose program copies, the *granter* the one whose memory is lent. A
//! copy goes in parts of up to [`MAX_PART_BYTES`], each with a number of its own (`call`), so that
//! neither side pins or holds more than that for it. The receiving side of a part pins where its
//! bytes go before any is sent:
//!
//! ```text
//! asker                     granter's node      asker                     granter's node
//!   │ CopyFrom                      │             │ CopyTo                        │
//!   │ ────────────────────────────► │             │ ────────────────────────────► │
//!   │                      Supplied │             │                          Open │
//!   │ ◄──────────────────────────── │             │ ◄──────────────────────────── │
//!   │                      Supplied │             │ Stored                        │
//!   │ ◄──────────────────────────── │             │ ────────────────────────────► │
//!   │                          Done │             │                          Done │
//!   │ ◄──────────────────────────── │             │ ◄──────────────────────────── │
//! ```
//!
//! `Stop` of the asker asks for an early `Done`; the granter's node may give one at any time.

use super::super::endpoint::Endpoint;
use super::super::errno::Errno;
use super::record::RECORD_BYTES;

/// The longest part of a copy whose bytes travel.
pub const MAX_PART_BYTES: u32 = 256 * 1024;
/// The most bytes in one data record, so that small records need not wait for long.
pub const MAX_DATA_BYTES: usize = 16 * 1024;
/// Bytes of a data record before its data.
pub const DATA_HEAD_BYTES: usize = HEAD_BYTES + 4;

/// Bytes before the rest that each kind has: kind, zero, container, call, from, to.
const HEAD_BYTES: usize = 24;

/// The kinds of records that are of copies; the others are those of [`record`](super::record).
pub const KINDS: core::ops::RangeInclusive<u8> = kind::COPY_FROM..=kind::DONE;

mod kind {
    pub(super) const COPY_FROM: u8 = 20;
    pub(super) const COPY_TO: u8 = 21;
    pub(super) const COPY_BETWEEN: u8 = 22;
    pub(super) const OPEN: u8 = 23;
    pub(super) const SUPPLIED: u8 = 24;
    pub(super) const STORED: u8 = 25;
    pub(super) const STOP: u8 = 26;
    pub(super) const DONE: u8 = 27;
}

/// A place in what an endpoint granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The grant.
    pub grant: u64,
    /// Bytes from its beginning.
    pub offset: u64,
}

/// A step of a copy, other than its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyStep {
    /// The asker wants `len` bytes of what `to` granted; at most [`MAX_PART_BYTES`].
    CopyFrom {
        /// Where they are.
        source: Place,
        /// How many.
        len: u32,
        /// How many the whole copy wants from there on. The grant must allow it all, so that what
        /// cannot succeed copies nothing.
        rest: u64,
    },
    /// The asker has `len` bytes for what `to` granted; at most [`MAX_PART_BYTES`].
    CopyTo {
        /// Where they go.
        destination: Place,
        /// How many.
        len: u32,
        /// As in [`CopyFrom`](Self::CopyFrom).
        rest: u64,
    },
    /// `len` bytes of what `to` granted are to go to what another endpoint of its node did.
    CopyBetween {
        /// Where they are.
        source: Place,
        /// Who granted the other place.
        receiver: Endpoint,
        /// Where they go.
        destination: Place,
        /// How many.
        len: u32,
        /// As in [`CopyFrom`](Self::CopyFrom), for both grants.
        rest: u64,
    },
    /// The place for the asker's bytes is ready.
    Open,
    /// The asker has, or wants, no more bytes: say how far it got.
    Stop,
    /// The part is over.
    Done {
        /// The first bytes that were copied.
        copied: u32,
        /// Why not all.
        error: Option<Errno>,
    },
}

impl CopyStep {
    /// Whether the step begins a part.
    pub const fn begins(&self) -> bool {
        matches!(self, Self::CopyFrom { .. } | Self::CopyTo { .. } | Self::CopyBetween { .. })
    }
}

/// Which way data goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// To the asker.
    Supplied,
    /// To the granter.
    Stored,
}

/// Whose copy it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyHead {
    /// The container.
    pub container: u16,
    /// Number of the part among those of the asker's node.
    pub call: u32,
    /// Who does the step.
    pub from: Endpoint,
    /// Whom it is for.
    pub to: Endpoint,
}

/// A record of a copy, other than its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyRecord {
    /// Whose copy.
    pub head: CopyHead,
    /// What is done.
    pub step: CopyStep,
}

/// What begins a data record; the data is what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataHead {
    /// Whose copy.
    pub head: CopyHead,
    /// Which way it goes.
    pub flow: Flow,
    /// Where in the part the data belongs.
    pub offset: u32,
}

/// Bytes that are no record of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl CopyHead {
    fn encode(&self, kind: u8, out: &mut [u8]) {
        out[0] = kind;
        out[1] = 0;
        out[2..4].copy_from_slice(&self.container.to_le_bytes());
        out[4..8].copy_from_slice(&self.call.to_le_bytes());
        out[8..16].copy_from_slice(&self.from.raw().to_le_bytes());
        out[16..24].copy_from_slice(&self.to.raw().to_le_bytes());
    }

    /// Takes the head off `reader`, and gives it with the kind.
    fn decode(reader: &mut Reader<'_>) -> Result<(u8, Self), Malformed> {
        let [kind, zero] = reader.take()?;
        let container = u16::from_le_bytes(reader.take()?);
        let call = reader.u32()?;
        let (from, to) = (reader.endpoint()?, reader.endpoint()?);
        if zero != 0 {
            return Err(Malformed);
        }
        Ok((kind, Self { container, call, from, to }))
    }

    /// The head of what the other side answers.
    #[must_use]
    pub fn back(&self) -> Self {
        Self { from: self.to, to: self.from, ..*self }
    }
}

impl CopyRecord {
    /// Writes the record and returns its length in bytes.
    pub fn encode(&self, out: &mut [u8; RECORD_BYTES]) -> usize {
        let kind = match self.step {
            CopyStep::CopyFrom { .. } => kind::COPY_FROM,
            CopyStep::CopyTo { .. } => kind::COPY_TO,
            CopyStep::CopyBetween { .. } => kind::COPY_BETWEEN,
            CopyStep::Open => kind::OPEN,
            CopyStep::Stop => kind::STOP,
            CopyStep::Done { .. } => kind::DONE,
        };
        self.head.encode(kind, out);
        let mut writer = Writer { out, at: HEAD_BYTES };
        match self.step {
            CopyStep::CopyFrom { source: place, len, rest }
            | CopyStep::CopyTo { destination: place, len, rest } => {
                writer.put(&len.to_le_bytes());
                writer.put(&rest.to_le_bytes());
                writer.place(place);
            }
            CopyStep::CopyBetween { source, receiver, destination, len, rest } => {
                writer.put(&len.to_le_bytes());
                writer.put(&rest.to_le_bytes());
                writer.place(source);
                writer.put(&receiver.raw().to_le_bytes());
                writer.place(destination);
            }
            CopyStep::Open | CopyStep::Stop => {}
            CopyStep::Done { copied, error } => {
                writer.put(&copied.to_le_bytes());
                writer.put(&[error.map_or(0, Errno::raw)]);
            }
        }
        writer.at
    }

    /// Reads a record that fills `bytes` exactly.
    ///
    /// # Errors
    /// [`Malformed`] for bytes that [`encode`](Self::encode) never writes.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader(bytes);
        let (kind, head) = CopyHead::decode(&mut reader)?;
        let step = match kind {
            kind::COPY_FROM => {
                let (len, rest) = reader.part(MAX_PART_BYTES)?;
                CopyStep::CopyFrom { source: reader.place()?, len, rest }
            }
            kind::COPY_TO => {
                let (len, rest) = reader.part(MAX_PART_BYTES)?;
                CopyStep::CopyTo { destination: reader.place()?, len, rest }
            }
            kind::COPY_BETWEEN => {
                let (len, rest) = reader.part(u32::MAX)?;
                CopyStep::CopyBetween {
                    source: reader.place()?,
                    receiver: reader.endpoint()?,
                    destination: reader.place()?,
                    len,
                    rest,
                }
            }
            kind::OPEN => CopyStep::Open,
            kind::STOP => CopyStep::Stop,
            kind::DONE => {
                let copied = reader.u32()?;
                let error = match reader.take()? {
                    [0] => None,
                    [error] => Some(Errno::from_raw(error).ok_or(Malformed)?),
                };
                CopyStep::Done { copied, error }
            }
            _ => return Err(Malformed),
        };
        if !reader.0.is_empty() {
            return Err(Malformed);
        }
        Ok(Self { head, step })
    }
}

impl DataHead {
    /// The bytes that precede the data.
    pub fn encode(&self) -> [u8; DATA_HEAD_BYTES] {
        let mut out = [0; DATA_HEAD_BYTES];
        let kind = match self.flow {
            Flow::Supplied => kind::SUPPLIED,
            Flow::Stored => kind::STORED,
        };
        self.head.encode(kind, &mut out);
        out[HEAD_BYTES..].copy_from_slice(&self.offset.to_le_bytes());
        out
    }

    /// Whether these bytes are the beginning of a data record.
    pub fn begins(bytes: &[u8]) -> bool {
        matches!(bytes.first(), Some(&(kind::SUPPLIED | kind::STORED)))
    }

    /// Reads the head of a data record, of which `bytes` is the beginning, and gives what follows.
    ///
    /// # Errors
    /// [`Malformed`] for bytes that [`encode`](Self::encode) never writes.
    pub fn decode(bytes: &[u8]) -> Result<(Self, &[u8]), Malformed> {
        let mut reader = Reader(bytes);
        let (kind, head) = CopyHead::decode(&mut reader)?;
        let flow = match kind {
            kind::SUPPLIED => Flow::Supplied,
            kind::STORED => Flow::Stored,
            _ => return Err(Malformed),
        };
        let offset = reader.u32()?;
        Ok((Self { head, flow, offset }, reader.0))
    }
}

struct Writer<'a> {
    out: &'a mut [u8; RECORD_BYTES],
    at: usize,
}

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) {
        self.out[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }

    fn place(&mut self, place: Place) {
        self.put(&place.grant.to_le_bytes());
        self.put(&place.offset.to_le_bytes());
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_le_bytes(self.take()?))
    }

    /// The length of a part, and of the rest of the copy, which it is the beginning of.
    fn part(&mut self, most: u32) -> Result<(u32, u64), Malformed> {
        let len = self.u32()?;
        let rest = u64::from_le_bytes(self.take()?);
        if len > most || u64::from(len) > rest {
            return Err(Malformed);
        }
        Ok((len, rest))
    }

    fn endpoint(&mut self) -> Result<Endpoint, Malformed> {
        let endpoint = Endpoint::from_raw(u64::from_le_bytes(self.take()?));
        if !endpoint.is_name() {
            return Err(Malformed);
        }
        Ok(endpoint)
    }

    fn place(&mut self) -> Result<Place, Malformed> {
        let grant = u64::from_le_bytes(self.take()?);
        Ok(Place { grant, offset: u64::from_le_bytes(self.take()?) })
    }
}
