// SPDX-License-Identifier: MIT OR Apache-2.0
//! Machines on the cluster's segment that don't belong there: with a wrong cluster token, of another cluster, with a
//! configuration that nobody can read, and without encryption.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use dvs_api::{Node, NodeState};
use dvs_qemu::transcript::plain;
use dvs_qemu::Power;

use super::bed::{Bed, MEMBERS, PATIENCE};
use super::mismatch::{expect, Mismatch};

/// How many there are.
pub(super) const COUNT: usize = 4;
const WRONG_TOKEN: usize = MEMBERS;
const OTHER_CLUSTER: usize = MEMBERS + 1;
const WRONG_KEY: usize = MEMBERS + 2;
const INSECURE: usize = MEMBERS + 3;

/// What makes them strangers; their configuration is that of the members otherwise.
pub(super) fn kernel_arguments() -> BTreeMap<usize, Vec<String>> {
    let arguments = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
    BTreeMap::from([
        (WRONG_TOKEN, arguments(&["dvs.cluster.token=not-the-token-of-this-cluster"])),
        (OTHER_CLUSTER, arguments(&["dvs.cluster.name=other", "dvs.cluster.bootstrap_expect=1"])),
        (WRONG_KEY, arguments(&["dvs.cluster.tokn=a-token-behind-a-wrong-key"])),
        (INSECURE, arguments(&["dvs.cluster.insecure=true"])),
    ])
}

/// They are told what is wrong with them, once, and nobody else notices.
pub(super) fn do_no_harm(bed: &mut Bed) -> Result<(), Mismatch> {
    let before = identities(bed)?;
    let exchanges = [bed.start_ping(0, 3, 2_000, 5)?, bed.start_ping(2, 1, 2_000, 5)?];
    let started = Instant::now();
    let start = |stranger: usize| {
        let step = format!("starting stranger {stranger}");
        bed.act(&step, |cluster| cluster.node(stranger).start())
    };
    [WRONG_TOKEN, OTHER_CLUSTER, WRONG_KEY].into_iter().try_for_each(start)?;
    wrong_token(bed, started)?;
    other_cluster(bed)?;
    wrong_key(bed)?;
    // Only now: to the one with the wrong token it is one more node of the cluster.
    start(INSECURE)?;
    insecure(bed)?;
    exchanges.into_iter().try_for_each(super::bed::Ping::succeed)?;
    bed.await_all_ready("looking at the members beside strangers")?;
    let after = identities(bed)?;
    expect(
        before == after,
        "comparing the members before and after",
        &format!("{before:?}"),
        format!("{after:?}"),
    )?;
    for stranger in MEMBERS..MEMBERS + COUNT {
        let step = format!("cutting stranger {stranger}'s power");
        bed.act(&step, |cluster| cluster.node(stranger).kill())?;
    }
    bed.ping_all(&[0, 1, 2, 3], 20)
}

/// Who is in the cluster and since when.
fn identities(bed: &Bed) -> Result<Vec<(u32, String, u32, String)>, Mismatch> {
    let nodes = bed
        .seen_by(0)
        .map_err(|why| Mismatch::new("listing the members", "a list of nodes", why))?;
    let identity = |node: Node| (node.id, node.mac, node.incarnation, node.cluster);
    Ok(nodes.into_iter().map(identity).collect())
}

fn wrong_token(bed: &Bed, started: Instant) -> Result<(), Mismatch> {
    const REASON: &str = "don't match this node's cluster token";
    let step = "asking the node with a wrong token for its cluster";
    let deadline = Instant::now() + PATIENCE;
    loop {
        let ended = bed.dvsctl(WRONG_TOKEN, &["node", "list"])?;
        if ended.is_one_clear_error() && ended.stderr.contains(REASON) {
            break;
        }
        let expected = format!("one error that says that others' messages {REASON}");
        expect(Instant::now() < deadline, step, &expected, &ended)?;
        std::thread::sleep(Duration::from_millis(500));
    }
    let console = bed.cluster().console(WRONG_TOKEN);
    let banner = format!("discovering, {MEMBERS} nodes are heard, but their messages {REASON}");
    let said = console.wait_for(&banner, PATIENCE);
    said.map_err(|error| Mismatch::new("reading its console", banner, error))?;
    let lines = console_lines(bed, WRONG_TOKEN);
    // What lasts is said again after a minute, for who looks only then.
    let rare = |told: usize| (1..=1 + started.elapsed().as_secs() / 60).contains(&(told as u64));
    let errors = lines.iter().filter(|line| line.contains("error:")).count();
    expect(
        rare(errors),
        "counting the errors on its console",
        "one a minute",
        format!("{errors}\n{}", lines.join("\n")),
    )?;
    // The members tell their own people who it is.
    let mac = &bed.cluster().description().nodes[WRONG_TOKEN].mac;
    for member in 0..MEMBERS {
        let log = bed.dvsctl(member, &["logs", "dvsd", "-n", "10000"])?;
        let told = log
            .stdout
            .lines()
            .filter(|line| line.contains(mac) && line.contains("uses another cluster token"))
            .count();
        expect(
            rare(told),
            &format!("reading node{member}'s log"),
            "one line a minute about the stranger",
            log,
        )?;
    }
    Ok(())
}

/// It forms its own cluster, on the same segment and with the same token.
fn other_cluster(bed: &Bed) -> Result<(), Mismatch> {
    let step = "asking the node of another cluster";
    let members = identities(bed)?;
    bed.await_view(step, &[OTHER_CLUSTER], PATIENCE, "a cluster of one ready node", |nodes| {
        nodes.len() == 1
            && nodes[0].state == NodeState::Ready
            && members.iter().all(|(_, _, _, cluster)| *cluster != nodes[0].cluster)
    })?;
    // Two clusters on one segment are nothing to warn of.
    let lines = console_lines(bed, OTHER_CLUSTER);
    let loud = |line: &&String| line.contains("error:") || line.contains("warning:");
    let complaint = lines.iter().find(loud);
    expect(complaint.is_none(), "reading its console", "no complaint", format!("{complaint:?}"))?;
    // There it is node 0.
    let ping = bed.dvsctl(OTHER_CLUSTER, &["ipc", "ping", "--to", "0"])?;
    expect(ping.succeeded(), "exchanging messages within the other cluster", "success", ping)
}

/// It says where the mistake is and what was meant, and stays on so that this can be read.
fn wrong_key(bed: &Bed) -> Result<(), Mismatch> {
    let step = "reading the console of the node with an unknown key";
    let console = bed.cluster().console(WRONG_KEY);
    for text in [
        "configuration error: kernel command line, column ",
        "there is no key `cluster.tokn`; did you mean `cluster.token`?",
    ] {
        let said = console.wait_for(text, PATIENCE);
        said.map_err(|error| Mismatch::new(step, text, error))?;
    }
    let secret = "a-token-behind-a-wrong-key";
    let lines = console_lines(bed, WRONG_KEY).join("\n");
    expect(!lines.contains(secret), step, "no value that may be a secret", &lines)?;
    let power = bed.cluster().status().map(|status| status.nodes[WRONG_KEY].power);
    let came = format!("{power:?}");
    expect(power.is_ok_and(|power| power == Power::Running), step, "the node stays on", came)
}

/// It has the right token but would speak in the clear: it is left out, and both sides say so.
fn insecure(bed: &Bed) -> Result<(), Mismatch> {
    const REASON: &str = "their messages are encrypted, and this node's are not (cluster.insecure)";
    let step = "asking the node that does not encrypt for its cluster";
    let deadline = Instant::now() + PATIENCE;
    loop {
        let ended = bed.dvsctl(INSECURE, &["node", "list"])?;
        if ended.is_one_clear_error() && ended.stderr.contains(REASON) {
            break;
        }
        let expected = format!("one error that says that {REASON}");
        expect(Instant::now() < deadline, step, &expected, &ended)?;
        std::thread::sleep(Duration::from_millis(500));
    }
    let mac = &bed.cluster().description().nodes[INSECURE].mac;
    for member in 0..MEMBERS {
        let log = bed.dvsctl(member, &["logs", "dvsd", "-n", "10000"])?;
        let told = log.stdout.lines().any(|line| {
            line.contains(mac) && line.contains("does not encrypt its messages (cluster.insecure)")
        });
        expect(told, &format!("reading node{member}'s log"), "a line about the stranger", log)?;
    }
    Ok(())
}

/// What a node has said on its console since the cluster's start.
fn console_lines(bed: &Bed, node: usize) -> Vec<String> {
    let console = bed.cluster().console(node);
    let (mut bytes, mut position) = (Vec::new(), 0);
    while position < console.end() {
        let passage = console.read(position, Duration::ZERO);
        bytes.extend(passage.bytes);
        position = passage.end;
    }
    plain(&bytes).lines().map(|line| line.trim_end().to_owned()).collect()
}
