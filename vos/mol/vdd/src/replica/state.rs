// SPDX-License-Identifier: MIT OR Apache-2.0
//! One replica: what it is told, and what it does.

use super::feeding::{Found, Peer};
use super::lineup::{Life, Lineup, ReplicaId, Standing};
use super::message::{Action, Change, Feed, Input, Item, Message, Notice, Refusal, Request};
use super::primary::{Primary, Work};
use super::record::{Boot, Record};
use super::regions::{RegionSet, Regions};
use core::time::Duration;
use std::collections::BTreeMap;

/// How a device is replicated. All its replicas have the same.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The device in regions.
    pub regions: Regions,
    /// How often the primary beats.
    pub beat: Duration,
    /// How long after a beat its primary may answer readers.
    pub lease: Duration,
    /// After how long without an answer the primary wants to go on without a replica.
    pub patience: Duration,
    /// After how long without an answer it sends again.
    pub resend: Duration,
    /// How many items are under way to one replica at most.
    pub window: u64,
    /// How many bytes of blocks are under way to one replica at most; one item with more goes alone.
    pub window_bytes: u64,
    /// How many more items may wait to be sent to one that is behind. Beyond them it gets blocks instead.
    pub backlog: u64,
    /// How many bytes of blocks these may have.
    pub backlog_bytes: u64,
    /// How many regions the record may have that are settled, above as many as are not. It is written anew beyond them: with fewer
    /// it would be after each flush, with more a replica that comes back gets more than it lacks.
    pub slack: u32,
}

impl Settings {
    /// For a device of so many bytes on nodes of one network.
    pub fn of(device_bytes: u64) -> Self {
        Self {
            regions: Regions::of(device_bytes),
            beat: Duration::from_millis(50),
            lease: Duration::from_millis(400),
            // One whose server or node is gone is not waited for so long: this is for one that is slow, on a busy host.
            patience: Duration::from_millis(2400),
            resend: Duration::from_millis(150),
            window: 64,
            window_bytes: 4 << 20,
            backlog: 256,
            backlog_bytes: 8 << 20,
            slack: 64,
        }
    }

    /// How long leave is taken to last by who has given it: its clock may run faster than the other's.
    fn lease_given(&self) -> Duration {
        self.lease + self.lease / 8
    }
}

/// When a change was done here: by which feed, as its how manieth.
type Stamp = (Feed, u64);

/// A replica of a device.
#[derive(Debug)]
pub struct Replica {
    id: ReplicaId,
    life: Life,
    settings: Settings,
    boot: Boot,
    lineup: Lineup,
    /// The latest epoch that it has heard of.
    fence: u64,
    /// What is kept.
    record: Record,
    in_step: u64,
    base: u64,
    /// The unsettled regions, and when they were last written. What is kept has these, and may have more.
    unsettled: BTreeMap<u32, Stamp>,
    /// All changes up to this one are at all that were in step.
    committed: Stamp,
    fed: Fed,
    /// Until when a primary may answer readers by leave of this replica.
    leave_until: Duration,
    primary: Option<Primary>,
}

/// What a primary has sent here.
#[derive(Clone, Copy, Debug)]
struct Fed {
    from: (ReplicaId, Life),
    feed: Feed,
    done: u64,
    verdict: Option<(u64, bool)>,
}

impl Replica {
    /// A life of a replica begins, with what an earlier one has kept, or nothing, in this run of its machine. It
    /// is no member of a line-up until it is told so.
    pub fn new(
        (id, life): (ReplicaId, Life),
        settings: Settings,
        record: Record,
        boot: Boot,
        now: Duration,
    ) -> Self {
        let before = Lineup { epoch: 0, term: 0, primary: id, members: BTreeMap::new() };
        let stamp = Stamp::default();
        Self {
            id,
            life,
            settings,
            boot,
            lineup: before,
            fence: 0,
            in_step: record.in_step,
            base: record.base,
            unsettled: record.unsettled.iter().map(|region| (region, stamp)).collect(),
            record,
            committed: stamp,
            fed: Fed { from: (id, life), feed: Feed::default(), done: 0, verdict: None },
            // A life before this one may have given leave.
            leave_until: now + settings.lease_given(),
            primary: None,
        }
    }

    /// The latest line-up that it was told; of epoch 0 if none was.
    pub fn lineup(&self) -> &Lineup {
        &self.lineup
    }

    /// Which run of its server it is of.
    pub fn life(&self) -> Life {
        self.life
    }

    /// Whether it takes what clients ask. It may have to wait before it answers.
    pub fn is_primary(&self) -> bool {
        self.primary.is_some()
    }

    /// Whether it answers clients.
    pub fn is_serving(&self) -> bool {
        self.primary.as_ref().is_some_and(|primary| primary.is_serving)
            && self.fence <= self.lineup.epoch
    }

    /// How many replicas are in step, with this one, as far as it knows.
    pub fn in_step_count(&self) -> usize {
        self.lineup.in_step().count()
    }

    /// How many regions may differ between replicas, or have writes that are not stable.
    pub fn unsettled_count(&self) -> usize {
        self.unsettled.len()
    }

    /// Takes what happened, and says what is to be done. `now` is of a clock that never goes back.
    pub fn handle(&mut self, now: Duration, input: Input) -> Vec<Action> {
        let mut out = Vec::new();
        match input {
            Input::Lineup(lineup) => self.take_lineup(now, lineup, &mut out),
            Input::Message(from, life, message) => {
                self.take_message(now, (from, life), message, &mut out)
            }
            Input::Request(id, request) => match &mut self.primary {
                Some(primary) => primary.waiting.push_back((id, request)),
                None => out.push(Action::Answer(id, Err(Refusal::NotPrimary))),
            },
            Input::Compared { feed, sequence, is_same } => {
                if self.fed.feed == feed && self.fed.done + 1 == sequence {
                    self.fed.done = sequence;
                    self.fed.verdict = Some((sequence, is_same));
                    out.push(self.how_far());
                }
            }
            Input::Scrub => self.scrub(),
            Input::Tick => self.tick(now, &mut out),
        }
        self.go_on(now, &mut out);
        out
    }

    fn take_lineup(&mut self, now: Duration, lineup: Lineup, out: &mut Vec<Action>) {
        if lineup.epoch <= self.lineup.epoch {
            return;
        }
        let before = core::mem::replace(&mut self.lineup, lineup);
        self.fence = self.fence.max(self.lineup.epoch);
        if self.lineup.standing(self.id, self.life) == Some(Standing::InStep) {
            // The first line-up finds nothing that could differ.
            self.base = self.base.max(u64::from(self.lineup.epoch == 1));
            self.in_step = self.lineup.epoch;
            self.keep(out);
        }
        let is_primary = self.lineup.is_primary(self.id, self.life);
        if let Some(primary) =
            self.primary.take_if(|old| !is_primary || old.term != self.lineup.term)
        {
            let in_doubt = |request| Action::Answer(request, Err(Refusal::InDoubt));
            out.extend(primary.pending.iter().map(|pending| in_doubt(pending.request)));
            let refused = |request| Action::Answer(request, Err(Refusal::NotPrimary));
            out.extend(primary.waiting.iter().map(|&(request, _)| refused(request)));
        }
        if is_primary {
            let fresh = || Primary::new(self.lineup.term, self.leave_until);
            let primary = self.primary.get_or_insert_with(fresh);
            for id in primary.follow(now, self.id, &before, &self.lineup) {
                out.push(primary.peers[&id].greeting(self.lineup.epoch));
            }
        }
    }

    fn take_message(
        &mut self,
        now: Duration,
        from: (ReplicaId, Life),
        message: Message,
        out: &mut Vec<Action>,
    ) {
        match message {
            Message::Greet { epoch, feed } => {
                if self.accepts(from, epoch, out) && feed >= self.fed.feed {
                    if feed > self.fed.feed {
                        self.fed = Fed { from, feed, done: 0, verdict: None };
                    }
                    let unsettled = self.unsettled.keys().copied().collect();
                    let (in_step, uncommitted) = (self.in_step, self.uncommitted());
                    let greeting = Message::Greeting { feed, in_step, unsettled, uncommitted };
                    out.push(Action::Send(from.0, from.1, greeting));
                }
            }
            Message::Feed { epoch, feed, sequence, item } => {
                if self.accepts(from, epoch, out) && feed == self.fed.feed {
                    if sequence == self.fed.done + 1 {
                        if !self.take_item(epoch, sequence, item, out) {
                            return;
                        }
                        self.fed.done = sequence;
                    }
                    out.push(self.how_far());
                }
            }
            Message::Beat { epoch, feed, beat, committed, settled, base } => {
                if self.accepts(from, epoch, out) && feed == self.fed.feed {
                    self.leave_until = self.leave_until.max(now + self.settings.lease_given());
                    if let Some(committed) = committed {
                        self.committed = self.committed.max((feed, committed));
                    }
                    if settled > 0 {
                        self.unsettled.retain(|_, stamp| *stamp > (feed, settled));
                        self.base = base;
                        self.keep_fewer(out);
                    }
                    let pulse = Message::Pulse { feed, beat, in_step: self.in_step };
                    out.push(Action::Send(from.0, from.1, pulse));
                }
            }
            Message::Greeting { feed, in_step, unsettled, uncommitted } => {
                let count = self.settings.regions.count();
                if unsettled.iter().chain(uncommitted.iter()).any(|region| region >= count) {
                    // It is of a device of another size, or no replica at all.
                    return;
                }
                if let Some(peer) = self.peer(from, feed, now) {
                    peer.in_step = in_step;
                    if !peer.is_greeted() {
                        self.begin_feed(from, in_step, unsettled, uncommitted, out);
                    }
                }
            }
            Message::Fed { feed, sequence, verdict } => {
                let Some(peer) = self.peer(from, feed, now) else { return };
                let (replica, found) = (peer.id, peer.take_fed(now, sequence, verdict));
                out.extend(match found {
                    Found::Nothing => None,
                    Found::Whole => Some(Action::Tell(Notice::Filled { replica })),
                    Found::Finished => Some(Action::Tell(Notice::Compared { replica })),
                    Found::Different(region) => {
                        let (position, bytes) = self.settings.regions.range(region);
                        Some(Action::Tell(Notice::Differs { replica, position, bytes }))
                    }
                });
            }
            Message::Pulse { feed, beat, in_step } => {
                if let Some(peer) = self.peer(from, feed, now) {
                    peer.in_step = in_step;
                    peer.take_pulse(beat);
                }
            }
            Message::Fenced { epoch } => self.fence = self.fence.max(epoch),
        }
    }

    /// Whether a message of a primary is of one that may say it, now.
    fn accepts(&mut self, from: (ReplicaId, Life), epoch: u64, out: &mut Vec<Action>) -> bool {
        if epoch < self.fence {
            out.push(Action::Send(from.0, from.1, Message::Fenced { epoch: self.fence }));
            return false;
        }
        self.fence = epoch;
        // Who does not know yet that it is not the primary any more does not become a backup by hearsay.
        self.primary.is_none()
            && (epoch > self.lineup.epoch || self.lineup.is_primary(from.0, from.1))
    }

    fn uncommitted(&self) -> RegionSet {
        let is_open = |(_, stamp): &(&u32, &Stamp)| **stamp > self.committed;
        self.unsettled.iter().filter(is_open).map(|(&region, _)| region).collect()
    }

    fn how_far(&self) -> Action {
        let Fed { from: (id, life), feed, done, verdict } = self.fed;
        Action::Send(id, life, Message::Fed { feed, sequence: done, verdict })
    }

    /// Does the next item. False if it is not done until somebody says so.
    fn take_item(&mut self, epoch: u64, sequence: u64, item: Item, out: &mut Vec<Action>) -> bool {
        match item {
            Item::Change(change) => self.change(change, (self.fed.feed, sequence), out),
            Item::Flush => out.push(Action::Flush),
            Item::Complete { base } => {
                out.push(Action::Flush);
                self.in_step = self.in_step.max(epoch);
                self.base = base;
                self.keep(out);
            }
            Item::Compare { position, bytes, sum } => {
                let feed = self.fed.feed;
                out.push(Action::Compare { feed, sequence, position, bytes, sum });
                return false;
            }
            Item::Skip => {}
        }
        true
    }

    /// Does a change, after its regions are kept as unsettled.
    fn change(&mut self, change: Change, stamp: Stamp, out: &mut Vec<Action>) {
        let (position, bytes) = change.range();
        let mut is_kept = true;
        for region in self.settings.regions.touched(position, bytes) {
            self.unsettled.insert(region, stamp);
            is_kept &= self.record.unsettled.contains(region);
        }
        if !is_kept {
            self.keep(out);
        }
        out.push(Action::Change(change));
    }

    fn keep(&mut self, out: &mut Vec<Action>) {
        let unsettled = self.unsettled.keys().copied().collect();
        let rises = self.in_step > self.record.in_step;
        let boot = if rises { self.boot } else { self.record.boot };
        let record = Record { in_step: self.in_step, boot, base: self.base, unsettled };
        if record != self.record {
            self.record = record.clone();
            out.push(Action::Keep(record));
        }
    }

    /// Keeps a record with fewer regions, if many of those that it has are settled by now.
    fn keep_fewer(&mut self, out: &mut Vec<Action>) {
        let needed = self.unsettled.len() as u64;
        if u64::from(self.record.unsettled.len()) > 2 * needed + u64::from(self.settings.slack) {
            self.keep(out);
        }
    }

    /// The replica that this primary knows as the sender, by the feed that is now.
    fn peer(&mut self, from: (ReplicaId, Life), feed: Feed, now: Duration) -> Option<&mut Peer> {
        let peer = self.primary.as_mut()?.peers.get_mut(&from.0)?;
        if peer.life != from.1 || peer.feed() != feed {
            return None;
        }
        peer.heard = now;
        Some(peer)
    }

    /// A replica has answered the greeting: finds out what it lacks, and begins to feed it.
    fn begin_feed(
        &mut self,
        from: (ReplicaId, Life),
        in_step: u64,
        unsettled: RegionSet,
        uncommitted: RegionSet,
        out: &mut Vec<Action>,
    ) {
        let is_behind = self.lineup.standing(from.0, from.1) != Some(Standing::InStep);
        let lacks = match is_behind {
            false => {
                let mut open = self.uncommitted();
                open.extend(uncommitted.iter());
                open
            }
            _ if in_step > 0 && in_step >= self.base => {
                let mut differing: RegionSet = self.unsettled.keys().copied().collect();
                differing.extend(unsettled.iter());
                differing
            }
            _ => self.settings.regions.all(),
        };
        let Some(primary) = &mut self.primary else { return };
        primary.feed_pending(from.0);
        let Some(peer) = primary.peers.get_mut(&from.0) else { return };
        if !lacks.is_empty() {
            out.push(Action::Tell(Notice::Filling { replica: from.0, regions: lacks.len() }));
        }
        peer.begin(lacks, is_behind);
    }

    fn scrub(&mut self) {
        let Some(primary) = &mut self.primary else { return };
        let lineup = &self.lineup;
        let is_in_step =
            |peer: &&mut Peer| lineup.standing(peer.id, peer.life) == Some(Standing::InStep);
        for peer in primary.peers.values_mut().filter(is_in_step) {
            peer.compare(self.settings.regions.all());
        }
    }

    fn tick(&mut self, now: Duration, out: &mut Vec<Action>) {
        let (epoch, settings) = (self.lineup.epoch, self.settings);
        let Some(primary) = &mut self.primary else { return };
        let beats = now >= primary.next_beat;
        if beats {
            primary.next_beat = now + settings.beat;
        }
        let serves = primary.is_serving;
        for peer in primary.peers.values_mut() {
            peer.send_again(now, epoch, &settings, out);
            if beats {
                let is_in_step = self.lineup.standing(peer.id, peer.life) == Some(Standing::InStep);
                out.push(peer.next_beat(now, epoch, self.base, serves && is_in_step));
            }
        }
        primary.await_complete(now, settings.patience);
        let members = primary.wanted(now, settings.patience, &self.lineup);
        // Whether an earlier proposal was taken is not known before there is a later line-up.
        let is_stuck =
            |id| primary.peers.get(id).is_some_and(|peer| now >= peer.heard + settings.patience);
        let wants = members != self.lineup.members || primary.proposed.iter().any(is_stuck);
        if now >= primary.next_proposal && wants {
            primary.next_proposal = now + settings.beat * 4;
            let behind = |id| {
                self.lineup
                    .members
                    .get(id)
                    .is_some_and(|member| member.standing == Standing::Behind)
            };
            let risen = members
                .iter()
                .filter(|(id, member)| member.standing == Standing::InStep && behind(id));
            primary.proposed.extend(risen.map(|(&id, _)| id));
            out.push(Action::Propose(self.lineup.with_members(members)));
        }
    }

    /// Does whatever can be done by now.
    fn go_on(&mut self, now: Duration, out: &mut Vec<Action>) {
        if self.fence > self.lineup.epoch {
            return;
        }
        self.serve_if_ready(now, out);
        while self.commit(out) | self.admit(now, out) {}
        let (epoch, base, settings) = (self.lineup.epoch, self.base, self.settings);
        let Some(primary) = &mut self.primary else { return };
        primary.hold = None;
        let first_pending = primary.first_pending();
        let required: Vec<_> = primary.required(&self.lineup).map(|peer| peer.id).collect();
        for peer in primary.peers.values_mut() {
            let is_idle = |region| Primary::is_idle(&primary.pending, &settings.regions, region);
            if !required.contains(&peer.id) {
                peer.fold(&settings);
            }
            primary.hold = peer.fill(base, settings.window, is_idle).or(primary.hold);
            peer.send_new(now, epoch, &settings, out);
            peer.forget(first_pending);
        }
    }

    fn serve_if_ready(&mut self, now: Duration, out: &mut Vec<Action>) {
        let Some(primary) = self.primary.as_mut().filter(|primary| !primary.is_serving) else {
            return;
        };
        if now >= primary.free_at && primary.required(&self.lineup).all(Peer::is_filled) {
            primary.is_serving = true;
            out.push(Action::Tell(Notice::Serving { epoch: self.lineup.epoch }));
        }
    }

    /// Does here what all in step have done, and answers. Whether there was something.
    fn commit(&mut self, out: &mut Vec<Action>) -> bool {
        let mut has_done = false;
        while let Some(primary) = &mut self.primary {
            let Some(number) = primary.pending.front().map(|pending| pending.number) else { break };
            if !primary.required(&self.lineup).all(|peer| peer.has_done(number)) {
                break;
            }
            let Some(pending) = primary.pending.pop_front() else { break };
            let stamp = (primary.own_feed(), number);
            self.committed = self.committed.max(stamp);
            match pending.work {
                Work::Change(change) => self.change(change, stamp, out),
                Work::Flush => {
                    out.push(Action::Flush);
                    self.settle(stamp);
                    self.keep_fewer(out);
                }
            }
            out.push(Action::Answer(pending.request, Ok(())));
            has_done = true;
        }
        has_done
    }

    /// A flush is done everywhere: if nobody is behind, or was missing when it was agreed that nobody is, all before it is
    /// the same at all members, and safe.
    fn settle(&mut self, flush: Stamp) {
        let epoch = self.lineup.epoch;
        let Some(primary) = &mut self.primary else { return };
        let knows = |peer: &Peer| peer.in_step >= epoch;
        let others = self.lineup.members.len() - 1;
        let all_know = primary.peers.len() == others && primary.peers.values().all(knows);
        if !self.lineup.is_whole() || !all_know || self.in_step < epoch {
            return;
        }
        self.base = epoch;
        self.unsettled.retain(|_, stamp| *stamp > flush);
        for peer in primary.peers.values_mut() {
            peer.settle(flush.1);
        }
    }

    /// Begins requests that waited, in their order. Whether one was begun.
    fn admit(&mut self, now: Duration, out: &mut Vec<Action>) -> bool {
        let mut has_begun = false;
        while let Some(primary) = &mut self.primary {
            let Some((_, request)) = primary.waiting.front() else { break };
            let leave =
                primary.required(&self.lineup).map(|peer| peer.leave_until(self.settings.lease));
            let until = leave.min().unwrap_or(Duration::MAX);
            let may_begin = primary.is_serving
                && match request {
                    Request::Read { .. } => now < until,
                    Request::Change(change) => {
                        let (position, bytes) = change.range();
                        let touched = self.settings.regions.touched(position, bytes);
                        !primary.hold.is_some_and(|region| touched.contains(&region))
                    }
                    Request::Flush => true,
                };
            if !may_begin {
                break;
            }
            let Some((id, request)) = primary.waiting.pop_front() else { break };
            has_begun = true;
            match request {
                Request::Read { position, bytes } => {
                    out.push(Action::Read { request: id, position, bytes, until });
                }
                Request::Change(change) => primary.begin(id, Work::Change(change)),
                Request::Flush => primary.begin(id, Work::Flush),
            }
        }
        has_begun
    }
}
