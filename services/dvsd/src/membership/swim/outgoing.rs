// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a message carries besides what it is for.

use super::message::{Asides, Body, Message};
use super::record::{Claim, Health, Record};
use super::Swim;

impl Swim {
    /// Sends a message with as much news as fits.
    pub(super) fn send(&mut self, to: u16, body: Body) {
        let Some(member) = self.members.get(&to) else { return };
        let mut used = Message::bare_bytes(&body);
        let (mut claims, mut records) = (Vec::new(), Vec::new());
        // Whoever is asked may never have heard of this node, or not know what is said of itself.
        if member.answered || matches!(body, Body::Digests(_)) {
            claims.push(self.own.claim);
            used += Message::claim_bytes();
        } else {
            used += Message::record_bytes(&self.own);
            records.push(self.own.clone());
        }
        if member.record.claim.health != Health::Alive {
            claims.push(member.record.claim);
            used += Message::claim_bytes();
        }
        let own_id = self.own.claim.seat.id;
        // A suspicion goes to the suspect through whoever is to ask it, and its contradiction comes back
        // with the answer: between the two ends, nothing else may pass in time.
        let about = match body {
            Body::PingFor { target: id, .. } | Body::Answer { whose: id, .. } => Some(id),
            _ => None,
        };
        if let Some(about) = about.and_then(|id| self.members.get(&id)) {
            claims.push(about.record.claim);
            used += Message::claim_bytes();
        }
        let (own, members) = (&self.own, &self.members);
        let record = |id: u16| match id == own_id {
            true => Some(own),
            false => members.get(&id).map(|member| &member.record),
        };
        self.news.take(members.len(), used, record, &mut claims, &mut records);
        self.post(to, body, claims, records);
    }

    pub(super) fn post(&mut self, to: u16, body: Body, claims: Vec<Claim>, records: Vec<Record>) {
        let Some(member) = self.members.get(&to) else { return };
        self.counter += 1;
        let (version, told) = self.asides.get(&to).copied().unwrap_or_default();
        let asides = Asides { version, seen: member.aside.0, told };
        self.untold.remove(&to);
        let message = Message {
            cluster: self.cluster,
            from: self.own.claim.seat.id,
            instance: self.own.instance,
            to_instance: member.record.instance,
            counter: self.counter,
            asides,
            body,
            claims,
            records,
        };
        self.outbox.push((to, message));
    }
}
