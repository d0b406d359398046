// SPDX-License-Identifier: MIT OR Apache-2.0
//! One virtual node: a QEMU process that can be started again, and its console.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::console::Console;
use crate::error::{Error, Result};
use crate::launch::PARENT;
use crate::machine::{cluster_device, Machine};
use crate::options::NodeFiles;
use crate::qmp::Qmp;

/// How long QEMU may take from its start to its first QMP answer, on a busy host.
const START_PATIENCE: Duration = Duration::from_secs(30);

/// Whether a node has power.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Power {
    /// The guest runs.
    Running,
    /// Its processors are stopped.
    Paused,
    /// There is no QEMU.
    Off,
}

impl Power {
    /// As shown to people.
    pub fn as_str(self) -> &'static str {
        match self {
            Power::Running => "running",
            Power::Paused => "paused",
            Power::Off => "off",
        }
    }
}

#[derive(Debug)]
pub(crate) struct Node {
    number: usize,
    machine: Machine,
    files: NodeFiles,
    launcher: Vec<String>,
    console: Console,
    qemu: Option<Child>,
    paused: bool,
    /// By segment.
    carrier: Vec<bool>,
}

impl Node {
    /// A node that is off.
    pub(crate) fn new(
        number: usize,
        machine: Machine,
        files: NodeFiles,
        launcher: &[String],
        log: &Path,
    ) -> Result<Node> {
        let console = Console::start(number, &files.console, &files.view, log)?;
        let launcher = launcher.to_vec();
        let carrier = vec![true; machine.cluster.len()];
        Ok(Node { number, machine, files, launcher, console, qemu: None, paused: false, carrier })
    }

    pub(crate) fn console(&self) -> &Console {
        &self.console
    }

    pub(crate) fn power(&self) -> Power {
        match (&self.qemu, self.paused) {
            (None, _) => Power::Off,
            (Some(_), true) => Power::Paused,
            (Some(_), false) => Power::Running,
        }
    }

    /// Whether the cable is plugged in, by segment.
    pub(crate) fn carrier(&self) -> &[bool] {
        &self.carrier
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.qemu.as_ref().map(Child::id)
    }

    /// Starts QEMU without waiting for it. The calling thread must outlive it: its end would kill QEMU.
    pub(crate) fn spawn(&mut self) -> Result<()> {
        if self.qemu.is_some() {
            return Err(self.wrong_state("nothing to start; kill it first for a fresh start"));
        }
        // Left by a killed QEMU, these would be dialled before the new one listens.
        let networks =
            self.machine.cluster.iter().filter(|nic| !nic.connects).map(|nic| &nic.socket);
        for socket in [&self.files.console, &self.files.qmp].into_iter().chain(networks) {
            match fs::remove_file(socket) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::file("removing", socket)(error));
                }
                _ => {}
            }
        }
        let messages = &self.files.messages;
        let messages = File::create(messages).map_err(Error::file("creating", messages))?;
        let own = std::process::id().to_string();
        let mut line: Vec<_> =
            self.launcher.iter().map(|a| a.replace(PARENT, &own).into()).collect();
        line.extend(self.machine.command());
        let mut command = Command::new(&line[0]);
        // A process group of its own: Ctrl-C on our terminal is for us to act on.
        command.args(&line[1..]).process_group(0).stdin(Stdio::null()).stdout(Stdio::null());
        let spawned = command.stderr(messages).spawn();
        self.qemu = Some(spawned.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::QemuMissing(line[0].to_string_lossy().into_owned()),
            _ => Error::file("starting", &line[0])(error),
        })?);
        self.paused = false;
        self.carrier.fill(true);
        self.console.expect_guest(true);
        Ok(())
    }

    /// Waits until the QEMU that was spawned is in order.
    pub(crate) fn await_start(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_PATIENCE;
        loop {
            if let Some(status) = self.reap() {
                return Err(self.failed(describe(status)));
            }
            match Qmp::connect(&self.files.qmp) {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > deadline => {
                    self.kill();
                    return Err(self.failed(format!("killed: {error}")));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    pub(crate) fn failed(&self, status: String) -> Error {
        let said = fs::read_to_string(&self.files.messages).unwrap_or_default();
        let lines = said.lines().map(str::trim);
        let told: Vec<_> =
            lines.filter(|line| !line.is_empty() && !line.contains("QEMU waiting for")).collect();
        let message =
            if told.is_empty() { "it gave no reason".to_owned() } else { told.join("; ") };
        Error::QemuFailed { node: self.number, status, message }
    }

    /// Notices that QEMU has ended by itself; says how, once.
    pub(crate) fn reap(&mut self) -> Option<ExitStatus> {
        let status = self.qemu.as_mut()?.try_wait().ok()??;
        self.ended();
        Some(status)
    }

    /// Cuts the power. Nothing happens if there is none.
    pub(crate) fn kill(&mut self) {
        if let Some(qemu) = &mut self.qemu {
            let _ = qemu.kill();
            let _ = qemu.wait();
            self.ended();
        }
    }

    fn ended(&mut self) {
        self.qemu = None;
        self.paused = false;
        self.console.expect_guest(false);
    }

    pub(crate) fn pause(&mut self) -> Result<()> {
        self.qmp()?.stop()?;
        self.paused = true;
        Ok(())
    }

    pub(crate) fn resume(&mut self) -> Result<()> {
        self.qmp()?.cont()?;
        self.paused = false;
        Ok(())
    }

    /// On one segment, or on all.
    pub(crate) fn set_carrier(&mut self, segment: Option<usize>, up: bool) -> Result<()> {
        let mut qmp = self.qmp()?;
        let numbered = self.carrier.iter_mut().enumerate();
        for (segment, carrier) in numbered.filter(|(n, _)| segment.is_none_or(|one| one == *n)) {
            qmp.set_link(&cluster_device(segment), up)?;
            *carrier = up;
        }
        Ok(())
    }

    fn qmp(&self) -> Result<Qmp> {
        if self.qemu.is_none() {
            return Err(self.wrong_state("start it first with `cargo xtask qemu start`"));
        }
        Qmp::connect(&self.files.qmp)
    }

    fn wrong_state(&self, advice: &'static str) -> Error {
        Error::WrongState { node: self.number, state: self.power().as_str(), advice }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// How a process ended, in words.
pub(crate) fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "unknown status".to_owned(),
    }
}
