// SPDX-License-Identifier: MIT OR Apache-2.0
//! Nodes that are drained, restarted and removed, by the program itself against whole daemons on a pretended segment.

#[path = "../../dvsd/tests/fake/mod.rs"]
mod fake;
mod program;

use std::process::{Output, Stdio};

use dvs_api::{ClusterStatus, Event, Node, NodeStanding, NodeState, PowerAction, Status};
use fake::{eventually, Boot, Segment};
use program::{program, stdout};
use serde::de::DeserializeOwned;

fn dvsctl(endpoints: &[String], words: &[&str]) -> Output {
    program(endpoints, words).output().unwrap()
}

fn ask<T: DeserializeOwned>(endpoints: &[String], words: &[&str]) -> Option<T> {
    let words = [words, &["-o", "json"]].concat();
    serde_json::from_slice(&dvsctl(endpoints, &words).stdout).ok()
}

fn status(endpoints: &[String]) -> Option<ClusterStatus> {
    ask(endpoints, &["cluster", "status"])
}

/// Waits until so many vote as the first of these nodes sees it, and all nodes are ready.
fn await_voters(endpoints: &[String], count: usize) -> ClusterStatus {
    let voting = |status: &Option<ClusterStatus>| {
        let found = status.as_ref().map(|it| it.members.iter().filter(|it| it.voter).count());
        found == Some(count)
            && status.as_ref().is_some_and(|it| it.leader.is_some() && it.version >= 2)
    };
    eventually(|| status(&endpoints[..1]), voting).unwrap()
}

fn boot_again(segment: &Segment, number: u8) -> String {
    let token = "the token of this cluster";
    segment.boot(&Boot { number, token, expect: 4, dvk: true, insecure: false })
}

fn await_ready(endpoints: &[String], count: usize) {
    let ready = |nodes: &Option<Vec<Node>>| {
        nodes.as_ref().is_some_and(|nodes| {
            nodes.len() == count && nodes.iter().all(|node| node.state == NodeState::Ready)
        })
    };
    eventually(|| ask::<Vec<Node>>(endpoints, &["node", "list"]), ready);
}

#[test]
fn a_drained_leader_leads_no_more_and_votes_again_when_it_is_undrained() {
    let segment = Segment::new();
    let urls = segment.boot_all(3);
    await_ready(&urls, 3);
    let before = await_voters(&urls, 3);
    let leader = before.leader.unwrap();
    let drained = stdout(&dvsctl(&urls, &["node", "drain", &leader.to_string()]));
    let expected = format!(
        "node {leader} is drained: nothing new is placed on it, and it neither votes nor leads\n"
    );
    assert_eq!(drained, expected);
    let after = status(&urls).unwrap();
    assert!(after.leader.is_some_and(|it| it != leader), "{after:?}");
    assert!(after.members.iter().all(|it| it.voter != (it.node == leader)), "{after:?}");
    let list = stdout(&dvsctl(&urls, &["node", "list"]));
    assert_eq!(list.matches(" draining ").count(), 1, "{list}");
    // Two are left, of which one may still go; then there is none.
    let next = after.leader.unwrap();
    stdout(&dvsctl(&urls, &["node", "drain", &next.to_string()]));
    let last = (0..3).find(|id| *id != leader && *id != next).unwrap();
    let error = program::failure(&dvsctl(&urls, &["node", "drain", &last.to_string()]), 1);
    assert!(error.contains("no other node is there that could vote and lead instead"), "{error}");
    assert!(error.contains("use --force"), "{error}");

    for node in [leader, next] {
        let undrained = stdout(&dvsctl(&urls, &["node", "undrain", &node.to_string()]));
        assert_eq!(undrained, format!("node {node} is a node like any other again\n"));
    }
    await_voters(&urls, 3);
    let renamed = stdout(&dvsctl(&urls, &["node", "rename", "1", "east"]));
    assert_eq!(renamed, "node 1 is named east\n");
    assert!(stdout(&dvsctl(&urls, &["node", "list"])).contains("east"));
    let error = program::failure(&dvsctl(&urls, &["node", "rename", "2", "east"]), 1);
    assert!(error.contains("there is a node east already"), "{error}");
    let error = program::failure(&dvsctl(&urls, &["node", "drain", "7"]), 1);
    assert!(error.contains("there is no node 7"), "{error}");
    let kinds: Vec<Event> = ask(&urls, &["events", "--kind", "node-draining"]).unwrap();
    assert_eq!(kinds.len(), 2);
}

#[test]
fn a_node_restarts_when_its_vote_has_gone_and_not_if_it_is_the_only_one() {
    let segment = Segment::new();
    let urls = segment.boot_all(2);
    await_ready(&urls, 2);
    let leader = await_voters(&urls, 2).leader.unwrap();
    let reboot = ["node", "reboot", &leader.to_string()];
    let rebooting = program(&urls, &reboot).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let rebooting = rebooting.unwrap();
    let number = leader as u8 + 1;
    let asked = eventually(|| segment.asked(), |asked| !asked.is_empty());
    assert_eq!(asked, [(number, PowerAction::Reboot)]);
    // The other one has what was agreed on, and goes on alone.
    let other = [urls[1 - leader as usize].clone()];
    let left = status(&other).unwrap();
    assert_eq!((left.leader, left.majority), (Some(1 - leader), true), "{left:?}");
    stdout(&dvsctl(&other, &["kv", "put", "meanwhile", "kept"]));
    segment.kill(number);
    let back = [boot_again(&segment, number)];
    let told = rebooting.wait_with_output().unwrap();
    assert_eq!(stdout(&told), format!("node {leader} has restarted and is ready\n"));
    await_voters(&other, 2);
    assert_eq!(stdout(&dvsctl(&back, &["kv", "get", "meanwhile"])), "kept");
    let standing = |standing: &NodeStanding| (standing.kept, standing.votes);
    let seen: NodeStanding = agent_get(&other[0], &format!("/v1/nodes/{leader}/standing"));
    assert_eq!(standing(&seen), (false, true), "it is drained no more");

    segment.kill(number);
    let alone = || dvsctl(&other, &["node", "shutdown", &(1 - leader).to_string(), "--no-wait"]);
    let refused = |output: &Output| String::from_utf8_lossy(&output.stderr).contains("no majority");
    let error = program::failure(&eventually(alone, refused), 1);
    assert!(error.contains("1 of the 2 voters are heard"), "{error}");
    assert!(segment.asked().is_empty());
    let force = ["node", "shutdown", &(1 - leader).to_string(), "--no-wait", "--force"];
    let told = stdout(&dvsctl(&other, &force));
    assert_eq!(told, format!("node {} switches itself off\n", 1 - leader));
    assert_eq!(segment.asked().len(), 1);
}

fn agent_get<T: DeserializeOwned>(url: &str, path: &str) -> T {
    let agent = ureq::Agent::config_builder().proxy(None).build().new_agent();
    let mut answer = agent.get(format!("{url}{path}")).call().unwrap();
    serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap()
}

#[test]
fn a_removed_node_stays_out_until_it_is_reset() {
    let segment = Segment::new();
    let mut urls = segment.boot_all(4);
    await_ready(&urls, 4);
    let victim = await_voters(&urls, 3).leader.unwrap();
    let number = victim as u8 + 1;
    let (at, victim) = (victim as usize, victim.to_string());
    let told = stdout(&dvsctl(&urls, &["node", "remove", &victim]));
    assert!(
        told.contains(&format!("node {victim}, node{victim}, was removed; machine ")),
        "{told}"
    );
    let removed = [urls.remove(at)];
    for url in &urls {
        let nodes = || ask::<Vec<Node>>(std::slice::from_ref(url), &["node", "list"]).unwrap();
        eventually(nodes, |nodes| nodes.len() == 3);
    }
    await_voters(&urls, 3);
    let says = |url: &str| agent_get::<Status>(url, "/v1/status").detail;
    eventually(|| says(&removed[0]), |detail| detail.contains("was removed from the cluster"));
    let error = program::failure(&dvsctl(&urls, &["node", "show", &victim]), 1);
    assert!(error.contains("there is no node"), "{error}");

    // Power does not help it.
    segment.kill(number);
    let again = boot_again(&segment, number);
    eventually(|| says(&again), |detail| detail.contains("was removed from the cluster"));
    let told = stdout(&dvsctl(&urls, &["node", "reset", &victim]));
    let expected = format!("node {victim} is back and ready, with nothing of what it was\n");
    assert_eq!(told, expected);
    urls.push(again);
    await_ready(&urls, 4);
    let nodes: Vec<Node> = ask(&urls, &["node", "list"]).unwrap();
    assert_eq!(nodes[at].incarnation, 2);
    let events: Vec<Event> = ask(&urls, &["events", "--after", "1"]).unwrap();
    let kinds: Vec<_> = events.iter().map(|it| it.kind.as_str()).collect();
    assert!(kinds.contains(&"node-removed") && kinds.contains(&"machine-allowed"), "{kinds:?}");

    // One that is dead is removed as well.
    segment.kill(2);
    let first: Vec<String> = urls.iter().filter(|url| alive(url)).cloned().collect();
    let told = stdout(&dvsctl(&first, &["node", "remove", "1"]));
    assert!(told.starts_with("node 1, node1, was removed"), "{told}");
}

#[test]
fn a_node_is_reset_with_the_disk_that_boots_it_and_with_no_other() {
    let segment = Segment::new();
    let urls = segment.boot_all(3);
    await_ready(&urls, 3);
    await_voters(&urls, 3);
    let directory = segment.run_directory(2);
    let add = |name: &str, content: &[u8]| {
        let about = directory.join("block").join(name);
        let size = (content.len() / 512).to_string();
        let files =
            [("ro", "0"), ("size", &size), ("queue/logical_block_size", "512"), ("device/x", "")];
        for (file, text) in files {
            std::fs::create_dir_all(about.join(file).parent().unwrap()).unwrap();
            std::fs::write(about.join(file), text).unwrap();
        }
        std::fs::create_dir_all(directory.join("devices")).unwrap();
        std::fs::write(directory.join("devices").join(name), content).unwrap();
    };
    let boots = dvs_image::disk::build(&vec![7; 96 << 20]).unwrap();
    add("vda", &boots);
    add("vdb", &vec![1; 100 << 20]);
    let reset = |words: &[&str]| dvsctl(&urls, &[&["node", "reset", "1"], words].concat());
    let error = program::failure(&reset(&["--disk", "/dev/vdb", "--wipe"]), 1);
    assert!(error.contains("it does not boot a node: it has no partition dvs-boot"), "{error}");
    // Nobody is there to be asked.
    let error = program::failure(&reset(&["--disk", "/dev/vda"]), 1);
    assert!(error.contains("configuration and secrets there would be lost; say --wipe"), "{error}");
    let disk = || std::fs::read(directory.join("devices/vda")).unwrap();
    assert!(disk() == boots, "the disk was changed");
    let nodes: Vec<Node> = ask(&urls, &["node", "list"]).unwrap();
    assert!(nodes.iter().all(|node| node.state == NodeState::Ready), "{nodes:?}");
    let told = stdout(&reset(&["--disk", "/dev/vda", "--wipe", "--shutdown"]));
    let expected = "node 1 was removed and switches itself off; /dev/vda boots nothing any more; its machine stays out until `dvsctl node \
                    reset 1`\n";
    assert_eq!(told, expected);
    assert!(disk().iter().all(|byte| *byte == 0), "something is left on the disk");
    assert_eq!(segment.asked(), [(2, PowerAction::Shutdown)]);
    let rest = [urls[0].clone(), urls[2].clone()];
    let nodes: Vec<Node> = ask(&rest, &["node", "list"]).unwrap();
    assert!(nodes.iter().all(|node| node.id != 1), "{nodes:?}");
    let error = program::failure(&dvsctl(&rest, &["node", "reset", "1", "--shutdown"]), 1);
    assert!(error.contains("node 1 was removed and is asked nothing any more"), "{error}");
    // One whose machine goes on may come back at once, as a later life of it.
    let told = stdout(&dvsctl(&urls, &["node", "reset", "2", "--no-wait", "--force"]));
    assert_eq!(told, "node 2 may come back, with nothing of what it was\n");
    assert_eq!(segment.asked(), [(3, PowerAction::Reboot)]);
}

fn alive(url: &str) -> bool {
    let agent = ureq::Agent::config_builder().proxy(None).build().new_agent();
    agent.get(format!("{url}/v1/version")).call().is_ok()
}

#[test]
fn machines_join_with_tokens_that_are_valid_and_are_told_why_with_others() {
    let segment = Segment::new();
    let mut urls = segment.boot_all(2);
    await_ready(&urls, 2);
    await_voters(&urls, 2);
    let chosen = format!("rack3.{}", "s".repeat(32));
    let create = ["token", "create", &chosen, "--uses", "1", "--description", "for rack 3"];
    assert_eq!(stdout(&dvsctl(&urls, &create)), format!("{chosen}\n"));
    let drawn = stdout(&dvsctl(&urls, &["token", "create", "--ttl", "30m"]));
    let drawn = drawn.trim_end();
    assert_eq!((drawn.len(), drawn.find('.')), (41, Some(8)), "{drawn}");
    let error = program::failure(&dvsctl(&urls, &["token", "create", "rack3.short"]), 1);
    assert!(error.contains("an id of 4 to 16 and a secret"), "{error}");
    let error = program::failure(&dvsctl(&urls, &create), 1);
    assert!(error.contains("there is a join token rack3 already"), "{error}");

    let token = segment.apply(3, &chosen).unwrap();
    urls.push(segment.boot(&Boot {
        number: 3,
        token: &token,
        expect: 1,
        dvk: true,
        insecure: false,
    }));
    await_ready(&urls, 3);
    let list = stdout(&dvsctl(&urls, &["token", "list"]));
    let row = list.lines().find(|line| line.starts_with("rack3")).unwrap();
    assert!(row.contains("52:54:00:00:00:03") && row.ends_with("for rack 3"), "{list}");
    assert!(!list.contains("ssss"), "{list}");

    // It is used up for others, and not for the one that has joined with it.
    let why = segment.apply(4, &chosen).unwrap_err();
    assert!(why.contains("as many machines as may have joined with join token rack3"), "{why}");
    segment.kill(3);
    assert_eq!(segment.apply(3, &chosen).as_deref(), Ok(token.as_str()));
    // Neither the id alone helps, nor a token that was revoked.
    let forged = format!("rack3.{}", "t".repeat(32));
    assert!(segment.apply(4, &forged).unwrap_err().contains("is none of its tokens"));
    assert_eq!(segment.apply(4, drawn).as_deref(), Ok(token.as_str()));
    let (id, _) = drawn.split_once('.').unwrap();
    let revoked = stdout(&dvsctl(&urls, &["token", "revoke", id]));
    assert_eq!(revoked, format!("join token {id} is not valid any more\n"));
    assert!(segment.apply(4, drawn).unwrap_err().contains("was revoked"));
    let events: Vec<Event> = ask(&urls, &["events", "--kind", "token-used"]).unwrap();
    assert_eq!(events.len(), 2);
}
