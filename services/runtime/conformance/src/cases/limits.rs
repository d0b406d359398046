// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a container may use. Each limit is shown to hold by the same doing without it, too.

use std::time::Instant;

use anyhow::{ensure, Result};
use dvs_runtime::{Kind, Stats};

use crate::bench::{equal, shown, spec, Bench, MIB, PATIENCE};

pub(super) fn of_memory(bench: &Bench) -> Result<()> {
    let (mut small, mut large) = (spec("small"), spec("large"));
    small.limits.memory = 14 * MIB;
    small.limits.writable = 6 * MIB;
    large.limits.memory = 48 * MIB;
    bench.started(&small)?;
    bench.started(&large)?;
    for name in ["small", "large"] {
        bench.bring_probe(name)?;
    }
    let hog = ["/tmp/probe", "hog", "20"];
    let finished = bench.run("small", &hog)?;
    ensure!(finished.status == 137, "using more memory than there may be: {}", shown(&finished));
    let finished = bench.run("large", &hog)?;
    ensure!(finished.status == 0, "using memory that there may be: {}", shown(&finished));
    let (small, large) = (bench.runtime.stats("small")?, bench.runtime.stats("large")?);
    ensure!(
        small.out_of_memory >= 1 && small.memory_peak <= 14 * MIB && large.out_of_memory == 0,
        "counting who was killed for want of memory: {small:?}, {large:?}"
    );
    ensure!(large.memory_peak > 20 * MIB, "counting memory: {large:?}");
    // Only the hog was killed: both go on.
    for name in ["small", "large"] {
        equal("a command after that", bench.shell(name, "echo here")?.as_str(), "here")?;
    }
    Ok(())
}

pub(super) fn change(bench: &Bench) -> Result<()> {
    let mut web = spec("web");
    web.limits.memory = 14 * MIB;
    web.limits.writable = 6 * MIB;
    bench.started(&web)?;
    bench.bring_probe("web")?;
    let hog = ["/tmp/probe", "hog", "20"];
    let finished = bench.run("web", &hog)?;
    ensure!(finished.status == 137, "using more memory than there may be: {}", shown(&finished));
    let before = bench.runtime.status("web")?;
    web.limits.memory = 48 * MIB;
    web.limits.cpu.milli = Some(800);
    bench.runtime.update(&web)?;
    let finished = bench.run("web", &hog)?;
    ensure!(finished.status == 0, "using memory that there may be now: {}", shown(&finished));
    let file = |name: &str| {
        let path = format!("/sys/fs/cgroup/dvs/web/{name}");
        std::fs::read_to_string(&path).map(|text| text.trim().to_owned())
    };
    equal("a new limit", file("cpu.max")?.as_str(), "80000 100000")?;
    web.limits.cpu.milli = None;
    bench.runtime.update(&web)?;
    equal("a limit that is no more", file("cpu.max")?.as_str(), "max 100000")?;
    equal("what runs in it", bench.runtime.status("web")?, before)?;
    web.process.command = vec!["true".to_owned()];
    let refused = bench.runtime.update(&web).map_err(|fault| fault.kind);
    equal("changing its command", refused, Err(Kind::State))?;
    Ok(())
}

pub(super) fn of_processes(bench: &Bench) -> Result<()> {
    let (mut few, mut many) = (spec("few"), spec("many"));
    few.limits.processes = 16;
    many.limits.processes = 100;
    bench.started(&few)?;
    bench.started(&many)?;
    let bomb = "i=0; while [ $i -lt 40 ]; do sleep 1000 & i=$((i+1)); done; echo all";
    let finished = bench.run("few", &["/bin/sh", "-c", bomb])?;
    ensure!(
        finished.status != 0 && finished.stdout.is_empty(),
        "forking more than there may be: {}",
        shown(&finished)
    );
    let stats = bench.runtime.stats("few")?;
    ensure!(
        stats.processes <= 16 && stats.processes >= 10 && stats.processes_refused > 0,
        "counting processes: {stats:?}"
    );
    // The other can, also while the first one is full.
    equal("forking what there may be", bench.shell("many", bomb)?.as_str(), "all")?;
    let stats = bench.runtime.stats("many")?;
    ensure!(stats.processes >= 40 && stats.processes_refused == 0, "counting processes: {stats:?}");
    Ok(())
}

/// Lets a container use a processor until its time has been dealt out often enough, and gives what it used and how often that was.
fn spun(bench: &Bench, name: &str, enough: impl Fn(&Stats) -> bool) -> Result<Stats> {
    let session = bench.runtime.exec(name, crate::bench::request(&["/tmp/probe", "spin"]))?;
    let before = bench.runtime.stats(name)?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let now = bench.runtime.stats(name)?;
        let used = Stats {
            cpu_us: now.cpu_us - before.cpu_us,
            periods: now.periods - before.periods,
            throttled_periods: now.throttled_periods - before.throttled_periods,
            ..now
        };
        if enough(&used) {
            drop(session);
            return Ok(used);
        }
        ensure!(Instant::now() < deadline, "using a processor in {name}: {used:?}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

pub(super) fn of_processors(bench: &Bench) -> Result<()> {
    const PERIOD_US: u64 = 100_000;
    let (mut slow, free) = (spec("slow"), spec("free"));
    slow.limits.cpu.milli = Some(200);
    bench.started(&slow)?;
    bench.started(&free)?;
    for name in ["slow", "free"] {
        bench.bring_probe(name)?;
    }
    let used = spun(bench, "slow", |used| used.periods >= 100)?;
    // By the kernel's own count. What a processor of a virtual machine is not given by its host counts as used, and is made up for
    // later only; half as much again leaves room for that, and is far from all of a processor, which the other takes.
    let most = used.periods * PERIOD_US / 5 * 3 / 2;
    ensure!(
        used.cpu_us <= most && used.throttled_periods > 0,
        "using a fifth of a processor: {} us in {} periods, at most {most}; {} of them throttled",
        used.cpu_us,
        used.periods,
        used.throttled_periods
    );
    let used = spun(bench, "free", |used| used.cpu_us > 30 * PERIOD_US)?;
    equal("throttling of a container without a quota", used.throttled_periods, 0)
}

pub(super) fn of_the_writable_layer(bench: &Bench) -> Result<()> {
    let (mut little, mut much) = (spec("little"), spec("much"));
    little.limits.writable = 2 * MIB;
    much.limits.writable = 16 * MIB;
    bench.started(&little)?;
    bench.started(&much)?;
    let write = "dd if=/dev/zero of=/home/file bs=1M count=8 2>&1";
    let finished = bench.run("little", &["/bin/sh", "-c", write])?;
    let text = String::from_utf8_lossy(&finished.stdout);
    ensure!(
        finished.status != 0 && text.contains("No space left on device"),
        "writing more than there may be: {}",
        shown(&finished)
    );
    bench.shell("much", write)?;
    // Files without content are bounded as well.
    let files =
        "i=0; while [ $i -lt 3000 ] && true > /tmp/$i; do i=$((i+1)); done 2>/dev/null; echo $i";
    let made: u32 = bench.shell("little", files)?.parse()?;
    ensure!(made < 600, "making empty files: {made} could be");
    // What one writes into its root, the other does not see, though both are made of the same image.
    bench.shell("much", "echo mine > /etc/passwd")?;
    let other = bench.shell("little", "cat /etc/passwd")?;
    ensure!(other.starts_with("root:x:0:0:"), "reading the root of another container: {other}");
    Ok(())
}
