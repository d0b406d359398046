// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is to be passed on, and how often it still is.

use std::collections::{BTreeMap, BTreeSet};

use super::message::Message;
use super::record::{Claim, Record};
use crate::beacon::BYTES_MAX;

/// Ids of which there is news, those first that were told least often.
#[derive(Debug, Default)]
pub(super) struct News {
    order: BTreeSet<(u32, u16)>,
    /// How often it was told, and whether it is more than a claim.
    by_id: BTreeMap<u16, (u32, bool)>,
}

impl News {
    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// There is news of a member: of its facts as well, or of its health only.
    pub(super) fn add(&mut self, id: u16, facts: bool) {
        let pending = self.drop(id).is_some_and(|facts| facts);
        self.by_id.insert(id, (0, facts || pending));
        self.order.insert((0, id));
    }

    /// There is nothing to tell of it any more. Gives back whether there were facts to tell.
    pub(super) fn drop(&mut self, id: u16) -> Option<bool> {
        let (told, facts) = self.by_id.remove(&id)?;
        self.order.remove(&(told, id));
        Some(facts)
    }

    /// Takes what fits beside `used` bytes in a cluster of so many `others`.
    pub(super) fn take<'a>(
        &mut self,
        others: usize,
        mut used: usize,
        record: impl Fn(u16) -> Option<&'a Record>,
        claims: &mut Vec<Claim>,
        records: &mut Vec<Record>,
    ) {
        // Each round of telling about doubles those who know; the rest is for losses.
        let often = others.max(1).ilog2() + 4;
        let mut told = Vec::new();
        for (_, id) in &self.order {
            let (Some(record), Some((_, facts))) = (record(*id), self.by_id.get(id)) else {
                told.push(*id);
                continue;
            };
            let bytes = match facts {
                true => Message::record_bytes(record),
                false => Message::claim_bytes(),
            };
            if claims.len() >= 255 || used + Message::claim_bytes() > BYTES_MAX {
                break;
            }
            if used + bytes > BYTES_MAX || (*facts && records.len() >= 255) {
                continue;
            }
            used += bytes;
            match facts {
                true => records.push(record.clone()),
                false => claims.push(record.claim),
            }
            told.push(*id);
        }
        for id in told {
            let Some((count, facts)) = self.by_id.remove(&id) else { continue };
            self.order.remove(&(count, id));
            if count + 1 < often {
                self.by_id.insert(id, (count + 1, facts));
                self.order.insert((count + 1, id));
            }
        }
    }
}
