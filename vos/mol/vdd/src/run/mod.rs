// SPDX-License-Identifier: MIT OR Apache-2.0
//! A disk server as a process: one thread that serves, and others for what waits.
//!
//! The thread that serves has the server's endpoint and its stores, and decides nothing. What waits for others has a thread and
//! an endpoint of its own, since an endpoint waits for one thing at a time: `feeders` say to each replica what the primary has to
//! say, the `clerk` writes and reads what is decided, and `watches` tell who is gone. They tell the first one by events.

mod asking;
mod clerk;
mod events;
mod feeders;
mod finder;
mod gateway;
mod kernel;
mod machine;
mod target;
#[cfg(feature = "ublk")]
mod ublk;
mod watches;

pub use self::asking::{remove, scrub, show};
pub use self::finder::{ByGroup, BySlot};
pub use self::gateway::{gateway, GatewayPlan, Listen};
pub use self::machine::MachineError;
pub use self::target::{Found, Target};
#[cfg(feature = "ublk")]
pub use self::ublk::{ublk, UblkPlan};

use self::clerk::{Clerk, Order};
use self::events::{events, Event, Events};
use self::feeders::Feeders;
use self::kernel::Kernel;
use self::watches::Watches;
use crate::board::BoardError;
use crate::client::DiskError;
use crate::replica::{Notice, ReplicaId};
use crate::server::{DeviceError, News, Server};
use crate::store::{OpenError, StoreSpec};
use core::time::Duration;
use dvk::protocol::refuse;
use dvk::{Endpoint, Errno, How, Port, Slot, Then, Timeout};
use mol_protocol::block::BlockDevice;
use mol_protocol::replica::ReplicaServer;
use std::path::PathBuf;
use std::sync::mpsc::Sender;
use std::sync::Arc;

/// How often the rules of replication are told that time has passed.
const TICK: Duration = Duration::from_millis(25);
/// How often it is looked for clients that died.
const ROUND: Duration = Duration::from_secs(1);
/// How many messages are taken before anything else is looked at.
const BATCH: usize = 64;

/// What a server is to have.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The device of the container.
    pub dvk: PathBuf,
    /// The number under which clients on this node find it; without one they need its endpoint.
    pub slot: Option<u32>,
    /// The stores of its devices, in the order of their minors.
    pub stores: Vec<StoreSpec>,
    /// Whether the devices have replicas, of which this server has one each.
    pub replica: Option<ReplicaPlan>,
}

/// Which replicas a server has.
#[derive(Clone, Debug)]
pub struct ReplicaPlan {
    /// Servers of one group have replicas of the same devices.
    pub group: String,
    /// The number of this one among them.
    pub id: ReplicaId,
    /// Whether it makes the devices, if there are none yet.
    pub begins: bool,
}

/// Why a server does not run, or not any more.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A store.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// A store for a replica.
    #[error("device {minor}: {error}")]
    Device {
        /// The device.
        minor: u32,
        /// Why not.
        error: DeviceError,
    },
    /// The DVK.
    #[error(transparent)]
    Dvk(#[from] dvk::Error),
    /// This server is not in the line-up of a device.
    #[error(transparent)]
    Board(#[from] BoardError),
    /// A replica was not taken away.
    #[error(
        "{id} of device {minor} is not removed: {}",
        if *is_one { "it is the last one in step, and would take the device with it" } else { "there is no such replica" }
    )]
    NotRemoved {
        /// The replica.
        id: ReplicaId,
        /// The device.
        minor: u32,
        /// Whether it is one of the device.
        is_one: bool,
    },
    /// Replicas are not compared.
    #[error("the replicas of device {minor} are not compared: {why}")]
    NotScrubbed {
        /// The device.
        minor: u32,
        /// Why not.
        why: String,
    },
    /// A device of another server.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Nobody can be listened to.
    #[error("cannot listen on {listen}: {error}")]
    Listen {
        /// Where.
        listen: Listen,
        /// What Linux says.
        error: std::io::Error,
    },
    /// A block device of Linux.
    #[cfg(feature = "ublk")]
    #[error(transparent)]
    Ublk(#[from] crate::ublk::UblkError),
    /// The process could not be told to end.
    #[cfg(feature = "ublk")]
    #[error("cannot take signals: {0}")]
    Signals(std::io::Error),
    /// What Linux says of the machine.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// Waiting for messages failed.
    #[error("cannot wait for messages: {0}")]
    Wait(rustix::io::Errno),
}

/// Opens everything and serves until it cannot.
///
/// # Errors
/// [`RunError`]. It does not end otherwise.
pub fn serve(plan: &Plan) -> Result<(), RunError> {
    let slot = plan.slot.map_or(Slot::Any, Slot::Server);
    let stores: Result<Vec<_>, _> = plan.stores.iter().map(StoreSpec::open).collect();
    let port = Arc::new(Port::open(&plan.dvk, slot)?);
    let me = port.endpoint();
    let mut server = Server::new(me, Kernel::new(port.clone()));
    for (store, minor) in stores?.into_iter().zip(0..) {
        match &plan.replica {
            None => drop(server.add(store)),
            Some(_) => {
                let added = server.add_replica(store);
                added.map_err(|error| RunError::Device { minor, error })?;
            }
        }
    }
    let (events, inbox) = events().map_err(RunError::Wait)?;
    let mut process = Process {
        watches: Watches::start(&plan.dvk, events.clone()),
        feeders: Feeders::new(&plan.dvk, events.clone()),
        orders: None,
        server,
        port,
    };
    if let Some(replica) = &plan.replica {
        let boot = machine::boot()?;
        let minors = 0..plan.stores.len() as u32;
        let kept = |minor| Some((process.server.shape(minor)?, process.server.kept(minor, boot)));
        let kept = minors.filter_map(kept).collect();
        let identity = machine::identity()?;
        let clerk =
            Clerk { dvk: plan.dvk.clone(), plan: replica.clone(), me, boot, identity, kept };
        process.orders = Some(clerk.start(events));
    }
    eprintln!("mol-vdd: serving {} devices as {me}", plan.stores.len());
    process.run(&inbox)
}

struct Process {
    server: Server<Kernel>,
    port: Arc<Port>,
    feeders: Feeders,
    watches: Watches,
    orders: Option<Sender<Order>>,
}

impl Process {
    fn run(&mut self, inbox: &Events) -> Result<(), RunError> {
        let began = std::time::Instant::now();
        let (mut next_tick, mut next_round) = (Duration::ZERO, Duration::ZERO);
        loop {
            // What others said comes before the time that has passed, so that nobody is taken for silent who was not heard
            // only because this thread was busy.
            while let Some(event) = inbox.take() {
                self.take(event)?;
            }
            let is_drained = self.receive()?;
            let now = began.elapsed();
            if self.orders.is_some() && now >= next_tick {
                next_tick = now + TICK;
                self.server.tick();
            }
            if now >= next_round {
                next_round = now + ROUND;
                self.watches.look_for(self.server.clients());
            }
            self.send();
            let next = if self.orders.is_some() { next_tick.min(next_round) } else { next_round };
            let rest =
                if is_drained { next.saturating_sub(began.elapsed()) } else { Duration::ZERO };
            inbox.wait(&self.port, rest).map_err(RunError::Wait)?;
        }
    }

    /// Takes messages. Whether there are no more.
    fn receive(&mut self) -> Result<bool, RunError> {
        for _ in 0..BATCH {
            let received = match self.port.receive(Endpoint::ANY, Timeout::NoWait) {
                Ok(received) => received,
                Err(error) if error.is(Errno::WouldBlock) => return Ok(true),
                Err(error) if error.is(Errno::Interrupted) => continue,
                Err(error) => return Err(error.into()),
            };
            let server = &mut self.server;
            let then = BlockDevice::dispatch(server, &received)
                .or_else(|| ReplicaServer::dispatch(server, &received))
                .unwrap_or_else(|| refuse(&received));
            if let (Then::Reply(reply), How::Request) = (then, received.how) {
                // A client that does not wait any more is its own affair.
                let _ = self.port.reply(received.source(), &reply);
            }
            self.send();
        }
        Ok(false)
    }

    fn send(&mut self) {
        let out = self.server.take_out();
        for (client, reply) in out.replies {
            let _ = self.port.reply(client, &reply);
        }
        for letter in out.letters {
            self.feeders.say(letter);
        }
        for (minor, lineup) in out.proposals {
            self.order(Order::Propose(minor, lineup));
        }
        for (minor, news) in out.news {
            eprintln!("mol-vdd: device {minor}: {}", describe(&news));
            if matches!(news, News::Failed(_)) {
                self.order(Order::Withdraw(minor));
            }
        }
    }

    fn order(&self, order: Order) {
        if let Some(orders) = &self.orders {
            // A clerk that has ended has said why, and this process ends with it.
            let _ = orders.send(order);
        }
    }

    fn take(&mut self, event: Event) -> Result<(), RunError> {
        match event {
            Event::Joined(minor, role) => {
                self.feeders.be(minor, (role.id, role.life));
                self.server.join(minor, role);
            }
            Event::Standing(minor, standing) => {
                self.feeders.know(minor, &standing.servers);
                if let Some(orders) = &self.orders {
                    self.watches.mourn(minor, &standing.servers, self.port.endpoint(), orders);
                }
                self.server.take_lineup(minor, standing.lineup, standing.servers);
            }
            Event::Answered(route, messages) => {
                for message in messages {
                    self.server.take_answer(route.minor, route.to, message);
                }
            }
            Event::Gone(client) => self.server.forget(client),
            Event::Ended(error) => return Err(error.into()),
        }
        Ok(())
    }
}

fn describe(news: &News) -> String {
    match news {
        News::Failed(error) => {
            format!("its store has failed, and takes no part until this server is started again: {error}")
        }
        News::Notice(Notice::Serving { epoch }) => {
            format!("this replica answers for it, from epoch {epoch} on")
        }
        News::Notice(Notice::Filling { replica, regions }) => {
            format!("{replica} gets {regions} regions that it may lack")
        }
        News::Notice(Notice::Filled { replica }) => format!("{replica} has what it lacked"),
        News::Notice(Notice::Differs { replica, position, bytes }) => format!(
            "{replica} has other blocks than the primary among the {bytes} bytes from byte {position} on; they are \
             replaced: look at its disk"
        ),
        News::Notice(Notice::Compared { replica }) => {
            format!("all blocks of {replica} were compared")
        }
    }
}
