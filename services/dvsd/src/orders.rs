// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the API has the daemon do.

use dvs_api::{PowerAction, Transport};
use tokio::sync::{mpsc, oneshot};

use crate::beacon::Choice;
use crate::membership::Refusal;

/// Orders that may wait for the daemon.
const QUEUE: usize = 16;

/// Something to do, and where to tell what came of it.
#[derive(Debug)]
pub enum Order {
    /// Choose what is to carry the link to a node.
    Choose {
        /// The node at its other end.
        node: u16,
        /// What is to carry it.
        transport: Transport,
        /// Gets the choice that holds now.
        done: oneshot::Sender<Result<Choice, Refusal>>,
    },
    /// Tell the others that this node is going.
    Leave {
        /// Told once they have been told.
        done: oneshot::Sender<()>,
    },
    /// Have the machine restart or switch itself off.
    Power {
        /// Which of the two.
        action: PowerAction,
        /// Gets why it cannot be done, if so.
        done: oneshot::Sender<Result<(), String>>,
    },
}

/// Where orders are given.
pub type Orders = mpsc::Sender<Order>;

/// A queue of orders: its two ends.
pub fn queue() -> (Orders, mpsc::Receiver<Order>) {
    mpsc::channel(QUEUE)
}
