// SPDX-License-Identifier: MIT OR Apache-2.0
//! A process that goes into a running container and becomes a command there. Who starts it is in the container's PID namespace for
//! its children already, so this process exists no longer than the container.

use std::fs::File;
use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use dvs_exec::{Request, Size};
use nix::sched::{setns, CloneFlags};
use nix::sys::signal::SigSet;
use rustix::fs::{fchown, fstat, FileType, Gid, Uid};
use rustix::net::{sendmsg, SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use rustix::process::{ioctl_tiocsctty, set_parent_process_death_signal, setsid, Signal};
use rustix::pty::{grantpt, ioctl_tiocgptpeer, openpt, unlockpt, OpenptFlags};
use rustix::termios::{tcsetwinsize, Winsize};

use crate::cgroup::Cgroup;
use crate::ids;
use crate::init::environment;
use crate::inside;
use crate::place::Place;
use crate::spec::{Ids, Spec};

/// By the convention of shells and of other runtimes: the command was not run for another reason, could not be, or was not found.
pub(crate) const FAILED: u8 = 125;
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;

/// The container's namespaces besides that of users, which is entered last: with it go the rights to enter the others.
const NAMESPACES: [(&str, CloneFlags); 5] = [
    ("cgroup", CloneFlags::CLONE_NEWCGROUP),
    ("ipc", CloneFlags::CLONE_NEWIPC),
    ("uts", CloneFlags::CLONE_NEWUTS),
    ("net", CloneFlags::CLONE_NEWNET),
    ("mnt", CloneFlags::CLONE_NEWNS),
];

/// Becomes the command of `request`. With a terminal, standard input is a socket that takes the terminal's other end. Returns
/// only if that fails.
pub(crate) fn enter(name: &str, request: &Request) -> ExitCode {
    let spec = match prepare(name, request) {
        Ok(spec) => spec,
        Err(error) => return fault(FAILED, &format!("{error:#}")),
    };
    let Some((program, arguments)) = request.command.split_first() else {
        return fault(FAILED, "running a command: none is given");
    };
    // A program inherits which signals are blocked, and some are by who started this one.
    if let Err(error) = SigSet::empty().thread_set_mask() {
        return fault(FAILED, &format!("letting the command take signals: {error}"));
    }
    let error = command(&spec, request, program, arguments).exec();
    let status = if error.kind() == ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTABLE };
    fault(status, &format!("running {program} in the container {name}: {error}"))
}

fn fault(status: u8, why: &str) -> ExitCode {
    eprintln!("error: {why}");
    ExitCode::from(status)
}

fn command(spec: &Spec, request: &Request, program: &str, arguments: &[String]) -> Command {
    let mut command = Command::new(program);
    let directory = request.directory.as_deref().or(spec.process.directory.as_deref());
    command
        .args(arguments)
        .env_clear()
        .envs(environment(spec))
        .envs(&request.environment)
        .current_dir(directory.unwrap_or("/"));
    command
}

fn prepare(name: &str, request: &Request) -> Result<Spec> {
    let place = Place::of(name)?;
    let spec = place.spec()?;
    let init = place.record()?.init.context("entering the container: it has no process")?;
    // All of these are of the node, so they are opened before anything of the container is entered.
    let open = |kind: &str| -> Result<OwnedFd> {
        let path = format!("/proc/{}/ns/{kind}", init.pid);
        Ok(File::open(&path).with_context(|| format!("opening {path}"))?.into())
    };
    let users = open("user")?;
    let others: Result<Vec<_>> =
        NAMESPACES.iter().map(|&(kind, flag)| Ok((kind, flag, open(kind)?))).collect();
    let user = request.user.unwrap_or(spec.process.user);
    if request.terminal.is_none() {
        give_pipes(spec.ids, user.uid, user.gid)?;
    }
    Cgroup::of(name).enter()?;
    for (kind, flag, namespace) in others? {
        setns(namespace, flag)
            .with_context(|| format!("entering the container's {kind} namespace"))?;
    }
    ids::enter(users)?;
    crate::capability::bound(&spec.capabilities)?;
    ids::become_user(user).with_context(|| format!("becoming {}:{}", user.uid, user.gid))?;
    if let Some(size) = request.terminal {
        terminal(size)?;
    }
    let kept: &[_] = if user.uid == 0 { &spec.capabilities } else { &[] };
    inside::lock_down(&spec, kept)?;
    // The change of users would have undone this, had it been said before. A parent that has ended by now goes unnoticed: then the
    // command ends with the container.
    set_parent_process_death_signal(Some(Signal::KILL)).context("asking to end with the parent")?;
    Ok(spec)
}

/// Pipes that a command was given belong to the node's root; their new user could not open `/dev/stdout` and the like.
fn give_pipes(ids: Ids, uid: u32, gid: u32) -> Result<()> {
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    for stream in [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()] {
        let Ok(stat) = fstat(stream) else { continue };
        if FileType::from_raw_mode(stat.st_mode) == FileType::Fifo {
            let (uid, gid) = (Uid::from_raw(ids.first + uid), Gid::from_raw(ids.first + gid));
            fchown(stream, Some(uid), Some(gid)).context("giving a pipe to the container")?;
        }
    }
    Ok(())
}

/// Makes a terminal in the container, sends its other end away through standard input, and takes it for all three streams.
fn terminal(size: Size) -> Result<()> {
    let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = openpt(flags).context("making a terminal in the container")?;
    grantpt(&master).and_then(|()| unlockpt(&master)).context("making a terminal")?;
    let own = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY)
        .context("opening the terminal")?;
    tcsetwinsize(&own, size).context("setting the size of the terminal")?;
    let descriptors = [master.as_fd()];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut message = SendAncillaryBuffer::new(&mut space);
    message.push(SendAncillaryMessage::ScmRights(&descriptors));
    sendmsg(io::stdin(), &[IoSlice::new(b"+")], &mut message, SendFlags::empty())
        .context("sending the terminal's other end")?;
    setsid().context("beginning a session")?;
    ioctl_tiocsctty(&own).context("taking the terminal")?;
    rustix::stdio::dup2_stdin(&own)
        .and_then(|()| rustix::stdio::dup2_stdout(&own))
        .and_then(|()| rustix::stdio::dup2_stderr(&own))
        .context("taking the terminal for input and output")
}
