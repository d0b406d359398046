// SPDX-License-Identifier: MIT OR Apache-2.0
//! A command that runs in a container, as seen by who runs it.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Child;
use std::time::Duration;

use dvs_exec::{Decoder, Frame};

use crate::fault::{Fault, Kind};
use crate::runtime::{fault, Result};

/// A stream to a command. Dropping it ends the command.
#[derive(Debug)]
pub struct Session {
    doing: String,
    stream: UnixStream,
    decoder: Decoder,
    process: Option<Child>,
}

/// How a command ended, and all that it has written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// The exit status, 128 and the signal's number if one ended it.
    pub status: u8,
    /// Standard output, or what a terminal showed.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
}

impl Session {
    pub(crate) fn new(doing: String, stream: UnixStream, process: Child) -> Self {
        Self { doing, stream, decoder: Decoder::default(), process: Some(process) }
    }

    /// Says something to the command's side.
    ///
    /// # Errors
    /// When it is gone; [`next`](Self::next) says why.
    pub fn say(&mut self, frame: &Frame) -> Result<()> {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes).map_err(|error| self.failed(&error))?;
        self.stream.write_all(&bytes).map_err(|error| self.failed(&error))
    }

    /// The next that comes from it; [`Frame::Exited`] or [`Frame::Refused`] is the last.
    ///
    /// # Errors
    /// When the stream ends early, or nothing comes for as long as [`set_patience`](Self::set_patience) says.
    pub fn next_frame(&mut self) -> Result<Frame> {
        let mut bytes = vec![0; 16 << 10];
        loop {
            if let Some(frame) = self.decoder.take().map_err(|error| self.failed(&error))? {
                return Ok(frame);
            }
            let length = match self.stream.read(&mut bytes) {
                Err(error) if error.kind() == ErrorKind::ConnectionReset => 0,
                other => other.map_err(|error| self.failed(&error))?,
            };
            if length == 0 {
                return Err(self.lost());
            }
            self.decoder.push(&bytes[..length]);
        }
    }

    /// How long [`next_frame`](Self::next_frame) waits; for ever if it is not told.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_patience(&mut self, limit: Duration) -> Result<()> {
        self.stream.set_read_timeout(Some(limit)).map_err(|error| self.failed(&error))
    }

    /// Gives the command its input, and waits for its end.
    ///
    /// # Errors
    /// When it could not be run, or the stream ends early.
    pub fn finish(mut self, input: &[u8]) -> Result<Finished> {
        let mut all = Vec::new();
        Frame::Input(input.to_vec())
            .encode(&mut all)
            .and_then(|()| Frame::EndOfInput.encode(&mut all))
            .map_err(|error| self.failed(&error))?;
        let mut writer = self.stream.try_clone().map_err(|error| self.failed(&error))?;
        // Apart, since a command may want its output to be taken before it reads on.
        std::thread::scope(|scope| {
            // What is said to one that is gone is lost; why it is gone comes next.
            scope.spawn(move || drop(writer.write_all(&all)));
            let finished = self.hear_to_the_end();
            // So that nobody writes on to one that does not read any more.
            let _ = self.stream.shutdown(std::net::Shutdown::Both);
            finished
        })
    }

    fn hear_to_the_end(&mut self) -> Result<Finished> {
        let mut finished = Finished { status: 0, stdout: Vec::new(), stderr: Vec::new() };
        loop {
            match self.next_frame()? {
                Frame::Output(bytes) => finished.stdout.extend(bytes),
                Frame::Error(bytes) => finished.stderr.extend(bytes),
                Frame::Exited(status) => return Ok(Finished { status, ..finished }),
                Frame::Refused(message) => return Err(Fault { kind: Kind::State, message }),
                other => return Err(self.failed(&format!("{other:?} is not for this end"))),
            }
        }
    }

    /// Its parts, for who passes the bytes on without reading them: the stream, and the process to wait for when it has ended. The
    /// command ends with the stream.
    pub fn into_parts(mut self) -> Option<(UnixStream, Child)> {
        let stream = self.stream.try_clone().ok()?;
        Some((stream, self.process.take()?))
    }

    fn failed(&self, error: &dyn std::fmt::Display) -> Fault {
        Fault { kind: Kind::Failed, message: format!("{}: {error}", self.doing) }
    }

    /// Why the stream has ended without the last frame.
    fn lost(&mut self) -> Fault {
        let said = self.process.take().map(Child::wait_with_output);
        match said {
            Some(Ok(output)) => {
                let fault = fault(output.status.code(), &output.stderr);
                Fault { message: format!("{}: {}", self.doing, fault.message), ..fault }
            }
            _ => self.failed(&"its process has gone"),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        // Upon which the other end ends the command and itself.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
        let _ = process.wait();
    }
}
