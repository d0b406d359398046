// SPDX-License-Identifier: MIT OR Apache-2.0
//! How containers come and go.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use anyhow::{ensure, Context, Result};
use dvs_runtime::{Fault, Kind, Phase, Root};
use rustix::process::{kill_process, kill_process_group, Pid, Signal};

use crate::bench::{equal, owned, spec, Bench};
use crate::traces::Traces;

pub(super) fn outlives_its_maker(bench: &Bench) -> Result<()> {
    let mut web = spec("web");
    web.process.command = owned(&["sh", "-c", "echo up; exec sleep 1000"]);
    let text = format!("{}\n", web.to_json()?);
    let mut maker = Command::new("/proc/self/exe")
        .arg("maker")
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting a maker of a container")?;
    maker.stdin.take().context("talking to it")?.write_all(text.as_bytes())?;
    let mut line = String::new();
    BufReader::new(maker.stdout.take().context("listening to it")?).read_line(&mut line)?;
    equal("what the maker says", line.trim(), "made")?;
    // As PID 1 ends a service: with all of its group.
    kill_process_group(Pid::from_child(&maker), Signal::KILL).context("killing the maker")?;
    maker.wait()?;
    let listed = bench.runtime.list()?;
    equal("how many there are", listed.len(), 1)?;
    equal("it", (listed[0].name.as_str(), listed[0].phase), ("web", Phase::Running))?;
    equal("a command in it", bench.shell("web", "hostname")?.as_str(), "web")?;
    bench.runtime.kill("web", "TERM")?;
    let end = bench.await_stopped("web")?.end.context("its end was not written down")?;
    equal("its end", end.status, 143)?;
    equal("its log", bench.runtime.logs("web")?.as_slice(), b"up\n")
}

pub(super) fn ends_with_its_keeper(bench: &Bench) -> Result<()> {
    let mut web = spec("web");
    web.process.command = owned(&["sleep", "1000"]);
    bench.started(&web)?;
    let status = bench.runtime.status("web")?;
    let first = status.pid.and_then(Pid::from_raw).context("it has no process")?;
    let keeper = parent(first)?;
    kill_process(keeper, Signal::KILL).context("killing the keeper")?;
    let status = bench.await_stopped("web")?;
    equal("how it ended, which nobody wrote down", status.end, None)?;
    bench.runtime.delete("web", false)?;
    equal("what is left", bench.runtime.list()?.len(), 0)
}

/// The keeper of a container is the parent of its first process, since who started that has ended.
fn parent(process: Pid) -> Result<Pid> {
    let path = format!("/proc/{}/status", process.as_raw_nonzero());
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let parent = text.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok());
    parent.and_then(Pid::from_raw).with_context(|| format!("looking for a parent in {path}"))
}

pub(super) fn is_signalled(bench: &Bench) -> Result<()> {
    let mut web = spec("web");
    let script = "trap 'echo got it' USR1; while :; do sleep 0.1; done";
    web.process.command = owned(&["sh", "-c", script]);
    bench.started(&web)?;
    bench.runtime.kill("web", "USR1")?;
    bench.await_status("web", "has taken the signal", |_| {
        // It may have come before the trap was set: then it has ended.
        bench.runtime.logs("web").is_ok_and(|log| log == b"got it\n")
            || bench.runtime.status("web").is_ok_and(|status| status.phase == Phase::Stopped)
    })?;
    if bench.runtime.status("web")?.phase == Phase::Running {
        bench.runtime.kill("web", "STOP")?;
        let frozen = "/sys/fs/cgroup/dvs/web/cgroup.events";
        bench.await_status("web", "rests", |_| {
            std::fs::read_to_string(frozen).is_ok_and(|text| text.contains("frozen 1"))
        })?;
        bench.runtime.kill("web", "CONT")?;
        bench.await_status("web", "goes on", |_| {
            std::fs::read_to_string(frozen).is_ok_and(|text| text.contains("frozen 0"))
        })?;
        bench.runtime.kill("web", "KILL")?;
    }
    let end = bench.await_stopped("web")?.end.context("its end was not written down")?;
    ensure!(end.status == 137 || end.status == 138, "ending by a signal: {}", end.status);
    Ok(())
}

fn refused<T>(what: &str, result: Result<T, Fault>, kind: Kind) -> Result<()> {
    let Err(fault) = result else { anyhow::bail!("{what}: it was done") };
    ensure!(fault.kind == kind, "{what}: expected {kind:?}, got {fault:?}");
    // Where, what and why, on one line, without the word that only a terminal needs.
    ensure!(
        !fault.message.contains('\n')
            && !fault.message.starts_with("error")
            && fault.message.contains(": "),
        "{what}: {fault:?}"
    );
    Ok(())
}

pub(super) fn refuses_by_kind(bench: &Bench) -> Result<()> {
    let runtime = &bench.runtime;
    let before = Traces::taken()?;
    for (what, result) in [
        ("starting what is not there", runtime.start("web").err()),
        ("deleting what is not there", runtime.delete("web", true).err()),
        ("asking for what is not there", runtime.status("web").err()),
        ("measuring what is not there", runtime.stats("web").err()),
        ("reading the log of what is not there", runtime.logs("web").err()),
        ("signalling what is not there", runtime.kill("web", "TERM").err()),
    ] {
        refused(what, result.map_or(Ok(()), Err), Kind::NotFound)?;
    }
    let mut web = spec("web");
    web.root = Root::Image("none".to_owned());
    refused("making it of no image", runtime.create(&web), Kind::NotFound)?;
    web = spec("web");
    web.dvk = 4003;
    refused("making it for no Distributed Container", runtime.create(&web), Kind::NotFound)?;
    web = spec("web");
    web.limits.memory = 1;
    refused("making it without memory", runtime.create(&web), Kind::Invalid)?;
    web = spec("web");
    web.limits.cpu.set = Some("4000".to_owned());
    refused("making it for no processor", runtime.create(&web), Kind::Failed)?;
    web = spec("Web/..");
    refused("making it by no name", runtime.create(&web), Kind::Invalid)?;
    before.equal(&Traces::taken()?)?;
    web = spec("web");
    web.process.command = owned(&["/no/such/program"]);
    bench.made(&web)?;
    refused("starting no program", runtime.start("web"), Kind::Failed)?;
    runtime.delete("web", true)?;
    web = spec("web");
    bench.made(&web)?;
    refused("making it twice", runtime.create(&web), Kind::Exists)?;
    refused("deleting what has not ended", runtime.delete("web", false), Kind::State)?;
    runtime.start("web")?;
    refused("starting it twice", runtime.start("web"), Kind::State)?;
    refused("a signal that there is not", runtime.kill("web", "NONE"), Kind::Invalid)?;
    runtime.kill("web", "KILL")?;
    bench.await_stopped("web")?;
    refused("starting what has ended", runtime.start("web"), Kind::State)?;
    refused("signalling what has ended", runtime.kill("web", "TERM"), Kind::State)?;
    let session = runtime.exec("web", crate::bench::request(&["true"]))?;
    refused("running a command in what has ended", session.finish(b""), Kind::State)
}

pub(super) fn leaves_nothing(bench: &Bench) -> Result<()> {
    let before = Traces::taken()?;
    // Made, started, with commands in it, with orphans, ended, killed.
    for name in ["made", "idle", "busy", "ended"] {
        let mut spec = spec(name);
        if name == "ended" {
            spec.process.command = owned(&["true"]);
        }
        bench.made(&spec)?;
        if name != "made" {
            bench.runtime.start(name)?;
        }
    }
    bench.shell("busy", "(sleep 1000 &); (setsid sleep 1000 &); echo > /home/file")?;
    let session = bench.runtime.exec("busy", crate::bench::request(&["sleep", "1000"]))?;
    bench.await_stopped("ended")?;
    let between = Traces::taken()?;
    // The counting itself works: there is something to be left.
    for (kind, more) in [("namespaces", 18), ("processes", 6), ("cgroups", 4), ("containers", 4)] {
        ensure!(
            between.count(kind) >= before.count(kind) + more,
            "counting {kind} of four containers: {} before, {} with them",
            before.count(kind),
            between.count(kind)
        );
    }
    for name in ["made", "idle", "busy"] {
        bench.runtime.delete(name, true)?;
    }
    bench.runtime.delete("ended", false)?;
    drop(session);
    before.equal(&Traces::taken()?)
}
