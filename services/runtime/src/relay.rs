// SPDX-License-Identifier: MIT OR Apache-2.0
//! Stands between a command in a container and the stream of who runs it. What one end does not take is not read from the other, so
//! neither can fill the memory of the node.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result};
use dvs_exec::{Decoder, Frame, Size};
use nix::sys::signalfd::SignalFd;
use rustix::event::{poll, PollFd, PollFlags};
use rustix::io::ioctl_fionbio;
use rustix::process::{kill_process, waitpid, Pid, Signal, WaitOptions};
use rustix::termios::{tcgetattr, tcsetwinsize, SpecialCodeIndex, Winsize};

use crate::init::exit_status;

/// How much may wait for one of the two ends before the other is not read any more.
const WAITING_MAX: usize = 256 << 10;

/// The most that is read of each output after the command has ended. Others may go on writing to it.
const REST_MAX: usize = 1 << 20;

/// The end of a file, as terminals are told unless they are told otherwise (Control-D).
const END_OF_FILE: u8 = 4;

/// What takes the command's input.
#[derive(Debug)]
pub(crate) struct Sink {
    file: Option<File>,
    is_terminal: bool,
    /// What it has not taken yet.
    waiting: Vec<u8>,
    /// Whether nothing comes any more.
    ends: bool,
}

impl Sink {
    /// The command reads from a pipe.
    pub(crate) fn pipe(end: Option<OwnedFd>) -> Self {
        Self { file: end.map(File::from), is_terminal: false, waiting: Vec::new(), ends: false }
    }

    /// The command has a terminal, of which this is the other end.
    pub(crate) fn terminal(end: Option<File>) -> Self {
        Self { file: end, is_terminal: true, waiting: Vec::new(), ends: false }
    }

    fn add(&mut self, bytes: &[u8]) {
        if self.file.is_some() && !self.ends {
            self.waiting.extend_from_slice(bytes);
        }
    }

    fn end(&mut self) {
        if self.is_terminal {
            // A terminal has no other way to say so.
            let settings = self.file.as_ref().map(tcgetattr).and_then(Result::ok);
            let end =
                settings.map_or(END_OF_FILE, |known| known.special_codes[SpecialCodeIndex::VEOF]);
            self.add(&[end]);
        }
        self.ends = true;
        self.close_if_over();
    }

    /// Gives the command what it takes.
    fn give(&mut self) {
        let Some(file) = &mut self.file else { return };
        match file.write(&self.waiting) {
            Ok(length) => drop(self.waiting.drain(..length)),
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            // It has closed its input, and does not want the rest.
            Err(_) => {
                self.waiting.clear();
                self.file = None;
            }
        }
        self.close_if_over();
    }

    fn close_if_over(&mut self) {
        if self.ends && self.waiting.is_empty() && !self.is_terminal {
            self.file = None;
        }
    }

    fn resize(&self, size: Size) {
        if let Some(file) = self.file.as_ref().filter(|_| self.is_terminal) {
            let (ws_row, ws_col) = (size.rows, size.columns);
            // The command may have closed it.
            let _ = tcsetwinsize(file, Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 });
        }
    }
}

/// Between a command and who runs it.
pub(crate) struct Relay {
    socket: UnixStream,
    decoder: Decoder,
    /// What the other end of the stream has not taken yet.
    outgoing: Vec<u8>,
    command: Pid,
    signals: SignalFd,
    input: Sink,
    /// Standard output or the terminal, and standard error; none if it was closed.
    outputs: [Option<File>; 2],
    ended: Option<i32>,
}

/// Who has something to say, or takes something.
#[derive(Clone, Copy, Debug)]
enum Party {
    Signals,
    Socket,
    Input,
    Output(usize),
}

impl Relay {
    /// Between `command` and a stream, of which `decoder` has read the beginning.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn new(
        socket: UnixStream,
        decoder: Decoder,
        command: Pid,
        signals: SignalFd,
    ) -> Result<Self> {
        socket.set_nonblocking(true).context("relaying a command")?;
        let input = Sink::pipe(None);
        let outputs = [None, None];
        Ok(Self {
            socket,
            decoder,
            outgoing: Vec::new(),
            command,
            signals,
            input,
            outputs,
            ended: None,
        })
    }

    /// Adds what the command reads and writes.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn with(self, input: Sink, outputs: [Option<File>; 2]) -> Result<Self> {
        for file in input.file.iter().chain(outputs.iter().flatten()) {
            ioctl_fionbio(file, true).context("relaying a command")?;
        }
        Ok(Self { input, outputs, ..self })
    }

    /// Until the command has ended and all that it has written was taken, or the other end of the stream has gone.
    ///
    /// # Errors
    /// When the stream makes no sense or the kernel refuses; the command is ended then.
    pub(crate) fn run(mut self) -> Result<()> {
        let relayed = self.relay();
        if self.ended.is_none() {
            // It would end with this process anyway.
            let _ = kill_process(self.command, Signal::KILL);
        }
        relayed
    }

    fn relay(&mut self) -> Result<()> {
        // What came with the request.
        self.obey()?;
        while self.ended.is_none() {
            for (party, flags) in self.ready()? {
                match party {
                    Party::Signals => self.reap()?,
                    Party::Socket => {
                        if flags.contains(PollFlags::OUT) && !self.flush()? {
                            return Ok(());
                        }
                        if flags.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR)
                            && !self.hear()?
                        {
                            return Ok(());
                        }
                    }
                    Party::Input => self.input.give(),
                    Party::Output(index) => drop(self.take(index)?),
                }
            }
        }
        for index in 0..self.outputs.len() {
            let mut rest = 0;
            while rest < REST_MAX {
                match self.take(index)? {
                    0 => break,
                    length => rest += length,
                }
            }
        }
        let status = u8::try_from(self.ended.unwrap_or(255)).unwrap_or(u8::MAX);
        Frame::Exited(status).encode(&mut self.outgoing)?;
        self.socket.set_nonblocking(false).context("relaying the end of a command")?;
        // Whether anybody still wants to know is their affair.
        let _ = self.socket.write_all(&self.outgoing);
        Ok(())
    }

    fn ready(&self) -> Result<Vec<(Party, PollFlags)>> {
        let mut wanted = vec![(Party::Signals, PollFd::new(&self.signals, PollFlags::IN))];
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, self.input.waiting.len() < WAITING_MAX);
        flags.set(PollFlags::OUT, !self.outgoing.is_empty());
        wanted.push((Party::Socket, PollFd::new(&self.socket, flags)));
        if let Some(file) = self.input.file.as_ref().filter(|_| !self.input.waiting.is_empty()) {
            wanted.push((Party::Input, PollFd::new(file, PollFlags::OUT)));
        }
        if self.outgoing.len() < WAITING_MAX {
            for (index, file) in self.outputs.iter().enumerate() {
                if let Some(file) = file {
                    wanted.push((Party::Output(index), PollFd::new(file, PollFlags::IN)));
                }
            }
        }
        let (parties, mut descriptors): (Vec<_>, Vec<_>) = wanted.into_iter().unzip();
        match poll(&mut descriptors, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(Vec::new()),
            Err(error) => return Err(error).context("waiting for a command"),
        }
        let ready = parties.into_iter().zip(descriptors.iter().map(PollFd::revents));
        Ok(ready.filter(|(_, flags)| !flags.is_empty()).collect())
    }

    fn reap(&mut self) -> Result<()> {
        while self.signals.read_signal().context("taking a signal")?.is_some() {}
        let ended =
            waitpid(Some(self.command), WaitOptions::NOHANG).context("waiting for the command")?;
        self.ended = ended.map(|(_, status)| exit_status(status));
        Ok(())
    }

    /// Takes what there is of an output, once, and says how much that was.
    fn take(&mut self, index: usize) -> Result<usize> {
        let Some(file) = &mut self.outputs[index] else { return Ok(0) };
        let mut bytes = [0; 16 << 10];
        match file.read(&mut bytes) {
            Ok(length @ 1..) => {
                let bytes = bytes[..length].to_vec();
                let frame = if index == 0 { Frame::Output(bytes) } else { Frame::Error(bytes) };
                frame.encode(&mut self.outgoing)?;
                Ok(length)
            }
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                Ok(0)
            }
            // A terminal that everybody has closed gives an error.
            Ok(_) | Err(_) => {
                self.outputs[index] = None;
                Ok(0)
            }
        }
    }

    /// Sends what can be sent, and says whether the other end is still there.
    fn flush(&mut self) -> Result<bool> {
        match self.socket.write(&self.outgoing) {
            Ok(length) => drop(self.outgoing.drain(..length)),
            Err(error) => return still_there(error),
        }
        Ok(true)
    }

    /// Hears what there is, and says whether the other end is still there.
    fn hear(&mut self) -> Result<bool> {
        let mut bytes = [0; 16 << 10];
        match self.socket.read(&mut bytes) {
            Ok(0) => return Ok(false),
            Ok(length) => self.decoder.push(&bytes[..length]),
            Err(error) => return still_there(error),
        }
        self.obey()?;
        Ok(true)
    }

    fn obey(&mut self) -> Result<()> {
        while let Some(frame) = self.decoder.take()? {
            match frame {
                Frame::Input(bytes) => self.input.add(&bytes),
                Frame::EndOfInput => self.input.end(),
                Frame::Resize(size) => self.input.resize(size),
                Frame::Signal(number) => {
                    let signal = Signal::from_named_raw(i32::from(number)).with_context(|| {
                        format!("sending the signal {number} to a command: there is none of this number")
                    })?;
                    // It may have ended, which is seen next.
                    let _ = kill_process(self.command, signal);
                }
                other => {
                    anyhow::bail!("relaying a command: {other:?} is not for this end of the stream")
                }
            }
        }
        Ok(())
    }
}

fn still_there(error: io::Error) -> Result<bool> {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::Interrupted => Ok(true),
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => Ok(false),
        _ => Err(error).context("relaying a command"),
    }
}
