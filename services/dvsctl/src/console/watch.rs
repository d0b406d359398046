// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the node is asked again and again while its screen is shown.

use std::sync::mpsc::Sender;
use std::thread;
use std::time::Duration;

use dvs_api::{Events, Node, NodeState};

use super::Message;
use crate::cluster::{Cluster, Error};

/// How often the node is asked which nodes are ready.
const NODES: Duration = Duration::from_secs(5);
/// How long the node is asked to wait for an event.
const WAIT_MS: u64 = 20_000;
/// How soon it is asked again that could not answer.
const PAUSE: Duration = Duration::from_secs(2);

/// Tells what the node says, from now on.
pub(super) fn begin(node: &Cluster, tell: &Sender<Message>) {
    let (asked, heard) = (node.clone(), tell.clone());
    thread::spawn(move || events(&asked, &heard));
    let (asked, heard) = (node.clone(), tell.clone());
    thread::spawn(move || nodes(&asked, &heard));
}

fn events(node: &Cluster, tell: &Sender<Message>) {
    let mut after = 0;
    loop {
        let path = format!("/v1/events?after={after}&wait_ms={WAIT_MS}");
        match node.any_within::<Events>(&path, WAIT_MS) {
            // Of another cluster than before: its events have numbers of their own.
            Ok(found) if found.last < after => after = 0,
            Ok(found) => {
                after = found.last;
                if !found.events.is_empty() && tell.send(Message::Heard(found.events)).is_err() {
                    return;
                }
            }
            // The other thread tells why.
            Err(_) => thread::sleep(PAUSE),
        }
    }
}

fn nodes(node: &Cluster, tell: &Sender<Message>) {
    loop {
        let message = match node.any::<Vec<Node>>("/v1/nodes") {
            Ok(nodes) => Ok(absent(&nodes)),
            // It is in no cluster yet.
            Err(Error::Refused { .. }) => Ok(Vec::new()),
            Err(Error::Unreachable(why)) => Err(why),
            Err(error) => Err(error.to_string()),
        };
        if tell.send(Message::Nodes(message)).is_err() {
            return;
        }
        thread::sleep(NODES);
    }
}

/// Those that are not ready.
fn absent(nodes: &[Node]) -> Vec<String> {
    let others = nodes.iter().filter(|node| node.state != NodeState::Ready);
    others.map(|node| format!("{} is {}", node.name, node.state)).collect()
}
