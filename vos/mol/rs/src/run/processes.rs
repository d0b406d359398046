// SPDX-License-Identifier: MIT OR Apache-2.0
//! The processes of servers.
//!
//! A server is a group of processes: what it has started ends with it. Whoever makes processes here also waits for them, in one thread,
//! since a number that nobody has waited for cannot become that of somebody else.

use super::News;
use crate::supervisor::Event;
use rustix::process::{
    kill_process_group, set_parent_process_death_signal, wait, Pid, Signal, WaitOptions, WaitStatus,
};
use signal_hook::consts::{SIGCHLD, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::io::{self, pipe, BufRead, BufReader, PipeReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::mpsc::Sender;

/// The longest line that is passed on in one piece.
const LINE_MAX: u64 = 4_096;
/// This program, also if its file has been replaced.
const SELF: &str = "/proc/self/exe";
/// What is said of a process that could not be made.
pub(super) const EARLY: &str = "it could not be started";

/// Tells of signals.
pub(super) fn watch_signals(news: Sender<News>) -> io::Result<()> {
    let mut signals = Signals::new([SIGCHLD, SIGINT, SIGTERM])?;
    std::thread::spawn(move || {
        for signal in signals.forever() {
            let told = match signal {
                SIGCHLD => news.send(News::Child),
                _ => news.send(News::Event(Event::End)),
            };
            if told.is_err() {
                return;
            }
        }
    });
    Ok(())
}

/// Becomes a server's program, which ends with the one that has started it.
pub fn enter(words: &[OsString]) -> io::Error {
    let Some((program, arguments)) = words.split_first() else {
        return io::Error::other("no program is named");
    };
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return error.into();
    }
    Command::new(program).args(arguments).exec()
}

/// Those that run.
#[derive(Debug, Default)]
pub(super) struct Processes {
    by_pid: HashMap<Pid, String>,
}

impl Processes {
    /// Starts a server; gives the number of its process.
    pub(super) fn start(
        &mut self,
        server: &str,
        command: &[String],
        environment: &BTreeMap<String, String>,
        term: Option<u64>,
    ) -> io::Result<u32> {
        let (output, input) = pipe()?;
        let mut made = Command::new(SELF);
        made.arg("enter").arg("--").args(command).envs(environment).process_group(0);
        made.stdin(Stdio::null()).stdout(input.try_clone()?).stderr(input);
        match term {
            Some(term) => made.env("MOL_TERM", term.to_string()),
            None => made.env_remove("MOL_TERM"),
        };
        let child = made.spawn()?;
        // It has the other end of the pipe.
        drop(made);
        let id = child.id();
        let pid = i32::try_from(id).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::other("the process has no number"))?;
        self.by_pid.insert(pid, server.to_owned());
        let prefix = format!("{server}: ");
        std::thread::spawn(move || pass_on(output, &prefix));
        Ok(id)
    }

    fn pid(&self, server: &str) -> Option<Pid> {
        self.by_pid.iter().find(|(_, name)| *name == server).map(|(pid, _)| *pid)
    }

    /// Asks a server to end, or has it ended.
    pub(super) fn signal(&self, server: &str, kill: bool) {
        if let Some(pid) = self.pid(server) {
            // It may have ended by itself, which is told.
            let _ = kill_process_group(pid, if kill { Signal::KILL } else { Signal::TERM });
        }
    }

    pub(super) fn kill_all(&self) {
        for pid in self.by_pid.keys() {
            let _ = kill_process_group(*pid, Signal::KILL);
        }
    }

    /// Takes note of all processes that have ended: of servers, and of orphans if this is the first process of its namespace.
    pub(super) fn reap(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if let Some(server) = self.by_pid.remove(&pid) {
                // What it has left behind would go on as if it were the server.
                let _ = kill_process_group(pid, Signal::KILL);
                let how = describe(status);
                eprintln!("mol-rs: {server}: {how}");
                events.push(Event::Ended { server, how });
            }
        }
        events
    }
}

fn describe(status: WaitStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("it ended with status {code}"),
        (None, Some(signal)) => format!("it was ended by signal {signal}"),
        (None, None) => "it ended".to_owned(),
    }
}

/// Passes on what a server says, each line with its name.
fn pass_on(output: PipeReader, prefix: &str) {
    let mut output = BufReader::new(output);
    let mut line = Vec::new();
    loop {
        line.clear();
        line.extend_from_slice(prefix.as_bytes());
        match (&mut output).take(LINE_MAX).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        if line.last() != Some(&b'\n') {
            line.push(b'\n');
        }
        // In one piece, so that those of several servers are not mixed. The server goes on if nobody listens.
        let _ = io::stderr().write_all(&line);
    }
}
