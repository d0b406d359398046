// SPDX-License-Identifier: MIT OR Apache-2.0
//! A directory of this machine where Linux asks somebody else for files, by FUSE: what it asks and what it is answered are passed on as
//! they are.

use std::ffi::CString;
use std::fs;
use std::io::{self, ErrorKind, IoSliceMut, PipeReader, PipeWriter, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread;

use rustix::io::Errno;
use rustix::mount::{mount, unmount, MountFlags, UnmountFlags};
use rustix::net::{recvmsg, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use rustix::process::{getgid, getuid};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use vos_transfer::{message, MESSAGE_MAX};

use crate::Failure;

/// Linux's side of FUSE.
const DEVICE: &str = "/dev/fuse";
/// What mounts for those who are not root.
const HELPER: &str = "fusermount3";
/// Where an answer has its errno, 0 or negative.
const ERROR: std::ops::Range<usize> = 4..8;

fn refused(at: &Path, why: &dyn std::fmt::Display) -> Failure {
    Failure::Refused(format!("cannot mount on {}: {why}", at.display()))
}

/// The whole path of a directory in which nothing is.
///
/// # Errors
/// When it is none.
pub(crate) fn empty_directory(at: &Path) -> Result<PathBuf, Failure> {
    let whole = at.canonicalize().map_err(|error| refused(at, &error))?;
    let mut inside = match fs::read_dir(&whole) {
        Err(error) if error.kind() == ErrorKind::NotADirectory => {
            return Err(refused(at, &"it is no directory"));
        }
        read => read.map_err(|error| refused(at, &error))?,
    };
    match inside.next() {
        None => Ok(whole),
        Some(_) => Err(refused(at, &"it is not empty, and what is in it would be hidden")),
    }
}

/// A mounted file system, which is unmounted when this is dropped.
pub(crate) struct Mounted(Arc<Inner>);

struct Inner {
    at: PathBuf,
    device: OwnedFd,
    /// Whether the helper has mounted it, and has to unmount it.
    by_helper: bool,
    /// Whether Linux asks no more, since it is unmounted.
    is_over: AtomicBool,
}

impl Mounted {
    /// Mounts on a directory. Whoever touches that waits until requests are answered.
    ///
    /// # Errors
    /// When Linux does not.
    pub(crate) fn new(at: &Path, name: &str, read_only: bool) -> Result<Self, Failure> {
        let (device, by_helper) = match by_ourselves(at, name, read_only)? {
            Some(device) => (device, false),
            None => (by_helper(at, name, read_only)?, true),
        };
        let is_over = AtomicBool::new(false);
        Ok(Self(Arc::new(Inner { at: at.to_owned(), device, by_helper, is_over })))
    }

    /// Whether it is unmounted.
    pub(crate) fn is_over(&self) -> bool {
        self.0.is_over.load(Ordering::Acquire)
    }

    /// Has `tunnel` carry requests and answers, and says what it has come to. `ready` is printed when the first request is answered. Signals
    /// that end programs unmount.
    ///
    /// # Errors
    /// When there is nothing to carry them by.
    pub(crate) fn serve<T>(
        &self,
        ready: &str,
        tunnel: impl FnOnce(PipeReader, &mut dyn Write) -> T,
    ) -> Result<T, Failure> {
        let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM])
            .map_err(|error| refused(&self.0.at, &format!("taking signals: {error}")))?;
        let (requests, requesting) = io::pipe()?;
        let (answers, mut answering) = io::pipe()?;
        let inner = Arc::clone(&self.0);
        thread::spawn(move || inner.ask(requesting));
        let (inner, ready) = (Arc::clone(&self.0), ready.to_owned());
        thread::spawn(move || inner.tell(answers, &ready));
        let inner = Arc::clone(&self.0);
        thread::spawn(move || {
            let mut all = signals.forever();
            if all.next().is_some() {
                inner.end();
            }
            if all.next().is_some() {
                // It is out of sight already. Linux ends what is under way when this program is gone.
                std::process::exit(1);
            }
        });
        Ok(tunnel(requests, &mut answering))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if !self.is_over() {
            // Who still uses it gets errors from now on.
            let _ = self.0.unmount(UnmountFlags::DETACH);
        }
    }
}

impl Inner {
    /// Passes on what Linux asks, until it asks no more.
    fn ask(&self, mut to: PipeWriter) {
        let mut bytes = vec![0; MESSAGE_MAX];
        loop {
            match rustix::io::read(&self.device, &mut bytes[..]) {
                Ok(count) => {
                    if to.write_all(&bytes[..count]).is_err() {
                        // Nobody answers any more, which is an error there.
                        return;
                    }
                }
                // A request that was given up meanwhile.
                Err(Errno::NOENT | Errno::INTR | Errno::AGAIN) => {}
                Err(_) => break self.is_over.store(true, Ordering::Release),
            }
        }
    }

    /// Gives Linux the answers.
    fn tell(&self, mut from: PipeReader, ready: &str) {
        let mut is_ready = false;
        while let Ok(Some(answer)) = message(&mut from) {
            match rustix::io::write(&self.device, &answer) {
                Ok(_) if !is_ready && answer.get(ERROR) == Some(&[0; 4]) => {
                    is_ready = true;
                    // Whoever does not want to know can still use it.
                    let mut out = io::stdout().lock();
                    let _ = writeln!(out, "{ready}").and_then(|()| out.flush());
                }
                // Nobody waits for it any more.
                Ok(_) | Err(Errno::NOENT | Errno::NODEV) => {}
                // It is none. Whoever carries them finds that nobody takes more.
                Err(_) => return,
            }
        }
    }

    /// Unmounts, if not at once, then when nobody uses it any more.
    fn end(&self) {
        let at = self.at.display();
        match self.unmount(UnmountFlags::empty()) {
            Ok(()) => {}
            Err(_) => match self.unmount(UnmountFlags::DETACH) {
                Ok(()) => {
                    eprintln!("{at} is in use, and is unmounted when nobody uses it any more")
                }
                Err(error) => eprintln!("cannot unmount {at}: {error}"),
            },
        }
    }

    fn unmount(&self, flags: UnmountFlags) -> Result<(), String> {
        if !self.by_helper {
            return unmount(&self.at, flags).map_err(|error| error.to_string());
        }
        let lazily = flags.contains(UnmountFlags::DETACH).then_some("-z");
        let mut helper = Command::new(HELPER);
        helper.arg("-u").args(lazily).arg("--").arg(&self.at).stdin(Stdio::null());
        let ended = helper.output().map_err(|error| error.to_string())?;
        match ended.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&ended.stderr).trim().to_owned()),
        }
    }
}

/// Mounts by ourselves, if we may.
fn by_ourselves(at: &Path, name: &str, read_only: bool) -> Result<Option<OwnedFd>, Failure> {
    let device = match fs::OpenOptions::new().read(true).write(true).open(DEVICE) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(refused(
                at,
                &format!("there is no {DEVICE}; `modprobe fuse` may bring it"),
            ));
        }
        opened => opened.map_err(|error| refused(at, &format!("{DEVICE}: {error}")))?,
    };
    let (fd, user, group) = (device.as_raw_fd(), getuid().as_raw(), getgid().as_raw());
    let data = format!(
        "fd={fd},rootmode=40000,user_id={user},group_id={group},default_permissions,allow_other"
    );
    let data = CString::new(data).map_err(|error| refused(at, &error))?;
    // Nothing that a file system of somebody else has gets power over this machine.
    let mut flags = MountFlags::NOSUID | MountFlags::NODEV;
    flags.set(MountFlags::RDONLY, read_only);
    match mount(name, at, "fuse.dvs", flags, Some(data.as_c_str())) {
        Ok(()) => Ok(Some(device.into())),
        Err(Errno::PERM) => Ok(None),
        Err(error) => Err(refused(at, &error)),
    }
}

/// Mounts by the helper, which gives the device over a socket: its standard input, since that is what it can be given.
fn by_helper(at: &Path, name: &str, read_only: bool) -> Result<OwnedFd, Failure> {
    let (ours, theirs) = UnixStream::pair()?;
    let changes = if read_only { "ro" } else { "rw" };
    let options = format!("{changes},default_permissions,nosuid,nodev,subtype=dvs,fsname={name}");
    // What is not here any more when the helper ends keeps nobody waiting.
    let started = Command::new(HELPER)
        .args(["-o", &options, "--"])
        .arg(at)
        .env("_FUSE_COMMFD", "0")
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let helper = match started {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let why = format!("it takes root, or the program {HELPER} (package fuse3)");
            return Err(refused(at, &why));
        }
        started => started.map_err(|error| refused(at, &format!("{HELPER}: {error}")))?,
    };
    let device = received(&ours);
    let ended = helper.wait_with_output()?;
    match device {
        Ok(Some(device)) if ended.status.success() => Ok(device),
        Err(error) if ended.status.success() => Err(refused(at, &format!("{HELPER}: {error}"))),
        _ => {
            let said = String::from_utf8_lossy(&ended.stderr);
            let said = said.trim();
            Err(refused(at, &format!("{HELPER}: {}", said.trim_start_matches("fusermount3: "))))
        }
    }
}

/// The open file that comes over a socket, if one does.
fn received(from: impl AsFd) -> io::Result<Option<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let mut parts = [IoSliceMut::new(&mut byte)];
    recvmsg(from, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut files = control.drain().filter_map(|one| match one {
        RecvAncillaryMessage::ScmRights(mut files) => files.next(),
        _ => None,
    });
    Ok(files.next())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(at: &Path) -> String {
        empty_directory(at).unwrap_err().to_string()
    }

    #[test]
    fn only_an_empty_directory_is_mounted_on() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(empty_directory(folder.path()).unwrap(), folder.path().canonicalize().unwrap());
        let file = folder.path().join("file");
        assert!(refusal(&file).contains("No such file"), "{}", refusal(&file));
        fs::write(&file, "").unwrap();
        assert!(refusal(&file).ends_with("it is no directory"), "{}", refusal(&file));
        assert!(refusal(folder.path()).contains("it is not empty"), "{}", refusal(folder.path()));
    }

    #[test]
    fn a_file_that_was_sent_is_received() {
        use rustix::net::{sendmsg, SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (mut reader, writer) = io::pipe().unwrap();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let files = [writer.as_fd()];
        assert!(control.push(SendAncillaryMessage::ScmRights(&files)));
        let parts = [io::IoSlice::new(b"x")];
        sendmsg(&theirs, &parts, &mut control, SendFlags::empty()).unwrap();
        let file = received(&ours).unwrap().unwrap();
        rustix::io::write(&file, b"through").unwrap();
        drop((file, writer, theirs));
        assert_eq!(io::read_to_string(&mut reader).unwrap(), "through");
        assert!(received(&ours).unwrap().is_none(), "there is no other one");
    }
}
