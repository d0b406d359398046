// SPDX-License-Identifier: MIT OR Apache-2.0
//! Machines that do not have the cluster's token, but one that the cluster has given out.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use dvs_api::{Event, NodeState};
use dvs_config::JoinToken;

use super::bed::{Bed, APPLICANTS, MEMBERS, NOTICE, PATIENCE};
use super::mismatch::{expect, Mismatch};

/// How many there are.
pub(super) const COUNT: usize = 2;
/// Who comes first, and who comes when the token is used up.
const FIRST: usize = APPLICANTS;
const LATE: usize = APPLICANTS + 1;
/// Both have it: chosen, so that their machine configuration can be made before there is a cluster.
const ID: &str = "rack3";
const TOKEN: &str = "rack3.abcdefghijklmnopqrstuvwxyz";
const ALL: [usize; MEMBERS] = [0, 1, 2, 3];

/// Their configuration has a join token.
pub(super) fn join_tokens() -> Result<BTreeMap<usize, JoinToken>> {
    let token: JoinToken = TOKEN.parse().context("reading the join token of the scenarios")?;
    Ok(BTreeMap::from([(FIRST, token.clone()), (LATE, token)]))
}

/// One is let in and is a node like any other, comes back after a power cut, and is removed; the other one is told why not.
pub(super) fn let_in(bed: &mut Bed) -> Result<(), Mismatch> {
    let start = |machine: usize| {
        let step = format!("starting machine {machine}, which has a join token");
        bed.act(&step, |cluster| cluster.node(machine).start())
    };
    start(FIRST)?;
    await_banner(bed, FIRST, "was revoked, or is none of its tokens")?;
    done(bed, &["token", "create", TOKEN, "--uses", "1"], TOKEN)?;
    let mac = bed.cluster().description().nodes[FIRST].mac.clone();
    let await_member = |step: &str, after: u32| {
        bed.await_view(step, &ALL, PATIENCE, "a fifth node, ready", |nodes| {
            let new = nodes.iter().find(|node| node.mac == mac);
            new.is_some_and(|new| new.state == NodeState::Ready && new.incarnation > after)
        })
    };
    await_member("waiting for the machine to be let in", 0)?;
    let seen = bed.seen_by(0).map_err(|why| Mismatch::new("listing nodes", "a list", why))?;
    let step = "looking at the node that was let in";
    let new = seen.iter().find(|node| node.mac == mac);
    let new = new.ok_or_else(|| Mismatch::new(step, "it is among them", format!("{seen:?}")))?;
    let (id, incarnation) = (new.id, new.incarnation);
    let node = id.to_string();
    done(bed, &["ipc", "ping", "--to", &node, "--count", "100"], "")?;
    let asked = bed.dvsctl(FIRST, &["node", "list"])?;
    expect(asked.succeeded(), "asking the node that was let in for nodes", "it answers", asked)?;

    start(LATE)?;
    await_banner(bed, LATE, "as many machines as may have joined")?;
    // It counts machines, not how often each comes.
    bed.act("cutting the power of the machine that was let in", |cluster| {
        cluster.node(FIRST).kill()?;
        cluster.node(FIRST).start()
    })?;
    await_member("waiting for it to be let in again", incarnation)?;
    done(bed, &["token", "revoke", ID], "is not valid any more")?;
    await_banner(bed, LATE, "was revoked, or is none of its tokens")?;
    let refused = bed.seen_by(0).map_err(|why| Mismatch::new("listing nodes", "a list", why))?;
    expect(refused.len() == MEMBERS + 1, "counting nodes", "five", format!("{refused:?}"))?;

    let ended = bed.dvsctl(0, &["events", "--kind", "token-used", "-o", "json"])?;
    let events: Vec<Event> = serde_json::from_str(&ended.stdout).unwrap_or_default();
    expect(events.len() == 1, "the events of the token", "it was used once", ended)?;
    for machine in [FIRST, LATE] {
        let step = format!("cutting the power of machine {machine}");
        bed.act(&step, |cluster| cluster.node(machine).kill())?;
    }
    done(bed, &["node", "remove", &node], "")?;
    bed.await_view("removing the node", &ALL, NOTICE, "four nodes", |nodes| nodes.len() == MEMBERS)
}

fn done(bed: &Bed, words: &[&str], says: &str) -> Result<(), Mismatch> {
    let ended = bed.dvsctl(0, words)?;
    let good = ended.succeeded() && ended.stdout.contains(says);
    expect(good, &format!("dvsctl {}", words.join(" ")), says, ended)
}

/// What people see who stand before the machine.
fn await_banner(bed: &Bed, machine: usize, text: &str) -> Result<(), Mismatch> {
    let said = bed.cluster().console(machine).wait_for(text, PATIENCE);
    said.map(drop).map_err(|error| Mismatch::new("reading the console of a machine", text, error))
}
