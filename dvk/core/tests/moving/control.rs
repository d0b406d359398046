// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The control plane, which moves the server.

use super::{Place, Queue, Task, World};
use dvk_core::abi::errno::Errno;
use dvk_core::abi::wire::record::Step;
use dvk_core::migration::Writer;
use dvk_core::port::{Peer, Port, Resumed};
use dvk_core::table::{Change, Settled};
use std::collections::VecDeque;

/// One call of the control plane, or a part of it.
#[derive(Clone, Debug)]
enum Act {
    StartSource,
    /// The returning of what waited.
    AwaitReturned(usize),
    /// The sections that were under way at a node.
    AwaitSections(Vec<usize>),
    Export,
    StartElsewhere(u16),
    Fence(u16),
    AwaitFence(u16, u32),
    Adopt,
    Commit(u16),
    RollBack(u16),
}

#[derive(Clone, Debug)]
pub(super) struct Moving {
    from: u16,
    to: u16,
    epoch: u32,
    acts: VecDeque<Act>,
    state: Vec<u8>,
    port: Option<usize>,
}

impl World {
    pub(super) fn start_move(&mut self, to: u16, commit: bool) {
        let at = |node: &u16| matches!(self.look_up(*node, self.endpoint()), Ok(Place::Here(_)));
        let Some(from) = (0..super::NODES).find(at) else { return };
        if self.moving.is_some() || to == from {
            return;
        }
        self.epoch += 1;
        // Any order, but the same in every run.
        let mut others: Vec<u16> = (0..super::NODES).filter(|node| *node != from).collect();
        others.rotate_left(self.epoch as usize % 3);
        let bystanders = || others.iter().copied().filter(|node| *node != to);
        let mut acts = VecDeque::from([Act::StartSource]);
        acts.extend(others.iter().map(|node| Act::StartElsewhere(*node)));
        if commit {
            acts.push_back(Act::Adopt);
            acts.extend(bystanders().map(Act::Commit));
            acts.extend([Act::Commit(from), Act::Commit(to)]);
        } else {
            // Some nodes may not have been told of the move.
            acts.truncate(acts.len() - self.epoch as usize % 3);
            let told = acts.iter().any(|act| matches!(act, Act::StartElsewhere(at) if *at == to));
            if told && self.epoch % 2 == 0 {
                acts.push_back(Act::Adopt);
            }
            acts.push_back(Act::RollBack(from));
            acts.extend(others.iter().map(|node| Act::RollBack(*node)));
        }
        let (epoch, state) = (self.epoch, Vec::new());
        self.moving = Some(Moving { from, to, epoch, acts, state, port: None });
    }

    pub(super) fn control_can_go_on(&self) -> bool {
        let Some(moving) = &self.moving else { return false };
        match moving.acts.front() {
            Some(Act::AwaitReturned(at)) => self.others[*at].1.is_empty(),
            Some(Act::AwaitSections(busy)) => busy.iter().all(|at| {
                let section = self.clients.get(*at).map_or(&self.server.section, |c| &c.section);
                section.is_empty()
            }),
            Some(Act::AwaitFence(at, call)) => !self.fences.contains(&(*at, moving.from, *call)),
            Some(Act::Adopt) => self.server_rests(),
            _ => true,
        }
    }

    pub(super) fn control_goes_on(&mut self) {
        let Some(mut moving) = self.moving.take() else { return };
        let Some(act) = moving.acts.pop_front() else { return };
        let endpoint = self.endpoint();
        let (from, to, epoch) = (moving.from, moving.to, moving.epoch);
        let mut next = Vec::new();
        match act {
            Act::StartSource => {
                let ports = &mut self.ports;
                let freeze = |port: &usize| ports[*port].freeze().map(drop);
                let table = &mut self.tables[from as usize];
                match table.start_leaving(endpoint, to, epoch, freeze) {
                    Ok(port) => {
                        self.others.push((from, Queue::from([Task::Return(port)])));
                        next.push(Act::AwaitReturned(self.others.len() - 1));
                        next.push(Act::AwaitSections(self.in_section(from)));
                        next.push(Act::Export);
                    }
                    Err(error) => {
                        assert_eq!(error, Errno::WouldBlock);
                        next.push(Act::StartSource);
                    }
                }
            }
            Act::AwaitReturned(_) | Act::AwaitSections(_) | Act::AwaitFence(..) => {}
            Act::Export => {
                let port = match self.tables[from as usize].receiver(endpoint) {
                    Ok(port) => *port,
                    Err(error) => panic!("{error:?}"),
                };
                let mut writer = Writer::new(&mut []);
                self.ports[port].export(epoch, &mut writer);
                assert!(!writer.is_complete());
                moving.state = vec![0; writer.len()];
                let mut writer = Writer::new(&mut moving.state);
                self.ports[port].export(epoch, &mut writer);
                assert!(writer.is_complete());
            }
            Act::StartElsewhere(node) => {
                let table = &mut self.tables[node as usize];
                for _repeated in 0..2 {
                    if node == to {
                        let (ports, peers) = (&mut self.ports, &mut self.peers);
                        let made = &mut moving.port;
                        let make = || {
                            let port = Port::import(endpoint, epoch, &moving.state)?;
                            ports.push(port);
                            peers.push(Peer { endpoint, node });
                            *made = Some(ports.len() - 1);
                            Ok(ports.len() - 1)
                        };
                        table.start_arriving(endpoint, from, epoch, make).expect("it can begin");
                    } else {
                        table.start_passing(endpoint, (from, to), epoch).expect("it can begin");
                    }
                }
                next.push(Act::AwaitSections(self.in_section(node)));
                next.push(Act::Fence(node));
            }
            Act::Fence(node) => {
                let pair = (node.min(from), node.max(from));
                let untold = |task: &Task| matches!(task, Task::NodeDown { at, node: down } if (*at, *down) == (node, from));
                // A link that is down has nothing on its way once those who wait were told.
                if !self.parted.contains(&pair)
                    || self.others.iter().any(|(_, queue)| queue.iter().any(untold))
                {
                    let call = self.epoch * 16 + u32::from(node);
                    self.fences.push((node, from, call));
                    self.submit(Peer { endpoint, node }, from, endpoint, Step::Fence { call });
                    next.push(Act::AwaitFence(node, call));
                }
            }
            Act::Adopt => {
                let port = moving.port.expect("it has begun there");
                self.ports[port].adopt().expect("nobody has it");
                assert_eq!(self.ports[port].adopt(), Err(Errno::Busy));
                self.server.previous = Some(self.server.port);
                self.server.port = port;
            }
            Act::Commit(node) => {
                let ports = &self.ports;
                let adopted = |port: &usize| ports[*port].is_adopted();
                let table = &mut self.tables[node as usize];
                let settled = table.commit(endpoint, epoch, adopted).expect("it can end");
                self.settled(node, &settled, true);
                let again = self.tables[node as usize].commit(endpoint, epoch, |_| false);
                assert_eq!(again.expect("it is known").change, Change::Repeated);
                let undone = self.tables[node as usize].roll_back(endpoint, epoch);
                assert_eq!(undone, Err(Errno::Stale));
            }
            Act::RollBack(node) => {
                let table = &mut self.tables[node as usize];
                let settled = table.roll_back(endpoint, epoch).expect("it can end");
                self.settled(node, &settled, false);
                let again = self.tables[node as usize].roll_back(endpoint, epoch);
                assert_eq!(again.expect("it is known").change, Change::Repeated);
                let committed = self.tables[node as usize].commit(endpoint, epoch, |_| true);
                assert_eq!(committed, Err(Errno::Stale));
            }
        }
        for act in next.into_iter().rev() {
            moving.acts.push_front(act);
        }
        self.moving = (!moving.acts.is_empty()).then_some(moving);
    }

    /// What a node does when the table says that the endpoint has settled; the first part under the
    /// table's lock.
    fn settled(&mut self, node: u16, settled: &Settled<usize>, committed: bool) {
        let endpoint = self.endpoint();
        if let Some(from) = settled.from.filter(|_| committed) {
            for (port, peer) in self.ports.iter_mut().zip(&self.peers) {
                if peer.node == node && peer.endpoint != endpoint {
                    port.follow(endpoint, from, settled.to);
                }
            }
        }
        let mut queue = Queue::new();
        match settled.change {
            Change::Arrived(port) | Change::Stayed(port) => {
                let Resumed { accepted, watch, .. } = self.ports[port].settle();
                let from = self.peers[port];
                if let Some(call) = accepted {
                    let step = Step::Accepted { call: call.call };
                    queue.push_back(Task::Tell { from, to: call.peer, step });
                }
                if let Some(call) = watch {
                    let to = call.peer.endpoint;
                    let place = self.look_up(node, to).unwrap_or(Place::There(call.peer.node));
                    let step = Step::Watch { call: call.call };
                    queue.push_back(Task::Give { from, at: place, to, step });
                }
            }
            Change::Departed(port) | Change::Dropped(port) => {
                let (_, open) = self.ports[port].depart(true);
                assert_eq!(open, None);
                queue.push_back(Task::Return(port));
            }
            Change::Passed | Change::Unchanged => {}
            Change::Repeated => panic!("it was not told before"),
        }
        queue.push_back(Task::Flush { node });
        self.others.push((node, queue));
    }
}
