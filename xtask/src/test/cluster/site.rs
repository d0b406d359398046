// SPDX-License-Identifier: MIT OR Apache-2.0
//! The site of `cargo xtask qemu --demo web`: a large file is downloaded again and again, each time intact, while each node in turn loses
//! power. Whoever downloads is cut off then, and asks for the rest.

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

/// What a node had is not touched again before the disk has both replicas: it stands the loss of one.
const SCRIPT: &str = r#"
echo "$DVS_DEMO_URL"
for node in 0 1 2 3; do
    sleep 5
    cargo xtask qemu kill $node || exit 2
    echo "cut $node"
    sleep 20
    cargo xtask qemu start $node || exit 3
    tries=0
    until dvsctl node show $node -o json | grep -q '"state": *"ready"'; do
        tries=$((tries + 1))
        test $tries -lt 180 || exit 4
        sleep 1
    done
    tries=0
    until test "$(dvsctl dc exec web -- mol-vdd show --group disks | grep -c ': in step')" = 2; do
        tries=$((tries + 1))
        test $tries -lt 300 || exit 5
        sleep 2
    done
    echo "back $node"
done
"#;

/// Every download is whole.
pub(super) fn survives(session: &Session, origin: &Origin) -> Result<(), Mismatch> {
    let step = "cargo xtask qemu --nodes 4 --demo web --exec …";
    let port = free_ports(1).map_err(|error| Mismatch::new(step, "a free port", error))?[0];
    let publish = format!("{port}:8080");
    let arguments =
        ["qemu", "--nodes", "4", "--demo", "web", "--publish", &publish, "--exec", SCRIPT];
    let mut shown = program::start(&mut xtask(session, origin, &arguments), LIMIT)
        .map_err(|error| Mismatch::new(step, "it can be run", error))?;
    let url = format!("http://127.0.0.1:{port}/");
    if !await_line(&mut shown, &url) {
        return ended(shown, step, "its URL is printed");
    }
    let server = SocketAddr::from(([127, 0, 0, 1], port));
    let promised = download(&mut shown, server, "/large.bin.sha256")?;
    let promised = promised.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let Some(promised) = promised else { return ended(shown, step, "the site is served") };
    let mut count = 0;
    while let Some(bytes) = download(&mut shown, server, "/large.bin")? {
        let hash = sha256(&bytes);
        let expected = promised.split(' ').next().unwrap_or_default();
        let what = format!("{hash}, of {} bytes, after {count} that were right", bytes.len());
        expect(hash == expected, "downloading large.bin", expected, what)?;
        count += 1;
    }
    let all = (0..4).map(|node| format!("cut {node}\nback {node}\n")).collect::<String>();
    let expected = format!("{url}\n{all}");
    let left = shown.end().map_err(|error| Mismatch::new(step, "it ends", error))?;
    expect(left.succeeded() && left.stdout == expected, step, &expected, &left)?;
    expect(count > 0, "downloading large.bin while nodes fail", "at least one download", count)
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

/// Downloads a file, going on where it was cut off; `None` if the command has ended meanwhile, and the cluster with it.
fn download(
    shown: &mut Running,
    server: SocketAddr,
    path: &str,
) -> Result<Option<Vec<u8>>, Mismatch> {
    let step = format!("downloading {path}");
    let mut bytes = Vec::new();
    let mut progress = Instant::now();
    loop {
        let due = if bytes.is_empty() { 200 } else { 206 };
        let why = match fetch::get(server, path, bytes.len(), SILENCE) {
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
