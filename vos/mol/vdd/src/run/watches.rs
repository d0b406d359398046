// SPDX-License-Identifier: MIT OR Apache-2.0
//! Threads that find out who is gone: clients, and the servers of other replicas.

use super::clerk::Order;
use super::events::{Event, Teller};
use crate::replica::{Life, ReplicaId};
use core::time::Duration;
use dvk::{Endpoint, Errno, Port, Slot, Timeout};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{sync_channel, Receiver, Sender, SyncSender};

/// How long it is waited for one client to be gone. It goes on to the next then.
const GLANCE: Timeout = Timeout::from_millis(20);
/// How long nothing is asked after something failed.
const PAUSE: Duration = Duration::from_millis(500);

/// Who is looked at.
pub(super) struct Watches {
    dvk: PathBuf,
    clients: SyncSender<BTreeSet<Endpoint>>,
    mourned: BTreeSet<(u32, ReplicaId, Life)>,
}

impl Watches {
    pub(super) fn start(dvk: &Path, teller: Teller) -> Self {
        let (send, receive) = sync_channel(1);
        let path = dvk.to_path_buf();
        std::thread::spawn(move || match Port::open(&path, Slot::Any) {
            Ok(port) => look_for_clients(&port, &receive, &teller),
            Err(error) => eprintln!("mol-vdd: cannot look for clients that die: {error}"),
        });
        Self { dvk: dvk.to_path_buf(), clients: send, mourned: BTreeSet::new() }
    }

    /// Has it found out which of these clients are gone, unless others are still looked for.
    pub(super) fn look_for(&self, clients: BTreeSet<Endpoint>) {
        if !clients.is_empty() {
            let _ = self.clients.try_send(clients);
        }
    }

    /// Waits for the ends of servers, for the first time that they are named.
    pub(super) fn mourn(
        &mut self,
        minor: u32,
        servers: &BTreeMap<ReplicaId, (Life, Endpoint)>,
        me: Endpoint,
        orders: &Sender<Order>,
    ) {
        for (&id, &(life, server)) in servers {
            if server != me && self.mourned.insert((minor, id, life)) {
                let (dvk, orders) = (self.dvk.clone(), orders.clone());
                std::thread::spawn(move || match Port::open(&dvk, Slot::Any) {
                    Ok(port) => mourn(&port, server, &orders, minor, (id, life)),
                    Err(error) => eprintln!("mol-vdd: cannot wait for the end of {id}: {error}"),
                });
            }
        }
    }
}

fn look_for_clients(port: &Port, clients: &Receiver<BTreeSet<Endpoint>>, teller: &Teller) {
    while let Ok(clients) = clients.recv() {
        for client in clients {
            // One on a node that is down is as good as dead: its opens are in nobody's way, and if it lives it opens again.
            let is_gone = match port.wait_unbind(client, GLANCE) {
                Ok(()) => true,
                Err(error) => error.is(Errno::NoEndpoint) || error.is(Errno::NodeDown),
            };
            if is_gone && !teller.tell(Event::Gone(client)) {
                return;
            }
        }
    }
}

fn mourn(
    port: &Port,
    server: Endpoint,
    orders: &Sender<Order>,
    minor: u32,
    (id, life): (ReplicaId, Life),
) {
    loop {
        let ended = port.wait_unbind(server, Timeout::Forever);
        let is_over = match &ended {
            Ok(()) => true,
            Err(error) => error.is(Errno::NoEndpoint),
        };
        let seems_gone = is_over || matches!(&ended, Err(error) if error.is(Errno::NodeDown));
        if seems_gone && orders.send(Order::Gone(minor, id, life)).is_err() || is_over {
            return;
        }
        std::thread::sleep(PAUSE);
    }
}
