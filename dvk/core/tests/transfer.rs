// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Parts of copies between two simulated nodes that stop, revoke, meet holes in their memory, lose
//! their stream and are sent what they never asked for.
//!
//! Both nodes do what the driver does. What is checked: bytes arrive where they belong, in order,
//! never outside of the memory for them and never after the end; what an asker is told has arrived
//! has; and whoever waits at the end has something to wait for.

mod model;

use dvk_core::abi::errno::Errno;
use dvk_core::transfer::{Kind, Role, Transfer};
use model::reproducible;
use proptest::prelude::*;
use std::collections::VecDeque;

#[derive(Clone, Copy, Debug)]
enum Word {
    Ask,
    Open,
    Data { offset: u32, len: u32 },
    Stop,
    Done { copied: u32, error: Option<Errno> },
}

/// One end, and what its thread is about.
struct Side {
    rules: Transfer,
    /// Its thread has begun, and not finished.
    working: bool,
    /// Bytes sent, at the end that sends.
    sent: u32,
    /// Where the memory to be sent, or the memory for what arrives, has a hole.
    hole: u32,
    /// Bytes that were written, at the end that receives.
    written: u32,
    told: bool,
}

impl Side {
    fn new(kind: Kind, role: Role, len: u32, hole: u32) -> Self {
        let rules = Transfer::new(kind, role, len);
        Self { rules, working: false, sent: 0, hole: hole.min(len), written: 0, told: false }
    }

    /// Data arrives and is written.
    fn take(&mut self, offset: u32, len: u32) -> Result<(), TestCaseError> {
        let over = self.rules.end().is_some();
        let Ok((at, taken)) = self.rules.place(offset, len as usize) else { return Ok(()) };
        prop_assert!(!over && self.working, "written after the end");
        prop_assert_eq!(at, self.written, "written out of order");
        self.written += taken;
        prop_assert!(self.written <= self.hole, "written outside of the memory");
        Ok(())
    }
}

struct World {
    kind: Kind,
    len: u32,
    piece: u32,
    asker: Side,
    granter: Side,
    to_granter: VecDeque<Word>,
    to_asker: VecDeque<Word>,
    /// Somebody sends what they may not.
    hostile: bool,
    /// The stream was lost.
    lost: bool,
    /// The granter's node does not serve it.
    refused: bool,
}

impl World {
    fn new(kind: Kind, len: u32, piece: u32, holes: (u32, u32), refused: bool) -> Self {
        let mut asker = Side::new(kind, Role::Asker, len, holes.0);
        if kind == Kind::From {
            // A hole in the asker's memory makes the part shorter before it is asked for.
            asker.hole = len;
            asker.rules.prepare(len);
        }
        asker.working = true;
        Self {
            kind,
            len,
            piece,
            asker,
            granter: Side::new(kind, Role::Granter, len, holes.1),
            to_granter: VecDeque::from([Word::Ask]),
            to_asker: VecDeque::new(),
            hostile: false,
            lost: false,
            refused,
        }
    }

    fn hear_at_granter(&mut self, word: Word) -> Result<(), TestCaseError> {
        match word {
            Word::Ask if !self.granter.working && !self.granter.told => {
                self.granter.working = true;
                if self.kind == Kind::To && self.len > 0 && !self.refused {
                    let hole = self.granter.hole;
                    self.granter.rules.prepare(hole);
                    self.to_asker.push_back(Word::Open);
                }
            }
            Word::Stop => {
                self.granter.rules.stop();
            }
            Word::Data { offset, len } => self.granter.take(offset, len)?,
            _ => {}
        }
        Ok(())
    }

    fn hear_at_asker(&mut self, word: Word) -> Result<(), TestCaseError> {
        match word {
            Word::Open => {
                let _ = self.asker.rules.opened();
            }
            Word::Done { copied, error } => {
                let _ = self.asker.rules.done(copied, error);
            }
            Word::Data { offset, len } => self.asker.take(offset, len)?,
            _ => {}
        }
        Ok(())
    }

    /// The granter's worker goes on.
    fn serve(&mut self) {
        let side = &mut self.granter;
        if !side.working || side.told {
            return;
        }
        let halted = self.refused || side.rules.is_stopped() || side.rules.end().is_some();
        let over = match self.kind {
            Kind::To => halted || self.len == 0 || side.rules.is_full(),
            Kind::From | Kind::Between => halted || side.sent >= side.hole,
        };
        if !over {
            if self.kind == Kind::To {
                return;
            }
            let len = self.piece.min(side.hole - side.sent);
            if self.kind == Kind::From {
                self.to_asker.push_back(Word::Data { offset: side.sent, len });
            }
            side.sent += len;
            return;
        }
        let lost = side.rules.end().is_some_and(|end| end.error == Some(Errno::NodeDown));
        let why = match (self.refused, halted || self.len == 0) {
            (true, _) => Some(Errno::Denied),
            (false, true) => None,
            (false, false) => Some(Errno::Fault),
        };
        let end = side.rules.close(side.sent, why);
        side.told = true;
        side.working = false;
        if !lost {
            self.to_asker.push_back(Word::Done { copied: end.copied, error: end.error });
        }
    }

    /// The asker's thread goes on.
    fn ask(&mut self) {
        let side = &mut self.asker;
        if !side.working {
            return;
        }
        if side.rules.end().is_some() {
            side.working = false;
            return;
        }
        let may_send = self.kind == Kind::To && side.rules.is_open() && !side.rules.is_stopped();
        if !may_send || side.sent == self.len {
            return;
        }
        let len = self.piece.min(side.hole - side.sent);
        if len == 0 {
            self.stop();
            return;
        }
        self.to_granter.push_back(Word::Data { offset: side.sent, len });
        side.sent += len;
    }

    fn stop(&mut self) {
        if self.asker.working && self.asker.rules.stop() {
            self.to_granter.push_back(Word::Stop);
        }
    }

    fn happen(&mut self, event: &Event) -> Result<(), TestCaseError> {
        match *event {
            Event::ToGranter => {
                if let Some(word) = self.to_granter.pop_front() {
                    self.hear_at_granter(word)?;
                }
            }
            Event::ToAsker => {
                if let Some(word) = self.to_asker.pop_front() {
                    self.hear_at_asker(word)?;
                }
            }
            Event::Ask => self.ask(),
            Event::Serve => self.serve(),
            Event::Stop => self.stop(),
            Event::Kill => {
                self.stop();
                self.asker.rules.fail(Errno::Interrupted);
                self.asker.working = false;
            }
            Event::Revoke => {
                self.granter.rules.fail(Errno::Denied);
            }
            Event::Lose => {
                self.lost = true;
                self.to_granter.clear();
                self.to_asker.clear();
                self.granter.rules.fail(Errno::NodeDown);
                self.asker.rules.fail(Errno::NodeDown);
            }
            Event::Forge { at_asker, word } => {
                self.hostile = true;
                if at_asker {
                    self.hear_at_asker(word)?;
                } else {
                    self.hear_at_granter(word)?;
                }
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<(), TestCaseError> {
        // More rounds than there are words and pieces.
        for _ in 0..4 * (self.len / self.piece + 8) {
            for event in [Event::ToGranter, Event::Serve, Event::ToAsker, Event::Ask] {
                self.happen(&event)?;
            }
        }
        let end = self.asker.rules.end();
        if self.hostile {
            if let Some(end) = end {
                prop_assert!(end.copied <= self.len);
                prop_assert!(self.kind != Kind::From || end.copied <= self.asker.written);
                prop_assert!(end.error.is_some() || end.copied == self.len);
            }
            return Ok(());
        }
        let Some(end) = end else {
            return Err(TestCaseError::fail("the asker waits for nothing"));
        };
        prop_assert!(self.granter.told || !self.granter.working || self.lost);
        let arrived = match self.kind {
            Kind::From => self.asker.written,
            Kind::To => self.granter.written,
            Kind::Between => self.granter.sent,
        };
        prop_assert!(end.copied <= arrived, "told {} of {arrived}", end.copied);
        if self.refused {
            prop_assert!(end.error.is_some() && end.copied == 0, "told {end:?} of what is refused");
        }
        match end.error {
            None => prop_assert_eq!((end.copied, arrived), (self.len, self.len)),
            Some(_) => prop_assert!(end.copied < self.len || self.len == 0),
        }
        if self.kind == Kind::From && end.error.is_some() {
            prop_assert_eq!(end.copied, arrived);
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Debug)]
enum Event {
    ToGranter,
    ToAsker,
    Ask,
    Serve,
    Stop,
    Kill,
    Revoke,
    Lose,
    Forge { at_asker: bool, word: Word },
}

const LONGEST: u32 = 64;

fn word() -> impl Strategy<Value = Word> {
    let number = || 0..LONGEST + 8;
    let error = prop::option::of(prop::sample::select(Errno::ALL));
    prop_oneof![
        Just(Word::Ask),
        Just(Word::Open),
        Just(Word::Stop),
        (number(), number()).prop_map(|(offset, len)| Word::Data { offset, len }),
        Just(Word::Data { offset: u32::MAX, len: u32::MAX }),
        (number(), error).prop_map(|(copied, error)| Word::Done { copied, error }),
    ]
}

fn friendly() -> impl Strategy<Value = Event> {
    prop_oneof![
        12 => Just(Event::ToGranter),
        12 => Just(Event::ToAsker),
        12 => Just(Event::Ask),
        12 => Just(Event::Serve),
        1 => Just(Event::Stop),
        1 => Just(Event::Revoke),
        1 => Just(Event::Lose),
    ]
}

fn hostile() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => friendly(),
        1 => Just(Event::Kill),
        2 => (any::<bool>(), word()).prop_map(|(at_asker, word)| Event::Forge { at_asker, word }),
    ]
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::From), Just(Kind::To), Just(Kind::Between)]
}

fn world() -> impl Strategy<Value = World> {
    let hole = || prop_oneof![2 => Just(LONGEST), 1 => 0..LONGEST];
    let len = prop_oneof![1 => Just(0), 6 => 0..=LONGEST];
    (kind(), len, 1..=24u32, (hole(), hole()), prop::bool::weighted(0.1))
        .prop_map(|(kind, len, piece, holes, no)| World::new(kind, len, piece, holes, no))
}

impl core::fmt::Debug for World {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let holes = (self.asker.hole, self.granter.hole);
        let refused = if self.refused { ", refused" } else { "" };
        let Self { kind, len, piece, .. } = self;
        write!(f, "{kind:?} of {len} by {piece} with holes at {holes:?}{refused}")
    }
}

proptest! {
    #![proptest_config(reproducible(4_000))]

    #[test]
    fn what_is_said_to_have_arrived_has(
        mut world in world(),
        events in prop::collection::vec(friendly(), 0..60),
    ) {
        for event in &events {
            world.happen(event)?;
        }
        world.finish()?;
    }

    #[test]
    fn nothing_made_up_reaches_other_memory_or_a_later_time(
        mut world in world(),
        events in prop::collection::vec(hostile(), 0..60),
    ) {
        for event in &events {
            world.happen(event)?;
        }
        world.finish()?;
    }
}

#[test]
fn an_undisturbed_part_is_complete() {
    for kind in [Kind::From, Kind::To, Kind::Between] {
        for len in [0, 1, 7, 8, 9, LONGEST] {
            let mut world = World::new(kind, len, 8, (LONGEST, LONGEST), false);
            for _ in 0..40 {
                for event in [Event::ToGranter, Event::Serve, Event::ToAsker, Event::Ask] {
                    world.happen(&event).unwrap();
                }
            }
            let end = world.asker.rules.end().expect("it ends");
            assert_eq!((end.copied, end.error), (len, None), "{kind:?} of {len}");
        }
    }
}
