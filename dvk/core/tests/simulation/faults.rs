// SPDX-License-Identifier: GPL-2.0 OR MIT
//! What goes wrong in a simulated DVS.

use super::{Queue, Simulation, Task};
use crate::model::numbered;
use dvk_core::abi::errno::Errno;
use dvk_core::abi::wire::record::Step;
use dvk_core::port::{Effect, PeerCall};

impl Simulation {
    pub(super) fn kill(&mut self, port: usize) {
        if self.dead(port) {
            return;
        }
        let me = self.peers[port];
        assert_eq!(self.tables[me.node as usize].unbind(me.endpoint, |at| *at == port), Some(port));
        let (_, open) = self.ports[port].kill();
        self.history.ports[port].dead = true;
        let mut queue = Queue::new();
        if let Some(PeerCall { peer, call }) = open {
            queue.push_back(Task::Tell { from: me, to: peer, step: Step::Cancel { call } });
        }
        queue.push_back(Task::Bury(port));
        self.others.push(queue);
    }

    /// The link between two nodes breaks, both hear that the other is down, and it comes back.
    pub(super) fn part(&mut self, a: u16, b: u16) {
        let (low, high) = (a.min(b), a.max(b));
        if low == high || self.parted.contains(&(low, high)) {
            return;
        }
        self.parted.push((low, high));
        for (from, to) in [(low, high), (high, low)] {
            self.link(from, to).records.clear();
        }
        let mut queue = Queue::new();
        for (port, peer) in self.peers.iter().enumerate() {
            if peer.node == low || peer.node == high {
                let node = low + high - peer.node;
                queue.push_back(Task::NodeDown { port, node });
            }
        }
        queue.push_back(Task::Reunite(low, high));
        self.others.push(queue);
    }

    /// Applies a step that nobody took, and that must have no effect for it.
    pub(super) fn forge(&mut self, at: usize, from: usize, elsewhere: bool, call: u32, kind: u8) {
        let (at, from) = (at % self.ports.len(), from % self.ports.len());
        let mut peer = self.peers[from];
        peer.node += u16::from(elsewhere);
        let step = match kind % 5 {
            0 => Step::Accepted { call },
            1 => Step::Reply { call, message: numbered(u64::MAX) },
            2 => Step::Cancelled { call },
            3 => Step::Failed { call, error: Errno::OwnerDead },
            _ => Step::Cancel { call },
        };
        let open = self.threads.iter().find(|thread| thread.port == at).and_then(|t| t.open);
        if open.is_some_and(|open| open.peer == Some(peer) && open.call == call) {
            return;
        }
        let held = &self.history.ports[at];
        let genuine = held.queue.iter().chain(&held.clients).any(|number| {
            let sent = self.history.message(*number);
            (sent.from, sent.call) == (peer, call)
        });
        if !(genuine && matches!(step, Step::Cancel { .. })) {
            assert_eq!(
                self.ports[at].apply(peer, &step),
                Effect::default(),
                "{step:?} of {peer:?}"
            );
        }
    }
}
