// SPDX-License-Identifier: MIT OR Apache-2.0
//! Lets TIPC use an Ethernet interface, as `tipc bearer enable media eth device NAME` does: by generic netlink (`linux/tipc_netlink.h`).

use anyhow::{bail, ensure, Context, Result};
use netlink_sys::{protocols::NETLINK_GENERIC, Socket};

/// Of every message: length, type, flags, sequence number and port; then the command, its version and two reserved bytes.
const HEADER_BYTES: usize = 16;
const GENERIC_BYTES: usize = 4;
const REQUEST_ACK: u16 = 1 | 4;
const ERROR: u16 = 2;

/// The family that knows the others' numbers (`linux/genetlink.h`).
const CONTROLLER: u16 = 16;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;

const BEARER_ENABLE: u8 = 3;
const BEARER: u16 = 1;
const BEARER_NAME: u16 = 1;
const NESTED: u16 = 1 << 15;

/// That there is such a bearer already.
const EXISTS: i32 = 17;

/// Enables the bearer. The node gets an identity by it if it has none.
pub(super) fn enable(interface: &str) -> Result<()> {
    let mut socket = Socket::new(NETLINK_GENERIC).context("opening a netlink socket")?;
    socket.bind_auto().context("binding a netlink socket")?;
    let name = attribute(FAMILY_NAME, b"TIPCv2\0");
    let family = ask(&socket, &request(CONTROLLER, GET_FAMILY, &name))?
        .context("asking for TIPC's number in generic netlink: no answer")?;
    let family = find(family.get(GENERIC_BYTES..).unwrap_or_default(), FAMILY_ID)
        .and_then(|bytes| Some(u16::from_le_bytes(bytes.try_into().ok()?)))
        .context("TIPC has no number in generic netlink: is CONFIG_TIPC set?")?;
    let name = attribute(BEARER_NAME, format!("eth:{interface}\0").as_bytes());
    let bearer = attribute(BEARER | NESTED, &name);
    ask(&socket, &request(family, BEARER_ENABLE, &bearer))
        .with_context(|| format!("letting TIPC use {interface}"))?;
    Ok(())
}

/// Sends a request, and returns what comes before its acknowledgement, without the header.
fn ask(socket: &Socket, request: &[u8]) -> Result<Option<Vec<u8>>> {
    socket.send(request, 0)?;
    let mut found = None;
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        let mut rest = &datagram[..];
        while rest.len() >= HEADER_BYTES {
            let length = u32::from_le_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
            ensure!((HEADER_BYTES..=rest.len()).contains(&length), "a damaged netlink message");
            let payload = &rest[HEADER_BYTES..length];
            if u16::from_le_bytes([rest[4], rest[5]]) == ERROR {
                let code = payload.first_chunk().map(|bytes| i32::from_le_bytes(*bytes));
                return match code {
                    Some(0) => Ok(found),
                    Some(code) if code == -EXISTS => Ok(found),
                    Some(code) => bail!(std::io::Error::from_raw_os_error(-code)),
                    None => bail!("a netlink acknowledgement without a code"),
                };
            }
            found = Some(payload.to_vec());
            rest = &rest[length.next_multiple_of(4).min(rest.len())..];
        }
    }
}

fn request(family: u16, command: u8, attributes: &[u8]) -> Vec<u8> {
    let length = (HEADER_BYTES + GENERIC_BYTES + attributes.len()) as u32;
    let mut message = length.to_le_bytes().to_vec();
    message.extend(family.to_le_bytes());
    message.extend(REQUEST_ACK.to_le_bytes());
    // One request at a time needs no number, and the kernel knows the port.
    message.extend([0; 8]);
    message.extend([command, 1, 0, 0]);
    message.extend(attributes);
    message
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut attribute = (4 + value.len() as u16).to_le_bytes().to_vec();
    attribute.extend(kind.to_le_bytes());
    attribute.extend(value);
    attribute.resize(attribute.len().next_multiple_of(4), 0);
    attribute
}

/// The value of the first attribute of this kind.
fn find(mut attributes: &[u8], kind: u16) -> Option<&[u8]> {
    while let Some(&[a, b, c, d]) = attributes.first_chunk() {
        let length = usize::from(u16::from_le_bytes([a, b]));
        let value = attributes.get(4..length)?;
        if u16::from_le_bytes([c, d]) == kind {
            return Some(value);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_found_as_they_were_written() {
        let all = [attribute(1, b"abc"), attribute(7, &[]), attribute(2, b"wxyz")].concat();
        assert_eq!(all.len(), 8 + 4 + 8);
        assert_eq!(find(&all, 1), Some(&b"abc"[..]));
        assert_eq!(find(&all, 2), Some(&b"wxyz"[..]));
        assert_eq!(find(&all, 3), None);
        assert_eq!(find(&all[..14], 2), None);
        assert_eq!(find(&[1, 0, 2, 0], 2), None);
    }

    #[test]
    fn a_request_says_how_long_it_is() {
        let message = request(0x1234, 3, &attribute(1, b"eth:eth0\0"));
        assert_eq!(message[..8], [36, 0, 0, 0, 0x34, 0x12, 5, 0]);
        assert_eq!((message.len(), &message[16..18]), (36, &[3, 1][..]));
    }
}
