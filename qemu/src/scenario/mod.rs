// SPDX-License-Identifier: MIT OR Apache-2.0
//! Scripts of what is done to a virtual cluster, and when.
//!
//! A [`Script`] follows from a seed and a number alone, so that one that a cluster did not survive can be played again. It does
//! nothing itself. Power, links, faults and cables are the cluster's; what a node has to do to itself ([`Action::Mtu`],
//! [`Action::Transport`]) is known to whoever plays the script.

mod generator;

use std::fmt;
use std::time::Duration;

use crate::faults::Faults;
use crate::links::LinkSelector;

/// What is done to a cluster.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Cut a node's power.
    Kill(usize),
    /// Give it power.
    Start(usize),
    /// Stop its processors.
    Pause(usize),
    /// Let them run on.
    Resume(usize),
    /// Let nothing pass on these links.
    Cut(LinkSelector),
    /// Let nothing pass between nodes of different groups.
    Partition(Vec<Vec<usize>>),
    /// Undo all cuts and partitions.
    Heal,
    /// Give these links faults; none, to undo that.
    Faults(LinkSelector, Faults),
    /// Plug in or pull a node's cable.
    Cable {
        /// The node.
        node: usize,
        /// Whether it is plugged in.
        up: bool,
    },
    /// Set what a node takes for the longest frame.
    Mtu {
        /// The node.
        node: usize,
        /// Bytes behind the Ethernet header.
        bytes: u32,
    },
    /// Have the traffic between two nodes carried by something else.
    Transport {
        /// The two.
        ends: [usize; 2],
        /// By what.
        over: Over,
    },
}

/// What carries the traffic between two nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// What does when nobody says otherwise.
    Ethernet,
    /// A connection between two programs.
    Tcp,
    /// Datagrams between two programs.
    Udp,
}

impl fmt::Display for Over {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ethernet => "ethernet",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill(node) => write!(f, "kill node{node}"),
            Self::Start(node) => write!(f, "start node{node}"),
            Self::Pause(node) => write!(f, "pause node{node}"),
            Self::Resume(node) => write!(f, "resume node{node}"),
            Self::Cut(links) => write!(f, "cut {links}"),
            Self::Partition(groups) => {
                let groups = groups.iter().map(|group| {
                    group.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
                });
                write!(f, "partition {}", groups.collect::<Vec<_>>().join(" | "))
            }
            Self::Heal => f.write_str("heal"),
            Self::Faults(links, faults) => write!(f, "{faults} on {links}"),
            Self::Cable { node, up } => {
                write!(f, "{} node{node}'s cable", if *up { "plug in" } else { "pull" })
            }
            Self::Mtu { node, bytes } => write!(f, "mtu {bytes} on node{node}"),
            Self::Transport { ends: [a, b], over } => write!(f, "{over} between {a} and {b}"),
        }
    }
}

/// An action and its time.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Since the beginning of the script.
    pub at: Duration,
    /// What is done then.
    pub action: Action,
}

/// What is done to a cluster, in the order of time. What is done is undone in the end.
#[derive(Clone, Debug, PartialEq)]
pub struct Script {
    /// What it is made of, for people.
    pub name: String,
    /// The steps.
    pub steps: Vec<Step>,
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, Step { at, action }) in self.steps.iter().enumerate() {
            let separator = if number == 0 { "" } else { "\n" };
            write!(f, "{separator}{:>6} ms  {action}", at.as_millis())?;
        }
        Ok(())
    }
}
