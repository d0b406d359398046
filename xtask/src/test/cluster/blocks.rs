// SPDX-License-Identifier: MIT OR Apache-2.0
//! A disk of a container is a block device of Linux on two nodes: what is written through one is read through the other, while the
//! server of its primary is killed; nothing of it is left when its gateway is told to end, and nobody waits forever when there is no
//! server any more.

use std::time::{Duration, Instant};

use super::agreement::await_whole;
use super::bed::{Bed, MEMBERS};
use super::dc::{create, delete, failed, start};
use super::disks::await_line_up;
use super::guest::Guest;
use super::mismatch::{expect, Mismatch};
use super::program::Ended;

const CONTAINER: &str = "blocks";
/// Longer than all of it takes on a busy host, some minutes of silence included: Linux may ask again what it was refused.
const LIMIT: Duration = Duration::from_secs(600);
const BUSYBOX: &str = "/usr/libexec/dvs/busybox";
/// The number of the block device by which is written, and of that by which is read.
const WRITTEN: u32 = 5;
const READ: u32 = 6;
/// Pieces of 64 KiB of what is written before the primary's server is killed, and afterwards.
const BEFORE: u32 = 24;
const AFTER: u32 = 16;

/// Linux writes, and reads elsewhere.
pub(super) fn of_linux(bed: &mut Bed) -> Result<(), Mismatch> {
    let seen = await_whole(bed, "before the container is made")?;
    let leader = seen.leader.unwrap_or_default() as usize;
    let nodes: Vec<usize> = (0..MEMBERS).filter(|node| *node != leader).collect();
    let [first, second, third] = nodes[..] else { return Ok(()) };
    let dvk = format!("/dev/dvk-dc{}", create(bed, CONTAINER, "all", &[])?.id);
    let disk = "serve --group disks --device memory:4M --replica";
    let served = start(bed, CONTAINER, first, "mol-vdd", &format!("{disk} 1 --begin"))?;
    let other = start(bed, CONTAINER, second, "mol-vdd", &format!("{disk} 2"))?;
    await_line_up(bed, CONTAINER, first, 1, &[1, 2])?;

    let writing = gateway(bed, third, &dvk, WRITTEN)?;
    let write = |count, seek, file: &str| {
        let make = format!("head -c $(({count} * 65536)) /dev/urandom > {file}");
        let copy =
            format!("dd if={file} of=/dev/ublkb{WRITTEN} bs=65536 seek={seek} conv=fsync,notrunc");
        succeed(bed, third, &format!("{make} && {copy}"))
    };
    write(BEFORE, 0, "/run/before")?;
    let killed = bed.run_on(first, &["dvk-scenarios", "kill", "mol-vdd"], LIMIT)?;
    expect(killed.stdout == "1\n", "killing the server of the primary", "one process", killed)?;
    let began = Instant::now();
    write(AFTER, BEFORE, "/run/after")?;
    bed.note(format!(
        "Linux wrote to a disk {:.1} s after its primary was killed",
        began.elapsed().as_secs_f64()
    ));
    let ended = served.end().map_err(|error| failed("the server of the primary", &error))?;
    expect(!ended.succeeded(), "waiting for the killed server", "it fails", &ended)?;
    let hash = succeed(bed, third, "cat /run/before /run/after | sha256sum")?.stdout;

    let reading = gateway(bed, leader, &dvk, READ)?;
    let read = format!("dd if=/dev/ublkb{READ} bs=65536 count={} | sha256sum", BEFORE + AFTER);
    let step = "reading by another node what was written by one";
    let there = succeed(bed, leader, &read)?;
    expect(there.stdout == hash, step, &hash, &there)?;
    // One that is killed leaves something behind, which the next one of its number takes away.
    let killed = bed.run_on(leader, &["dvk-scenarios", "kill", "mol-vdd"], LIMIT)?;
    expect(killed.stdout == "1\n", "killing a gateway", "one process", killed)?;
    reading.end()?;
    let gone = format!("until test ! -e /dev/ublkb{READ}; do sleep 0.3; done");
    succeed(bed, leader, &gone)?;
    let reading = gateway(bed, leader, &dvk, READ)?;
    let there = succeed(bed, leader, &read)?;
    expect(there.stdout == hash, step, &hash, &there)?;

    // One that is told to end leaves nothing.
    let stop = |node| succeed(bed, node, "kill -TERM $(pidof mol-vdd)");
    stop(third)?;
    let ended = writing.end()?;
    expect(ended.succeeded(), "telling a gateway to end", "it succeeds", &ended)?;
    let gone = format!("test ! -e /dev/ublkb{WRITTEN} && test ! -e /dev/ublkc{WRITTEN}");
    succeed(bed, third, &gone)?;

    // Without a server, what was not read yet cannot be.
    let killed = bed.run_on(second, &["dvk-scenarios", "kill", "mol-vdd"], LIMIT)?;
    expect(killed.stdout == "1\n", "killing the last server", "one process", killed)?;
    drop(other);
    let silent = shell(bed, leader, &format!("dd if=/dev/ublkb{READ} bs=65536 skip=56 count=1"))?;
    let fails =
        !silent.overdue && !silent.succeeded() && silent.stderr.contains("Input/output error");
    expect(fails, "reading from a disk without servers", "an I/O error in time", &silent)?;
    stop(leader)?;
    let ended = reading.end()?;
    expect(ended.succeeded(), "telling the last gateway to end", "it succeeds", &ended)?;
    delete(bed, CONTAINER)
}

/// Has Linux use the disk on a node, and waits until it does.
fn gateway(bed: &Bed, node: usize, dvk: &str, id: u32) -> Result<Guest, Mismatch> {
    let id = id.to_string();
    let words = ["mol-vdd", "--dvk", dvk, "ublk", "--group", "disks", "--id", &id];
    let guest = bed.start_on(node, &words, LIMIT)?;
    let wait = format!(
        "i=0; until test -b /dev/ublkb{id}; do i=$((i + 1)); test $i -lt 200; sleep 0.3; done"
    );
    match succeed(bed, node, &wait) {
        Ok(_) => Ok(guest),
        // It has ended, or is waiting for something, and may have said why.
        Err(mismatch) => {
            succeed(bed, node, "kill -KILL $(pidof mol-vdd) || true")?;
            let ended = guest.end()?;
            expect(false, "having Linux use a disk", "it does", &ended).and(Err(mismatch))
        }
    }
}

/// Runs a script on a node with the programs of busybox.
fn shell(bed: &Bed, node: usize, script: &str) -> Result<Ended, Mismatch> {
    let names = ["cat", "dd", "head", "kill", "pidof", "sha256sum", "sleep", "test"];
    let each = names.map(|name| format!("{name}() {{ {BUSYBOX} {name} \"$@\"; }}"));
    let script = format!("set -e -o pipefail; {}; {script}", each.join("; "));
    bed.run_on(node, &[BUSYBOX, "sh", "-c", &script], LIMIT)
}

fn succeed(bed: &Bed, node: usize, script: &str) -> Result<Ended, Mismatch> {
    let ended = shell(bed, node, script)?;
    expect(ended.succeeded(), &format!("`{script}` on node{node}"), "it succeeds", &ended)?;
    Ok(ended)
}
