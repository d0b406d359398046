// SPDX-License-Identifier: MIT OR Apache-2.0
//! What clients see while nodes lose power and the network parts, and whether one thing could have shown it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dvs_api::KvPair;
use dvs_history::{
    is_linearizable, KeyInput, KeyOutput, Lock, LockInput, LockOutput, Operation, Register,
};
use dvs_qemu::links::LinkSelector;

use super::agreement::{await_whole, run, ANSWER};
use super::bed::{Bed, MEMBERS};
use super::mismatch::{expect, Mismatch};
use super::program::{Ended, Running};

/// Who is with whom while the network is parted, from round to round.
const PARTS: [&[&[usize]]; 4] =
    [&[&[0, 2], &[1, 3]], &[&[0], &[1, 2, 3]], &[&[0, 1], &[2, 3]], &[&[0, 1, 3], &[2]]];

/// What happens in a round: one node loses power and gets it back, then the network parts and heals.
struct Faults {
    victim: usize,
    parts: Vec<Vec<usize>>,
    /// How many of the four have come.
    done: usize,
}

impl Faults {
    /// Those of a round. In the first it is the leader that loses power.
    fn of_round(round: usize, leader: usize) -> Self {
        let parts = PARTS[round % PARTS.len()].iter().map(|it| it.to_vec()).collect();
        Self { victim: (leader + round) % MEMBERS, parts, done: 0 }
    }

    /// Lets the next one come once a fifth more is `done` of what clients do.
    fn go_on(&mut self, bed: &Bed, done: u64, all: u64) -> Result<(), Mismatch> {
        if done * 5 / all <= self.done as u64 {
            return Ok(());
        }
        self.done += 1;
        match self.done {
            1 => bed.act("cutting power", |cluster| cluster.node(self.victim).kill())?,
            2 => bed.act("giving power", |cluster| cluster.node(self.victim).start())?,
            3 => bed.cluster().switch().partition(self.parts.clone()),
            _ => bed.cluster().switch().heal(LinkSelector::All),
        }
        Ok(())
    }
}

/// Does what a round does: once, or ten times in a long run.
fn in_rounds(
    bed: &mut Bed,
    round: fn(&mut Bed, usize) -> Result<(), Mismatch>,
) -> Result<(), Mismatch> {
    let rounds = if bed.is_long() { 10 } else { 1 };
    (0..rounds).try_for_each(|number| {
        round(bed, number).map_err(|mut mismatch| {
            mismatch.step = format!("round {number}: {}", mismatch.step);
            mismatch
        })
    })
}

/// A client of a key: what it asked for last, and where it stands.
struct Client {
    node: usize,
    running: Option<(u64, KeyInput, Running)>,
    done: u64,
}

/// Clients write and read one key by all nodes, while one loses power and comes back and the network parts: what they saw could have been
/// the work of one thing. The first time it is the leader that loses power; a long run goes on with others, and parts the network otherwise.
pub(super) fn of_a_key(bed: &mut Bed) -> Result<(), Mismatch> {
    in_rounds(bed, key_round)
}

fn key_round(bed: &mut Bed, round: usize) -> Result<(), Mismatch> {
    const KEY: &str = "history";
    /// Operations of each client.
    const OPERATIONS: u64 = 30;
    const STEP: &str = "writing and reading while nodes fail";
    let seen = await_whole(bed, "before the faults")?;
    let mut faults = Faults::of_round(round, seen.leader.unwrap_or_default() as usize);
    let failed = |error: std::io::Error| Mismatch::new(STEP, "dvsctl can be run", error);
    let mut clients: Vec<Client> =
        (0..MEMBERS).map(|node| Client { node, running: None, done: 0 }).collect();
    let mut history: Vec<Operation<KeyInput, KeyOutput>> = Vec::new();
    let (mut events, mut unknown, mut value) = (0u64, 0u64, 0u64);
    while clients.iter().any(|client| client.done < OPERATIONS || client.running.is_some()) {
        for client in &mut clients {
            if let Some((_, _, running)) = &mut client.running {
                if running.runs() {
                    continue;
                }
            }
            if let Some((invoked, input, running)) = client.running.take() {
                events += 1;
                let ended = running.end().map_err(failed)?;
                match answer(&input, &ended) {
                    Some(output) => {
                        history.push(Operation { invoked, returned: Some((events, output)), input })
                    }
                    // A read that failed says nothing; a write may have been made.
                    None if input != KeyInput::Get && !is_not_done(&ended) => {
                        unknown += 1;
                        history.push(Operation { invoked, returned: None, input });
                    }
                    None => {}
                }
            }
            if client.done < OPERATIONS {
                client.done += 1;
                value += 1;
                let text = value.to_string();
                let (input, words) = match (client.done + client.node as u64) % 3 {
                    0 => (KeyInput::Get, vec!["kv", "get", KEY, "-o", "json"]),
                    _ => (KeyInput::Put(value), vec!["kv", "put", KEY, &text, "-o", "json"]),
                };
                events += 1;
                let running = bed.start_dvsctl(client.node, &words, ANSWER)?;
                client.running = Some((events, input, running));
            }
        }
        let done: u64 = clients.iter().map(|client| client.done).sum();
        faults.go_on(bed, done, OPERATIONS * MEMBERS as u64)?;
        std::thread::sleep(Duration::from_millis(5));
    }
    bed.cluster().switch().heal(LinkSelector::All);
    let answered = history.iter().filter(|operation| operation.returned.is_some()).count();
    bed.note(format!("{answered} operations were answered, {unknown} may have been made or not"));
    let history = Register::without_unseen(history);
    let fits = is_linearizable::<Register>(&history);
    expect(fits, STEP, "a history that one key could have", format!("{history:?}"))?;
    let enough = answered as u64 >= OPERATIONS;
    expect(enough, STEP, "a part of the operations is answered", answered)?;
    bed.await_all_ready("waiting for the cluster after the faults")?;
    await_whole(bed, "after the faults")?;
    let ended = run(bed, 0, &["kv", "delete", KEY])?;
    expect(ended.succeeded(), "deleting the key", "it can be", ended)
}

/// What `dvsctl` says came of it; `None` if it failed.
fn answer(input: &KeyInput, ended: &Ended) -> Option<KeyOutput> {
    if *input != KeyInput::Get {
        return ended.succeeded().then_some(KeyOutput::Done);
    }
    if ended.is_one_clear_error() && ended.stderr.contains("there is no key") {
        return Some(KeyOutput::Value(None));
    }
    let pair: KvPair = serde_json::from_str(&ended.stdout).ok()?;
    let text = String::from_utf8(pair.value.bytes()?).ok()?;
    Some(KeyOutput::Value(Some(text.parse().ok()?)))
}

/// Whether it is certain that nothing was changed: nobody led.
fn is_not_done(ended: &Ended) -> bool {
    ended.is_one_clear_error() && ended.stderr.contains("so nothing was changed")
}

/// What a command that runs under a lock does, given where to write: it says when it began, with which token, and when it ended.
const HOLD: &str =
    "echo held $(date +%s%N) $DVS_LOCK_FENCE >> $0; sleep 0.2; echo done $(date +%s%N) >> $0";
/// Seconds for which a lock outlives its holder.
const TTL_S: &str = "10";

/// One who takes the lock: by which node, and when it was asked for.
struct Taker {
    node: usize,
    running: Option<(u64, u64, Running)>,
    done: u64,
}

/// Commands run under one lock, asked for at all nodes, while one loses power and comes back and the network parts: no two held it at
/// once, and whoever held it later had a greater token, as far as anybody could see.
pub(super) fn of_a_lock(bed: &mut Bed) -> Result<(), Mismatch> {
    in_rounds(bed, lock_round)
}

fn lock_round(bed: &mut Bed, round: usize) -> Result<(), Mismatch> {
    /// Commands of each.
    const COMMANDS: u64 = 8;
    const STEP: &str = "taking a lock while nodes fail";
    let seen = await_whole(bed, "before the faults")?;
    let mut faults = Faults::of_round(round, seen.leader.unwrap_or_default() as usize);
    let failed = |error: std::io::Error| Mismatch::new(STEP, "dvsctl can be run", error);
    let directory = bed.logs().join("lock-history");
    // What is there is left by an earlier round.
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).map_err(failed)?;
    let mut takers: Vec<Taker> =
        (0..MEMBERS).map(|node| Taker { node, running: None, done: 0 }).collect();
    let mut history: Vec<Operation<LockInput, LockOutput>> = Vec::new();
    let (mut number, mut held) = (0u64, 0u64);
    while takers.iter().any(|taker| taker.done < COMMANDS || taker.running.is_some()) {
        for taker in &mut takers {
            if let Some((_, _, running)) = &mut taker.running {
                if running.runs() {
                    continue;
                }
            }
            if let Some((who, invoked, running)) = taker.running.take() {
                let ended = running.end().map_err(failed)?;
                let written = fs::read_to_string(directory.join(who.to_string()));
                let of_it = holding(who, invoked, &written.unwrap_or_default(), &ended);
                held += u64::from(of_it[0].returned.is_some());
                history.extend(of_it);
            }
            if taker.done < COMMANDS {
                (taker.done, number) = (taker.done + 1, number + 1);
                let file = directory.join(number.to_string());
                let words = ["lock", "acquire", "history", "--ttl", TTL_S, "--", "sh", "-c", HOLD];
                let words = [&words[..], &[path(&file)?]].concat();
                let running = bed.start_dvsctl(taker.node, &words, ANSWER)?;
                taker.running = Some((number, now_ns(), running));
            }
        }
        let done: u64 = takers.iter().map(|taker| taker.done).sum();
        faults.go_on(bed, done, COMMANDS * MEMBERS as u64)?;
        std::thread::sleep(Duration::from_millis(20));
    }
    bed.cluster().switch().heal(LinkSelector::All);
    let all = COMMANDS * MEMBERS as u64;
    bed.note(format!("{held} of {all} commands held the lock"));
    let fits = is_linearizable::<Lock>(&history);
    expect(fits, STEP, "a history that one lock could have", format!("{history:?}"))?;
    expect(held >= COMMANDS, STEP, "a part of the commands holds the lock", held)?;
    bed.await_all_ready("waiting for the cluster after the faults")?;
    await_whole(bed, "after the faults")?;
    Ok(())
}

/// What a command that was to run under a lock says of it: that it was taken, and that it was given back.
fn holding(
    who: u64,
    invoked: u64,
    written: &str,
    ended: &Ended,
) -> [Operation<LockInput, LockOutput>; 2] {
    let mut words: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for line in written.lines() {
        let mut parts = line.split(' ');
        let name = parts.next().unwrap_or_default();
        words.insert(name, parts.filter_map(|word| word.parse().ok()).collect());
    }
    let taken = match words.get("held").map(Vec::as_slice) {
        Some([at, fence]) => Some((*at, LockOutput::Held(*fence))),
        _ => None,
    };
    // A command that was killed lost the lock at some time after it had it; one that was not even heard of may have had it for a while.
    let since = taken.as_ref().map_or(invoked, |(at, _)| *at);
    let over = words.get("done").and_then(|times| times.first());
    let is_given_back = over.is_some() && ended.succeeded() && ended.stderr.is_empty();
    let back = is_given_back.then(|| (now_ns(), LockOutput::Released(true)));
    [
        Operation { invoked, returned: taken, input: LockInput::Acquire(who) },
        Operation {
            invoked: over.copied().unwrap_or(since),
            returned: back,
            input: LockInput::Release(who),
        },
    ]
}

/// Nanoseconds as `date` tells them.
fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn path(file: &Path) -> Result<&str, Mismatch> {
    file.to_str()
        .ok_or_else(|| Mismatch::new("taking a lock", "a path that is text", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(status: i32, stderr: &str) -> Ended {
        let (stdout, stderr) = (String::new(), stderr.to_owned());
        Ended { status: Some(status), overdue: false, stdout, stderr }
    }

    #[test]
    fn what_a_command_wrote_tells_when_it_held_the_lock() {
        let [taken, back] = holding(3, 10, "held 20 7\ndone 30\n", &ended(0, ""));
        assert_eq!(taken.returned, Some((20, LockOutput::Held(7))));
        assert_eq!((back.invoked, back.returned.is_some()), (30, true));
        // It was killed when the lock was lost.
        let [taken, back] = holding(3, 10, "held 20 7\n", &ended(1, "error: lost\n"));
        assert_eq!(taken.returned, Some((20, LockOutput::Held(7))));
        assert_eq!((back.invoked, back.returned), (20, None));
        // It did not get it, or nobody knows.
        let [taken, back] = holding(3, 10, "", &ended(1, "error: no leader\n"));
        assert_eq!((taken.returned, back.invoked, back.returned), (None, 10, None));
        // It could not say that it is over.
        let [_, back] = holding(3, 10, "held 20 7\ndone 30\n", &ended(0, "warning: \n"));
        assert_eq!((back.invoked, back.returned), (30, None));
    }
}
