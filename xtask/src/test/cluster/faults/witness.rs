// SPDX-License-Identifier: MIT OR Apache-2.0
//! The witnesses on the nodes, each for as long as its node has power.

use std::time::Duration;

use dvs_qemu::Cluster;

use super::history::History;
use crate::test::cluster::guest::Guest;
use crate::test::cluster::mismatch::Mismatch;

/// The container of the services, which the nodes keep whatever happens to them.
const CONTAINER: &str = "0";
/// How long a witness may take for everything, with a node that boots.
const LIMIT: Duration = Duration::from_secs(300);
/// How long one may take to do as it is told. A client may be in a call that has to time out.
const ANSWER: Duration = Duration::from_secs(60);

/// One witness.
pub(super) struct Witness {
    pub(super) node: usize,
    pub(super) life: u32,
    guest: Guest,
    /// Its endpoint and its grant, as others are told.
    address: String,
}

impl Witness {
    /// Starts one; returns when it serves, which a node that boots takes its time for.
    pub(super) fn start(cluster: &Cluster, node: usize, life: u32) -> Result<Self, Mismatch> {
        let number = node.to_string();
        let words = ["dvk-scenarios", "witness", "--container", CONTAINER, "--node", &number];
        let mut guest = Guest::start(cluster, node, &words, LIMIT)?;
        let line = guest.line_within(ANSWER)?;
        let address = line.strip_prefix("serves ").map(str::to_owned);
        let address = address.ok_or_else(|| {
            Mismatch::new(format!("starting a witness on node{node}"), "its endpoint", &line)
        })?;
        Ok(Self { node, life, guest, address })
    }

    /// Lets it talk to another one, or to itself.
    pub(super) fn target(&self, other: &Self) -> Result<(), Mismatch> {
        self.guest.say(&format!("target {} {}", other.node, other.address))
    }

    /// Gives an order without waiting for what comes of it.
    pub(super) fn order(&self, order: &str) -> Result<(), Mismatch> {
        self.guest.say(order)
    }

    /// Waits until an order is carried out; what is written down meanwhile is kept.
    pub(super) fn answers(&mut self, answer: &str) -> Result<(), Mismatch> {
        while self.guest.line_within(ANSWER)? != answer {}
        Ok(())
    }

    /// Lets it end, and returns what it wrote; `cut` if its node has lost power.
    pub(super) fn end(self, cut: bool) -> (usize, u32, bool, String) {
        let Self { node, life, guest, .. } = self;
        let text = if cut { guest.rest() } else { guest.written() };
        (node, life, cut, text)
    }
}

/// Reads the histories.
pub(super) fn read(texts: &[(usize, u32, bool, String)]) -> Result<Vec<History>, String> {
    texts.iter().map(|(node, life, cut, text)| History::read(*node, *life, *cut, text)).collect()
}
