// SPDX-License-Identifier: MIT OR Apache-2.0
//! A suite of tests of file systems, pjdfstest, on one node, on a file system whose file server is on another one: it is mounted there
//! through FUSE.

use std::process::Command;
use std::time::Duration;

use dvs_api::Container;
use dvs_qemu::accel::Choice;
use dvs_qemu::access;
use dvs_qemu::machine::{Memory, QEMU};
use dvs_qemu::{Cluster, Options};

use super::guest::Guest;
use super::mismatch::{expect, Mismatch};
use super::program::{self, Ended};
use crate::artefacts;
use crate::doctor::{self, Need};
use crate::initramfs;
use crate::kernel::{Image, Variant};
use crate::qemu::{accelerator, launcher};
use crate::source::{Origin, Pins};
use crate::step::Session;

const CONTAINER: &str = "posix";
/// A boot, on a busy host.
const READY: Duration = Duration::from_secs(180);
/// For a program that does little.
const MOMENT: Duration = Duration::from_secs(60);
/// The suite waits for more than a second whenever a time is to change, and does everything by way of two nodes.
const LIMIT: Duration = Duration::from_secs(3600);
/// The node on which the suite runs, and that of the file server.
const NEAR: usize = 0;
const FAR: usize = 1;
/// There is room for the largest file that a case fills.
const MEMORY: Memory = Memory { mib: 512 };
const IMAGE: &str = "/run/posix.image";
const IMAGE_KIB: u32 = 64 << 10;
const MOUNT: &str = "/run/posix";
/// A program for many, of which a node has no links by names.
const BUSYBOX: &str = "/usr/libexec/dvs/busybox";
/// The suite, for which some cases need another file system.
const SUITE: &str = "pjdfstest -p /run/posix -s /tmp -c";
/// How it is configured, and the same for the cases that need no other mount.
const ALL: &str = "/etc/pjdfstest.toml";
const OTHERS: &str = "/run/pjdfstest.toml";
/// The cases that mount the file system anew to be read only. They come first, and alone: of the others, some leave files open, with which
/// Linux does not do that.
const REMOUNTING: &str = "erofs";
/// Why cases may be left out: calls that Linux does not have, and a time that neither POSIX nor the format has.
const LACKING: [&str; 3] = ["chflags", "nfsv4_acls", "stat_st_birthtime"];
/// The C library does not ask a file system that it does not know how many links there may be. And what was run before.
const EXCUSED: [&str; 2] =
    ["Cannot get value for LINK_MAX", "Remounts (allow_remount) are not allowed"];

/// The suite passes, but for what `vos/mol/fuse/posix/pjdfstest.toml` lists with reasons; and each of these fails. The file system is sound
/// then.
pub(super) fn passes(session: &Session, origin: &Origin) -> Result<(), Mismatch> {
    let (cluster, dvk) = start(session, origin)?;
    let shell = |node: usize, script: &str| {
        Guest::start(&cluster, node, &[BUSYBOX, "sh", "-c", script], MOMENT)?.succeed()
    };
    let run = |node: usize, command: &str, limit: Duration| {
        let words: Vec<&str> = command.split_whitespace().collect();
        Guest::start(&cluster, node, &words, limit)
    };
    run(FAR, &format!("mol-fs make {IMAGE} --size {IMAGE_KIB}"), MOMENT)?.succeed()?;
    let serve = format!("mol-fs serve --dvk {dvk} --group files --disk a={IMAGE} --mount a");
    let server = run(FAR, &serve, LIMIT)?;
    shell(NEAR, &format!("mkdir {MOUNT}"))?;
    let gateway = run(NEAR, &format!("mol-fuse --dvk {dvk} --server files {MOUNT}"), LIMIT)?;
    // The suite makes a directory of its own, in which it changes users.
    shell(NEAR, &format!("until grep -q ' {MOUNT} fuse' /proc/mounts; do sleep 1; done"))?;

    judge(&run(NEAR, &format!("{SUITE} {ALL} {REMOUNTING}"), LIMIT)?.end()?)?;
    shell(NEAR, &format!("sed 's/allow_remount = true/allow_remount = false/' {ALL} > {OTHERS}"))?;
    judge(&run(NEAR, &format!("{SUITE} {OTHERS}"), LIMIT)?.end()?)?;

    shell(NEAR, "kill $(pidof mol-fuse)")?;
    let ended = gateway.end()?;
    expect(ended.succeeded(), "unmounting", "mol-fuse succeeds", &ended)?;
    shell(FAR, "kill $(pidof mol-fs)")?;
    let ended = server.end()?;
    expect(ended.succeeded(), "ending the file server", "mol-fs succeeds", &ended)?;
    let checked = run(FAR, &format!("mol-fs check {IMAGE}"), MOMENT)?.end()?;
    expect(checked.succeeded(), "checking the file system", "it is sound", &checked)
}

/// Two nodes with the suite, and the device of a container on both.
fn start(session: &Session, origin: &Origin) -> Result<(Cluster, String), Mismatch> {
    let step = "starting two nodes with a suite of tests";
    let failed = |error: anyhow::Error| Mismatch::new(step, "they start", format!("{error:#}"));
    let tools = Pins::read(session).map_err(failed)?.tools;
    doctor::require(session, &[Need::Qemu], &tools).map_err(failed)?;
    let built =
        artefacts::build(session, origin, Variant::Node, Image::Vmlinux, true).map_err(failed)?;
    let root = initramfs::for_posix(session, &built.root).map_err(failed)?;
    let kernel = &built.kernel.image;
    let mut options = Options::new(kernel, root);
    options.nodes = 2;
    options.agent = true;
    options.memory = MEMORY;
    options.logs = Some(session.store.directory("logs").map_err(failed)?.join("posix"));
    options.launcher = launcher();
    options.accelerator = accelerator(Choice::Auto, QEMU, &session.workspace.cache, kernel);
    let cluster = Cluster::start(options).map_err(|error| failed(error.into()))?;
    cluster.wait_ready(READY).map_err(|error| failed(error.into()))?;
    let mut dvsctl = Command::new(built.root.programs.path("dvsctl"));
    access::reach(&mut dvsctl, cluster.run(), None)
        .args(["-o", "json", "dc", "create", CONTAINER, "--nodes", "0,1"]);
    let made = program::start(&mut dvsctl, READY).and_then(program::Running::end);
    let made = made.map_err(|error| failed(error.into()))?;
    let container: Container = serde_json::from_str(&made.stdout)
        .map_err(|error| Mismatch::new(step, "a container", format!("{error}: {made}")))?;
    Ok((cluster, format!("/dev/dvk-dc{}", container.id)))
}

/// No case failed that was to pass or passed that was to fail, and none was left out for want of something that there is.
fn judge(suite: &Ended) -> Result<(), Mismatch> {
    let bad = |line: &&str| line.ends_with("FAILED") || line.ends_with("PASSED UNEXPECTEDLY");
    let mut wrong: Vec<&str> = Vec::new();
    let mut lines = suite.stdout.lines().peekable();
    while let Some(line) = lines.next() {
        if bad(&line) {
            wrong.push(line);
            // Why is below it.
            wrong.extend(lines.next_if(|next| next.starts_with('\t')));
        } else if line.ends_with("skipped") {
            let reason = lines.next_if(|next| next.starts_with('\t')).unwrap_or_default().trim();
            let lacks = reason.strip_prefix("requires features: ");
            let is_excused = match lacks {
                Some(lacks) => lacks.split(", ").all(|one| LACKING.contains(&one)),
                None => EXCUSED.iter().any(|excuse| reason.starts_with(excuse)),
            };
            if !is_excused {
                wrong.extend([line, reason]);
            }
        }
    }
    let step = "pjdfstest on MoL-FS through FUSE";
    let expected = "only the cases that vos/mol/fuse/posix/pjdfstest.toml lists fail";
    expect(wrong.is_empty(), step, expected, wrong.join("\n"))?;
    expect(suite.succeeded(), step, expected, suite)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(status: i32, stdout: &str) -> Result<(), Mismatch> {
        let (stdout, stderr) = (stdout.to_owned(), String::new());
        judge(&Ended { status: Some(status), overdue: false, stdout, stderr })
    }

    #[test]
    fn a_suite_is_good_if_nothing_is_unexpected() {
        let good = "a::b    ok\na::c   failed as expected\n";
        let flags = "chflags::d    skipped\n\trequires features: chflags\n";
        let links = "link::max    skipped\n\tCannot get value for LINK_MAX: unknown\n";
        assert!(judged(0, &format!("{good}{flags}{links}")).is_ok());
        assert!(judged(1, good).is_err(), "it has failed otherwise");
        let failed = judged(1, &format!("{good}a::e    FAILED\n\tassertion failed\n"));
        assert!(failed.unwrap_err().came.ends_with("FAILED\n\tassertion failed"));
        assert!(judged(1, "a::b   PASSED UNEXPECTEDLY\n").is_err());
        for lack in ["requires root privileges", "requires features: utimensat", "No secondary"] {
            assert!(judged(0, &format!("a::b    skipped\n\t{lack}\n")).is_err(), "{lack}");
        }
    }
}
