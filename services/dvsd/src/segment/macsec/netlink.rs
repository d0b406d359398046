// SPDX-License-Identifier: MIT OR Apache-2.0
//! A conversation with the kernel through a netlink socket, one question at a time.

use std::convert::Infallible;
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
pub(super) struct Conversation {
    socket: Socket,
    sequence: u32,
}

impl Conversation {
    pub(super) fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        SockRef::from(&socket).set_read_timeout(Some(PATIENCE))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Sends a request and gathers what answers it, up to the acknowledgement.
    pub(super) fn ask<T>(&mut self, request: T, flags: u16) -> io::Result<Vec<T>>
    where
        T: NetlinkSerializable + NetlinkDeserializable,
    {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(request));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;

        let mut answers = Vec::new();
        let mut datagram = Vec::with_capacity(DATAGRAM_MAX);
        loop {
            datagram.clear();
            self.socket.recv(&mut datagram, 0)?;
            let mut rest = datagram.as_slice();
            while !rest.is_empty() {
                let message = NetlinkMessage::<T>::deserialize(rest)
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
                // Messages start at multiples of four bytes.
                let length = (message.header.length as usize).next_multiple_of(4);
                rest = rest.get(length.max(4)..).unwrap_or_default();
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::InnerMessage(answer) => answers.push(answer),
                    NetlinkPayload::Done(_) => return Ok(answers),
                    NetlinkPayload::Error(error) if error.code.is_none() => return Ok(answers),
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    _ => {}
                }
            }
        }
    }
}

/// A message of a generic netlink family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Generic {
    /// Number of the family.
    pub(super) family: u16,
    pub(super) command: u8,
    pub(super) version: u8,
    /// Its attributes.
    pub(super) body: Vec<u8>,
}

const GENERIC_HEAD_BYTES: usize = 4;

impl NetlinkSerializable for Generic {
    fn message_type(&self) -> u16 {
        self.family
    }

    fn buffer_len(&self) -> usize {
        GENERIC_HEAD_BYTES + self.body.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        let (head, body) = buffer.split_at_mut(GENERIC_HEAD_BYTES);
        head.copy_from_slice(&[self.command, self.version, 0, 0]);
        body.copy_from_slice(&self.body);
    }
}

impl NetlinkDeserializable for Generic {
    type Error = Infallible;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, Infallible> {
        let byte = |at: usize| payload.get(at).copied().unwrap_or_default();
        let body = payload.get(GENERIC_HEAD_BYTES..).unwrap_or_default().to_vec();
        Ok(Self { family: header.message_type, command: byte(0), version: byte(1), body })
    }
}
