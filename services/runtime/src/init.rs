// SPDX-License-Identifier: MIT OR Apache-2.0
//! The first process in a container: sets it up, runs its command, passes on signals, and waits for orphans, which commands
//! do not do that were not written to be a first process. When it ends, the kernel ends all others of the container.

use std::io::{self, BufReader};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{self, Command, Stdio};

use anyhow::{bail, Context, Result};
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{poll, PollFd, PollFlags};
use rustix::process::{kill_process, wait, Pid, WaitOptions, WaitStatus};

use crate::capability::Capability;
use crate::inside;
use crate::place::Place;
use crate::rootfs;
use crate::spec::Spec;
use crate::talk::{hear, say, Order, Report};

/// What this process itself needs: to start the command as its user, and to pass signals on to it.
const OWN: [Capability; 3] = [Capability::Kill, Capability::Setgid, Capability::Setuid];

/// Signals that are passed on to the command.
pub(crate) const PASSED_ON: [Signal; 7] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
];

/// Is the first process, to its end. Standard input is the connection to the keeper.
///
/// # Errors
/// When the keeper is gone, or nobody listens; what goes wrong with the container is told to the keeper.
pub(crate) fn be() -> Result<()> {
    let socket = io::stdin().as_fd().try_clone_to_owned().context("listening to the keeper")?;
    let mut socket = UnixStream::from(socket);
    let mut orders = BufReader::new(socket.try_clone().context("listening to the keeper")?);
    let Some(Order::Be(spec)) = hear(&mut orders)? else {
        bail!("being a container: the keeper did not say which");
    };
    match run(&spec, &mut socket, &mut orders) {
        Ok(status) => process::exit(status),
        Err(error) => {
            say(&mut socket, &Report::Fault(format!("{error:#}")))?;
            Err(error)
        }
    }
}

fn run(spec: &Spec, socket: &mut UnixStream, orders: &mut BufReader<UnixStream>) -> Result<i32> {
    let root = rootfs::Stage::at(Place::of(&spec.name)?.stage()).root();
    inside::set_up(spec, &root)?;
    rustix::process::setsid().context("beginning a session")?;
    let mut signals: SigSet = PASSED_ON.into_iter().collect();
    signals.add(Signal::SIGCHLD);
    signals.thread_block().context("taking signals")?;
    let signals =
        SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC).context("taking signals")?;
    let kept: Vec<_> = spec.capabilities.iter().copied().chain(OWN).collect();
    inside::lock_down(spec, &kept)?;
    say(socket, &Report::Ready)?;

    let mut command = None;
    loop {
        let mut ready =
            [PollFd::new(&signals, PollFlags::IN), PollFd::new(&*socket, PollFlags::IN)];
        match poll(&mut ready, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error).context("waiting for signals and orders"),
        }
        let [signalled, ordered] = ready.map(|descriptor| !descriptor.revents().is_empty());
        if signalled {
            let info = signals.read_signal().context("taking a signal")?;
            let number = info.map_or(0, |info| info.ssi_signo as i32);
            if number == Signal::SIGCHLD as i32 {
                if let Some(status) = reap(command) {
                    return Ok(status);
                }
            } else if let Some(command) = command {
                pass_on(command, number);
            } else if ends_idleness(number) {
                return Ok(0);
            }
        }
        if ordered {
            match hear(orders)? {
                Some(Order::Start) => {
                    command = start(spec)?;
                    say(socket, &Report::Started)?;
                    // What ended while no signals were taken is not told again.
                    if let Some(status) = reap(command) {
                        return Ok(status);
                    }
                }
                Some(Order::Be(_)) => bail!("being a container: it is one already"),
                None => bail!("being a container: its keeper is gone"),
            }
        }
    }
}

/// Starts the command, if there is one.
fn start(spec: &Spec) -> Result<Option<Pid>> {
    let Some((program, arguments)) = spec.process.command.split_first() else { return Ok(None) };
    let user = spec.process.user;
    // A program inherits which signals are blocked. In the meantime, the kernel passes over those to the first process of a container.
    let blocked = SigSet::empty()
        .thread_swap_mask(SigmaskHow::SIG_SETMASK)
        .context("letting the command take signals")?;
    let child = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(environment(spec))
        .current_dir(spec.process.directory.as_deref().unwrap_or("/"))
        .uid(user.uid)
        .gid(user.gid)
        .stdin(Stdio::null())
        // So that a signal to the group of this process does not reach the command twice.
        .process_group(0)
        .spawn();
    blocked.thread_set_mask().context("taking signals")?;
    let child = child.with_context(|| format!("running {program} in the container"))?;
    Ok(Some(Pid::from_child(&child)))
}

/// What a command finds in its environment.
pub(crate) fn environment(spec: &Spec) -> Vec<(String, String)> {
    let home = if spec.process.user.uid == 0 { "/root" } else { "/" };
    let defaults =
        [("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"), ("HOME", home)];
    let missing =
        defaults.into_iter().filter(|(name, _)| !spec.process.environment.contains_key(*name));
    let given = spec.process.environment.iter().map(|(name, value)| (name.clone(), value.clone()));
    missing.map(|(name, value)| (name.to_owned(), value.to_owned())).chain(given).collect()
}

/// Waits for all that have ended, and says how the command did if it is among them.
fn reap(command: Option<Pid>) -> Option<i32> {
    let mut ended = None;
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        if Some(pid) == command {
            ended = Some(exit_status(status));
        }
    }
    ended
}

/// The exit status by the convention of shells.
pub(crate) fn exit_status(status: WaitStatus) -> i32 {
    status
        .exit_status()
        .or_else(|| status.terminating_signal().map(|signal| 128 + signal))
        .unwrap_or(255)
}

fn pass_on(command: Pid, number: i32) {
    if let Some(signal) = rustix::process::Signal::from_named_raw(number) {
        // It may have ended, which is seen next.
        let _ = kill_process(command, signal);
    }
}

fn ends_idleness(number: i32) -> bool {
    number == Signal::SIGTERM as i32 || number == Signal::SIGINT as i32
}
