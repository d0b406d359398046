// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a replica has in mind as long as it is the primary.

use super::feeding::Peer;
use super::lineup::{Life, Lineup, Member, ReplicaId, Standing};
use super::message::{Change, Feed, Request, RequestId};
use super::regions::Regions;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Feeds of one term; beyond them, replicas would have to be greeted thousands of times a second for hours.
const FEED_BITS: u32 = 24;

/// A change or flush that is not done here yet, since not all in step have done it.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) number: u64,
    pub(super) request: RequestId,
    pub(super) work: Work,
}

#[derive(Clone, Debug)]
pub(super) enum Work {
    Change(Change),
    Flush,
}

#[derive(Debug)]
pub(super) struct Primary {
    pub(super) term: u64,
    /// The number of the next change or flush.
    next: u64,
    pub(super) pending: VecDeque<Pending>,
    /// Requests that cannot be begun, in their order.
    pub(super) waiting: VecDeque<(RequestId, Request)>,
    pub(super) peers: BTreeMap<ReplicaId, Peer>,
    /// Who is to be in step in the next line-up: nothing more is committed without them, but they may lack what was.
    awaited: BTreeSet<ReplicaId>,
    /// Who was proposed to be in step in the next line-up, and may be by now.
    pub(super) proposed: BTreeSet<ReplicaId>,
    /// When all leave to answer readers has ended that was given to others.
    pub(super) free_at: Duration,
    pub(super) is_serving: bool,
    feeds: u64,
    /// A region that has to be left alone, so that it can be copied or compared.
    pub(super) hold: Option<u32>,
    pub(super) next_proposal: Duration,
    pub(super) next_beat: Duration,
}

impl Primary {
    pub(super) fn new(term: u64, free_at: Duration) -> Self {
        Self {
            term,
            next: 1,
            pending: VecDeque::new(),
            waiting: VecDeque::new(),
            peers: BTreeMap::new(),
            awaited: BTreeSet::new(),
            proposed: BTreeSet::new(),
            free_at,
            is_serving: false,
            feeds: 0,
            hold: None,
            next_proposal: Duration::ZERO,
            next_beat: Duration::ZERO,
        }
    }

    /// What marks its own changes: lower than its feeds.
    pub(super) fn own_feed(&self) -> Feed {
        Feed(self.term << FEED_BITS)
    }

    fn new_feed(&mut self) -> Feed {
        self.feeds += 1;
        Feed((self.term << FEED_BITS) + self.feeds)
    }

    /// Takes up a line-up in which it goes on as the primary, or becomes it. Those that it has to greet are the
    /// result.
    pub(super) fn follow(
        &mut self,
        now: Duration,
        me: ReplicaId,
        before: &Lineup,
        lineup: &Lineup,
    ) -> Vec<ReplicaId> {
        self.awaited.clear();
        self.proposed.clear();
        self.next_proposal = now;
        let stays = |peer: &Peer| {
            let standing = lineup.standing(peer.id, peer.life);
            let fell = before.standing(peer.id, peer.life) == Some(Standing::InStep)
                && standing == Some(Standing::Behind);
            standing.is_some() && !fell
        };
        self.peers.retain(|_, peer| stays(peer));
        let mut new = Vec::new();
        for (&id, &Member { life, .. }) in &lineup.members {
            if id != me && life != Life(0) && !self.peers.contains_key(&id) {
                let feed = self.new_feed();
                self.peers.insert(id, Peer::new(id, life, feed, now));
                new.push(id);
            }
        }
        new
    }

    /// Those without whom nothing is committed.
    pub(super) fn required<'a>(&'a self, lineup: &'a Lineup) -> impl Iterator<Item = &'a Peer> {
        let is_in_step =
            |peer: &Peer| lineup.standing(peer.id, peer.life) == Some(Standing::InStep);
        let is_to_be =
            |peer: &Peer| self.awaited.contains(&peer.id) || self.proposed.contains(&peer.id);
        self.peers.values().filter(move |peer| is_in_step(peer) || is_to_be(peer))
    }

    /// Begins to wait for those that have been given everything, and ends it for those that are silent.
    pub(super) fn await_complete(&mut self, now: Duration, patience: Duration) {
        for peer in self.peers.values() {
            if self.is_serving && peer.is_complete() && now < peer.heard + patience {
                self.awaited.insert(peer.id);
            } else {
                self.awaited.remove(&peer.id);
            }
        }
    }

    /// Numbers a change or flush and gives it to all others.
    pub(super) fn begin(&mut self, request: RequestId, work: Work) {
        let number = self.next;
        self.next += 1;
        for peer in self.peers.values_mut().filter(|peer| peer.is_greeted()) {
            push(peer, number, &work);
        }
        self.pending.push_back(Pending { number, request, work });
    }

    /// Begins to feed a replica: with what is not done here, which no copy of blocks could have.
    pub(super) fn feed_pending(&mut self, id: ReplicaId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        for pending in &self.pending {
            push(peer, pending.number, &pending.work);
        }
    }

    /// The number of the first that is not done here.
    pub(super) fn first_pending(&self) -> u64 {
        self.pending.front().map_or(self.next, |pending| pending.number)
    }

    /// Whether no change of a region is on its way.
    pub(super) fn is_idle(pending: &VecDeque<Pending>, regions: &Regions, region: u32) -> bool {
        let changes = |pending: &Pending| match &pending.work {
            Work::Change(change) => {
                let (position, bytes) = change.range();
                regions.touched(position, bytes).contains(&region)
            }
            Work::Flush => false,
        };
        !pending.iter().any(changes)
    }

    /// The members that it wants in the next line-up: those that do not answer are behind, and those that it awaits are in
    /// step as soon as they have all that was committed without them.
    pub(super) fn wanted(
        &self,
        now: Duration,
        patience: Duration,
        lineup: &Lineup,
    ) -> BTreeMap<ReplicaId, Member> {
        let mut members = lineup.members.clone();
        let committed = self.first_pending() - 1;
        for (id, member) in &mut members {
            let Some(peer) = self.peers.get(id) else { continue };
            let is_silent = now >= peer.heard + patience;
            match member.standing {
                Standing::InStep if is_silent || member.is_gone => {
                    *member = Member::new(member.life, Standing::Behind);
                }
                Standing::Behind if self.awaited.contains(id) && peer.has_done(committed) => {
                    *member = Member::new(member.life, Standing::InStep);
                }
                _ => {}
            }
        }
        members
    }
}

fn push(peer: &mut Peer, number: u64, work: &Work) {
    match work {
        Work::Change(change) => peer.push_change(number, change),
        Work::Flush => peer.push_flush(number),
    }
}
