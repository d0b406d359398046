// SPDX-License-Identifier: MIT OR Apache-2.0
//! `dvsctl link`: the links between nodes, and what carries them.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use dvs_api::{
    Link, LinkChoice, LinkState, Node, NodeState, PingRequest, PingResult, Transport,
    TransportRequest,
};
use serde::Serialize;

use crate::arguments::{Output, SetArguments};
use crate::cluster::{Cluster, Endpoint, Error};
use crate::table::Table;
use crate::{milliseconds, print, Failure};

/// How often the two ends are looked at.
const POLL: Duration = Duration::from_millis(200);
/// How long a message may take that shows that the link works.
const PROOF_MS: u64 = 2_000;

/// A link as both its ends see it, as far as they are asked.
#[derive(Clone, Debug, Serialize)]
struct Pair {
    /// The two nodes, the lower id first.
    nodes: [u32; 2],
    /// Its ends, that of the lower id first.
    ends: Vec<End>,
}

/// A link as one of its ends sees it.
#[derive(Clone, Debug, Serialize)]
struct End {
    /// The node whose view this is.
    from: u32,
    /// Its link to the other node.
    link: Link,
}

/// All links that the endpoints know of.
pub(crate) fn list(cluster: &Cluster, output: Output) -> Result<(), Failure> {
    let mut pairs: BTreeMap<[u32; 2], Pair> = BTreeMap::new();
    let mut silent = Vec::new();
    let nodes: Vec<Node> = cluster.any("/v1/nodes")?;
    for endpoint in cluster.endpoints() {
        match ends_of(endpoint) {
            Ok(ends) => ends.into_iter().for_each(|end| add(&mut pairs, end)),
            Err(error) => silent.push(error),
        }
    }
    silent.iter().for_each(|error| eprintln!("warning: {error}"));
    let pairs: Vec<_> = pairs.into_values().collect();
    let unseen = unseen(&nodes, &pairs);
    print(output, &pairs, || table(&pairs))?;
    if let (Output::Table, Some([a, b])) = (output, unseen) {
        eprintln!(
            "note: some links are not shown, such as that between nodes {a} and {b}: neither of them \
             is among the endpoints; name more with --endpoint or DVSCTL_ENDPOINTS"
        );
    }
    Ok(())
}

/// The links of one node.
fn ends_of(endpoint: &Endpoint) -> Result<Vec<End>, Error> {
    let nodes: Vec<Node> = endpoint.get("/v1/nodes")?;
    let own = nodes.iter().find(|node| node.local).map(|node| node.id);
    let end = |node: &Node| Some(End { from: own?, link: node.link.clone()? });
    Ok(nodes.iter().filter_map(end).collect())
}

fn add(pairs: &mut BTreeMap<[u32; 2], Pair>, end: End) {
    let nodes = ordered(end.from, end.link.node);
    let pair = pairs.entry(nodes).or_insert_with(|| Pair { nodes, ends: Vec::new() });
    // The same node may have been named twice.
    if pair.ends.iter().all(|known| known.from != end.from) {
        pair.ends.push(end);
        pair.ends.sort_by_key(|end| end.from);
    }
}

fn ordered(one: u32, other: u32) -> [u32; 2] {
    [one.min(other), one.max(other)]
}

/// A link between two nodes that are up, of which no end was asked.
fn unseen(nodes: &[Node], pairs: &[Pair]) -> Option<[u32; 2]> {
    let up: Vec<_> =
        nodes.iter().filter(|node| node.state != NodeState::Down).map(|node| node.id).collect();
    let mut all = up.iter().flat_map(|one| up.iter().map(move |other| [*one, *other]));
    all.find(|nodes| nodes[0] < nodes[1] && pairs.iter().all(|pair| pair.nodes != *nodes))
}

fn table(pairs: &[Pair]) -> String {
    let headings =
        ["NODES", "STATE", "TRANSPORT", "RTT", "OUT", "IN", "LOSS", "RETRANSMITTED", "NOTE"];
    let mut table = Table::new(&headings);
    for pair in pairs {
        let links = || pair.ends.iter().map(|end| &end.link);
        let Some(first) = links().next() else { continue };
        let sum = |count: fn(&Link) -> u64| links().map(count).sum::<u64>();
        let (sent, again) = (sum(|link| link.frames_sent), sum(|link| link.retransmissions));
        table.row([
            format!("{}-{}", pair.nodes[0], pair.nodes[1]),
            both(links().map(|link| link.state.to_string())),
            both(links().map(|link| carrier(link).to_owned())),
            match first.rtt_us {
                0 => "-".into(),
                us => milliseconds(f64::from(us)),
            },
            rate(first.send_bytes_per_s),
            rate(first.receive_bytes_per_s),
            format!("{:.2}%", 100.0 * again as f64 / sent.max(1) as f64),
            again.to_string(),
            note(&pair.ends),
        ]);
    }
    table.to_string()
}

/// What both ends say: once if they say the same.
fn both(texts: impl Iterator<Item = String>) -> String {
    let mut texts: Vec<_> = texts.collect();
    texts.dedup();
    texts.join("/")
}

fn carrier(link: &Link) -> &str {
    link.transport.map_or("none", Transport::as_str)
}

/// What people should know of a link that is not carried as it was chosen.
fn note(ends: &[End]) -> String {
    let waiting = ends.iter().find(|end| end.link.transport != Some(end.link.chosen));
    let troubled = ends.iter().find_map(|end| Some((end.from, end.link.trouble.as_ref()?)));
    match (waiting, troubled) {
        (_, Some((from, trouble))) => format!("node {from}: {trouble}"),
        (Some(end), None) => format!("changing to {}", end.link.chosen),
        (None, None) => String::new(),
    }
}

/// Bytes per second, in the largest unit of which there is at least one.
fn rate(bytes_per_s: u64) -> String {
    let bytes = bytes_per_s as f64;
    match bytes_per_s {
        0..1_000 => format!("{bytes_per_s} B/s"),
        1_000..1_000_000 => format!("{:.1} kB/s", bytes / 1e3),
        _ => format!("{:.1} MB/s", bytes / 1e6),
    }
}

/// Chooses what carries a link, and waits until it does.
pub(crate) fn set(
    cluster: &Cluster,
    output: Output,
    arguments: &SetArguments,
) -> Result<(), Failure> {
    let SetArguments { nodes, transport, .. } = arguments;
    if nodes[0] == nodes[1] {
        let text = format!("a link has two ends: node {} was named twice", nodes[0]);
        return Err(Failure::Refused(text));
    }
    let nodes = ordered(nodes[0], nodes[1]);
    let deadline = Instant::now() + Duration::from_secs(arguments.timeout_s);
    known(&cluster.any::<Vec<Node>>("/v1/nodes")?, nodes)?;
    let ends = cluster.ends(nodes)?;
    let choice = choose(&ends, nodes, *transport)?;
    let LinkChoice { from, to, revision, .. } = choice;
    eprintln!("node {from}: {transport} is to carry the link to node {to} (choice {revision})");
    if arguments.no_wait {
        print(output, &choice, String::new)?;
        return Ok(());
    }
    let unwatched = nodes.into_iter().find(|node| ends.iter().all(|(known, _)| known != node));
    if let Some(node) = unwatched {
        eprintln!("node {node} is not among the endpoints: only the other end is watched");
    }
    let mut shown = BTreeMap::new();
    loop {
        let mut pair = Pair { nodes, ends: Vec::new() };
        let mut missing = Vec::new();
        for (node, endpoint) in &ends {
            let peer = if *node == nodes[0] { nodes[1] } else { nodes[0] };
            let lacks = match look(endpoint, peer, &choice) {
                Ok((link, lacks)) => {
                    pair.ends.extend(link.map(|link| End { from: *node, link }));
                    lacks
                }
                Err(Lost(text)) => return Err(Failure::Refused(text)),
            };
            let text = lacks.clone().unwrap_or_else(|| format!("up over {transport}"));
            if shown.get(node) != Some(&text) {
                eprintln!("node {node}: {text}");
                shown.insert(*node, text);
            }
            missing.extend(lacks.map(|lacks| format!("node {node}: {lacks}")));
        }
        if missing.is_empty() {
            match prove(&ends, nodes) {
                Ok(()) => {
                    let [a, b] = nodes;
                    print(output, &pair, || {
                        format!("the link between nodes {a} and {b} is carried over {transport}\n")
                    })?;
                    return Ok(());
                }
                Err(lacks) => missing.push(lacks),
            }
        }
        if Instant::now() >= deadline {
            let [a, b] = nodes;
            return Err(Failure::Refused(format!(
                "the link between nodes {a} and {b} is not carried over {transport} after {} s: {}; \
                 the choice stays, choose again to change it",
                arguments.timeout_s,
                missing.join("; ")
            )));
        }
        thread::sleep(POLL);
    }
}

/// Both nodes must be members.
fn known(members: &[Node], nodes: [u32; 2]) -> Result<(), Failure> {
    match nodes.iter().find(|node| members.iter().all(|member| member.id != **node)) {
        None => Ok(()),
        Some(node) => {
            let ids: Vec<_> = members.iter().map(|member| member.id.to_string()).collect();
            let text = format!("there is no node {node}; there are: {}", ids.join(", "));
            Err(Failure::Refused(text))
        }
    }
}

/// Tells one end; the other one hears it from that.
fn choose(
    ends: &[(u32, &Endpoint)],
    nodes: [u32; 2],
    transport: Transport,
) -> Result<LinkChoice, Error> {
    let mut first = None;
    for (node, endpoint) in ends {
        let to = if *node == nodes[0] { nodes[1] } else { nodes[0] };
        match endpoint.put(&format!("/v1/links/{to}"), &TransportRequest { transport }) {
            Ok(choice) => return Ok(choice),
            Err(error) => {
                first.get_or_insert(error);
            }
        }
    }
    Err(first.unwrap_or_else(|| Error::NoSuchNode("no end of the link is reached".into())))
}

/// Somebody else has chosen since.
struct Lost(String);

/// One end of a link, and what it lacks to be carried as was chosen.
fn look(
    endpoint: &Endpoint,
    peer: u32,
    choice: &LinkChoice,
) -> Result<(Option<Link>, Option<String>), Lost> {
    let node: Node = match endpoint.get(&format!("/v1/nodes/{peer}")) {
        Ok(node) => node,
        Err(error) => return Ok((None, Some(error.to_string()))),
    };
    let link = match (node.state, node.link) {
        (NodeState::Down, _) => return Ok((None, Some(format!("node {peer} is down")))),
        (_, None) => return Ok((None, Some(format!("it has no link to node {peer} yet")))),
        (_, Some(link)) => link,
    };
    let lacks = lacks(&link, choice)?;
    Ok((Some(link), lacks))
}

fn lacks(link: &Link, choice: &LinkChoice) -> Result<Option<String>, Lost> {
    let ours = (choice.revision, choice.transport);
    if (link.revision, link.chosen) > ours {
        return Err(Lost(format!(
            "somebody has chosen otherwise meanwhile: {} is to carry the link between nodes {} and {} \
             (choice {})",
            link.chosen, choice.from, choice.to, link.revision
        )));
    }
    if (link.revision, link.chosen) < ours {
        return Ok(Some("it has not heard of the choice yet".into()));
    }
    if link.transport == Some(choice.transport) && link.state == LinkState::Up {
        return Ok(None);
    }
    let trouble = link.trouble.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
    Ok(Some(format!("{}, carried by {}{trouble}", link.state, carrier(link))))
}

/// Exchanges a message over the link: both ends may say that it is up while nothing gets through.
fn prove(ends: &[(u32, &Endpoint)], nodes: [u32; 2]) -> Result<(), String> {
    let Some((from, endpoint)) = ends.first() else { return Ok(()) };
    let to = if *from == nodes[0] { nodes[1] } else { nodes[0] };
    let request = PingRequest { to, count: 1, timeout_ms: PROOF_MS, interval_ms: 0 };
    match endpoint.post::<PingResult>("/v1/ipc/ping", &request) {
        Ok(result) if result.received == 1 => Ok(()),
        Ok(_) => Err(format!("no message from node {from} to node {to} and back gets through")),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(node: u32, state: LinkState, transport: Option<Transport>, revision: u32) -> Link {
        Link {
            node,
            state,
            transport,
            chosen: Transport::Tcp,
            revision,
            trouble: None,
            interface: None,
            address: None,
            rtt_us: 412,
            send_bytes_per_s: 1_500,
            receive_bytes_per_s: 12_340_000,
            frames_sent: 200,
            frames_received: 100,
            bytes_sent: 9,
            bytes_received: 9,
            retransmissions: 3,
            duplicates: 0,
            rejected: 0,
        }
    }

    #[test]
    fn a_link_is_one_row_of_what_both_ends_see() {
        let mut pairs = BTreeMap::new();
        let tcp = Some(Transport::Tcp);
        let ethernet = Some(Transport::Ethernet);
        add(&mut pairs, End { from: 7, link: link(2, LinkState::Up, tcp, 1) });
        add(&mut pairs, End { from: 2, link: link(7, LinkState::Up, tcp, 1) });
        add(&mut pairs, End { from: 2, link: link(7, LinkState::Up, tcp, 1) });
        add(&mut pairs, End { from: 3, link: link(2, LinkState::Up, ethernet, 1) });
        let failing = Link { trouble: Some("no port".into()), ..link(3, LinkState::Down, None, 1) };
        add(&mut pairs, End { from: 2, link: failing });
        let pairs: Vec<_> = pairs.into_values().collect();
        let text = table(&pairs);
        let rows: Vec<Vec<_>> =
            text.lines().map(|line| line.split_whitespace().collect()).collect();
        let first =
            ["2-3", "down/up", "none/ethernet", "0.412", "ms", "1.5", "kB/s", "12.3", "MB/s"];
        assert_eq!(rows[1][..9], first, "{text}");
        assert_eq!(rows[1][9..], ["1.50%", "6", "node", "2:", "no", "port"], "{text}");
        let second =
            ["2-7", "up", "tcp", "0.412", "ms", "1.5", "kB/s", "12.3", "MB/s", "1.50%", "6"];
        assert_eq!(rows[2], second, "{text}");
    }

    #[test]
    fn what_an_end_lacks_is_said() {
        let choice = LinkChoice { from: 2, to: 7, transport: Transport::Tcp, revision: 4 };
        let lacks = |link: &Link| lacks(link, &choice).map_err(|Lost(text)| text);
        let (up, tcp) = (LinkState::Up, Some(Transport::Tcp));
        assert_eq!(lacks(&link(7, up, tcp, 4)), Ok(None));
        let text = lacks(&link(7, up, tcp, 3)).unwrap().unwrap();
        assert_eq!(text, "it has not heard of the choice yet");
        let slow = Link {
            trouble: Some("connection refused".into()),
            ..link(7, up, Some(Transport::Ethernet), 4)
        };
        let text = lacks(&slow).unwrap().unwrap();
        assert_eq!(text, "up, carried by ethernet (connection refused)");
        assert!(lacks(&link(7, LinkState::Connecting, tcp, 4)).unwrap().is_some());
        let text = lacks(&link(7, up, tcp, 5)).unwrap_err();
        assert!(text.starts_with("somebody has chosen otherwise meanwhile: tcp"), "{text}");
    }

    #[test]
    fn rates_have_a_unit() {
        let texts = [0, 999, 1_000, 2_345_678].map(rate);
        assert_eq!(texts, ["0 B/s", "999 B/s", "1.0 kB/s", "2.3 MB/s"]);
    }
}
