// SPDX-License-Identifier: MIT OR Apache-2.0
//! How many frames MACsec dropped, and when that is worth a line.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use dvs_config::Mac;

use crate::rejects::Throttle;

/// What the kernel has counted of a device since it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceCounts {
    /// Packet number that the next frame of each own key gets, by association number.
    pub next_packet: BTreeMap<u8, u32>,
    /// Frames sent.
    pub sent: u64,
    /// Frames that name a sender whom nobody told the device to expect.
    pub unknown: u64,
    /// Frames whose tag is not well-formed.
    pub malformed: u64,
    /// Frames that name a sender who is expected.
    pub senders: BTreeMap<Mac, SenderCounts>,
}

/// What the kernel has counted of one sender.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SenderCounts {
    /// Frames that were what they claim to be.
    pub accepted: u64,
    /// Frames that were not.
    pub invalid: u64,
    /// Frames whose packet number lies before the window.
    pub late: u64,
    /// Frames under a key that the device does not have.
    pub keyless: u64,
}

/// What became of frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Accepted.
    pub accepted: u64,
    /// Dropped since their tag did not fit: forged, or damaged on the way.
    pub forged: u64,
    /// Dropped since they came long after later ones: sent again by somebody.
    pub replayed: u64,
    /// Dropped since this node holds no key for them.
    pub foreign: u64,
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.accepted += other.accepted;
        self.forged += other.forged;
        self.replayed += other.replayed;
        self.foreign += other.foreign;
    }
}

impl Totals {
    fn of(counts: &SenderCounts) -> Self {
        let SenderCounts { accepted, invalid, late, keyless } = *counts;
        Self { accepted, forged: invalid, replayed: late, foreign: keyless }
    }

    /// What was added since `before`, or since counting began anew.
    fn since(self, before: Self) -> Self {
        let grown = |now: u64, before: u64| if now < before { now } else { now - before };
        Self {
            accepted: grown(self.accepted, before.accepted),
            forged: grown(self.forged, before.forged),
            replayed: grown(self.replayed, before.replayed),
            foreign: grown(self.foreign, before.foreign),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Forged,
    Replayed,
    Foreign,
}

#[derive(Debug, Default)]
struct Interface {
    total: Totals,
    senders: BTreeMap<Mac, Totals>,
    /// The kernel's own figures at the last look; `None` stands for the device itself.
    seen: BTreeMap<Option<Mac>, Totals>,
    untold: Totals,
}

/// Sums that survive devices and senders.
#[derive(Debug, Default)]
pub struct Tally {
    interfaces: BTreeMap<u32, Interface>,
    throttle: Throttle<(u32, Kind)>,
}

impl Tally {
    /// Takes in what the kernel says of the device on an interface.
    pub fn count(&mut self, interface: u32, counts: &DeviceCounts) {
        let own = self.interfaces.entry(interface).or_default();
        let device =
            Totals { forged: counts.malformed, foreign: counts.unknown, ..Totals::default() };
        let senders = counts.senders.iter().map(|(mac, c)| (Some(*mac), Totals::of(c)));
        let now: BTreeMap<_, _> = senders.chain([(None, device)]).collect();
        for (who, totals) in &now {
            let grown = totals.since(own.seen.get(who).copied().unwrap_or_default());
            own.total += grown;
            own.untold += grown;
            if let Some(mac) = who {
                *own.senders.entry(*mac).or_default() += grown;
            }
        }
        own.seen = now;
    }

    /// All frames that came by an interface.
    pub fn total(&self, interface: u32) -> Totals {
        self.interfaces.get(&interface).map(|it| it.total).unwrap_or_default()
    }

    /// Those that came, or claimed to, from an interface of another node's.
    pub fn of_sender(&self, interface: u32, mac: Mac) -> Totals {
        let interface = self.interfaces.get(&interface);
        interface.and_then(|it| it.senders.get(&mac)).copied().unwrap_or_default()
    }

    /// The lines to tell now, with their severity in front.
    pub fn lines(&mut self, now_ms: u64, name: impl Fn(u32) -> String) -> Vec<String> {
        let mut lines = Vec::new();
        for (index, interface) in &mut self.interfaces {
            let untold = &mut interface.untold;
            for (kind, count) in [
                (Kind::Forged, &mut untold.forged),
                (Kind::Replayed, &mut untold.replayed),
                (Kind::Foreign, &mut untold.foreign),
            ] {
                if *count > 0 && self.throttle.admits(now_ms, (*index, kind)) {
                    lines.push(line(kind, std::mem::take(count), &name(*index)));
                }
            }
        }
        lines
    }
}

fn line(kind: Kind, count: u64, interface: &str) -> String {
    let frames = if count == 1 { "1 frame".into() } else { format!("{count} frames") };
    match kind {
        Kind::Forged => format!(
            "warning: {frames} on {interface} did not have the seal of the node they claim to be \
             from and were dropped; somebody forges frames, or a cable damages them"
        ),
        Kind::Replayed => format!(
            "warning: {frames} on {interface} were recorded earlier and sent again, and were dropped"
        ),
        // A node that restarts unnoticed is one for a moment.
        Kind::Foreign => format!(
            "note: {frames} on {interface} came from a machine whose keys this node does not hold \
             and were dropped"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 9]);

    fn counts(unknown: u64, sender: Option<SenderCounts>) -> DeviceCounts {
        let senders = sender.map(|counts| (MAC, counts)).into_iter().collect();
        DeviceCounts { unknown, senders, ..DeviceCounts::default() }
    }

    fn name(index: u32) -> String {
        format!("eth{index}")
    }

    #[test]
    fn figures_grow_even_where_the_kernel_begins_anew() {
        let mut tally = Tally::default();
        let sender = |invalid, late| SenderCounts { accepted: 9, invalid, late, keyless: 0 };
        tally.count(0, &counts(3, Some(sender(5, 0))));
        tally.count(0, &counts(3, Some(sender(7, 1))));
        // The sender was removed and came back; then the device was made anew.
        tally.count(0, &counts(4, None));
        tally.count(0, &counts(4, Some(sender(1, 0))));
        tally.count(0, &counts(1, Some(sender(1, 0))));
        let total = Totals { accepted: 18, forged: 8, replayed: 1, foreign: 5 };
        assert_eq!(tally.total(0), total);
        assert_eq!(tally.of_sender(0, MAC), Totals { foreign: 0, ..total });
        assert_eq!(tally.of_sender(1, MAC), Totals::default());
    }

    #[test]
    fn a_flood_is_one_line_a_minute_and_nothing_is_left_out() {
        let mut tally = Tally::default();
        let invalid = |invalid| SenderCounts { invalid, ..SenderCounts::default() };
        tally.count(0, &counts(0, Some(invalid(12))));
        let lines = tally.lines(0, name);
        assert_eq!(lines.len(), 1);
        assert!(lines[0].starts_with("warning: 12 frames on eth0 did not have"), "{}", lines[0]);
        tally.count(0, &counts(0, Some(invalid(13))));
        tally.count(0, &counts(2, Some(invalid(15))));
        let lines = tally.lines(1_000, name);
        assert_eq!(lines.len(), 1, "only what is of another kind");
        assert!(lines[0].starts_with("note: 2 frames on eth0 came from"), "{}", lines[0]);
        let lines = tally.lines(60_000, name);
        assert_eq!(lines.len(), 1);
        assert!(lines[0].starts_with("warning: 3 frames"), "{}", lines[0]);
        assert_eq!(tally.lines(200_000, name), Vec::<String>::new());
    }
}
