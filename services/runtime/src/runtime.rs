// SPDX-License-Identifier: MIT OR Apache-2.0
//! The containers of a node, for programs: each call starts the program of this crate, which must have one thread and its caller need
//! not, and understands what it says. Nothing is remembered between calls, so whoever starts anew finds all that is there.

use std::ffi::OsStr;
use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use dvs_exec::{Frame, Request};
use serde::de::DeserializeOwned;

use crate::container::Status;
use crate::dial;
use crate::fault::{Fault, Kind};
use crate::image::{Image, Images};
use crate::output::Log;
use crate::session::Session;
use crate::spec::Spec;
use crate::stats::Stats;

/// Where the program is on a node.
const PROGRAM: &str = "/usr/libexec/dvs/dvs-runtime";

/// What a call gives.
pub type Result<T> = std::result::Result<T, Fault>;

/// The containers of this node. Calls block until the program has ended: for what they ask that is as long as the kernel takes, and for
/// [`create`](Self::create) and [`import`](Self::import) as long as an image takes.
#[derive(Clone, Debug)]
pub struct Runtime {
    program: PathBuf,
}

impl Default for Runtime {
    fn default() -> Self {
        Self::at(PROGRAM)
    }
}

impl Runtime {
    /// By the program at this path, instead of where a node has it.
    pub fn at(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into() }
    }

    /// Makes a container, with its command not yet started. All or nothing of it is there after that.
    ///
    /// # Errors
    /// [`Kind::Exists`] when there is one of this name, [`Kind::Invalid`] when the description is wrong, [`Kind::NotFound`] when its
    /// image or its Distributed Container is not on this node.
    pub fn create(&self, spec: &Spec) -> Result<()> {
        self.run(&["create"], &described(spec)?).map(drop)
    }

    /// Gives a container other limits, another rate of its network and other peers, while it is there.
    ///
    /// # Errors
    /// [`Kind::NotFound`], or [`Kind::State`] when the description differs in something else.
    pub fn update(&self, spec: &Spec) -> Result<()> {
        self.run(&["update"], &described(spec)?).map(drop)
    }

    /// Starts the command of a container.
    ///
    /// # Errors
    /// [`Kind::NotFound`], or [`Kind::State`] when it was started before.
    pub fn start(&self, name: &str) -> Result<()> {
        self.run(&["start", "--", name], b"").map(drop)
    }

    /// Runs a command in a container. It ends with the session.
    ///
    /// # Errors
    /// When the program cannot be started; what else goes wrong is said over the session.
    pub fn exec(&self, name: &str, request: Request) -> Result<Session> {
        let doing = format!("running a command in the container {name}");
        let failed = |error: &dyn std::fmt::Display| Fault {
            kind: Kind::Failed,
            message: format!("{doing}: {error}"),
        };
        let (mut ours, theirs) = UnixStream::pair().map_err(|error| failed(&error))?;
        let mut bytes = Vec::new();
        Frame::Run(Box::new(request)).encode(&mut bytes).map_err(|error| failed(&error))?;
        let process = self.start_program(&["exec", "--", name], theirs.into())?;
        let session = |ours| Session::new(doing.clone(), ours, process);
        match ours.write_all(&bytes) {
            Ok(()) => Ok(session(ours)),
            // The end of its process says more.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(session(ours)),
            Err(error) => Err(failed(&error)),
        }
    }

    /// Connects to a port of a container, at its address in its network.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when there is no such container, [`Kind::Failed`] when nobody listens.
    pub fn dial(&self, name: &str, port: u16) -> Result<TcpStream> {
        let doing = format!("connecting to port {port} of the container {name}");
        let failed = |error: &dyn std::fmt::Display| Fault {
            kind: Kind::Failed,
            message: format!("{doing}: {error}"),
        };
        let (ours, theirs) = UnixStream::pair().map_err(|error| failed(&error))?;
        let child = self.start_program(&["dial", "--", name, &port.to_string()], theirs.into())?;
        let taken = dial::taken(&ours);
        // It ends at once, either way, and says why if it has not connected.
        let Output { status, stderr, .. } =
            child.wait_with_output().map_err(|error| failed(&error))?;
        match taken.map_err(|error| failed(&format!("{error:#}")))? {
            Some(stream) => Ok(stream),
            None => Err(fault(status.code(), &stderr)),
        }
    }

    /// Sends a signal, by name: `KILL` ends all of the container, `STOP` and `CONT` let all of it rest and go on, others go to its
    /// command.
    ///
    /// # Errors
    /// [`Kind::NotFound`], [`Kind::State`] when it does not run, [`Kind::Invalid`] when there is no such signal.
    pub fn kill(&self, name: &str, signal: &str) -> Result<()> {
        self.run(&["kill", "--", name, signal], b"").map(drop)
    }

    /// Removes a container that has ended with all that it was made of; with `force`, ends it before.
    ///
    /// # Errors
    /// [`Kind::NotFound`], or [`Kind::State`] when it runs and is not to be forced.
    pub fn delete(&self, name: &str, force: bool) -> Result<()> {
        let words: &[&str] = if force { &["delete", "--force", "--"] } else { &["delete", "--"] };
        self.run(&[words, &[name]].concat(), b"").map(drop)
    }

    /// All containers, by name.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub fn list(&self) -> Result<Vec<Status>> {
        self.ask(&["list"])
    }

    /// What became of a container so far.
    ///
    /// # Errors
    /// [`Kind::NotFound`].
    pub fn status(&self, name: &str) -> Result<Status> {
        self.ask(&["status", "--", name])
    }

    /// What a container uses.
    ///
    /// # Errors
    /// [`Kind::NotFound`].
    pub fn stats(&self, name: &str) -> Result<Stats> {
        self.ask(&["stats", "--", name])
    }

    /// The newest of what a container's command has written, at most 512 KiB.
    ///
    /// # Errors
    /// [`Kind::NotFound`].
    pub fn logs(&self, name: &str) -> Result<Vec<u8>> {
        self.run(&["logs", "--", name], b"")
    }

    /// What a container's command has written after the first `from` bytes, as far as that is kept.
    ///
    /// # Errors
    /// [`Kind::NotFound`].
    pub fn log_from(&self, name: &str, from: u64) -> Result<Log> {
        let text = self.run(&["logs", &format!("--from={from}"), "--", name], b"")?;
        let parse = || {
            let line = text.iter().position(|byte| *byte == b'\n')?;
            let begins = std::str::from_utf8(&text[..line]).ok()?.parse().ok()?;
            Some(Log { begins, bytes: text[line + 1..].to_vec() })
        };
        parse().ok_or_else(|| Fault {
            kind: Kind::Failed,
            message: "understanding what dvs-runtime said (logs): it does not begin with a number"
                .to_owned(),
        })
    }

    /// Takes an image in from an archive, which may have at most `max_bytes` unpacked if that is given.
    ///
    /// # Errors
    /// When the archive is damaged or not allowed.
    pub fn import(&self, archive: &Path, name: &str, max_bytes: Option<u64>) -> Result<Image> {
        let limit = max_bytes.map(|limit| format!("--max-bytes={limit}"));
        let mut words: Vec<&OsStr> = vec!["image".as_ref(), "import".as_ref()];
        words.extend(limit.as_deref().map(OsStr::new));
        let name = format!("--name={name}");
        words.extend([OsStr::new(&name), "--".as_ref(), archive.as_os_str()]);
        understand("importing an image", &self.run(&words, b"")?)
    }

    /// All images, by name.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub fn images(&self) -> Result<Images> {
        self.ask(&["image", "list"])
    }

    /// Removes an image that no container is made of.
    ///
    /// # Errors
    /// [`Kind::NotFound`], or [`Kind::State`] when a container needs it.
    pub fn remove_image(&self, name: &str) -> Result<()> {
        self.run(&["image", "remove", "--", name], b"").map(drop)
    }

    fn ask<T: DeserializeOwned>(&self, words: &[&str]) -> Result<T> {
        understand(&words.join(" "), &self.run(words, b"")?)
    }

    fn start_program(&self, words: &[impl AsRef<OsStr>], stdin: OwnedFd) -> Result<Child> {
        Command::new(&self.program)
            .args(words)
            .env_clear()
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| Fault {
                kind: Kind::Failed,
                message: format!(
                    "starting {}: {error}; is it in the image of this node?",
                    self.program.display()
                ),
            })
    }

    /// Runs the program to its end and gives what it has printed.
    fn run(&self, words: &[impl AsRef<OsStr>], input: &[u8]) -> Result<Vec<u8>> {
        let failed = |error: std::io::Error| Fault {
            kind: Kind::Failed,
            message: format!("talking to {}: {error}", self.program.display()),
        };
        let (reader, mut writer) = std::io::pipe().map_err(failed)?;
        let child = self.start_program(words, reader.into())?;
        // One that has ended without reading says why.
        match writer.write_all(input) {
            Err(error) if error.kind() != ErrorKind::BrokenPipe => return Err(failed(error)),
            _ => drop(writer),
        }
        let Output { status, stdout, stderr } = child.wait_with_output().map_err(failed)?;
        if status.success() {
            return Ok(stdout);
        }
        Err(fault(status.code(), &stderr))
    }
}

/// What a program that has failed says.
pub(crate) fn fault(status: Option<i32>, stderr: &[u8]) -> Fault {
    let text = String::from_utf8_lossy(stderr);
    let text = text.trim();
    let message = match text.strip_prefix("error: ").unwrap_or(text) {
        "" => "running dvs-runtime: it was ended by a signal or without a word".to_owned(),
        message => message.to_owned(),
    };
    Fault { kind: Kind::of_status(status), message }
}

fn described(spec: &Spec) -> Result<Vec<u8>> {
    let text = spec.to_json();
    text.map(String::into_bytes)
        .map_err(|error| Fault { kind: Kind::Failed, message: format!("{error:#}") })
}

fn understand<T: DeserializeOwned>(doing: &str, text: &[u8]) -> Result<T> {
    serde_json::from_slice(text).map_err(|error| Fault {
        kind: Kind::Failed,
        message: format!(
            "understanding what dvs-runtime said ({doing}): {error}; is it of another version?"
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> (tempfile::TempDir, Runtime) {
        let directory = tempfile::tempdir().unwrap();
        let (text, path) = (directory.path().join("text"), directory.path().join("program"));
        std::fs::write(&text, format!("#!/bin/sh\n{script}\n")).unwrap();
        // Written by a process of its own: what this one has open for writing, a program that another test starts at the same time has
        // open for a moment as well, and what is open for writing cannot be run.
        let made = Command::new("install").args([&text, &path]).status().unwrap();
        assert!(made.success());
        (directory, Runtime::at(path))
    }

    #[test]
    fn what_the_program_says_comes_back_with_its_kind() {
        let (_directory, runtime) = shell("echo 'error: doing it to '$3': no' >&2; exit 4");
        let fault = runtime.start("web").unwrap_err();
        assert_eq!((fault.kind, fault.message.as_str()), (Kind::NotFound, "doing it to web: no"));
    }

    #[test]
    fn a_program_that_is_missing_dies_or_babbles_is_an_error_that_says_so() {
        let fault = Runtime::at("/nonexistent").list().unwrap_err();
        assert!(fault.message.contains("/nonexistent"), "{fault}");
        let (_directory, runtime) = shell("kill -9 $$");
        assert!(runtime.list().unwrap_err().message.contains("without a word"));
        let (_directory, runtime) = shell("echo nonsense");
        assert!(runtime.list().unwrap_err().message.contains("another version"));
    }

    #[test]
    fn a_session_without_an_end_is_an_error_with_what_the_program_said() {
        let (_directory, runtime) = shell("echo 'error: no such luck' >&2; exit 1");
        let session = runtime.exec("web", Request::default()).unwrap();
        let fault = session.finish(b"").unwrap_err();
        assert!(fault.message.contains("no such luck"), "{fault}");
    }
}
