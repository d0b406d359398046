// SPDX-License-Identifier: MIT OR Apache-2.0
//! Two ends and a network between them, with a clock that only the test moves.

use super::*;
use crate::datagram::session::Rejected;
use dvs_secret::ClusterSecret;
use proptest::prelude::*;
use std::collections::VecDeque;

const STEP: Duration = Duration::from_millis(50);

/// A generator of numbers (xorshift, Marsaglia 2003).
struct Dice(u64);

impl Dice {
    fn draw(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        bytes.iter_mut().for_each(|byte| *byte = (self.draw() >> 32) as u8);
    }
}

fn keys(token: &str) -> Keys {
    Keys::new(ClusterSecret::new(&token.parse().unwrap()), "lab".to_owned())
}

const TOKEN: &str = "sixteen letters or more";

/// One end, as the shell around it has it.
struct Node {
    tunnel: Tunnel,
    ends: Ends,
    /// Frames that came.
    got: Vec<Vec<u8>>,
    agreed: usize,
    forged: usize,
    replayed: usize,
}

impl Node {
    fn new(token: &str, ends: Ends, dice: &mut Dice) -> Self {
        let tunnel = Tunnel::new(&keys(token), ends, &mut |bytes| dice.fill(bytes));
        Self { tunnel, ends, got: Vec::new(), agreed: 0, forged: 0, replayed: 0 }
    }

    fn note(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Fine => {}
            Outcome::Agreed => self.agreed += 1,
            Outcome::Forged => self.forged += 1,
            Outcome::Replayed => self.replayed += 1,
        }
    }

    fn take(&mut self, datagram: &[u8], now: Duration, dice: &mut Dice) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        let packet = Packet::decode(datagram).unwrap();
        let Packet::Data { to, number, sealed } = packet else {
            let outcome =
                self.tunnel.receive(&packet, now, &mut |bytes| dice.fill(bytes), &mut out);
            self.note(outcome);
            return out;
        };
        let Some(session) = self.tunnel.session(to).cloned() else {
            self.tunnel.missed(now, &mut out);
            return out;
        };
        let mut frame = Vec::new();
        match session.open(number, sealed, &mut frame) {
            Ok(()) => {
                let outcome = self.tunnel.heard(to, frame.is_empty(), now, &mut out);
                self.note(outcome);
                if !frame.is_empty() {
                    self.got.push(frame);
                }
            }
            Err(Rejected::Forged) => self.forged += 1,
            Err(Rejected::Replayed) => self.replayed += 1,
        }
        out
    }
}

/// The world.
struct World {
    nodes: [Node; 2],
    /// Datagrams on their way to a node.
    under_way: VecDeque<(usize, Vec<u8>)>,
    /// All that ever were.
    recorded: Vec<(usize, Vec<u8>)>,
    dice: Dice,
    now: Duration,
    /// Of a thousand datagrams.
    lost: u64,
    twice: u64,
    late: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed | 1);
        let nodes =
            [(1, 2), (2, 1)].map(|(own, peer)| Node::new(TOKEN, Ends { own, peer }, &mut dice));
        let (under_way, recorded) = (VecDeque::new(), Vec::new());
        Self { nodes, under_way, recorded, dice, now: STEP, lost: 0, twice: 0, late: 0 }
    }

    fn send(&mut self, to: usize, datagram: Vec<u8>) {
        self.recorded.push((to, datagram.clone()));
        if self.dice.draw() % 1000 < self.lost {
            return;
        }
        if self.dice.draw() % 1000 < self.twice {
            self.under_way.push_back((to, datagram.clone()));
        }
        let place = if self.dice.draw() % 1000 < self.late { 0 } else { self.under_way.len() };
        self.under_way.insert(place, (to, datagram));
    }

    /// Lets time pass, and all come that is under way.
    fn step(&mut self) {
        self.now += STEP;
        for node in 0..2 {
            let (mut out, dice) = (Vec::new(), &mut self.dice);
            self.nodes[node].tunnel.tick(self.now, &mut |bytes| dice.fill(bytes), &mut out);
            out.into_iter().for_each(|datagram| self.send(1 - node, datagram));
        }
        self.deliver();
    }

    fn deliver(&mut self) {
        let mut count = 0;
        while let Some((to, datagram)) = self.under_way.pop_front() {
            let out = self.nodes[to].take(&datagram, self.now, &mut self.dice);
            out.into_iter().for_each(|datagram| self.send(1 - to, datagram));
            count += 1;
            assert!(count < 1000, "they answer each other without end");
        }
    }

    /// Has both send a frame; whether both could.
    fn speak(&mut self, number: u64) -> bool {
        let mut both = true;
        for from in 0..2 {
            let mut datagram = Vec::new();
            let session = self.nodes[from].tunnel.current().cloned();
            match session.filter(|it| it.seal(&number.to_le_bytes(), &mut datagram)) {
                Some(_) => self.send(1 - from, datagram),
                None => both = false,
            }
        }
        both
    }

    /// Lets time pass until both can send and hear each other.
    fn settle(&mut self) {
        let number = self.now.as_nanos() as u64;
        for _ in 0..2000 {
            self.step();
            if self.speak(number) {
                self.deliver();
                let frame = number.to_le_bytes();
                if self.nodes.iter().all(|node| node.got.iter().any(|got| *got == frame)) {
                    return;
                }
            }
        }
        panic!("the two do not come together");
    }

    fn restart(&mut self, node: usize) {
        let ends = self.nodes[node].ends;
        self.nodes[node] = Node::new(TOKEN, ends, &mut self.dice);
    }
}

#[test]
fn two_ends_agree_at_once_and_once() {
    let mut world = World::new(1);
    world.step();
    // Three datagrams each way, and no time passed.
    assert!(world.speak(7));
    world.deliver();
    assert!(world.nodes.iter().all(|node| node.got == [7u64.to_le_bytes()]));
    (0..200).for_each(|_| world.step());
    assert!(world.nodes.iter().all(|node| node.agreed == 1 && node.forged == 0));
    assert!(world.recorded.len() < 12, "{} datagrams", world.recorded.len());
}

#[test]
fn new_keys_cost_no_frame() {
    let mut world = World::new(2);
    world.settle();
    let steps = (RENEW_AFTER.as_millis() * 5 / STEP.as_millis()) as u64;
    let before = world.nodes.each_ref().map(|node| node.got.len());
    for number in 0..steps {
        // Both send before, while and after the handshakes are under way.
        assert!(world.speak(number));
        world.step();
        assert!(world.speak(number));
        world.deliver();
    }
    for (node, before) in world.nodes.iter().zip(before) {
        assert_eq!(node.got.len() - before, 2 * steps as usize);
        assert!((5..=7).contains(&node.agreed), "{}", node.agreed);
        assert_eq!((node.forged, node.replayed), (0, 0));
    }
}

#[test]
fn who_is_started_anew_is_let_in_at_once() {
    for node in [0, 1] {
        let mut world = World::new(3);
        world.settle();
        for _ in 0..5 {
            world.restart(node);
            let before = world.now;
            // The other one sends as if nothing had happened.
            world.speak(1);
            world.settle();
            assert!(world.now - before <= Duration::from_secs(1), "{:?}", world.now - before);
        }
    }
}

#[test]
fn what_was_recorded_changes_nothing() {
    let mut world = World::new(4);
    world.settle();
    (0..50).for_each(|number| {
        world.speak(number);
        world.step();
    });
    let recorded = world.recorded.clone();
    let (frames, sessions) = (
        world.nodes.each_ref().map(|node| node.got.len()),
        world.nodes.each_ref().map(|node| node.tunnel.current().map(|it| it.own())),
    );
    for (to, datagram) in recorded {
        let out = world.nodes[to].take(&datagram, world.now, &mut world.dice);
        out.into_iter().for_each(|answer| world.send(1 - to, answer));
        world.deliver();
    }
    assert_eq!(world.nodes.each_ref().map(|node| node.got.len()), frames);
    let after = world.nodes.each_ref().map(|node| node.tunnel.current().map(|it| it.own()));
    assert_eq!(after, sessions, "a recorded handshake has replaced a session");
    assert!(world.nodes.iter().all(|node| node.replayed > 40));
}

#[test]
fn handshakes_recorded_in_an_earlier_life_open_nothing() {
    let mut world = World::new(5);
    world.settle();
    let recorded = world.recorded.clone();
    world.restart(1);
    // Only the recorded ones come for now.
    for (_, datagram) in recorded.iter().filter(|(to, _)| *to == 1) {
        world.nodes[1].take(datagram, world.now, &mut world.dice);
    }
    assert!(world.nodes[1].tunnel.current().is_none() && world.nodes[1].got.is_empty());
    world.settle();
}

#[test]
fn forgeries_are_counted_and_nothing_else() {
    let mut world = World::new(6);
    world.settle();
    let recorded = world.recorded.clone();
    let agreed = world.nodes.each_ref().map(|node| node.agreed);
    let before = world.nodes.each_ref().map(|node| (node.got.len(), node.forged, node.replayed));
    for (to, mut datagram) in recorded {
        // Behind the head and the names, which lead nowhere if they are wrong.
        let last = datagram.len() - 1;
        datagram[last] ^= 0x80;
        let answers = world.nodes[to].take(&datagram, world.now, &mut world.dice);
        assert!(answers.is_empty(), "a forged datagram is answered");
    }
    for (node, (frames, forged, replayed)) in world.nodes.iter().zip(before) {
        assert_eq!(node.got.len(), frames);
        assert!(node.forged + node.replayed > forged + replayed);
    }
    world.settle();
    assert_eq!(world.nodes.each_ref().map(|node| node.agreed), agreed);
}

#[test]
fn forged_answers_do_not_end_a_handshake() {
    let mut world = World::new(7);
    let (mut out, mut dice) = (Vec::new(), Dice(9));
    world.nodes[0].tunnel.tick(STEP, &mut |bytes| dice.fill(bytes), &mut out);
    let Packet::Initiation { from, .. } = Packet::decode(&out[0]).unwrap() else { panic!() };
    let message = &[9; HANDSHAKE_BYTES];
    let forged = Packet::Response { to: from, from: 5, message }.encode();
    world.nodes[0].take(&forged, STEP, &mut world.dice);
    let (challenge, authentication) = ([1; CHALLENGE_BYTES], [2; AUTHENTICATION_BYTES]);
    let forged = Packet::Challenge { to: from, challenge, authentication }.encode();
    world.nodes[0].take(&forged, STEP, &mut world.dice);
    assert_eq!(world.nodes[0].forged, 2);
    world.send(1, out.remove(0));
    world.deliver();
    assert_eq!(world.nodes[0].agreed, 1);
}

#[test]
fn another_token_agrees_on_nothing() {
    let mut world = World::new(8);
    world.nodes[1] =
        Node::new("seventeen letters or so", Ends { own: 2, peer: 1 }, &mut world.dice);
    (0..200).for_each(|_| world.step());
    assert!(world.nodes.iter().all(|node| node.tunnel.current().is_none() && node.forged > 0));
}

#[test]
fn keys_are_not_used_for_ever() {
    let mut world = World::new(9);
    world.settle();
    // The network is gone.
    world.lost = 1000;
    (0..LIFE.as_millis() / STEP.as_millis() + 2).for_each(|_| world.step());
    assert!(world.nodes.iter().all(|node| node.tunnel.current().is_none()));
    world.lost = 0;
    world.settle();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn they_come_together_whatever_the_network_does(
        seed in any::<u64>(),
        (lost, twice, late) in (0u64..400, 0u64..300, 0u64..300),
        restarts in prop::collection::vec((0usize..2, 1usize..400), 0..6),
    ) {
        let mut world = World::new(seed);
        (world.lost, world.twice, world.late) = (lost, twice, late);
        for (node, steps) in restarts {
            for number in 0..steps {
                world.speak(number as u64);
                world.step();
            }
            world.restart(node);
        }
        world.settle();
        prop_assert!(world.nodes.iter().all(|node| node.forged == 0));
        // No frame twice: each sender counts up in each life, and no life repeats a number within one session.
        (world.lost, world.twice, world.late) = (0, 1000, 300);
        world.nodes.iter_mut().for_each(|node| node.got.clear());
        for number in 1 << 40..(1 << 40) + 50 {
            world.speak(number);
            world.step();
        }
        for node in &world.nodes {
            let mut got: Vec<_> = node.got.clone();
            got.sort();
            got.dedup();
            prop_assert_eq!(got.len(), node.got.len());
        }
    }

    #[test]
    fn any_datagram_is_survived(datagrams in prop::collection::vec(
        (0usize..2, prop::collection::vec(any::<u8>(), 0..120)), 1..20,
    )) {
        let mut world = World::new(11);
        world.settle();
        for (to, bytes) in datagrams {
            let datagram = [&[0xd5, 0x6c, 1][..], &bytes].concat();
            if Packet::decode(&datagram).is_ok() {
                world.nodes[to].take(&datagram, world.now, &mut world.dice);
            }
        }
        world.settle();
    }
}
