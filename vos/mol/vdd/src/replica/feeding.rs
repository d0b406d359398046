// SPDX-License-Identifier: MIT OR Apache-2.0
//! The primary's side of one other replica: what it was sent, and what of it is done.

use super::lineup::{Life, ReplicaId};
use super::message::{Action, Change, Feed, Item, Message};
use super::regions::{RegionSet, Regions};
use super::state::Settings;
use core::time::Duration;
use std::collections::VecDeque;

/// Regions that are under way to one replica at most.
const COPIES_MAX: usize = 4;
/// Beats of which an answer still counts.
const BEATS_MAX: usize = 32;

/// What an item is, as far as it is known before it is sent.
#[derive(Clone, Debug)]
enum Kind {
    Change(Change),
    Flush,
    Complete {
        base: u64,
    },
    /// The blocks of a region as they are when it is sent. Whatever the feed has before is done at the
    /// primary then; what comes later in the feed may be in them, too.
    Copy(u32),
    /// Only the first time it is sent are its blocks those of this point of the feed.
    Compare(u32),
    Skip,
}

#[derive(Clone, Debug)]
struct Queued {
    sequence: u64,
    /// The number of the change or flush at the primary; copies and comparisons have none.
    number: Option<u64>,
    kind: Kind,
}

impl Queued {
    /// How many bytes of blocks go with it.
    fn bytes(&self, regions: &Regions) -> u64 {
        match &self.kind {
            Kind::Change(Change::Write { data, .. }) => data.len() as u64,
            Kind::Copy(region) => regions.range(*region).1,
            _ => 0,
        }
    }

    /// How many bytes of memory it takes to wait. Blocks of a copy are read when it is sent.
    fn held_bytes(&self) -> u64 {
        match &self.kind {
            Kind::Change(Change::Write { data, .. }) => data.len() as u64,
            _ => 0,
        }
    }
}

/// Another replica, as the primary knows it.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) id: ReplicaId,
    pub(super) life: Life,
    feed: Feed,
    is_greeted: bool,
    /// Those that are not done there, or not by all others that have to.
    items: VecDeque<Queued>,
    next: u64,
    sent: u64,
    done: u64,
    /// How many bytes of memory the items take that were not sent yet.
    held_bytes: u64,
    /// Regions that it lacks.
    todo: RegionSet,
    /// Regions whose blocks are to be compared.
    unsure: RegionSet,
    comparing: Option<(u64, u32)>,
    completion: Completion,
    /// The last item up to which everything is settled.
    settled: u64,
    /// Its [`Record::in_step`](super::record::Record::in_step).
    pub(super) in_step: u64,
    beat: u64,
    beats: VecDeque<(u64, Duration)>,
    leave_since: Option<Duration>,
    /// When it last answered.
    pub(super) heard: Duration,
    /// When it was last sent something for the first time, or got on.
    moved: Duration,
}

/// Whether it has been told that it has everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Completion {
    /// It was in step from the greeting on.
    Needless,
    Open,
    Asked(u64),
    Done,
}

/// What an answer to items brought to light.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Nothing,
    /// It has everything that it lacked.
    Whole,
    /// The region's blocks were others.
    Different(u32),
    /// The last region was compared, with whatever result.
    Finished,
}

impl Peer {
    pub(super) fn new(id: ReplicaId, life: Life, feed: Feed, now: Duration) -> Self {
        Self {
            id,
            life,
            feed,
            is_greeted: false,
            items: VecDeque::new(),
            next: 1,
            sent: 0,
            done: 0,
            held_bytes: 0,
            todo: RegionSet::default(),
            unsure: RegionSet::default(),
            comparing: None,
            completion: Completion::Open,
            settled: 0,
            in_step: 0,
            beat: 0,
            beats: VecDeque::new(),
            leave_since: None,
            heard: now,
            moved: now,
        }
    }

    pub(super) fn feed(&self) -> Feed {
        self.feed
    }

    pub(super) fn is_greeted(&self) -> bool {
        self.is_greeted
    }

    /// It has answered the greeting, and lacks these regions. One that is behind is told when it has them.
    pub(super) fn begin(&mut self, todo: RegionSet, is_behind: bool) {
        self.is_greeted = true;
        self.todo = todo;
        self.completion = if is_behind { Completion::Open } else { Completion::Needless };
    }

    fn push(&mut self, number: Option<u64>, kind: Kind) {
        let item = Queued { sequence: self.next, number, kind };
        self.held_bytes += item.held_bytes();
        self.items.push_back(item);
        self.next += 1;
    }

    /// The next change at the primary.
    pub(super) fn push_change(&mut self, number: u64, change: &Change) {
        self.push(Some(number), Kind::Change(change.clone()));
    }

    /// The next flush at the primary.
    pub(super) fn push_flush(&mut self, number: u64) {
        self.push(Some(number), Kind::Flush);
    }

    /// Whether it has done what has this number at the primary, and all before.
    pub(super) fn has_done(&self, number: u64) -> bool {
        let is_open =
            |item: &Queued| item.sequence > self.done && item.number.is_some_and(|it| it <= number);
        self.is_greeted && !self.items.iter().any(is_open)
    }

    /// Whether it has the blocks that it lacked at the greeting.
    pub(super) fn is_filled(&self) -> bool {
        let is_copy =
            |item: &Queued| item.sequence > self.done && matches!(item.kind, Kind::Copy(_));
        self.is_greeted && self.todo.is_empty() && !self.items.iter().any(is_copy)
    }

    /// Whether it has said that it has everything, and that it is safe.
    pub(super) fn is_complete(&self) -> bool {
        self.completion == Completion::Done
    }

    /// Until when the primary may answer readers, as far as this replica is asked.
    pub(super) fn leave_until(&self, lease: Duration) -> Duration {
        self.leave_since.map_or(Duration::ZERO, |since| since + lease)
    }

    /// The flush with this number has made all settled that was before it.
    pub(super) fn settle(&mut self, number: u64) {
        let flush = self.items.iter().find(|item| item.number == Some(number));
        self.settled = flush.map_or(self.settled, |item| item.sequence);
    }

    /// Forgets items that are done by all who have to: what is numbered before `pending` is.
    pub(super) fn forget(&mut self, pending: u64) {
        while let Some(item) = self.items.front() {
            if item.sequence > self.done || item.number.is_some_and(|number| number >= pending) {
                break;
            }
            self.items.pop_front();
        }
    }

    /// The last item of which everything up to it is done by all.
    fn committed(&self) -> u64 {
        self.items.front().map_or(self.next, |item| item.sequence) - 1
    }

    /// It says how far it is.
    pub(super) fn take_fed(
        &mut self,
        now: Duration,
        done: u64,
        verdict: Option<(u64, bool)>,
    ) -> Found {
        // What was not sent cannot be done.
        if done > self.done && done <= self.sent {
            self.done = done;
            self.moved = now;
            if matches!(self.completion, Completion::Asked(sequence) if sequence <= done) {
                self.completion = Completion::Done;
                // Only one that was complete before is compared.
                return Found::Whole;
            }
        }
        let Some((sequence, region)) =
            self.comparing.filter(|&(sequence, _)| sequence <= self.done)
        else {
            return Found::Nothing;
        };
        self.comparing = None;
        match verdict {
            Some((of, is_same)) if of == sequence && !is_same => {
                self.todo.insert(region);
                Found::Different(region)
            }
            Some((of, _)) if of == sequence => match self.unsure.is_empty() {
                true => Found::Finished,
                false => Found::Nothing,
            },
            _ => {
                self.unsure.insert(region);
                Found::Nothing
            }
        }
    }

    /// It has answered a beat.
    pub(super) fn take_pulse(&mut self, beat: u64) {
        let sent = self.beats.iter().find(|&&(number, _)| number == beat).map(|&(_, sent)| sent);
        self.leave_since = self.leave_since.max(sent);
        self.beats.retain(|&(number, _)| number > beat);
    }

    /// Has all its blocks compared.
    pub(super) fn compare(&mut self, regions: RegionSet) {
        self.unsure = regions;
    }

    /// Puts copies and comparisons into the feed, as far as there is room for them. `is_idle` says of a
    /// region whether no change of it is on its way. The first region that has to wait for that is the result.
    pub(super) fn fill(
        &mut self,
        base: u64,
        window: u64,
        is_idle: impl Fn(u32) -> bool,
    ) -> Option<u32> {
        if !self.is_greeted {
            return None;
        }
        let is_copy =
            |item: &&Queued| item.sequence > self.done && matches!(item.kind, Kind::Copy(_));
        let mut room = COPIES_MAX.saturating_sub(self.items.iter().filter(is_copy).count());
        let mut busy = None;
        while room > 0 && !self.todo.is_empty() {
            let Some(region) = self.todo.iter().find(|&region| is_idle(region)) else {
                busy = self.todo.iter().next();
                break;
            };
            self.todo.remove(region);
            self.push(None, Kind::Copy(region));
            room -= 1;
        }
        // A comparison has to be sent at once.
        let is_all_sent = self.sent + 1 == self.next && self.next <= self.done + window;
        if self.comparing.is_none() && self.is_filled() && is_all_sent {
            let idle = self.unsure.iter().find(|&region| is_idle(region));
            match idle {
                Some(region) => {
                    self.unsure.remove(region);
                    self.comparing = Some((self.next, region));
                    self.push(None, Kind::Compare(region));
                }
                None => busy = busy.or(self.unsure.iter().next()),
            }
        }
        if self.completion == Completion::Open && self.is_filled() {
            self.completion = Completion::Asked(self.next);
            self.push(None, Kind::Complete { base });
        }
        busy
    }

    /// Lets a replica that nobody waits for get blocks in place of changes if those become too many: they would
    /// take memory without end if it is slower than the clients are.
    pub(super) fn fold(&mut self, settings: &Settings) {
        let regions = &settings.regions;
        let is_short = self.next - 1 - self.sent <= settings.backlog;
        if is_short && self.held_bytes <= settings.backlog_bytes {
            return;
        }
        while self.items.back().is_some_and(|item| item.sequence > self.sent) {
            match self.items.pop_back().map(|item| item.kind) {
                Some(Kind::Change(change)) => {
                    let (position, bytes) = change.range();
                    self.todo.extend(regions.touched(position, bytes));
                }
                Some(Kind::Copy(region)) => {
                    self.todo.insert(region);
                }
                // Only what is in step is compared, and a completion comes after the copies.
                _ => {}
            }
        }
        self.next = self.sent + 1;
        self.held_bytes = 0;
        self.comparing = None;
        self.completion = Completion::Open;
    }

    /// Sends what was not sent yet, as far as the window allows.
    pub(super) fn send_new(
        &mut self,
        now: Duration,
        epoch: u64,
        settings: &Settings,
        out: &mut Vec<Action>,
    ) {
        if !self.is_greeted {
            return;
        }
        let from = self.sent;
        let to = self.sendable(settings);
        if from >= to {
            return;
        }
        if self.sent == self.done {
            self.moved = now;
        }
        self.sent = to;
        let is_new = |item: &&Queued| (from + 1..=to).contains(&item.sequence);
        let items = self.items.iter().filter(is_new);
        out.extend(items.map(|item| self.action(epoch, &settings.regions, item)));
        self.held_bytes -= self.items.iter().filter(is_new).map(Queued::held_bytes).sum::<u64>();
    }

    /// The last item that the window has room for.
    fn sendable(&self, settings: &Settings) -> u64 {
        let most = (self.next - 1).min(self.done + settings.window);
        let mut bytes = 0;
        let mut last = self.sent;
        for item in self.items.iter().filter(|item| item.sequence > self.done) {
            let more = item.bytes(&settings.regions);
            let has_room = bytes == 0 || more == 0 || bytes + more <= settings.window_bytes;
            if item.sequence > most || item.sequence > self.sent && !has_room {
                break;
            }
            bytes += more;
            last = last.max(item.sequence);
        }
        last
    }

    /// Sends again what has not been answered for a while, and greets again who did not answer that.
    pub(super) fn send_again(
        &mut self,
        now: Duration,
        epoch: u64,
        settings: &Settings,
        out: &mut Vec<Action>,
    ) {
        if now < self.moved + settings.resend {
            return;
        }
        if !self.is_greeted {
            self.moved = now;
            out.push(self.greeting(epoch));
        } else if self.sent > self.done {
            self.moved = now;
            let is_late = |item: &&mut Queued| (self.done + 1..=self.sent).contains(&item.sequence);
            for item in self.items.iter_mut().filter(is_late) {
                if matches!(item.kind, Kind::Compare(_)) {
                    item.kind = Kind::Skip;
                }
            }
            let late = self
                .items
                .iter()
                .filter(|item| (self.done + 1..=self.sent).contains(&item.sequence));
            out.extend(late.map(|item| self.action(epoch, &settings.regions, item)));
        }
    }

    /// Greets it.
    pub(super) fn greeting(&self, epoch: u64) -> Action {
        Action::Send(self.id, self.life, Message::Greet { epoch, feed: self.feed })
    }

    /// Beats. Whether all in step have what was committed is to be said only if that is so.
    pub(super) fn next_beat(
        &mut self,
        now: Duration,
        epoch: u64,
        base: u64,
        says_committed: bool,
    ) -> Action {
        self.beat += 1;
        self.beats.push_back((self.beat, now));
        if self.beats.len() > BEATS_MAX {
            self.beats.pop_front();
        }
        let committed = (says_committed && self.is_greeted).then(|| self.committed());
        let (feed, beat, settled) = (self.feed, self.beat, self.settled);
        Action::Send(
            self.id,
            self.life,
            Message::Beat { epoch, feed, beat, committed, settled, base },
        )
    }

    fn action(&self, epoch: u64, regions: &Regions, queued: &Queued) -> Action {
        let (feed, sequence, to) = (self.feed, queued.sequence, (self.id, self.life));
        let item = match &queued.kind {
            Kind::Change(change) => Item::Change(change.clone()),
            Kind::Flush => Item::Flush,
            Kind::Complete { base } => Item::Complete { base: *base },
            Kind::Skip => Item::Skip,
            &Kind::Copy(region) => {
                let (position, bytes) = regions.range(region);
                return Action::SendBlocks { to, epoch, feed, sequence, position, bytes };
            }
            &Kind::Compare(region) => {
                let (position, bytes) = regions.range(region);
                return Action::SendSum { to, epoch, feed, sequence, position, bytes };
            }
        };
        Action::Send(self.id, self.life, Message::Feed { epoch, feed, sequence, item })
    }
}

#[cfg(test)]
mod tests;
