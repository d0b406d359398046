// SPDX-License-Identifier: MIT OR Apache-2.0
//! A file server on either of two nodes, its disk with replicas on two, and a web server on another: downloads are whole and go on while
//! the file server is killed and while a node that has one and a replica loses power.

use std::time::{Duration, Instant};

use super::agreement::await_whole;
use super::bed::{Bed, MEMBERS, PATIENCE};
use super::dc::{create, delete, failed, run, start};
use super::disks::await_line_up;
use super::mismatch::{expect, Mismatch};
use super::program::{Ended, Running};

const CONTAINER: &str = "site";
/// Longer than all of it takes on a busy host.
const LIMIT: Duration = Duration::from_secs(300);
/// How often the file is fetched at least after each failure, before the next.
const FETCHES: usize = 3;
/// Of what is fetched: many reads of the web server, and more than the file server has cached at once after it took over.
const BYTES: usize = 3 << 20;
const POLL: Duration = Duration::from_millis(300);
const DISK: &str = "serve --group disks --device memory:8M --replica";
const FILES: &str = "serve --group files --disk site=vdd:disks/0 --mount site --make-missing";

/// The web server asks whichever file server is there.
pub(super) fn take_over(bed: &mut Bed) -> Result<(), Mismatch> {
    let seen = await_whole(bed, "before the container is made")?;
    let leader = seen.leader.unwrap_or_default() as usize;
    let nodes: Vec<usize> = (0..MEMBERS).filter(|node| *node != leader).collect();
    let [first, second, third] = nodes[..] else { return Ok(()) };
    create(bed, CONTAINER, "all", &[])?;
    let disk = start(bed, CONTAINER, first, "mol-vdd", &format!("{DISK} 1 --begin"))?;
    let other_disk = start(bed, CONTAINER, leader, "mol-vdd", &format!("{DISK} 2"))?;
    await_line_up(bed, CONTAINER, first, 1, &[1, 2])?;
    let files = start(bed, CONTAINER, second, "mol-fs", FILES)?;
    await_said(&files, "serving as")?;
    let waiting = start(bed, CONTAINER, first, "mol-fs", FILES)?;
    await_said(&waiting, "waiting to serve")?;
    let web =
        start(bed, CONTAINER, third, "mol-web", "serve --listen 127.0.0.1:8080 --server files")?;
    await_said(&web, "serving at")?;

    let make = format!("head -c {BYTES} /dev/urandom > /tmp/file && sha256sum < /tmp/file");
    let hash = shell(bed, second, &make)?.stdout;
    put(bed, second, "/file")?;
    let script = "set -o pipefail; while [ ! -e /tmp/stop ]; do wget -qO- http://127.0.0.1:8080/file | sha256sum || exit 1; done";
    let mut fetching = run(bed, CONTAINER, third, script)?;
    await_fetches(&mut fetching, &hash, FETCHES)?;

    let began = Instant::now();
    let killed = bed.run_on(second, &["dvk-scenarios", "kill", "mol-fs"], LIMIT)?;
    expect(killed.stdout == "1\n", "killing the file server", "one process", killed)?;
    await_said(&waiting, "serving as")?;
    bed.note(format!(
        "another file server served {:.1} s after a kill",
        began.elapsed().as_secs_f64()
    ));
    let ended = files.end().map_err(|error| failed("the file server", &error))?;
    expect(!ended.succeeded(), "waiting for the killed server", "it fails", &ended)?;
    let told = fetching.said().lines().count();
    await_fetches(&mut fetching, &hash, told + FETCHES)?;
    // What was written by way of one server is changed by way of another.
    put(bed, second, "/second")?;

    let again = start(bed, CONTAINER, third, "mol-fs", FILES)?;
    await_said(&again, "waiting to serve")?;
    let began = Instant::now();
    bed.act(
        "cutting the power of the file server's node, which has the primary of its disk",
        |cluster| cluster.node(first).kill(),
    )?;
    await_said(&again, "serving as")?;
    let seconds = began.elapsed().as_secs_f64();
    bed.note(format!(
        "another file server served {seconds:.1} s after a power cut, with the other replica"
    ));
    await_line_up(bed, CONTAINER, leader, 2, &[2])?;
    let told = fetching.said().lines().count();
    await_fetches(&mut fetching, &hash, told + FETCHES)?;
    shell(bed, third, "echo > /tmp/stop")?;
    let ended = fetching.end().map_err(|error| failed("fetching", &error))?;
    expect(ended.succeeded(), "fetching until it is enough", "every fetch succeeds", &ended)?;
    let wrong = ended.stdout.lines().filter(|line| *line != hash.trim_end()).count();
    expect(wrong == 0, "comparing what was fetched", &format!("{hash} each time"), &ended)?;
    bed.note(format!("{} fetches of {BYTES} bytes were whole", ended.stdout.lines().count()));
    let second_hash = shell(bed, third, "wget -qO- http://127.0.0.1:8080/second | sha256sum")?;
    expect(second_hash.stdout == hash, "fetching the second file", &hash, &second_hash)?;
    drop((disk, other_disk, waiting, web, again));
    bed.act("giving power", |cluster| cluster.node(first).start())?;
    bed.await_all_ready("waiting for the node to come back")?;
    await_whole(bed, "waiting for the node to take part again")?;
    delete(bed, CONTAINER)
}

/// Runs a script in the container, which has to succeed.
fn shell(bed: &Bed, node: usize, script: &str) -> Result<Ended, Mismatch> {
    let ended = run(bed, CONTAINER, node, script)?.end();
    let ended = ended.map_err(|error| failed("a script", &error))?;
    expect(ended.succeeded(), &format!("`{script}` on node{node}"), "it succeeds", &ended)?;
    Ok(ended)
}

/// Has the file server, wherever it is, keep what is in the file.
fn put(bed: &Bed, node: usize, path: &str) -> Result<(), Mismatch> {
    let put = format!("/tmp/mol-fs put --server files {path} < /tmp/file");
    let said = shell(bed, node, &put)?.stdout;
    expect(said == format!("{BYTES} bytes\n"), "putting a file", "all of it", said)
}

/// Waits until a server says something on standard error.
pub(super) fn await_said(server: &Running, what: &str) -> Result<(), Mismatch> {
    let deadline = Instant::now() + PATIENCE;
    while !server.complained().contains(what) {
        if Instant::now() >= deadline {
            let expected = format!("`{what}`");
            return Err(Mismatch::new("waiting for a server", expected, server.complained()));
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}

fn await_fetches(fetching: &mut Running, hash: &str, count: usize) -> Result<(), Mismatch> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let said = fetching.said();
        let wrong = said.lines().any(|line| line != hash.trim_end());
        expect(!wrong, "comparing what was fetched", hash, &said)?;
        if said.lines().count() >= count {
            return Ok(());
        }
        if !fetching.runs() || Instant::now() >= deadline {
            let expected = format!("{count} times");
            return Err(Mismatch::new("waiting for the file to be fetched", expected, said));
        }
        std::thread::sleep(POLL);
    }
}
