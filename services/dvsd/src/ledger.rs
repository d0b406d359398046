// SPDX-License-Identifier: MIT OR Apache-2.0
//! The messages of a ping, and the books that both ends keep about them.
//!
//! A request carries a random run number and a sequence number from 0 up. The echo server counts
//! per client and run which it got twice and which after a later one, and tells its counts in
//! every reply; the pinging side counts what did not come back.

use std::collections::HashMap;

use dvk_abi::{Endpoint, Message};
use dvs_api::{PingResult, RttUs};

/// `kind` of a ping and of its reply.
pub const KIND_PING: u32 = 0x0d50_0001;
/// `kind` of the reply to anything else.
pub const KIND_UNKNOWN: u32 = 0x0d50_0000;
/// Runs that the echo server keeps books about; beyond, the one idle for longest is dropped.
const RUNS_MAX: usize = 256;
/// Messages before the latest within which "twice" and "late" can be told apart.
const WINDOW: u64 = 64;

/// A ping on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ping {
    /// Which run it belongs to.
    pub run: u64,
    /// Its place in the run.
    pub sequence: u64,
}

/// What the echo server has seen of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Requests received, each counted once.
    pub received: u64,
    /// Requests received again.
    pub duplicated: u64,
    /// Requests received after a later one.
    pub reordered: u64,
}

fn words(message: &Message) -> [u64; 6] {
    let mut words = [0; 6];
    for (word, bytes) in words.iter_mut().zip(message.payload.chunks_exact(8)) {
        *word = u64::from_le_bytes(bytes.try_into().unwrap_or_default());
    }
    words
}

fn message(words: [u64; 6]) -> Message {
    let mut message = Message::new(KIND_PING);
    for (bytes, word) in message.payload.chunks_exact_mut(8).zip(words) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    message
}

impl Ping {
    /// The request.
    pub fn request(self) -> Message {
        message([self.run, self.sequence, 0, 0, 0, 0])
    }

    /// The ping in a request or reply; `None` if it is no ping.
    pub fn of(message: &Message) -> Option<Self> {
        let [run, sequence, ..] = words(message);
        (message.kind == KIND_PING).then_some(Self { run, sequence })
    }

    fn reply(self, seen: Seen) -> Message {
        let Seen { received, duplicated, reordered } = seen;
        message([self.run, self.sequence, received, duplicated, reordered, 0])
    }
}

impl Seen {
    fn of(message: &Message) -> Self {
        let [_, _, received, duplicated, reordered, _] = words(message);
        Self { received, duplicated, reordered }
    }
}

#[derive(Debug)]
struct Run {
    seen: Seen,
    next: u64,
    /// Bit n: sequence number `next - 1 - n` was seen.
    window: u64,
    used: u64,
}

impl Run {
    fn note(&mut self, sequence: u64) {
        if sequence >= self.next {
            let ahead = sequence - self.next + 1;
            self.window = if ahead < WINDOW { self.window << ahead } else { 0 } | 1;
            self.next = sequence.saturating_add(1);
            self.seen.received += 1;
            return;
        }
        let back = self.next - 1 - sequence;
        // What is older than the window can only be a repetition: a client does not send that far
        // ahead of itself.
        if back >= WINDOW || self.window & 1 << back != 0 {
            self.seen.duplicated += 1;
        } else {
            self.window |= 1 << back;
            self.seen.received += 1;
            self.seen.reordered += 1;
        }
    }
}

/// The books of an echo server.
#[derive(Debug, Default)]
pub struct Ledger {
    runs: HashMap<(Endpoint, u64), Run>,
    clock: u64,
}

impl Ledger {
    /// Enters a request and gives back its reply.
    pub fn answer(&mut self, request: &Message) -> Message {
        let Some(ping) = Ping::of(request) else { return Message::new(KIND_UNKNOWN) };
        let key = (request.source(), ping.run);
        if self.runs.len() >= RUNS_MAX && !self.runs.contains_key(&key) {
            if let Some(idle) = self.runs.iter().min_by_key(|(_, run)| run.used).map(|(k, _)| *k) {
                self.runs.remove(&idle);
            }
        }
        self.clock += 1;
        let fresh = Run { seen: Seen::default(), next: 0, window: 0, used: 0 };
        let run = self.runs.entry(key).or_insert(fresh);
        run.used = self.clock;
        run.note(ping.sequence);
        ping.reply(run.seen)
    }
}

/// The books of the side that pings.
#[derive(Debug)]
pub struct Tally {
    run: u64,
    sent: u64,
    lost: u64,
    strays: u64,
    seen: Seen,
    rtt_ns: Vec<u64>,
}

impl Tally {
    /// A run that has not begun.
    pub fn new(run: u64) -> Self {
        Self { run, sent: 0, lost: 0, strays: 0, seen: Seen::default(), rtt_ns: Vec::new() }
    }

    /// The next request.
    pub fn next_request(&mut self) -> Message {
        let ping = Ping { run: self.run, sequence: self.sent };
        self.sent += 1;
        ping.request()
    }

    /// Enters the reply to the latest request.
    pub fn received(&mut self, reply: &Message, rtt_ns: u64) {
        let expected = Ping { run: self.run, sequence: self.sent.wrapping_sub(1) };
        if Ping::of(reply) != Some(expected) {
            // The reply to another request: that one came too late, this one not at all.
            self.strays += 1;
            self.lost += 1;
            return;
        }
        self.seen = Seen::of(reply);
        self.rtt_ns.push(rtt_ns);
    }

    /// Enters that the latest request got no reply in time.
    pub fn timed_out(&mut self) {
        self.lost += 1;
    }

    /// The result of the run between two nodes.
    pub fn result(mut self, from: u32, to: u32) -> PingResult {
        self.rtt_ns.sort_unstable();
        let us = |ns: u64| ns as f64 / 1000.0;
        let count = self.rtt_ns.len();
        // The nearest-rank percentile.
        let percentile = |percent: usize| us(self.rtt_ns[(count * percent).div_ceil(100) - 1]);
        let rtt_us = if count == 0 {
            RttUs::default()
        } else {
            let sum: u128 = self.rtt_ns.iter().map(|ns| u128::from(*ns)).sum();
            RttUs {
                min: us(self.rtt_ns[0]),
                p50: percentile(50),
                p99: percentile(99),
                max: us(self.rtt_ns[count - 1]),
                mean: us((sum / count as u128) as u64),
            }
        };
        PingResult {
            from,
            to,
            sent: self.sent,
            received: count as u64,
            duplicated: self.seen.duplicated,
            lost: self.lost,
            reordered: self.seen.reordered + self.strays,
            rtt_us,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(source: u64, run: u64, sequence: u64) -> Message {
        Message { source, ..Ping { run, sequence }.request() }
    }

    #[test]
    fn what_comes_twice_or_late_is_told() {
        let mut ledger = Ledger::default();
        let mut seen = |sequence| Seen::of(&ledger.answer(&from(1 << 32, 9, sequence)));
        let counts = |received, duplicated, reordered| Seen { received, duplicated, reordered };
        assert_eq!(seen(0), counts(1, 0, 0));
        assert_eq!(seen(0), counts(1, 1, 0));
        assert_eq!(seen(3), counts(2, 1, 0));
        assert_eq!(seen(1), counts(3, 1, 1));
        assert_eq!(seen(1), counts(3, 2, 1));
        assert_eq!(seen(3), counts(3, 3, 1));
        assert_eq!(seen(500), counts(4, 3, 1));
        assert_eq!(seen(499), counts(5, 3, 2));
        assert_eq!(seen(2), counts(5, 4, 2));
        assert_eq!(seen(u64::MAX), counts(6, 4, 2));
    }

    #[test]
    fn clients_and_runs_are_kept_apart_and_bounded() {
        let mut ledger = Ledger::default();
        for client in 1..1_000 {
            let reply = ledger.answer(&from(client << 32, client, 0));
            assert_eq!(Seen::of(&reply).received, 1);
            let reply = ledger.answer(&from(1 << 32, 1, client));
            assert_eq!(Seen::of(&reply).received, 1 + client);
        }
        assert_eq!(ledger.runs.len(), RUNS_MAX);
        assert_eq!(ledger.answer(&Message::new(5)).kind, KIND_UNKNOWN);
    }

    #[test]
    fn a_run_adds_up() {
        let mut ledger = Ledger::default();
        let mut tally = Tally::new(4);
        for n in 1..=100 {
            let request = Message { source: 1 << 32, ..tally.next_request() };
            let reply = ledger.answer(&request);
            match n {
                50 => tally.timed_out(),
                60 => tally.received(&Ping { run: 4, sequence: 3 }.request(), 1),
                70 => {
                    let again = ledger.answer(&request);
                    tally.received(&again, n * 1_000);
                }
                _ => tally.received(&reply, n * 1_000),
            }
        }
        let result = tally.result(0, 3);
        assert_eq!((result.sent, result.received, result.lost), (100, 98, 2));
        assert_eq!((result.duplicated, result.reordered), (1, 1));
        let RttUs { min, p50, p99, max, mean } = result.rtt_us;
        assert_eq!((min, p50, p99, max), (1.0, 49.0, 100.0, 100.0));
        assert!((mean - (5050.0 - 110.0) / 98.0).abs() < 0.01);
    }

    #[test]
    fn a_run_without_replies_has_no_times() {
        let mut tally = Tally::new(1);
        tally.next_request();
        tally.timed_out();
        let result = tally.result(0, 1);
        assert_eq!((result.sent, result.lost, result.rtt_us), (1, 1, RttUs::default()));
    }
}
