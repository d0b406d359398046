// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask qemu` as its user calls it: what goes to standard output, what the exit status is, and that nothing is left
//! running.

use std::env;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use dvs_api::{Node, NodeState, PingResult};
use dvs_qemu::Status;

use super::mismatch::{expect, Mismatch};
use super::program::{self, Ended};
use super::SEED;
use super::{cables, captures, posix, site};
use crate::source::Origin;
use crate::step::Session;

type Scenario = (&'static str, fn(&Session, &Origin) -> Result<(), Mismatch>);

/// Each starts what it needs itself.
pub(super) const SCENARIOS: &[Scenario] = &[
    ("a command is run on a cluster and can act on it", exec),
    ("captures of a bad network can be dissected", captures::are_dissected),
    ("a link goes over another cable when one is pulled", cables::are_pulled),
    ("a VLAN on a bond works as long as one cable of it does", cables::of_bonds_are_pulled),
    ("a cluster without QEMU is refused with one error", without_qemu),
];

/// The same for runs that may be long.
pub(super) const LONG_SCENARIOS: &[Scenario] = &[
    ("a site is downloaded intact while each node in turn loses power", site::survives),
    ("a POSIX suite passes on MoL-FS through FUSE between nodes", posix::passes),
];

/// A start, a power cut and a bad network included.
pub(super) const PATIENCE: Duration = Duration::from_secs(180);
/// How long a killed process may be seen, and how long a refusal may take.
const MOMENT: Duration = Duration::from_secs(30);

/// Each line that this prints is checked; nothing else may be on standard output.
const SCRIPT: &str = r#"
dvsctl node list -o json || exit 1
dvsctl ipc ping --from 0 --to 2 --count 500 -o json || exit 2
cargo xtask qemu status -o json | tr -d '\n' || exit 3
echo
cargo xtask qemu kill 2 || exit 4
tries=0
until dvsctl node list -o json | grep -q '"state":"down"'; do
    tries=$((tries + 1))
    test $tries -lt 60 || exit 5
    sleep 0.5
done
dvsctl node list -o json || exit 6
dvsctl ipc ping --from 0 --to 1 --count 100 -o json || exit 7
exit 37
"#;

pub(super) fn xtask(session: &Session, origin: &Origin, arguments: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(&session.workspace.root).arg("xtask").args(arguments);
    if let Origin::Given(path) = origin {
        command.env("DVS_KERNEL_SRC", path);
    }
    command
}

pub(super) fn run(mut command: Command, step: &str, limit: Duration) -> Result<Ended, Mismatch> {
    program::start(&mut command, limit)
        .and_then(program::Running::end)
        .map_err(|error| Mismatch::new(step, "it can be run", error))
}

fn exec(session: &Session, origin: &Origin) -> Result<(), Mismatch> {
    let seed = SEED.to_string();
    let arguments = [
        "qemu", "--nodes", "3", "--loss", "5%", "--delay", "2ms", "--seed", &seed, "--exec", SCRIPT,
    ];
    let step = "cargo xtask qemu --nodes 3 --loss 5% --delay 2ms --exec …";
    let ended = run(xtask(session, origin, &arguments), step, PATIENCE)?;
    expect(ended.status == Some(37), step, "the exit status of the command, which is 37", &ended)?;
    let lines: Vec<_> = ended.stdout.lines().collect();
    expect(lines.len() == 5, step, "the five lines that the command prints", &ended)?;
    let states = |line: &str| -> Option<Vec<NodeState>> {
        let nodes: Vec<Node> = serde_json::from_str(line).ok()?;
        Some(nodes.into_iter().map(|node| node.state).collect())
    };
    let exact = |line: &str, count: u64| {
        serde_json::from_str(line).is_ok_and(|result: PingResult| {
            (result.sent, result.received) == (count, count)
                && (result.duplicated, result.lost, result.reordered) == (0, 0, 0)
        })
    };
    let (ready, down) = (NodeState::Ready, NodeState::Down);
    let expected = "three nodes ready when the command starts";
    expect(states(lines[0]) == Some(vec![ready; 3]), step, expected, lines[0])?;
    expect(exact(lines[1], 500), step, "500 round trips, each exactly once", lines[1])?;
    let expected = "node 2 down after `cargo xtask qemu kill 2`, the others ready";
    expect(states(lines[3]) == Some(vec![ready, ready, down]), step, expected, lines[3])?;
    expect(exact(lines[4], 100), step, "100 more round trips, each exactly once", lines[4])?;
    let status: Status = serde_json::from_str(lines[2]).map_err(|error| {
        Mismatch::new(step, "the status as JSON", format!("{error}: {}", lines[2]))
    })?;
    let pids: Vec<_> = status.cluster.nodes.iter().filter_map(|node| node.pid).collect();
    expect(pids.len() == 3, step, "three process ids in the status", lines[2])?;
    gone(&pids)
}

/// None of these QEMUs may live on.
fn gone(pids: &[u32]) -> Result<(), Mismatch> {
    let lives = |pid: &&u32| {
        // Another process may have got the number since.
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains("qemu-system")
    };
    let deadline = Instant::now() + MOMENT;
    loop {
        let alive: Vec<_> = pids.iter().filter(lives).collect();
        if alive.is_empty() {
            return Ok(());
        }
        let step = "looking for the QEMUs after the command's end";
        expect(Instant::now() < deadline, step, "none is left", format!("{alive:?}"))?;
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn without_qemu(session: &Session, origin: &Origin) -> Result<(), Mismatch> {
    let step = "cargo xtask qemu --nodes 1 --qemu no-such-qemu --exec true";
    let arguments = ["qemu", "--nodes", "1", "--qemu", "no-such-qemu", "--exec", "true"];
    let ended = run(xtask(session, origin, &arguments), step, MOMENT)?;
    let clear = ended.status == Some(1)
        && ended.stdout.is_empty()
        && ended.stderr.contains("no-such-qemu")
        && ended.stderr.matches("error").count() == 1;
    expect(clear, step, "exit status 1 and one error that names the program", ended)
}
