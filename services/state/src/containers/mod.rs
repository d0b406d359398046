// SPDX-License-Identifier: MIT OR Apache-2.0
//! Distributed Containers: which there are, which nodes they span, what they may use, and what is in their endpoint tables.

mod endpoints;
mod slots;
mod workload;

pub use endpoints::{Endpoints, Fate, Location, BACKUPS_MAX};
pub use slots::{first_slot, Block, SlotLease, Slots, BLOCKS, WINDOW};
pub use workload::{Defined, Image, Io, Network, Publish, Restart, Workload};

use std::collections::{BTreeMap, BTreeSet};

use dvk_abi::limits::{CONTAINERS, NAME_BYTES};
use serde::{Deserialize, Serialize};

use crate::nodes::{NodeId, Nodes, Phase, Seat};
use crate::refusal::{Refusal, Thing};
use workload::Workloads;

/// The id of a container. 0 is the system container, which is not made by command.
pub type ContainerId = u16;

/// What a container may use on each of its nodes; `None` for no limit but the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of memory.
    pub memory_bytes: Option<u64>,
    /// Thousandths of a CPU.
    pub cpu_milli: Option<u32>,
    /// Processes and threads.
    pub pids: Option<u32>,
    /// Endpoints that are bound at once.
    pub endpoints: Option<u32>,
}

/// What can be done with containers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Makes a container.
    Create {
        /// Its name, for people and in the DVK's tables.
        name: String,
        /// The nodes that it spans.
        nodes: BTreeSet<NodeId>,
        /// What it may use.
        limits: Limits,
        /// Its image; the built-in one without.
        image: Option<String>,
    },
    /// Changes the nodes that it spans.
    Scale {
        /// Which one.
        id: ContainerId,
        /// The nodes that it spans from now on.
        nodes: BTreeSet<NodeId>,
    },
    /// Changes what it may use.
    SetLimits {
        /// Which one.
        id: ContainerId,
        /// What it may use.
        limits: Limits,
    },
    /// Ends it.
    Delete {
        /// Which one.
        id: ContainerId,
    },
    /// Lets a node bind server slots, and so many more blocks of slots.
    TakeSlots {
        /// In which container.
        id: ContainerId,
        /// Which life of which node.
        holder: Seat,
        /// How many more blocks.
        blocks: u32,
    },
    /// Gives blocks back in which the holder has bound nothing.
    GiveSlots {
        /// In which container.
        id: ContainerId,
        /// Which life of which node.
        holder: Seat,
        /// Which blocks.
        blocks: Vec<Block>,
    },
    /// Gives a new window of generations for a block.
    RenewSlots {
        /// In which container.
        id: ContainerId,
        /// Which life of which node.
        holder: Seat,
        /// Which block.
        block: Block,
    },
    /// Makes an endpoint known to all nodes.
    Register {
        /// In which container.
        id: ContainerId,
        /// Its raw value.
        endpoint: u64,
        /// Which life of which node has it.
        at: Seat,
        /// Which nodes stand by for it.
        backups: Vec<NodeId>,
    },
    /// Says that an endpoint is no more.
    Unregister {
        /// In which container.
        id: ContainerId,
        /// Its raw value.
        endpoint: u64,
    },
    /// Says that an endpoint is on another node now.
    Relocate {
        /// In which container.
        id: ContainerId,
        /// Its raw value.
        endpoint: u64,
        /// The epoch that this was decided in.
        epoch: u32,
        /// Where it is now.
        to: NodeId,
    },
    /// Says who stands by for an endpoint.
    SetBackups {
        /// In which container.
        id: ContainerId,
        /// Its raw value.
        endpoint: u64,
        /// The epoch that this was decided in.
        epoch: u32,
        /// Which nodes.
        backups: Vec<NodeId>,
    },
    /// Makes a container with a workload. Since version 3.
    Define {
        /// Its name, for people and in the DVK's tables.
        name: String,
        /// The nodes that it spans.
        nodes: BTreeSet<NodeId>,
        /// What it may use.
        limits: Limits,
        /// What it is made of.
        workload: Box<Workload>,
    },
    /// Changes what a container may use and is made of. Since version 3.
    Redefine {
        /// Which one.
        id: ContainerId,
        /// The revision that was seen; what was changed since then is not to be undone unseen.
        revision: u32,
        /// What it may use.
        limits: Limits,
        /// What it is made of.
        workload: Box<Workload>,
    },
}

impl Command {
    /// The version that it came with.
    pub(crate) fn needs(&self) -> u16 {
        match self {
            Self::Define { .. } | Self::Redefine { .. } => 3,
            _ => 1,
        }
    }
}

/// A container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// The nodes that it spans.
    pub nodes: BTreeSet<NodeId>,
    /// What it may use on each.
    pub limits: Limits,
    /// Its image; the built-in one without.
    pub image: Option<String>,
    /// Who may bind which slots.
    pub slots: Slots,
    /// Where its endpoints are.
    pub endpoints: Endpoints,
}

impl Container {
    fn hand_out(&mut self, nodes: &Nodes) {
        let spanned = &self.nodes;
        self.slots.hand_out(|id| nodes.seat(id).ok().filter(|_| spanned.contains(&id)));
    }

    fn check_span(&self, name: &str, node: NodeId) -> Result<(), Refusal> {
        match self.nodes.contains(&node) {
            true => Ok(()),
            false => Err(Refusal::Invalid(format!(
                "container {name} does not span node {node}; scale it first"
            ))),
        }
    }
}

/// The containers by id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Containers {
    by_id: BTreeMap<ContainerId, Container>,
    next_id: ContainerId,
    /// Since version 3; in a snapshot it follows what there was before.
    #[serde(skip)]
    workloads: Workloads,
}

impl Default for Containers {
    fn default() -> Self {
        Self { by_id: BTreeMap::new(), next_id: 1, workloads: Workloads::new() }
    }
}

/// What came of a command about containers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// It was done.
    Done,
    /// A container was made.
    Created(ContainerId),
    /// These blocks were given; more may follow if others give some.
    Blocks(Vec<Block>),
    /// The endpoint is at this epoch.
    Epoch(u32),
}

impl Containers {
    /// A container.
    pub fn get(&self, id: ContainerId) -> Option<&Container> {
        self.by_id.get(&id)
    }

    /// All of them by id.
    pub fn iter(&self) -> impl Iterator<Item = (ContainerId, &Container)> + '_ {
        self.by_id.iter().map(|(id, container)| (*id, container))
    }

    /// What a container is made of, and how often that was changed.
    pub fn defined(&self, id: ContainerId) -> Defined {
        self.workloads.get(&id).cloned().unwrap_or_default()
    }

    /// What is not part of a snapshot of the earlier versions.
    pub(crate) fn workloads(&self) -> &Workloads {
        &self.workloads
    }

    pub(crate) fn set_workloads(&mut self, workloads: Workloads) {
        self.workloads = workloads;
    }

    /// The archives of which containers are made.
    pub fn images(&self) -> impl Iterator<Item = &Image> + '_ {
        self.workloads.values().filter_map(|defined| defined.workload.image.as_ref())
    }

    /// The container of that name.
    pub fn of_name(&self, name: &str) -> Option<(ContainerId, &Container)> {
        self.iter().find(|(_, container)| container.name == name)
    }

    pub(crate) fn apply(&mut self, nodes: &Nodes, command: &Command) -> Result<Answer, Refusal> {
        match command {
            Command::Create { name, nodes: spanned, limits, image } => {
                let container = Container {
                    name: name.clone(),
                    nodes: spanned.clone(),
                    limits: limits.clone(),
                    image: image.clone(),
                    slots: Slots::default(),
                    endpoints: Endpoints::default(),
                };
                self.create(nodes, container).map(Answer::Created)
            }
            Command::Define { name, nodes: spanned, limits, workload } => {
                self.check_workload(None, spanned, workload)?;
                let container = Container {
                    name: name.clone(),
                    nodes: spanned.clone(),
                    limits: limits.clone(),
                    image: None,
                    slots: Slots::default(),
                    endpoints: Endpoints::default(),
                };
                let id = self.create(nodes, container)?;
                let workload = Workload::clone(workload);
                self.workloads.insert(id, Defined { revision: 0, workload });
                Ok(Answer::Created(id))
            }
            Command::Redefine { id, revision, limits, workload } => {
                let current = self.defined(*id).revision;
                let container = self.find(*id)?;
                if current != *revision {
                    return Err(Refusal::Stale {
                        what: Thing::Container,
                        name: container.name.clone(),
                        current: current.into(),
                        given: (*revision).into(),
                    });
                }
                check_limits(limits)?;
                let spanned = container.nodes.clone();
                self.check_workload(Some(*id), &spanned, workload)?;
                self.find(*id)?.limits = limits.clone();
                let workload = Workload::clone(workload);
                let revision = current.saturating_add(1);
                self.workloads.insert(*id, Defined { revision, workload });
                Ok(Answer::Done)
            }
            Command::Scale { id, nodes: spanned } => self.scale(nodes, *id, spanned),
            Command::SetLimits { id, limits } => {
                check_limits(limits)?;
                self.find(*id)?.limits = limits.clone();
                Ok(Answer::Done)
            }
            Command::Delete { id } => {
                let deleted = self.by_id.remove(id);
                self.workloads.remove(id);
                deleted.map(|_| Answer::Done).ok_or_else(|| Refusal::missing(Thing::Container, id))
            }
            Command::TakeSlots { id, holder, blocks } => {
                let container = self.held_by(nodes, *id, *holder)?;
                // Both or nothing.
                let mut slots = container.slots.clone();
                slots.admit(*holder)?;
                let taken = slots.take(*holder, *blocks)?;
                container.slots = slots;
                Ok(Answer::Blocks(taken))
            }
            Command::GiveSlots { id, holder, blocks } => {
                let container = self.held_by(nodes, *id, *holder)?;
                container.slots.give(*holder, blocks)?;
                container.hand_out(nodes);
                Ok(Answer::Done)
            }
            Command::RenewSlots { id, holder, block } => {
                self.held_by(nodes, *id, *holder)?.slots.renew(*holder, *block)?;
                Ok(Answer::Done)
            }
            Command::Register { id, endpoint, at, backups } => {
                let container = self.held_by(nodes, *id, *at)?;
                check_all(backups, |node| container.check_span(&container.name, node))?;
                container.endpoints.register(*endpoint, at.id, backups).map(Answer::Epoch)
            }
            Command::Unregister { id, endpoint } => {
                self.find(*id)?.endpoints.remove(*endpoint)?;
                Ok(Answer::Done)
            }
            Command::Relocate { id, endpoint, epoch, to } => {
                let seat = nodes.seat(*to)?;
                let container = self.held_by(nodes, *id, seat)?;
                container.endpoints.relocate(*endpoint, *epoch, *to).map(Answer::Epoch)
            }
            Command::SetBackups { id, endpoint, epoch, backups } => {
                let container = self.find(*id)?;
                check_all(backups, |node| container.check_span(&container.name, node))?;
                container.endpoints.set_backups(*endpoint, *epoch, backups).map(Answer::Epoch)
            }
        }
    }

    /// `own` is the container whose workload it is to be; a port of the nodes leads to one container only.
    fn check_workload(
        &self,
        own: Option<ContainerId>,
        spanned: &BTreeSet<NodeId>,
        workload: &Workload,
    ) -> Result<(), Refusal> {
        workload.check()?;
        workload.check_nodes(spanned)?;
        let published = |workload: &Workload| {
            let network = workload.network.iter();
            network.flat_map(|it| it.publish.iter().map(|it| it.node)).collect::<Vec<_>>()
        };
        let wanted = published(workload);
        for (id, other) in self.workloads.iter().filter(|(id, _)| Some(**id) != own) {
            let taken = published(&other.workload);
            if let Some(port) = wanted.iter().find(|port| taken.contains(port)) {
                let name = self.by_id.get(id).map(|it| it.name.as_str()).unwrap_or_default();
                return Err(Refusal::Invalid(format!(
                    "port {port} of the nodes leads to container {name} already; publish another one"
                )));
            }
        }
        Ok(())
    }

    fn create(&mut self, nodes: &Nodes, container: Container) -> Result<ContainerId, Refusal> {
        let name = &container.name;
        crate::check_name("a container", name)?;
        if name.len() > NAME_BYTES {
            return Err(Refusal::limit("bytes of a container's name", NAME_BYTES as u64));
        }
        if self.of_name(name).is_some() {
            return Err(Refusal::exists(Thing::Container, name));
        }
        check_limits(&container.limits)?;
        check_span(nodes, name, &container.nodes)?;
        // Ids come back as late as possible: what is left of a deleted container should not meet its successor.
        let last = ContainerId::MAX;
        let id = (self.next_id..=last)
            .chain(1..self.next_id)
            .find(|id| !self.by_id.contains_key(id))
            .ok_or_else(|| Refusal::limit("the number of containers", CONTAINERS - 1))?;
        self.next_id = id.checked_add(1).unwrap_or(1);
        self.by_id.insert(id, container);
        Ok(id)
    }

    fn scale(
        &mut self,
        nodes: &Nodes,
        id: ContainerId,
        spanned: &BTreeSet<NodeId>,
    ) -> Result<Answer, Refusal> {
        self.defined(id).workload.check_nodes(spanned)?;
        let container = self.find(id)?;
        // Nodes that are in it may stay, whatever they are doing.
        let new: BTreeSet<NodeId> = spanned.difference(&container.nodes).copied().collect();
        if spanned.is_empty() || !new.is_empty() {
            let wanted = if spanned.is_empty() { spanned } else { &new };
            check_span(nodes, &container.name, wanted)?;
        }
        let gone: Vec<NodeId> = container.nodes.difference(spanned).copied().collect();
        container.nodes = spanned.clone();
        for node in gone {
            container.slots.reclaim(node);
            container.endpoints.node_down(node, |backup| spanned.contains(&backup));
        }
        container.hand_out(nodes);
        Ok(Answer::Done)
    }

    /// Ends what a life of a node had, which is over or cannot be heard: backups take the place of its endpoints.
    pub(crate) fn node_down(&mut self, nodes: &Nodes, node: NodeId) -> Vec<(ContainerId, Fate)> {
        let mut fates = Vec::new();
        for (id, container) in &mut self.by_id {
            let spanned = &container.nodes;
            let is_up = |backup: NodeId| {
                spanned.contains(&backup) && nodes.get(backup).is_some_and(|node| node.up)
            };
            let ended = container.endpoints.node_down(node, is_up);
            fates.extend(ended.into_iter().map(|fate| (*id, fate)));
            container.slots.reclaim(node);
            container.hand_out(nodes);
        }
        fates
    }

    /// Takes a node out of every container.
    pub(crate) fn remove_node(&mut self, node: NodeId) {
        for container in self.by_id.values_mut() {
            container.nodes.remove(&node);
        }
    }

    fn find(&mut self, id: ContainerId) -> Result<&mut Container, Refusal> {
        self.by_id.get_mut(&id).ok_or_else(|| Refusal::missing(Thing::Container, id))
    }

    /// The container, if this is the present life of a node that it spans.
    fn held_by(
        &mut self,
        nodes: &Nodes,
        id: ContainerId,
        holder: Seat,
    ) -> Result<&mut Container, Refusal> {
        let current = nodes.seat(holder.id)?;
        if current != holder || !nodes.is_up(holder) {
            return Err(Refusal::Stale {
                what: Thing::Node,
                name: holder.id.to_string(),
                current: current.incarnation.into(),
                given: holder.incarnation.into(),
            });
        }
        let container = self.find(id)?;
        container.check_span(&container.name, holder.id)?;
        Ok(container)
    }
}

fn check_all(
    nodes: &[NodeId],
    check: impl Fn(NodeId) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    nodes.iter().try_for_each(|node| check(*node))
}

fn check_span(nodes: &Nodes, name: &str, spanned: &BTreeSet<NodeId>) -> Result<(), Refusal> {
    if spanned.is_empty() {
        return Err(Refusal::Invalid(format!("container {name} would span no node; name one")));
    }
    for id in spanned {
        let node = nodes.get(*id).ok_or_else(|| Refusal::missing(Thing::Node, id))?;
        if node.phase == Phase::Draining {
            return Err(Refusal::Invalid(format!(
                "node {id} is draining and takes no container; choose another, or undrain it"
            )));
        }
    }
    Ok(())
}

fn check_limits(limits: &Limits) -> Result<(), Refusal> {
    let Limits { memory_bytes, cpu_milli, pids, endpoints } = limits;
    let nothing = [*cpu_milli, *pids, *endpoints].contains(&Some(0)) || *memory_bytes == Some(0);
    match nothing {
        true => Err(Refusal::Invalid(
            "a container cannot run with a limit of 0; leave the limit out, or give it more".into(),
        )),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests;
