// SPDX-License-Identifier: MIT OR Apache-2.0
//! Test programs on the nodes of the cluster, run by the agents there as if they were programs of the host.

use std::io::ErrorKind;
use std::sync::mpsc::{channel, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use dvs_agent::{Event, Program};
use dvs_qemu::Cluster;

use super::bed::{Bed, MEMBERS, PATIENCE};
use super::mismatch::{expect, Mismatch};
use super::program::Ended;

/// How long it is tried to reach the agent of a node that boots.
const POLL: Duration = Duration::from_millis(200);

/// A program that runs on a node. Dropping it kills the program.
pub(crate) struct Guest {
    /// Says which one, for failures.
    step: String,
    program: Program,
    events: Receiver<std::io::Result<Event>>,
    deadline: Instant,
    limit: Duration,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    /// Its exit status, once it has ended.
    status: Option<i32>,
    /// How much of standard output was given out as lines.
    taken: usize,
}

impl Bed {
    /// Starts a program on a node, which is found in `/usr/libexec/dvs` if it is named without a path. It must have ended
    /// when `limit` is over.
    ///
    /// # Errors
    /// When it cannot be started, or the node's agent does not answer for long.
    pub(super) fn start_on(
        &self,
        node: usize,
        words: &[&str],
        limit: Duration,
    ) -> Result<Guest, Mismatch> {
        Guest::start(self.cluster(), node, words, limit)
    }

    /// Runs a program on a node to its end.
    ///
    /// # Errors
    /// As for [`start_on`](Self::start_on), and when the node is lost.
    pub(super) fn run_on(
        &self,
        node: usize,
        words: &[&str],
        limit: Duration,
    ) -> Result<Ended, Mismatch> {
        self.start_on(node, words, limit)?.end()
    }
}

impl Guest {
    /// Starts a program on a node of a cluster that runs agents, as [`Bed::start_on`] says.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn start(
        cluster: &Cluster,
        node: usize,
        words: &[&str],
        limit: Duration,
    ) -> Result<Self, Mismatch> {
        let step = format!("`{}` on node{node}", words.join(" "));
        let failed = |why: &dyn std::fmt::Display| {
            Mismatch::new(&step, "it can be started", why.to_string())
        };
        let agent = cluster.description().nodes[node].agent;
        let agent = agent.ok_or_else(|| failed(&"the cluster was started without agents"))?;
        let give_up = Instant::now() + PATIENCE;
        let program = loop {
            match Program::start(agent, words) {
                Ok(program) => break program,
                Err(error) if error.kind() == ErrorKind::Other || Instant::now() >= give_up => {
                    return Err(failed(&error));
                }
                Err(_) => thread::sleep(POLL),
            }
        };
        let reader = program.try_clone().map_err(|error| failed(&error))?;
        let (sender, events) = channel();
        thread::spawn(move || loop {
            let event = reader.next_event();
            let last = !matches!(event, Ok(Event::Output(_) | Event::Error(_)));
            if sender.send(event).is_err() || last {
                return;
            }
        });
        Ok(Self {
            step,
            program,
            events,
            deadline: Instant::now() + limit,
            limit,
            stdout: Vec::new(),
            stderr: Vec::new(),
            status: None,
            taken: 0,
        })
    }

    /// Gives the program a line of standard input.
    ///
    /// # Errors
    /// When the node is lost.
    pub(crate) fn say(&self, line: &str) -> Result<(), Mismatch> {
        self.program
            .input(format!("{line}\n").as_bytes())
            .map_err(|error| Mismatch::new(&self.step, format!("it reads `{line}`"), error))
    }

    /// The next line that it writes to standard output.
    ///
    /// # Errors
    /// When the program ends without one, its limit is over, or the node is lost.
    pub(crate) fn line(&mut self) -> Result<String, Mismatch> {
        loop {
            let rest = &self.stdout[self.taken..];
            if let Some(length) = rest.iter().position(|byte| *byte == b'\n') {
                let line = String::from_utf8_lossy(&rest[..length]).into_owned();
                self.taken += length + 1;
                return Ok(line);
            }
            if self.status.is_some() || !self.take_event()? {
                let ended = self.ended(self.status.is_none());
                return Err(Mismatch::new(&self.step, "another line of output", ended));
            }
        }
    }

    /// The next line, which must come before this time is over.
    ///
    /// # Errors
    /// As [`line`](Self::line).
    pub(crate) fn line_within(&mut self, time: Duration) -> Result<String, Mismatch> {
        let deadline = self.deadline;
        self.deadline = deadline.min(Instant::now() + time);
        let line = self.line();
        self.deadline = deadline;
        line
    }

    /// All that it has written to standard output so far.
    pub(crate) fn written(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The same of a node that is lost, to the last that came from it.
    pub(crate) fn rest(mut self) -> String {
        while self.status.is_none() && matches!(self.take_event(), Ok(true)) {}
        self.written()
    }

    /// Waits for its end, or makes it when its limit is over.
    ///
    /// # Errors
    /// When the node is lost.
    pub(crate) fn end(mut self) -> Result<Ended, Mismatch> {
        while self.status.is_none() {
            if !self.take_event()? {
                return Ok(self.ended(true));
            }
        }
        Ok(self.ended(false))
    }

    /// Waits for its end, which must be a success.
    ///
    /// # Errors
    /// When it is not, or as for [`end`](Self::end).
    pub(crate) fn succeed(self) -> Result<Ended, Mismatch> {
        let (step, limit) = (self.step.clone(), self.limit);
        let ended = self.end()?;
        let expected = format!("success within {} s", limit.as_secs());
        expect(ended.succeeded(), &step, &expected, &ended)?;
        Ok(ended)
    }

    /// Whether there was an event before the deadline.
    fn take_event(&mut self) -> Result<bool, Mismatch> {
        let lost = |why: &dyn std::fmt::Display| {
            Mismatch::new(&self.step, "the node stays reachable", why.to_string())
        };
        let patience = self.deadline.saturating_duration_since(Instant::now());
        match self.events.recv_timeout(patience) {
            Ok(Ok(Event::Output(bytes))) => self.stdout.extend(bytes),
            Ok(Ok(Event::Error(bytes))) => self.stderr.extend(bytes),
            Ok(Ok(Event::Ended(status))) => self.status = Some(status),
            Ok(Err(error)) => return Err(lost(&error)),
            Err(RecvTimeoutError::Timeout) => return Ok(false),
            Err(RecvTimeoutError::Disconnected) => return Err(lost(&"its connection is closed")),
        }
        Ok(true)
    }

    fn ended(&self, overdue: bool) -> Ended {
        Ended {
            status: self.status,
            overdue,
            stdout: String::from_utf8_lossy(&self.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&self.stderr).into_owned(),
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.program.kill();
    }
}

/// Programs of the overlay for tests run on each member, with input, output and exit status.
pub(super) fn programs_run(bed: &mut Bed) -> Result<(), Mismatch> {
    for node in 0..MEMBERS {
        let ended = bed.start_on(node, &["dvk-conformance", "--list"], PATIENCE)?.succeed()?;
        let step = format!("listing the conformance cases on node{node}");
        expect(ended.stdout.lines().count() > 50, &step, "more than 50 of them", &ended)?;
        let mut puppet = bed.start_on(node, &["dvk-conformance", "--role", "puppet"], PATIENCE)?;
        puppet.say("bind 0")?;
        let lines = [puppet.line()?, puppet.line()?];
        expect(
            lines[0] == "begin" && lines[1].starts_with("done "),
            &format!("binding an endpoint on node{node} in the container of the services"),
            "an endpoint",
            lines.join("; "),
        )?;
        let ended = bed.run_on(node, &["dvk-conformance", "--no-such-option"], PATIENCE)?;
        let refused = ended.status == Some(2) && ended.stderr.contains("--no-such-option");
        expect(refused, "running a program that fails", "its exit status, 2, and why", ended)?;
    }
    Ok(())
}
