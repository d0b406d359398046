// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ports of this node that lead into containers. Connections are passed on by this process, one by one: so a container's network stays one that
//! the node takes no part in.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dvs_state::containers::{ContainerId, Publish};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;

use super::blocking;
use super::runtime::Runtime;
use super::steps::name_of;

/// Connections through all ports of a node at once.
const CONNECTIONS_MAX: usize = 1024;
/// How long until a port is tried again that could not be listened on.
const RETRY: Duration = Duration::from_secs(2);

/// A port of a container that is to be reached.
pub(super) type Port = (ContainerId, Publish);

/// The published ports of a node.
pub(super) struct Publisher {
    runtime: Arc<dyn Runtime>,
    /// The address at which they are.
    address: IpAddr,
    room: Arc<Semaphore>,
    open: BTreeMap<Port, AbortHandle>,
    /// Why one is not reached, by its port of the node.
    troubles: Arc<Mutex<BTreeMap<u16, String>>>,
}

impl Publisher {
    /// None yet.
    pub(super) fn new(runtime: Arc<dyn Runtime>, address: IpAddr) -> Self {
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        Self { runtime, address, room, open: BTreeMap::new(), troubles: Arc::default() }
    }

    /// Has these ports be there and no others.
    pub(super) fn publish(&mut self, wanted: &BTreeSet<Port>) {
        let troubles = Arc::clone(&self.troubles);
        self.open.retain(|port, task| {
            let keep = wanted.contains(port);
            if !keep {
                task.abort();
                lock(&troubles).remove(&port.1.node);
            }
            keep
        });
        for port in wanted {
            self.open.entry(*port).or_insert_with(|| {
                let door = Door {
                    runtime: Arc::clone(&self.runtime),
                    address: SocketAddr::new(self.address, port.1.node),
                    called: name_of(port.0),
                    port: port.1.container,
                    room: Arc::clone(&self.room),
                };
                tokio::spawn(door.keep_open(Arc::clone(&self.troubles))).abort_handle()
            });
        }
    }

    /// Why ports of a container are not reached, for people.
    pub(super) fn trouble(&self, id: ContainerId) -> Option<String> {
        let troubles = lock(&self.troubles);
        let own = self.open.keys().filter(|(one, _)| *one == id);
        own.filter_map(|(_, port)| troubles.get(&port.node)).next().cloned()
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.open.values().for_each(AbortHandle::abort);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Door {
    runtime: Arc<dyn Runtime>,
    address: SocketAddr,
    called: String,
    port: u16,
    room: Arc<Semaphore>,
}

impl Door {
    async fn keep_open(self, troubles: Arc<Mutex<BTreeMap<u16, String>>>) {
        loop {
            let error = match TcpListener::bind(self.address).await {
                Ok(listener) => {
                    lock(&troubles).remove(&self.address.port());
                    self.answer(&listener).await
                }
                Err(error) => error,
            };
            let text = format!("port {} of the node: {error}", self.address.port());
            lock(&troubles).insert(self.address.port(), text);
            sleep(RETRY).await;
        }
    }

    /// Takes connections until that fails; those that there are end with it.
    async fn answer(&self, listener: &TcpListener) -> std::io::Error {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    let (client, _) = match accepted {
                        Ok(accepted) => accepted,
                        Err(error) => return error,
                    };
                    // Whoever finds no room is turned away, so that it can go to another node.
                    let Ok(permit) = Arc::clone(&self.room).try_acquire_owned() else { continue };
                    let (runtime, called, port) =
                        (Arc::clone(&self.runtime), self.called.clone(), self.port);
                    connections.spawn(async move {
                        pass(client, runtime, called, port).await;
                        drop(permit);
                    });
                }
                Some(_) = connections.join_next() => {}
            }
        }
    }
}

/// Passes everything on both ways, if somebody listens in the container.
async fn pass(mut client: TcpStream, runtime: Arc<dyn Runtime>, called: String, port: u16) {
    let Ok(stream) = blocking(move || runtime.dial(&called, port)).await else { return };
    let ready = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
    let Ok(mut inside) = ready else { return };
    // Without it answers only come later.
    let _ = client.set_nodelay(true).and_then(|()| inside.set_nodelay(true));
    let _ = copy_bidirectional(&mut client, &mut inside).await;
}
