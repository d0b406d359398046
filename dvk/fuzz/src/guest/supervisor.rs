// SPDX-License-Identifier: MIT OR Apache-2.0
//! Starts processes until enough calls were made, replaces those that are stuck, listens for
//! complaints of the kernel, and looks whether everything came back in the end.

use core::sync::atomic::Ordering::Relaxed;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use dvk_fuzz::call::CALLS;
use dvk_fuzz::complaint::is_complaint;
use dvk_fuzz::program::PARTNERS;
use rustix::process::{kill_process_group, Pid, Signal};

use super::board::{Board, Event, Remembered, ERRNOS, PROCESSES_MAX, STRANGE};
use super::leak::{self, Memory};
use super::process::SHARED_BYTES;
use super::world;

const DIRECTORY: &str = "/run/dvk-fuzz";
/// Between two looks at the processes.
const TICK: Duration = Duration::from_millis(10);
/// Between two lines about how far the run has come.
const REPORT: Duration = Duration::from_secs(5);
/// How long one process may take before it is killed and replaced; that is legal. And how long a
/// killed one may take to be gone; a longer time is a finding.
const LIFE: Duration = Duration::from_secs(20);
const DYING: Duration = Duration::from_secs(20);
/// The whole of a report of the kernel arrives in this time.
const REPORT_TIME: Duration = Duration::from_secs(3);
/// After so many processes the DVS is left and made anew.
const FRESH_DVS: u64 = 40;
/// How often what programs destroy is made again.
const MENDING: Duration = Duration::from_millis(100);

/// What is to be done.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) calls: u64,
    pub(crate) seed: u64,
    pub(crate) processes: usize,
    /// Multiplies all patience.
    pub(crate) slow: u32,
    /// Only this program, again and again.
    pub(crate) only: Option<u64>,
}

/// Carries out the plan; returns whether nothing was found.
pub(crate) fn run(plan: Plan) -> Result<bool> {
    fs::create_dir_all(DIRECTORY).with_context(|| format!("making {DIRECTORY}"))?;
    let board_path = Path::new(DIRECTORY).join("board");
    let board = Board::make(&board_path).context("making the board")?;
    let shared = Path::new(DIRECTORY).join("shared");
    let file = File::create(&shared).context("making shared memory")?;
    file.set_len(SHARED_BYTES as u64).context("making shared memory")?;
    prepare_kernel();
    let mut run = Run {
        plan,
        board,
        board_path,
        shared,
        control: world::control()?,
        console: KernelLog::open()?,
        running: Vec::new(),
        partners: Vec::new(),
        next: 0,
        ended: 0,
        faults: Vec::new(),
    };
    run.carry_out()?;
    Ok(run.faults.is_empty())
}

/// A task in a sleep that cannot be ended is a finding after half a minute already, and what is
/// made to fail on purpose is no news.
fn prepare_kernel() {
    for (path, value) in [
        ("/proc/sys/kernel/hung_task_timeout_secs", "40"),
        ("/sys/kernel/debug/failslab/verbose", "0"),
        ("/sys/kernel/debug/fail_page_alloc/verbose", "0"),
        ("/sys/kernel/debug/fail_usercopy/verbose", "0"),
        ("/sys/kernel/debug/failslab/ignore-gfp-wait", "N"),
        ("/sys/kernel/debug/fail_page_alloc/ignore-gfp-wait", "N"),
    ] {
        // Not every kernel has them.
        let _ = fs::write(path, value);
    }
}

struct Run {
    plan: Plan,
    board: &'static Board,
    board_path: PathBuf,
    shared: PathBuf,
    control: File,
    console: KernelLog,
    running: Vec<Running>,
    partners: Vec<Child>,
    /// Number of the next program.
    next: u64,
    ended: u64,
    faults: Vec<String>,
}

struct Running {
    child: Child,
    number: u64,
    place: usize,
    started: Instant,
    killed: Option<Instant>,
}

impl Running {
    /// Kills it and the children of its forks.
    fn kill(&self) {
        if let Some(group) = Pid::from_raw(self.child.id().cast_signed()) {
            // All of it may be gone already.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Run {
    fn carry_out(&mut self) -> Result<()> {
        // A run of its own, so that what the kernel sets up at first use is no leak.
        let warm_up = (self.plan.calls / 20).clamp(1_000, 50_000);
        say(&format!("warming up with {warm_up} calls"));
        self.make_calls(warm_up)?;
        self.rest();
        leak::forget_unreferenced();
        let before = Memory::look()?;
        self.board.forget();
        self.next = 0;
        let started = Instant::now();
        let before_all = processor_time();
        if self.faults.is_empty() {
            self.make_calls(self.plan.calls)?;
        }
        let seconds = started.elapsed().as_secs_f64();
        let mut shares = processor_time();
        shares.iter_mut().zip(before_all).for_each(|(time, before)| *time -= before);
        let [idle, programs, softirqs] = [0, 1, 2].map(|at| 100 * shares[at] / shares[3].max(1));
        say(&format!(
            "processors: {idle} % of the time idle, {programs} % in programs, {softirqs} % in softirqs"
        ));
        self.rest();
        if self.faults.is_empty() {
            say("looking for leaks");
            let after = Memory::look()?;
            say(&format!("memory: {}", after.summary(&before)));
            let grown = after.grown_since(&before);
            grown.into_iter().for_each(|leak| self.fault(&format!("a leak: {leak}")));
            match leak::unreferenced() {
                None => say("memory: this kernel does not look for what nobody refers to"),
                Some(objects) if objects.trim().is_empty() => {
                    say("memory: nothing that nobody refers to");
                }
                Some(objects) => {
                    objects.lines().for_each(|line| say(&format!("| {line}")));
                    self.fault("a leak: objects that nobody refers to");
                }
            }
        }
        self.listen();
        self.tell(seconds);
        Ok(())
    }

    /// Runs programs until `calls` were made or something was found.
    fn make_calls(&mut self, calls: u64) -> Result<()> {
        for node in PARTNERS {
            self.start_partner(node)?;
        }
        self.wait_for_partners();
        world::mend(&self.control, self.board);
        let started = Instant::now();
        let (mut reported, mut mended) = (started, started);
        while self.board.calls.load(Relaxed) < calls && self.faults.is_empty() {
            while self.running.len() < self.plan.processes {
                self.start()?;
            }
            thread::sleep(TICK);
            self.attend()?;
            self.listen();
            if mended.elapsed() > MENDING {
                mended = Instant::now();
                world::mend(&self.control, self.board);
            }
            if reported.elapsed() > REPORT {
                reported = Instant::now();
                let numbers: Vec<String> =
                    self.running.iter().map(|running| running.number.to_string()).collect();
                say(&format!(
                    "progress {} {:.0} running {}",
                    self.board.calls.load(Relaxed),
                    started.elapsed().as_secs_f64(),
                    numbers.join(" ")
                ));
            }
        }
        if !self.faults.is_empty() {
            for running in &self.running {
                dump(self.board, running.number, running.place);
            }
        }
        Ok(())
    }

    fn start(&mut self) -> Result<()> {
        let place = (0..PROCESSES_MAX)
            .find(|place| self.running.iter().all(|running| running.place != *place))
            .context("no place on the board")?;
        let number = self.plan.only.unwrap_or(self.next);
        if self.next % FRESH_DVS == FRESH_DVS - 1 {
            world::end(&self.control);
            world::mend(&self.control, self.board);
        }
        self.next += 1;
        let mut command = self.command("worker");
        command.args(["--number", &number.to_string(), "--place", &place.to_string()]);
        let child = command.spawn().context("starting a process")?;
        let started = Instant::now();
        self.running.push(Running { child, number, place, started, killed: None });
        Ok(())
    }

    fn start_partner(&mut self, node: u16) -> Result<()> {
        let mut command = self.command("partner");
        command.args(["--number", &node.to_string()]);
        self.partners.push(command.spawn().context("starting a partner")?);
        Ok(())
    }

    /// Until they have their interfaces, or too long.
    fn wait_for_partners(&self) {
        for _ in 0..200 {
            let there =
                |node: &u16| self.board.interfaces[usize::from(*node) - 1].load(Relaxed) != 0;
            if PARTNERS.iter().all(there) {
                return;
            }
            thread::sleep(TICK * 5);
        }
    }

    fn command(&self, role: &str) -> Command {
        let mut command = Command::new("/proc/self/exe");
        command
            .args(["--role", role, "--seed", &self.plan.seed.to_string()])
            .arg("--board")
            .arg(&self.board_path)
            .arg("--shared")
            .arg(&self.shared)
            .args(["--slow", &self.plan.slow.to_string()])
            .stdin(Stdio::null())
            .process_group(0);
        command
    }

    /// Sees who has ended, who takes too long, and who does not die.
    fn attend(&mut self) -> Result<()> {
        let patience = self.plan.slow;
        let mut faults = Vec::new();
        let mut at = 0;
        while at < self.running.len() {
            let running = &mut self.running[at];
            if let Some(status) = running.child.try_wait().context("waiting for a process")? {
                running.kill();
                if let Some(how) = crash(status) {
                    faults.push(format!("program {} {how}", running.number));
                    dump(self.board, running.number, running.place);
                }
                self.ended += 1;
                self.running.swap_remove(at);
                continue;
            }
            match running.killed {
                None if running.started.elapsed() > LIFE * patience => {
                    running.kill();
                    running.killed = Some(Instant::now());
                }
                Some(since) if since.elapsed() > DYING * patience => {
                    faults.push(format!(
                        "program {} was killed {} seconds ago and is still there: {}",
                        running.number,
                        since.elapsed().as_secs(),
                        stacks(running.child.id())
                    ));
                    running.killed = Some(Instant::now());
                }
                _ => {}
            }
            at += 1;
        }
        for (partner, node) in self.partners.iter_mut().zip(PARTNERS) {
            if let Some(status) = partner.try_wait().context("waiting for a partner")? {
                faults.push(format!("the partner of node {node} ended: {status}"));
            }
        }
        faults.iter().for_each(|fault| self.fault(fault));
        Ok(())
    }

    /// Ends all processes and leaves the DVS.
    fn rest(&mut self) {
        self.running.iter().for_each(Running::kill);
        for partner in &mut self.partners {
            // It may have ended.
            let _ = partner.kill();
        }
        let deadline = Instant::now() + DYING * self.plan.slow;
        let mut left: Vec<(String, Child)> = self
            .running
            .drain(..)
            .map(|running| (format!("program {}", running.number), running.child))
            .chain(self.partners.drain(..).map(|partner| ("a partner".to_owned(), partner)))
            .collect();
        while !left.is_empty() && Instant::now() < deadline {
            left.retain_mut(|(_, child)| !matches!(child.try_wait(), Ok(Some(_))));
            thread::sleep(TICK);
        }
        for (name, child) in left {
            let what = format!("{name} was killed and is still there: {}", stacks(child.id()));
            self.fault(&what);
        }
        world::end(&self.control);
    }

    fn listen(&mut self) {
        if let Some(line) = self.console.complaint() {
            thread::sleep(REPORT_TIME);
            self.fault(&format!("the kernel complained: {line}"));
        }
    }

    fn fault(&mut self, what: &str) {
        say(&format!("fault {what}"));
        self.faults.push(what.to_owned());
    }

    /// The tally.
    fn tell(&self, seconds: f64) {
        for call in 0..=STRANGE {
            let name = CALLS.get(call).map_or("no call", |call| call.name);
            for errno in 0..ERRNOS {
                let count = self.board.counted(call, errno);
                if count > 0 {
                    say(&format!("count {errno} {count} {name}"));
                }
            }
        }
        for (event, name) in Event::NAMES {
            say(&format!("event {} {name}", self.board.noted(event)));
        }
        say(&format!("event {} processes", self.ended));
        say(&format!("done {} {seconds:.1}", self.board.calls.load(Relaxed)));
    }
}

/// What every thread of a program did last.
fn dump(board: &Board, number: u64, place: usize) {
    for (thread, ring) in board.rings[place].iter().enumerate() {
        for call in ring.calls() {
            say(&format!("last: program {number} thread {thread}: {}", describe(&call)));
        }
    }
}

/// The time of the processors since boot, in ticks: idle, in programs, in softirqs, and all.
fn processor_time() -> [u64; 4] {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let times = stat.lines().next().unwrap_or_default().split_whitespace().skip(1);
    let times: Vec<u64> = times.filter_map(|time| time.parse().ok()).collect();
    let time = |at: usize| times.get(at).copied().unwrap_or(0);
    [time(3), time(0), time(6), times.iter().sum()]
}

/// How a process ended that should not have ended so.
fn crash(status: ExitStatus) -> Option<String> {
    match (status.code(), status.signal()) {
        (Some(0), _) => None,
        (_, Some(9)) => None,
        _ => Some(format!("ended in a way that it does not by itself: {status}")),
    }
}

fn describe(call: &Remembered) -> String {
    let name = CALLS.get(usize::from(call.call)).map_or("?", |call| call.name);
    let how = match call.errno {
        None => "under way".to_owned(),
        Some(0) => "done".to_owned(),
        Some(errno) => format!("error {errno}"),
    };
    format!(
        "step {} {name} ({:#x}) file {} block {:#x} [{:#x}…]: {how}",
        call.step, call.number, call.file, call.block, call.head
    )
}

/// Where the threads of a process are in the kernel.
fn stacks(pid: u32) -> String {
    let mut text = String::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        for file in ["stack", "wchan", "syscall"] {
            if let Ok(content) = fs::read_to_string(task.path().join(file)) {
                text.push_str(&format!("{file} {}; ", content.trim().replace('\n', " < ")));
            }
        }
    }
    text
}

fn say(line: &str) {
    println!("fuzz: {line}");
}

/// What the kernel says.
struct KernelLog(File);

impl KernelLog {
    fn open() -> Result<Self> {
        let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let mut file = File::options()
            .read(true)
            .custom_flags(nonblocking)
            .open("/dev/kmsg")
            .context("opening /dev/kmsg")?;
        file.seek(SeekFrom::End(0)).context("reading /dev/kmsg")?;
        Ok(Self(file))
    }

    /// The next complaint, if there is one.
    fn complaint(&mut self) -> Option<String> {
        let mut record = [0; 8192];
        loop {
            match self.0.read(&mut record) {
                Ok(len) => {
                    let text = String::from_utf8_lossy(&record[..len]);
                    if let Some(line) = text.lines().find(|line| is_complaint(line)) {
                        return Some(line.to_owned());
                    }
                }
                // Records that were overwritten meanwhile; the rest is still there.
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
                Err(_) => return None,
            }
        }
    }
}
