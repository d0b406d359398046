// SPDX-License-Identifier: MIT OR Apache-2.0
//! A group of members on four nodes: all see one stream, while the node of one and then the leader of the nodes lose power.

use std::collections::BTreeMap;
use std::io::{PipeWriter, Write};
use std::time::{Duration, Instant};

use dvs_api::{Group, GroupContent, GroupDelivery, KvValue};
use dvs_history::group::{check, Delivered, Sent, Stream};

use super::agreement::await_whole;
use super::bed::{Bed, MEMBERS, PATIENCE};
use super::mismatch::{expect, Mismatch};
use super::program::{Ended, Running};

const STEP: &str = "sending to a group while nodes fail";
/// Longer than all of it takes.
const LIMIT: Duration = Duration::from_secs(400);
/// Seconds for which a member that died is one.
const TTL_S: &str = "15";
/// What each sends before, between and after the faults.
const LINES: usize = 10;
const POLL: Duration = Duration::from_millis(300);

/// A program that takes part, and what it is told to send.
struct Member {
    running: Running,
    input: PipeWriter,
    lines: usize,
}

impl Member {
    fn join(bed: &Bed, node: usize) -> Result<Self, Mismatch> {
        let name = node.to_string();
        let words =
            ["group", "join", "talk", "--as", &name, "--ttl", TTL_S, "--send", "-o", "json"];
        let (output, input) = std::io::pipe().map_err(failed)?;
        let running = bed.start_dvsctl_with(node, &words, output.into(), LIMIT)?;
        Ok(Self { running, input, lines: 0 })
    }

    /// Sends some lines; those of a program that has ended are nobody's.
    fn send(&mut self, node: usize) {
        for _ in 0..LINES {
            self.lines += 1;
            if writeln!(self.input, "{node} says {}", self.lines).is_err() {
                return;
            }
        }
    }

    /// Ends its input, and waits until everything has come back.
    fn end(self) -> Result<(usize, Ended), Mismatch> {
        drop(self.input);
        Ok((self.lines, self.running.end().map_err(failed)?))
    }
}

fn failed(error: std::io::Error) -> Mismatch {
    Mismatch::new(STEP, "dvsctl can be run", error)
}

/// Members see the same messages and the same views in the same order, those that go with their node as far as they came.
pub(super) fn one_stream(bed: &mut Bed) -> Result<(), Mismatch> {
    let seen = await_whole(bed, "before the group")?;
    let leader = seen.leader.unwrap_or_default() as usize;
    let victim = (leader + 1) % MEMBERS;
    let mut members = BTreeMap::new();
    for node in 0..MEMBERS {
        members.insert(node, Member::join(bed, node)?);
    }
    await_members(bed, victim, MEMBERS)?;
    let mut over = Vec::new();
    members.iter_mut().for_each(|(node, member)| member.send(*node));
    for (round, lost) in [victim, leader].into_iter().enumerate() {
        let asked = (0..MEMBERS).find(|node| *node != lost).unwrap_or_default();
        bed.act("cutting power", |cluster| cluster.node(lost).kill())?;
        members.iter_mut().for_each(|(node, member)| member.send(*node));
        await_members(bed, asked, MEMBERS - 1 - round)?;
        if let Some(member) = members.remove(&lost) {
            let (_, ended) = member.end()?;
            expect(ended.status == Some(1), STEP, "the member of a lost node ends", &ended)?;
            over.push((lost, ended));
        }
        bed.act("giving power", |cluster| cluster.node(lost).start())?;
        bed.await_all_ready("waiting for the node to come back")?;
        await_whole(bed, "waiting for the node to take part again")?;
        members.iter_mut().for_each(|(node, member)| member.send(*node));
    }
    let mut counts = BTreeMap::new();
    for (node, member) in members {
        let (lines, ended) = member.end()?;
        expect(ended.succeeded(), STEP, "a member whose node was never lost succeeds", &ended)?;
        counts.insert(node, lines);
        over.push((node, ended));
    }
    let (streams, sent) = streams(&over, &counts)?;
    let messages: usize = counts.values().sum();
    let seen = streams.values().map(Vec::len).max().unwrap_or(0);
    bed.note(format!(
        "{messages} messages of those who stayed; the longest stream has {seen} parts"
    ));
    expect(sent.len() == messages, STEP, &format!("{messages} messages"), sent.len())?;
    let fits = check(&streams, &sent);
    expect(fits.is_ok(), STEP, "parts of one stream", format!("{fits:?}: {streams:?}"))
}

/// Waits until the group has so many members.
fn await_members(bed: &Bed, node: usize, count: usize) -> Result<(), Mismatch> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let ended = bed.dvsctl(node, &["group", "list", "-o", "json"])?;
        let groups: Option<Vec<Group>> = serde_json::from_str(&ended.stdout).ok();
        let members = groups.as_ref().and_then(|all| all.iter().find(|one| one.name == "talk"));
        if members.is_some_and(|group| group.members.len() == count) {
            return Ok(());
        }
        let expected = format!("{count} members");
        expect(Instant::now() < deadline, "waiting for members", &expected, ended)?;
        std::thread::sleep(POLL);
    }
}

/// What the member on each node saw, by its lease, and what those have sent who had everything back: `counts` has how much that
/// was.
fn streams(
    over: &[(usize, Ended)],
    counts: &BTreeMap<usize, usize>,
) -> Result<(BTreeMap<u64, Stream>, Vec<Sent>), Mismatch> {
    let (mut streams, mut sent) = (BTreeMap::new(), Vec::new());
    for (node, ended) in over {
        let mut stream = Stream::new();
        // Whoever was cut off may not have written its last line to its end.
        let whole = ended.stdout.rsplit_once('\n').map_or("", |(whole, _)| whole);
        // A member's lease is found by its name: leases are taken before joining, so whoever joins last need not have the newest one.
        let (name, mut own) = (node.to_string(), None);
        for line in whole.lines() {
            let delivery: GroupDelivery = serde_json::from_str(line).map_err(|error| {
                Mismatch::new(STEP, "lines of JSON", format!("{error}: {line}"))
            })?;
            if let GroupContent::View { members, .. } = &delivery.content {
                own = own.or_else(|| members.iter().find(|it| it.name == name).map(|it| it.lease));
            }
            stream.push((delivery.position, delivered(delivery.content)?));
        }
        let Some(own) = own else { continue };
        if let Some(count) = counts.get(node) {
            let one = |number: usize| Sent {
                sender: own,
                number: number as u64,
                invoked: 0,
                returned: u64::MAX,
                position: None,
            };
            sent.extend((1..=*count).map(one));
        }
        streams.insert(own, stream);
    }
    Ok((streams, sent))
}

fn delivered(content: GroupContent) -> Result<Delivered, Mismatch> {
    Ok(match content {
        GroupContent::View { number, members } => {
            Delivered::View { number, members: members.into_iter().map(|it| it.lease).collect() }
        }
        GroupContent::Message { sender, number, payload: KvValue::Text(text) } => {
            Delivered::Message { sender, number, text }
        }
        GroupContent::Message { payload, .. } => {
            return Err(Mismatch::new(STEP, "messages that are text", format!("{payload:?}")));
        }
    })
}
