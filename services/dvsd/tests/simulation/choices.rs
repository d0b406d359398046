// SPDX-License-Identifier: MIT OR Apache-2.0
//! The choices of what carries each link: both ends of a pair end with the same, whatever the network
//! does to beacons, and a node that restarts gets them back.

use dvs_api::Transport;
use dvsd::beacon::Choice;
use dvsd::membership::Refusal;

use super::{weather, Segment, Weather};

impl Segment {
    /// Of two machines: the id of the second one as the first one knows it.
    fn id_of(&self, at: usize, other: usize) -> u16 {
        let node = self.machines[at].node.as_ref().unwrap();
        let mac = self.machines[other].mac;
        let view = node.view(self.now_ms);
        view.members.iter().find(|member| member.mac == mac).unwrap().seat.id
    }

    fn choose(&mut self, at: usize, other: usize, transport: Transport) -> Result<Choice, Refusal> {
        let (id, now_ms) = (self.id_of(at, other), self.now_ms);
        self.machines[at].node.as_mut().unwrap().choose(now_ms, id, transport)
    }

    /// What the machine holds to be chosen for its link to the other one.
    fn choice(&self, at: usize, other: usize) -> Choice {
        let id = self.id_of(at, other);
        let view = self.machines[at].node.as_ref().unwrap().view(self.now_ms);
        view.members.iter().find(|member| member.seat.id == id).unwrap().choice
    }

    fn pairs(&self) -> Vec<(usize, usize)> {
        let count = self.machines.len();
        (0..count).flat_map(|one| (one + 1..count).map(move |other| (one, other))).collect()
    }

    /// Runs until both ends of each pair hold the same.
    fn agree(&mut self, within_ms: u64, what: &str) {
        let start = self.now_ms;
        let differs = |segment: &Self, (one, other): (usize, usize)| {
            segment.choice(one, other) != segment.choice(other, one)
        };
        while let Some(pair) = self.pairs().into_iter().find(|pair| differs(self, *pair)) {
            assert!(self.now_ms - start < within_ms, "{what}: {pair:?} differ");
            self.run(100);
        }
    }

    fn boot_and_settle(&mut self, what: &str) {
        (0..self.machines.len()).for_each(|at| self.boot(at));
        self.settle(40_000, what);
    }
}

#[test]
fn both_ends_of_each_pair_end_with_the_same_choice() {
    for seed in 0..60 {
        let what = format!("seed {seed}");
        let mut segment = Segment::new(seed, 5, 5, weather(seed));
        segment.boot_and_settle(&what);
        for _ in 0..30 {
            let one = segment.random.below(5) as usize;
            let other = (one + 1 + segment.random.below(4) as usize) % 5;
            let transport = Transport::ALL[segment.random.below(5) as usize];
            // At once at both ends, now and then.
            let both = segment.random.chance(40);
            let before = segment.choice(one, other);
            match segment.choose(one, other, transport) {
                Ok(choice) => {
                    assert!(choice >= before && choice.transport == transport, "{what}");
                }
                // In the worst weather a live node may be taken for dead for a moment.
                Err(refusal) => assert_eq!(refusal, Refusal::Down, "{what}"),
            }
            if both {
                let transport = Transport::ALL[segment.random.below(5) as usize];
                let _ = segment.choose(other, one, transport);
            }
            let pause = segment.random.below(400);
            segment.run(pause);
        }
        segment.agree(20_000, &what);
    }
}

#[test]
fn the_last_choice_holds() {
    let mut segment = Segment::new(4, 3, 3, weather(1));
    segment.boot_and_settle("boot");
    for (revision, transport) in (1..).zip([Transport::Tcp, Transport::Udp, Transport::Ethernet]) {
        let (at, other) = if revision % 2 == 0 { (0, 2) } else { (2, 0) };
        let choice = Choice { revision, transport };
        assert_eq!(segment.choose(at, other, transport), Ok(choice));
        segment.agree(5_000, "chosen");
        assert_eq!(segment.choice(other, at), choice);
        assert_eq!(segment.choice(0, 1), Choice::default(), "other links are left alone");
    }
}

#[test]
fn a_node_that_restarts_gets_its_choices_back() {
    for seed in 0..40 {
        let what = format!("seed {seed}");
        let mut segment = Segment::new(seed, 4, 4, weather(seed % 3));
        segment.boot_and_settle(&what);
        segment.choose(0, 2, Transport::Tcp).unwrap();
        segment.choose(2, 3, Transport::Udp).unwrap();
        segment.agree(10_000, &what);
        segment.halt(2);
        let pause = [20, 500, 5_000][seed as usize % 3];
        segment.run(pause);
        segment.boot(2);
        segment.settle(20_000, &what);
        segment.agree(5_000, &what);
        assert_eq!(segment.choice(2, 0), Choice { revision: 1, transport: Transport::Tcp });
        assert_eq!(segment.choice(2, 3), Choice { revision: 1, transport: Transport::Udp });
        assert_eq!(segment.choice(2, 1), Choice::default());
    }
}

#[test]
fn ends_that_were_apart_and_chose_differently_agree_when_they_meet() {
    for seed in 0..40 {
        let what = format!("seed {seed}");
        let mut segment = Segment::new(seed, 4, 4, weather(seed % 3));
        segment.boot_and_settle(&what);
        segment.partition(&[0, 1]);
        // They don't know yet that they do not hear each other.
        segment.choose(0, 3, Transport::Tcp).unwrap();
        segment.choose(3, 0, Transport::Udp).unwrap();
        segment.choose(3, 0, Transport::Quic).unwrap();
        segment.choose(1, 2, Transport::Quic).unwrap();
        segment.choose(2, 1, Transport::Tipc).unwrap();
        segment.run(5_000);
        assert_eq!(segment.choose(0, 3, Transport::Udp), Err(Refusal::Down), "{what}");
        segment.cut.clear();
        segment.settle(10_000, &what);
        segment.agree(5_000, &what);
        assert_eq!(segment.choice(0, 3), Choice { revision: 2, transport: Transport::Quic });
        assert_eq!(segment.choice(1, 2), Choice { revision: 1, transport: Transport::Quic });
    }
}

#[test]
fn a_large_cluster_tells_all_its_choices() {
    let mut segment = Segment::new(6, 60, 60, Weather::default());
    segment.boot_and_settle("boot");
    for (at, (one, other)) in segment.pairs().into_iter().enumerate() {
        segment.choose(one, other, Transport::ALL[1 + at % 4]).unwrap();
    }
    segment.agree(10_000, "all chosen");
    // One that restarts has 59 of them to learn.
    segment.halt(7);
    segment.run(500);
    segment.boot(7);
    segment.settle(10_000, "back");
    segment.agree(10_000, "learnt");
    let transports = |at: usize| -> Vec<_> {
        (0..60).filter(|o| *o != at).map(|other| segment.choice(at, other).transport).collect()
    };
    assert!(transports(7).iter().all(|transport| *transport != Transport::Ethernet));
}

#[test]
fn what_cannot_be_chosen_is_refused() {
    let mut segment = Segment::new(5, 2, 2, Weather::default());
    segment.boot(0);
    segment.run(100);
    let node = segment.machines[0].node.as_mut().unwrap();
    assert_eq!(node.choose(1_100, 1, Transport::Tcp), Err(Refusal::NoMember));
    segment.boot(1);
    segment.settle(10_000, "boot");
    assert_eq!(segment.choose(0, 0, Transport::Tcp), Err(Refusal::Itself));
    let now_ms = segment.now_ms;
    let node = segment.machines[0].node.as_mut().unwrap();
    assert_eq!(node.choose(now_ms, 9, Transport::Tcp), Err(Refusal::Unknown));
    segment.halt(1);
    segment.run(4_000);
    assert_eq!(segment.choose(0, 1, Transport::Tcp), Err(Refusal::Down));
}
