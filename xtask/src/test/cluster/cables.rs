// SPDX-License-Identifier: MIT OR Apache-2.0
//! Nodes on two segments: when a cable is pulled, the link between two nodes goes over the other one.

use dvs_api::{Node, NodeState, PingResult, Segment};

use super::command_line::{run, xtask, PATIENCE};
use super::mismatch::{expect, Mismatch};
use super::program::Ended;
use crate::source::Origin;
use crate::step::Session;

/// Messages flow while first one cable is pulled and then the other. Node 0 sees nothing of the first: its own cable stays plugged in,
/// so that only what it does not hear any more tells it. Each line that this prints is checked.
const SCRIPT: &str = r#"
dvsctl ipc ping --from 0 --to 1 --count 6000 --interval 3 -o json &
ping=$!
sleep 1
cargo xtask qemu link 1 down --segment 0 || exit 2
sleep 5
dvsctl node list -o json || exit 3
cargo xtask qemu link 1 up --segment 0 || exit 4
sleep 4
cargo xtask qemu link 0 down --segment 1 || exit 5
sleep 4
dvsctl node list -o json || exit 6
kill -0 $ping || exit 7
wait $ping || exit 8
"#;

/// Nothing is lost, and nobody is taken for down.
pub(super) fn are_pulled(session: &Session, origin: &Origin) -> Result<(), Mismatch> {
    let arguments = ["qemu", "--nodes", "2", "--segments", "2", "--exec", SCRIPT];
    let step = "pulling cables of nodes with two: cargo xtask qemu --segments 2 --exec …";
    let ended = run(xtask(session, origin, &arguments), step, PATIENCE)?;
    let expected = "exit status 0 (7 if the messages were over before the last cable was pulled)";
    expect(ended.succeeded(), step, expected, &ended)?;
    nothing_is_lost(step, &ended)
}

/// Both adapters of each node are a bond, and the cluster's traffic goes over a VLAN on it. Both segments fail in turn, for all nodes: the
/// bonds go over to the other one, which is not the same moment.
const BOND_SCRIPT: &str = r#"
dvsctl segment show -o json || exit 2
dvsctl ipc ping --from 0 --to 1 --count 6000 --interval 3 -o json &
ping=$!
sleep 1
all() {
    cargo xtask qemu link 0 "$1" --segment "$2" & other=$!
    cargo xtask qemu link 1 "$1" --segment "$2" && wait $other
}
all down 0 || exit 3
sleep 4
dvsctl node list -o json || exit 4
all up 0 || exit 5
sleep 2
all down 1 || exit 6
sleep 4
dvsctl node list -o json || exit 8
kill -0 $ping || exit 7
wait $ping || exit 9
"#;

/// What the nodes of [`BOND_SCRIPT`] are told on their kernel command lines.
const BOND: &str = "dvs.network.bond={name='bond0',interfaces=['eth0','eth1']} dvs.network.vlan={parent='bond0',id=100} \
                    dvs.network.cluster=bond0.100";

/// Nothing is lost on a VLAN over bonds, whichever of their adapters works.
pub(super) fn of_bonds_are_pulled(session: &Session, origin: &Origin) -> Result<(), Mismatch> {
    let arguments =
        ["qemu", "--nodes", "2", "--segments", "2", "--append", BOND, "--exec", BOND_SCRIPT];
    let step = "pulling cables of bonds: cargo xtask qemu --segments 2 --append … --exec …";
    let ended = run(xtask(session, origin, &arguments), step, PATIENCE)?;
    let expected = "exit status 0 (7 if the messages were over before the last cable was pulled)";
    expect(ended.succeeded(), step, expected, &ended)?;
    let mut segments = Vec::new();
    for line in ended.stdout.lines() {
        segments.extend(serde_json::from_str::<Vec<Segment>>(line).ok().into_iter().flatten());
    }
    let is_vlan = |segment: &Segment| {
        let [interface] = &segment.interfaces[..] else { return false };
        interface.name == "bond0.100" && interface.device.as_deref() == Some("sec-bond0.100")
    };
    let expected = "MACsec on the VLAN `bond0.100` and on nothing else";
    expect(!segments.is_empty() && segments.iter().all(is_vlan), step, expected, &ended)?;
    nothing_is_lost(step, &ended)
}

/// Both nodes were ready whenever they were looked at, and all messages arrived, once.
fn nothing_is_lost(step: &str, ended: &Ended) -> Result<(), Mismatch> {
    let (mut views, mut pings) = (Vec::<Vec<Node>>::new(), Vec::<PingResult>::new());
    for line in ended.stdout.lines() {
        views.extend(serde_json::from_str::<Vec<Node>>(line).ok());
        pings.extend(serde_json::from_str::<PingResult>(line).ok());
    }
    let ready = |nodes: &Vec<Node>| {
        nodes.len() == 2 && nodes.iter().all(|node| node.state == NodeState::Ready)
    };
    let expected = "both nodes ready whichever cable is pulled";
    expect(views.len() == 2 && views.iter().all(ready), step, expected, ended)?;
    let exact = |ping: &PingResult| {
        (ping.sent, ping.received) == (6000, 6000)
            && (ping.duplicated, ping.lost, ping.reordered) == (0, 0, 0)
    };
    let expected = "6000 round trips, none lost, repeated or reordered";
    expect(pings.len() == 1 && pings.iter().all(exact), step, expected, ended)
}
