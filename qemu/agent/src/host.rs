// SPDX-License-Identifier: MIT OR Apache-2.0
//! The host's end of a connection.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::frame::{self, Tag, BYTES_MAX};

/// How long the agent of a node that runs may take to start a program.
const START: Duration = Duration::from_secs(10);

/// What a program does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It wrote to standard output.
    Output(Vec<u8>),
    /// It wrote to standard error.
    Error(Vec<u8>),
    /// It ended, with the exit status as a shell gives it: 128 and the signal if it was killed.
    Ended(i32),
}

/// A program on a node. Dropping it, and all its clones, kills the program.
#[derive(Debug)]
pub struct Program {
    stream: TcpStream,
}

impl Program {
    /// Starts the program `words[0]` with the other words as arguments.
    ///
    /// # Errors
    /// Why it could not be started; of kind [`Other`](io::ErrorKind::Other) if the node said so. Any other error may
    /// just mean that the node has not booted far enough.
    pub fn start(agent: SocketAddr, words: &[&str]) -> io::Result<Self> {
        let mut stream = TcpStream::connect_timeout(&agent, START)?;
        stream.set_nodelay(true)?;
        frame::write(&mut stream, Tag::Start, words.join("\0").as_bytes())?;
        stream.set_read_timeout(Some(START))?;
        match frame::read(&mut stream)? {
            Some((Tag::Started, _)) => {}
            Some((Tag::Refused, why)) => {
                return Err(io::Error::other(String::from_utf8_lossy(&why).into_owned()));
            }
            Some(_) => return Err(io::ErrorKind::InvalidData.into()),
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
        stream.set_read_timeout(None)?;
        Ok(Self { stream })
    }

    /// Another handle to the same program, for another thread.
    ///
    /// # Errors
    /// When the system has no more files.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.stream.try_clone().map(|stream| Self { stream })
    }

    /// Gives it standard input.
    ///
    /// # Errors
    /// When the connection is lost.
    pub fn input(&self, bytes: &[u8]) -> io::Result<()> {
        bytes.chunks(BYTES_MAX).try_for_each(|part| frame::write(&self.stream, Tag::Input, part))
    }

    /// Ends its standard input.
    ///
    /// # Errors
    /// When the connection is lost.
    pub fn end_of_input(&self) -> io::Result<()> {
        frame::write(&self.stream, Tag::EndOfInput, &[])
    }

    /// Waits for what it does next.
    ///
    /// # Errors
    /// When the connection is lost, as it is when the node loses power.
    pub fn next_event(&self) -> io::Result<Event> {
        let (tag, bytes) =
            frame::read(&self.stream)?.ok_or(io::Error::from(io::ErrorKind::UnexpectedEof))?;
        match tag {
            Tag::Output => Ok(Event::Output(bytes)),
            Tag::Error => Ok(Event::Error(bytes)),
            Tag::Ended => {
                let status = bytes.try_into().map_err(|_| io::ErrorKind::InvalidData)?;
                Ok(Event::Ended(i32::from_le_bytes(status)))
            }
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Kills it, whoever else has a handle.
    pub fn kill(&self) {
        // It may have ended, and the connection with it.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }
}
