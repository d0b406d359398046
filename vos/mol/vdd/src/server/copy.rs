// SPDX-License-Identifier: MIT OR Apache-2.0
//! The replica that a server has of a device: the rules of [`crate::replica`] over a store.

use super::device::{apply, read};
use super::waiting::Waiting;
use super::{Letter, News, Out, Outside, Role};
use crate::ledger::{Identity, Ledger};
use crate::replica::{
    Action, Boot, Change, Contents, Input, Item, Life, Message, Record, Refusal, Regions, Replica,
    ReplicaId, Request, RequestId, Settings, Sum,
};
use crate::store::{Safety, Store, StoreError};
use core::time::Duration;
use dvk::Endpoint;
use mol_protocol::Errno;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The most bytes of a device with replicas: its regions are copied as a whole, and have 16 MiB then.
pub const REPLICATED_BYTES_MAX: u64 = 1 << 37;

/// What another replica has asked, and what it is told.
#[derive(Debug)]
struct Exchange {
    from: (ReplicaId, Life),
    answers: Vec<Message>,
}

/// A replica on a store.
#[derive(Debug)]
pub(super) struct Copy {
    ledger: Ledger,
    kept: Option<(Identity, Record)>,
    identity: Identity,
    replica: Option<Replica>,
    /// Whether the store has failed. It may not have what it has promised then, in this run of the server.
    has_failed: bool,
    /// Where the replicas of the line-up are.
    pub(super) servers: BTreeMap<ReplicaId, (Life, Endpoint)>,
    pub(super) waiting: BTreeMap<RequestId, (Waiting, Request)>,
    exchange: Option<Exchange>,
}

/// What ends a replica.
struct Ended(StoreError);

impl From<StoreError> for Ended {
    fn from(error: StoreError) -> Self {
        Self(error)
    }
}

impl Copy {
    /// Looks for what the store has of it.
    pub(super) fn open(store: &dyn Store, device_bytes: u64) -> Result<Self, StoreError> {
        let (ledger, kept) = Ledger::open(store, Regions::of(device_bytes))?;
        Ok(Self {
            ledger,
            kept,
            identity: 0,
            replica: None,
            has_failed: false,
            servers: BTreeMap::new(),
            waiting: BTreeMap::new(),
            exchange: None,
        })
    }

    pub(super) fn kept(&self, boot: Boot) -> Option<(Identity, Contents)> {
        self.kept.as_ref().map(|(identity, record)| (*identity, record.contents(boot)))
    }

    pub(super) fn join(&mut self, role: Role, settings: Settings, now: Duration) {
        if self.has_failed || self.replica.is_some() {
            return;
        }
        let Role { id, life, boot, identity } = role;
        // What was kept for another device says nothing of this one.
        let record = match &self.kept {
            Some((of, record)) if *of == identity => record.clone(),
            _ => Record::default(),
        };
        self.identity = identity;
        self.replica = Some(Replica::new((id, life), settings, record, boot, now));
    }

    pub(super) fn replica(&self) -> Option<&Replica> {
        self.replica.as_ref()
    }

    pub(super) fn is_primary(&self) -> bool {
        self.replica.as_ref().is_some_and(Replica::is_primary)
    }

    /// What a client is told that asks something here now.
    pub(super) fn check(&self) -> Result<(), Errno> {
        match self.is_primary() {
            true => Ok(()),
            false if self.has_failed => Err(Errno::Io),
            false => Err(Errno::Elsewhere),
        }
    }

    /// Gives the replica what another one asks; the result is what that is told.
    pub(super) fn answer<O: Outside>(
        &mut self,
        minor: u32,
        outside: &O,
        store: &mut dyn Store,
        (from, to): ((ReplicaId, Life), Life),
        messages: Vec<Message>,
        out: &mut Out,
    ) -> Result<Vec<Message>, Errno> {
        if self.has_failed {
            return Err(Errno::Io);
        }
        if !self.replica.as_ref().is_some_and(|replica| replica.life() == to) {
            return Err(Errno::Stale);
        }
        self.exchange = Some(Exchange { from, answers: Vec::new() });
        for message in messages {
            self.drive(minor, outside, store, Input::Message(from.0, from.1, message), out);
        }
        let answers = self.exchange.take().map(|exchange| exchange.answers);
        match self.has_failed {
            true => Err(Errno::Io),
            false => Ok(answers.unwrap_or_default()),
        }
    }

    /// Tells the replica something and does what it says.
    pub(super) fn drive<O: Outside>(
        &mut self,
        minor: u32,
        outside: &O,
        store: &mut dyn Store,
        input: Input,
        out: &mut Out,
    ) {
        if let Err(Ended(error)) = self.handle(minor, outside, store, input, out) {
            self.end(minor, error, out);
        }
    }

    fn end(&mut self, minor: u32, error: StoreError, out: &mut Out) {
        let others = self.replica.take().map_or(0, |replica| replica.in_step_count());
        self.has_failed = true;
        // If others are in step, one of them goes on.
        let errno = if others > 1 { Errno::Elsewhere } else { error.errno() };
        for (_, (waiting, request)) in core::mem::take(&mut self.waiting) {
            out.replies.push(waiting.answer(&request, Err(errno)));
        }
        out.news.push((minor, News::Failed(error)));
    }

    fn handle<O: Outside>(
        &mut self,
        minor: u32,
        outside: &O,
        store: &mut dyn Store,
        input: Input,
        out: &mut Out,
    ) -> Result<(), Ended> {
        let Some(replica) = &mut self.replica else {
            if let Input::Request(id, _) = input {
                self.refuse(id, if self.has_failed { Errno::Io } else { Errno::Elsewhere }, out);
            }
            return Ok(());
        };
        for action in replica.handle(outside.now(), input) {
            self.act(minor, outside, store, action, out)?;
        }
        Ok(())
    }

    fn refuse(&mut self, id: RequestId, errno: Errno, out: &mut Out) {
        if let Some((waiting, request)) = self.waiting.remove(&id) {
            out.replies.push(waiting.answer(&request, Err(errno)));
        }
    }

    fn act<O: Outside>(
        &mut self,
        minor: u32,
        outside: &O,
        store: &mut dyn Store,
        action: Action,
        out: &mut Out,
    ) -> Result<(), Ended> {
        match action {
            Action::Change(change) => apply(store, &change)?,
            Action::Flush => store.flush()?,
            Action::Keep(record) => {
                // Memory loses the blocks together with what it would say of them.
                if store.lasts() {
                    self.ledger.keep(store, self.identity, &record)?;
                }
            }
            Action::Read { request, position, bytes, until } => {
                return self.read_for_client(
                    minor,
                    outside,
                    store,
                    (request, position, bytes, until),
                    out,
                );
            }
            Action::Answer(id, Ok(())) => {
                if let Some((waiting, request)) = self.waiting.remove(&id) {
                    out.replies.push(waiting.answer(&request, Ok(())));
                }
            }
            Action::Answer(id, Err(Refusal::NotPrimary | Refusal::InDoubt)) => {
                self.refuse(id, Errno::Elsewhere, out);
            }
            Action::Send(to, life, message) => self.send(minor, (to, life), message, out),
            Action::SendBlocks { to, epoch, feed, sequence, position, bytes } => {
                let data = Arc::from(read(store, position, bytes)?);
                let change = Change::Write { position, data, safety: Safety::AtFlush };
                let message = Message::Feed { epoch, feed, sequence, item: Item::Change(change) };
                self.send(minor, to, message, out);
            }
            Action::SendSum { to, epoch, feed, sequence, position, bytes } => {
                let item = Item::Compare { position, bytes, sum: sum(store, position, bytes)? };
                self.send(minor, to, Message::Feed { epoch, feed, sequence, item }, out);
            }
            Action::Compare { feed, sequence, position, bytes, sum: expected } => {
                let is_same = sum(store, position, bytes)? == expected;
                let input = Input::Compared { feed, sequence, is_same };
                return self.handle(minor, outside, store, input, out);
            }
            Action::Propose(lineup) => out.proposals.push((minor, lineup)),
            Action::Tell(notice) => out.news.push((minor, News::Notice(notice))),
        }
        Ok(())
    }

    fn read_for_client<O: Outside>(
        &mut self,
        minor: u32,
        outside: &O,
        store: &mut dyn Store,
        (id, position, bytes, until): (RequestId, u64, u64, Duration),
        out: &mut Out,
    ) -> Result<(), Ended> {
        let Some((waiting, request)) = self.waiting.get(&id) else { return Ok(()) };
        let data = read(store, position, bytes);
        if outside.now() >= until {
            // Somebody else may have become the primary before the blocks were read.
            let input = Input::Request(id, request.clone());
            return self.handle(minor, outside, store, input, out);
        }
        let result = match (data, waiting.place()) {
            (Ok(data), Some(place)) => place.fill(outside, &data),
            (Ok(_), None) => Err(Errno::Invalid),
            (Err(error), _) => Err(error.errno()),
        };
        if let Some((waiting, request)) = self.waiting.remove(&id) {
            out.replies.push(waiting.answer(&request, result));
        }
        Ok(())
    }

    fn send(&mut self, minor: u32, to: (ReplicaId, Life), message: Message, out: &mut Out) {
        if message.is_answer() {
            if let Some(exchange) = self.exchange.as_mut().filter(|it| it.from == to) {
                exchange.answers.push(message);
            }
        } else {
            out.letters.push(Letter { minor, to, message });
        }
    }
}

fn sum(store: &dyn Store, position: u64, bytes: u64) -> Result<Sum, StoreError> {
    let digest = Sha256::digest(read(store, position, bytes)?);
    let mut sum = Sum::default();
    sum.copy_from_slice(&digest[..size_of::<Sum>()]);
    Ok(sum)
}
