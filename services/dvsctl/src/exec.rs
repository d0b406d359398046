// SPDX-License-Identifier: MIT OR Apache-2.0
//! A command in a container, with its input, output, terminal and exit status here.

use std::io::{self, ErrorKind, IsTerminal, PipeReader, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::thread;
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
    let mut session = Session::begin(endpoint, &exec.name, request)?;
    session.signals = caught()?;
    let raw = is_terminal.then(Raw::enter).transpose()?;
    let ended = session.pass(Some(io::stdin()), &mut io::stdout(), &mut io::stderr());
    // Before anything is said, the terminal is to be as it was.
    drop(raw);
    Ok(ExitCode::from(exited(endpoint, ended)?))
}

fn lost(endpoint: &Endpoint, error: &dyn std::fmt::Display) -> Failure {
    Failure::Refused(format!("{}: the command's stream: {error}", endpoint.url()))
}

fn caught() -> Result<Signals, Failure> {
    Signals::catch()
        .map_err(|error| Failure::Refused(format!("set up signals for the command: {error}")))
}

/// The exit status, if the command could be run and has ended.
fn exited(endpoint: &Endpoint, ended: io::Result<End>) -> Result<u8, Failure> {
    match ended.map_err(|error| lost(endpoint, &error))? {
        End::Exited(status) => Ok(status),
        End::Refused(why) => Err(Failure::Refused(format!("{}: {why}", endpoint.url()))),
    }
}

/// A command without a terminal and with nothing of ours in its environment.
fn plain(command: &[String]) -> Request {
    Request {
        command: command.to_vec(),
        environment: Default::default(),
        directory: None,
        user: None,
        terminal: None,
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
    errors: &mut dyn Write,
) -> Result<Told, Failure> {
    let mut session = Session::begin(endpoint, container, plain(command))?;
    let (reader, mut writer) = io::pipe()?;
    thread::scope(|scope| {
        // A command need not read all of it.
        scope.spawn(move || writer.write_all(input));
        let mut stdout = Vec::new();
        let ended = session.pass(Some(reader), &mut stdout, errors);
        Ok(Told { status: exited(endpoint, ended)?, stdout })
    })
}

/// Runs a command that reads what comes out of a pipe and whose output goes where it is said; its exit status. If this program is
/// told to end, the command's input ends, and it can clear up.
pub(crate) fn carry(
    endpoint: &Endpoint,
    container: &str,
    command: &[String],
    input: Option<PipeReader>,
    output: &mut dyn Write,
    errors: &mut dyn Write,
) -> Result<u8, Failure> {
    let mut session = Session::begin(endpoint, container, plain(command))?;
    session.signals = caught()?;
    session.spares_command = true;
    exited(endpoint, session.pass(input, output, errors))
}

/// The same for who takes care of signals, and ends the input.
pub(crate) fn tunnel(
    endpoint: &Endpoint,
    container: &str,
    command: &[String],
    input: PipeReader,
    output: &mut dyn Write,
    errors: &mut dyn Write,
) -> Result<u8, Failure> {
    let mut session = Session::begin(endpoint, container, plain(command))?;
    exited(endpoint, session.pass(Some(input), output, errors))
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
    /// Whether a signal ends the command's input before anything else, if that goes on.
    spares_command: bool,
}

impl Session {
    /// Has a command begin.
    fn begin(endpoint: &Endpoint, container: &str, request: Request) -> Result<Self, Failure> {
        let path = format!("/v1/containers/{}/exec", escaped(container));
        let (stream, rest) = upgrade(endpoint, &path)?;
        let mut session = Self {
            stream,
            decoder: Decoder::default(),
            size: request.terminal,
            signals: Signals::default(),
            spares_command: false,
        };
        session.decoder.push(&rest);
        session.say(&Frame::Run(Box::new(request))).map_err(|error| lost(endpoint, &error))?;
        Ok(session)
    }

    fn say(&mut self, frame: &Frame) -> io::Result<()> {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes).map_err(io::Error::other)?;
        self.stream.write_all(&bytes)?;
        self.stream.flush()
    }

    /// The same for what need not be heard any more: says whether it may have been. Why a command has ended is on its way here then.
    fn offer(&mut self, frame: &Frame) -> io::Result<bool> {
        match self.say(frame) {
            Err(error)
                if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) =>
            {
                Ok(false)
            }
            said => said.map(|()| true),
        }
    }

    /// Passes input and output until the command ends.
    fn pass<I: Read + AsFd>(
        &mut self,
        mut input: Option<I>,
        output: &mut dyn Write,
        errors: &mut dyn Write,
    ) -> io::Result<End> {
        let mut bytes = vec![0; 16 << 10];
        if input.is_none() {
            self.say(&Frame::EndOfInput)?;
        }
        loop {
            if let Some(end) = self.show(output, errors)? {
                return Ok(end);
            }
            let (typed, heard) = self.wait(input.as_ref())?;
            if let Some(from) = input.as_mut().filter(|_| typed) {
                match from.read(&mut bytes) {
                    Ok(0) => {
                        input = None;
                        self.offer(&Frame::EndOfInput)?;
                    }
                    Ok(length) => {
                        let frame = Frame::Input(bytes[..length].to_vec());
                        if !self.offer(&frame)? {
                            input = None;
                        }
                    }
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            if heard {
                self.hear()?;
            }
            for number in self.signals.take() {
                let frame = match self.spares_command && input.take().is_some() {
                    true => Frame::EndOfInput,
                    false => Frame::Signal(number),
                };
                self.offer(&frame)?;
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
    fn show(&mut self, output: &mut dyn Write, errors: &mut dyn Write) -> io::Result<Option<End>> {
        while let Some(frame) = self.decoder.take().map_err(io::Error::other)? {
            match frame {
                Frame::Output(bytes) => {
                    output.write_all(&bytes)?;
                    output.flush()?;
                }
                Frame::Error(bytes) => errors.write_all(&bytes)?,
                Frame::Exited(status) => return Ok(Some(End::Exited(status))),
                Frame::Refused(why) => return Ok(Some(End::Refused(why))),
                other => return Err(io::Error::other(format!("{other:?} is not for this end"))),
            }
        }
        Ok(None)
    }

    /// Waits for something to be typed or to come; says which.
    fn wait(&self, input: Option<&impl AsFd>) -> io::Result<(bool, bool)> {
        let mut fds = vec![PollFd::from_borrowed_fd(descriptor(&self.stream), PollFlags::IN)];
        fds.extend(input.map(|input| PollFd::new(input, PollFlags::IN)));
        let others = self.signals.0.iter();
        fds.extend(others.map(|(_, stream)| PollFd::new(stream, PollFlags::IN)));
        let patience = Timespec { tv_sec: 0, tv_nsec: LOOK_MS * 1_000_000 };
        let limit = self.size.map(|_| &patience);
        match poll(&mut fds, limit) {
            Err(rustix::io::Errno::INTR) => return Ok((false, false)),
            other => other?,
        };
        let ready = |fd: Option<&PollFd<'_>>| fd.is_some_and(|fd| !fd.revents().is_empty());
        Ok((input.is_some() && ready(fds.get(1)), ready(fds.first())))
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
