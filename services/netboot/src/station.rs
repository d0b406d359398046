// SPDX-License-Identifier: MIT OR Apache-2.0
//! A boot server as a host of an Ethernet segment: frames in, frames out.
//!
//! It has the address and the names that it needs for that and no others: it answers ARP, DHCP, TFTP and, so that firmware does not
//! wait in vain for a router of IPv6, solicitations of routers, by saying that it is none.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use dvs_config::Mac;

use crate::dhcp::{Answer, Question, CLIENT_PORT, SERVER_PORT};
use crate::files::{Content, Files};
use crate::offer::{Offers, Pool};
use crate::tftp::{self, Packet, Refusal, Request, Transfer};

const BROADCAST: Mac = Mac([0xff; 6]);
/// Where all hosts of a segment listen (RFC 4291).
const ALL_NODES: ([u8; 16], Mac) =
    ([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], Mac([0x33, 0x33, 0, 0, 0, 1]));
/// Ports from which files are sent, one after the other.
const TRANSFER_PORTS: std::ops::Range<u16> = 49_152..65_535;
/// How many transfers may be under way. A client that vanishes leaves one behind.
const TRANSFERS_MAX: usize = 1024;

mod protocol {
    pub(super) const IPV4: [u8; 2] = [8, 0];
    pub(super) const ARP: [u8; 2] = [8, 6];
    pub(super) const IPV6: [u8; 2] = [0x86, 0xdd];
    pub(super) const UDP: u8 = 17;
    pub(super) const ICMPV6: u8 = 58;
}

/// Who gets a file: address and port.
type Client = (Ipv4Addr, u16);

/// The boot server of a segment.
#[derive(Debug)]
pub struct Station {
    mac: Mac,
    address: Ipv4Addr,
    offers: Offers,
    files: Files,
    /// With the port from which each is sent, and what.
    transfers: BTreeMap<Client, (u16, Transfer, Content)>,
    next_port: u16,
}

/// A datagram that came in.
struct Datagram<'a> {
    from: Ipv4Addr,
    from_port: u16,
    port: u16,
    content: &'a [u8],
}

impl Station {
    /// One that gives addresses of `pool` and sends `files`.
    pub fn new(mac: Mac, address: Ipv4Addr, pool: Pool, files: Files) -> Self {
        let offers = Offers::new(address, Some(pool));
        let transfers = BTreeMap::new();
        Self { mac, address, offers, files, transfers, next_port: TRANSFER_PORTS.start }
    }

    /// Its MAC address.
    pub fn mac(&self) -> Mac {
        self.mac
    }

    /// Takes in a frame at `now`, a time that only grows, and returns the frames to send to where it came from.
    pub fn receive(&mut self, frame: &[u8], now: Duration) -> Vec<Vec<u8>> {
        self.answer(frame, now).unwrap_or_default()
    }

    fn answer(&mut self, frame: &[u8], now: Duration) -> Option<Vec<Vec<u8>>> {
        let (header, content) = frame.split_first_chunk::<14>()?;
        let to = Mac(*header.first_chunk()?);
        let from = Mac(*header[6..].first_chunk()?);
        let for_us = to == self.mac || to.0[0] & 1 == 1;
        if !for_us || from == self.mac {
            return None;
        }
        match [header[12], header[13]] {
            protocol::ARP => Some(vec![self.resolve(content)?]),
            protocol::IPV6 => Some(vec![self.decline(content)?]),
            protocol::IPV4 => {
                let datagram = self.datagram(content)?;
                match datagram.port {
                    SERVER_PORT => self.configure(&datagram, now),
                    tftp::PORT => Some(self.begin(from, &datagram)),
                    _ => Some(self.go_on(from, &datagram)),
                }
            }
            _ => None,
        }
    }

    /// Says who has our address.
    fn resolve(&self, content: &[u8]) -> Option<Vec<u8>> {
        let request = content.first_chunk::<28>()?;
        // Ethernet, IPv4, lengths of their addresses, a request.
        if request[..8] != [0, 1, 8, 0, 6, 4, 0, 1] || request[24..28] != self.address.octets() {
            return None;
        }
        let sender = Mac(*request[8..].first_chunk()?);
        let mut reply = vec![0, 1, 8, 0, 6, 4, 0, 2];
        reply.extend(self.mac.0);
        reply.extend(self.address.octets());
        reply.extend_from_slice(&request[8..18]);
        Some(self.frame(sender, protocol::ARP, &reply))
    }

    /// Says, to those who look for a router of IPv6, that there is none: a lifetime of zero (RFC 4861, 4.2).
    fn decline(&self, content: &[u8]) -> Option<Vec<u8>> {
        const SOLICITATION: u8 = 133;
        const ADVERTISEMENT: u8 = 134;
        if *content.get(6)? != protocol::ICMPV6 || *content.get(40)? != SOLICITATION {
            return None;
        }
        let mac = self.mac.0;
        let mut source =
            [0xfe, 0x80, 0, 0, 0, 0, 0, 0, mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, 0, 0, 0];
        source[13..].copy_from_slice(&mac[3..]);
        let (all, all_mac) = ALL_NODES;
        let mut message = [0; 16];
        message[0] = ADVERTISEMENT;
        let mut pseudo = [&source[..], &all[..]].concat();
        pseudo.extend([0, 0, 0, message.len() as u8, 0, 0, 0, protocol::ICMPV6]);
        pseudo.extend(message);
        message[2..4].copy_from_slice(&checksum(&pseudo).to_be_bytes());
        let mut packet = vec![0x60, 0, 0, 0, 0, message.len() as u8, protocol::ICMPV6, 255];
        packet.extend(source);
        packet.extend(all);
        packet.extend(message);
        Some(self.frame(all_mac, protocol::IPV6, &packet))
    }

    /// The datagram of UDP in a packet that is for us.
    fn datagram<'a>(&self, packet: &'a [u8]) -> Option<Datagram<'a>> {
        let header = packet.first_chunk::<20>()?;
        let length = usize::from(header[0] & 15) * 4;
        let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let to = Ipv4Addr::from(*header[16..].first_chunk::<4>()?);
        let fragment = u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0;
        let ours = to == self.address || to.is_broadcast();
        if header[0] >> 4 != 4 || header[9] != protocol::UDP || fragment || !ours {
            return None;
        }
        let (udp, rest) = packet.get(length.max(20)..total)?.split_first_chunk::<8>()?;
        let number = |at: usize| u16::from_be_bytes([udp[at], udp[at + 1]]);
        let content = rest.get(..usize::from(number(4)).checked_sub(8)?)?;
        let from = Ipv4Addr::from(*header[12..].first_chunk::<4>()?);
        Some(Datagram { from, from_port: number(0), port: number(2), content })
    }

    fn configure(&mut self, datagram: &Datagram<'_>, now: Duration) -> Option<Vec<Vec<u8>>> {
        let question = Question::parse(datagram.content).ok()?;
        let answer: Answer = self.offers.answer(&question, now)?;
        let (mac, to) = match (question.own.is_unspecified(), question.broadcast, &answer.lease) {
            (false, ..) => (question.mac, question.own),
            (true, false, Some(lease)) => (question.mac, lease.address),
            _ => (BROADCAST, Ipv4Addr::BROADCAST),
        };
        let content = answer.encode(&question);
        Some(vec![self.udp(mac, (to, CLIENT_PORT), SERVER_PORT, &content)])
    }

    /// A request for a file.
    fn begin(&mut self, mac: Mac, datagram: &Datagram<'_>) -> Vec<Vec<u8>> {
        let client = (datagram.from, datagram.from_port);
        let found = Request::parse(datagram.content).and_then(|request| match request {
            None => Ok(None),
            Some(request) => match self.files.get(&request.file) {
                Some(file) => Ok(Some((request, file.clone()))),
                None => Err(Refusal::NotFound),
            },
        });
        match found {
            Ok(None) => Vec::new(),
            Err(refusal) => vec![self.udp(mac, client, tftp::PORT, &refusal.packet())],
            Ok(Some((request, file))) => {
                if self.transfers.len() >= TRANSFERS_MAX {
                    self.transfers.pop_first();
                }
                // The same request once more is a client that has heard nothing: it begins anew, from another port.
                let port = self.next_port;
                let next = port + 1;
                self.next_port =
                    if TRANSFER_PORTS.contains(&next) { next } else { TRANSFER_PORTS.start };
                let (transfer, packets) = Transfer::begin(&request, file.len());
                let frames = self.send(mac, client, port, &packets, &file);
                self.transfers.insert(client, (port, transfer, file));
                frames
            }
        }
    }

    /// A packet of a transfer under way.
    fn go_on(&mut self, mac: Mac, datagram: &Datagram<'_>) -> Vec<Vec<u8>> {
        let client = (datagram.from, datagram.from_port);
        let Some((port, transfer, file)) = self.transfers.get_mut(&client) else {
            return Vec::new();
        };
        let port = *port;
        if port != datagram.port {
            return Vec::new();
        }
        let packets = transfer.receive(datagram.content);
        let (done, file) = (transfer.is_done(), file.clone());
        if done {
            self.transfers.remove(&client);
        }
        self.send(mac, client, port, &packets, &file)
    }

    fn send(
        &self,
        mac: Mac,
        client: Client,
        port: u16,
        packets: &[Packet],
        file: &Content,
    ) -> Vec<Vec<u8>> {
        // What cannot be read at the moment is asked for again.
        let packets = packets.iter().filter_map(|packet| packet.encode(file).ok());
        packets.map(|packet| self.udp(mac, client, port, &packet)).collect()
    }

    fn udp(&self, mac: Mac, to: Client, port: u16, content: &[u8]) -> Vec<u8> {
        let (address, to_port) = to;
        // What is sent is never longer than a block of TFTP or a message of DHCP.
        let length = (8 + content.len()) as u16;
        let mut header = [0_u8; 20];
        header[0] = 0x45;
        header[2..4].copy_from_slice(&(20 + length).to_be_bytes());
        header[8] = 64;
        header[9] = protocol::UDP;
        header[12..16].copy_from_slice(&self.address.octets());
        header[16..20].copy_from_slice(&address.octets());
        let sum = checksum(&header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        let mut packet = header.to_vec();
        for number in [port, to_port, length, 0] {
            packet.extend(number.to_be_bytes());
        }
        packet.extend_from_slice(content);
        let mut pseudo = packet[12..20].to_vec();
        pseudo.extend([0, protocol::UDP]);
        pseudo.extend(length.to_be_bytes());
        pseudo.extend_from_slice(&packet[20..]);
        // Zero would mean that there is none.
        let sum = match checksum(&pseudo) {
            0 => 0xffff,
            sum => sum,
        };
        packet[26..28].copy_from_slice(&sum.to_be_bytes());
        self.frame(mac, protocol::IPV4, &packet)
    }

    fn frame(&self, to: Mac, protocol: [u8; 2], content: &[u8]) -> Vec<u8> {
        [&to.0[..], &self.mac.0, &protocol, content].concat()
    }
}

/// The checksum of the internet protocols (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests;
