// SPDX-License-Identifier: MIT OR Apache-2.0
//! A Linux on another machine: its requests come as a stream of bytes, and the answers go as one. Whoever has mounted there passes both on.

use fuser::{Config, Filesystem, Session, SessionACL};
use rustix::net::{
    recv, send, shutdown, socketpair, AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags,
    SocketType,
};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::mpsc::{channel, Receiver};
use std::thread;
use std::time::Duration;
use vos_transfer::{message, MESSAGE_MAX};

/// How long it may take to tell what was found out before.
const MOMENT: Duration = Duration::from_secs(1);

/// Answers requests until there are no more. The other end then needs no answers any more either.
///
/// # Errors
/// When the streams fail or make no sense.
pub fn serve<F: Filesystem>(
    filesystem: F,
    mut from: impl Read + Send + 'static,
    to: impl Write + Send + 'static,
) -> io::Result<()> {
    // As with FUSE's device, what is read or written at once is one message.
    let (flags, kind) = (SocketFlags::CLOEXEC, SocketType::SEQPACKET);
    let (near, far) = socketpair(AddressFamily::UNIX, kind, flags, None)?;
    let requests = near.try_clone()?;
    let (tell, told) = channel();
    // Requests are taken when they come: were they left where they are while answers wait to be taken, each end could wait for the other.
    // Linux has few under way.
    let (come, coming) = channel();
    let tell_of_reading = tell.clone();
    thread::spawn(move || {
        let read = loop {
            match message(&mut from) {
                Ok(Some(request)) => {
                    if come.send(request).is_err() {
                        break Ok(());
                    }
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        // What has come is still answered.
        let _ = tell_of_reading.send(read);
    });
    thread::spawn(move || hand_over(&coming, &requests));
    thread::spawn(move || tell.send(pass_on(&near, to)));
    let session = Session::from_fd(filesystem, far, SessionACL::All, Config::default());
    // It fails when its socket ends; why that has ended was told before.
    session.and_then(Session::run).or_else(|error| told.recv_timeout(MOMENT).unwrap_or(Err(error)))
}

/// Gives the session what has come, and its end.
fn hand_over(coming: &Receiver<Vec<u8>>, to: &OwnedFd) {
    let mut all = coming.iter();
    // If the session has ended, it has said why.
    let _ = all.try_for_each(|request| send(to, &request, SendFlags::NOSIGNAL).map(drop));
    let _ = shutdown(to, Shutdown::Both);
}

/// Passes on what the session says.
fn pass_on(from: &OwnedFd, mut to: impl Write) -> io::Result<()> {
    let mut bytes = vec![0; MESSAGE_MAX];
    loop {
        let (count, _) = recv(from, &mut bytes[..], RecvFlags::empty())?;
        if count == 0 {
            return Ok(());
        }
        if let Err(error) = to.write_all(&bytes[..count]).and_then(|()| to.flush()) {
            let _ = shutdown(from, Shutdown::Both);
            return Err(error);
        }
    }
}
