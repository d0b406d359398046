// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is to be passed on, and how often it still is.

use std::collections::{BTreeMap, BTreeSet};

use super::message::Message;
use super::record::{Claim, Record};
use crate::beacon::BYTES_MAX;

/// How often a node tells of facts. Who has told so often has missed one in fifty (e⁻⁴), who finds it by the next comparison; claims are
/// short, and urgent, and told until nobody is missed.
const FACTS_TOLD: u32 = 4;
/// Facts that wait to be told: more than this is more than a datagram holds.
const MUCH: usize = 8;

/// Ids of which there is news.
#[derive(Debug, Default)]
pub(super) struct News {
    /// Those of which there is a claim to tell, those first that were told least often.
    claims: BTreeSet<(u32, u16)>,
    /// Likewise, with facts.
    facts: BTreeSet<(u32, u16)>,
    /// How often each was told, and whether it is more than a claim.
    by_id: BTreeMap<u16, (u32, bool)>,
}

impl News {
    pub(super) fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Whether there is more than one message can tell.
    pub(super) fn is_much(&self) -> bool {
        self.facts.len() > MUCH
    }

    fn order(&mut self, facts: bool) -> &mut BTreeSet<(u32, u16)> {
        match facts {
            true => &mut self.facts,
            false => &mut self.claims,
        }
    }

    /// There is news of a member: of its facts as well, or of its health only.
    pub(super) fn add(&mut self, id: u16, facts: bool) {
        let facts = self.drop(id).is_some_and(|pending| pending) || facts;
        self.by_id.insert(id, (0, facts));
        self.order(facts).insert((0, id));
    }

    /// There is nothing to tell of it any more. Gives back whether there were facts to tell.
    pub(super) fn drop(&mut self, id: u16) -> Option<bool> {
        let (told, facts) = self.by_id.remove(&id)?;
        self.order(facts).remove(&(told, id));
        Some(facts)
    }

    /// Takes what fits beside `used` bytes in a cluster of so many `others`: claims first, which are the more urgent.
    pub(super) fn take<'a>(
        &mut self,
        others: usize,
        mut used: usize,
        record: impl Fn(u16) -> Option<&'a Record>,
        claims: &mut Vec<Claim>,
        records: &mut Vec<Record>,
    ) {
        let mut told = Vec::new();
        for (_, id) in &self.claims {
            if claims.len() >= 255 || used + Message::claim_bytes() > BYTES_MAX {
                break;
            }
            if let Some(record) = record(*id) {
                used += Message::claim_bytes();
                claims.push(record.claim);
            }
            told.push(*id);
        }
        for (_, id) in &self.facts {
            if let Some(record) = record(*id) {
                let bytes = Message::record_bytes(record);
                if records.len() >= 255 || used + bytes > BYTES_MAX {
                    break;
                }
                used += bytes;
                records.push(record.clone());
            }
            told.push(*id);
        }
        // Each round of telling about doubles those who know; the rest is for losses.
        let claims_told = others.max(1).ilog2() + 4;
        for id in told {
            let Some((count, facts)) = self.by_id.remove(&id) else { continue };
            self.order(facts).remove(&(count, id));
            let often = if facts { FACTS_TOLD.min(claims_told) } else { claims_told };
            if count + 1 < often {
                self.by_id.insert(id, (count + 1, facts));
                self.order(facts).insert((count + 1, id));
            }
        }
    }
}
