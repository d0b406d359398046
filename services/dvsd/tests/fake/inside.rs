// SPDX-License-Identifier: MIT OR Apache-2.0
//! What programs in containers have of the pretended DVK: an endpoint, memory to lend, and a server on their own node.

use std::collections::HashMap;
use std::sync::{mpsc, Arc, Mutex};
use std::time::Duration;

use dvk::{Endpoint, GrantId, Granted, How, Ipc, Message, Received, Timeout};
use dvk_services::{Ask, Error, ExchangeClient, ExchangeError, Way, SLOT};
use dvs_config::Mac;
use dvsd::kernel::{Receiving, ServerPort};
use tokio::sync::mpsc as async_mpsc;

use super::{Request, World};

/// A server's end.
pub(super) struct FakeServer {
    world: Arc<Mutex<World>>,
    requests: tokio::sync::Mutex<async_mpsc::UnboundedReceiver<Request>>,
    waiting: Mutex<HashMap<u64, mpsc::Sender<Message>>>,
}

pub(super) fn port(world: Arc<Mutex<World>>) -> (FakeServer, async_mpsc::UnboundedSender<Request>) {
    let (sender, requests) = async_mpsc::unbounded_channel();
    let requests = tokio::sync::Mutex::new(requests);
    (FakeServer { world, requests, waiting: Mutex::default() }, sender)
}

impl ServerPort for FakeServer {
    fn receive(&self) -> Receiving<'_> {
        Box::pin(async {
            let request = self.requests.lock().await.recv().await;
            let (message, reply) = request.ok_or("ENOTCONN")?;
            self.waiting.lock().unwrap().insert(message.source, reply);
            Ok::<_, String>(Received { message, how: How::Request })
        })
    }

    fn reply(&self, to: Endpoint, message: &Message) {
        if let Some(waiting) = self.waiting.lock().unwrap().remove(&to.raw()) {
            let _ = waiting.send(*message);
        }
    }

    fn copy_from(&self, from: Granted, into: &mut [u8]) -> Result<(), String> {
        let world = self.world.lock().unwrap();
        let lent = world.lent.get(&from.grant.raw()).ok_or("EACCES")?;
        into.copy_from_slice(lent.get(..into.len()).ok_or("EACCES")?);
        Ok(())
    }

    fn copy_to(&self, to: Granted, from: &[u8]) -> Result<(), String> {
        let mut world = self.world.lock().unwrap();
        let lent = world.lent.get_mut(&to.grant.raw()).ok_or("EACCES")?;
        lent.get_mut(..from.len()).ok_or("EACCES")?.copy_from_slice(from);
        Ok(())
    }
}

/// A program in a container.
pub(crate) struct Inside {
    world: Arc<Mutex<World>>,
    place: (Mac, u32, u32),
    own: u64,
}

#[allow(dead_code, reason = "not every test needs everything")]
impl Inside {
    pub(super) fn new(world: Arc<Mutex<World>>, mac: Mac, container: u32) -> Self {
        let own = count(&world);
        Self { world, place: (mac, container, SLOT), own }
    }

    /// Whether anybody answers.
    pub(crate) fn is_served(&self) -> bool {
        let world = self.world.lock().unwrap();
        world.servers.get(&self.place).is_some_and(|server| !server.is_closed())
    }

    /// Asks in so many bytes of memory, of which the question is said to have so many.
    pub(crate) fn ask(&self, memory: &mut [u8], question: u32) -> Result<u32, Error> {
        let grant = count(&self.world);
        let bytes = memory.len() as u32;
        self.world.lock().unwrap().lent.insert(grant, memory.to_vec());
        let ask = Ask { memory: GrantId::from_raw(grant), question, bytes };
        let answer = ExchangeClient::new(self, Endpoint::from_raw(1 << 32 | 63)).ask(&ask);
        let lent = self.world.lock().unwrap().lent.remove(&grant).unwrap();
        memory.copy_from_slice(&lent);
        answer.map_err(|error| match error {
            dvk::CallError::Refused { error, .. } => Error::NotTaken(error),
            other => panic!("{other}"),
        })
    }
}

fn count(world: &Mutex<World>) -> u64 {
    let mut world = world.lock().unwrap();
    world.counted += 1;
    1 << 32 | (1_000 + world.counted)
}

impl Way for Inside {
    fn exchange(&self, memory: &mut [u8], question: u32) -> Result<u32, Error> {
        self.ask(memory, question)
    }
}

impl Ipc for Inside {
    type Error = String;

    fn send(&self, _: Endpoint, _: &Message, _: Timeout) -> Result<(), String> {
        Err("ENOTCONN".into())
    }

    fn sendrec(&self, _: Endpoint, message: &Message, _: Timeout) -> Result<Message, String> {
        let (sender, replies) = mpsc::channel();
        {
            let world = self.world.lock().unwrap();
            let server = world.servers.get(&self.place).ok_or("ESRCH")?;
            let request = Message { source: self.own, ..*message };
            server.send((request, sender)).map_err(|_| "EOWNERDEAD")?;
        }
        replies.recv_timeout(Duration::from_secs(60)).map_err(|_| "EOWNERDEAD".into())
    }

    fn reply(&self, _: Endpoint, _: &Message) -> Result<(), String> {
        Err("EAGAIN".into())
    }

    fn notify(&self, _: Endpoint, _: u64) -> Result<(), String> {
        Err("ENOTCONN".into())
    }
}

/// What is said of a question that is none.
#[allow(dead_code, reason = "not every test needs everything")]
pub(crate) fn not_taken(asked: Result<u32, Error>) -> ExchangeError {
    match asked {
        Err(Error::NotTaken(error)) => error,
        other => panic!("{other:?}"),
    }
}
