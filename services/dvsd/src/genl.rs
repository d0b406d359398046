// SPDX-License-Identifier: MIT OR Apache-2.0
//! Generic netlink: questions to the kernel by the name of a family, encoded and decoded by hand.
//!
//! The layout is that of `linux/netlink.h` and `linux/genetlink.h`: headers and attributes in the
//! byte order of the machine, everything at multiples of four bytes.

use std::io;
use std::time::Duration;

use netlink_sys::protocols::NETLINK_GENERIC;
use netlink_sys::{Socket, SocketAddr};
use rustix::net::sockopt::{set_socket_timeout, Timeout};

/// The kernel answers at once; this bounds what a surprise could cost.
const PATIENCE: Duration = Duration::from_secs(5);

/// Family of the controller, which knows the others.
const CONTROLLER: u16 = 0x10;
const CONTROLLER_GET_FAMILY: u8 = 3;
const CONTROLLER_FAMILY_ID: u16 = 1;
const CONTROLLER_FAMILY_NAME: u16 = 2;

const FLAG_REQUEST: u16 = 0x1;
const FLAG_ACK: u16 = 0x4;
const FLAG_DUMP: u16 = 0x300;

const KIND_ERROR: u16 = 2;
const KIND_DONE: u16 = 3;
/// Kinds below are netlink's own.
const KIND_MIN: u16 = 0x10;

const HEADER_BYTES: usize = 16;
const GENERIC_HEADER_BYTES: usize = 4;
const ATTRIBUTE_HEADER_BYTES: usize = 4;
/// Marks of an attribute's kind that say what is in it, which is known here.
const ATTRIBUTE_KIND_MASK: u16 = 0x3fff;
const ATTRIBUTE_NESTED: u16 = 0x8000;

/// Attributes in the making.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes(Vec<u8>);

impl Attributes {
    /// As they are sent.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// With one more attribute.
    #[must_use]
    pub fn with(mut self, kind: u16, value: &[u8]) -> Self {
        let length = ATTRIBUTE_HEADER_BYTES + value.len();
        self.0.extend_from_slice(&(length as u16).to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// With a text, which ends with a 0.
    #[must_use]
    pub fn with_text(self, kind: u16, text: &str) -> Self {
        self.with(kind, &[text.as_bytes(), &[0]].concat())
    }

    /// With an attribute that holds others.
    #[must_use]
    pub fn with_nest(self, kind: u16, inner: &Self) -> Self {
        self.with(kind | ATTRIBUTE_NESTED, &inner.0)
    }
}

/// The attributes in some bytes: kind and value. Stops at what is cut off.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)? & ATTRIBUTE_KIND_MASK;
        let value = bytes.get(ATTRIBUTE_HEADER_BYTES..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The value of the first attribute of a kind.
pub fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// The number in a value.
pub fn number_u32(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_ne_bytes)
}

/// The text in a value, without the 0 at its end.
pub fn text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value.strip_suffix(&[0]).unwrap_or(value)).ok()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).and_then(number_u32)
}

/// A question.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// What is to be done; a command of the family.
    pub command: u8,
    /// Of which version of the family that is.
    pub version: u8,
    /// Whether there are many answers, rather than only an acknowledgement.
    pub dump: bool,
    /// Its attributes.
    pub attributes: &'a Attributes,
}

impl Request<'_> {
    fn encode(&self, family: u16, sequence: u32) -> Vec<u8> {
        let Self { command, version, dump, attributes: Attributes(attributes) } = self;
        let length = HEADER_BYTES + GENERIC_HEADER_BYTES + attributes.len();
        let flags = FLAG_REQUEST | if *dump { FLAG_DUMP } else { FLAG_ACK };
        let mut bytes = Vec::with_capacity(length);
        bytes.extend_from_slice(&(length as u32).to_ne_bytes());
        bytes.extend_from_slice(&family.to_ne_bytes());
        bytes.extend_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(&sequence.to_ne_bytes());
        // The sender is known by its socket.
        bytes.extend_from_slice(&0u32.to_ne_bytes());
        bytes.extend_from_slice(&[*command, *version, 0, 0]);
        bytes.extend_from_slice(attributes);
        bytes
    }
}

/// What the kernel says to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    /// The attributes of an answer.
    Attributes(Vec<u8>),
    /// There is nothing more to say.
    Done,
    /// The errno of a failure.
    Failed(i32),
}

/// The answers to question `sequence` in a datagram.
fn decode(mut bytes: &[u8], sequence: u32) -> Vec<Answer> {
    let mut answers = Vec::new();
    while let (Some(length), Some(kind)) = (u32_at(bytes, 0), u16_at(bytes, 4)) {
        let Some(message) = bytes.get(..length as usize) else { break };
        let Some(payload) = message.get(HEADER_BYTES..) else { break };
        bytes = bytes.get(message.len().next_multiple_of(4)..).unwrap_or_default();
        if u32_at(message, 8) != Some(sequence) {
            continue;
        }
        let errno = u32_at(payload, 0).map_or(0, |code| code.cast_signed().wrapping_neg());
        match kind {
            // The end of a dump may tell of an error, too.
            KIND_ERROR | KIND_DONE if errno > 0 => answers.push(Answer::Failed(errno)),
            KIND_ERROR | KIND_DONE => answers.push(Answer::Done),
            KIND_MIN.. => {
                let attributes = payload.get(GENERIC_HEADER_BYTES..).unwrap_or_default();
                answers.push(Answer::Attributes(attributes.to_owned()));
            }
            _ => {}
        }
    }
    answers
}

/// A conversation with one family of the kernel's.
#[derive(Debug)]
pub struct Family {
    socket: Socket,
    sequence: u32,
    id: u16,
}

impl Family {
    /// Looks for a family.
    ///
    /// # Errors
    /// `ENOENT` where the kernel has no such family.
    pub fn open(name: &str) -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_GENERIC)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        let mut family = Self { socket, sequence: 0, id: CONTROLLER };
        let attributes = Attributes::default().with_text(CONTROLLER_FAMILY_NAME, name);
        let (command, version) = (CONTROLLER_GET_FAMILY, 1);
        let request = Request { command, version, dump: false, attributes: &attributes };
        let answers = family.ask(&request)?;
        let id = answers.iter().find_map(|answer| attribute(answer, CONTROLLER_FAMILY_ID));
        let id = id.and_then(|value| u16_at(value, 0));
        family.id = id.ok_or(io::ErrorKind::InvalidData)?;
        Ok(family)
    }

    /// Asks, and gathers the attributes of each answer.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn ask(&mut self, request: &Request<'_>) -> io::Result<Vec<Vec<u8>>> {
        self.sequence += 1;
        self.socket.send(&request.encode(self.id, self.sequence), 0)?;
        let mut all = Vec::new();
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            for answer in decode(&datagram, self.sequence) {
                match answer {
                    Answer::Attributes(attributes) => all.push(attributes),
                    Answer::Done => return Ok(all),
                    Answer::Failed(errno) => return Err(io::Error::from_raw_os_error(errno)),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_as_they_were_written() {
        let inner = Attributes::default().with(7, &5u32.to_ne_bytes()).with(8, b"");
        let all = Attributes::default().with_text(1, "eth:eth0").with_nest(2, &inner);
        assert_eq!(all.0.len() % 4, 0);
        assert_eq!(attribute(&all.0, 1).and_then(text), Some("eth:eth0"));
        let nest = attribute(&all.0, 2).unwrap();
        assert_eq!(attribute(nest, 7).and_then(number_u32), Some(5));
        assert_eq!(attributes(nest).collect::<Vec<_>>()[1], (8, &b""[..]));
        for end in 0..all.0.len() {
            assert!(attributes(&all.0[..end]).count() < 2, "{end}");
        }
        // A length that goes nowhere must not be followed for ever.
        assert_eq!(attributes(&[0; 64]).count(), 0);
    }

    #[test]
    fn requests_have_the_layout_of_the_kernel() {
        let attributes = Attributes::default().with(3, &[1, 2]);
        let request = Request { command: 9, version: 2, dump: true, attributes: &attributes };
        let bytes = request.encode(0x1c, 5);
        assert_eq!(u32_at(&bytes, 0), Some(28));
        assert_eq!((u16_at(&bytes, 4), u16_at(&bytes, 6)), (Some(0x1c), Some(0x301)));
        assert_eq!(u32_at(&bytes, 8), Some(5));
        assert_eq!(bytes[16..20], [9, 2, 0, 0]);
        assert_eq!((u16_at(&bytes, 20), u16_at(&bytes, 22)), (Some(6), Some(3)));
        assert_eq!(bytes[24..], [1, 2, 0, 0]);
    }

    fn message(kind: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = ((HEADER_BYTES + payload.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&[0; 2]);
        bytes.extend_from_slice(&sequence.to_ne_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(payload);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn answers_are_told_apart_and_those_to_others_left_out() {
        let datagram = [
            message(0x1c, 4, &[0; 8]),
            message(0x1c, 5, &[1, 2, 0, 0, 7, 7, 7]),
            message(1, 5, &[0; 4]),
            message(KIND_DONE, 5, &0u32.to_ne_bytes()),
            message(KIND_ERROR, 5, &0u32.to_ne_bytes()),
            message(KIND_ERROR, 5, &(-22i32).to_ne_bytes()),
            message(KIND_DONE, 5, &(-1i32).to_ne_bytes()),
        ]
        .concat();
        let expected = [
            Answer::Attributes(vec![7, 7, 7]),
            Answer::Done,
            Answer::Done,
            Answer::Failed(22),
            Answer::Failed(1),
        ];
        assert_eq!(decode(&datagram, 5), expected);
        for end in 0..datagram.len() {
            assert!(decode(&datagram[..end], 5).len() <= expected.len());
        }
        assert_eq!(decode(&[0; 64], 0), []);
    }

    #[test]
    fn the_kernel_knows_its_families() {
        let mut controller = Family::open("nlctrl").unwrap();
        assert_eq!(controller.id, CONTROLLER);
        let attributes = Attributes::default();
        let (command, version) = (CONTROLLER_GET_FAMILY, 1);
        let request = Request { command, version, dump: true, attributes: &attributes };
        let names: Vec<_> = controller.ask(&request).unwrap();
        let names: Vec<_> = names
            .iter()
            .filter_map(|answer| attribute(answer, CONTROLLER_FAMILY_NAME).and_then(text))
            .collect();
        assert!(names.contains(&"nlctrl"), "{names:?}");
        let error = Family::open("no such family").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(2), "{error}");
    }
}
