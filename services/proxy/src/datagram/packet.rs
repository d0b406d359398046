// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is in a datagram. Numbers are little-endian.
//!
//! | bytes | |
//! |---|---|
//! | 0, 1 | `d5 6c` |
//! | 2 | version: 1 |
//! | 3 | kind |
//!
//! | kind | then |
//! |---|---|
//! | 1, challenge | session at the receiver (4; 0 if it is for none), challenge (16), authentication (16) |
//! | 2, initiation | session at the sender (4), the first message of the handshake (64), which holds the challenge |
//! | 3, response | session at the receiver (4), session at the sender (4), the second message (64), which holds the next challenge |
//! | 4, data | session at the receiver (4), number (8), sealed frame |

use dvk_abi::wire::frame;

const MAGIC: [u8; 2] = [0xd5, 0x6c];
const VERSION: u8 = 1;
const HEAD_BYTES: usize = 4;
/// Bytes of a challenge.
pub(crate) const CHALLENGE_BYTES: usize = 16;
/// Bytes of what authenticates a challenge.
pub(crate) const AUTHENTICATION_BYTES: usize = 16;
/// Bytes of each message of a handshake: a public key, a challenge and what authenticates it.
pub(crate) const HANDSHAKE_BYTES: usize = 32 + CHALLENGE_BYTES + TAG_BYTES;
/// Bytes by which sealed data is longer.
pub(crate) const TAG_BYTES: usize = 16;
/// Bytes before sealed data.
pub(crate) const DATA_HEAD_BYTES: usize = HEAD_BYTES + 4 + 8;
/// By how much a datagram is longer than its frame.
pub const OVERHEAD_BYTES: usize = DATA_HEAD_BYTES + TAG_BYTES;

/// A challenge.
pub(crate) type Challenge = [u8; CHALLENGE_BYTES];

/// A datagram, of which nothing is proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packet<'a> {
    Challenge { to: u32, challenge: Challenge, authentication: [u8; AUTHENTICATION_BYTES] },
    Initiation { from: u32, message: &'a [u8; HANDSHAKE_BYTES] },
    Response { to: u32, from: u32, message: &'a [u8; HANDSHAKE_BYTES] },
    Data { to: u32, number: u64, sealed: &'a [u8] },
}

/// Why a datagram is none of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stranger {
    /// A frame of a link, as a proxy of an insecure cluster sends it.
    Clear,
    /// Of another version.
    Version(u8),
    /// Anything else.
    Noise,
}

impl<'a> Packet<'a> {
    /// Takes a datagram apart.
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self, Stranger> {
        if bytes.starts_with(&frame::MAGIC.to_le_bytes()) {
            return Err(Stranger::Clear);
        }
        let (&[a, b, version, kind], rest) =
            bytes.split_first_chunk::<HEAD_BYTES>().ok_or(Stranger::Noise)?;
        if [a, b] != MAGIC {
            return Err(Stranger::Noise);
        }
        if version != VERSION {
            return Err(Stranger::Version(version));
        }
        let mut rest = Reader(rest);
        let packet = match kind {
            1 => Self::Challenge {
                to: rest.u32()?,
                challenge: *rest.take()?,
                authentication: *rest.take()?,
            },
            2 => Self::Initiation { from: rest.u32()?, message: rest.take()? },
            3 => Self::Response { to: rest.u32()?, from: rest.u32()?, message: rest.take()? },
            4 => {
                let (to, number) = (rest.u32()?, u64::from_le_bytes(*rest.take()?));
                let sealed = core::mem::take(&mut rest.0);
                if sealed.len() < TAG_BYTES {
                    return Err(Stranger::Noise);
                }
                Self::Data { to, number, sealed }
            }
            _ => return Err(Stranger::Noise),
        };
        if !rest.0.is_empty() {
            return Err(Stranger::Noise);
        }
        Ok(packet)
    }

    /// The datagram.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.push(VERSION);
        match *self {
            Self::Challenge { to, challenge, authentication } => {
                bytes.push(1);
                bytes.extend(to.to_le_bytes());
                bytes.extend(challenge);
                bytes.extend(authentication);
            }
            Self::Initiation { from, message } => {
                bytes.push(2);
                bytes.extend(from.to_le_bytes());
                bytes.extend(message);
            }
            Self::Response { to, from, message } => {
                bytes.push(3);
                bytes.extend(to.to_le_bytes());
                bytes.extend(from.to_le_bytes());
                bytes.extend(message);
            }
            Self::Data { to, number, sealed } => {
                bytes.extend(&data_head(to, number)[3..]);
                bytes.extend(sealed);
            }
        }
        bytes
    }
}

/// Whether a datagram is of this format, in any version.
pub(crate) fn is_sealed(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC)
}

/// What stands before sealed data.
pub(crate) fn data_head(to: u32, number: u64) -> [u8; DATA_HEAD_BYTES] {
    let mut head = [0; DATA_HEAD_BYTES];
    head[..2].copy_from_slice(&MAGIC);
    head[2..4].copy_from_slice(&[VERSION, 4]);
    head[4..8].copy_from_slice(&to.to_le_bytes());
    head[8..].copy_from_slice(&number.to_le_bytes());
    head
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take<const BYTES: usize>(&mut self) -> Result<&'a [u8; BYTES], Stranger> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Stranger::Noise)?;
        self.0 = rest;
        Ok(taken)
    }

    fn u32(&mut self) -> Result<u32, Stranger> {
        Ok(u32::from_le_bytes(*self.take()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn packets_are_read_as_written(
            (kind, to, from, number) in (0..4, any::<u32>(), any::<u32>(), any::<u64>()),
            bytes in prop::collection::vec(any::<u8>(), HANDSHAKE_BYTES..200),
        ) {
            let message = bytes.first_chunk().unwrap();
            let packet = match kind {
                0 => Packet::Challenge {
                    to,
                    challenge: *bytes.first_chunk().unwrap(),
                    authentication: *bytes.last_chunk().unwrap(),
                },
                1 => Packet::Initiation { from, message },
                2 => Packet::Response { to, from, message },
                _ => Packet::Data { to, number, sealed: &bytes },
            };
            let datagram = packet.encode();
            prop_assert!(is_sealed(&datagram));
            prop_assert_eq!(Packet::decode(&datagram), Ok(packet));
            // Nothing is too long, and nothing too short unnoticed.
            if kind != 3 {
                let longer = [&datagram[..], &[0]].concat();
                prop_assert_eq!(Packet::decode(&longer), Err(Stranger::Noise));
                let shorter = &datagram[..datagram.len() - 1];
                prop_assert_eq!(Packet::decode(shorter), Err(Stranger::Noise));
            }
        }

        #[test]
        fn any_bytes_are_read_as_one_packet_or_none(
            head in prop::sample::select(vec![vec![], MAGIC.to_vec(), vec![0xd5, 0x6c, 1]]),
            bytes in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let datagram = [head, bytes].concat();
            if let Ok(packet) = Packet::decode(&datagram) {
                prop_assert_eq!(packet.encode(), datagram);
            }
        }
    }

    #[test]
    fn strangers_are_told_apart() {
        let frame = [0x44, 0x56, 1, 3, 0, 0];
        assert_eq!(Packet::decode(&frame), Err(Stranger::Clear));
        assert_eq!(Packet::decode(&[0xd5, 0x6c, 2, 1]), Err(Stranger::Version(2)));
        assert_eq!(Packet::decode(b"GET / HTTP/1.1"), Err(Stranger::Noise));
        assert_eq!(Packet::decode(&[]), Err(Stranger::Noise));
    }
}
