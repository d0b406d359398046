// SPDX-License-Identifier: MIT OR Apache-2.0
//! The serial console of a virtual node.
//!
//! QEMU stalls the guest while a connected client doesn't read. So there is exactly one client, a thread here that always
//! reads: it writes the log, keeps a [`Transcript`], and serves viewers on a socket of its own at whatever pace they have.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};

use crate::error::{Error, Result};
use crate::socket::{bell, dial, not_now, wait, Bell, Ear};
use crate::transcript::{Passage, Transcript};

/// How much output is kept for viewers and searches, in bytes.
const KEPT: usize = 4 << 20;
/// How much of what was already said a new viewer is shown, in bytes.
const SHOWN_AT_FIRST: u64 = 16 << 10;
/// Most bytes given to a viewer or taken from the guest at once.
const CHUNK: usize = 16 << 10;
const REDIAL: Duration = Duration::from_millis(10);

#[derive(Debug)]
struct State {
    transcript: Transcript,
    /// Whether to look for a QEMU to read from.
    dialling: bool,
    stopping: bool,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    grown: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves nothing half-done in here.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, bytes: &[u8]) {
        self.lock().transcript.push(bytes);
        self.grown.notify_all();
    }
}

/// Reads what a console says. Cheap to clone; never slows the guest.
#[derive(Clone, Debug)]
pub struct ConsoleReader {
    node: usize,
    shared: Arc<Shared>,
}

impl ConsoleReader {
    /// The position after everything said so far.
    pub fn end(&self) -> u64 {
        self.shared.lock().transcript.end()
    }

    /// What was said from position `from` on; waits up to `patience` for something to be said.
    pub fn read(&self, from: u64, patience: Duration) -> Passage {
        let state = self.shared.lock();
        let silent = |state: &mut State| state.transcript.end() <= from && !state.stopping;
        let waited = self.shared.grown.wait_timeout_while(state, patience, silent);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.transcript.read(from, CHUNK)
    }

    /// Waits until `pattern`, a plain text, has been said, at any time since the cluster's start. Returns the position after it.
    pub fn wait_for(&self, pattern: &str, timeout: Duration) -> Result<u64> {
        self.wait_for_since(0, pattern, timeout)
    }

    /// Waits until `pattern` has been said at or after position `since`.
    pub fn wait_for_since(&self, since: u64, pattern: &str, timeout: Duration) -> Result<u64> {
        let deadline = Instant::now() + timeout;
        let mut state = self.shared.lock();
        loop {
            if let Some(position) = state.transcript.find(pattern, since) {
                return Ok(position);
            }
            let rest = deadline.saturating_duration_since(Instant::now());
            if rest.is_zero() || state.stopping {
                let (node, pattern) = (self.node, pattern.to_owned());
                return Err(Error::NotSeen { node, pattern, seconds: timeout.as_secs() });
            }
            let waited = self.shared.grown.wait_timeout(state, rest);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The last `count` lines, cleaned of control sequences.
    pub fn last_lines(&self, count: usize) -> Vec<String> {
        self.shared.lock().transcript.last_lines(count)
    }
}

/// The owner of a console; ends when dropped.
#[derive(Debug)]
pub(crate) struct Console {
    reader: ConsoleReader,
    bell: Bell,
    thread: Option<JoinHandle<()>>,
}

impl Console {
    /// Owns the console that QEMU offers on `guest`, logs to `log` and serves viewers on `view`.
    pub(crate) fn start(node: usize, guest: &Path, view: &Path, log: &Path) -> Result<Console> {
        let log = File::create(log).map_err(Error::file("creating the console log", log))?;
        let viewing = Error::file("listening for viewers on", view);
        let listener = UnixListener::bind(view)
            .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
            .map_err(viewing)?;
        let (bell, ear) = bell().map_err(Error::system("starting a console"))?;
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                transcript: Transcript::new(KEPT),
                dialling: false,
                stopping: false,
            }),
            grown: Condvar::new(),
        });
        let pump = Pump {
            node,
            guest_socket: guest.to_owned(),
            guest: None,
            listener,
            viewers: Vec::new(),
            log: Some(log),
            shared: shared.clone(),
            ear,
        };
        let thread = std::thread::Builder::new()
            .name(format!("console{node}"))
            .spawn(move || pump.run())
            .map_err(Error::system("starting a console"))?;
        let reader = ConsoleReader { node, shared };
        Ok(Console { reader, bell, thread: Some(thread) })
    }

    pub(crate) fn reader(&self) -> &ConsoleReader {
        &self.reader
    }

    /// Tells that a QEMU is being started, or that it has ended.
    pub(crate) fn expect_guest(&self, expected: bool) {
        self.reader.shared.lock().dialling = expected;
        self.bell.ring();
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.reader.shared.lock().stopping = true;
        self.reader.shared.grown.notify_all();
        self.bell.ring();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Viewer {
    stream: UnixStream,
    /// How far it has been served.
    position: u64,
    /// What it didn't take yet of a chunk that was read for it.
    pending: Vec<u8>,
}

/// The thread's side.
struct Pump {
    node: usize,
    guest_socket: PathBuf,
    guest: Option<UnixStream>,
    listener: UnixListener,
    viewers: Vec<Viewer>,
    log: Option<File>,
    shared: Arc<Shared>,
    ear: Ear,
}

impl Pump {
    fn run(mut self) {
        loop {
            let (dialling, stopping) = {
                let state = self.shared.lock();
                (state.dialling, state.stopping)
            };
            if stopping {
                // What the guest said last is still in the socket.
                while self.read_guest() {}
                return;
            }
            if dialling && self.guest.is_none() {
                self.guest = dial(&self.guest_socket).ok();
            }
            let redial = (dialling && self.guest.is_none()).then_some(REDIAL);
            if let Err(error) = self.wait(redial) {
                eprintln!("warning: console of node{} is no longer read: {error}", self.node);
                return;
            }
            self.ear.hear();
            self.read_guest();
            while let Ok((stream, _)) = self.listener.accept() {
                if stream.set_nonblocking(true).is_ok() {
                    let position =
                        self.shared.lock().transcript.end().saturating_sub(SHOWN_AT_FIRST);
                    self.viewers.push(Viewer { stream, position, pending: Vec::new() });
                }
            }
            self.serve_viewers();
        }
    }

    fn wait(&self, timeout: Option<Duration>) -> std::io::Result<()> {
        let mut fds =
            vec![PollFd::new(&self.ear, PollFlags::IN), PollFd::new(&self.listener, PollFlags::IN)];
        if let Some(guest) = &self.guest {
            fds.push(PollFd::new(guest, PollFlags::IN));
        }
        let end = self.shared.lock().transcript.end();
        for viewer in &self.viewers {
            let behind = viewer.position < end || !viewer.pending.is_empty();
            let out = if behind { PollFlags::OUT } else { PollFlags::empty() };
            fds.push(PollFd::new(&viewer.stream, PollFlags::IN | out));
        }
        wait(&mut fds, timeout)
    }

    /// Takes in what the guest says; false if there was nothing.
    fn read_guest(&mut self) -> bool {
        let Some(guest) = &mut self.guest else { return false };
        let mut buffer = [0; CHUNK];
        match guest.read(&mut buffer) {
            Ok(0) => {
                self.guest = None;
                false
            }
            Ok(count) => {
                let said = &buffer[..count];
                if let Some(log) = &mut self.log {
                    if let Err(error) = log.write_all(said) {
                        // A full disk costs the log, not the cluster.
                        eprintln!(
                            "warning: the console log of node{} ends here: {error}",
                            self.node
                        );
                        self.log = None;
                    }
                }
                self.shared.push(said);
                true
            }
            Err(error) if not_now(&error) => false,
            Err(_) => {
                self.guest = None;
                false
            }
        }
    }

    fn serve_viewers(&mut self) {
        let shared = &self.shared;
        let guest = &mut self.guest;
        self.viewers.retain_mut(|viewer| {
            let mut typed = [0; 256];
            match viewer.stream.read(&mut typed) {
                Ok(0) => return false,
                Ok(count) => {
                    // A guest that doesn't take its input loses it, as on a real line.
                    if let Some(guest) = guest {
                        let _ = guest.write(&typed[..count]);
                    }
                }
                Err(error) if not_now(&error) => {}
                Err(_) => return false,
            }
            viewer.serve(shared)
        });
    }
}

impl Viewer {
    /// Gives the viewer what it takes without waiting; false if it is gone.
    fn serve(&mut self, shared: &Shared) -> bool {
        loop {
            if self.pending.is_empty() {
                let passage = shared.lock().transcript.read(self.position, CHUNK);
                if passage.lost > 0 {
                    let lost = passage.lost;
                    self.pending = format!("\r\n[{lost} bytes left out]\r\n").into_bytes();
                }
                self.pending.extend(passage.bytes);
                self.position = passage.end;
            }
            if self.pending.is_empty() {
                return true;
            }
            match self.stream.write(&self.pending) {
                Ok(count) if count > 0 => drop(self.pending.drain(..count)),
                Err(error) if not_now(&error) => return true,
                _ => return false,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bench {
        _directory: tempfile::TempDir,
        view: PathBuf,
        log: PathBuf,
        qemu: UnixListener,
        console: Console,
    }

    /// A console whose QEMU is the test.
    fn bench() -> Bench {
        let directory = tempfile::tempdir().unwrap();
        let file = |name| directory.path().join(name);
        let (guest, view, log) = (file("guest"), file("view"), file("log"));
        let qemu = UnixListener::bind(&guest).unwrap();
        let console = Console::start(0, &guest, &view, &log).unwrap();
        console.expect_guest(true);
        Bench { _directory: directory, view, log, qemu, console }
    }

    const SOON: Duration = Duration::from_secs(10);

    #[test]
    fn what_the_guest_says_is_kept_logged_and_shown() {
        let bench = bench();
        let (mut guest, _) = bench.qemu.accept().unwrap();
        guest.write_all(b"dvs: node0 ready\n").unwrap();
        let reader = bench.console.reader().clone();
        let position = reader.wait_for("ready\n", SOON).unwrap();
        assert_eq!(position, 17);
        let mut viewer = UnixStream::connect(&bench.view).unwrap();
        let mut shown = [0; 17];
        viewer.read_exact(&mut shown).unwrap();
        assert_eq!(&shown, b"dvs: node0 ready\n");
        viewer.write_all(b"typed").unwrap();
        let mut typed = [0; 5];
        guest.read_exact(&mut typed).unwrap();
        assert_eq!(&typed, b"typed");
        guest.write_all(b"last words").unwrap();
        drop(guest);
        reader.wait_for_since(position, "last words", SOON).unwrap();
        drop(bench.console);
        assert_eq!(std::fs::read(&bench.log).unwrap(), b"dvs: node0 ready\nlast words");
    }

    #[test]
    fn a_viewer_that_does_not_read_stalls_nobody() {
        let bench = bench();
        let (mut guest, _) = bench.qemu.accept().unwrap();
        guest.set_write_timeout(Some(SOON)).unwrap();
        let mut idle = UnixStream::connect(&bench.view).unwrap();
        guest.write_all(b"first\n").unwrap();
        bench.console.reader().wait_for("first", SOON).unwrap();
        // Far more than sockets and transcript hold together; a stall would run into the write timeout.
        let line = [b'x'; 4096];
        for _ in 0..3 * KEPT / line.len() {
            guest.write_all(&line).unwrap();
        }
        guest.write_all(b"\nend\n").unwrap();
        bench.console.reader().wait_for("end", SOON).unwrap();
        // Once it reads, it is told what it has missed and gets the end.
        idle.set_read_timeout(Some(SOON)).unwrap();
        let mut shown = Vec::new();
        let mut buffer = [0; 65536];
        while !shown.ends_with(b"end\n") {
            let count = idle.read(&mut buffer).unwrap();
            shown.extend_from_slice(&buffer[..count]);
        }
        let text = String::from_utf8(shown).unwrap();
        assert!(text.starts_with("first\n") && text.contains(" bytes left out]"));
    }

    #[test]
    fn the_next_qemu_on_the_same_socket_is_read_too() {
        let bench = bench();
        for boot in ["boot 1\n", "boot 2\n"] {
            let (mut guest, _) = bench.qemu.accept().unwrap();
            guest.write_all(boot.as_bytes()).unwrap();
            bench.console.reader().wait_for(boot, SOON).unwrap();
        }
    }

    #[test]
    fn a_text_that_never_comes_is_an_error() {
        let bench = bench();
        let error = bench.console.reader().wait_for("never", Duration::ZERO).unwrap_err();
        assert_eq!(error.to_string(), "node0: `never` did not appear on the console within 0 s");
    }
}
