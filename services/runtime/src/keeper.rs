// SPDX-License-Identifier: MIT OR Apache-2.0
//! The process that looks after a container as long as it runs: it makes it, keeps its log, starts its command when asked, and
//! writes down how it ended. The container ends with it.

use std::fs;
use std::io::{self, BufReader, PipeReader};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{poll, PollFd, PollFlags};
use rustix::fs::{fchown, Gid, Uid};
use rustix::process::{pidfd_send_signal, wait, Pid, WaitOptions};

use crate::cgroup::Cgroup;
use crate::init::exit_status;
use crate::life::Life;
use crate::links;
use crate::output::Output;
use crate::place::{End, Phase, Place, Record};
use crate::spec::Spec;
use crate::stage::{again, Stage};
use crate::stats;
use crate::talk::{hear, say, Order, Report};

/// After this, a process that makes a container hangs. It is much longer than any machine takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What a container is made with.
struct Keeper {
    place: Place,
    cgroup: Cgroup,
    record: Record,
    /// The connection to the first process.
    orders: UnixStream,
    reports: BufReader<UnixStream>,
    output: Output,
    written: PipeReader,
    signals: SignalFd,
}

/// Makes the container `name`, says on standard output whether that went well, and looks after it to its end.
///
/// # Errors
/// When it cannot be made, which is said before.
pub(crate) fn keep(name: &str) -> Result<()> {
    let made = make(name);
    let report = match &made {
        Ok(_) => Report::Ready,
        Err(error) => Report::Fault(format!("{error:#}")),
    };
    let _ = say(&mut io::stdout(), &report);
    // Who asked for the container reads to the end.
    let null = fs::File::options().write(true).open("/dev/null").context("opening /dev/null")?;
    rustix::stdio::dup2_stdout(&null).context("closing standard output")?;
    let (mut keeper, listener) = made?;
    let end = keeper.look_after(&listener)?;
    keeper.record.phase = Phase::Stopped;
    keeper.record.end = Some(end);
    keeper.place.set_record(&keeper.record)
}

fn make(name: &str) -> Result<(Keeper, UnixListener)> {
    // Of what started it, nothing may end it: neither a terminal nor a signal to a group.
    rustix::process::setsid().context("beginning a session")?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .context("asking to be told of the end of the container")?;
    let place = Place::of(name)?;
    let spec = place.spec()?;
    let own = Life::of(std::process::id() as i32)?;
    let mut record = Record { phase: Phase::Creating, keeper: own, init: None, end: None };
    place.set_record(&record)?;

    let mut signals = SigSet::empty();
    signals.add(Signal::SIGCHLD);
    signals.thread_block().context("taking signals")?;
    let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .context("taking signals")?;
    let cgroup = Cgroup::of(name);
    let (written, pipe) = output_pipe(&spec)?;
    let (mut orders, theirs) = UnixStream::pair().context("connecting to the container")?;
    orders.set_read_timeout(Some(PATIENCE)).context("connecting to the container")?;
    let mut reports = BufReader::new(orders.try_clone().context("connecting to the container")?);
    let assembler = again(Stage::Assemble)
        .arg(name)
        .stdin(OwnedFd::from(theirs))
        .stdout(pipe.try_clone().context("starting the container")?)
        .stderr(pipe)
        .spawn()
        .context("starting the process that puts the container together")?;
    drop(assembler);
    let init = match expect(&mut reports, "putting the container together")? {
        Report::Born(pid) => Life::of(pid)?,
        other => bail!("putting the container together: it said {other:?} first"),
    };
    record.init = Some(init);
    place.set_record(&record)?;
    if let Some(network) = &spec.network {
        links::make(network, init.pid.unsigned_abs())?;
    }
    say(&mut orders, &Order::Be(Box::new(spec)))?;
    match expect(&mut reports, "setting the container up")? {
        Report::Ready => {}
        other => bail!("setting the container up: it said {other:?} then"),
    }
    let socket = place.socket();
    let listener = UnixListener::bind(&socket)
        .with_context(|| format!("listening at {}", socket.display()))?;
    record.phase = Phase::Created;
    place.set_record(&record)?;
    let output = Output::create(place.log())?;
    let keeper = Keeper { place, cgroup, record, orders, reports, output, written, signals };
    Ok((keeper, listener))
}

/// A pipe for what the command writes. It belongs to the command's user, who could not open `/dev/stdout` otherwise.
fn output_pipe(spec: &Spec) -> Result<(PipeReader, OwnedFd)> {
    let (reader, writer) = io::pipe().context("making a pipe for what the container writes")?;
    let user = spec.process.user;
    let (uid, gid) = (spec.ids.first + user.uid, spec.ids.first + user.gid);
    fchown(&writer, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
        .context("giving a pipe to the container")?;
    Ok((reader, writer.into()))
}

/// The next report, unless it is of a fault.
fn expect(reports: &mut BufReader<UnixStream>, doing: &str) -> Result<Report> {
    match hear(reports).with_context(|| doing.to_owned())? {
        Some(Report::Fault(why)) => bail!("{doing}: {why}"),
        Some(report) => Ok(report),
        None => bail!("{doing}: its process ended without a word"),
    }
}

impl Keeper {
    /// Until the first process ends.
    fn look_after(&mut self, listener: &UnixListener) -> Result<End> {
        let init = self.record.init.context("looking after a container without a process")?.pid;
        let mut open = true;
        loop {
            let mut ready = vec![
                PollFd::new(&self.signals, PollFlags::IN),
                PollFd::new(listener, PollFlags::IN),
            ];
            if open {
                ready.push(PollFd::new(&self.written, PollFlags::IN));
            }
            match poll(&mut ready, None) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error).context("looking after a container"),
            }
            let ready: Vec<_> =
                ready.iter().map(|descriptor| !descriptor.revents().is_empty()).collect();
            if ready.get(2) == Some(&true) {
                open = self.output.take(&mut self.written)?;
            }
            if ready[1] {
                self.answer(listener);
            }
            if ready[0] {
                while self.signals.read_signal().context("taking a signal")?.is_some() {}
                if let Some(status) = reap(init) {
                    return self.end(status);
                }
            }
        }
    }

    /// The last of the log, and how it ended.
    fn end(&mut self, status: i32) -> Result<End> {
        // All who could write have ended, but for commands that were run in the container from outside and have other outputs.
        rustix::io::ioctl_fionbio(&self.written, true).context("reading the end of the log")?;
        while self.output.take(&mut self.written)? {}
        let events = self.cgroup.read("memory.events")?.unwrap_or_default();
        Ok(End { status, out_of_memory: stats::field(&events, "oom_kill").unwrap_or(0) })
    }

    /// Does what one client asks. That a client does not wait for its answer is its own affair.
    fn answer(&mut self, listener: &UnixListener) {
        let Ok((mut client, _)) = listener.accept() else { return };
        let report = match self.start(&client) {
            Ok(()) => Report::Started,
            Err(error) => Report::Fault(format!("{error:#}")),
        };
        let _ = say(&mut client, &report);
    }

    fn start(&mut self, client: &UnixStream) -> Result<()> {
        client.set_read_timeout(Some(Duration::from_secs(5))).context("listening to a client")?;
        let mut client = BufReader::new(client);
        let Some(Order::Start) = hear(&mut client)? else {
            bail!("starting the command: that was not what was asked for");
        };
        ensure!(
            self.record.phase == Phase::Created,
            "starting the command: it has been started before"
        );
        say(&mut self.orders, &Order::Start)?;
        let report = expect(&mut self.reports, "starting the command")?;
        ensure!(
            matches!(report, Report::Started),
            "starting the command: the answer was {report:?}"
        );
        self.record.phase = Phase::Running;
        self.place.set_record(&self.record)
    }
}

/// Waits for all that have ended, and says how the first process of the container did if it is among them.
fn reap(init: i32) -> Option<i32> {
    let mut ended = None;
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        if Pid::as_raw(Some(pid)) == init {
            ended = Some(exit_status(status));
        }
    }
    ended
}

/// Starts a keeper for the container `name` and waits until it has made it.
///
/// # Errors
/// When the container cannot be made.
pub(crate) fn start(name: &str) -> Result<()> {
    let mut keeper = again(Stage::Keep)
        .arg(name)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("starting the keeper of the container")?;
    let stdout = keeper.stdout.take().context("listening to the keeper")?;
    match hear(&mut BufReader::new(stdout)).context("making the container")? {
        Some(Report::Ready) => Ok(()),
        Some(Report::Fault(why)) => bail!("making the container {name}: {why}"),
        other => bail!("making the container {name}: its keeper said {other:?}"),
    }
}

/// Asks the keeper of a container to start its command.
///
/// # Errors
/// When it does not run, or the command cannot be started.
pub(crate) fn ask_to_start(place: &Place) -> Result<()> {
    let socket = place.socket();
    let mut keeper = UnixStream::connect(&socket)
        .with_context(|| format!("asking the container's keeper at {}", socket.display()))?;
    keeper.set_read_timeout(Some(PATIENCE)).context("asking the container's keeper")?;
    say(&mut keeper, &Order::Start)?;
    match hear(&mut BufReader::new(keeper))? {
        Some(Report::Started) => Ok(()),
        Some(Report::Fault(why)) => bail!("{why}"),
        other => bail!("asking the container's keeper: it answered {other:?}"),
    }
}

/// Ends a keeper that a container is removed from, and waits for that.
///
/// # Errors
/// When it stays.
pub(crate) fn dismiss(keeper: Life, limit: Duration) -> Result<()> {
    let Some(handle) = keeper.open()? else { return Ok(()) };
    if !ends_within(&handle, limit)? {
        pidfd_send_signal(&handle, rustix::process::Signal::KILL).context("ending the keeper")?;
        ensure!(ends_within(&handle, limit)?, "ending the keeper {}: it stays", keeper.pid);
    }
    Ok(())
}

fn ends_within(handle: &impl AsFd, limit: Duration) -> Result<bool> {
    let limit = limit.try_into().context("waiting for the keeper to end")?;
    let mut ended = [PollFd::new(handle, PollFlags::IN)];
    let count = poll(&mut ended, Some(&limit)).context("waiting for the keeper to end")?;
    Ok(count > 0)
}
