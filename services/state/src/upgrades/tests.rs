// SPDX-License-Identifier: MIT OR Apache-2.0

use proptest::prelude::*;

use super::plan::{next, Sight, RESTARTS_MAX};
use super::*;
use crate::nodes::{Join, Machine, Role};

const OLD: &str = "1.0.0+aaaa";
const NEW: &str = "1.1.0+bbbb";

fn bundle() -> Bundle {
    Bundle { digest: Digest([7; 32]), bytes: 20_000_000, release: NEW.into() }
}

fn rules(canary: u16, max_unavailable: u16) -> Rules {
    Rules { canary, max_unavailable, patience_s: 60 }
}

fn nodes(count: u16) -> Nodes {
    let mut nodes = Nodes::default();
    for n in 0..count {
        let join = Join {
            machine: Machine([2, 0, 0, 0, 0, n as u8]),
            run: 1,
            name: None,
            role: Role::Voter,
            member: Some(u64::from(n) + 1),
            understands: crate::VERSION,
            place: None,
        };
        nodes.join(&join, 1).unwrap();
    }
    nodes
}

/// What a pretended node does when it is told to restart with the new image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Well,
    /// It comes back with the image that it had.
    GivenUp,
    /// It does not come back.
    Lost,
    /// It comes back with the new image, and is never ready.
    Ill,
    /// It does not get the bundle.
    NoRoom,
}

struct Cluster {
    nodes: Nodes,
    upgrades: Upgrades,
    seen: BTreeMap<NodeId, Sight>,
    fates: BTreeMap<NodeId, Fate>,
    away: BTreeMap<NodeId, u64>,
    now: Time,
    most_away: usize,
}

impl Cluster {
    fn new(fates: &[Fate], order: Vec<NodeId>, rules: Rules) -> Self {
        let nodes = nodes(fates.len() as u16);
        let seen = nodes.iter().map(|(id, node)| {
            let seat = Seat { id, incarnation: node.incarnation };
            (id, Sight { seat, is_ready: true, release: OLD.into() })
        });
        let seen = seen.collect();
        let mut upgrades = Upgrades::default();
        let start = Command::Start { bundle: bundle(), nodes: order, rules };
        upgrades.apply(&nodes, Time(0), &start).unwrap();
        let fates = (0..).zip(fates.iter().copied()).collect();
        let (away, now) = (BTreeMap::new(), Time(0));
        Self { nodes, upgrades, seen, fates, away, now, most_away: 0 }
    }

    fn current(&self) -> &Upgrade {
        self.upgrades.current().unwrap()
    }

    fn apply(&mut self, command: &Command) {
        self.upgrades.apply(&self.nodes, self.now, command).unwrap();
    }

    /// What nodes do by themselves in a second, and then what the leader decides.
    fn second(&mut self) {
        self.now = self.now.after(1_000);
        let steps: Vec<_> = self.current().nodes.clone().into_iter().collect();
        for (id, progress) in steps {
            let upgrade = self.current().id;
            let from = progress.step.clone();
            let own = |to| Command::Advance { upgrade, node: id, from: from.clone(), to };
            match (progress.step, self.fates[&id]) {
                (Step::Fetching, Fate::NoRoom) => {
                    self.apply(&own(Step::Failed { cause: "there is no room for it".into() }));
                }
                (Step::Fetching, _) if self.seen.contains_key(&id) => {
                    self.apply(&own(Step::Ready));
                }
                (Step::Restarting { left }, fate) => match self.seen.get(&id).cloned() {
                    Some(sight) if sight.seat == left => {
                        self.seen.remove(&id);
                        self.away.insert(id, 5);
                    }
                    Some(sight) if sight.is_ready && sight.release == NEW => {
                        self.apply(&own(Step::Done));
                    }
                    Some(_) => {}
                    None if fate == Fate::Lost => {}
                    None => {
                        let left_s = self.away.get_mut(&id).unwrap();
                        *left_s -= 1;
                        if *left_s == 0 {
                            let seat = Seat { id, incarnation: left.incarnation + 1 };
                            let release = if fate == Fate::GivenUp { OLD } else { NEW };
                            let is_ready = fate != Fate::Ill;
                            let sight = Sight { seat, is_ready, release: release.into() };
                            self.seen.insert(id, sight);
                        }
                    }
                },
                _ => {}
            }
        }
        while let Some(command) = next(self.current(), &self.nodes, &self.seen, self.now) {
            if let Command::Advance { node, to: Step::Restarting { .. }, .. } = &command {
                let current = self.current();
                let first = &current.order[..usize::from(current.rules.canary)];
                let done = first.iter().all(|id| current.nodes[id].step == Step::Done);
                assert!(done || first.contains(node), "node {node} goes before the canaries");
            }
            self.apply(&command);
        }
        let away =
            self.nodes.iter().filter(|(id, _)| !self.seen.get(id).is_some_and(|s| s.is_ready));
        self.most_away = self.most_away.max(away.count());
    }

    fn run(&mut self, seconds: u32) {
        (0..seconds).for_each(|_| self.second());
    }
}

#[test]
fn nodes_go_one_by_one_and_then_it_is_complete() {
    let mut cluster = Cluster::new(&[Fate::Well; 4], vec![2, 0, 1, 3], rules(1, 1));
    cluster.run(60);
    assert_eq!(cluster.current().phase, Phase::Complete);
    assert!(cluster.seen.values().all(|sight| sight.release == NEW));
    assert_eq!(cluster.most_away, 1);
    assert_eq!(cluster.upgrades.before(), None);
}

#[test]
fn a_canary_that_fails_keeps_the_others_from_going() {
    for (fate, cause) in [
        (Fate::GivenUp, "it came back with 1.0.0+aaaa instead of 1.1.0+bbbb"),
        (Fate::Lost, "it has not come back within 60 s"),
        (Fate::Ill, "and was not well within 60 s"),
        (Fate::NoRoom, "there is no room for it"),
    ] {
        let fates = [Fate::Well, fate, Fate::Well, Fate::Well];
        let mut cluster = Cluster::new(&fates, vec![1, 0, 2, 3], rules(1, 2));
        cluster.run(200);
        let Phase::Paused { why } = &cluster.current().phase else { panic!("{fate:?}") };
        assert!(why.starts_with("node 1: ") && why.contains(cause), "{why}");
        assert_eq!(cluster.seen.values().filter(|sight| sight.release == NEW).count(), {
            usize::from(fate == Fate::Ill)
        });
        // It is mended, and tried again.
        cluster.fates.insert(1, Fate::Well);
        let sight =
            Sight { seat: Seat { id: 1, incarnation: 9 }, is_ready: true, release: OLD.into() };
        cluster.seen.insert(1, sight);
        cluster.apply(&Command::Resume { upgrade: 1 });
        cluster.run(100);
        assert_eq!(cluster.current().phase, Phase::Complete, "{fate:?}");
    }
}

#[test]
fn a_node_that_is_down_holds_the_others_back() {
    let mut cluster = Cluster::new(&[Fate::Well; 3], vec![0, 1, 2], rules(0, 1));
    let gone = cluster.seen.remove(&2).unwrap();
    cluster.run(100);
    assert_eq!(cluster.current().phase, Phase::Running);
    assert!(cluster.seen.values().all(|sight| sight.release == OLD));
    cluster.seen.insert(2, gone);
    cluster.run(60);
    assert_eq!(cluster.current().phase, Phase::Complete);
}

#[test]
fn who_comes_back_with_another_image_afterwards_is_upgraded_again_but_not_for_ever() {
    let mut cluster = Cluster::new(&[Fate::Well; 2], vec![0, 1], rules(1, 1));
    cluster.run(30);
    for round in 1.. {
        assert_eq!(cluster.current().phase, Phase::Complete);
        let sight = cluster.seen.get_mut(&1).unwrap();
        sight.seat.incarnation += 1;
        sight.release = OLD.into();
        cluster.run(30);
        let is_done = cluster.seen[&1].release == NEW;
        assert_eq!(is_done, round < RESTARTS_MAX, "round {round}");
        if !is_done {
            break;
        }
    }
    assert_eq!(cluster.current().phase, Phase::Complete);
}

#[test]
fn who_runs_the_image_already_is_not_restarted() {
    let mut cluster = Cluster::new(&[Fate::Lost, Fate::Well], vec![0, 1], rules(1, 1));
    cluster.seen.get_mut(&0).unwrap().release = NEW.into();
    cluster.run(30);
    assert_eq!(cluster.current().phase, Phase::Complete);
    assert_eq!(cluster.current().nodes[&0].restarts, 0);
}

#[test]
fn only_one_upgrade_goes_on_at_a_time_and_the_past_is_remembered() {
    let mut cluster = Cluster::new(&[Fate::Well], vec![0], rules(1, 1));
    let start = |release: &str| Command::Start {
        bundle: Bundle { release: release.into(), ..bundle() },
        nodes: vec![0],
        rules: rules(0, 1),
    };
    let refused = cluster.upgrades.apply(&cluster.nodes, Time(0), &start("2"));
    assert!(matches!(refused, Err(Refusal::Busy { .. })), "{refused:?}");
    cluster.run(30);
    cluster.apply(&start("2"));
    assert_eq!(cluster.current().id, 2);
    assert_eq!(cluster.upgrades.before().unwrap().release, NEW);
    cluster.apply(&Command::Cancel { upgrade: 2 });
    assert_eq!(next(cluster.current(), &cluster.nodes, &cluster.seen, cluster.now), None);
    let refused = cluster.upgrades.apply(&cluster.nodes, Time(0), &Command::Resume { upgrade: 2 });
    assert!(refused.unwrap_err().to_string().contains("upgrade 2 has ended"));
    for number in 0..2 * PAST_MAX {
        cluster.apply(&start(&number.to_string()));
        let upgrade = cluster.current().id;
        cluster.apply(&Command::Cancel { upgrade });
    }
    assert_eq!(cluster.upgrades.past().count(), PAST_MAX);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let nodes = nodes(2);
    let mut upgrades = Upgrades::default();
    let mut start = |order: &[NodeId], rules, release: &str| {
        let bundle = Bundle { release: release.into(), ..bundle() };
        let start = Command::Start { bundle, nodes: order.to_vec(), rules };
        upgrades.apply(&nodes, Time(0), &start).map_err(|refusal| refusal.to_string())
    };
    for (order, rules, release, expected) in [
        (&[][..], rules(0, 1), NEW, "no node"),
        (&[5], rules(0, 1), NEW, "there is no node 5"),
        (&[1, 1], rules(0, 1), NEW, "named twice"),
        (&[1], rules(0, 0), NEW, "at least one node"),
        (&[1], rules(0, 1), "", "cannot be the name of a release"),
        (&[1], rules(0, 1), &"x".repeat(65), "64"),
    ] {
        let error = start(order, rules, release).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
    start(&[1], rules(0, 1), NEW).unwrap();
    let skip = |from, to| Command::Advance { upgrade: 1, node: 1, from, to };
    for (from, to) in [
        (Step::Waiting, Step::Ready),
        (Step::Fetching, Step::Ready),
        (Step::Waiting, Step::Restarting { left: Seat { id: 1, incarnation: 1 } }),
    ] {
        assert!(upgrades.apply(&nodes, Time(0), &skip(from, to)).is_err());
    }
    let unfinished = upgrades.apply(&nodes, Time(0), &Command::Complete { upgrade: 1 });
    assert!(unfinished.unwrap_err().to_string().contains("not done"));
    let long = Step::Failed { cause: "ä\n".repeat(300) };
    upgrades.apply(&nodes, Time(0), &skip(Step::Waiting, long)).unwrap();
    let (_, cause) = upgrades.current().unwrap().failures().next().unwrap();
    assert!(cause.len() <= CAUSE_BYTES_MAX && cause.starts_with("ä ä"));
    // Whom an upgrade waits for may be removed.
    upgrades.forget(1);
    let current = upgrades.current().unwrap();
    assert!(current.nodes.is_empty() && current.order.is_empty());
}

fn fate() -> impl Strategy<Value = Fate> {
    let good = Just(Fate::Well);
    prop_oneof![
        6 => good,
        1 => Just(Fate::GivenUp),
        1 => Just(Fate::Lost),
        1 => Just(Fate::Ill),
        1 => Just(Fate::NoRoom)
    ]
}

proptest! {
    #[test]
    fn no_more_nodes_are_away_than_may_be_and_no_failure_goes_unnoticed(
        fates in prop::collection::vec(fate(), 1..12),
        canary in 0u16..3,
        max_unavailable in 1u16..4,
    ) {
        let order: Vec<NodeId> = (0..fates.len() as NodeId).collect();
        let canary = canary.min(order.len() as u16);
        let mut cluster = Cluster::new(&fates, order, rules(canary, max_unavailable));
        cluster.run(400);
        prop_assert!(cluster.most_away <= max_unavailable.into());
        let current = cluster.current();
        match fates.iter().all(|fate| *fate == Fate::Well) {
            true => prop_assert_eq!(&current.phase, &Phase::Complete),
            false => {
                prop_assert!(matches!(current.phase, Phase::Paused { .. }), "{:?}", current);
                prop_assert!(current.failures().next().is_some());
            }
        }
        // Whoever was not upgraded runs what it ran.
        for (id, sight) in &cluster.seen {
            let is_new = sight.release == NEW;
            let expected = matches!(current.nodes[id].step, Step::Done)
                || cluster.fates[id] == Fate::Ill && current.nodes[id].restarts > 0;
            prop_assert_eq!(is_new, expected);
        }
    }
}
