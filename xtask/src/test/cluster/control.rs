// SPDX-License-Identifier: MIT OR Apache-2.0
//! A container of a scenario's own, and the control calls that `dvsd` does not make.

use std::time::Duration;

use super::bed::{Bed, MEMBERS};
use super::guest::Guest;
use super::mismatch::Mismatch;

/// A program on each member that makes control calls about one container.
pub(super) struct Control {
    container: u32,
    guests: Vec<Guest>,
}

impl Control {
    /// Makes a container that spans all members, none of whose programs may run longer than `limit`.
    pub(super) fn create(bed: &Bed, container: u32, limit: Duration) -> Result<Self, Mismatch> {
        let start = |node| bed.start_on(node, &["dvk-scenarios", "control"], limit);
        let guests = (0..MEMBERS).map(start).collect::<Result<_, _>>()?;
        let mut control = Self { container, guests };
        control.order_all(0..MEMBERS, |_| format!("create {container} {MEMBERS} 1"))?;
        Ok(control)
    }

    /// Leaves these nodes as they were.
    pub(super) fn destroy(mut self, nodes: &[usize]) -> Result<(), Mismatch> {
        let container = self.container;
        self.order_all(nodes.iter().copied(), |_| format!("destroy {container}"))
    }

    /// Tells all members but `home` that an endpoint is there.
    pub(super) fn locate(&mut self, endpoint: u64, home: usize) -> Result<(), Mismatch> {
        let order = format!("remote {} {endpoint} {home}", self.container);
        self.order_all((0..MEMBERS).filter(|node| *node != home), |_| order.clone())
    }

    /// Gives a node an order and returns what came of it.
    pub(super) fn order(&mut self, node: usize, order: &str) -> Result<String, Mismatch> {
        self.guests[node].say(order)?;
        self.answer(node, order)
    }

    /// Gives several nodes an order at once.
    pub(super) fn order_all(
        &mut self,
        nodes: impl Iterator<Item = usize> + Clone,
        order: impl Fn(usize) -> String,
    ) -> Result<(), Mismatch> {
        for node in nodes.clone() {
            self.guests[node].say(&order(node))?;
        }
        nodes.into_iter().try_for_each(|node| self.answer(node, &order(node)).map(drop))
    }

    fn answer(&mut self, node: usize, order: &str) -> Result<String, Mismatch> {
        let line = self.guests[node].line()?;
        let done = line.strip_prefix("done").map(|rest| rest.trim_start().to_owned());
        done.ok_or_else(|| {
            let shown: String = order.chars().take(80).collect();
            Mismatch::new(format!("`{shown}` on node{node}"), "success", line)
        })
    }
}
