// SPDX-License-Identifier: MIT OR Apache-2.0
//! Generic netlink: questions to the kernel by the name of a family.
//!
//! The layout is that of `linux/netlink.h` and `linux/genetlink.h`: headers and attributes in the
//! byte order of the machine, everything at multiples of four bytes.

use std::convert::Infallible;
use std::io;

use netlink_packet_core::{
    NetlinkDeserializable, NetlinkHeader, NetlinkSerializable, NLM_F_ACK, NLM_F_DUMP,
};
use netlink_sys::protocols::NETLINK_GENERIC;

use crate::netlink::Conversation;

/// Family of the controller, which knows the others.
const CONTROLLER: u16 = 0x10;
const CONTROLLER_GET_FAMILY: u8 = 3;
const CONTROLLER_FAMILY_ID: u16 = 1;
const CONTROLLER_FAMILY_NAME: u16 = 2;
/// The only version that families have had.
const VERSION: u8 = 1;

const GENERIC_HEADER_BYTES: usize = 4;
const ATTRIBUTE_HEADER_BYTES: usize = 4;
/// Marks of an attribute's kind that say what is in it, which is known here.
const ATTRIBUTE_KIND_MASK: u16 = 0x3fff;
const ATTRIBUTE_NESTED: u16 = 0x8000;

/// Attributes one after the other: length, kind, value, and padding.
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

/// The number in a value of 1, 2, 4 or 8 bytes.
pub fn number(value: &[u8]) -> Option<u64> {
    match *value {
        [a] => Some(a.into()),
        [a, b] => Some(u16::from_ne_bytes([a, b]).into()),
        [a, b, c, d] => Some(u32::from_ne_bytes([a, b, c, d]).into()),
        [a, b, c, d, e, f, g, h] => Some(u64::from_ne_bytes([a, b, c, d, e, f, g, h])),
        _ => None,
    }
}

/// The text in a value, without the 0 at its end.
pub fn text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value.strip_suffix(&[0]).unwrap_or(value)).ok()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_ne_bytes)
}

/// A message of a family, as netlink carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generic {
    /// Number of the family.
    pub family: u16,
    /// What it is to do, or has done.
    pub command: u8,
    /// Of which version of the family that is.
    pub version: u8,
    /// The rest.
    pub attributes: Attributes,
}

impl NetlinkSerializable for Generic {
    fn message_type(&self) -> u16 {
        self.family
    }

    fn buffer_len(&self) -> usize {
        GENERIC_HEADER_BYTES + self.attributes.0.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        let (header, attributes) = buffer.split_at_mut(GENERIC_HEADER_BYTES);
        header.copy_from_slice(&[self.command, self.version, 0, 0]);
        attributes.copy_from_slice(&self.attributes.0);
    }
}

impl NetlinkDeserializable for Generic {
    type Error = Infallible;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, Infallible> {
        let byte = |at: usize| payload.get(at).copied().unwrap_or_default();
        let attributes = payload.get(GENERIC_HEADER_BYTES..).unwrap_or_default().to_vec();
        Ok(Self {
            family: header.message_type,
            command: byte(0),
            version: byte(1),
            attributes: Attributes(attributes),
        })
    }
}

/// A conversation with one family of the kernel's.
#[derive(Debug)]
pub struct Family {
    conversation: Conversation,
    id: u16,
}

impl Family {
    /// Looks for a family.
    ///
    /// # Errors
    /// `ENOENT` where the kernel has no such family.
    pub fn open(name: &str) -> io::Result<Self> {
        let conversation = Conversation::open(NETLINK_GENERIC)?;
        let mut family = Self { conversation, id: CONTROLLER };
        let question = Attributes::default().with_text(CONTROLLER_FAMILY_NAME, name);
        let answers = family.ask(CONTROLLER_GET_FAMILY, question, NLM_F_ACK)?;
        let id = |answer: &Attributes| number(attribute(&answer.0, CONTROLLER_FAMILY_ID)?);
        let id = answers.iter().find_map(id).and_then(|id| u16::try_from(id).ok());
        family.id = id.ok_or(io::ErrorKind::InvalidData)?;
        Ok(family)
    }

    /// Has the family do something.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn tell(&mut self, command: u8, attributes: Attributes) -> io::Result<()> {
        self.ask(command, attributes, NLM_F_ACK).map(drop)
    }

    /// Asks for a list; gives back the attributes of each answer.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn list(&mut self, command: u8) -> io::Result<Vec<Attributes>> {
        self.ask(command, Attributes::default(), NLM_F_DUMP)
    }

    fn ask(
        &mut self,
        command: u8,
        attributes: Attributes,
        flags: u16,
    ) -> io::Result<Vec<Attributes>> {
        let request = Generic { family: self.id, command, version: VERSION, attributes };
        let answers = self.conversation.ask(request, flags)?;
        Ok(answers.into_iter().map(|answer| answer.attributes).collect())
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
        assert_eq!(attribute(nest, 7).and_then(number), Some(5));
        assert_eq!(attributes(nest).collect::<Vec<_>>()[1], (8, &b""[..]));
        for end in 0..all.0.len() {
            assert!(attributes(&all.0[..end]).count() < 2, "{end}");
        }
        // A length that goes nowhere must not be followed for ever.
        assert_eq!(attributes(&[0; 64]).count(), 0);
        assert_eq!(attributes(&[3, 0, 0, 0, 1, 0, 0, 0]).count(), 0);
    }

    #[test]
    fn numbers_have_as_many_bytes_as_the_kernel_gives_them() {
        assert_eq!(number(&[7]), Some(7));
        assert_eq!(number(&0x0102u16.to_ne_bytes()), Some(0x0102));
        assert_eq!(number(&0x0102_0304u32.to_ne_bytes()), Some(0x0102_0304));
        assert_eq!(number(&u64::MAX.to_ne_bytes()), Some(u64::MAX));
        assert_eq!([number(&[]), number(&[0; 3]), number(&[0; 16])], [None; 3]);
    }

    /// Needs no rights, only a kernel: an answer is an answer, and a refusal says why.
    #[test]
    fn the_kernel_knows_its_families() {
        let mut controller = Family::open("nlctrl").unwrap();
        assert_eq!(controller.id, CONTROLLER);
        let names = controller.list(CONTROLLER_GET_FAMILY).unwrap();
        let names: Vec<_> = names
            .iter()
            .filter_map(|answer| attribute(&answer.0, CONTROLLER_FAMILY_NAME).and_then(text))
            .collect();
        assert!(names.contains(&"nlctrl"), "{names:?}");
        let error = Family::open("no such family").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(2), "{error}");
    }
}
