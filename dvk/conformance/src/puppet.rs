// SPDX-License-Identifier: MIT OR Apache-2.0
//! Parties that are processes, so that they can be killed, interrupted and replaced.
//!
//! A puppet reads a command per line, says `begin` when it starts on it, and then how it went. It
//! leaves at the end of its input.

use crate::blocked::{until, until_process_sleeps};
use crate::lent::{noise, Lent, PAGE};
use crate::seen::{FOLDER, TABLES};
use anyhow::{bail, ensure, Context, Result};
use core::fmt;
use core::str::FromStr;
use dvk::{Control, DvsInit, Endpoint, Errno, Lease, Limits, Message, Port, Slot, Timeout};
use dvk_abi::ioctl::GRANT_READ;
use rustix::fd::AsFd;
use rustix::process::Pid;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::sync::Arc;

/// What a puppet can do. Calls wait for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Bind any slot of a container; done with the endpoint.
    Bind(u32),
    /// Send a message of kind 0.
    Send(Endpoint),
    /// Send a message of kind 0 and wait for the reply; done with the reply's kind.
    Sendrec(Endpoint),
    /// The same, over and over.
    Storm(Endpoint),
    /// Receive; done with the sender.
    Receive(Endpoint),
    /// Lend 4 MiB to an endpoint for reading; done with the grant's id.
    Lend(Endpoint),
    /// Catch SIGUSR1 from here on, with `SA_RESTART`.
    CatchSignals,
    /// Lay down all capabilities and try the control calls; done if each is `EPERM`.
    TryControl,
    /// Lay down all capabilities.
    LayDown,
    /// Open every table of the kernel; done with the number of the first error, or 0.
    TryTables,
    /// Become a new program, which is a puppet again and begins without an endpoint.
    Exec,
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind(container) => write!(f, "bind {container}"),
            Self::Send(to) => write!(f, "send {}", to.raw()),
            Self::Sendrec(to) => write!(f, "sendrec {}", to.raw()),
            Self::Storm(to) => write!(f, "storm {}", to.raw()),
            Self::Receive(from) => write!(f, "receive {}", from.raw()),
            Self::Lend(to) => write!(f, "lend {}", to.raw()),
            Self::CatchSignals => f.write_str("catch-signals 0"),
            Self::TryControl => f.write_str("try-control 0"),
            Self::LayDown => f.write_str("lay-down 0"),
            Self::TryTables => f.write_str("try-tables 0"),
            Self::Exec => f.write_str("exec 0"),
        }
    }
}

impl FromStr for Order {
    type Err = anyhow::Error;

    fn from_str(line: &str) -> Result<Self> {
        let (verb, argument) = line.split_once(' ').context("an order without argument")?;
        let argument: u64 = argument.parse()?;
        let endpoint = Endpoint::from_raw(argument);
        Ok(match verb {
            "bind" => Self::Bind(argument.try_into()?),
            "send" => Self::Send(endpoint),
            "sendrec" => Self::Sendrec(endpoint),
            "storm" => Self::Storm(endpoint),
            "receive" => Self::Receive(endpoint),
            "lend" => Self::Lend(endpoint),
            "catch-signals" => Self::CatchSignals,
            "try-control" => Self::TryControl,
            "lay-down" => Self::LayDown,
            "try-tables" => Self::TryTables,
            "exec" => Self::Exec,
            _ => bail!("no such order: {line}"),
        })
    }
}

/// How an order went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It succeeded, with this.
    Done(u64),
    /// The call failed.
    Failed(Errno),
}

impl Answer {
    /// What it succeeded with, if it did.
    pub(crate) fn value(self) -> Option<u64> {
        match self {
            Self::Done(value) => Some(value),
            Self::Failed(_) => None,
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done(value) => write!(f, "done {value}"),
            Self::Failed(errno) => write!(f, "failed {errno}"),
        }
    }
}

impl FromStr for Answer {
    type Err = anyhow::Error;

    fn from_str(line: &str) -> Result<Self> {
        match line.split_once(' ') {
            Some(("done", value)) => Ok(Self::Done(value.parse()?)),
            Some(("failed", name)) => {
                let errno = Errno::ALL.iter().find(|errno| errno.name() == name);
                Ok(Self::Failed(*errno.with_context(|| format!("no such error: {name}"))?))
            }
            _ => bail!("no answer: {line:?}"),
        }
    }
}

/// A puppet, seen by who pulls its strings. Dropping it kills it.
pub(crate) struct Puppet {
    process: Child,
    /// Gone once the puppet is dismissed.
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Puppet {
    /// Starts one.
    pub(crate) fn new() -> Result<Self> {
        Self::of_user(0)
    }

    /// Starts one that belongs to another user.
    pub(crate) fn of_user(user: u32) -> Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .uid(user)
            .gid(user)
            .args(["--role", "puppet"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start a puppet")?;
        let orders = process.stdin.take().context("a puppet without standard input")?;
        let answers = process.stdout.take().context("a puppet without standard output")?;
        Ok(Self { process, orders: Some(orders), answers: BufReader::new(answers) })
    }

    /// Starts one with an endpoint in `container`.
    pub(crate) fn bound(container: u32) -> Result<(Self, Endpoint)> {
        let mut puppet = Self::new()?;
        match puppet.obey(Order::Bind(container))? {
            Answer::Done(endpoint) => Ok((puppet, Endpoint::from_raw(endpoint))),
            Answer::Failed(errno) => bail!("a puppet cannot bind: {errno}"),
        }
    }

    /// Gives an order and returns when the puppet is about to do it.
    pub(crate) fn start(&mut self, order: Order) -> Result<()> {
        writeln!(self.orders.as_ref().context("a dismissed puppet")?, "{order}")?;
        let line = self.line()?;
        ensure!(line == "begin", "a puppet says {line:?} to {order}");
        Ok(())
    }

    /// Gives an order and returns when the puppet sleeps in the call.
    pub(crate) fn start_waiting(&mut self, order: Order) -> Result<()> {
        self.start(order)?;
        until_process_sleeps(self.process.id())
    }

    /// How the order given last went.
    pub(crate) fn answer(&mut self) -> Result<Answer> {
        self.line()?.parse()
    }

    /// Gives an order and says how it went.
    pub(crate) fn obey(&mut self, order: Order) -> Result<Answer> {
        self.start(order)?;
        self.answer()
    }

    /// Replaces the puppet's program, and with it its endpoint.
    pub(crate) fn exec(&mut self) -> Result<()> {
        self.start(Order::Exec)?;
        // The new program answers, so the old one's files are closed.
        let answer = self.obey(Order::CatchSignals)?;
        ensure!(answer == Answer::Done(0), "a puppet after exec: {answer}");
        Ok(())
    }

    /// Kills it and waits until it is gone.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.process.kill()?;
        until("a killed process to be gone", || Ok(self.process.try_wait()?.is_some()))
    }

    /// Lets it leave by itself and waits until it is gone.
    pub(crate) fn dismiss(mut self) -> Result<()> {
        self.orders = None;
        until("a process to leave", || Ok(self.process.try_wait()?.is_some()))
    }

    /// Its process.
    pub(crate) fn pid(&self) -> Result<Pid> {
        Pid::from_raw(self.process.id().cast_signed()).context("a puppet without id")
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        let length = self.answers.read_line(&mut line)?;
        ensure!(length > 0, "a puppet has died");
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Puppet {
    fn drop(&mut self) {
        // It may be gone already, and the runner kills what is left.
        let _ = self.process.kill();
    }
}

/// Starts a process that shares the endpoint `port` and serves one request with it.
pub(crate) fn share(port: &Port) -> Result<Child> {
    Command::new(std::env::current_exe()?)
        .args(["--role", "heir"])
        .stdin(port.as_fd().try_clone_to_owned()?)
        .spawn()
        .context("start a process that shares a port")
}

/// A request to the process of [`share`]: lend a page of noise, whose seed is the process's id, to
/// everybody. The answer's payload begins with the grant's id.
pub(crate) const LEND: u32 = 0x401;
/// A message to it: leave, without an answer.
pub(crate) const LEAVE: u32 = 0x402;

/// Is the other end of [`share`]: answers one request with its kind plus 1, or does what it is told.
pub(crate) fn inherit() -> Result<()> {
    let port = Port::from_fd(std::io::stdin().as_fd().try_clone_to_owned()?)?;
    let request = port.receive(Endpoint::ANY, Timeout::Forever)?;
    let mut reply = Message::new(request.message.kind + 1);
    if request.message.kind != LEND {
        port.reply(request.source(), &reply)?;
        return Ok(());
    }
    let lent = Lent::new(&port, 1, Endpoint::ANY, GRANT_READ)?;
    lent.arena.write(0, &noise(u64::from(std::process::id()), PAGE));
    reply.payload[..8].copy_from_slice(&lent.grant.raw().to_le_bytes());
    port.reply(request.source(), &reply)?;
    let leave = port.receive(request.source(), Timeout::Forever)?;
    ensure!(leave.message.kind == LEAVE, "told {:#x} instead of to leave", leave.message.kind);
    Ok(())
}

/// Is a puppet.
pub(crate) fn play() -> Result<()> {
    let mut port = None;
    for line in std::io::stdin().lines() {
        let order: Order = line?.parse()?;
        say("begin")?;
        let answer = match obey(&mut port, order)? {
            Ok(value) => Answer::Done(value),
            Err(error) => match error.errno() {
                Some(errno) => Answer::Failed(errno),
                None => return Err(error.into()),
            },
        };
        say(&answer.to_string())?;
    }
    Ok(())
}

fn obey(port: &mut Option<Port>, order: Order) -> Result<Result<u64, dvk::Error>> {
    if let Order::Bind(container) = order {
        return Ok(Port::bind(container, Slot::Any).map(|bound| {
            let endpoint = bound.endpoint().raw();
            *port = Some(bound);
            endpoint
        }));
    }
    let bound = || port.as_ref().context("a puppet without endpoint");
    Ok(match order {
        Order::Bind(_) => bail!("bind is handled above"),
        Order::Send(to) => bound()?.send(to, &Message::new(0), Timeout::Forever).map(|()| 0),
        Order::Sendrec(to) => {
            let reply = bound()?.sendrec(to, &Message::new(0), Timeout::Forever);
            reply.map(|reply| reply.kind.into())
        }
        Order::Storm(to) => loop {
            if let Err(error) = bound()?.sendrec(to, &Message::new(0), Timeout::Forever) {
                break Err(error);
            }
        },
        Order::Receive(from) => {
            let received = bound()?.receive(from, Timeout::Forever);
            received.map(|received| received.source().raw())
        }
        Order::Lend(to) => Ok(Lent::new(bound()?, 1024, to, GRANT_READ)?.grant.raw()),
        Order::CatchSignals => {
            let caught = Arc::new(AtomicBool::new(false));
            signal_hook::flag::register(signal_hook::consts::SIGUSR1, caught)?;
            Ok(0)
        }
        Order::TryControl => try_control()?,
        Order::LayDown => {
            lay_down()?;
            Ok(0)
        }
        Order::TryTables => Ok(try_tables()?),
        Order::Exec => {
            let error = Command::new(std::env::current_exe()?).args(["--role", "puppet"]).exec();
            return Err(error).context("exec");
        }
    })
}

/// Opens every table; returns why the first one fails that does, as the number of the error.
fn try_tables() -> Result<u64> {
    for name in TABLES {
        if let Err(error) = std::fs::File::open(Path::new(FOLDER).join(name)) {
            let errno = error.raw_os_error().context("open a table")?;
            return Ok(errno.try_into()?);
        }
    }
    Ok(0)
}

/// Lays down all capabilities.
fn lay_down() -> Result<()> {
    let none = rustix::thread::CapabilitySet::empty();
    let sets =
        rustix::thread::CapabilitySets { effective: none, permitted: none, inheritable: none };
    rustix::thread::set_capabilities(None, sets).context("lay down all capabilities")
}

fn try_control() -> Result<Result<u64, dvk::Error>> {
    let control = Control::open()?;
    lay_down()?;
    let tried = [
        control.dvs_init(&DvsInit { cluster: 1, node: 0, incarnation: 1 }),
        control.node_up(1, 1),
        control.node_down(1),
        control.dc_create(200, "forbidden", Limits::default()),
        control.dc_add_node(&Lease::default()),
        control.dc_remove_node(0, 1),
        control.link_detach(1),
        control.link_info(1).map(drop),
        control.endpoint_set_remote(0, Endpoint::from_raw(1 << 32), 1),
        control.dc_destroy(crate::dvs::OTHER),
        control.dvs_end(),
    ];
    for result in tried {
        match result {
            Err(error) if error.is(Errno::NotPermitted) => {}
            Err(error) => bail!("expected EPERM, got: {error}"),
            Ok(()) => bail!("a control call succeeded without capabilities"),
        }
    }
    Ok(Ok(0))
}

fn say(line: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}")?;
    Ok(stdout.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_read_as_written() {
        let peer = Endpoint::from_raw(0x1234_0000_0040);
        let orders = [
            Order::Bind(7),
            Order::Send(peer),
            Order::Sendrec(peer),
            Order::Storm(peer),
            Order::Receive(Endpoint::ANY),
            Order::Lend(peer),
            Order::CatchSignals,
            Order::TryControl,
            Order::LayDown,
            Order::TryTables,
            Order::Exec,
        ];
        for order in orders {
            assert_eq!(order.to_string().parse::<Order>().unwrap(), order);
        }
        assert!("dance 1".parse::<Order>().is_err() && "send".parse::<Order>().is_err());
    }

    #[test]
    fn answers_are_read_as_written() {
        for answer in [Answer::Done(u64::MAX), Answer::Failed(Errno::OwnerDead)] {
            assert_eq!(answer.to_string().parse::<Answer>().unwrap(), answer);
        }
        assert!("failed EWHAT".parse::<Answer>().is_err() && "".parse::<Answer>().is_err());
    }
}
