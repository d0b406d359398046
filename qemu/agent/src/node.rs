// SPDX-License-Identifier: MIT OR Apache-2.0
//! The node's end of a connection.

use std::io::{self, Read};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use rustix::process::{kill_process_group, Pid, Signal};

use crate::frame::{self, Tag};

/// Where programs are looked for that are named without a path.
const SEARCH_PATH: &str = "/usr/libexec/dvs:/usr/bin";

/// Runs programs for all who connect. Returns only if nobody can connect any more.
pub fn serve(listener: &TcpListener) -> ExitCode {
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                thread::spawn(move || {
                    // An error is that the host is gone, which needs no telling.
                    let _ = run(stream);
                });
            }
            Err(error) => {
                eprintln!("error: accepting a connection: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
}

/// What is said to the host by several threads.
type Host = Arc<Mutex<TcpStream>>;

fn say(host: &Host, tag: Tag, bytes: &[u8]) -> io::Result<()> {
    frame::write(&mut *host.lock().unwrap_or_else(PoisonError::into_inner), tag, bytes)
}

fn run(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let Some((Tag::Start, words)) = frame::read(&mut stream)? else { return Ok(()) };
    let words = String::from_utf8_lossy(&words).into_owned();
    let host = Arc::new(Mutex::new(stream.try_clone()?));
    let mut child = match start(words.split('\0')) {
        Ok(child) => child,
        Err(error) => return say(&host, Tag::Refused, error.to_string().as_bytes()),
    };
    say(&host, Tag::Started, &[])?;
    let outputs = [
        child.stdout.take().map(|pipe| forward(pipe, Tag::Output, host.clone())),
        child.stderr.take().map(|pipe| forward(pipe, Tag::Error, host.clone())),
    ];
    let group = Pid::from_child(&child);
    let mut input = child.stdin.take();
    thread::spawn(move || {
        while let Ok(Some((tag, bytes))) = frame::read(&mut stream) {
            match (tag, &mut input) {
                (Tag::Input, Some(pipe)) => {
                    // A program that does not read its input may do so.
                    let _ = io::Write::write_all(pipe, &bytes);
                }
                (Tag::EndOfInput, _) => input = None,
                _ => {}
            }
        }
        // The host is gone. The group may be, too.
        let _ = kill_process_group(group, Signal::KILL);
    });
    let status = child.wait()?;
    // What the program left behind must not hold the pipes open.
    let _ = kill_process_group(group, Signal::KILL);
    for output in outputs.into_iter().flatten() {
        let _ = output.join();
    }
    let status = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    say(&host, Tag::Ended, &status.to_le_bytes())?;
    let host = host.lock().unwrap_or_else(PoisonError::into_inner);
    host.shutdown(std::net::Shutdown::Write)
}

fn start<'a>(mut words: impl Iterator<Item = &'a str>) -> io::Result<Child> {
    let program = words.next().filter(|program| !program.is_empty());
    let program = program.ok_or_else(|| io::Error::other("no program is named"))?;
    Command::new(program)
        .args(words)
        .env("PATH", SEARCH_PATH)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|error| io::Error::other(format!("starting {program}: {error}")))
}

fn forward(mut pipe: impl Read + Send + 'static, tag: Tag, host: Host) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut bytes = vec![0; 16 << 10];
        while let Ok(length @ 1..) = pipe.read(&mut bytes) {
            if say(&host, tag, &bytes[..length]).is_err() {
                return;
            }
        }
    })
}
