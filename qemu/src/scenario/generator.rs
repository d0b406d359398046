// SPDX-License-Identifier: MIT OR Apache-2.0
//! Makes a script from a seed.

use std::ops::Range;
use std::time::Duration;

use super::{Action, Over, Script, Step};
use crate::faults::{Faults, Probability, SplitMix64};
use crate::links::LinkSelector;

/// When the first fault begins, in milliseconds: not before there is traffic that it can hit.
const BEGIN_MS: Range<u64> = 300..2_000;
/// Longest frames that a node may be told. None is below the 1,280 bytes without which an interface has no IPv6 addresses.
const MTUS: [u32; 4] = [1_280, 1_400, 3_000, 9_000];

/// One fault with its end. Faults of one class get in each other's way, so a script has one of each class at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Kill,
    Restart,
    Pause,
    Partition,
    Link,
    OneWay,
    Flap,
    Loss,
    Duplication,
    Reordering,
    Slowness,
    Mtu,
    Transport,
}

const KINDS: [Kind; 13] = [
    Kind::Kill,
    Kind::Loss,
    Kind::Partition,
    Kind::Transport,
    Kind::Pause,
    Kind::Duplication,
    Kind::OneWay,
    Kind::Mtu,
    Kind::Restart,
    Kind::Reordering,
    Kind::Link,
    Kind::Flap,
    Kind::Slowness,
];

/// What a kind of fault is done to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Power,
    Path,
    Quality,
    Ends,
}

impl Kind {
    fn class(self) -> Class {
        match self {
            Self::Kill | Self::Restart | Self::Pause => Class::Power,
            Self::Partition | Self::Link | Self::OneWay | Self::Flap => Class::Path,
            Self::Loss | Self::Duplication | Self::Reordering | Self::Slowness => Class::Quality,
            Self::Mtu | Self::Transport => Class::Ends,
        }
    }
}

impl Script {
    /// Script `number` of those that follow from `seed`, for a cluster of as many nodes.
    ///
    /// Each has one to three faults, and any thirteen in a row have every kind among them.
    ///
    /// # Panics
    /// With fewer than two nodes.
    pub fn new(seed: u64, number: u64, nodes: usize) -> Self {
        assert!(nodes >= 2, "faults of a cluster of {nodes} nodes");
        let mut dice = Dice::new(seed, number);
        // Scripts of one seed begin at different kinds from those of another, and go through them in the same order.
        let first =
            Dice::new(seed, u64::MAX).below(KINDS.len() as u64) + number % KINDS.len() as u64;
        let mut kinds = vec![KINDS[first as usize % KINDS.len()]];
        for chance in [2, 4] {
            let more: Vec<_> = KINDS
                .into_iter()
                .filter(|kind| kinds.iter().all(|taken| taken.class() != kind.class()))
                .collect();
            if dice.below(chance) == 0 {
                kinds.push(dice.pick(&more));
            }
        }
        let mut names = Vec::new();
        let mut steps = Vec::new();
        for kind in kinds {
            let at = dice.between(BEGIN_MS);
            let episode = episode(kind, nodes, &mut dice);
            names.extend(episode.first().map(|(_, action)| action.to_string()));
            steps.extend(
                episode
                    .into_iter()
                    .map(|(after, action)| Step { at: Duration::from_millis(at + after), action }),
            );
        }
        steps.sort_by_key(|step| step.at);
        Self { name: names.join("; "), steps }
    }
}

/// Actions, each so many milliseconds after the beginning; the last one ends it.
fn episode(kind: Kind, nodes: usize, dice: &mut Dice) -> Vec<(u64, Action)> {
    let node = dice.node(nodes);
    let [a, b] = dice.ends(nodes);
    let percent = dice.percent(1..21);
    let links = match dice.below(3) {
        0 => LinkSelector::All,
        1 => LinkSelector::Node(node),
        _ => LinkSelector::Pair(a, b),
    };
    // Some are over before anybody can have noticed them, and some are not.
    let time =
        if dice.below(2) == 0 { dice.between(200..1_500) } else { dice.between(2_500..4_500) };
    let faults = |faults: Faults| {
        vec![(0, Action::Faults(links, faults)), (time, Action::Faults(links, Faults::default()))]
    };
    let cut = |links| vec![(0, Action::Cut(links)), (time, Action::Heal)];
    match kind {
        Kind::Kill => vec![(0, Action::Kill(node)), (time, Action::Start(node))],
        Kind::Restart => vec![(0, Action::Kill(node)), (0, Action::Start(node))],
        Kind::Pause => vec![(0, Action::Pause(node)), (time, Action::Resume(node))],
        Kind::Partition => {
            let (one, other) =
                (0..nodes).partition(|other| *other == a || (*other != b && dice.below(2) == 0));
            vec![(0, Action::Partition(vec![one, other])), (time, Action::Heal)]
        }
        Kind::Link => cut(LinkSelector::Pair(a, b)),
        Kind::OneWay => cut(LinkSelector::OneWay { from: a, to: b }),
        Kind::Flap => {
            let mut at = 0;
            let mut flaps = Vec::new();
            for _ in 0..dice.between(1..5) {
                flaps.push((at, Action::Cable { node, up: false }));
                at += dice.between(50..800);
                flaps.push((at, Action::Cable { node, up: true }));
                at += dice.between(50..800);
            }
            flaps
        }
        Kind::Loss => faults(Faults { loss: percent, ..Faults::default() }),
        Kind::Duplication => faults(Faults { duplicate: percent, ..Faults::default() }),
        Kind::Reordering => faults(Faults { reorder: percent, ..Faults::default() }),
        Kind::Slowness => {
            let [delay, jitter] =
                [5..60, 1..20].map(|range| Duration::from_millis(dice.between(range)));
            faults(Faults { delay, jitter, ..Faults::default() })
        }
        Kind::Mtu => {
            let bytes = dice.pick(&MTUS);
            vec![(0, Action::Mtu { node, bytes }), (time, Action::Mtu { node, bytes: 1_500 })]
        }
        Kind::Transport => {
            let ends = [a, b];
            let over = dice.pick(&[Over::Tcp, Over::Udp]);
            let back = Action::Transport { ends, over: Over::Ethernet };
            vec![(0, Action::Transport { ends, over }), (time, back)]
        }
    }
}

/// Draws that are the same for the same seed and number.
struct Dice(SplitMix64);

impl Dice {
    fn new(seed: u64, number: u64) -> Self {
        // Through the generator, so that neighbouring numbers have nothing to do with each other.
        let mixed = SplitMix64::new(seed).next() ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        Self(SplitMix64::new(SplitMix64::new(mixed).next()))
    }

    /// From 0 to `end` - 1. The bias is far below what anybody could see.
    fn below(&mut self, end: u64) -> u64 {
        self.0.next() % end
    }

    fn between(&mut self, range: Range<u64>) -> u64 {
        range.start + self.below(range.end - range.start)
    }

    fn percent(&mut self, range: Range<u64>) -> Probability {
        Probability::percent(self.between(range) as u32).unwrap_or_default()
    }

    fn node(&mut self, nodes: usize) -> usize {
        self.below(nodes as u64) as usize
    }

    /// Two nodes.
    fn ends(&mut self, nodes: usize) -> [usize; 2] {
        let one = self.node(nodes);
        let other = self.node(nodes - 1);
        [one, if other < one { other } else { other + 1 }]
    }

    fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn scripts(seed: u64, count: u64) -> Vec<Script> {
        (0..count).map(|number| Script::new(seed, number, 4)).collect()
    }

    #[test]
    fn a_seed_gives_the_same_scripts_every_time() {
        assert_eq!(scripts(1, 50), scripts(1, 50));
        // Whoever changes this changes what an old seed means.
        let script = Script::new(1, 0, 4);
        assert_eq!(script.to_string(), PINNED, "{}", script.name);
        let distinct: BTreeSet<_> =
            [1, 2, 3].iter().flat_map(|seed| scripts(*seed, 50)).map(|s| s.to_string()).collect();
        assert_eq!(distinct.len(), 150);
    }

    const PINNED: &str = "  1140 ms  pause node3\n  1604 ms  resume node3\n  1973 ms  tcp between 2 and 1\n  2705 ms  ethernet between 2 and 1";

    #[test]
    fn every_kind_comes_within_thirteen() {
        for seed in 0..20 {
            let all: String =
                scripts(seed, 13).iter().map(|script| script.to_string() + "\n").collect();
            for word in [
                "kill",
                "start",
                "pause",
                "resume",
                "partition",
                "cut",
                ">",
                "heal",
                "pull",
                "plug",
                "loss",
                "duplicate",
                "reorder",
                "delay",
                "mtu",
                "between",
                "no faults",
            ] {
                assert!(all.contains(word), "seed {seed}: {word} is not in\n{all}");
            }
        }
    }

    #[test]
    fn what_is_done_is_undone() {
        for script in scripts(3, 500) {
            let mut off = BTreeSet::new();
            let mut paused = BTreeSet::new();
            let mut pulled = BTreeSet::new();
            let mut strange = BTreeSet::new();
            let mut moved = BTreeSet::new();
            let (mut cut, mut faulty) = (false, false);
            for Step { action, .. } in &script.steps {
                // What a node cannot do twice, or not now, is not asked for.
                let possible = match *action {
                    Action::Kill(node) => !paused.contains(&node) && off.insert(node),
                    Action::Start(node) => off.remove(&node),
                    Action::Pause(node) => !off.contains(&node) && paused.insert(node),
                    Action::Resume(node) => paused.remove(&node),
                    Action::Cable { node, up: false } => pulled.insert(node),
                    Action::Cable { node, up: true } => pulled.remove(&node),
                    Action::Mtu { node, bytes: 1_500 } => strange.remove(&node),
                    Action::Mtu { node, .. } => strange.insert(node),
                    Action::Transport { ends, over: Over::Ethernet } => moved.remove(&ends),
                    Action::Transport { ends, .. } => ends[0] != ends[1] && moved.insert(ends),
                    Action::Cut(_) => !std::mem::replace(&mut cut, true),
                    Action::Partition(ref groups) => {
                        groups.iter().all(|group| !group.is_empty())
                            && !std::mem::replace(&mut cut, true)
                    }
                    Action::Heal => std::mem::take(&mut cut),
                    Action::Faults(_, faults) => {
                        std::mem::replace(&mut faulty, !faults.is_none()) == faults.is_none()
                    }
                };
                assert!(possible, "{action} in\n{script}");
            }
            let left = off.len() + paused.len() + pulled.len() + strange.len() + moved.len();
            assert!(left == 0 && !cut && !faulty, "{script}");
            let last = script.steps.last().map(|step| step.at);
            assert!(last.is_some_and(|at| at < Duration::from_secs(10)), "{script}");
            assert!(script.steps.is_sorted_by_key(|step| step.at), "{script}");
        }
    }
}
