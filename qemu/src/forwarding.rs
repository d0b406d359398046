// SPDX-License-Identifier: MIT OR Apache-2.0
//! How a learning Ethernet bridge chooses where a frame goes (IEEE 802.1D, 7.7 and 7.9, without spanning tree).

use std::collections::HashMap;
use std::time::Duration;

/// How long an address is believed to be where it was last seen (802.1D's recommended value).
pub const AGEING: Duration = Duration::from_secs(300);
/// How many addresses are remembered; frames to others are flooded. Bounds what a guest that invents addresses costs.
pub const TABLE_SIZE: usize = 4096;
/// Length of an Ethernet header; shorter frames are dropped.
pub const HEADER: usize = 14;

type Mac = [u8; 6];

/// Where a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Out of one port.
    Port(usize),
    /// Out of every port but the one that it came from.
    Flood,
    /// Nowhere: it is malformed, or its receiver is behind the port that it came from.
    Nowhere,
}

#[derive(Debug)]
struct Entry {
    port: usize,
    seen: Duration,
}

/// The table of addresses.
#[derive(Debug, Default)]
pub struct Forwarding {
    table: HashMap<Mac, Entry>,
}

impl Forwarding {
    /// Learns from and decides about `frame`, which came in through port `from` at `now` (time since some start).
    pub fn forward(&mut self, from: usize, frame: &[u8], now: Duration) -> Destination {
        let (Some(to), Some(source)) = (mac(frame, 0), mac(frame, 6)) else {
            return Destination::Nowhere;
        };
        if frame.len() < HEADER {
            return Destination::Nowhere;
        }
        if !is_group(&source) {
            self.learn(source, from, now);
        }
        if is_group(&to) {
            return Destination::Flood;
        }
        match self.table.get(&to) {
            Some(entry) if now.saturating_sub(entry.seen) <= AGEING => {
                if entry.port == from {
                    Destination::Nowhere
                } else {
                    Destination::Port(entry.port)
                }
            }
            _ => Destination::Flood,
        }
    }

    /// Forgets what is behind `port`, whose cable was pulled.
    pub fn forget(&mut self, port: usize) {
        self.table.retain(|_, entry| entry.port != port);
    }

    fn learn(&mut self, source: Mac, port: usize, now: Duration) {
        if self.table.len() >= TABLE_SIZE && !self.table.contains_key(&source) {
            self.table.retain(|_, entry| now.saturating_sub(entry.seen) <= AGEING);
            if self.table.len() >= TABLE_SIZE {
                return;
            }
        }
        self.table.insert(source, Entry { port, seen: now });
    }
}

fn mac(frame: &[u8], at: usize) -> Option<Mac> {
    frame.get(at..at + 6)?.try_into().ok()
}

/// Broadcast or multicast.
fn is_group(mac: &Mac) -> bool {
    mac[0] & 1 != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Mac = [0x52, 0, 0, 0, 0, 1];
    const B: Mac = [0x52, 0, 0, 0, 0, 2];
    const ALL: Mac = [0xff; 6];
    const IPV6_ALL_NODES: Mac = [0x33, 0x33, 0, 0, 0, 1];

    fn frame(to: Mac, from: Mac) -> Vec<u8> {
        [&to[..], &from[..], &[0x88, 0xb5, 1, 2, 3]].concat()
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn unknown_addresses_are_flooded_until_learnt() {
        let mut forwarding = Forwarding::default();
        assert_eq!(forwarding.forward(0, &frame(B, A), at(0)), Destination::Flood);
        assert_eq!(forwarding.forward(1, &frame(A, B), at(0)), Destination::Port(0));
        assert_eq!(forwarding.forward(0, &frame(B, A), at(1)), Destination::Port(1));
    }

    #[test]
    fn groups_are_always_flooded_and_never_learnt() {
        let mut forwarding = Forwarding::default();
        for group in [ALL, IPV6_ALL_NODES] {
            forwarding.forward(2, &frame(A, group), at(0));
            assert_eq!(forwarding.forward(0, &frame(group, A), at(0)), Destination::Flood);
        }
    }

    #[test]
    fn nothing_goes_back_where_it_came_from() {
        let mut forwarding = Forwarding::default();
        forwarding.forward(0, &frame(ALL, A), at(0));
        assert_eq!(forwarding.forward(0, &frame(A, B), at(0)), Destination::Nowhere);
    }

    #[test]
    fn addresses_age_move_and_are_forgotten() {
        let mut forwarding = Forwarding::default();
        forwarding.forward(0, &frame(ALL, A), at(0));
        assert_eq!(forwarding.forward(1, &frame(A, B), at(300)), Destination::Port(0));
        assert_eq!(forwarding.forward(1, &frame(A, B), at(301)), Destination::Flood);
        forwarding.forward(2, &frame(ALL, A), at(302));
        assert_eq!(forwarding.forward(1, &frame(A, B), at(302)), Destination::Port(2));
        forwarding.forget(2);
        assert_eq!(forwarding.forward(1, &frame(A, B), at(302)), Destination::Flood);
    }

    #[test]
    fn the_table_is_bounded_and_recovers() {
        let mut forwarding = Forwarding::default();
        for n in 0..2 * TABLE_SIZE as u32 {
            let [_, b, c, d] = n.to_be_bytes();
            forwarding.forward(0, &frame(ALL, [0x52, 9, 9, b, c, d]), at(0));
        }
        assert_eq!(forwarding.table.len(), TABLE_SIZE);
        assert_eq!(forwarding.forward(1, &frame(A, B), at(0)), Destination::Flood);
        forwarding.forward(0, &frame(ALL, A), at(400));
        assert_eq!(forwarding.forward(1, &frame(A, B), at(400)), Destination::Port(0));
    }

    #[test]
    fn runts_are_dropped() {
        let mut forwarding = Forwarding::default();
        let whole = frame(ALL, A);
        for length in 0..HEADER {
            assert_eq!(forwarding.forward(0, &whole[..length], at(0)), Destination::Nowhere);
        }
        assert_eq!(forwarding.forward(0, &whole[..HEADER], at(0)), Destination::Flood);
    }
}
