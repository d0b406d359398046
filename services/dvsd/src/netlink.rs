// SPDX-License-Identifier: MIT OR Apache-2.0
//! A conversation with the kernel through a netlink socket, one question at a time.

use std::io;
use std::time::Duration;

use netlink_packet_core::{
    NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
    NLM_F_REQUEST,
};
use netlink_sys::{Socket, SocketAddr};
use socket2::SockRef;

/// The kernel answers at once; this bounds what a surprise could cost.
const PATIENCE: Duration = Duration::from_secs(5);
/// The most that the kernel puts into a datagram.
const DATAGRAM_MAX: usize = 64 << 10;

/// A socket of one protocol.
#[derive(Debug)]
pub struct Conversation {
    socket: Socket,
    sequence: u32,
}

impl Conversation {
    /// Opens a socket for `protocol`, one of [`netlink_sys::protocols`].
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        SockRef::from(&socket).set_read_timeout(Some(PATIENCE))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Sends a request and gathers what answers it, up to the acknowledgement or the end of a list:
    /// `flags` must ask for one of them.
    ///
    /// # Errors
    /// What the kernel says, or that it says nothing.
    pub fn ask<T>(&mut self, request: T, flags: u16) -> io::Result<Vec<T>>
    where
        T: NetlinkSerializable + NetlinkDeserializable,
    {
        self.sequence = self.sequence.wrapping_add(1);
        self.socket.send(&encode(request, flags, self.sequence), 0)?;
        let mut answers = Vec::new();
        let mut datagram = Vec::with_capacity(DATAGRAM_MAX);
        loop {
            datagram.clear();
            self.socket.recv(&mut datagram, 0)?;
            if gather(&datagram, self.sequence, &mut answers)? {
                return Ok(answers);
            }
        }
    }
}

fn encode<T: NetlinkSerializable>(request: T, flags: u16, sequence: u32) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    header.sequence_number = sequence;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(request));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// Adds the answers to question `sequence` in a datagram; says whether they are complete.
fn gather<T: NetlinkDeserializable>(
    mut bytes: &[u8],
    sequence: u32,
    answers: &mut Vec<T>,
) -> io::Result<bool> {
    while !bytes.is_empty() {
        let message = NetlinkMessage::<T>::deserialize(bytes)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        // Messages start at multiples of four bytes.
        let length = (message.header.length as usize).next_multiple_of(4);
        bytes = bytes.get(length.max(4)..).unwrap_or_default();
        if message.header.sequence_number != sequence {
            continue;
        }
        match message.payload {
            NetlinkPayload::InnerMessage(answer) => answers.push(answer),
            // The end of a list may tell of an error, too.
            NetlinkPayload::Done(done) if done.code < 0 => {
                return Err(io::Error::from_raw_os_error(done.code.wrapping_neg()));
            }
            NetlinkPayload::Done(_) => return Ok(true),
            NetlinkPayload::Error(error) if error.code.is_none() => return Ok(true),
            NetlinkPayload::Error(error) => return Err(error.to_io()),
            _ => {}
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::genl::{Attributes, Generic};

    const ERROR: u16 = 2;
    const DONE: u16 = 3;

    fn message(kind: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = (16 + payload.len() as u32).to_ne_bytes().to_vec();
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&[0; 2]);
        bytes.extend_from_slice(&sequence.to_ne_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(payload);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    /// What is made of the answers to question 5: bodies, and whether they are complete, or an errno.
    fn gathered(messages: &[Vec<u8>]) -> (Vec<Vec<u8>>, Result<bool, Option<i32>>) {
        let mut answers: Vec<Generic> = Vec::new();
        let end = gather(&messages.concat(), 5, &mut answers);
        let bodies = answers.into_iter().map(|answer| answer.attributes.as_bytes().to_vec());
        (bodies.collect(), end.map_err(|error| error.raw_os_error()))
    }

    #[test]
    fn requests_have_the_layout_of_the_kernel() {
        let attributes = Attributes::default().with(3, &[1, 2]);
        let generic = Generic { family: 0x1c, command: 9, version: 2, attributes };
        let bytes = encode(generic, 0x300, 5);
        assert_eq!(bytes[..4], 28u32.to_ne_bytes());
        assert_eq!(bytes[4..6], 0x1cu16.to_ne_bytes());
        assert_eq!(bytes[6..8], 0x301u16.to_ne_bytes());
        assert_eq!(bytes[8..12], 5u32.to_ne_bytes());
        // The sender is known by its socket.
        assert_eq!(bytes[12..20], [0, 0, 0, 0, 9, 2, 0, 0]);
        assert_eq!(bytes[20..22], 6u16.to_ne_bytes());
        assert_eq!(bytes[22..24], 3u16.to_ne_bytes());
        assert_eq!(bytes[24..], [1, 2, 0, 0]);
    }

    #[test]
    fn answers_to_others_are_left_out() {
        let messages = [
            message(0x1c, 4, &[9; 8]),
            message(0x1c, 5, &[1, 2, 0, 0, 7, 7, 7]),
            message(1, 5, &[0; 4]),
            message(0x1c, 5, &[1, 2, 0, 0, 8]),
        ];
        assert_eq!(gathered(&messages), (vec![vec![7, 7, 7], vec![8]], Ok(false)));
    }

    #[test]
    fn ends_and_failures_are_told_apart() {
        for (kind, code, expected) in [
            (DONE, 0i32, Ok(true)),
            (DONE, -1, Err(Some(1))),
            (ERROR, 0, Ok(true)),
            (ERROR, -22, Err(Some(22))),
        ] {
            let payload = [&code.to_ne_bytes()[..], &[0; 16]].concat();
            let messages = [message(0x1c, 5, &[0; 8]), message(kind, 5, &payload)];
            assert_eq!(gathered(&messages), (vec![vec![0; 4]], expected), "{kind} {code}");
        }
    }

    #[test]
    fn what_is_cut_off_is_an_error_and_no_panic() {
        let messages = [message(0x1c, 5, &[1; 9]), message(DONE, 5, &[0; 4])].concat();
        for end in 1..messages.len() {
            let mut answers: Vec<Generic> = Vec::new();
            let complete = gather(&messages[..end], 5, &mut answers);
            assert!(!complete.is_ok_and(|complete| complete), "{end}");
        }
        assert!(gather::<Generic>(&[0; 64], 0, &mut Vec::new()).is_err());
    }
}
