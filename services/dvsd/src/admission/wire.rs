// SPDX-License-Identifier: MIT OR Apache-2.0
//! What applicants and members say to each other.
//!
//! | bytes | field |
//! |---|---|
//! | 4 | magic: `dvsJ` of an applicant, `dvsA` of a member |
//! | 1 | version, [`VERSION`] |
//! | 1 + n | cluster name |
//! | 6 | identity of the applicant |
//! | 1 + n | id of the join token |
//! | 1 | of a member only: 0 for the cluster's token, else the [`Reason`] for which there is none |
//! | rest | a message of the handshake; nothing behind a reason |
//!
//! That there is a reason is not proved: a member that does not know a token cannot prove anything by it. It is shown to people,
//! and the applicant asks on.

use dvs_config::Mac;

use crate::beacon::Reader;

/// Version of the format.
const VERSION: u8 = 1;
const ASKS: &[u8; 4] = b"dvsJ";
const ANSWERS: &[u8; 4] = b"dvsA";
/// Longest name of a cluster.
const NAME_MAX: usize = 63;
/// Longest id of a token.
const ID_MAX: usize = 16;

/// Why a machine is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The token is not valid: it has run out, was revoked, or never was one.
    Unknown,
    /// As many machines have joined with it as may.
    UsedUp,
    /// The machine was removed from the cluster after the token was made.
    Removed,
}

impl Reason {
    const ALL: [Self; 3] = [Self::Unknown, Self::UsedUp, Self::Removed];

    fn number(self) -> u8 {
        self as u8 + 1
    }
}

/// One datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Datagram<'a> {
    pub(super) cluster: &'a str,
    pub(super) machine: Mac,
    pub(super) id: &'a str,
    pub(super) content: Content<'a>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content<'a> {
    /// An applicant's question.
    Ask(&'a [u8]),
    /// A member's answer.
    Admit(&'a [u8]),
    /// A member's refusal.
    Refuse(Reason),
}

/// Whether a datagram is of the kind that an applicant sends.
pub fn is_application(bytes: &[u8]) -> bool {
    bytes.starts_with(ASKS)
}

/// Whether it is of the kind that a member answers with.
pub fn is_answer(bytes: &[u8]) -> bool {
    bytes.starts_with(ANSWERS)
}

impl<'a> Datagram<'a> {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let magic = if matches!(self.content, Content::Ask(_)) { ASKS } else { ANSWERS };
        let mut out = [&magic[..], &[VERSION]].concat();
        for (text, max) in [(self.cluster, NAME_MAX), (self.id, ID_MAX)] {
            debug_assert!(text.len() <= max);
        }
        out.push(self.cluster.len() as u8);
        out.extend_from_slice(self.cluster.as_bytes());
        out.extend_from_slice(&self.machine.0);
        out.push(self.id.len() as u8);
        out.extend_from_slice(self.id.as_bytes());
        match self.content {
            Content::Ask(message) => out.extend_from_slice(message),
            Content::Admit(message) => {
                out.push(0);
                out.extend_from_slice(message);
            }
            Content::Refuse(reason) => out.push(reason.number()),
        }
        out
    }

    /// Reads a datagram; `None` for what is none.
    pub(super) fn read(bytes: &'a [u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let magic = reader.take(ASKS.len())?;
        if reader.byte()? != VERSION {
            return None;
        }
        let (cluster, machine, id) = (reader.text(NAME_MAX)?, reader.mac()?, reader.text(ID_MAX)?);
        if cluster.is_empty() || id.is_empty() {
            return None;
        }
        let content = match magic {
            magic if magic == ASKS => Content::Ask(reader.0),
            magic if magic == ANSWERS => match (reader.byte()?, reader.0) {
                (0, message) => Content::Admit(message),
                (number, []) => {
                    let reason = Reason::ALL.into_iter().find(|it| it.number() == number);
                    Content::Refuse(reason?)
                }
                _ => return None,
            },
            _ => return None,
        };
        Some(Self { cluster, machine, id, content })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn datagram(content: Content<'_>) -> Datagram<'_> {
        Datagram { cluster: "lab", machine: Mac([2, 0, 0, 0, 0, 1]), id: "ab12", content }
    }

    #[test]
    fn what_is_written_is_read() {
        for content in [
            Content::Ask(&[1, 2]),
            Content::Admit(&[3]),
            Content::Refuse(Reason::Unknown),
            Content::Refuse(Reason::Removed),
        ] {
            let datagram = datagram(content);
            let bytes = datagram.to_bytes();
            assert_eq!(Datagram::read(&bytes), Some(datagram.clone()));
            let is_ask = matches!(datagram.content, Content::Ask(_));
            assert_eq!((is_application(&bytes), is_answer(&bytes)), (is_ask, !is_ask));
        }
    }

    #[test]
    fn what_is_cut_off_or_senseless_is_none() {
        let bytes = datagram(Content::Refuse(Reason::UsedUp)).to_bytes();
        for end in 0..bytes.len() {
            assert_eq!(Datagram::read(&bytes[..end]), None, "{end}");
        }
        let changed = |at: usize, to: u8| {
            let mut changed = bytes.clone();
            changed[at] = to;
            Datagram::read(&changed).is_none()
        };
        assert!(changed(0, b'x') && changed(4, 2) && changed(5, 200) && changed(6, b'\n'));
        assert!(changed(bytes.len() - 1, 9));
        assert_eq!(Datagram::read(&[&bytes[..], &[0]].concat()), None);
    }

    proptest! {
        #[test]
        fn no_bytes_do_harm(head in 0usize..3, bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let magic: &[u8] = [&b"dvsJ\x01"[..], b"dvsA\x01", b""][head];
            let all = [magic, &bytes].concat();
            if let Some(datagram) = Datagram::read(&all) {
                prop_assert_eq!(datagram.to_bytes(), all);
            }
        }
    }
}
