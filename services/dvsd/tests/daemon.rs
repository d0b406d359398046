// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whole daemons on a pretended segment, asked over their HTTP API.

mod fake;

use dvs_api::{
    Link, LinkChoice, LinkState, Node, NodeState, PingResult, Status, StatusState, Transport,
};
use fake::{eventually, Boot, Segment};
use ureq::Agent;

fn agent() -> Agent {
    Agent::config_builder().http_status_as_error(false).proxy(None).build().new_agent()
}

fn get(url: &str) -> (u16, String) {
    let mut response = agent().get(url).call().unwrap();
    (response.status().as_u16(), response.body_mut().read_to_string().unwrap())
}

fn post(url: &str, body: &str) -> (u16, String) {
    let mut response = agent().post(url).send(body).unwrap();
    (response.status().as_u16(), response.body_mut().read_to_string().unwrap())
}

fn protection(url: &str) -> dvs_api::Segment {
    serde_json::from_str(&get(&format!("{url}/v1/segment")).1).unwrap()
}

fn status(url: &str) -> Status {
    serde_json::from_str(&get(&format!("{url}/v1/status")).1).unwrap()
}

fn nodes(url: &str) -> Vec<Node> {
    let (code, body) = get(&format!("{url}/v1/nodes"));
    assert_eq!(code, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

fn states(url: &str) -> Vec<NodeState> {
    nodes(url).iter().map(|node| node.state).collect()
}

fn all_ready(urls: &[String]) {
    for url in urls {
        let ready = urls.len() as u32;
        eventually(|| status(url), |s| s.state == StatusState::Ready && s.ready == ready);
    }
}

#[test]
fn four_nodes_become_ready_and_ping_each_other_and_one_may_die_and_return() {
    let segment = Segment::new();
    let urls = segment.boot_all(4);
    all_ready(&urls);
    let seen = nodes(&urls[2]);
    for (id, node) in seen.iter().enumerate() {
        assert_eq!((node.id, node.name.clone()), (id as u32, format!("node{id}")));
        assert_eq!(node.mac, format!("52:54:00:00:00:{:02x}", id + 1));
        assert_eq!(node.addresses, [format!("fe80::{}%eth0", id + 1)]);
        assert_eq!((node.incarnation, node.local), (1, id == 2));
        assert_eq!(node.link.is_some(), id != 2);
    }
    for (from, to) in [(0, 3), (3, 0), (1, 1)] {
        let body = format!(r#"{{"to":{to},"count":500}}"#);
        let (code, body) = post(&format!("{}/v1/ipc/ping", urls[from]), &body);
        assert_eq!(code, 200, "{body}");
        let result: PingResult = serde_json::from_str(&body).unwrap();
        assert_eq!((result.from, result.to), (from as u32, to));
        assert_eq!((result.sent, result.received, result.duplicated), (500, 500, 0));
        assert!(result.rtt_us.min > 0.0 && result.rtt_us.min <= result.rtt_us.p99);
    }

    segment.kill(3);
    let down = [NodeState::Ready, NodeState::Ready, NodeState::Down, NodeState::Ready];
    eventually(|| states(&urls[0]), |states| *states == down);
    let (code, body) = post(&format!("{}/v1/ipc/ping", urls[0]), r#"{"to":2}"#);
    assert_eq!(code, 503);
    assert!(body.contains("node 2 is down: nothing was heard of it for"), "{body}");
    let (code, _) = post(&format!("{}/v1/ipc/ping", urls[0]), r#"{"to":1}"#);
    assert_eq!(code, 200);

    let token = "the token of this cluster";
    let again = segment.boot(&Boot { number: 3, token, expect: 4, dvk: true, insecure: false });
    all_ready(&[urls[0].clone(), urls[1].clone(), again.clone(), urls[3].clone()]);
    assert_eq!(nodes(&urls[1])[2].incarnation, 2);
    let (code, body) = post(&format!("{again}/v1/ipc/ping"), r#"{"to":0,"count":50}"#);
    assert_eq!(code, 200, "{body}");
    let (code, body) = post(&format!("{}/v1/ipc/ping", urls[3]), r#"{"to":2,"count":50}"#);
    assert_eq!(code, 200, "{body}");
    let file = std::fs::read(segment.run_directory(3).join("status.json")).unwrap();
    let file: Status = serde_json::from_slice(&file).unwrap();
    assert_eq!((file.node, file.state, file.members), (Some(2), StatusState::Ready, 4));
}

fn put(url: &str, body: &str) -> (u16, String) {
    let mut response = agent().put(url).send(body).unwrap();
    (response.status().as_u16(), response.body_mut().read_to_string().unwrap())
}

/// The link of a node to another one.
fn link(url: &str, node: u32) -> Option<Link> {
    let links: Vec<Link> = serde_json::from_str(&get(&format!("{url}/v1/links")).1).unwrap();
    links.into_iter().find(|link| link.node == node)
}

#[test]
fn both_ends_follow_a_choice_and_one_that_restarts_learns_it() {
    let segment = Segment::new();
    let urls = segment.boot_all(3);
    all_ready(&urls);
    let over = |transport, revision| {
        move |link: &Option<Link>| {
            link.as_ref().is_some_and(|link| {
                (link.state, link.transport) == (LinkState::Up, Some(transport))
                    && (link.chosen, link.revision) == (transport, revision)
            })
        }
    };
    let choose = |from: usize, to: u32, transport: &str| {
        let body = format!(r#"{{"transport":"{transport}"}}"#);
        let (code, body) = put(&format!("{}/v1/links/{to}", urls[from]), &body);
        assert_eq!(code, 200, "{body}");
        serde_json::from_str::<LinkChoice>(&body).unwrap()
    };
    assert!(over(Transport::Ethernet, 0)(&link(&urls[0], 2)));
    let choice = LinkChoice { from: 0, to: 2, transport: Transport::Tcp, revision: 1 };
    assert_eq!(choose(0, 2, "tcp"), choice);
    eventually(|| link(&urls[0], 2), over(Transport::Tcp, 1));
    let far = eventually(|| link(&urls[2], 0), over(Transport::Tcp, 1)).unwrap();
    assert_eq!(far.address.as_deref(), Some("[fe80::1]:7714"));
    assert!(over(Transport::Ethernet, 0)(&link(&urls[0], 1)), "others are left alone");

    assert_eq!(choose(2, 0, "udp").revision, 2);
    eventually(|| link(&urls[0], 2), over(Transport::Udp, 2));
    eventually(|| link(&urls[2], 0), over(Transport::Udp, 2));
    segment.kill(1);
    let gone = |states: &Vec<NodeState>| states[0] == NodeState::Down;
    eventually(|| states(&urls[2]), gone);
    let (code, body) = put(&format!("{}/v1/links/0", urls[2]), r#"{"transport":"tcp"}"#);
    assert_eq!(code, 503);
    assert!(body.contains("node 0 is down: nothing was heard of it for"), "{body}");
    let token = "the token of this cluster";
    let again = segment.boot(&Boot { number: 1, token, expect: 3, dvk: true, insecure: false });
    all_ready(&[again.clone(), urls[1].clone(), urls[2].clone()]);
    eventually(|| link(&again, 2), over(Transport::Udp, 2));
    eventually(|| link(&urls[2], 0), over(Transport::Udp, 2));

    assert_eq!(choose(2, 0, "ethernet").revision, 3);
    eventually(|| link(&again, 2), over(Transport::Ethernet, 3));
    eventually(|| link(&urls[2], 0), over(Transport::Ethernet, 3));
}

#[test]
fn a_transport_that_cannot_be_had_is_told_and_the_link_stays_as_it_is() {
    let segment = Segment::new();
    let urls = segment.boot_all(2);
    all_ready(&urls);
    for (transport, why) in [
        ("tipc", "attach the link to node 1 to TIPC: EINVAL: no such transport"),
        ("quic", "nothing here speaks QUIC"),
    ] {
        let body = format!(r#"{{"transport":"{transport}"}}"#);
        assert_eq!(put(&format!("{}/v1/links/1", urls[0]), &body).0, 200);
        let told = eventually(
            || link(&urls[0], 1).unwrap(),
            |link| link.trouble.is_some() && link.chosen.as_str() == transport,
        );
        assert_eq!(told.trouble.as_deref(), Some(why));
        assert_eq!((told.state, told.transport), (LinkState::Up, Some(Transport::Ethernet)));
        assert_eq!(status(&urls[0]).state, StatusState::Ready);
    }
    assert_eq!(put(&format!("{}/v1/links/1", urls[0]), r#"{"transport":"ethernet"}"#).0, 200);
    eventually(|| link(&urls[0], 1).unwrap(), |link| link.trouble.is_none() && link.revision == 3);
    let (code, _) = post(&format!("{}/v1/ipc/ping", urls[0]), r#"{"to":1}"#);
    assert_eq!(code, 200);
}

#[test]
fn strangers_are_kept_out_and_told_why() {
    let segment = Segment::new();
    let token = "the token of this cluster";
    let boot = |number, token| {
        segment.boot(&Boot { number, token, expect: 2, dvk: true, insecure: false })
    };
    let urls = [boot(1, token), boot(2, token)];
    let stranger = boot(3, "not the token of this cluster");
    all_ready(&urls);
    let suspicious = eventually(|| status(&stranger), |status| status.detail.contains("heard"));
    assert_eq!(suspicious.state, StatusState::Discovering);
    assert_eq!(
        suspicious.detail,
        "2 nodes are heard, but their messages don't match this node's cluster token"
    );
    let (code, body) = get(&format!("{stranger}/v1/nodes"));
    assert_eq!(code, 503);
    assert!(body.contains("not part of cluster dvs yet: 2 nodes are heard"), "{body}");
    assert_eq!(states(&urls[0]), [NodeState::Ready; 2]);
}

#[test]
fn who_does_not_encrypt_is_left_out_and_both_sides_say_so() {
    let segment = Segment::new();
    let token = "the token of this cluster";
    let boot =
        |number, insecure| segment.boot(&Boot { number, token, expect: 2, dvk: true, insecure });
    let urls = [boot(1, false), boot(2, false)];
    let stranger = boot(3, true);
    all_ready(&urls);
    let alone = eventually(|| status(&stranger), |status| status.detail.contains("heard"));
    assert_eq!(alone.state, StatusState::Discovering);
    assert_eq!(
        alone.detail,
        "2 nodes are heard, but their messages are encrypted, and this node's are not \
         (cluster.insecure)"
    );
    assert!(!protection(&stranger).encrypted);
    let (code, body) = post(&format!("{stranger}/v1/segment/rotate"), "");
    assert_eq!(code, 409, "{body}");
    assert_eq!(states(&urls[0]), [NodeState::Ready; 2]);
    // Among themselves, such nodes are a cluster as well.
    let other = boot(4, true);
    all_ready(&[stranger, other]);
}

#[test]
fn keys_change_on_demand_and_forgeries_are_counted() {
    let segment = Segment::new();
    let urls = segment.boot_all(3);
    all_ready(&urls);
    let before = protection(&urls[1]);
    assert_eq!((before.encrypted, before.key, before.next), (true, 1, None));
    assert_eq!(before.interfaces[0].device.as_deref(), Some("sec-eth0"));
    assert_eq!(nodes(&urls[0])[1].link.as_ref().unwrap().interface.as_deref(), Some("sec-eth0"));
    for key in [2, 3] {
        let (code, body) = post(&format!("{}/v1/segment/rotate", urls[1]), "");
        assert_eq!(code, 200, "{body}");
        let after: dvs_api::Segment = serde_json::from_str(&body).unwrap();
        assert_eq!((after.key, after.next), (key, None));
        for (from, to) in [(1, 0), (0, 1), (1, 2)] {
            let ping = format!(r#"{{"to":{to},"count":50}}"#);
            let (code, body) = post(&format!("{}/v1/ipc/ping", urls[from]), &ping);
            assert_eq!(code, 200, "{body}");
        }
    }
    all_ready(&urls);
    segment.forge(1, 12);
    let forged = eventually(|| protection(&urls[0]), |now| now.interfaces[0].forged > 0);
    assert_eq!(forged.interfaces[0].forged, 12);
    // What a new device counts from, nobody knows: it gets another key at once.
    segment.remove_device(2);
    let renewed = eventually(|| protection(&urls[1]), |now| now.key > 3);
    assert_eq!((renewed.key, renewed.next), (4, None));
    all_ready(&urls);
    let linked = || nodes(&urls[1])[0].link.as_ref().map(|link| link.state);
    eventually(linked, |state| *state == Some(dvs_api::LinkState::Up));
}

#[test]
fn a_kernel_without_dvk_is_named() {
    let segment = Segment::new();
    let token = "the token of this cluster";
    let url = segment.boot(&Boot { number: 1, token, expect: 1, dvk: false, insecure: false });
    let status = eventually(|| status(&url), |status| status.state == StatusState::Failed);
    assert_eq!(status.detail, "/dev/dvk: the kernel has no DVK");
}

#[test]
fn bad_requests_are_answered_precisely() {
    let segment = Segment::new();
    let urls = segment.boot_all(1);
    all_ready(&urls);
    let url = &urls[0];
    std::fs::write(segment.run_directory(1).join("logs/dvsd.log"), "one\ntwo\n").unwrap();
    let ping = format!("{url}/v1/ipc/ping");
    let posts = [
        (r#"{"to":0,"cuont":5}"#, 400, "unknown field `cuont`"),
        (r#"{"count":5}"#, 400, "missing field `to`"),
        (r#"{"to":0,"count":0}"#, 400, "count = 0: expected 1 to 10000000"),
        (r#"{"to":0,"timeout_ms":70000}"#, 400, "timeout_ms = 70000"),
        ("to=0", 400, "ping request"),
        (r#"{"to":9}"#, 404, "there is no node 9; there are: 0"),
    ];
    for (body, code, text) in posts {
        let (status, answer) = post(&ping, body);
        assert_eq!(status, code, "{body}: {answer}");
        assert!(answer.contains(text), "{body}: {answer}");
    }
    let puts = [
        ("x", r#"{"transport":"tcp"}"#, 400, "`x` is no node id"),
        ("0", r#"{"transport":"tcp"}"#, 400, "node 0 is this node itself"),
        ("7", r#"{"transport":"tcp"}"#, 404, "there is no node 7; there are: 0"),
        ("0", r#"{"transport":"pigeon"}"#, 400, "unknown variant `pigeon`"),
        ("0", r#"{"transprot":"tcp"}"#, 400, "unknown field `transprot`"),
    ];
    for (node, body, code, text) in puts {
        let (status, answer) = put(&format!("{url}/v1/links/{node}"), body);
        assert_eq!(status, code, "{node} {body}: {answer}");
        assert!(answer.contains(text), "{node} {body}: {answer}");
    }
    assert_eq!(post(&ping, &" ".repeat(20_000)).0, 413);
    let gets = [
        ("/v1/nodes/x", 400, "`x` is no node id"),
        ("/v1/nodes/4", 404, "there is no node 4"),
        ("/v1/nothing", 404, "there is no `/v1/nothing`"),
        ("/v1/ipc/ping", 405, "does not take GET"),
        ("/v1/logs/none", 404, "there are: dvsd"),
        ("/v1/logs/..%2fstatus", 404, "no name of a service"),
        ("/v1/logs/dvsd?lines=x", 400, "lines"),
        ("/v1/logs/dvsd?lines=0", 400, "lines = 0"),
        ("/v1/logs/dvsd?lnies=1", 400, "unknown field"),
        ("/v1/logs/dvsd?lines=1", 200, r#""lines":["two"]"#),
    ];
    for (path, code, text) in gets {
        let (status, answer) = get(&format!("{url}{path}"));
        assert_eq!(status, code, "{path}: {answer}");
        assert!(answer.contains(text), "{path}: {answer}");
    }
}
