// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs a command in a container: starts the process that becomes it, passes on signals and, with a terminal, what is typed and
//! shown, and ends with the command's exit status.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use anyhow::{bail, ensure, Context, Result};
use nix::sched::{setns, CloneFlags};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{poll, PollFd, PollFlags};
use rustix::net::{recvmsg, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use rustix::process::{kill_process, waitpid, Pid, WaitOptions};
use rustix::termios::{
    isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize, OptionalActions, SpecialCodeIndex,
    Termios, Winsize,
};
use serde::{Deserialize, Serialize};

use crate::init::{exit_status, PASSED_ON};
use crate::place::{Phase, Place};
use crate::spec::User;
use crate::stage::{again, Stage};

/// A command to run in a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Variables besides those of the container.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Where it runs, if not in the container's directory.
    #[serde(default)]
    pub directory: Option<String>,
    /// As whom, if not as the container's user.
    #[serde(default)]
    pub user: Option<User>,
    /// Whether it has a terminal, and of which size.
    #[serde(default)]
    pub terminal: Option<Size>,
}

/// The size of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Characters of each.
    pub columns: u16,
}

impl From<Size> for Winsize {
    fn from(size: Size) -> Self {
        Self { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 }
    }
}

/// Runs the command to its end and gives its exit status by the convention of shells.
///
/// # Errors
/// When the container does not run. What the command's own process cannot do, it says itself, by status 125 to 127.
pub(crate) fn run(name: &str, request: &Request) -> Result<i32> {
    let place = Place::of(name)?;
    let record = place.record()?;
    let spec = place.spec()?;
    if let Some(user) = request.user {
        user.check(spec.ids)?;
    }
    let init = record.init.context("running a command: the container has no process yet")?;
    ensure!(
        matches!(record.phase, Phase::Created | Phase::Running),
        "running a command in the container {name}: it does not run; start it"
    );
    let handle = init.open()?;
    let handle = handle
        .with_context(|| format!("running a command in the container {name}: it has ended"))?;
    let mut signals: SigSet = PASSED_ON.into_iter().collect();
    signals.add(Signal::SIGCHLD);
    signals.thread_block().context("taking signals")?;
    let signals =
        SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC).context("taking signals")?;
    // For children only; from here on, none can be started that outlives the container.
    setns(handle, CloneFlags::CLONE_NEWPID).context("entering the container's PID namespace")?;

    let mut enter = again(Stage::Enter);
    enter.arg(name).arg(serde_json::to_string(request).context("passing on the command")?);
    if request.terminal.is_none() {
        let child = enter.spawn().context("starting a process in the container")?;
        let mut relay = Relay { command: Pid::from_child(&child), signals, terminal: None };
        return relay.run();
    }
    let (ours, theirs) = UnixStream::pair().context("connecting to the terminal")?;
    let child = enter
        .stdin(OwnedFd::from(theirs))
        .spawn()
        .context("starting a process in the container")?;
    drop(enter);
    let command = Pid::from_child(&child);
    // None if the process could not make one, which it says itself.
    let terminal = receive(&ours)?.map(Terminal::new).transpose()?;
    Relay { command, signals, terminal }.run()
}

/// Takes the terminal's other end out of a socket, unless the sender ends first.
fn receive(socket: &UnixStream) -> Result<Option<File>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut message = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let flags = RecvFlags::CMSG_CLOEXEC;
    let received = recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut message, flags)
        .context("taking the terminal's other end")?;
    if received.bytes == 0 {
        return Ok(None);
    }
    for message in message.drain() {
        if let RecvAncillaryMessage::ScmRights(mut descriptors) = message {
            return Ok(descriptors.next().map(File::from));
        }
    }
    bail!("taking the terminal's other end: there came none");
}

/// The other end of a terminal, and the terminal of who runs the command, if that is one.
struct Terminal {
    master: File,
    /// How the outer terminal was, to be put back.
    before: Option<Termios>,
    /// Whether there may be more to type.
    typing: bool,
}

impl Terminal {
    fn new(master: File) -> Result<Self> {
        let outer = io::stdin();
        let before = isatty(&outer).then(|| tcgetattr(&outer)).transpose();
        let before = before.context("looking at the terminal")?;
        if let Some(before) = &before {
            let mut raw = before.clone();
            raw.make_raw();
            tcsetattr(&outer, OptionalActions::Now, &raw).context("handing the terminal over")?;
        }
        let terminal = Self { master, before, typing: true };
        terminal.resize();
        Ok(terminal)
    }

    /// Takes the size of the outer terminal, if there is one that has a size.
    fn resize(&self) {
        if let Ok(size) = tcgetwinsize(io::stdin()) {
            if size.ws_row > 0 && size.ws_col > 0 {
                // It is right at the next change.
                let _ = tcsetwinsize(&self.master, size);
            }
        }
    }

    /// Passes on what was typed.
    fn type_in(&mut self) -> Result<()> {
        let mut bytes = [0; 4096];
        let stdin = io::stdin().as_fd().try_clone_to_owned().context("reading what is typed")?;
        let length = File::from(stdin).read(&mut bytes).context("reading what is typed")?;
        if length == 0 {
            self.typing = false;
            // As if somebody had typed the end of a file, since a terminal has no other way to say so.
            let end = tcgetattr(&self.master)
                .map_or(4, |settings| settings.special_codes[SpecialCodeIndex::VEOF]);
            bytes[0] = end;
        }
        // The command may have closed it.
        let _ = self.master.write_all(&bytes[..length.max(1)]);
        Ok(())
    }

    /// Shows what was written, and says whether there may be more.
    fn show(&mut self) -> Result<bool> {
        let mut bytes = [0; 4096];
        match self.master.read(&mut bytes) {
            // The last who had it open has closed it.
            Ok(0) | Err(_) => Ok(false),
            Ok(length) => {
                let mut stdout = io::stdout().lock();
                stdout
                    .write_all(&bytes[..length])
                    .and_then(|()| stdout.flush())
                    .context("showing what the command writes")?;
                Ok(true)
            }
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}

/// Stands between a command and who runs it.
struct Relay {
    command: Pid,
    signals: SignalFd,
    terminal: Option<Terminal>,
}

impl Relay {
    /// Until the command has ended and all that it has written was shown.
    fn run(&mut self) -> Result<i32> {
        let mut ended = None;
        let mut showing = self.terminal.is_some();
        while ended.is_none() || showing {
            let stdin = io::stdin();
            let mut ready = vec![(Source::Signals, PollFd::new(&self.signals, PollFlags::IN))];
            if let Some(terminal) = &self.terminal {
                if showing {
                    ready.push((Source::Shown, PollFd::new(&terminal.master, PollFlags::IN)));
                }
                if terminal.typing && ended.is_none() {
                    ready.push((Source::Typed, PollFd::new(&stdin, PollFlags::IN)));
                }
            }
            for source in ready_ones(ready, ended.is_some())? {
                match (source, &mut self.terminal) {
                    (Source::Signals, _) => ended = self.signalled()?.or(ended),
                    (Source::Shown, Some(terminal)) => showing = terminal.show()?,
                    (Source::Typed, Some(terminal)) => terminal.type_in()?,
                    // Others may hold the terminal open after the command has ended. They are not waited for.
                    (Source::Nothing, _) => showing = false,
                    (Source::Shown | Source::Typed, None) => {}
                }
            }
        }
        Ok(ended.unwrap_or(255))
    }

    /// Takes a signal and passes it on; says how the command did if it has ended.
    fn signalled(&self) -> Result<Option<i32>> {
        let info = self.signals.read_signal().context("taking a signal")?;
        let number = info.map_or(0, |info| info.ssi_signo as i32);
        if number == Signal::SIGCHLD as i32 {
            let ended = waitpid(Some(self.command), WaitOptions::NOHANG)
                .context("waiting for the command")?;
            return Ok(ended.map(|(_, status)| exit_status(status)));
        }
        match &self.terminal {
            // The terminal tells the command itself.
            Some(terminal) if number == Signal::SIGWINCH as i32 => terminal.resize(),
            _ => {
                if let Some(signal) = rustix::process::Signal::from_named_raw(number) {
                    // It may have ended, which is seen next.
                    let _ = kill_process(self.command, signal);
                }
            }
        }
        Ok(None)
    }
}

/// Where something comes from.
#[derive(Clone, Copy, Debug)]
enum Source {
    Signals,
    Shown,
    Typed,
    /// There is nothing, and nothing was to be waited for.
    Nothing,
}

fn ready_ones(descriptors: Vec<(Source, PollFd<'_>)>, at_once: bool) -> Result<Vec<Source>> {
    let (sources, mut descriptors): (Vec<_>, Vec<_>) = descriptors.into_iter().unzip();
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    match poll(&mut descriptors, at_once.then_some(&now)) {
        Ok(0) => return Ok(vec![Source::Nothing]),
        Ok(_) => {}
        Err(rustix::io::Errno::INTR) => return Ok(Vec::new()),
        Err(error) => return Err(error).context("waiting for the command"),
    }
    let ready = sources.into_iter().zip(descriptors);
    Ok(ready
        .filter(|(_, descriptor)| !descriptor.revents().is_empty())
        .map(|(source, _)| source)
        .collect())
}
