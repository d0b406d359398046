// SPDX-License-Identifier: MIT OR Apache-2.0
//! The disk server: messages in, messages out.
//!
//! [`Server`] implements the protocols of clients ([`BlockDevice`](mol_protocol::block::BlockDevice)) and of other replicas
//! ([`ReplicaServer`](mol_protocol::replica::ReplicaServer)) over stores. It waits for nothing but its stores and for memory that
//! is copied, and reaches both memory and the clock through [`Outside`]; what it wants to have sent is in [`Out`]. So whole
//! devices with clients and failures run in a test without a kernel, and whoever has a kernel moves messages only.

mod copy;
mod device;
mod exchange;
mod requests;
mod sessions;
mod waiting;

pub use self::copy::REPLICATED_BYTES_MAX;
pub use self::device::DeviceError;
pub use self::exchange::read_fed;
pub use self::requests::{SEGMENTS_MAX, TRANSFER_MAX};
pub use self::sessions::{CLIENTS_MAX, OPENS_MAX};

use self::copy::Copy;
use self::device::Device;
use self::sessions::Sessions;
use crate::ledger::Identity;
use crate::replica::{
    Boot, Contents, Input, Life, Lineup, Message as ReplicaMessage, Notice, ReplicaId, RequestId,
    Settings,
};
use crate::store::{Shape, Store, StoreError};
use core::time::Duration;
use dvk::{Endpoint, Granted, Message};
use mol_protocol::Errno;
use std::collections::{BTreeMap, BTreeSet};

/// What a server needs besides messages.
pub trait Outside {
    /// The time of a clock that never goes back.
    fn now(&self) -> Duration;

    /// Copies memory that was lent.
    ///
    /// # Errors
    /// `EFAULT`: it is not lent for this, or not so much.
    fn copy_from(&self, from: Granted, into: &mut [u8]) -> Result<(), Errno>;

    /// Copies into memory that was lent.
    ///
    /// # Errors
    /// As [`copy_from`](Self::copy_from).
    fn copy_to(&self, to: Granted, from: &[u8]) -> Result<(), Errno>;

    /// Whether a client is known to be dead.
    fn is_gone(&self, client: Endpoint) -> bool;
}

/// A message to another replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// The device.
    pub minor: u32,
    /// Which replica, and which run of its server.
    pub to: (ReplicaId, Life),
    /// What it says.
    pub message: ReplicaMessage,
}

/// What people may want to know.
#[derive(Debug)]
pub enum News {
    /// Something about replicas.
    Notice(Notice),
    /// The store of a replica has failed. It takes no part any more, and others may be told so.
    Failed(StoreError),
}

/// What a server wants to have done. None of it is done twice, and but for answers it may get lost.
#[derive(Debug, Default)]
pub struct Out {
    /// Answers to clients. One that does not wait any more is its own affair.
    pub replies: Vec<(Endpoint, Message)>,
    /// To other replicas.
    pub letters: Vec<Letter>,
    /// Line-ups that are asked for, each with its device.
    pub proposals: Vec<(u32, Lineup)>,
    /// For people, each with its device.
    pub news: Vec<(u32, News)>,
}

/// Who a server is, when it becomes one of the replicas of a device.
#[derive(Clone, Copy, Debug)]
pub struct Role {
    /// Which replica.
    pub id: ReplicaId,
    /// Which run of its server: this one.
    pub life: Life,
    /// Which run of the machine.
    pub boot: Boot,
    /// Which device.
    pub identity: Identity,
}

/// A disk server.
#[derive(Debug)]
pub struct Server<O> {
    me: Endpoint,
    outside: O,
    devices: Vec<Device>,
    sessions: Sessions,
    /// What each client waits for: its device and request.
    calls: BTreeMap<Endpoint, (u32, RequestId)>,
    next_request: u64,
    out: Out,
}

impl<O: Outside> Server<O> {
    /// A server without devices, which has this endpoint.
    pub fn new(me: Endpoint, outside: O) -> Self {
        Self {
            me,
            outside,
            devices: Vec::new(),
            sessions: Sessions::default(),
            calls: BTreeMap::new(),
            next_request: 0,
            out: Out::default(),
        }
    }

    /// Adds a device without replicas; the result is its minor, and they are numbered from 0.
    pub fn add(&mut self, store: Box<dyn Store>) -> u32 {
        self.devices.push(Device::plain(store));
        self.devices.len() as u32 - 1
    }

    /// Adds a device with replicas, of which this server has one. Until it has [joined](Self::join), it answers nobody.
    ///
    /// # Errors
    /// [`DeviceError`]: the store cannot hold one.
    pub fn add_replica(&mut self, store: Box<dyn Store>) -> Result<u32, DeviceError> {
        self.devices.push(Device::replicated(store)?);
        Ok(self.devices.len() as u32 - 1)
    }

    /// The shape of a device.
    pub fn shape(&self, minor: u32) -> Option<Shape> {
        self.devices.get(minor as usize).map(Device::shape)
    }

    /// What the store has of a replica in this run of the machine, and of which device; `None` if there is none in it.
    pub fn kept(&self, minor: u32, boot: Boot) -> Option<(Identity, Contents)> {
        self.copy_of(minor)?.kept(boot)
    }

    /// The replica's part begins: who it is has been decided. It may say so again, with another life, if the one before
    /// has been given up.
    pub fn join(&mut self, minor: u32, role: Role) {
        let now = self.outside.now();
        let Some(device) = self.devices.get_mut(minor as usize) else { return };
        let settings = Settings::of(device.bytes());
        if let Some(copy) = &mut device.copy {
            copy.join(role, settings, now);
        }
    }

    /// A line-up was agreed on, and these are the servers of its members.
    pub fn take_lineup(
        &mut self,
        minor: u32,
        lineup: Lineup,
        servers: BTreeMap<ReplicaId, (Life, Endpoint)>,
    ) {
        let Some(copy) = self.copy_of_mut(minor) else { return };
        copy.servers = servers;
        self.drive(minor, Input::Lineup(lineup));
        if !self.copy_of(minor).is_some_and(Copy::is_primary) {
            // Whoever comes back here later has to open the device anew, as at any server that takes over.
            self.sessions.clear(minor);
        }
    }

    /// Another replica has answered.
    pub fn take_answer(&mut self, minor: u32, from: (ReplicaId, Life), message: ReplicaMessage) {
        self.drive(minor, Input::Message(from.0, from.1, message));
    }

    /// Time has passed: to be called every 25 ms or so if there are replicas.
    pub fn tick(&mut self) {
        for minor in 0..self.devices.len() as u32 {
            self.drive(minor, Input::Tick);
        }
    }

    /// A client has died.
    pub fn forget(&mut self, client: Endpoint) {
        self.sessions.forget(client);
        self.give_up(client);
    }

    /// Who has something open.
    pub fn clients(&self) -> BTreeSet<Endpoint> {
        self.sessions.clients()
    }

    /// What is to be done since it was last asked.
    pub fn take_out(&mut self) -> Out {
        core::mem::take(&mut self.out)
    }

    /// What the server needs besides messages.
    pub fn outside(&self) -> &O {
        &self.outside
    }

    fn copy_of(&self, minor: u32) -> Option<&Copy> {
        self.devices.get(minor as usize)?.copy.as_ref()
    }

    fn copy_of_mut(&mut self, minor: u32) -> Option<&mut Copy> {
        self.devices.get_mut(minor as usize)?.copy.as_mut()
    }

    /// A client does not wait for what it asked before: it has asked something else, or died.
    fn give_up(&mut self, client: Endpoint) {
        if let Some((minor, request)) = self.calls.remove(&client) {
            if let Some(copy) = self.copy_of_mut(minor) {
                copy.waiting.remove(&request);
            }
        }
    }

    /// Tells a replica something and does what it says.
    fn drive(&mut self, minor: u32, input: Input) {
        let Some(device) = self.devices.get_mut(minor as usize) else { return };
        if let Some(copy) = &mut device.copy {
            let answered = self.out.replies.len();
            copy.drive(minor, &self.outside, &mut *device.store, input, &mut self.out);
            for (client, _) in &self.out.replies[answered..] {
                self.calls.remove(client);
            }
        }
    }
}
