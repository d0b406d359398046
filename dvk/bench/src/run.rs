// SPDX-License-Identifier: MIT OR Apache-2.0
//! Carries out a measurement: starts the processes, binds them to processors, and times batches.

use crate::mechanism::{self, Address, Pair};
use crate::plan::{Effort, Setup};
use crate::sys::{self, fork, shared_words, Child};
use anyhow::{ensure, Context, Result};
use core::any::Any;
use core::convert::Infallible;
use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;
use dvk_bench::{Policy, Record, Unit};
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::fd::OwnedFd;
use rustix::io::{read, write, Errno};
use rustix::pipe::pipe;
use rustix::process::{getpgid, getsid};
use rustix::thread::futex::{wait, wake, Flags};
use rustix::thread::{sched_setaffinity, CpuSet};
use rustix::time::{clock_gettime, ClockId};

/// Operations before the first batch, to warm caches and to know how long one takes.
const WARM_UP: u64 = 20;
/// After this long without a result, something hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a measurement counts, now.
pub(crate) fn now(unit: Unit) -> u64 {
    match unit {
        Unit::Instructions => sys::ticks(),
        Unit::Nanoseconds => {
            let time = clock_gettime(ClockId::Monotonic);
            time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
        }
    }
}

/// Lets all clients begin at a time: how often they were told to, and how many operations to do.
#[derive(Clone, Copy)]
struct Gate(&'static [AtomicU32]);

impl Gate {
    fn new() -> Result<Self> {
        Ok(Self(shared_words(2).context("making memory for the processes")?))
    }

    fn open(self, operations: u64) -> Result<()> {
        self.0[1].store(u32::try_from(operations)?, Ordering::Relaxed);
        self.0[0].fetch_add(1, Ordering::Release);
        wake(&self.0[0], Flags::empty(), u32::MAX >> 1)?;
        Ok(())
    }

    /// Waits until it opens after the `seen`th time, and returns the number of operations.
    fn pass(self, seen: u32) -> Result<u64> {
        while self.0[0].load(Ordering::Acquire) == seen {
            match wait(&self.0[0], Flags::empty(), seen, None) {
                Ok(()) | Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(self.0[1].load(Ordering::Relaxed).into())
    }
}

/// A client under way, with what it talks to. Dropped, it ends both: the server first, or it would complain that its client is gone.
struct Running {
    results: OwnedFd,
    _server: Child,
    _client: Child,
    _kept: Box<dyn Any>,
}

/// Measures.
///
/// # Errors
/// When the mechanism is missing here, or fails, or takes for ever.
pub(crate) fn measure(setup: &Setup, unit: Unit, effort: Effort) -> Result<Record> {
    let gate = Gate::new()?;
    let mut running = Vec::new();
    for number in 0..setup.pairs {
        running.push(start(setup, setup.cpus(number), unit, gate)?);
    }
    let elapsed = batch(&running, gate, WARM_UP)?;
    let operations = effort.operations(WARM_UP, elapsed);
    // The first estimate is of cold caches.
    let elapsed = batch(&running, gate, operations)?;
    let operations = effort.operations(operations, elapsed);
    let samples: Result<Vec<f64>> = (0..effort.batches)
        .map(|_| {
            let elapsed = batch(&running, gate, operations)?;
            Ok(elapsed as f64 / (operations * u64::from(setup.pairs)) as f64)
        })
        .collect();
    let &Setup { mechanism, task, placement, policy, pairs } = setup;
    Ok(Record { mechanism, task, placement, policy, pairs, unit, operations, samples: samples? })
}

/// Repeats the same batch until the process is killed, having said so by `ready`.
///
/// # Errors
/// As [`measure`].
pub(crate) fn repeat(setup: &Setup, operations: u64, ready: impl FnOnce()) -> Result<Infallible> {
    let gate = Gate::new()?;
    let running = [start(setup, setup.cpus(0), Unit::Nanoseconds, gate)?];
    batch(&running, gate, operations)?;
    ready();
    loop {
        batch(&running, gate, operations)?;
    }
}

/// Starts the processes of a pair on `cpus`: the client's and the server's.
fn start(setup: &Setup, cpus: [usize; 2], unit: Unit, gate: Gate) -> Result<Running> {
    let Pair { server, client, kept } = mechanism::pair(setup.mechanism, setup.task)?;
    let (mut server, mut client) = (Some(server), Some(client));
    let policy = setup.policy;
    let (addresses, tell) = pipe()?;
    let server_process = fork(|| {
        client = None;
        bind(cpus[1], policy)?;
        let (address, serve) = server.take().context("no server")?()?;
        put(&tell, address)?;
        match serve()? {}
    })?;
    server = None;
    drop((server, tell));
    let address: Address = take(&addresses).context("the server says no address")?;
    let (results, tell) = pipe()?;
    let client_process = fork(|| {
        bind(cpus[0], policy)?;
        let mut go = client.take().context("no client")?(address)?;
        for seen in 0.. {
            let operations = gate.pass(seen)?;
            // Both calls are marks for whoever watches the processor; see `Line::Repeating`.
            getpgid(None)?;
            let begin = now(unit);
            go(operations)?;
            let end = now(unit);
            getsid(None)?;
            put(&tell, [begin, end])?;
        }
        Ok(())
    })?;
    Ok(Running { results, _client: client_process, _server: server_process, _kept: kept })
}

fn bind(cpu: usize, policy: Policy) -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu);
    sched_setaffinity(None, &cpus).with_context(|| format!("binding to processor {cpu}"))?;
    sys::set_policy(policy).context("setting the scheduling policy")
}

/// Has all clients do `operations`, and returns how long that took, from the first's begin to the last's end.
fn batch(running: &[Running], gate: Gate, operations: u64) -> Result<u64> {
    gate.open(operations)?;
    let mut span = [u64::MAX, 0];
    for pair in running {
        let [begin, end] = take(&pair.results).context("a client says nothing")?;
        span = [span[0].min(begin), span[1].max(end)];
    }
    Ok(span[1] - span[0])
}

fn put(pipe: &OwnedFd, words: [u64; 2]) -> Result<()> {
    // So few bytes go into a pipe whole.
    write(pipe, &[words[0].to_ne_bytes(), words[1].to_ne_bytes()].concat())?;
    Ok(())
}

fn take(pipe: &OwnedFd) -> Result<[u64; 2]> {
    let patience = Timespec::try_from(PATIENCE)?;
    let ready = poll(&mut [PollFd::new(pipe, PollFlags::IN)], Some(&patience))?;
    ensure!(ready > 0, "nothing for {} s", PATIENCE.as_secs());
    let mut words = [[0; 8]; 2];
    let count = read(pipe, words.as_flattened_mut())?;
    ensure!(count == 16, "it has ended");
    Ok(words.map(u64::from_ne_bytes))
}
