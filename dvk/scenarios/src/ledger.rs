// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the server knows of its clients, as it takes it along from node to node.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Result};
use dvk::{Endpoint, Message};

/// Kind of a message that is a number of a client's own sequence.
pub(crate) const NUMBER: u32 = 0x4d01;

/// The message that is number `number` of client `client`.
pub(crate) fn numbered(client: u32, number: u64) -> Message {
    let mut message = Message::new(NUMBER);
    message.payload[..4].copy_from_slice(&client.to_le_bytes());
    message.payload[8..16].copy_from_slice(&number.to_le_bytes());
    message
}

/// Whose number a message is, and which.
pub(crate) fn number_of(message: &Message) -> (u32, u64) {
    let mut client = [0; 4];
    client.copy_from_slice(&message.payload[..4]);
    let mut number = [0; 8];
    number.copy_from_slice(&message.payload[8..16]);
    (u32::from_le_bytes(client), u64::from_le_bytes(number))
}

/// One client, as the server sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Seen {
    client: u32,
    /// The number that is to come next.
    next: u64,
    /// Bits that it notified.
    bits: u64,
}

/// All clients, by endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ledger {
    clients: BTreeMap<u64, Seen>,
    /// Numbers that came a second time.
    duplicates: u64,
    /// Numbers that came before another that was to come first.
    early: u64,
    /// A request that was received, and may not have been answered: of whom, and which.
    owed: Option<(u64, u32, u64)>,
}

impl Ledger {
    /// Notes a number of the client with this endpoint.
    pub(crate) fn number(&mut self, source: Endpoint, client: u32, number: u64) {
        let seen = self.clients.entry(source.raw()).or_default();
        seen.client = client;
        match number.cmp(&seen.next) {
            std::cmp::Ordering::Less => self.duplicates += 1,
            std::cmp::Ordering::Equal => seen.next += 1,
            std::cmp::Ordering::Greater => {
                self.early += 1;
                seen.next = number + 1;
            }
        }
    }

    /// Notes an answer that is to be given.
    pub(crate) fn owe(&mut self, to: Endpoint, client: u32, number: u64) {
        self.owed = Some((to.raw(), client, number));
    }

    /// An answer that is to be given.
    pub(crate) fn take_owed(&mut self) -> Option<(Endpoint, u32, u64)> {
        self.owed.take().map(|(to, client, number)| (Endpoint::from_raw(to), client, number))
    }

    /// Notes notified bits.
    pub(crate) fn bits(&mut self, source: Endpoint, bits: u64) {
        self.clients.entry(source.raw()).or_default().bits |= bits;
    }

    /// What is wrong, and how far each client has come, in the order of their numbers.
    pub(crate) fn report(&self) -> Vec<String> {
        let mut seen: Vec<_> = self.clients.values().collect();
        seen.sort_by_key(|seen| seen.client);
        let wrong = format!("duplicates {} early {}", self.duplicates, self.early);
        let each = seen.iter().map(|seen| {
            format!("client {} numbers {} bits {:x}", seen.client, seen.next, seen.bits)
        });
        std::iter::once(wrong).chain(each).collect()
    }
}

/// As one word.
impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Nobody has endpoint 0.
        let (to, client, number) = self.owed.unwrap_or_default();
        write!(f, "{},{},{to},{client},{number}", self.duplicates, self.early)?;
        for (endpoint, seen) in &self.clients {
            write!(f, ",{endpoint},{},{},{}", seen.client, seen.next, seen.bits)?;
        }
        Ok(())
    }
}

impl FromStr for Ledger {
    type Err = anyhow::Error;

    fn from_str(word: &str) -> Result<Self> {
        let numbers: Result<Vec<u64>, _> = word.split(',').map(str::parse).collect();
        let numbers = numbers.with_context(|| format!("no ledger: {word}"))?;
        let (head, rest) = numbers.split_first_chunk::<5>().context("a ledger without totals")?;
        let (entries, []) = rest.as_chunks::<4>() else { anyhow::bail!("a ledger cut short") };
        let clients = entries.iter().map(|[endpoint, client, next, bits]| {
            let client = u32::try_from(*client)?;
            Ok((*endpoint, Seen { client, next: *next, bits: *bits }))
        });
        let clients = clients.collect::<Result<_>>()?;
        let [duplicates, early, to, client, number] = *head;
        let owed = Some((to, u32::try_from(client)?, number)).filter(|(to, _, _)| *to != 0);
        Ok(Self { clients, duplicates, early, owed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_counted_and_travels() {
        let mut ledger = Ledger::default();
        let (one, two) = (Endpoint::from_raw(1 << 32 | 64), Endpoint::from_raw(1 << 32 | 65));
        for number in [0, 1, 2, 2, 4] {
            ledger.number(one, 7, number);
        }
        ledger.number(two, 3, 0);
        ledger.bits(two, 0b110);
        ledger.owe(one, 7, 4);
        let mut travelled: Ledger = ledger.to_string().parse().unwrap();
        assert_eq!(travelled, ledger);
        assert_eq!(
            travelled.report(),
            ["duplicates 1 early 1", "client 3 numbers 1 bits 6", "client 7 numbers 5 bits 0"]
        );
        assert_eq!(travelled.take_owed(), Some((one, 7, 4)));
        assert_eq!("0,0,0,0,0".parse::<Ledger>().unwrap(), Ledger::default());
        assert!("".parse::<Ledger>().is_err() && "0,0,0,0,0,1".parse::<Ledger>().is_err());
    }

    #[test]
    fn numbers_are_read_as_written() {
        assert_eq!(number_of(&numbered(9, u64::MAX)), (9, u64::MAX));
    }
}
