// SPDX-License-Identifier: MIT OR Apache-2.0
//! A thread that finds out which clients are gone, with an endpoint of its own, since an endpoint waits for one
//! thing at a time.

use dvk::{Endpoint, Errno, Port, Slot, Timeout};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::mpsc::{channel, sync_channel, Receiver, Sender, SyncSender};

/// How long it is waited for one client to be gone. It goes on to the next then.
const GLANCE: Timeout = Timeout::from_millis(20);

pub(super) struct Watch {
    clients: SyncSender<BTreeSet<Endpoint>>,
    gone: Receiver<Endpoint>,
}

impl Watch {
    pub(super) fn start(dvk: &Path) -> Self {
        let (clients, look) = sync_channel(1);
        let (tell, gone) = channel();
        let path = dvk.to_path_buf();
        std::thread::spawn(move || match Port::open(&path, Slot::Any) {
            Ok(port) => look_for_clients(&port, &look, &tell),
            Err(error) => eprintln!("mol-fs: cannot look for clients that die: {error}"),
        });
        Self { clients, gone }
    }

    /// Has it found out which of these are gone, unless others are still looked for.
    pub(super) fn look_for(&self, clients: BTreeSet<Endpoint>) {
        if !clients.is_empty() {
            let _ = self.clients.try_send(clients);
        }
    }

    /// Who was found to be gone.
    pub(super) fn gone(&self) -> Vec<Endpoint> {
        self.gone.try_iter().collect()
    }
}

fn look_for_clients(port: &Port, clients: &Receiver<BTreeSet<Endpoint>>, tell: &Sender<Endpoint>) {
    while let Ok(clients) = clients.recv() {
        for client in clients {
            let waited = port.wait_unbind(client, GLANCE);
            let is_gone = waited.map_or_else(|error| is_end(&error), |()| true);
            if is_gone && tell.send(client).is_err() {
                return;
            }
        }
    }
}

/// Whether an error of waiting for the end of an endpoint means that it has ended. One whose node is down is as good as
/// dead: what it had is found stale if it lives.
pub(super) fn is_end(error: &dvk::Error) -> bool {
    error.is(Errno::NoEndpoint) || error.is(Errno::NodeDown)
}
