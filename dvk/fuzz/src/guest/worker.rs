// SPDX-License-Identifier: MIT OR Apache-2.0
//! A process of the fuzzer: runs the threads of one program, ends what waits too long, and goes.

use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use dvk_fuzz::grammar::Program;
use dvk_fuzz::program::{Op, Opened};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::board::{Board, Event};
use super::process::Process;
use super::sys;
use super::thread::{interrupt, Thread};
use super::world;

/// How often the threads are looked at. One that did not come further since the last time is sent
/// a signal, which ends the call that it waits in.
const TICK: Duration = Duration::from_millis(4);
/// Signals that a thread may ignore. Who waits for a peer that has to confirm the end of the wait
/// does so legally; it ends with the process.
const IGNORED_MAX: u32 = 25;

/// Which program, and where on the board.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Errand {
    pub(crate) seed: u64,
    pub(crate) number: u64,
    pub(crate) place: usize,
    /// Multiplies all patience.
    pub(crate) slow: u32,
}

/// Runs a program to its end and does not return but for errors.
pub(crate) fn run(errand: Errand, board: &Path, shared: &Path) -> Result<()> {
    let board = Board::open(board).with_context(|| format!("opening {}", board.display()))?;
    let shared = File::options().read(true).write(true).open(shared).context("shared memory")?;
    signal_hook::flag::register(signal_hook::consts::SIGUSR1, Arc::new(AtomicBool::new(false)))
        .context("catching SIGUSR1")?;
    let program = Program::new(errand.seed, errand.number);
    let privileged = program.privileged;
    let process = Process::new(program, board, errand.place, shared)?;
    let process: &'static Process = Box::leak(Box::new(process));
    world::mend(&world::control()?, board);
    let mut opener = Thread::new(process, 0);
    opener.run([6, 7].map(|file| Op::Open { file, device: Opened::Control }));
    for ring in &board.rings[errand.place] {
        ring.clear();
    }
    if !privileged {
        // The files stay open: what they may still do is asked at every call.
        let none = CapabilitySet::empty();
        let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
        rustix::thread::set_capabilities(None, sets).context("laying down capabilities")?;
    }
    for index in 0..process.program.threads {
        thread::Builder::new()
            .stack_size(128 << 10)
            .spawn(move || {
                let script = process.program.script(index);
                Thread::new(process, index).run(script);
                process.running.fetch_sub(1, Relaxed);
            })
            .context("starting a thread")?;
    }
    attend(process, TICK * errand.slow);
    sys::end()
}

/// Watches the threads until all are done, or none that is left comes further.
fn attend(process: &Process, tick: Duration) {
    let threads = process.program.threads;
    let mut seen = vec![0; threads];
    let mut ignored = vec![0u32; threads];
    let killed_at =
        process.program.killed_after_us.map(|us| Instant::now() + Duration::from_micros(us.into()));
    while process.running.load(Relaxed) > 0 {
        thread::sleep(tick);
        if killed_at.is_some_and(|at| Instant::now() > at) {
            process.board.note(Event::Died);
            let pid = rustix::process::getpid();
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        // The children of forks that have ended.
        while let Ok(Some(_)) = rustix::process::wait(rustix::process::WaitOptions::NOHANG) {}
        let mut stuck = 0;
        for thread in 0..threads {
            let step = process.steps[thread].load(Relaxed);
            if step != seen[thread] {
                (seen[thread], ignored[thread]) = (step, 0);
                continue;
            }
            interrupt(process, thread);
            ignored[thread] += 1;
            stuck += u32::from(ignored[thread] > IGNORED_MAX);
        }
        if stuck > 0 && stuck >= process.running.load(Relaxed) {
            return;
        }
    }
}
