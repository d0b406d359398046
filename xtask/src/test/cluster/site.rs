// SPDX-License-Identifier: MIT OR Apache-2.0
//! The site of `cargo xtask qemu --demo web`: a large file is downloaded again and again, each time intact, while each node in turn loses
//! power. Whoever downloads is cut off then, and asks for the rest.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use dvs_qemu::cluster::free_ports;

use super::command_line::xtask;
use super::mismatch::{expect, Mismatch};
use super::program::{self, Running};
use crate::digest::sha256;
use crate::fetch::{self, Answer};
use crate::source::Origin;
use crate::step::Session;

/// Builds, boots, and then each node is off and comes back; a replica of the disk takes its time to be in step again.
const LIMIT: Duration = Duration::from_secs(3600);
/// How long nothing may come of a file, whatever fails.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long a server may be silent before it is asked anew, which another one may answer.
const SILENCE: Duration = Duration::from_secs(40);
const POLL: Duration = Duration::from_millis(300);

/// How many bytes of a download have come when a node loses power in the middle of it.
const MIDWAY: usize = 10 << 20;
const NODES: usize = 4;

/// A node loses power when a download is midway, and comes back when that download has ended whole. What it had is not touched
/// again before the disk has both replicas: it stands the loss of one.
const SCRIPT: &str = r#"
echo "$DVS_DEMO_URL"
until_there() {
    tries=0
    until test -e "$DVS_TEST_SITE/$1"; do
        tries=$((tries + 1))
        test $tries -lt 3000 || exit $2
        sleep 0.2
    done
}
for node in 0 1 2 3; do
    echo "turn $node"
    until_there midway-$node 2
    cargo xtask qemu kill $node || exit 3
    echo "cut $node"
    until_there whole-$node 4
    cargo xtask qemu start $node || exit 5
    tries=0
    until dvsctl node show $node -o json | grep -q '"state": *"ready"'; do
        tries=$((tries + 1))
        test $tries -lt 180 || exit 6
        sleep 1
    done
    tries=0
    until test "$(dvsctl dc exec web -- mol-vdd show --group disks | grep -c ': in step')" = 2; do
        tries=$((tries + 1))
        test $tries -lt 300 || exit 7
        sleep 2
    done
    echo "back $node"
done
"#;

/// Every download is whole, and of each node one was that the node's power cut had found midway.
pub(super) fn survives(session: &Session, origin: &Origin) -> Result<(), Mismatch> {
    let step = "cargo xtask qemu --nodes 4 --demo web --exec …";
    let wrong = |expected: &str, error: io::Error| Mismatch::new(step, expected, error);
    let port = free_ports(1).map_err(|error| Mismatch::new(step, "a free port", error))?[0];
    let signs = tempfile::tempdir().map_err(|error| wrong("a folder for signs", error))?;
    let publish = format!("{port}:8080");
    let arguments =
        ["qemu", "--nodes", "4", "--demo", "web", "--publish", &publish, "--exec", SCRIPT];
    let mut command = xtask(session, origin, &arguments);
    let started = program::start(command.env("DVS_TEST_SITE", signs.path()), LIMIT);
    let mut shown = started.map_err(|error| wrong("it can be run", error))?;
    let url = format!("http://127.0.0.1:{port}/");
    if !await_line(&mut shown, &url) {
        return ended(shown, step, "its URL is printed");
    }
    let server = SocketAddr::from(([127, 0, 0, 1], port));
    let promised = download(&mut shown, server, "/large.bin.sha256", |_, _| {})?;
    let promised = promised.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let Some(promised) = promised else { return ended(shown, step, "the site is served") };
    let expected = promised.split(' ').next().unwrap_or_default();
    let give = |sign: String| {
        // Without it the script ends with an exit status that tells what it waited for.
        drop(fs::write(signs.path().join(sign), ""));
    };
    let mut through = [0; NODES];
    loop {
        let mut midway = None;
        let got = download(&mut shown, server, "/large.bin", |shown, bytes| {
            if bytes >= MIDWAY && midway.is_none() {
                midway = waiting(&shown.said());
                midway.into_iter().for_each(|node| give(format!("midway-{node}")));
            }
        })?;
        let Some(bytes) = got else { break };
        let hash = sha256(&bytes);
        let what = format!("{hash}, of {} bytes, with {through:?} before", bytes.len());
        expect(hash == expected, "downloading large.bin", expected, what)?;
        let Some(node) = midway else { continue };
        // It may have come to its end before the power was off.
        expect(
            shown.said().contains(&format!("cut {node}\n")),
            "downloading large.bin while a node loses power",
            &format!("node {node} is off before the last of {} bytes has come", bytes.len()),
            "it was on",
        )?;
        through[node] += 1;
        give(format!("whole-{node}"));
    }
    let all = (0..NODES).map(|n| format!("turn {n}\ncut {n}\nback {n}\n")).collect::<String>();
    let expected = format!("{url}\n{all}");
    let left = shown.end().map_err(|error| wrong("it ends", error))?;
    expect(left.succeeded() && left.stdout == expected, step, &expected, &left)?;
    let what = "whole downloads that each node's power cut found midway";
    expect(through == [1; NODES], what, "one of each node", format!("{through:?}"))
}

/// The node whose turn it is and that has power.
fn waiting(said: &str) -> Option<usize> {
    said.lines().last()?.strip_prefix("turn ")?.parse().ok().filter(|&node| node < NODES)
}

fn await_line(shown: &mut Running, line: &str) -> bool {
    while shown.runs() {
        if shown.said().lines().any(|said| said == line) {
            return true;
        }
        std::thread::sleep(POLL);
    }
    false
}

fn ended(shown: Running, step: &str, expected: &str) -> Result<(), Mismatch> {
    let left = shown.end().map_err(|error| Mismatch::new(step, "it ends", error))?;
    Err(Mismatch::new(step, expected, left))
}

/// Downloads a file, going on where it was cut off; `None` if the command has ended meanwhile, and the cluster with it. `watch` is told
/// whenever the number of bytes has grown.
fn download(
    shown: &mut Running,
    server: SocketAddr,
    path: &str,
    mut watch: impl FnMut(&Running, usize),
) -> Result<Option<Vec<u8>>, Mismatch> {
    let step = format!("downloading {path}");
    let mut bytes = Vec::new();
    let mut progress = Instant::now();
    loop {
        let due = if bytes.is_empty() { 200 } else { 206 };
        let before = bytes.len();
        let got = fetch::get(server, path, before, SILENCE, |more| watch(shown, before + more));
        let why = match got {
            Ok(Answer { status, body, is_whole }) if status == due => {
                if !body.is_empty() {
                    progress = Instant::now();
                }
                bytes.extend(body);
                if is_whole {
                    return Ok(Some(bytes));
                }
                "it was cut off".to_owned()
            }
            // All was there already when the connection was cut.
            Ok(Answer { status: 416, .. }) if !bytes.is_empty() => return Ok(Some(bytes)),
            // No file server at the moment.
            Ok(Answer { status: 503, .. }) => "status 503".to_owned(),
            Ok(Answer { status, .. }) => {
                return Err(Mismatch::new(
                    &step,
                    format!("status {due}"),
                    format!("status {status}"),
                ));
            }
            Err(error) => error.to_string(),
        };
        if !shown.runs() {
            return Ok(None);
        }
        if progress.elapsed() >= PATIENCE {
            let found = format!("{why}, for {} s, with {} bytes", PATIENCE.as_secs(), bytes.len());
            return Err(Mismatch::new(&step, "it goes on", found));
        }
        std::thread::sleep(POLL);
    }
}
