// SPDX-License-Identifier: MIT OR Apache-2.0
//! A row: what a primary gives to one replica at once, as it lies in lent memory.
//!
//! A head of 40 bytes says who gives it (4 bytes, and 4 of zeros), in which run of its server (8), to which run of the other's (8), in
//! which epoch (8) and feed (8). Letters follow, each with a head of 40 bytes: its kind (1), its flags (1), 6 of zeros, its number
//! (8: of the item, or of the beat), and three numbers that depend on the kind. After a write come its blocks, after a comparison
//! the checksum. All are little-endian.
//!
//! | kind | flags | numbers |
//! |---|---|---|
//! | 1 write | 1: safe at once | position, bytes, 0 |
//! | 2 zeros | 0 | position, bytes, 0 |
//! | 3 flush | 0 | 0, 0, 0 |
//! | 4 complete | 0 | base, 0, 0 |
//! | 5 compare | 0 | position, bytes, 0 |
//! | 6 skip | 0 | 0, 0, 0 |
//! | 7 beat | 1: says what is committed | committed, settled, base |

use super::lineup::{Life, ReplicaId};
use super::message::{Change, Feed, Item, Message, Sum};
use crate::store::{Safety, Shape};
use std::sync::Arc;

const HEAD_BYTES: usize = 40;
const SUM_BYTES: usize = size_of::<Sum>();

/// Who gives a row to whom, and as what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowHead {
    /// The primary.
    pub from: ReplicaId,
    /// The run of its server.
    pub life: Life,
    /// The run of the server that it is for.
    pub to: Life,
    /// The epoch of all its letters.
    pub epoch: u64,
    /// The feed of all its letters.
    pub feed: Feed,
}

/// The epoch and the feed of a message that can be in a row; all of one row must have the same.
pub fn row_of(message: &Message) -> Option<(u64, Feed)> {
    match message {
        Message::Feed { epoch, feed, .. } | Message::Beat { epoch, feed, .. } => {
            Some((*epoch, *feed))
        }
        _ => None,
    }
}

/// How many bytes a message takes in a row.
pub fn letter_bytes(message: &Message) -> usize {
    HEAD_BYTES
        + match message {
            Message::Feed { item: Item::Change(Change::Write { data, .. }), .. } => data.len(),
            Message::Feed { item: Item::Compare { .. }, .. } => SUM_BYTES,
            _ => 0,
        }
}

/// A row as it lies in memory. Messages that cannot be in it are left out.
pub fn write_row(head: &RowHead, messages: &[Message]) -> Vec<u8> {
    let total: usize = messages.iter().map(letter_bytes).sum();
    let mut row = Vec::with_capacity(HEAD_BYTES + total);
    let numbers = [u64::from(head.from.0), head.life.0, head.to.0, head.epoch, head.feed.0];
    row.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
    for message in messages {
        write_letter(message, &mut row);
    }
    row
}

fn write_letter(message: &Message, row: &mut Vec<u8>) {
    let (number, kind, flags, numbers, data): (u64, u8, bool, [u64; 3], &[u8]) = match message {
        Message::Beat { beat, committed, settled, base, .. } => {
            (*beat, 7, committed.is_some(), [committed.unwrap_or(0), *settled, *base], &[])
        }
        Message::Feed { sequence, item, .. } => match item {
            Item::Change(Change::Write { position, data, safety }) => {
                let numbers = [*position, data.len() as u64, 0];
                (*sequence, 1, *safety == Safety::AtOnce, numbers, data)
            }
            Item::Change(Change::Zero { position, bytes }) => {
                (*sequence, 2, false, [*position, *bytes, 0], &[])
            }
            Item::Flush => (*sequence, 3, false, [0; 3], &[]),
            Item::Complete { base } => (*sequence, 4, false, [*base, 0, 0], &[]),
            Item::Compare { position, bytes, sum } => {
                (*sequence, 5, false, [*position, *bytes, 0], sum)
            }
            Item::Skip => (*sequence, 6, false, [0; 3], &[]),
        },
        _ => return,
    };
    row.extend([kind, u8::from(flags), 0, 0, 0, 0, 0, 0]);
    row.extend(number.to_le_bytes());
    row.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
    row.extend(data);
}

/// What a row says, for a device of this shape. `None` if it is none, or names blocks that the device has not.
pub fn read_row(mut bytes: &[u8], shape: &Shape) -> Option<(RowHead, Vec<Message>)> {
    let rest = &mut bytes;
    let from = u32::try_from(number(rest)?).ok()?;
    let (life, to, epoch, feed) = (number(rest)?, number(rest)?, number(rest)?, number(rest)?);
    let feed = Feed(feed);
    let head = RowHead { from: ReplicaId(from), life: Life(life), to: Life(to), epoch, feed };
    let mut messages = Vec::new();
    while !rest.is_empty() {
        messages.push(read_letter(rest, &head, shape)?);
    }
    Some((head, messages))
}

fn number(rest: &mut &[u8]) -> Option<u64> {
    let (first, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(u64::from_le_bytes(*first))
}

fn read_letter(rest: &mut &[u8], head: &RowHead, shape: &Shape) -> Option<Message> {
    let [kind, flags @ 0..=1, 0, 0, 0, 0, 0, 0] = number(rest)?.to_le_bytes() else { return None };
    let is_set = flags == 1;
    let sequence = number(rest)?;
    let numbers = [number(rest)?, number(rest)?, number(rest)?];
    let RowHead { epoch, feed, .. } = *head;
    let [position, bytes, _] = numbers;
    let in_device = || shape.has(position, bytes).then_some(());
    let item = match (kind, is_set, numbers) {
        (1, _, [.., 0]) => {
            in_device()?;
            let (data, after) = rest.split_at_checked(usize::try_from(bytes).ok()?)?;
            *rest = after;
            let safety = if is_set { Safety::AtOnce } else { Safety::AtFlush };
            Item::Change(Change::Write { position, data: Arc::from(data), safety })
        }
        (2, false, [.., 0]) => {
            in_device()?;
            Item::Change(Change::Zero { position, bytes })
        }
        (3, false, [0, 0, 0]) => Item::Flush,
        (4, false, [base, 0, 0]) => Item::Complete { base },
        (5, false, [.., 0]) => {
            in_device()?;
            let (sum, after) = rest.split_first_chunk::<SUM_BYTES>()?;
            *rest = after;
            Item::Compare { position, bytes, sum: *sum }
        }
        (6, false, [0, 0, 0]) => Item::Skip,
        (7, _, [committed, settled, base]) => {
            let committed = is_set.then_some(committed);
            return Some(Message::Beat { epoch, feed, beat: sequence, committed, settled, base });
        }
        _ => return None,
    };
    Some(Message::Feed { epoch, feed, sequence, item })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SHAPE: Shape = Shape { bytes: 1 << 20, block_bytes: 512, writable: true };
    const HEAD: RowHead =
        RowHead { from: ReplicaId(3), life: Life(70), to: Life(71), epoch: 5, feed: Feed(9) };

    fn feed(sequence: u64, item: Item) -> Message {
        Message::Feed { epoch: 5, feed: Feed(9), sequence, item }
    }

    fn letters() -> Vec<Message> {
        let data: Arc<[u8]> = Arc::from([7; 1024]);
        let write = |safety| Change::Write { position: 512, data: data.clone(), safety };
        let beat = |committed| Message::Beat {
            epoch: 5,
            feed: Feed(9),
            beat: 4,
            committed,
            settled: 2,
            base: 3,
        };
        vec![
            feed(1, Item::Change(write(Safety::AtFlush))),
            feed(2, Item::Change(write(Safety::AtOnce))),
            feed(3, Item::Change(Change::Zero { position: 0, bytes: 1 << 20 })),
            feed(4, Item::Flush),
            feed(5, Item::Complete { base: 6 }),
            feed(6, Item::Compare { position: 0, bytes: 512, sum: [1; 16] }),
            feed(7, Item::Skip),
            beat(None),
            beat(Some(0)),
        ]
    }

    #[test]
    fn a_row_is_read_as_it_was_written() {
        let row = write_row(&HEAD, &letters());
        let bytes: usize = letters().iter().map(letter_bytes).sum();
        assert_eq!(row.len(), 40 + bytes);
        assert_eq!(read_row(&row, &SHAPE), Some((HEAD, letters())));
        assert!(letters().iter().all(|letter| row_of(letter) == Some((5, Feed(9)))));
    }

    #[test]
    fn a_row_that_was_cut_is_none() {
        let letters = letters();
        let row = write_row(&HEAD, &letters);
        let mut ends = vec![40];
        ends.extend(letters.iter().map(letter_bytes));
        let mut end = 0;
        let ends: Vec<_> = ends
            .into_iter()
            .map(|bytes| {
                end += bytes;
                end
            })
            .collect();
        for length in (0..row.len()).filter(|length| !ends.contains(length)) {
            assert_eq!(read_row(&row[..length], &SHAPE), None, "{length} bytes of it");
        }
    }

    #[test]
    fn blocks_that_the_device_has_not_are_refused() {
        let zero = |position, bytes| feed(1, Item::Change(Change::Zero { position, bytes }));
        for (position, bytes) in [(0, 0), (1, 512), (0, 513), (1 << 20, 512), (u64::MAX - 511, 512)]
        {
            let row = write_row(&HEAD, &[zero(position, bytes)]);
            assert_eq!(read_row(&row, &SHAPE), None, "{bytes} bytes from {position}");
        }
        assert!(read_row(&write_row(&HEAD, &[zero(0, 512)]), &SHAPE).is_some());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(
            change in proptest::option::of((0_usize..1500, any::<u8>())),
            more in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            let mut row = write_row(&HEAD, &letters());
            if let Some((index, byte)) = change {
                row[index] = byte;
            }
            row.extend(more);
            if let Some((head, messages)) = read_row(&row, &SHAPE) {
                prop_assert_eq!(write_row(&head, &messages), row);
            }
        }
    }
}
