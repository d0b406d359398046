// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a container is shut off from.

use std::process::Command;

use anyhow::{bail, ensure, Context, Result};
use nix::sys::signal::kill;
use nix::unistd::Pid;

use crate::bench::{equal, request, shown, spec, Bench, DVK};

pub(super) fn of_the_node(bench: &Bench) -> Result<()> {
    bench.started(&spec("web"))?;
    bench.bring_probe("web")?;
    let inside = bench.shell("web", "/tmp/probe probe")?;
    let outside =
        Command::new("/proc/self/exe").arg("probe").output().context("probing the node")?;
    let outside = String::from_utf8_lossy(&outside.stdout).into_owned();
    ensure!(outside.lines().count() >= 15, "probing the node: {outside}");
    for (within, without) in inside.lines().zip(outside.lines()) {
        ensure!(
            without.ends_with(" done"),
            "trying on the node what a container must not do: {without}; a refusal in a container would say nothing"
        );
        ensure!(!within.ends_with(" done"), "trying in a container what it must not do: {within}");
    }
    equal("how much was tried", inside.lines().count(), outside.lines().count())
}

pub(super) fn by_the_profile(bench: &Bench) -> Result<()> {
    let (web, mut strict) = (spec("web"), spec("strict"));
    strict.seccomp.also_deny =
        ["chmod", "fchmod", "fchmodat", "fchmodat2"].map(str::to_owned).to_vec();
    bench.started(&web)?;
    bench.started(&strict)?;
    // Of a command from outside, and of the container's first process, which is not less shut in.
    for process in ["self", "1"] {
        let script = format!("grep -E '^(Seccomp|NoNewPrivs)' /proc/{process}/status");
        let text = bench.shell("web", &script)?;
        let wanted = "NoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t2";
        equal(&format!("what the kernel says of process {process}"), text.as_str(), wanted)?;
    }
    let node = std::fs::read_to_string("/proc/self/status").context("reading the own state")?;
    ensure!(node.contains("\nSeccomp:\t0\n"), "a process of the node has a filter, too: {node}");
    let bounding = bench.shell("web", "grep CapBnd /proc/self/status")?;
    // CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID and NET_BIND_SERVICE: bits 0, 1, 3 to 7, and 10.
    equal("the most that it can get", bounding.as_str(), "CapBnd:\t00000000000004fb")?;
    let change = "echo > /tmp/file && chmod 600 /tmp/file";
    bench.shell("web", change)?;
    let finished = bench.run("strict", &["/bin/sh", "-c", change])?;
    ensure!(
        finished.status != 0
            && String::from_utf8_lossy(&finished.stderr).contains("Operation not permitted"),
        "making a call that the description denies: {}",
        shown(&finished)
    );
    Ok(())
}

pub(super) fn of_containers(bench: &Bench) -> Result<()> {
    let (mut one, mut other) = (spec("one"), spec("other"));
    one.process.command = ["sleep", "1001"].map(str::to_owned).to_vec();
    other.dvk = DVK[1];
    // Different ids; that alone would do, so with the same ones it is tried as well.
    other.ids.first = 2_000_000;
    let mut twin = spec("twin");
    twin.process.command = ["sleep", "1002"].map(str::to_owned).to_vec();
    for spec in [&one, &other, &twin] {
        bench.started(spec)?;
    }
    let pid = bench.runtime.status("one")?.pid.context("a container that runs has no process")?;
    for name in ["other", "twin"] {
        let seen = bench.shell(name, "ps -o args; ls /proc | grep -E '^[0-9]+$' | wc -l")?;
        ensure!(!seen.contains("1001"), "listing processes in {name}: {seen}");
        let finished = bench.run(name, &["kill", "-0", &pid.to_string()])?;
        ensure!(
            finished.status != 0,
            "signalling process {pid} of another container: {}",
            shown(&finished)
        );
        let hostname = bench.shell(name, "hostname")?;
        equal("the host's name", hostname.as_str(), name)?;
        // To all that it may, which is its own command at most, and must be none of another container.
        bench.run(name, &["sh", "-c", "trap '' TERM; kill -TERM -1"])?;
    }
    ensure!(kill(Pid::from_raw(pid), None).is_ok(), "the first container was ended by another");
    let seen = bench.shell("one", "ps -o args")?;
    ensure!(seen.contains("sleep 1001"), "the first container's command was ended: {seen}");
    // 0x9 is up and loopback; no other link that the kernel gives a new namespace is up.
    let script = "cat /sys/class/net/lo/flags; ip -o link show up | wc -l; cat /proc/self/cgroup";
    let links = bench.shell("one", script)?;
    equal("its network and its cgroup", links.as_str(), "0x9\n1\n0::/")?;
    bench.bring_probe("one")?;
    let words = ["/tmp/probe", "serve", "127.0.0.1:80", "9"];
    let server = bench.runtime.exec("one", request(&words))?;
    let fetched = bench.shell("one", "/tmp/probe fetch 127.0.0.1:80")?;
    ensure!(fetched.starts_with("9 "), "talking within a container: {fetched}");
    drop(server);
    Ok(())
}

pub(super) fn of_devices(bench: &Bench) -> Result<()> {
    let (web, mut other) = (spec("web"), spec("other"));
    other.dvk = DVK[1];
    for spec in [&web, &other] {
        bench.started(spec)?;
        bench.bring_probe(&spec.name)?;
    }
    let nodes = bench.shell("web", "find /dev -type c -o -type b | sort")?;
    let wanted = "/dev/dvk\n/dev/full\n/dev/null\n/dev/pts/ptmx\n/dev/random\n/dev/tty\n/dev/urandom\n/dev/zero";
    equal("all devices", nodes.as_str(), wanted)?;
    for (name, container) in [("web", DVK[0]), ("other", DVK[1])] {
        bench.lease(container)?;
        let text = bench.shell(name, "/tmp/probe bind")?;
        let Some((bound, control)) = text.split_once('\n') else { bail!("binding: {text}") };
        equal("the Distributed Container of /dev/dvk", bound, container.to_string().as_str())?;
        ensure!(
            control.starts_with("refused"),
            "programming the kernel from a container: {control}"
        );
    }
    Ok(())
}

pub(super) fn of_files_of_the_kernel(bench: &Bench) -> Result<()> {
    bench.started(&spec("web"))?;
    for path in ["/proc/kcore", "/proc/timer_list", "/proc/keys"] {
        if std::path::Path::new(path).exists() {
            let seen = bench.shell("web", &format!("wc -c < {path}"))?;
            equal(path, seen.trim(), "0")?;
        }
    }
    for path in [
        "/proc/sys/kernel/hostname",
        "/proc/sysrq-trigger",
        "/sys/kernel/uevent_seqnum",
        "/sys/fs/cgroup/cgroup.procs",
    ] {
        let finished = bench.run("web", &["sh", "-c", &format!("echo 0 > {path}")])?;
        ensure!(finished.status != 0, "writing {path} in a container: {}", shown(&finished));
    }
    let mounts = bench.shell("web", "cut -d' ' -f5 /proc/self/mountinfo")?;
    for path in mounts.lines() {
        ensure!(
            path == "/" || ["/proc", "/sys", "/dev"].iter().any(|top| path.starts_with(top)),
            "a mount of the node is in the container: {path}"
        );
    }
    Ok(())
}
