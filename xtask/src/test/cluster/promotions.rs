// SPDX-License-Identifier: MIT OR Apache-2.0
//! Backups that take the place of servers whose nodes are lost.

use std::time::Duration;

use dvs_api::NodeState;
use dvs_qemu::links::LinkSelector;

use super::bed::{Bed, NOTICE};
use super::control::Control;
use super::guest::Guest;
use super::mismatch::{expect, Mismatch};

/// Nobody else's.
const CONTAINER: u32 = 51;
/// The server's slot.
const SLOT: u32 = 6;
/// For all of it, with a node that boots.
const LIMIT: Duration = Duration::from_secs(600);

/// A program that makes the calls it is told to.
struct Party {
    node: usize,
    guest: Guest,
    endpoint: u64,
}

impl Party {
    /// Starts one that binds as `bind` says.
    fn start(bed: &Bed, node: usize, bind: &str) -> Result<Self, Mismatch> {
        let container = CONTAINER.to_string();
        let words = ["dvk-scenarios", "party", "--container", &container];
        let mut party = Self { node, guest: bed.start_on(node, &words, LIMIT)?, endpoint: 0 };
        party.begin(bind)?;
        let line = party.guest.line()?;
        let endpoint = line.strip_prefix("done ").and_then(|word| word.parse().ok());
        let unbound = || Mismatch::new(format!("`{bind}` on node{node}"), "an endpoint", &line);
        party.endpoint = endpoint.ok_or_else(unbound)?;
        Ok(party)
    }

    /// Gives it an order.
    fn begin(&self, order: &str) -> Result<(), Mismatch> {
        self.guest.say(order)
    }

    /// What it was told to do must have ended like this.
    fn ends(&mut self, order: &str, how: &str) -> Result<(), Mismatch> {
        let line = self.guest.line()?;
        let step = format!("`{order}` of the party on node{}", self.node);
        expect(line == how, &step, how, line)
    }

    /// It is told to do something, which must end like this.
    fn does(&mut self, order: &str, how: &str) -> Result<(), Mismatch> {
        self.begin(order)?;
        self.ends(order, how)
    }

    /// It receives a request of this kind and answers with the next higher one, which `client`, who is in `sendrec` already,
    /// gets.
    fn serve(&mut self, client: &mut Self, kind: u32) -> Result<(), Mismatch> {
        self.does("receive", &format!("done {} {kind}", client.endpoint))?;
        self.does(&format!("reply {} {}", client.endpoint, kind + 1), "done")?;
        client.ends("sendrec", &format!("done {}", kind + 1))
    }
}

/// The server's node is cut off, its backup takes over, and what the old one says when it is back is not believed. Then
/// the node of the new one loses power.
pub(super) fn of_backups(bed: &mut Bed) -> Result<(), Mismatch> {
    let mut control = Control::create(bed, CONTAINER, LIMIT)?;
    let mut primary = Party::start(bed, 1, &format!("server {SLOT}"))?;
    let server = primary.endpoint;
    control.locate(server, 1)?;
    let mut backup = Party::start(bed, 2, &format!("backup {SLOT}"))?;
    let value = server.to_string();
    expect(backup.endpoint == server, "binding a backup", &value, backup.endpoint)?;
    let mut client = Party::start(bed, 0, "bind")?;
    let mut other = Party::start(bed, 3, "bind")?;
    let mut neighbour = Party::start(bed, 1, "bind")?;
    let ask = |kind: u32| format!("sendrec {server} {kind}");

    client.begin(&ask(10))?;
    primary.serve(&mut client, 10)?;
    // One that was received, and one that was not.
    client.begin(&ask(20))?;
    primary.does("receive", &format!("done {} 20", client.endpoint))?;
    let send = format!("send {server} 30");
    other.begin(&send)?;
    bed.cluster().switch().partition(vec![vec![1], vec![0, 2, 3]]);
    bed.await_state(&[0, 2, 3], 1, NodeState::Down, NOTICE)?;
    bed.await_state(&[1], 0, NodeState::Down, NOTICE)?;
    bed.await_state(&[1], 3, NodeState::Down, NOTICE)?;
    client.ends("sendrec", "failed EHOSTUNREACH")?;
    other.ends(&send, "failed EHOSTUNREACH")?;

    let promote = |node: usize, epoch: u32| format!("promote {CONTAINER} {server} {node} {epoch}");
    control.order_all([0, 3].into_iter(), |_| promote(2, 1))?;
    control.order(2, &promote(2, 1))?;
    client.begin(&ask(40))?;
    backup.serve(&mut client, 40)?;

    // Nobody has told the old one: it believes that it is the endpoint, and so does its neighbour.
    neighbour.begin(&ask(50))?;
    primary.does("receive", &format!("done {} 50", neighbour.endpoint))?;
    bed.cluster().switch().heal(LinkSelector::All);
    bed.await_all_ready("waiting for node1 to be back")?;
    client.begin(&ask(60))?;
    backup.does("receive", &format!("done {} 60", client.endpoint))?;
    primary.does(&format!("notify {} 1", client.endpoint), "done")?;
    primary.does(&format!("reply {} 61", client.endpoint), "failed EAGAIN")?;
    for verb in ["send", "sendrec"] {
        primary.does(&format!("{verb} {} 70", client.endpoint), "failed EACCES")?;
        primary.does(&format!("{verb} {} 71", other.endpoint), "failed EACCES")?;
    }
    // What came, came from the new one: the reply, and of the bits only its own.
    backup.does(&format!("reply {} 65", client.endpoint), "done")?;
    client.ends("sendrec", "done 65")?;
    backup.does(&format!("notify {} 2", client.endpoint), "done")?;
    client.does("receive", &format!("done {server} bits 2"))?;
    let send = format!("send {} 80", other.endpoint);
    backup.begin(&send)?;
    other.does("receive", &format!("done {server} 80"))?;
    backup.ends(&send, "done")?;

    control.order(1, &promote(2, 1))?;
    neighbour.ends("sendrec", "failed EOWNERDEAD")?;
    for order in ["receive", &send, &format!("reply {} 51", neighbour.endpoint)] {
        primary.does(order, "failed ESTALE")?;
    }
    neighbour.begin(&ask(90))?;
    backup.serve(&mut neighbour, 90)?;

    // The next one that is lost does not come back to say anything.
    let mut next = Party::start(bed, 3, &format!("backup {SLOT}"))?;
    client.begin(&ask(100))?;
    backup.does("receive", &format!("done {} 100", client.endpoint))?;
    bed.act("cutting node2's power", |cluster| cluster.node(2).kill())?;
    bed.await_state(&[0, 1, 3], 2, NodeState::Down, NOTICE)?;
    client.ends("sendrec", "failed EHOSTUNREACH")?;
    control.order_all([0, 1].into_iter(), |_| promote(3, 2))?;
    control.order(3, &promote(3, 2))?;
    for asker in [&mut client, &mut neighbour] {
        asker.begin(&ask(110))?;
        next.serve(asker, 110)?;
    }
    bed.act("giving node2 power", |cluster| cluster.node(2).start())?;
    bed.await_all_ready("waiting for node2 to come back")?;
    client.begin(&ask(120))?;
    next.serve(&mut client, 120)?;
    // Its container went with its power.
    control.destroy(&[0, 1, 3])
}
