// SPDX-License-Identifier: MIT OR Apache-2.0
//! A disk of a container has replicas on two nodes, and a client on a third: nothing that it was told to be written is missing when
//! the server of the primary is killed, comes back, and the other one's node loses power.

use std::time::{Duration, Instant};

use super::agreement::await_whole;
use super::bed::{Bed, MEMBERS, PATIENCE};
use super::dc::{create, delete, exec, failed, run, start};
use super::mismatch::{expect, Mismatch};
use super::program::Running;

const CONTAINER: &str = "store";
/// Longer than all of it takes on a busy host.
const LIMIT: Duration = Duration::from_secs(300);
/// How often the client writes at least after each failure, before the next.
const ROUNDS: u64 = 50;
const POLL: Duration = Duration::from_millis(300);

/// The client writes, reads and compares all the time.
pub(super) fn take_over(bed: &mut Bed) -> Result<(), Mismatch> {
    let seen = await_whole(bed, "before the container is made")?;
    let leader = seen.leader.unwrap_or_default() as usize;
    let nodes: Vec<usize> = (0..MEMBERS).filter(|node| *node != leader).collect();
    let [first, second, third] = nodes[..] else { return Ok(()) };
    create(bed, CONTAINER, &format!("{first},{second},{third}"), &[])?;
    let store = "--device file:/tmp/disk.img,create=4M --replica 1";
    let served = serve(bed, first, &format!("{store} --begin"), true)?;
    let other = serve(bed, second, "--device memory:4M --replica 2", true)?;
    await_line_up(bed, CONTAINER, first, 1, &[1, 2])?;
    let mut client = witness(bed, third)?;
    await_rounds(&mut client, ROUNDS)?;

    let killed = bed.run_on(first, &["dvk-scenarios", "kill", "mol-vdd"], LIMIT)?;
    expect(killed.stdout == "1\n", "killing the server of the primary", "one process", killed)?;
    let ended = served.end().map_err(|error| failed("the server of the primary", &error))?;
    expect(!ended.succeeded(), "waiting for the killed server", "it fails", &ended)?;
    await_line_up(bed, CONTAINER, second, 2, &[2])?;
    let told = rounds(&client);
    await_rounds(&mut client, told + ROUNDS)?;
    let again = serve(bed, first, store, false)?;
    await_line_up(bed, CONTAINER, first, 2, &[1, 2])?;
    let told = rounds(&client);
    await_rounds(&mut client, told + ROUNDS)?;

    bed.act("cutting the power of the primary's node", |cluster| cluster.node(second).kill())?;
    await_line_up(bed, CONTAINER, first, 1, &[1])?;
    let told = rounds(&client);
    await_rounds(&mut client, told + ROUNDS)?;
    drop(other);
    // It goes on until it is told to stop.
    let words = exec(CONTAINER, third, &["sh", "-c", "echo > /tmp/stop"]);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let stopped = bed.dvsctl(third, &words)?;
    expect(stopped.succeeded(), "having the client stop", "it can be told", &stopped)?;
    let ended = client.end().map_err(|error| failed("the client", &error))?;
    let last = ended.stdout.lines().last().unwrap_or_default().to_owned();
    let whole = ended.succeeded() && last.starts_with("nothing is missing");
    expect(whole, "looking at all that was written", "nothing is missing", &ended)?;
    bed.note(format!("a client of a disk whose primary was killed and cut off: {last}"));
    drop(again);
    bed.act("giving power", |cluster| cluster.node(second).start())?;
    bed.await_all_ready("waiting for the node to come back")?;
    await_whole(bed, "waiting for the node to take part again")?;
    delete(bed, CONTAINER)
}

/// Starts a server, which is fed into the container if it is not there.
fn serve(bed: &Bed, node: usize, what: &str, feed: bool) -> Result<Running, Mismatch> {
    let arguments = format!("serve --group disks {what}");
    match feed {
        true => start(bed, CONTAINER, node, "mol-vdd", &arguments),
        false => run(bed, CONTAINER, node, &format!("exec /tmp/mol-vdd {arguments}")),
    }
}

fn witness(bed: &Bed, node: usize) -> Result<Running, Mismatch> {
    start(bed, CONTAINER, node, "mol-vdd-witness", "--group disks --stop /tmp/stop")
}

/// Waits until a replica is the primary and these are in step.
pub(super) fn await_line_up(
    bed: &Bed,
    container: &str,
    node: usize,
    primary: u32,
    whole: &[u32],
) -> Result<(), Mismatch> {
    let words = exec(container, node, &["/tmp/mol-vdd", "show", "--group", "disks"]);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let shown = bed.dvsctl(node, &words)?;
        let is_primary = shown
            .stdout
            .lines()
            .next()
            .is_some_and(|line| line.ends_with(&format!(", primary {primary}")));
        let in_step = |id: &u32| shown.stdout.contains(&format!("replica {id}: in step"));
        let count = shown.stdout.matches(": in step").count();
        if is_primary && whole.iter().all(in_step) && count == whole.len() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let expected = format!("primary {primary}, {whole:?} in step");
            return Err(Mismatch::new("waiting for a line-up", expected, shown));
        }
        std::thread::sleep(POLL);
    }
}

/// How often the client has written.
fn rounds(client: &Running) -> u64 {
    let said = client.said();
    let last = said.lines().last().and_then(|line| line.strip_prefix("round "));
    last.and_then(|round| round.parse().ok()).unwrap_or(0)
}

fn await_rounds(client: &mut Running, count: u64) -> Result<(), Mismatch> {
    let deadline = Instant::now() + PATIENCE;
    while rounds(client) < count {
        if !client.runs() || Instant::now() >= deadline {
            let step = "waiting for the client to write";
            return Err(Mismatch::new(step, format!("{count} times"), client.said()));
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}
