// SPDX-License-Identifier: MIT OR Apache-2.0
//! A partner's share in copies: it lends memory that it does not have, and asks for what others
//! lent, as the protocol says or a little differently.

use std::collections::VecDeque;

use dvk_abi::errno::Errno;
use dvk_abi::wire::record::RECORD_BYTES;
use dvk_abi::wire::transfer::{
    CopyHead, CopyRecord, CopyStep, DataHead, Flow, Place, MAX_DATA_BYTES, MAX_PART_BYTES,
};
use dvk_abi::Endpoint;
use dvk_fuzz::rng::Rng;

/// Parts that are remembered. What is forgotten ends when somebody gives up.
const KEPT: usize = 64;

/// One part of a copy, by the head that its asker writes.
#[derive(Clone, Copy)]
struct Part {
    head: CopyHead,
    len: u32,
    /// Bytes that have come for it.
    come: u32,
}

/// The copies of a partner that are under way.
#[derive(Default)]
pub(super) struct Copies {
    /// For which the kernel was told to send bytes.
    opened: VecDeque<Part>,
    /// For which the kernel was asked.
    asked: VecDeque<Part>,
    calls: u32,
}

/// Takes a record for the link, and returns whether there was room for it.
pub(super) type Say<'a> = &'a mut dyn FnMut(&[u8]) -> bool;

impl Copies {
    /// Takes what the kernel said, if it has to do with copies.
    pub(super) fn hear(&mut self, rng: &mut Rng, bytes: &[u8], say: Say<'_>) {
        if let Ok((data, content)) = DataHead::decode(bytes) {
            if data.flow == Flow::Stored {
                self.come(rng, &data.head, content.len() as u32, say);
            }
            return;
        }
        let Ok(CopyRecord { head, step }) = CopyRecord::decode(bytes) else { return };
        if rng.percent(3) {
            // Not a word, until it is asked to stop.
            return;
        }
        match step {
            CopyStep::CopyFrom { len, .. } => {
                let sent = send(rng, head.back(), Flow::Supplied, len, say);
                done(rng, &head, len, sent, say);
            }
            CopyStep::CopyTo { len, .. } => {
                if len == 0 || rng.percent(10) {
                    return done(rng, &head, len, 0, say);
                }
                keep(&mut self.opened, Part { head, len, come: 0 });
                tell(&CopyRecord { head: head.back(), step: CopyStep::Open }, say);
            }
            CopyStep::CopyBetween { len, .. } => done(rng, &head, len, len, say),
            CopyStep::Stop => {
                let (len, come) =
                    take(&mut self.opened, &head).map_or((1, 0), |part| (part.len, part.come));
                done(rng, &head, len, come, say);
            }
            CopyStep::Open => {
                let Some(part) = take(&mut self.asked, &head.back()) else { return };
                let sent = send(rng, part.head, Flow::Stored, part.len, say);
                if sent < part.len && rng.percent(70) {
                    tell(&CopyRecord { head: part.head, step: CopyStep::Stop }, say);
                }
            }
            CopyStep::Done { .. } => {
                take(&mut self.asked, &head.back());
            }
        }
    }

    /// Bytes came for a part that was opened.
    fn come(&mut self, rng: &mut Rng, head: &CopyHead, bytes: u32, say: Say<'_>) {
        let Some(part) = self.opened.iter_mut().find(|part| part.head == *head) else { return };
        part.come = part.come.saturating_add(bytes);
        if part.come >= part.len || rng.percent(2) {
            let Part { len, come, .. } = *part;
            take(&mut self.opened, head);
            done(rng, head, len, come.min(len), say);
        }
    }

    /// Asks for a part: `from` is an endpoint of the partner's, `to` and `receiver` have lent what
    /// the grants say.
    pub(super) fn ask(
        &mut self,
        rng: &mut Rng,
        container: u16,
        from: Endpoint,
        (to, grant): (Endpoint, u64),
        (receiver, other): (Endpoint, u64),
        say: Say<'_>,
    ) {
        self.calls = self.calls.wrapping_add(u32::from(!rng.percent(3)));
        let head = CopyHead { container, call: self.calls, from, to };
        let most = rng.pick(&[64, 4096, 40_000, MAX_PART_BYTES]);
        let len = rng.below(u64::from(most) + 1) as u32;
        let rest = u64::from(len) + rng.pick(&[0, 0, 0, 1, 1 << 20, u64::MAX >> 1]);
        let offset = rng.pick(&[0, 0, 0, 1, 4095, 8192, u64::MAX - 10]);
        let place = |grant| Place { grant, offset };
        let step = match rng.below(5) {
            0 | 1 => CopyStep::CopyFrom { source: place(grant), len, rest },
            2 | 3 => CopyStep::CopyTo { destination: place(grant), len, rest },
            _ => CopyStep::CopyBetween {
                source: place(grant),
                receiver,
                destination: place(other),
                len,
                rest,
            },
        };
        keep(&mut self.asked, Part { head, len, come: 0 });
        tell(&CopyRecord { head, step }, say);
        if rng.percent(10) {
            tell(&CopyRecord { head, step: CopyStep::Stop }, say);
        }
    }
}

fn keep(parts: &mut VecDeque<Part>, part: Part) {
    if parts.len() == KEPT {
        parts.pop_front();
    }
    parts.push_back(part);
}

fn take(parts: &mut VecDeque<Part>, head: &CopyHead) -> Option<Part> {
    let at = parts.iter().position(|part| part.head == *head)?;
    parts.remove(at)
}

fn tell(record: &CopyRecord, say: Say<'_>) {
    let mut bytes = [0; RECORD_BYTES];
    let len = record.encode(&mut bytes);
    // What finds no room is not said; whoever waits for it gives up.
    let _ = say(&bytes[..len]);
}

/// Says how the part of the asker's `head` ended, which is mostly true.
fn done(rng: &mut Rng, head: &CopyHead, len: u32, copied: u32, say: Say<'_>) {
    let (copied, error) = match rng.below(12) {
        0 => (rng.below(u64::from(len) + 1) as u32, Some(super::error(rng))),
        1 => (rng.draw() as u32, None),
        _ => (copied, (copied != len).then_some(Errno::Fault)),
    };
    tell(&CopyRecord { head: head.back(), step: CopyStep::Done { copied, error } }, say);
}

/// Sends `len` bytes, or as many as there is room for, and returns how many.
fn send(rng: &mut Rng, head: CopyHead, flow: Flow, len: u32, say: Say<'_>) -> u32 {
    let mut sent = 0;
    while sent < len {
        let part = (len - sent).min(1 + rng.below(MAX_DATA_BYTES as u64) as u32);
        let offset = if rng.percent(2) { rng.draw() as u32 } else { sent };
        let mut record = DataHead { head, flow, offset }.encode().to_vec();
        record.resize(record.len() + part as usize, sent as u8);
        if rng.percent(1) || !say(&record) {
            break;
        }
        sent += part;
    }
    sent
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> CopyHead {
        let endpoint = |slot: u64| Endpoint::from_raw(10 << 32 | slot);
        CopyHead { container: 1, call: 7, from: endpoint(64), to: endpoint(128) }
    }

    /// What a partner says to `step`, where there is room for everything.
    fn said(copies: &mut Copies, seed: u64, step: CopyStep) -> Vec<Vec<u8>> {
        let mut bytes = [0; RECORD_BYTES];
        let len = CopyRecord { head: head(), step }.encode(&mut bytes);
        let mut said = Vec::new();
        copies.hear(&mut Rng::new(seed), &bytes[..len], &mut |record| {
            said.push(record.to_vec());
            true
        });
        said
    }

    fn is_done(record: &[u8], len: u32) -> bool {
        let end = CopyStep::Done { copied: len, error: None };
        CopyRecord::decode(record) == Ok(CopyRecord { head: head().back(), step: end })
    }

    #[test]
    fn what_it_is_asked_for_it_mostly_supplies() {
        let source = Place { grant: 1, offset: 0 };
        let ask = CopyStep::CopyFrom { source, len: 50_000, rest: 50_000 };
        let whole = (0..100).filter(|seed| {
            let said = said(&mut Copies::default(), *seed, ask);
            let bytes: usize = said
                .iter()
                .filter_map(|record| DataHead::decode(record).ok())
                .map(|(_, content)| content.len())
                .sum();
            bytes == 50_000 && said.last().is_some_and(|last| is_done(last, 50_000))
        });
        let whole = whole.count();
        assert!((50..95).contains(&whole), "{whole}");
    }

    #[test]
    fn what_it_opens_it_mostly_takes_to_the_end() {
        let destination = Place { grant: 1, offset: 0 };
        let ask = CopyStep::CopyTo { destination, len: 100, rest: 100 };
        let taken = (0..100).filter(|seed| {
            let mut copies = Copies::default();
            let opened = said(&mut copies, *seed, ask);
            let open = CopyRecord { head: head().back(), step: CopyStep::Open };
            if opened.len() != 1 || CopyRecord::decode(&opened[0]) != Ok(open) {
                return false;
            }
            let mut data =
                DataHead { head: head(), flow: Flow::Stored, offset: 0 }.encode().to_vec();
            data.resize(data.len() + 100, 3);
            let mut ended = false;
            copies.hear(&mut Rng::new(*seed), &data, &mut |record| {
                ended = is_done(record, 100);
                true
            });
            ended
        });
        let taken = taken.count();
        assert!((50..95).contains(&taken), "{taken}");
    }
}
