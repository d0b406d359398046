// SPDX-License-Identifier: MIT OR Apache-2.0
//! The console: where PID 1 speaks to people.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;

use crate::fault::Fault;

const PATH: &str = "/dev/console";
/// How much may wait to be written before lines are dropped.
const PENDING_CAP: usize = 16 << 10;

/// A console that never makes its writer wait.
///
/// A serial line whose other end does not read stalls every writer; were PID 1 one of them,
/// nothing would be supervised. So lines wait in a bounded queue, and those that do not fit are
/// counted and dropped.
#[derive(Debug)]
pub(crate) struct Console<W = File> {
    device: Option<W>,
    pending: Vec<u8>,
    dropped: usize,
}

impl Console {
    /// Opens the console and makes it the standard input, output and error of this process (they
    /// block, and serve panics only).
    pub(crate) fn open() -> Result<Self, Fault> {
        let open = |flags: OFlags| {
            File::options()
                .read(true)
                .write(true)
                .custom_flags((flags | OFlags::NOCTTY).bits().cast_signed())
                .open(PATH)
                .map_err(Fault::when(format!("open {PATH}")))
        };
        let blocking = open(OFlags::empty())?;
        let attach = Fault::when("make the console the standard streams");
        rustix::stdio::dup2_stdin(&blocking)
            .and_then(|()| rustix::stdio::dup2_stdout(&blocking))
            .and_then(|()| rustix::stdio::dup2_stderr(&blocking))
            .map_err(attach)?;
        Ok(Self::new(Some(open(OFlags::NONBLOCK)?)))
    }

    /// A console that is not there: everything said is lost.
    pub(crate) fn absent() -> Self {
        Self::new(None)
    }

    /// To wait for what somebody types.
    pub(crate) fn reads(&self) -> Option<BorrowedFd<'_>> {
        self.device.as_ref().map(AsFd::as_fd)
    }

    /// For another process to write to, blocking.
    pub(crate) fn for_command() -> io::Result<File> {
        File::options().read(true).write(true).open(PATH)
    }

    /// To be polled for writing; `None` when nothing waits.
    pub(crate) fn wants_to_write(&self) -> Option<BorrowedFd<'_>> {
        self.device.as_ref().filter(|_| !self.pending.is_empty()).map(AsFd::as_fd)
    }
}

/// What somebody has typed at the console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Typed {
    /// The enter key, perhaps after other keys.
    Line,
    /// Nothing, or not all of a line.
    Less,
    /// There is nobody and never will be: the console is none that can be read.
    Gone,
}

impl<W: Read> Console<W> {
    /// Takes what was typed since the last call; never waits.
    pub(crate) fn typed(&mut self) -> Typed {
        let Some(device) = &mut self.device else { return Typed::Gone };
        let mut bytes = [0; 256];
        match device.read(&mut bytes) {
            Ok(0) => Typed::Gone,
            Ok(length) if bytes[..length].iter().any(|it| b"\r\n".contains(it)) => Typed::Line,
            Ok(_) => Typed::Less,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Typed::Less,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Typed::Less,
            Err(_) => Typed::Gone,
        }
    }
}

impl<W: Write> Console<W> {
    fn new(device: Option<W>) -> Self {
        Self { device, pending: Vec::new(), dropped: 0 }
    }

    /// Says a line, now or when the console takes it.
    pub(crate) fn say(&mut self, line: &str) {
        self.flush();
        let marker = match self.dropped {
            0 => String::new(),
            dropped => {
                format!("dvs: warning: {dropped} lines were dropped: the console was stuck\n")
            }
        };
        if self.pending.len() + marker.len() + line.len() + 1 > PENDING_CAP {
            self.dropped += 1;
            return;
        }
        self.dropped = 0;
        self.pending.extend_from_slice(marker.as_bytes());
        self.pending.extend_from_slice(line.as_bytes());
        self.pending.push(b'\n');
        self.flush();
    }

    /// Writes what the console takes without waiting.
    pub(crate) fn flush(&mut self) {
        let Some(device) = &mut self.device else {
            self.pending.clear();
            return;
        };
        while !self.pending.is_empty() {
            match device.write(&self.pending) {
                Ok(0) => return,
                Ok(written) => drop(self.pending.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // Hung up: what waits will not be read by anybody.
                Err(_) => self.pending.clear(),
            }
        }
    }

    /// Writes what waits, for at most this long.
    pub(crate) fn drain(&mut self, patience: Duration) {
        let end = Instant::now() + patience;
        self.flush();
        while !self.pending.is_empty() && Instant::now() < end {
            thread::sleep(Duration::from_millis(10));
            self.flush();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};

    use super::{Console, Typed, PENDING_CAP};

    /// Takes so many bytes, then would block.
    #[derive(Debug, Default)]
    struct Slow {
        room: usize,
        taken: Vec<u8>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(self.room);
            if count == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.room -= count;
            self.taken.extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stuck_console_costs_lines_but_not_memory() {
        let mut console = Console::new(Some(Slow::default()));
        let line = "x".repeat(99);
        for _ in 0..1000 {
            console.say(&line);
        }
        assert!(console.pending.len() <= PENDING_CAP);
        let kept = console.pending.len() / 100;
        console.device.as_mut().unwrap().room = usize::MAX;
        console.say("end");
        let text = String::from_utf8(console.device.unwrap().taken).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), kept + 2);
        assert!(lines[kept].contains(&format!("{} lines were dropped", 1000 - kept)));
        assert_eq!(lines[kept + 1], "end");
    }

    #[test]
    fn a_slow_console_gets_every_byte_in_order() {
        let mut console = Console::new(Some(Slow::default()));
        console.say("one");
        console.device.as_mut().unwrap().room = 2;
        console.say("two");
        console.device.as_mut().unwrap().room = 100;
        console.flush();
        assert_eq!(console.device.unwrap().taken, b"one\ntwo\n");
    }

    #[test]
    fn only_the_enter_key_counts_of_what_is_typed() {
        let typed =
            |text: &[u8]| Console { device: Some(text), pending: Vec::new(), dropped: 0 }.typed();
        assert_eq!(typed(b"\n"), Typed::Line);
        assert_eq!(typed(b"abc\r"), Typed::Line);
        assert_eq!(typed(b"abc"), Typed::Less);
        // A console that has hung up would be readable for ever.
        assert_eq!(typed(b""), Typed::Gone);
    }
}
