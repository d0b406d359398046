// SPDX-License-Identifier: MIT OR Apache-2.0
//! Messages between nodes are secret and genuine on the segment, whoever else is on it.

use std::collections::HashSet;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use dvs_api::Segment;
use dvs_qemu::switch::Sent;
use serde_json::Value;

use super::bed::{Bed, MEMBERS, PATIENCE};
use super::mismatch::{expect, Mismatch};
use super::outages::{await_incarnation, incarnation};

/// For all copies.
const LIMIT: Duration = Duration::from_secs(120);
/// Ethertypes of links in the clear, of MACsec, and of what beacons travel in.
const CLEAR: [u8; 2] = [0x88, 0xb5];
const MACSEC: [u8; 2] = [0x88, 0xe5];
const IPV6: [u8; 2] = [0x86, 0xdd];
/// Where MACsec's sender is in a frame: after the addresses, the ethertype and six bytes.
const SENDER: usize = 20;
/// How far behind packets may come, and some more.
const BEYOND_WINDOW: u64 = 4_500;
/// What the glutton copies: noise of seed 1, as its program makes it.
const NOISE_BYTES: usize = 500 * 4096;

/// Nothing that nodes say to each other can be read by who sees all frames.
pub(super) fn nothing_is_in_the_clear(bed: &mut Bed) -> Result<(), Mismatch> {
    let step = "looking at all frames of pings and copies";
    let tap = bed.cluster().switch().tap();
    bed.ping_all(&[0, 1, 2, 3], 20)?;
    let mut lender = bed.start_on(1, &["dvk-conformance", "--role", "lender"], LIMIT)?;
    let endpoint = lender.line()?;
    let words = ["dvk-conformance", "--role", "glutton", &endpoint];
    let mut glutton = bed.start_on(0, &words, LIMIT)?;
    let begun = glutton.line()?;
    expect(begun == "begin", step, "copies that go on", begun)?;
    let long = |sent: &Sent| sent.from == 1 && sent.frame.len() > 1_000;
    let frames = take(&tap, step, 2_000, long)?;
    drop((glutton, lender));
    let cluster = bed.seen_by(0).ok().and_then(|nodes| Some(nodes.first()?.cluster.clone()));
    let cluster = cluster.and_then(|id| u64::from_str_radix(&id, 16).ok()).unwrap_or_default();
    let words = noise_words();
    for Sent { from, frame } in &frames {
        let kind = frame.get(12..14).unwrap_or_default();
        let shown = || format!("node{from} sent {:02x?}…", &frame[..frame.len().min(96)]);
        expect(kind != CLEAR, step, "no frame of a link in the clear", shown())?;
        expect([&MACSEC[..], &IPV6].contains(&kind), step, "MACsec, and beacons", shown())?;
        expect(!holds_any(frame, &words), step, "no bytes of what is copied", shown())?;
        // Every frame of a link names the cluster; so do beacons, which are no secret.
        let named = kind != IPV6 && holds_any(frame, &HashSet::from([cluster]));
        expect(cluster != 0 && !named, step, "no header of a link", shown())?;
    }
    Ok(())
}

/// Takes frames until `count` of them are as wanted.
fn take(
    tap: &Receiver<Sent>,
    step: &str,
    count: usize,
    wanted: impl Fn(&Sent) -> bool,
) -> Result<Vec<Sent>, Mismatch> {
    let (mut frames, mut found) = (Vec::new(), 0);
    let deadline = Instant::now() + PATIENCE;
    while found < count {
        let patience = deadline.saturating_duration_since(Instant::now());
        let Ok(sent) = tap.recv_timeout(patience) else {
            let expected = format!("{count} frames as they are sent");
            return Err(Mismatch::new(step, expected, format!("{found} of them")));
        };
        found += usize::from(wanted(&sent));
        frames.push(sent);
    }
    Ok(frames)
}

/// What the glutton copies, eight bytes at a time (xorshift, as in its program).
fn noise_words() -> HashSet<u64> {
    let mut state = 0x9e37_79b9_7f4a_7c15 | 1u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    std::iter::repeat_with(next).take(NOISE_BYTES / 8).collect()
}

/// Whether any eight bytes of a frame are one of these numbers.
fn holds_any(frame: &[u8], words: &HashSet<u64>) -> bool {
    let word = |bytes: &[u8]| bytes.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
    frame.windows(8).filter_map(word).any(|word| words.contains(&word))
}

/// Frames that are forged, recorded or of a stranger change nothing but a counter.
pub(super) fn forgeries_are_counted(bed: &mut Bed) -> Result<(), Mismatch> {
    let step = "sending forged and recorded frames to node1";
    let switch = bed.cluster().switch().clone();
    let recorded = record(bed, 0, 1, 40)?;
    let before = segment(bed, 1)?;
    let rejected_before = rejected(bed)?;
    let ping = bed.start_ping(0, 1, BEYOND_WINDOW, 0)?;
    for frame in &recorded {
        // Recent ones are repeats such as a network makes, which are the link's affair.
        switch.inject(1, frame.clone());
        let mut forged = frame.clone();
        if let Some(last) = forged.last_mut() {
            *last ^= 1;
        }
        switch.inject(1, forged);
        let mut foreign = frame.clone();
        foreign[SENDER] ^= 0x10;
        switch.inject(1, foreign);
        let mut clear = frame.clone();
        clear[12..14].copy_from_slice(&CLEAR);
        clear.splice(14.., reset(bed)?);
        switch.inject(1, clear);
    }
    ping.succeed()?;
    // By now they are older than any packet that the network could have held back.
    recorded.iter().for_each(|frame| switch.inject(1, frame.clone()));
    let count = recorded.len() as u64;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let now = segment(bed, 1)?;
        let grown =
            dropped(&now).iter().zip(dropped(&before)).all(|(now, was)| *now >= was + count);
        let clear = rejected(bed)? >= rejected_before + count;
        if grown && clear {
            break;
        }
        expect(
            Instant::now() < deadline,
            step,
            &format!("{count} more of each kind than {before:?}, and than {rejected_before}"),
            format!("{now:?}; {} in the clear", rejected(bed)?),
        )?;
        std::thread::sleep(Duration::from_millis(500));
    }
    for text in ["did not have the seal of the node", "were recorded earlier and sent again"] {
        let told = bed.dvsctl(1, &["logs", "dvsd", "-n", "10000"])?;
        let found = told.stdout.lines().any(|line| line.contains(text));
        expect(found, "reading node1's log", &format!("a line that frames {text}"), &told)?;
    }
    bed.ping(1, 0, 200)
}

/// Frames of a link as the network saw them.
fn record(bed: &Bed, from: usize, to: usize, count: usize) -> Result<Vec<Vec<u8>>, Mismatch> {
    let tap = bed.cluster().switch().tap();
    bed.ping(from, to, 50)?;
    let destination = mac(bed, to)?;
    let of_link = |sent: &Sent| {
        sent.from == from && sent.frame[..6] == destination && sent.frame[12..14] == MACSEC
    };
    let step = format!("recording frames of the link from node{from} to node{to}");
    let frames = take(&tap, &step, count, of_link)?;
    Ok(frames.into_iter().filter(of_link).map(|sent| sent.frame).collect())
}

/// The frames that a node dropped: forged, replayed, and foreign ones.
fn dropped(segment: &Segment) -> [u64; 3] {
    let sum = |field: fn(&dvs_api::SegmentInterface) -> u64| {
        segment.interfaces.iter().map(field).sum::<u64>()
    };
    [sum(|it| it.forged), sum(|it| it.replayed), sum(|it| it.foreign)]
}

/// What ends a link, if it is believed.
fn reset(bed: &Bed) -> Result<Vec<u8>, Mismatch> {
    let nodes = bed.seen_by(1).map_err(|why| Mismatch::new("listing nodes", "a list", why))?;
    let mut frame = vec![0; 64];
    frame[..4].copy_from_slice(&[0x44, 0x56, 1, 6]);
    let cluster = u64::from_str_radix(&nodes[0].cluster, 16).unwrap_or_default();
    frame[8..16].copy_from_slice(&cluster.to_le_bytes());
    frame[18..20].copy_from_slice(&1u16.to_le_bytes());
    frame[20..24].copy_from_slice(&nodes[0].incarnation.to_le_bytes());
    frame[24..28].copy_from_slice(&nodes[1].incarnation.to_le_bytes());
    for stream in [28, 32] {
        frame[stream..stream + 4].copy_from_slice(&1u32.to_le_bytes());
    }
    Ok(frame)
}

/// Keys change while messages flow, and no frame is dropped for that.
pub(super) fn keys_change_while_messages_flow(bed: &mut Bed) -> Result<(), Mismatch> {
    let before = (0..MEMBERS).map(|node| segment(bed, node)).collect::<Result<Vec<_>, _>>()?;
    let pings = [bed.start_ping(0, 3, 3_000, 2)?, bed.start_ping(2, 1, 3_000, 2)?];
    for _ in 0..2 {
        for node in 0..MEMBERS {
            let ended = bed.dvsctl(node, &["segment", "rotate", "-o", "json"])?;
            let step = format!("changing the key of node{node}");
            expect(ended.succeeded(), &step, "success", &ended)?;
        }
    }
    pings.into_iter().try_for_each(super::bed::Ping::succeed)?;
    for (node, before) in before.iter().enumerate() {
        let after = segment(bed, node)?;
        expect(
            after.key >= before.key + 2 && dropped(&after) == dropped(before),
            &format!("comparing node{node} before and after two changes of its key"),
            "two keys more, and not one frame dropped",
            format!("{before:?}, {after:?}"),
        )?;
    }
    bed.ping_all(&[0, 1, 2, 3], 20)
}

/// `dvsd` ends, and what follows has other keys: what was recorded before is worth nothing.
pub(super) fn no_key_survives_its_run(bed: &mut Bed) -> Result<(), Mismatch> {
    let step = "replaying frames of a node whose dvsd has started anew";
    let recorded = record(bed, 2, 1, 20)?;
    let before = incarnation(bed, 1, 2)?;
    let killed = bed.run_on(2, &["dvk-scenarios", "kill", "dvsd"], LIMIT)?;
    expect(killed.stdout == "1\n", "killing dvsd on node2", "the one process there is", killed)?;
    await_incarnation(bed, 2, before)?;
    bed.await_all_ready("waiting for node2 to be back")?;
    let before = segment(bed, 1)?;
    let ping = bed.start_ping(2, 1, 500, 1)?;
    recorded.iter().for_each(|frame| bed.cluster().switch().inject(1, frame.clone()));
    ping.succeed()?;
    let deadline = Instant::now() + PATIENCE;
    // Forged if the number of the old key is that of a new one, else foreign.
    let all = |segment: &Segment| dropped(segment).iter().sum::<u64>();
    loop {
        let now = segment(bed, 1)?;
        if all(&now) >= all(&before) + recorded.len() as u64 {
            break;
        }
        let expected = format!("{} more dropped frames than {before:?}", recorded.len());
        expect(Instant::now() < deadline, step, &expected, format!("{now:?}"))?;
        std::thread::sleep(Duration::from_millis(500));
    }
    bed.ping_all(&[0, 1, 2, 3], 20)
}

/// How a node protects its traffic.
fn segment(bed: &Bed, node: usize) -> Result<Segment, Mismatch> {
    let ended = bed.dvsctl(node, &["segment", "show", "-o", "json"])?;
    let step = format!("asking node{node} for its keys");
    let value: Value = serde_json::from_str(&ended.stdout).unwrap_or_default();
    let segment: Option<Segment> = serde_json::from_value(value[0].clone()).ok();
    segment
        .filter(|segment| segment.encrypted)
        .ok_or_else(|| Mismatch::new(step, "what encrypts", ended))
}

/// The frames that node 1 dropped of its link to node 0.
fn rejected(bed: &Bed) -> Result<u64, Mismatch> {
    let nodes = bed.seen_by(1).map_err(|why| Mismatch::new("listing nodes", "a list", why))?;
    Ok(nodes.first().and_then(|node| node.link.as_ref()).map_or(0, |link| link.rejected))
}

fn mac(bed: &Bed, node: usize) -> Result<[u8; 6], Mismatch> {
    let text = &bed.cluster().description().nodes[node].mac;
    let mac: Result<dvs_config::Mac, _> = text.parse();
    mac.map(|mac| mac.0).map_err(|error| Mismatch::new("reading a MAC address", "one", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_found_wherever_it_begins() {
        let words = noise_words();
        let word = *words.iter().next().unwrap();
        for offset in 0..9 {
            let mut frame = vec![0; 40];
            assert!(!holds_any(&frame, &words));
            frame[offset..offset + 8].copy_from_slice(&word.to_le_bytes());
            assert!(holds_any(&frame, &words));
        }
    }
}
