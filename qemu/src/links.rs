// SPDX-License-Identifier: MIT OR Apache-2.0
//! The links between the nodes of a virtual cluster: which are cut, and what faults the others have.
//!
//! A link here is a *pair* of nodes, not a cable: the switch applies the settings of `from` → `to` to each copy of a
//! frame that travels from one to the other, so that two nodes can lose sight of each other while both see a third.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::faults::{FaultStream, Faults, Plan};

/// Names links, always in terms of node numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkSelector {
    /// All links, written `all`.
    All,
    /// All links of one node, written `2`.
    Node(usize),
    /// Both directions between two nodes, written `0-3`.
    Pair(usize, usize),
    /// One direction, written `0>3`.
    OneWay {
        /// The sending node.
        from: usize,
        /// The receiving node.
        to: usize,
    },
}

impl LinkSelector {
    /// Whether the direction `from` → `to` is meant.
    pub fn matches(&self, from: usize, to: usize) -> bool {
        match *self {
            LinkSelector::All => true,
            LinkSelector::Node(node) => node == from || node == to,
            LinkSelector::Pair(a, b) => (a, b) == (from, to) || (b, a) == (from, to),
            LinkSelector::OneWay { from: a, to: b } => (a, b) == (from, to),
        }
    }

    /// The highest node number named.
    pub fn highest(&self) -> Option<usize> {
        match *self {
            LinkSelector::All => None,
            LinkSelector::Node(node) => Some(node),
            LinkSelector::Pair(a, b) | LinkSelector::OneWay { from: a, to: b } => Some(a.max(b)),
        }
    }
}

impl fmt::Display for LinkSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LinkSelector::All => f.write_str("all"),
            LinkSelector::Node(node) => write!(f, "{node}"),
            LinkSelector::Pair(a, b) => write!(f, "{a}-{b}"),
            LinkSelector::OneWay { from, to } => write!(f, "{from}>{to}"),
        }
    }
}

/// A text that names no link.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` names no link; write 2 (all links of node 2), 0-3 (both ways), '0>3' (one way) or all"
)]
pub struct NotALink(String);

impl FromStr for LinkSelector {
    type Err = NotALink;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || NotALink(text.to_owned());
        let node = |text: &str| text.parse::<usize>().map_err(|_| wrong());
        let ends = |a: &str, b: &str| match (node(a)?, node(b)?) {
            (a, b) if a == b => Err(wrong()),
            ends => Ok(ends),
        };
        if text == "all" {
            Ok(LinkSelector::All)
        } else if let Some((a, b)) = text.split_once('-') {
            ends(a, b).map(|(a, b)| LinkSelector::Pair(a, b))
        } else if let Some((a, b)) = text.split_once('>') {
            ends(a, b).map(|(from, to)| LinkSelector::OneWay { from, to })
        } else {
            node(text).map(LinkSelector::Node)
        }
    }
}

/// The state of all links of a cluster of `nodes` nodes.
#[derive(Debug)]
pub struct Links {
    nodes: usize,
    seed: u64,
    /// What holds where nothing else is set.
    faults: Faults,
    exceptions: BTreeMap<(usize, usize), Faults>,
    cut: BTreeSet<(usize, usize)>,
    streams: HashMap<(usize, usize), FaultStream>,
}

impl Links {
    /// Whole links, all with `faults`, decided by `seed`.
    pub fn new(nodes: usize, seed: u64, faults: Faults) -> Self {
        Links {
            nodes,
            seed,
            faults,
            exceptions: BTreeMap::new(),
            cut: BTreeSet::new(),
            streams: HashMap::new(),
        }
    }

    fn directions(&self, selector: LinkSelector) -> impl Iterator<Item = (usize, usize)> {
        let nodes = self.nodes;
        (0..nodes)
            .flat_map(move |from| (0..nodes).map(move |to| (from, to)))
            .filter(move |&(from, to)| from != to && selector.matches(from, to))
    }

    /// Lets nothing pass on the selected links.
    pub fn cut(&mut self, selector: LinkSelector) {
        let directions: Vec<_> = self.directions(selector).collect();
        self.cut.extend(directions);
    }

    /// Undoes [`Links::cut`].
    pub fn heal(&mut self, selector: LinkSelector) {
        self.cut.retain(|&(from, to)| !selector.matches(from, to));
    }

    /// Cuts every link between nodes of different groups. A node in no group is alone.
    pub fn partition(&mut self, groups: &[Vec<usize>]) {
        let group = |node: usize| groups.iter().position(|group| group.contains(&node));
        let apart: Vec<_> = self
            .directions(LinkSelector::All)
            .filter(|&(from, to)| group(from).is_none() || group(from) != group(to))
            .collect();
        self.cut.extend(apart);
    }

    /// Replaces the faults of the selected links.
    pub fn set_faults(&mut self, selector: LinkSelector, faults: Faults) {
        if selector == LinkSelector::All {
            self.faults = faults;
            self.exceptions.clear();
        } else {
            let directions: Vec<_> = self.directions(selector).collect();
            self.exceptions.extend(directions.into_iter().map(|link| (link, faults)));
        }
    }

    /// The faults of the direction `from` → `to`.
    pub fn faults(&self, from: usize, to: usize) -> &Faults {
        self.exceptions.get(&(from, to)).unwrap_or(&self.faults)
    }

    /// Whether the direction `from` → `to` is cut.
    pub fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cut.contains(&(from, to))
    }

    /// All cut directions in ascending order.
    pub fn cuts(&self) -> Vec<(usize, usize)> {
        self.cut.iter().copied().collect()
    }

    /// Decides about a frame that sets out at `now`. A cut link draws no random numbers.
    pub fn decide(&mut self, from: usize, to: usize, now: Duration) -> Plan {
        if self.is_cut(from, to) {
            return Plan::default();
        }
        let faults = *self.faults(from, to);
        let seed = self.seed;
        let stream =
            self.streams.entry((from, to)).or_insert_with(|| FaultStream::new(seed, from, to));
        stream.decide(&faults, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::Probability;
    use LinkSelector::{All, Node, OneWay, Pair};

    fn passing(links: &mut Links) -> Vec<(usize, usize)> {
        let all: Vec<_> = links.directions(All).collect();
        all.into_iter()
            .filter(|&(a, b)| links.decide(a, b, Duration::ZERO).first.is_some())
            .collect()
    }

    #[test]
    fn selectors_are_read_and_written() {
        for (text, selector) in
            [("all", All), ("2", Node(2)), ("0-3", Pair(0, 3)), ("3>0", OneWay { from: 3, to: 0 })]
        {
            assert_eq!(text.parse(), Ok(selector));
            assert_eq!(selector.to_string(), text);
        }
        for text in ["", "-", "1-1", "1>1", "a", "1-", "-1", "1-2-3"] {
            assert!(text.parse::<LinkSelector>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_one_way_cut_leaves_the_other_way() {
        let mut links = Links::new(2, 1, Faults::default());
        links.cut(OneWay { from: 0, to: 1 });
        assert_eq!(passing(&mut links), [(1, 0)]);
        links.heal(Pair(0, 1));
        assert_eq!(passing(&mut links), [(0, 1), (1, 0)]);
    }

    #[test]
    fn a_pairwise_cut_leaves_the_way_round() {
        let mut links = Links::new(3, 1, Faults::default());
        links.cut(Pair(0, 2));
        assert_eq!(passing(&mut links), [(0, 1), (1, 0), (1, 2), (2, 1)]);
        links.cut(Node(1));
        assert_eq!(passing(&mut links), []);
        links.heal(All);
        assert_eq!(passing(&mut links).len(), 6);
    }

    #[test]
    fn a_partition_separates_groups_and_strays() {
        let mut links = Links::new(5, 1, Faults::default());
        links.partition(&[vec![0, 1], vec![2, 3]]);
        assert_eq!(passing(&mut links), [(0, 1), (1, 0), (2, 3), (3, 2)]);
    }

    #[test]
    fn faults_of_one_link_leave_the_others_alone() {
        let mut links = Links::new(3, 1, Faults::default());
        let dead = Faults { loss: Probability::ALWAYS, ..Faults::default() };
        links.set_faults(OneWay { from: 0, to: 1 }, dead);
        assert_eq!(passing(&mut links), [(0, 2), (1, 0), (1, 2), (2, 0), (2, 1)]);
        links.set_faults(All, Faults::default());
        assert_eq!(passing(&mut links).len(), 6);
    }

    #[test]
    fn what_happens_on_one_link_does_not_depend_on_traffic_of_another() {
        let half = Faults { loss: Probability::percent(50).unwrap(), ..Faults::default() };
        let outcome = |noise: bool| {
            let mut links = Links::new(3, 9, half);
            (0..100)
                .map(|_| {
                    if noise {
                        links.decide(2, 1, Duration::ZERO);
                    }
                    links.decide(0, 1, Duration::ZERO)
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(outcome(false), outcome(true));
    }
}
