// SPDX-License-Identifier: MIT OR Apache-2.0
//! Groups: members that all see the same messages and the same changes of membership, in the same order.
//!
//! The order is that of the agreed log, so it is total, and a message is seen by exactly the members of the view in which it
//! was ordered (virtual synchrony, after Birman). Members read the stream of a group from a position on and acknowledge what
//! they have taken; what everybody has acknowledged is dropped.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::leases::LeaseId;
use crate::refusal::{Refusal, Thing};
use crate::tickets::Tickets;

/// Most groups at once.
pub const GROUPS_MAX: usize = 1_024;
/// Most members of a group.
pub const MEMBERS_MAX: usize = 1_024;
/// Most bytes of a message.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// Most deliveries that are kept for members that are behind.
pub const BACKLOG_MAX: usize = 4_096;
/// Most bytes of messages that are kept for them.
pub const BACKLOG_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What can be done with groups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Becomes a member.
    Join {
        /// Of which group; it exists while it has members.
        group: String,
        /// Under which lease.
        lease: LeaseId,
        /// By which name the others know the member.
        name: String,
    },
    /// Stops to be one.
    Leave {
        /// Of which group.
        group: String,
        /// Under which lease.
        lease: LeaseId,
    },
    /// Sends a message to all members, the sender included.
    Multicast {
        /// To which group.
        group: String,
        /// The sender's lease.
        lease: LeaseId,
        /// Counts the sender's messages from 1 up, so that one that is sent again because its answer was lost is not ordered
        /// twice.
        number: u64,
        /// What it says.
        payload: Vec<u8>,
    },
    /// Says that a member has taken everything up to a position.
    Acknowledge {
        /// Of which group.
        group: String,
        /// Under which lease.
        lease: LeaseId,
        /// The position of the last that it has taken.
        up_to: u64,
    },
}

/// A member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// By which name the others know it.
    pub name: String,
    /// Where the view that it joined with is; it sees what comes from there on.
    pub joined: u64,
    /// The number of its last message.
    sent: u64,
    /// Up to where it has taken what was delivered.
    taken: u64,
}

/// One element of a group's stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// Its place in the stream; they have no gaps.
    pub position: u64,
    /// What is delivered.
    pub content: Content,
}

/// What is delivered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// From here on these are the members.
    View {
        /// Greater than that of every view before, of any group.
        number: u64,
        /// Leases and names.
        members: Vec<(LeaseId, String)>,
    },
    /// A message.
    Message {
        /// The sender's lease.
        sender: LeaseId,
        /// The sender's count.
        number: u64,
        /// What it says.
        payload: Vec<u8>,
    },
}

impl Content {
    fn bytes(&self) -> usize {
        match self {
            Self::View { members, .. } => members.iter().map(|(_, name)| 8 + name.len()).sum(),
            Self::Message { payload, .. } => payload.len(),
        }
    }
}

/// One group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    members: BTreeMap<LeaseId, Member>,
    /// Position of the newest delivery.
    last: u64,
    stream: VecDeque<Delivery>,
    bytes: usize,
}

impl Group {
    /// Who belongs to it.
    pub fn members(&self) -> impl Iterator<Item = (LeaseId, &Member)> + '_ {
        self.members.iter().map(|(lease, member)| (*lease, member))
    }

    /// Position of the newest delivery.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// What a member has to take from a position on, which it has to have acknowledged up to.
    ///
    /// # Errors
    /// [`Refusal::Missing`] for somebody who is no member, perhaps since it was too slow; [`Refusal::Compacted`] for what it
    /// has acknowledged already.
    pub fn deliveries(
        &self,
        lease: LeaseId,
        from: u64,
    ) -> Result<impl Iterator<Item = &Delivery> + '_, Refusal> {
        let member =
            self.members.get(&lease).ok_or_else(|| Refusal::missing(Thing::Lease, lease))?;
        let from = from.max(member.joined);
        let first = self.stream.front().map_or(self.last + 1, |delivery| delivery.position);
        if from < first {
            return Err(Refusal::Compacted { given: from, oldest: first - 1 });
        }
        let skip = usize::try_from(from - first).unwrap_or(usize::MAX);
        Ok(self.stream.iter().skip(skip))
    }

    fn deliver(&mut self, content: Content) -> u64 {
        self.last += 1;
        self.bytes += content.bytes();
        self.stream.push_back(Delivery { position: self.last, content });
        self.last
    }

    fn change_view(&mut self, tickets: &mut Tickets) -> u64 {
        let members = self.members.iter().map(|(lease, member)| (*lease, member.name.clone()));
        let members = members.collect();
        self.deliver(Content::View { number: tickets.draw(), members })
    }

    fn remove(&mut self, tickets: &mut Tickets, lease: LeaseId) -> bool {
        if self.members.remove(&lease).is_none() {
            return false;
        }
        if !self.members.is_empty() {
            self.change_view(tickets);
        }
        self.trim(tickets);
        true
    }

    /// Drops what every member has taken. A member for which too much would have to be kept leaves: nobody else can be held up
    /// by it, and nothing can be left out for it.
    fn trim(&mut self, tickets: &mut Tickets) {
        loop {
            let taken = self.members.values().map(|member| member.taken).min().unwrap_or(self.last);
            while self.stream.front().is_some_and(|delivery| delivery.position <= taken) {
                let dropped =
                    self.stream.pop_front().map_or(0, |delivery| delivery.content.bytes());
                self.bytes -= dropped;
            }
            if self.stream.len() <= BACKLOG_MAX && self.bytes <= BACKLOG_BYTES_MAX {
                return;
            }
            // The slowest have the same position; all of them go in one view.
            self.members.retain(|_, member| member.taken > taken);
            if !self.members.is_empty() {
                self.change_view(tickets);
            }
        }
    }
}

/// The groups that have members.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Groups {
    by_name: BTreeMap<String, Group>,
}

impl Groups {
    /// A group that has members.
    pub fn get(&self, name: &str) -> Option<&Group> {
        self.by_name.get(name)
    }

    /// All that have members, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Group)> + '_ {
        self.by_name.iter().map(|(name, group)| (name.as_str(), group))
    }

    /// Gives the position of the view that the member joined with; its stream begins there.
    pub(crate) fn join(
        &mut self,
        tickets: &mut Tickets,
        name: &str,
        lease: LeaseId,
        member: &str,
    ) -> Result<u64, Refusal> {
        crate::check_name("a group", name)?;
        crate::check_name("a member of a group", member)?;
        match self.by_name.get(name) {
            None if self.by_name.len() >= GROUPS_MAX => {
                return Err(Refusal::limit("the number of groups", GROUPS_MAX));
            }
            Some(group) => {
                if let Some(member) = group.members.get(&lease) {
                    return Ok(member.joined);
                }
                if group.members.len() >= MEMBERS_MAX {
                    return Err(Refusal::limit(format!("members of group {name}"), MEMBERS_MAX));
                }
            }
            None => {}
        }
        let group = self.by_name.entry(name.to_owned()).or_default();
        let joined = group.last + 1;
        let member = Member { name: member.to_owned(), joined, sent: 0, taken: group.last };
        group.members.insert(lease, member);
        group.change_view(tickets);
        group.trim(tickets);
        Ok(joined)
    }

    /// Says whether the lease was a member.
    pub(crate) fn leave(&mut self, tickets: &mut Tickets, name: &str, lease: LeaseId) -> bool {
        let Some(group) = self.by_name.get_mut(name) else { return false };
        let was_in = group.remove(tickets, lease);
        self.forget_empty(name);
        was_in
    }

    /// Gives the position of the message, or `None` for one that has been ordered before.
    pub(crate) fn multicast(
        &mut self,
        tickets: &mut Tickets,
        name: &str,
        lease: LeaseId,
        number: u64,
        payload: &[u8],
    ) -> Result<Option<u64>, Refusal> {
        if payload.len() > MESSAGE_BYTES_MAX {
            return Err(Refusal::limit("bytes of a message to a group", MESSAGE_BYTES_MAX));
        }
        let (group, sent) = self.of_member(name, lease)?;
        if number <= sent {
            return Ok(None);
        }
        if number != sent + 1 {
            let (what, name) = (Thing::Group, name.to_owned());
            return Err(Refusal::Stale { what, name, current: sent, given: number });
        }
        if let Some(member) = group.members.get_mut(&lease) {
            member.sent = number;
        }
        let message = Content::Message { sender: lease, number, payload: payload.to_owned() };
        let position = group.deliver(message);
        group.trim(tickets);
        self.forget_empty(name);
        Ok(Some(position))
    }

    pub(crate) fn acknowledge(
        &mut self,
        tickets: &mut Tickets,
        name: &str,
        lease: LeaseId,
        up_to: u64,
    ) -> Result<(), Refusal> {
        let (group, _) = self.of_member(name, lease)?;
        if up_to > group.last {
            return Err(Refusal::Invalid(format!(
                "group {name} has delivered up to {}, and {up_to} cannot be acknowledged",
                group.last
            )));
        }
        if let Some(member) = group.members.get_mut(&lease) {
            member.taken = member.taken.max(up_to);
        }
        group.trim(tickets);
        Ok(())
    }

    pub(crate) fn end_lease(&mut self, tickets: &mut Tickets, lease: LeaseId) {
        self.by_name.retain(|_, group| {
            group.remove(tickets, lease);
            !group.members.is_empty()
        });
    }

    /// The group, and how many messages the member has sent to it.
    fn of_member(&mut self, name: &str, lease: LeaseId) -> Result<(&mut Group, u64), Refusal> {
        let group =
            self.by_name.get_mut(name).ok_or_else(|| Refusal::missing(Thing::Group, name))?;
        match group.members.get(&lease) {
            Some(member) => {
                let sent = member.sent;
                Ok((group, sent))
            }
            None => Err(Refusal::Invalid(format!(
                "lease {lease} is no member of group {name}; join it, and begin with its stream anew"
            ))),
        }
    }

    fn forget_empty(&mut self, name: &str) {
        if self.by_name.get(name).is_some_and(|group| group.members.is_empty()) {
            self.by_name.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_message_is_seen_by_those_in_its_view_only() {
        let (mut groups, mut tickets) = (Groups::default(), Tickets::default());
        let [a, b] = [LeaseId(101), LeaseId(102)];
        let first = groups.join(&mut tickets, "g", a, "a").unwrap();
        groups.multicast(&mut tickets, "g", a, 1, b"early").unwrap();
        let second = groups.join(&mut tickets, "g", b, "b").unwrap();
        groups.multicast(&mut tickets, "g", a, 2, b"late").unwrap();
        let group = groups.get("g").unwrap();
        assert_eq!(group.deliveries(a, first).unwrap().count(), 4);
        let seen: Vec<_> = group.deliveries(b, 0).unwrap().map(|d| d.position).collect();
        assert_eq!(seen, [second, second + 1]);
    }

    #[test]
    fn a_message_sent_again_is_ordered_once_and_none_can_be_skipped() {
        let (mut groups, mut tickets) = (Groups::default(), Tickets::default());
        let a = LeaseId(101);
        groups.join(&mut tickets, "g", a, "a").unwrap();
        let sent = groups.multicast(&mut tickets, "g", a, 1, b"x").unwrap();
        assert_eq!(sent, Some(2));
        assert_eq!(groups.multicast(&mut tickets, "g", a, 1, b"x").unwrap(), None);
        assert!(groups.multicast(&mut tickets, "g", a, 3, b"x").is_err());
        assert!(groups.multicast(&mut tickets, "g", LeaseId(7), 1, b"x").is_err());
        assert_eq!(groups.get("g").unwrap().last(), 2);
    }

    #[test]
    fn a_member_that_is_too_slow_leaves_and_the_others_see_so() {
        let (mut groups, mut tickets) = (Groups::default(), Tickets::default());
        let [quick, slow] = [LeaseId(101), LeaseId(102)];
        groups.join(&mut tickets, "g", quick, "quick").unwrap();
        groups.join(&mut tickets, "g", slow, "slow").unwrap();
        for number in 1..=BACKLOG_MAX as u64 {
            let position =
                groups.multicast(&mut tickets, "g", quick, number, b"x").unwrap().unwrap();
            groups.acknowledge(&mut tickets, "g", quick, position).unwrap();
        }
        let group = groups.get("g").unwrap();
        assert_eq!(group.members().map(|(lease, _)| lease).collect::<Vec<_>>(), [quick]);
        assert!(matches!(group.deliveries(slow, 0), Err(Refusal::Missing { .. })));
        let view = group.deliveries(quick, group.last()).unwrap().next().unwrap().clone();
        assert!(matches!(view.content, Content::View { members, .. } if members.len() == 1));
    }

    #[test]
    fn what_has_been_acknowledged_is_dropped_and_asking_for_it_says_so() {
        let (mut groups, mut tickets) = (Groups::default(), Tickets::default());
        let a = LeaseId(101);
        let joined = groups.join(&mut tickets, "g", a, "a").unwrap();
        let at = groups.multicast(&mut tickets, "g", a, 1, b"x").unwrap().unwrap();
        groups.acknowledge(&mut tickets, "g", a, at).unwrap();
        let group = groups.get("g").unwrap();
        let error = group.deliveries(a, joined).err().unwrap();
        assert_eq!(error, Refusal::Compacted { given: joined, oldest: at });
        assert_eq!(group.deliveries(a, at + 1).unwrap().count(), 0);
        assert_eq!(group.bytes, 0);
        assert!(groups.acknowledge(&mut tickets, "g", a, at + 1).is_err());
    }

    proptest! {
        /// Members read and acknowledge when they like. Each sees, without a gap, a part of one and the same order, and in
        /// it every message only while the newest view has it as a member.
        #[test]
        fn all_members_see_one_order(
            steps in prop::collection::vec((0u8..4, 0u64..4), 1..120),
        ) {
            let (mut groups, mut tickets) = (Groups::default(), Tickets::default());
            let mut order: BTreeMap<u64, Content> = BTreeMap::new();
            let mut next: BTreeMap<LeaseId, u64> = BTreeMap::new();
            let mut sent: BTreeMap<LeaseId, u64> = BTreeMap::new();
            for (action, who) in steps {
                let lease = LeaseId(who);
                match action {
                    0 => {
                        let at = groups.join(&mut tickets, "g", lease, "m").unwrap();
                        next.entry(lease).or_insert_with(|| { sent.insert(lease, 0); at });
                    }
                    1 if next.remove(&lease).is_some() => {
                        prop_assert!(groups.leave(&mut tickets, "g", lease));
                        if next.is_empty() {
                            order.clear();
                        }
                    }
                    2 if next.contains_key(&lease) => {
                        let number = sent[&lease] + 1;
                        groups.multicast(&mut tickets, "g", lease, number, &[action]).unwrap();
                        sent.insert(lease, number);
                    }
                    3 if next.contains_key(&lease) => {
                        let from = next[&lease];
                        let group = groups.get("g").unwrap();
                        let mut view: Option<Vec<LeaseId>> = None;
                        let mut expected = from;
                        for delivery in group.deliveries(lease, from).unwrap() {
                            prop_assert_eq!(delivery.position, expected);
                            expected += 1;
                            let known = order.entry(delivery.position)
                                .or_insert_with(|| delivery.content.clone());
                            prop_assert_eq!(&*known, &delivery.content);
                            if let Content::View { members, .. } = &delivery.content {
                                view = Some(members.iter().map(|(lease, _)| *lease).collect());
                            }
                            prop_assert!(view.as_ref().is_none_or(|view| view.contains(&lease)));
                        }
                        prop_assert_eq!(expected, group.last() + 1);
                        groups.acknowledge(&mut tickets, "g", lease, expected - 1).unwrap();
                        next.insert(lease, expected);
                    }
                    _ => {}
                }
            }
        }
    }
}
