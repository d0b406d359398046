// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finding what got lost on its way: two members compare what they know, and tell each other what the other one lacks.

use super::message::{Body, Message, GROUPS};
use super::record::Record;
use super::Swim;
use crate::beacon::BYTES_MAX;

/// How many records are sent at most in answer to one comparison, in messages: what a receive buffer takes at once.
const ANSWER_MESSAGES: usize = 32;

impl Swim {
    pub(super) fn compare(&mut self, now_ms: u64) {
        let Some(to) = self.somebody(None) else { return };
        // The others do not ask all at once.
        let compare_ms = self.tuning.compare_ms;
        self.next_compare_ms = now_ms + compare_ms / 2 + self.below(compare_ms as usize) as u64;
        let digests = Box::new(self.digests());
        self.send(to, Body::Digests(digests));
    }

    fn digests(&self) -> [u32; GROUPS] {
        let mut digests = [0; GROUPS];
        for record in self.others().chain([&self.own]) {
            digests[usize::from(record.claim.seat.id) % GROUPS] ^= record.digest();
        }
        digests
    }

    /// Somebody knows what this node does not, or otherwise: it asks soon, and not whenever it is told so.
    pub(super) fn compare_soon(&mut self, now_ms: u64) {
        let probe_ms = self.tuning.probe_ms;
        let soon_ms = now_ms + probe_ms + self.below(probe_ms as usize) as u64;
        self.next_compare_ms = self.next_compare_ms.min(soon_ms);
    }

    pub(super) fn answer_comparison(&mut self, now_ms: u64, to: u16, theirs: &[u32; GROUPS]) {
        let ours = self.digests();
        if ours != *theirs {
            self.compare_soon(now_ms);
        }
        let start = self.below(GROUPS);
        let groups = (0..GROUPS).map(|n| (start + n) % GROUPS).filter(|n| ours[*n] != theirs[*n]);
        let bare = Message::bare_bytes(&Body::Records);
        let (mut messages, mut records, mut used) = (0, Vec::new(), bare);
        for group in groups.collect::<Vec<_>>() {
            let of_group: Vec<Record> = self
                .others()
                .chain([&self.own])
                .filter(|record| usize::from(record.claim.seat.id) % GROUPS == group)
                .cloned()
                .collect();
            for record in of_group {
                let bytes = Message::record_bytes(&record);
                if used + bytes > BYTES_MAX {
                    self.post(to, Body::Records, Vec::new(), std::mem::take(&mut records));
                    messages += 1;
                    used = bare;
                }
                if messages == ANSWER_MESSAGES {
                    return;
                }
                used += bytes;
                records.push(record);
            }
        }
        if !records.is_empty() {
            self.post(to, Body::Records, Vec::new(), records);
        }
    }
}
