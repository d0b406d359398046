// SPDX-License-Identifier: MIT OR Apache-2.0
//! A command in a container, with its input, output, terminal and exit status here.

use std::io::{self, ErrorKind, IsTerminal, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Duration;

use dvs_api::EXEC_PROTOCOL;
use dvs_client::Stream;
use dvs_exec::{Decoder, Frame, Request, Size, User};
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::termios::{tcgetattr, tcgetwinsize, tcsetattr, OptionalActions, Termios};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};

use crate::agreed::escaped;
use crate::arguments::ExecArguments;
use crate::cluster::Endpoint;
use crate::Failure;

/// How often it is looked whether the terminal has another size.
const LOOK_MS: i64 = 250;
/// The longest head of an answer.
const HEAD_MAX: usize = 16 << 10;
/// How long the node may take to take the connection over.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn run(endpoint: &Endpoint, exec: &ExecArguments) -> Result<ExitCode, Failure> {
    let is_terminal = io::stdin().is_terminal() && io::stdout().is_terminal() && !exec.no_terminal;
    let request = Request {
        command: exec.command.clone(),
        environment: exec.environment.iter().cloned().collect(),
        directory: exec.directory.clone(),
        user: exec.user.map(|ids| User { uid: ids.uid, gid: ids.gid }),
        terminal: is_terminal.then(size),
    };
    let lost = |error: &dyn std::fmt::Display| {
        Failure::Refused(format!("{}: the command's stream: {error}", endpoint.url()))
    };
    let path = format!("/v1/containers/{}/exec", escaped(&exec.name));
    let (stream, rest) = upgrade(endpoint, &path)?;
    let mut session = Session {
        stream,
        decoder: Decoder::default(),
        size: request.terminal,
        signals: Signals::default(),
    };
    session.decoder.push(&rest);
    session.say(&Frame::Run(Box::new(request))).map_err(|error| lost(&error))?;
    session.signals = Signals::catch()
        .map_err(|error| Failure::Refused(format!("set up signals for the command: {error}")))?;
    let raw = is_terminal.then(Raw::enter).transpose()?;
    let ended = session.pass();
    // Before anything is said, the terminal is to be as it was.
    drop(raw);
    match ended.map_err(|error| lost(&error))? {
        End::Exited(status) => Ok(ExitCode::from(status)),
        End::Refused(why) => Err(Failure::Refused(format!("{}: {why}", endpoint.url()))),
    }
}

/// What a command that was only asked something has said.
pub(crate) struct Told {
    pub(crate) status: u8,
    pub(crate) stdout: Vec<u8>,
}

/// Runs a command with some input, and takes its output; what it says on standard error is passed on.
pub(crate) fn ask(
    endpoint: &Endpoint,
    container: &str,
    command: &[String],
    input: &[u8],
) -> Result<Told, Failure> {
    let lost = |error: &dyn std::fmt::Display| {
        Failure::Refused(format!("{}: the command's stream: {error}", endpoint.url()))
    };
    let path = format!("/v1/containers/{}/exec", escaped(container));
    let (stream, rest) = upgrade(endpoint, &path)?;
    let mut session =
        Session { stream, decoder: Decoder::default(), size: None, signals: Signals::default() };
    session.decoder.push(&rest);
    let request = Request {
        command: command.to_vec(),
        environment: Default::default(),
        directory: None,
        user: None,
        terminal: None,
    };
    let begun = session.say(&Frame::Run(Box::new(request))).and_then(|()| {
        for part in input.chunks(16 << 10) {
            session.say(&Frame::Input(part.to_vec()))?;
        }
        session.say(&Frame::EndOfInput)
    });
    begun.map_err(|error| lost(&error))?;
    let mut stdout = Vec::new();
    let mut bytes = vec![0; 64 << 10];
    loop {
        while let Some(frame) = session.decoder.take().map_err(|error| lost(&error))? {
            match frame {
                Frame::Output(bytes) => stdout.extend(bytes),
                Frame::Error(bytes) => io::stderr().write_all(&bytes)?,
                Frame::Exited(status) => return Ok(Told { status, stdout }),
                Frame::Refused(why) => {
                    return Err(Failure::Refused(format!("{}: {why}", endpoint.url())));
                }
                other => return Err(lost(&format!("{other:?} is not for this end"))),
            }
        }
        match session.stream.read(&mut bytes) {
            Ok(0) => return Err(lost(&io::Error::from(ErrorKind::UnexpectedEof))),
            Ok(length) => session.decoder.push(&bytes[..length]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(lost(&error)),
        }
    }
}

fn size() -> Size {
    let known = tcgetwinsize(io::stdout()).ok().filter(|size| size.ws_row > 0 && size.ws_col > 0);
    known.map_or(Size { rows: 24, columns: 80 }, |size| Size {
        rows: size.ws_row,
        columns: size.ws_col,
    })
}

/// Has a node take a connection over, and gives what it has said after that.
fn upgrade(endpoint: &Endpoint, path: &str) -> Result<(Stream, Vec<u8>), Failure> {
    let failed = |error: io::Error| {
        let why = endpoint.client().explain(&error);
        Failure::Refused(format!("{} does not answer: {why}", endpoint.url()))
    };
    let mut stream = endpoint.client().connect(PATIENCE).map_err(failed)?;
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: node\r\nConnection: upgrade\r\nUpgrade: {EXEC_PROTOCOL}\r\n{}\r\n",
        endpoint.relay_line()
    );
    stream.set_timeouts(Some(PATIENCE)).map_err(failed)?;
    stream.write_all(head.as_bytes()).and_then(|()| stream.flush()).map_err(failed)?;
    let mut answer = Vec::new();
    let mut bytes = [0; 4096];
    let end = loop {
        if let Some(at) = answer.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        let length = stream.read(&mut bytes).map_err(failed)?;
        if length == 0 || answer.len() > HEAD_MAX {
            return Err(failed(ErrorKind::UnexpectedEof.into()));
        }
        answer.extend_from_slice(&bytes[..length]);
    };
    let rest = answer.split_off(end);
    let head = String::from_utf8_lossy(&answer).into_owned();
    let status = head.split_whitespace().nth(1).unwrap_or_default();
    if status == "101" {
        stream.set_timeouts(None).map_err(failed)?;
        return Ok((stream, rest));
    }
    Err(refusal(endpoint, &mut stream, status, rest))
}

/// What a node says that does not take a connection over.
fn refusal(endpoint: &Endpoint, stream: &mut Stream, status: &str, mut body: Vec<u8>) -> Failure {
    let mut bytes = [0; 4096];
    loop {
        if let Ok(error) = serde_json::from_slice::<dvs_api::Error>(&body) {
            return Failure::Refused(format!("{}: {}", endpoint.url(), error.error));
        }
        match stream.read(&mut bytes) {
            Ok(length) if length > 0 && body.len() < HEAD_MAX => {
                body.extend_from_slice(&bytes[..length]);
            }
            _ => return Failure::Refused(format!("{}: HTTP status {status}", endpoint.url())),
        }
    }
}

/// The terminal, passing everything on as it is typed. It is put back when this is dropped.
struct Raw(Termios);

impl Raw {
    fn enter() -> Result<Self, Failure> {
        let failed =
            |error: rustix::io::Errno| Failure::Refused(format!("set up the terminal: {error}"));
        let before = tcgetattr(io::stdin()).map_err(failed)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw).map_err(failed)?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // There is nobody to tell.
        let _ = tcsetattr(io::stdin(), OptionalActions::Drain, &self.0);
    }
}

/// Signals that are for the command, since whoever sends them means it and not the program that stands for it here.
#[derive(Default)]
struct Signals(Vec<(u8, UnixStream)>);

impl Signals {
    /// From now on they are not for this program any more.
    fn catch() -> io::Result<Self> {
        const CAUGHT: [i32; 6] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2];
        let caught = CAUGHT.map(|signal| {
            let (ours, theirs) = UnixStream::pair()?;
            ours.set_nonblocking(true)?;
            signal_hook::low_level::pipe::register(signal, theirs)?;
            let number = u8::try_from(signal).map_err(io::Error::other)?;
            Ok((number, ours))
        });
        caught.into_iter().collect::<io::Result<_>>().map(Self)
    }

    /// The numbers of those that have come since the last call, each once.
    fn take(&mut self) -> Vec<u8> {
        let mut numbers = Vec::new();
        for (number, stream) in &mut self.0 {
            if matches!(stream.read(&mut [0; 64]), Ok(length) if length > 0) {
                numbers.push(*number);
            }
        }
        numbers
    }
}

enum End {
    Exited(u8),
    Refused(String),
}

struct Session {
    stream: Stream,
    decoder: Decoder,
    /// The size of the terminal as it was told; `None` without one.
    size: Option<Size>,
    signals: Signals,
}

impl Session {
    fn say(&mut self, frame: &Frame) -> io::Result<()> {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes).map_err(io::Error::other)?;
        self.stream.write_all(&bytes)?;
        self.stream.flush()
    }

    /// Passes input and output until the command ends.
    fn pass(&mut self) -> io::Result<End> {
        let mut input = vec![0; 16 << 10];
        let mut is_input = true;
        loop {
            if let Some(end) = self.show()? {
                return Ok(end);
            }
            let (typed, heard) = self.wait(is_input)?;
            if typed {
                match io::stdin().read(&mut input) {
                    Ok(0) => {
                        is_input = false;
                        self.say(&Frame::EndOfInput)?;
                    }
                    Ok(length) => self.say(&Frame::Input(input[..length].to_vec()))?,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            if heard {
                self.hear()?;
            }
            for number in self.signals.take() {
                self.say(&Frame::Signal(number))?;
            }
            if let Some(told) = self.size {
                let now = size();
                if now != told {
                    self.size = Some(now);
                    self.say(&Frame::Resize(now))?;
                }
            }
        }
    }

    /// Shows what has come.
    fn show(&mut self) -> io::Result<Option<End>> {
        while let Some(frame) = self.decoder.take().map_err(io::Error::other)? {
            match frame {
                Frame::Output(bytes) => {
                    let mut stdout = io::stdout().lock();
                    stdout.write_all(&bytes)?;
                    stdout.flush()?;
                }
                Frame::Error(bytes) => io::stderr().write_all(&bytes)?,
                Frame::Exited(status) => return Ok(Some(End::Exited(status))),
                Frame::Refused(why) => return Ok(Some(End::Refused(why))),
                other => return Err(io::Error::other(format!("{other:?} is not for this end"))),
            }
        }
        Ok(None)
    }

    /// Waits for something to be typed or to come; says which.
    fn wait(&self, is_input: bool) -> io::Result<(bool, bool)> {
        let stdin = io::stdin();
        let mut fds = vec![PollFd::from_borrowed_fd(descriptor(&self.stream), PollFlags::IN)];
        if is_input {
            fds.push(PollFd::new(&stdin, PollFlags::IN));
        }
        let others = self.signals.0.iter();
        fds.extend(others.map(|(_, stream)| PollFd::new(stream, PollFlags::IN)));
        let patience = Timespec { tv_sec: 0, tv_nsec: LOOK_MS * 1_000_000 };
        let limit = self.size.map(|_| &patience);
        match poll(&mut fds, limit) {
            Err(rustix::io::Errno::INTR) => return Ok((false, false)),
            other => other?,
        };
        let ready = |fd: Option<&PollFd<'_>>| fd.is_some_and(|fd| !fd.revents().is_empty());
        Ok((is_input && ready(fds.get(1)), ready(fds.first())))
    }

    /// Takes all that has come. What TLS has taken from the socket nobody would be woken for again, so it is read to its end.
    fn hear(&mut self) -> io::Result<()> {
        let mut bytes = vec![0; 64 << 10];
        let mut first = true;
        loop {
            let read = self.stream.read_ready(&mut bytes);
            match read {
                Ok(0) if first => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(0) => return Ok(()),
                Ok(length) => self.decoder.push(&bytes[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            first = false;
        }
    }
}

fn descriptor(stream: &Stream) -> BorrowedFd<'_> {
    match stream {
        Stream::Tls(stream) => stream.sock.as_fd(),
        Stream::Plain(stream) => stream.as_fd(),
        Stream::Socket(stream) => stream.as_fd(),
    }
}
