// SPDX-License-Identifier: MIT OR Apache-2.0
//! The bytes of ICMP: echo requests, and what the answers to them say (RFC 792, RFC 4443).

use std::net::IpAddr;

/// What tells an echo request from those of others: it comes back in the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) identifier: u16,
    pub(super) sequence: u16,
}

/// What somebody says to an echo request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// It is answered.
    Reply,
    /// It would have to go over more routers than it may.
    Expired,
    /// It does not get there, and why.
    Unreachable(&'static str),
}

/// Bytes of an ICMP header.
const HEADER: usize = 8;
/// Bytes of an IPv6 header.
const IPV6_HEADER: usize = 40;

/// An echo request with so many bytes of payload. That of IPv6 gets its checksum from the kernel.
pub(super) fn request(to: IpAddr, mark: Mark, bytes: usize) -> Vec<u8> {
    let kind = if to.is_ipv4() { 8 } else { 128 };
    let mut message = vec![kind, 0, 0, 0];
    message.extend(mark.identifier.to_be_bytes());
    message.extend(mark.sequence.to_be_bytes());
    message.extend((0..bytes).map(|at| at as u8));
    if to.is_ipv4() {
        let sum = checksum(&message).to_be_bytes();
        message[2..4].copy_from_slice(&sum);
    }
    message
}

/// The one's complement of the one's complement sum of all pairs of bytes (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let pair = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
    let mut sum: u32 = bytes.chunks(2).map(pair).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// What a packet says to the request with that mark; `None` if it is about something else. A raw socket gives IPv4 packets with their
/// header, and IPv6 ones without.
pub(super) fn said(packet: &[u8], to: IpAddr, mark: Mark) -> Option<Said> {
    if to.is_ipv4() {
        return said_v4(payload_v4(packet)?, to, mark);
    }
    let message = packet;
    match message.get(..2)? {
        [129, _] => is_marked(message, mark).then_some(Said::Reply),
        [kind @ (1 | 3), code] => {
            // What it is about begins behind the header.
            let about = message.get(HEADER..)?;
            let IpAddr::V6(to) = to else { return None };
            let is_to = about.get(24..IPV6_HEADER)? == to.octets();
            let inner = about.get(IPV6_HEADER..)?;
            let ours = is_to && inner.first() == Some(&128) && is_marked(inner, mark);
            ours.then(|| match (kind, code) {
                (3, _) => Said::Expired,
                (_, 0) => Said::Unreachable("no route"),
                (_, 1) => Said::Unreachable("forbidden by an administrator"),
                (_, 3) => Said::Unreachable("the address does not answer"),
                _ => Said::Unreachable("unreachable"),
            })
        }
        _ => None,
    }
}

fn said_v4(message: &[u8], to: IpAddr, mark: Mark) -> Option<Said> {
    match message.get(..2)? {
        [0, _] => is_marked(message, mark).then_some(Said::Reply),
        [kind @ (3 | 11), code] => {
            let about = message.get(HEADER..)?;
            let IpAddr::V4(to) = to else { return None };
            let is_to = about.get(16..20)? == to.octets();
            let inner = payload_v4(about)?;
            let ours = is_to && inner.first() == Some(&8) && is_marked(inner, mark);
            ours.then(|| match (kind, code) {
                (11, _) => Said::Expired,
                (_, 0) => Said::Unreachable("the network is not reached"),
                (_, 1) => Said::Unreachable("the address does not answer"),
                (_, 4) => Said::Unreachable("it is too large and must not be divided"),
                (_, 9 | 10 | 13) => Said::Unreachable("forbidden by an administrator"),
                _ => Said::Unreachable("unreachable"),
            })
        }
        _ => None,
    }
}

/// What is behind the header of an IPv4 packet.
fn payload_v4(packet: &[u8]) -> Option<&[u8]> {
    let words = packet.first().filter(|first| *first >> 4 == 4)? & 15;
    packet.get(usize::from(words) * 4..)
}

fn is_marked(message: &[u8], mark: Mark) -> bool {
    let [a, b] = mark.identifier.to_be_bytes();
    let [c, d] = mark.sequence.to_be_bytes();
    message.get(4..HEADER) == Some(&[a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MARK: Mark = Mark { identifier: 0x1234, sequence: 7 };
    const V4: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 9));
    const V6: IpAddr = IpAddr::V6(std::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 9));

    /// A packet from somebody, with a header of IPv4.
    fn packet_v4(to: [u8; 4], message: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 1, 0, 0, 10, 0, 0, 1];
        packet.extend(to);
        packet.extend(message);
        packet
    }

    #[test]
    fn a_request_has_a_checksum_that_makes_its_sum_zero() {
        let message = request(V4, MARK, 5);
        assert_eq!(message[..2], [8, 0]);
        assert_eq!(message[4..], [0x12, 0x34, 0, 7, 0, 1, 2, 3, 4]);
        assert_eq!(checksum(&message), 0);
        assert_eq!(request(V6, MARK, 0), [128, 0, 0, 0, 0x12, 0x34, 0, 7]);
    }

    #[test]
    fn the_answer_to_this_request_is_told_from_others() {
        let mut reply = request(V4, MARK, 4);
        reply[0] = 0;
        let packet = packet_v4([10, 0, 0, 1], &reply);
        assert_eq!(said(&packet, V4, MARK), Some(Said::Reply));
        assert_eq!(said(&packet, V4, Mark { sequence: 8, ..MARK }), None);
        assert_eq!(said(&packet, V4, Mark { identifier: 1, ..MARK }), None);
        // A request of its own, as a socket on the loopback sees it.
        assert_eq!(said(&packet_v4([10, 0, 0, 9], &request(V4, MARK, 4)), V4, MARK), None);
        assert_eq!(said(&[129, 0, 0, 0, 0x12, 0x34, 0, 7], V6, MARK), Some(Said::Reply));
        assert_eq!(said(&request(V6, MARK, 0), V6, MARK), None);
    }

    #[test]
    fn what_routers_say_is_understood() {
        let about = |kind: u8, code: u8, to: [u8; 4]| {
            let mut message = vec![kind, code, 0, 0, 0, 0, 0, 0];
            message.extend(packet_v4(to, &request(V4, MARK, 0)));
            packet_v4([10, 0, 0, 1], &message)
        };
        let to = [10, 0, 0, 9];
        assert_eq!(said(&about(11, 0, to), V4, MARK), Some(Said::Expired));
        let silent = Said::Unreachable("the address does not answer");
        assert_eq!(said(&about(3, 1, to), V4, MARK), Some(silent.clone()));
        assert_eq!(said(&about(11, 0, [10, 0, 0, 8]), V4, MARK), None, "another address is meant");
        let about = |kind: u8, code: u8| {
            let IpAddr::V6(to) = V6 else { unreachable!() };
            let mut message = vec![kind, code, 0, 0, 0, 0, 0, 0];
            message.extend([0; 24]);
            message.extend(to.octets());
            message.extend(request(V6, MARK, 0));
            message
        };
        assert_eq!(said(&about(3, 0), V6, MARK), Some(Said::Expired));
        assert_eq!(said(&about(1, 3), V6, MARK), Some(silent));
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            said(&bytes, V4, MARK);
            said(&bytes, V6, MARK);
        }
    }
}
