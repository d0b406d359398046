// SPDX-License-Identifier: MIT OR Apache-2.0
//! The processes of servers.
//!
//! A server is a group of processes: what it has started ends with it, and has the same time to do so. Whoever makes processes here also
//! waits for them, in one thread, since a number that nobody has waited for cannot become that of somebody else.

use super::log::Log;
use super::{thread, News};
use crate::error::Error;
use crate::supervisor::Event;
use rustix::process::{
    kill_process_group, set_parent_process_death_signal, test_kill_process_group, wait, Pid,
    Signal, WaitOptions, WaitStatus,
};
use signal_hook::consts::{SIGCHLD, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::io::{self, pipe, BufRead, BufReader, PipeReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::mpsc::Sender;

/// The longest line that is passed on in one piece.
const LINE_MAX: u64 = 4_096;
/// How this program, also if its file has been replaced, becomes a server.
const ENTER: &[&str] = &["/proc/self/exe", "enter", "--"];
/// What is said of a process that could not be made.
pub(super) const EARLY: &str = "it could not be started";

/// Tells of signals.
pub(super) fn watch_signals(news: Sender<News>) -> Result<(), Error> {
    let signals = Signals::new([SIGCHLD, SIGINT, SIGTERM]);
    let mut signals =
        signals.map_err(|error| Error::Machine { what: "wait for signals", error })?;
    thread("signals", move || {
        for signal in signals.forever() {
            let told = match signal {
                SIGCHLD => news.send(News::Child),
                _ => news.send(News::Event(Event::End)),
            };
            if told.is_err() {
                return;
            }
        }
    })
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

/// A server's group of processes, by the number of its first one.
#[derive(Debug)]
struct Group {
    server: String,
    /// How the first one ended, once it has.
    ended: Option<String>,
}

/// Those that run.
#[derive(Debug)]
pub(super) struct Processes {
    log: Log,
    /// What makes a command a server.
    enter: &'static [&'static str],
    groups: HashMap<Pid, Group>,
}

impl Processes {
    pub(super) fn new(log: Log) -> Self {
        Self { log, enter: ENTER, groups: HashMap::new() }
    }

    /// Starts a server; gives the number of its process.
    pub(super) fn start(
        &mut self,
        server: &str,
        command: &[String],
        environment: &BTreeMap<String, String>,
        term: Option<u64>,
    ) -> io::Result<u32> {
        let (output, input) = pipe()?;
        let mut words = self.enter.iter().copied().chain(command.iter().map(String::as_str));
        let program = words.next().ok_or_else(|| io::Error::other("no program is named"))?;
        let mut made = Command::new(program);
        made.args(words).envs(environment).process_group(0);
        made.stdin(Stdio::null()).stdout(input.try_clone()?).stderr(input);
        match term {
            Some(term) => made.env("MOL_TERM", term.to_string()),
            None => made.env_remove("MOL_TERM"),
        };
        // Once there is a process, nothing fails any more. Without one, the thread ends with the pipe.
        let (log, prefix) = (self.log.clone(), format!("{server}: "));
        let listener = std::thread::Builder::new().name("listener".to_owned());
        listener.spawn(move || pass_on(output, &prefix, &log))?;
        let child = made.spawn()?;
        // It has the other end of the pipe.
        drop(made);
        let id = child.id();
        let pid = i32::try_from(id).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::other("the process has no number"))?;
        self.groups.insert(pid, Group { server: server.to_owned(), ended: None });
        Ok(id)
    }

    fn pid(&self, server: &str) -> Option<Pid> {
        self.groups.iter().find(|(_, group)| group.server == server).map(|(pid, _)| *pid)
    }

    /// Asks a server to end, or has it ended.
    pub(super) fn signal(&self, server: &str, kill: bool) {
        if let Some(pid) = self.pid(server) {
            // It may have ended by itself, which is told.
            let _ = kill_process_group(pid, if kill { Signal::KILL } else { Signal::TERM });
        }
    }

    pub(super) fn kill_all(&self) {
        for pid in self.groups.keys() {
            let _ = kill_process_group(*pid, Signal::KILL);
        }
    }

    /// Takes note of all processes that have ended: of servers, and of orphans if this is the first process of its namespace.
    pub(super) fn reap(&mut self) -> Vec<Event> {
        let mut left = Vec::new();
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if let Some(group) = self.groups.get_mut(&pid) {
                let how = describe(status);
                self.log.say(format_args!("{}: {how}", group.server));
                group.ended = Some(how);
                left.push(pid);
            }
        }
        let mut events = Vec::new();
        self.groups.retain(|pid, group| {
            let Some(how) = &group.ended else { return true };
            let (server, is_left) = (group.server.clone(), has_members(*pid));
            match (is_left, left.contains(pid)) {
                // What it has left behind would go on as if it were the server.
                (true, true) => events.push(Event::Leaving { server }),
                (true, false) => {}
                (false, _) => events.push(Event::Ended { server, how: how.clone() }),
            }
            is_left
        });
        events
    }
}

/// Whether there is a process in a group whose first one has ended. The number of the group is nobody else's until there is none.
fn has_members(group: Pid) -> bool {
    if test_kill_process_group(group).is_err() {
        return false;
    }
    // One that has ended is there until somebody waits for it, which may be never. If nobody can say more, it counts.
    let Ok(all) = std::fs::read_dir("/proc") else { return true };
    all.flatten().any(|entry| {
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        is_living_member(&stat, group)
    })
}

/// Whether a line of `/proc/N/stat` is of a process of this group that has not ended.
fn is_living_member(stat: &str, group: Pid) -> bool {
    // The name before may have anything in it.
    let Some((_, rest)) = stat.rsplit_once(") ") else { return false };
    let mut fields = rest.split(' ');
    let state = fields.next();
    let its_group = fields.nth(1).and_then(|group| group.parse().ok());
    !matches!(state, Some("Z" | "X")) && its_group == Some(group.as_raw_nonzero().get())
}

fn describe(status: WaitStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("it ended with status {code}"),
        (None, Some(signal)) => format!("it was ended by signal {signal}"),
        (None, None) => "it ended".to_owned(),
    }
}

/// Passes on what a server says, each line with its name.
fn pass_on(output: PipeReader, prefix: &str, log: &Log) {
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
        log.pass_on(core::mem::take(&mut line));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use std::time::{Duration, Instant};

    /// Waits until all have ended, and gives what was said of it.
    fn reap_all(processes: &mut Processes) -> Vec<Event> {
        let mut events = Vec::new();
        let until = Instant::now() + Duration::from_secs(60);
        while !processes.groups.is_empty() {
            assert!(Instant::now() < until, "{events:?}");
            let news = processes.reap();
            for event in &news {
                if let Event::Leaving { server } = event {
                    processes.signal(server, false);
                }
            }
            events.extend(news);
            std::thread::sleep(Duration::from_millis(10));
        }
        events
    }

    fn await_file(path: &Path) {
        let until = Instant::now() + Duration::from_secs(60);
        while !path.exists() {
            assert!(Instant::now() < until, "{path:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// One test, as whoever waits for any process takes those of others.
    #[test]
    fn what_a_server_has_started_has_time_to_end() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let mut processes =
            Processes { enter: &["/usr/bin/env"], ..Processes::new(Log::start().unwrap()) };
        let start = |processes: &mut Processes, script: &str| {
            let script = script.replace("DIR", folder.path().to_str().unwrap());
            let command = ["sh", "-c", &script].map(str::to_owned);
            processes.start("s", &command, &BTreeMap::new(), None).unwrap();
        };
        let ended = |how: &str| Event::Ended { server: "s".into(), how: how.into() };
        let leaving = Event::Leaving { server: "s".into() };

        start(&mut processes, "exit 3");
        assert_eq!(reap_all(&mut processes), [ended("it ended with status 3")]);

        // The shell ends at once when it is told to, and the server under it writes something first.
        let server = "(trap 'sleep 0.3; touch DIR/written; exit' TERM; touch DIR/ready; while :; do sleep 0.02; done) & wait";
        start(&mut processes, server);
        await_file(&at("ready"));
        processes.signal("s", false);
        let expected = [leaving.clone(), ended("it was ended by signal 15")];
        assert_eq!(reap_all(&mut processes), expected);
        assert!(at("written").exists());

        // It would not end by itself.
        start(
            &mut processes,
            "(trap '' TERM; touch DIR/deaf; while :; do sleep 0.02; done) & wait",
        );
        await_file(&at("deaf"));
        processes.signal("s", false);
        let until = Instant::now() + Duration::from_millis(500);
        let mut events = Vec::new();
        while Instant::now() < until {
            events.extend(processes.reap());
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(events, [leaving]);
        processes.signal("s", true);
        assert_eq!(reap_all(&mut processes), [ended("it was ended by signal 15")]);
    }

    #[test]
    fn who_has_ended_is_no_member_any_more() {
        let group = Pid::from_raw(70).unwrap();
        assert!(is_living_member("71 (a) b) S 1 70 70 0", group));
        assert!(!is_living_member("71 (a) Z 1 70 70 0", group));
        assert!(!is_living_member("71 (a) S 1 7 70 0", group));
        assert!(!is_living_member("", group));
    }
}
