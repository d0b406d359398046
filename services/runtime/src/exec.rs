// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs a command in a container for who is at the other end of a stream (the crate `dvs-exec` says what goes over it). The command ends
//! with the stream: nobody would see what it does any more.

use std::fs::File;
use std::io::{self, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use anyhow::{bail, Context, Result};
use dvs_exec::{Decoder, Frame, Request};
use nix::sched::{setns, CloneFlags};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::net::{recvmsg, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use rustix::process::Pid;

use crate::fault::{refuse, Kind};
use crate::place::{Phase, Place};
use crate::relay::{Relay, Sink};
use crate::spec::check_user;
use crate::stage::{again, Stage};

/// Runs what the stream asks for to its end. The stream is standard input.
///
/// # Errors
/// When standard input is no such stream; that the command cannot be run is told over it.
pub(crate) fn serve(name: &str) -> Result<()> {
    let socket = io::stdin().as_fd().try_clone_to_owned().context("taking the stream")?;
    let mut socket = UnixStream::from(socket);
    let mut decoder = Decoder::default();
    let Some(request) = first(&mut socket, &mut decoder)? else { return Ok(()) };
    match start(name, &request) {
        Ok(started) => {
            let relay = Relay::new(socket, decoder, started.command, started.signals)?;
            relay.with(started.input, started.outputs)?.run()
        }
        Err(error) => {
            let mut bytes = Vec::new();
            Frame::Refused(format!("{error:#}")).encode(&mut bytes)?;
            io::Write::write_all(&mut socket, &bytes).context("refusing to run a command")
        }
    }
}

/// What is to be run, unless the other end goes before it has said so.
fn first(socket: &mut UnixStream, decoder: &mut Decoder) -> Result<Option<Box<Request>>> {
    let mut bytes = [0; 4096];
    loop {
        match decoder.take()? {
            Some(Frame::Run(request)) => return Ok(Some(request)),
            Some(other) => bail!("running a command: the stream begins with {other:?}"),
            None => {}
        }
        let length = socket.read(&mut bytes).context("reading what is to be run")?;
        if length == 0 {
            return Ok(None);
        }
        decoder.push(&bytes[..length]);
    }
}

/// A command that was started, and its ends of what it reads and writes.
struct Started {
    command: Pid,
    signals: SignalFd,
    input: Sink,
    /// Standard output or the terminal, and standard error.
    outputs: [Option<File>; 2],
}

fn start(name: &str, request: &Request) -> Result<Started> {
    let place = Place::of(name)?;
    let spec = place.spec()?;
    let record = place.record()?;
    if let Some(user) = request.user {
        check_user(user, spec.ids)?;
    }
    let doing = || format!("running a command in the container {name}");
    if !matches!(record.phase, Phase::Created | Phase::Running) {
        return refuse(Kind::State, format!("{}: it does not run; create it anew", doing()));
    }
    let Some(handle) = record.init.map(|init| init.open()).transpose()?.flatten() else {
        return refuse(Kind::State, format!("{}: it has ended; create it anew", doing()));
    };
    let mut ended = SigSet::empty();
    ended.add(Signal::SIGCHLD);
    ended.thread_block().context("asking to be told of the end of the command")?;
    let signals = SignalFd::with_flags(&ended, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .context("asking to be told of the end of the command")?;
    // For children only; from here on, none can be started that outlives the container.
    setns(handle, CloneFlags::CLONE_NEWPID).context("entering the container's PID namespace")?;

    let mut enter = again(Stage::Enter);
    enter.arg(name).arg(serde_json::to_string(request).context("passing on the command")?);
    // Without a terminal, these are the command's; with one, they are for what goes wrong before there is one.
    enter.stderr(Stdio::piped());
    let spawned = |mut command: Command| -> Result<Child> {
        command.spawn().context("starting a process in the container")
    };
    if request.terminal.is_none() {
        enter.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = spawned(enter)?;
        return Ok(Started {
            command: Pid::from_child(&child),
            signals,
            input: Sink::pipe(child.stdin.take().map(OwnedFd::from)),
            outputs: [
                child.stdout.take().map(OwnedFd::from).map(File::from),
                child.stderr.take().map(OwnedFd::from).map(File::from),
            ],
        });
    }
    let (ours, theirs) = UnixStream::pair().context("connecting to the terminal")?;
    enter.stdin(OwnedFd::from(theirs)).stdout(Stdio::null());
    // Our copy of their end goes with the description of the process, so that its end shows.
    let mut child = spawned(enter)?;
    // None if the process could not make one, which it says itself.
    let terminal = receive(&ours)?;
    let typed = terminal.as_ref().map(File::try_clone).transpose();
    Ok(Started {
        command: Pid::from_child(&child),
        signals,
        input: Sink::terminal(typed.context("taking the terminal")?),
        outputs: [terminal, child.stderr.take().map(OwnedFd::from).map(File::from)],
    })
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
