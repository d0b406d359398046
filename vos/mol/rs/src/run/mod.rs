// SPDX-License-Identifier: MIT OR Apache-2.0
//! The reincarnation server as a process.
//!
//! The first thread has the supervisor and the processes, and waits for nothing but events: it ends processes in time whatever the
//! services do. Others have an endpoint each: the `keeper` keeps the lease alive, the `clerk` stands for election, reads the keys and tells how
//! the servers are, and the `watch` says when keys change.

mod clerk;
mod keeper;
mod log;
mod processes;
mod watch;

pub use self::processes::enter;

use self::clerk::Order;
use self::log::Log;
use self::processes::{Processes, EARLY};
use crate::board::Board;
use crate::error::Error;
use crate::supervisor::{Action, Event, Supervisor, Time};
use core::time::Duration;
use dvk::{Port, Slot, Timeout};
use dvk_services::{Client, Direct};
use std::path::Path;
use std::sync::mpsc::{channel, RecvTimeoutError, Sender};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// How often the supervisor is told that time has passed.
const TICK: Duration = Duration::from_millis(50);
/// How long a thread waits after the services have failed.
const PAUSE: Duration = Duration::from_millis(200);
/// How long this program waits at its end until all is written that was said.
const LAST: Duration = Duration::from_millis(500);

/// What the first thread is told.
#[derive(Debug)]
enum News {
    /// For the supervisor.
    Event(Event),
    /// Processes may have ended.
    Child,
    /// A thread cannot go on.
    Failed(Error),
}

/// Starts a thread.
fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    let started = std::thread::Builder::new().name(name.to_owned()).spawn(work);
    started.map(drop).map_err(|error| Error::Machine { what: "start a thread", error })
}

/// The services of a node, by a port.
fn client(port: &Port) -> Result<Client<Direct<'_>>, Error> {
    Client::find(port, Timeout::Forever)
        .map_err(crate::error::services("find the container's services"))
}

/// Whether the services have to be found again.
fn is_unreachable(error: &Error) -> bool {
    matches!(error, Error::Services { error: dvk_services::Error::Ipc(_), .. })
}

/// The keys as a thread reaches them, by its port, and what it has complained of.
struct Reach<'p> {
    port: &'p Port,
    board: Board<Direct<'p>>,
    log: Log,
    told: String,
}

impl<'p> Reach<'p> {
    fn new(port: &'p Port, log: Log) -> Result<Self, Error> {
        Ok(Self { port, board: Board::new(client(port)?), log, told: String::new() })
    }

    /// Something has succeeded: what fails after that is said even if it was said before.
    fn is_well(&mut self) {
        self.told.clear();
    }

    /// Says what has failed unless that was said last, and waits before the next try. Services that cannot be reached are found again.
    fn recover(&mut self, error: &Error) -> Result<(), Error> {
        let text = error.to_string();
        if text != self.told {
            self.log.say(&text);
            self.told = text;
        }
        std::thread::sleep(PAUSE);
        if is_unreachable(error) {
            self.board = Board::new(client(self.port)?);
        }
        Ok(())
    }
}

/// Runs servers until it is told to end.
///
/// # Errors
/// [`Error`].
pub fn run(dvk: &Path) -> Result<(), Error> {
    let origin = Instant::now();
    let port = Port::open(dvk, Slot::Any)?;
    let node = port.info()?.node;
    let log = Log::start()?;
    let (news, inbox) = channel();
    processes::watch_signals(news.clone())?;
    let orders = clerk::start(dvk, node, log.clone(), news.clone())?;
    watch::start(dvk, orders.clone(), news.clone())?;
    keeper::start(port, node, origin, log.clone(), orders.clone(), news)?;
    let mut supervisor = Supervisor::new(node);
    let mut processes = Processes::new(log.clone());
    log.say(format_args!("node {node}"));
    loop {
        let mut events = Vec::new();
        match inbox.recv_timeout(TICK) {
            Ok(News::Event(event)) => events.push(event),
            Ok(News::Child) | Err(RecvTimeoutError::Timeout) => {}
            Ok(News::Failed(error)) => {
                // Without the others nobody sees to the lease, so that nothing may run under it.
                processes.kill_all();
                log.await_written(LAST);
                return Err(error);
            }
            Err(RecvTimeoutError::Disconnected) => {}
        }
        events.extend(processes.reap());
        events.push(Event::Tick);
        let mut at = 0;
        while let Some(event) = events.get(at).cloned() {
            at += 1;
            let now = origin.elapsed();
            for action in supervisor.handle(now, event) {
                match act(action, &mut processes, &log, &orders, now) {
                    Done::Event(event) => events.push(event),
                    Done::Nothing => {}
                    Done::End => {
                        let (send, done) = channel();
                        let _ = orders.send(Order::End(send));
                        let _ = done.recv_timeout(Supervisor::TTL);
                        log.await_written(LAST);
                        return Ok(());
                    }
                }
            }
        }
    }
}

enum Done {
    Nothing,
    Event(Event),
    End,
}

fn act(
    action: Action,
    processes: &mut Processes,
    log: &Log,
    orders: &Sender<Order>,
    now: Time,
) -> Done {
    let order = match action {
        Action::Start { server, command, environment, term } => {
            let started = processes.start(&server, &command, &environment, term);
            return Done::Event(match started {
                Ok(pid) => Event::Started { server, pid },
                Err(error) => {
                    let how = format!("{EARLY}: {error}");
                    log.say(format_args!("{server}: {how}"));
                    Event::Ended { server, how }
                }
            });
        }
        Action::Terminate(server) => {
            processes.signal(&server, false);
            return Done::Nothing;
        }
        Action::Kill(server) => {
            processes.signal(&server, true);
            return Done::Nothing;
        }
        Action::Stand { server, lease, attempt } => Order::Stand { server, lease, attempt },
        Action::Resign { server, lease } => Order::Resign { server, lease },
        Action::Tell(mut told) => {
            let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            for report in &mut told.servers {
                let age = now.saturating_sub(Duration::from_millis(report.since_ms));
                let since = since_1970.saturating_sub(age).as_millis();
                report.since_ms = u64::try_from(since).unwrap_or(u64::MAX);
            }
            Order::Tell(told)
        }
        Action::End => return Done::End,
    };
    // Should the clerk have ended, it has said so.
    let _ = orders.send(order);
    Done::Nothing
}
