// SPDX-License-Identifier: MIT OR Apache-2.0
//! Processes with less rights than a case has, and those that share an endpoint with it.
//!
//! A puppet reads an order per line and says how it went. It leaves at the end of its input.

use crate::lent::{noise, Lent, PAGE};
use crate::seen::{FOLDER, TABLES};
use anyhow::{bail, ensure, Context, Result};
use dvk::{Control, DvsInit, Endpoint, Errno, Lease, Limits, Message, Port, Timeout};
use dvk_abi::ioctl::GRANT_READ;
use rustix::fd::AsFd;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// What a puppet can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Lay down all capabilities and try the control calls, each of which must be `EPERM`.
    TryControl,
    /// Lay down all capabilities.
    LayDown,
    /// Open every table of the kernel; the answer is the number of the first error, or 0.
    TryTables,
}

const ORDERS: [(Order, &str); 3] = [
    (Order::TryControl, "try-control"),
    (Order::LayDown, "lay-down"),
    (Order::TryTables, "try-tables"),
];

/// A puppet, seen by who pulls its strings. Dropping it kills it.
pub(crate) struct Puppet {
    process: Child,
    orders: ChildStdin,
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
        Ok(Self { process, orders, answers: BufReader::new(answers) })
    }

    /// Gives an order and says what came of it.
    pub(crate) fn obey(&mut self, order: Order) -> Result<u64> {
        let name = ORDERS.iter().find(|(known, _)| *known == order).map(|(_, name)| *name);
        writeln!(self.orders, "{}", name.context("an order without a name")?)?;
        let mut line = String::new();
        let length = self.answers.read_line(&mut line)?;
        ensure!(length > 0, "a puppet has died");
        line.trim_end().parse().with_context(|| format!("a puppet says {line:?}"))
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
    for line in std::io::stdin().lines() {
        let line = line?;
        let order = ORDERS.iter().find(|(_, name)| *name == line).map(|(order, _)| *order);
        let answer = match order.with_context(|| format!("no such order: {line}"))? {
            Order::TryControl => try_control().map(|()| 0)?,
            Order::LayDown => lay_down().map(|()| 0)?,
            Order::TryTables => try_tables()?,
        };
        println!("{answer}");
    }
    Ok(())
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

fn try_control() -> Result<()> {
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
    Ok(())
}
