// SPDX-License-Identifier: MIT OR Apache-2.0
//! The whole state, and how a command changes it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::barriers::{self, Barriers};
use crate::command::{Answer, Command, Entry, Outcome, VERSION};
use crate::containers::{self, Containers};
use crate::elections::{self, Elections};
use crate::events::{Events, Happening};
use crate::groups::{self, Groups};
use crate::images::{self, Images};
use crate::kv;
use crate::leases::{self, LeaseId, Leases};
use crate::lifecycle::{self, Bar, Lifecycle};
use crate::links::{self, Links};
use crate::locks::{self, Locks};
use crate::nodes::{self, Join, Machine, NodeId, Nodes, Phase, Seat};
use crate::refusal::{Refusal, Thing};
use crate::tickets::Tickets;
use crate::time::Time;
use crate::tokens::{self, Tokens};
use crate::upgrades::{self, Step, Upgrades};

/// Which cluster this is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its name, chosen by people.
    pub name: String,
    /// Its id, drawn at random.
    pub id: u64,
}

/// What the nodes agree on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    version: u16,
    applied: u64,
    now: Time,
    tickets: Tickets,
    identity: Option<Identity>,
    nodes: Nodes,
    tokens: Tokens,
    links: Links,
    containers: Containers,
    kv: kv::Store,
    leases: Leases,
    locks: Locks,
    elections: Elections,
    barriers: Barriers,
    groups: Groups,
    /// Since version 2; in a snapshot it follows what there was before.
    #[serde(skip)]
    events: Events,
    /// The same.
    #[serde(skip)]
    lifecycle: Lifecycle,
    /// The same.
    #[serde(skip)]
    token_notes: tokens::Notes,
    /// Since version 3, likewise.
    #[serde(skip)]
    images: Images,
    /// Since version 4, likewise.
    #[serde(skip)]
    upgrades: Upgrades,
}

/// The version since which events are recorded, and are part of a snapshot like what people decide about nodes.
const EVENTS_SINCE: u16 = 2;
/// The version since which containers have workloads and images.
const WORKLOADS_SINCE: u16 = 3;
/// The version since which nodes are upgraded.
const UPGRADES_SINCE: u16 = 4;

/// Why bytes are no state that this node can go on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// It is of a version that this release does not know.
    #[error("the state is of version {version}, and this release knows versions up to {VERSION}; update the node")]
    TooNew {
        /// Its version.
        version: u16,
    },
    /// It is damaged.
    #[error("the state cannot be decoded: it is damaged or no state at all")]
    Malformed,
}

impl Default for State {
    fn default() -> Self {
        Self {
            version: 1,
            applied: 0,
            now: Time::default(),
            tickets: Tickets::default(),
            identity: None,
            nodes: Nodes::default(),
            tokens: Tokens::default(),
            links: Links::default(),
            containers: Containers::default(),
            kv: kv::Store::default(),
            leases: Leases::default(),
            locks: Locks::default(),
            elections: Elections::default(),
            barriers: Barriers::default(),
            groups: Groups::default(),
            events: Events::default(),
            lifecycle: Lifecycle::default(),
            token_notes: tokens::Notes::default(),
            images: Images::default(),
            upgrades: Upgrades::default(),
        }
    }
}

impl State {
    /// The version of commands that the nodes have agreed to use.
    pub fn version(&self) -> u16 {
        self.version
    }

    /// The place in the log of the last command that was applied; 0 before the first.
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// The agreed time, which is that of the last command.
    pub fn now(&self) -> Time {
        self.now
    }

    /// Which cluster this is; `None` before it is formed.
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// The nodes.
    pub fn nodes(&self) -> &Nodes {
        &self.nodes
    }

    /// The join tokens.
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// The choices of transports.
    pub fn links(&self) -> &Links {
        &self.links
    }

    /// The Distributed Containers.
    pub fn containers(&self) -> &Containers {
        &self.containers
    }

    /// Keys and values.
    pub fn kv(&self) -> &kv::Store {
        &self.kv
    }

    /// The leases.
    pub fn leases(&self) -> &Leases {
        &self.leases
    }

    /// The locks.
    pub fn locks(&self) -> &Locks {
        &self.locks
    }

    /// The elections.
    pub fn elections(&self) -> &Elections {
        &self.elections
    }

    /// The barriers.
    pub fn barriers(&self) -> &Barriers {
        &self.barriers
    }

    /// The groups.
    pub fn groups(&self) -> &Groups {
        &self.groups
    }

    /// What has happened; empty before version 2.
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// What is known of the join tokens that were issued.
    pub fn token_notes(&self) -> &tokens::Notes {
        &self.token_notes
    }

    /// Images of containers by name.
    pub fn images(&self) -> &Images {
        &self.images
    }

    /// The upgrades of nodes.
    pub fn upgrades(&self) -> &Upgrades {
        &self.upgrades
    }

    /// What was decided about nodes.
    pub fn lifecycle(&self) -> &Lifecycle {
        &self.lifecycle
    }

    /// When something ends by itself, if no command comes before. A leader then proposes [`Command::Tick`].
    pub fn deadline(&self) -> Option<Time> {
        self.leases.deadline().into_iter().chain(self.tokens.deadline()).min()
    }

    /// The state as bytes, the same for the same state.
    ///
    /// # Errors
    /// [`SnapshotError::Malformed`] if it cannot be written, which does not happen while memory lasts.
    pub fn to_bytes(&self) -> Result<Vec<u8>, SnapshotError> {
        // What a later version has added is left out of an earlier one, which nodes of an earlier release have to read.
        let mut bytes = postcard::to_allocvec(self);
        if self.version >= EVENTS_SINCE {
            let second = (&self.events, &self.lifecycle, &self.token_notes);
            bytes = bytes.and_then(|bytes| postcard::to_extend(&second, bytes));
        }
        if self.version >= WORKLOADS_SINCE {
            let third = (self.containers.workloads(), &self.images);
            bytes = bytes.and_then(|bytes| postcard::to_extend(&third, bytes));
        }
        if self.version >= UPGRADES_SINCE {
            bytes = bytes.and_then(|bytes| postcard::to_extend(&self.upgrades, bytes));
        }
        bytes.map_err(|_| SnapshotError::Malformed)
    }

    /// The state that was written as these bytes.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SnapshotError> {
        // The version comes first, so it can be read whatever follows.
        let (version, _): (u16, _) =
            postcard::take_from_bytes(bytes).map_err(|_| SnapshotError::Malformed)?;
        if version > VERSION {
            return Err(SnapshotError::TooNew { version });
        }
        let (mut state, mut rest): (Self, _) =
            postcard::take_from_bytes(bytes).map_err(|_| SnapshotError::Malformed)?;
        if state.version >= EVENTS_SINCE {
            ((state.events, state.lifecycle, state.token_notes), rest) =
                postcard::take_from_bytes(rest).map_err(|_| SnapshotError::Malformed)?;
        }
        if state.version >= WORKLOADS_SINCE {
            let workloads;
            ((workloads, state.images), rest) =
                postcard::take_from_bytes(rest).map_err(|_| SnapshotError::Malformed)?;
            state.containers.set_workloads(workloads);
        }
        if state.version >= UPGRADES_SINCE {
            (state.upgrades, rest) =
                postcard::take_from_bytes(rest).map_err(|_| SnapshotError::Malformed)?;
        }
        match rest {
            [] => Ok(state),
            _ => Err(SnapshotError::Malformed),
        }
    }

    /// Applies the command at the place `index` of the log. A command that is refused changes nothing but that time passes.
    ///
    /// # Errors
    /// [`Refusal`]: the same on every node.
    pub fn apply(&mut self, index: u64, entry: &Entry) -> Outcome {
        self.pass_time(index, entry.now);
        let command = entry.command(self.version)?;
        if self.identity.is_none() && !matches!(command, Command::Form { .. } | Command::Tick) {
            return Err(Refusal::NotFormed);
        }
        self.perform(&command)
    }

    fn pass_time(&mut self, index: u64, now: Time) {
        self.applied = index;
        // A leader that has not applied everything of the one before may give an earlier time.
        self.now = self.now.max(now);
        while let Some(lease) = self.leases.expire_one(self.now) {
            self.end_lease(lease);
        }
        for token in self.tokens.expire(self.now) {
            self.token_notes.remove(&token);
            self.record(Happening::TokenExpired { token });
        }
    }

    /// Nodes of a release that knows no events have none, and all have the same.
    fn record(&mut self, what: Happening) {
        if self.version >= EVENTS_SINCE {
            self.events.record(self.now, what);
        }
    }

    fn perform(&mut self, command: &Command) -> Outcome {
        match command {
            Command::Tick => Ok(Answer::Done),
            Command::Form { name, id, nodes } => self.form(name, *id, nodes),
            Command::Raise { version } => self.raise(*version),
            Command::Nodes(command) => self.nodes_command(command),
            Command::Tokens(command) => self.tokens_command(command),
            Command::Links(links::Command::Choose { a, b, transport }) => {
                self.links.choose(&self.nodes, *a, *b, *transport)?;
                self.record(Happening::TransportChosen { a: *a, b: *b, transport: *transport });
                Ok(Answer::Done)
            }
            Command::Containers(command) => self.containers_command(command),
            Command::Kv(kv::Command::Transact(transaction)) => {
                transaction.run(&mut self.kv, &self.leases).map(Answer::Transaction)
            }
            Command::Kv(kv::Command::Compact { revision }) => {
                self.kv.compact(*revision).map(|()| Answer::Done)
            }
            Command::Leases(command) => self.leases_command(command),
            Command::Locks(command) => self.locks_command(command),
            Command::Elections(command) => self.elections_command(command),
            Command::Barriers(command) => self.barriers_command(command),
            Command::Groups(command) => self.groups_command(command),
            Command::Events(command) => {
                self.events.apply(self.now, &self.nodes, command).map(|()| Answer::Done)
            }
            Command::Lifecycle(command) => self.lifecycle_command(command),
            Command::Images(command) => self.images_command(command),
            Command::Upgrades(command) => self.upgrades_command(command),
        }
    }

    /// Forming again with the same id changes nothing, so that whoever missed the answer can ask again.
    fn form(&mut self, name: &str, id: u64, joins: &[Join]) -> Outcome {
        crate::check_name("a cluster", name)?;
        if let Some(identity) = &self.identity {
            return match identity.id == id {
                true => Ok(Answer::Changed(false)),
                false => Err(Refusal::Invalid(format!(
                    "this is cluster {} with id {:016x}, which cannot be formed anew",
                    identity.name, identity.id
                ))),
            };
        }
        if joins.is_empty() {
            return Err(Refusal::Invalid("a cluster without a node cannot be formed".into()));
        }
        let mut nodes = Nodes::default();
        for join in joins {
            if nodes.of_machine(join.machine).is_some() {
                return Err(Refusal::Invalid(format!("machine {} is there twice", join.machine)));
            }
            nodes.join(join, self.version)?;
        }
        self.nodes = nodes;
        self.identity = Some(Identity { name: name.to_owned(), id });
        Ok(Answer::Changed(true))
    }

    fn raise(&mut self, version: u16) -> Outcome {
        let understood = self.nodes.understood().unwrap_or(self.version);
        if version > understood {
            return Err(Refusal::TooNew { needed: version, agreed: understood });
        }
        let changed = version > self.version;
        self.version = self.version.max(version);
        if changed && self.events.last() == 0 {
            self.begin_events();
        }
        if changed {
            self.record(Happening::Raised { version });
        }
        Ok(Answer::Changed(changed))
    }

    /// A record begins with who was there before.
    fn begin_events(&mut self) {
        let Some(Identity { name, .. }) = self.identity.clone() else { return };
        self.record(Happening::Begun { name });
        let ids: Vec<_> = self.nodes.iter().map(|(id, _)| id).collect();
        ids.into_iter().for_each(|id| self.record_joined(id));
    }

    fn record_joined(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get(id) else { return };
        let seat = Seat { id, incarnation: node.incarnation };
        let (name, machine) = (node.name.clone(), node.machine);
        self.record(Happening::NodeJoined { seat, name, machine });
    }

    fn nodes_command(&mut self, command: &nodes::Command) -> Outcome {
        match command {
            nodes::Command::Join(join) => self.join(join),
            nodes::Command::SetPhase { seat, phase } => self.set_phase(*seat, *phase),
            nodes::Command::SetUp { seat, up } => self.set_up(*seat, *up),
            nodes::Command::SetRole { id, role } => {
                self.nodes.set_role(*id, *role).map(|()| Answer::Done)
            }
            nodes::Command::Rename { id, name } => {
                let before = self.nodes.get(*id).map(|node| (node.name.clone(), node.machine));
                self.nodes.rename(*id, name)?;
                if self.version >= EVENTS_SINCE {
                    before.iter().for_each(|(_, machine)| self.lifecycle.name(*machine));
                }
                if let Some((from, _)) = before.filter(|(before, _)| before != name) {
                    self.record(Happening::NodeRenamed { node: *id, from, to: name.clone() });
                }
                Ok(Answer::Done)
            }
        }
    }

    fn join(&mut self, join: &Join) -> Outcome {
        if let Some(Bar { seat, name, .. }) = self.lifecycle.bar(join.machine) {
            return Err(Refusal::Invalid(format!(
                "machine {} was node {}, {name}, and was removed; reset it, or let it join by a new \
                 token",
                join.machine, seat.id
            )));
        }
        let had = self.nodes.of_machine(join.machine);
        let had = had.map(|(id, node)| (id, node.incarnation));
        let (seat, ended) = self.nodes.join(join, self.version)?;
        for id in ended {
            self.containers.node_down(&self.nodes, id);
        }
        if had != Some((seat.id, seat.incarnation)) {
            self.record_joined(seat.id);
            if self.lifecycle.is_drained(join.machine) {
                self.nodes.set_phase(seat, Phase::Draining)?;
            }
        }
        Ok(Answer::Seated(seat))
    }

    fn set_phase(&mut self, seat: Seat, phase: Phase) -> Outcome {
        let node = self.nodes.get(seat.id);
        let before = node.map(|node| (node.phase, node.name.clone()));
        let kept = node.is_some_and(|node| self.lifecycle.is_drained(node.machine));
        // It is kept empty however far it has come.
        let phase = if kept && phase == Phase::Ready { Phase::Draining } else { phase };
        self.nodes.set_phase(seat, phase)?;
        if let Some((before, name)) = before.filter(|(before, _)| *before != phase) {
            self.record_phase(seat.id, name, before, phase);
        }
        if phase != Phase::Removed {
            return Ok(Answer::Done);
        }
        let fates = self.containers.node_down(&self.nodes, seat.id);
        self.containers.remove_node(seat.id);
        self.links.remove_node(seat.id);
        self.upgrades.forget(seat.id);
        Ok(Answer::Fates(fates))
    }

    fn lifecycle_command(&mut self, command: &lifecycle::Command) -> Outcome {
        match command {
            lifecycle::Command::Drain { seat, until } => {
                self.set_phase(*seat, Phase::Draining)?;
                let machine = self.nodes.get(seat.id).map(|node| node.machine);
                machine.into_iter().for_each(|machine| self.lifecycle.drain(machine, *until));
                Ok(Answer::Done)
            }
            lifecycle::Command::Undrain { id } => {
                let seat = self.nodes.seat(*id)?;
                let node = self.nodes.get(*id).map(|node| (node.machine, node.phase));
                node.into_iter().for_each(|(machine, _)| self.lifecycle.undrain(machine));
                match node {
                    Some((_, Phase::Draining)) => self.set_phase(seat, Phase::Ready),
                    _ => Ok(Answer::Done),
                }
            }
            lifecycle::Command::Remove { seat } => {
                let node = self.nodes.get(seat.id).map(|node| (node.machine, node.name.clone()));
                let answer = self.set_phase(*seat, Phase::Removed)?;
                if let Some((machine, name)) = node {
                    let (seat, since) = (*seat, self.now);
                    self.lifecycle.keep_out(machine, Bar { seat, name, since });
                }
                Ok(answer)
            }
            lifecycle::Command::Allow { machine } => {
                let changed = self.lifecycle.allow(*machine);
                if changed {
                    self.record(Happening::MachineAllowed { machine: *machine });
                }
                Ok(Answer::Changed(changed))
            }
        }
    }

    fn record_phase(&mut self, node: NodeId, name: String, before: Phase, phase: Phase) {
        self.record(match phase {
            // It is what it was before it had its tables, which `NodeJoined` says.
            Phase::Joining if before == Phase::Joining => return,
            Phase::Joining | Phase::Ready => Happening::NodeReady { node },
            Phase::Draining => Happening::NodeDraining { node },
            Phase::Removed => Happening::NodeRemoved { node, name },
        });
    }

    fn set_up(&mut self, seat: Seat, up: bool) -> Outcome {
        let was_up = self.nodes.is_up(seat);
        self.nodes.set_up(seat, up)?;
        if was_up != up {
            let node = seat.id;
            self.record(match up {
                true => Happening::NodeUp { node },
                false => Happening::NodeDown { node },
            });
        }
        match was_up && !up {
            true => Ok(Answer::Fates(self.containers.node_down(&self.nodes, seat.id))),
            false => Ok(Answer::Changed(was_up != up)),
        }
    }

    fn tokens_command(&mut self, command: &tokens::Command) -> Outcome {
        match command {
            tokens::Command::Create { name, hash, ttl_ms, uses } => {
                self.tokens.create(self.now, name, *hash, *ttl_ms, *uses)?;
                self.record(Happening::TokenCreated { token: name.clone() });
            }
            tokens::Command::Revoke { name } => {
                self.tokens.revoke(name)?;
                self.token_notes.remove(name);
                self.record(Happening::TokenRevoked { token: name.clone() });
            }
            tokens::Command::Use { hash } => {
                let token = self.tokens.use_once(hash)?;
                self.record(Happening::TokenUsed { token });
            }
            tokens::Command::Issue { name, public, ttl_ms, uses, description } => {
                crate::check_label("a join token's description", description)?;
                self.tokens.create(self.now, name, *public, *ttl_ms, *uses)?;
                let (description, created) = (description.clone(), self.now);
                let note = tokens::Note { description, created, machines: BTreeSet::new() };
                self.token_notes.insert(name.clone(), note);
                self.record(Happening::TokenCreated { token: name.clone() });
            }
            tokens::Command::Redeem { name, machine } => self.redeem(name, *machine)?,
        }
        Ok(Answer::Done)
    }

    fn redeem(&mut self, name: &str, machine: Machine) -> Result<(), Refusal> {
        let missing = || Refusal::missing(Thing::Token, name);
        let note = self.token_notes.get_mut(name).ok_or_else(missing)?;
        if self.lifecycle.bar(machine).is_some_and(|bar| bar.since >= note.created) {
            return Err(Refusal::Invalid(format!(
                "machine {machine} was removed after join token {name} was created; reset it, or create another token"
            )));
        }
        if !note.machines.contains(&machine) {
            self.tokens.spend(name)?;
            note.machines.insert(machine);
            self.record(Happening::TokenUsed { token: name.to_owned() });
        }
        if self.lifecycle.allow(machine) {
            self.record(Happening::MachineAllowed { machine });
        }
        Ok(())
    }

    fn containers_command(&mut self, command: &containers::Command) -> Outcome {
        use containers::Command as C;
        let named = match command {
            C::Scale { id, .. } | C::Delete { id } | C::Redefine { id, .. } => {
                self.containers.get(*id)
            }
            _ => None,
        };
        let named = named.map(|container| container.name.clone()).unwrap_or_default();
        let answer = self.containers.apply(&self.nodes, command)?;
        match (command, &answer) {
            (C::Create { name, .. } | C::Define { name, .. }, containers::Answer::Created(id)) => {
                self.record(Happening::ContainerCreated { id: *id, name: name.clone() });
            }
            (C::Scale { id, nodes }, _) => {
                let nodes = nodes.iter().copied().collect();
                self.record(Happening::ContainerScaled { id: *id, name: named, nodes });
            }
            (C::Redefine { id, .. }, _) => {
                let revision = self.containers.defined(*id).revision;
                self.record(Happening::ContainerChanged { id: *id, name: named, revision });
            }
            (C::Delete { id }, _) => {
                self.record(Happening::ContainerDeleted { id: *id, name: named });
            }
            _ => {}
        }
        Ok(Answer::Container(answer))
    }

    fn images_command(&mut self, command: &images::Command) -> Outcome {
        let changed = self.images.apply(self.now, command)?;
        if changed {
            self.record(match command {
                images::Command::Name { name, digest, .. } => {
                    Happening::ImageNamed { name: name.clone(), digest: *digest }
                }
                images::Command::Forget { name } => {
                    Happening::ImageForgotten { name: name.clone() }
                }
            });
        }
        Ok(Answer::Changed(changed))
    }

    fn upgrades_command(&mut self, command: &upgrades::Command) -> Outcome {
        use upgrades::Command as U;
        let upgrade = self.upgrades.apply(&self.nodes, self.now, command)?;
        match command {
            U::Start { bundle, .. } => {
                let release = bundle.release.clone();
                self.record(Happening::UpgradeStarted { upgrade, release });
            }
            U::Advance { node, to, .. } => match to {
                Step::Failed { cause } => {
                    let (node, cause) = (*node, upgrades::cut(cause));
                    self.record(Happening::UpgradeFailed { upgrade, node, cause });
                }
                Step::Restarting { .. } => {
                    self.record(Happening::UpgradeRestarts { upgrade, node: *node });
                }
                Step::Done => self.record(Happening::NodeUpgraded { upgrade, node: *node }),
                Step::Waiting | Step::Fetching | Step::Ready => {}
            },
            U::Pause { why, .. } => {
                let why = upgrades::cut(why);
                self.record(Happening::UpgradePaused { upgrade, why });
            }
            U::Resume { .. } => self.record(Happening::UpgradeResumed { upgrade }),
            U::Cancel { .. } => self.record(Happening::UpgradeCancelled { upgrade }),
            U::Complete { .. } => self.record(Happening::UpgradeComplete { upgrade }),
        }
        Ok(Answer::Upgrade(upgrade))
    }

    fn leases_command(&mut self, command: &leases::Command) -> Outcome {
        match command {
            leases::Command::Grant { ttl_ms, owner } => {
                let granted = self.leases.grant(&mut self.tickets, self.now, *ttl_ms, owner);
                granted.map(Answer::Granted)
            }
            leases::Command::KeepAlive(id) => {
                self.leases.keep_alive(self.now, *id).map(Answer::KeptAlive)
            }
            leases::Command::Revoke(id) => {
                self.leases.revoke(*id)?;
                self.end_lease(*id);
                Ok(Answer::Done)
            }
        }
    }

    fn end_lease(&mut self, lease: LeaseId) {
        self.kv.end_lease(lease);
        self.locks.end_lease(&mut self.tickets, lease);
        self.elections.end_lease(&mut self.tickets, lease);
        self.barriers.end_lease(lease);
        self.groups.end_lease(&mut self.tickets, lease);
    }

    fn locks_command(&mut self, command: &locks::Command) -> Outcome {
        match command {
            locks::Command::Acquire { name, lease, places, wait, label } => {
                self.leases.check(*lease)?;
                let tickets = &mut self.tickets;
                let standing = self.locks.acquire(tickets, name, *lease, *places, *wait, label)?;
                Ok(Answer::Standing(standing))
            }
            locks::Command::Release { name, lease } => {
                Ok(Answer::Changed(self.locks.release(&mut self.tickets, name, *lease)))
            }
        }
    }

    fn elections_command(&mut self, command: &elections::Command) -> Outcome {
        match command {
            elections::Command::Stand { name, lease, value } => {
                self.leases.check(*lease)?;
                let standing = self.elections.stand(&mut self.tickets, name, *lease, value)?;
                Ok(Answer::Standing(standing))
            }
            elections::Command::Proclaim { name, lease, value } => {
                self.elections.proclaim(name, *lease, value).map(|()| Answer::Done)
            }
            elections::Command::Resign { name, lease } => {
                Ok(Answer::Changed(self.elections.resign(&mut self.tickets, name, *lease)))
            }
        }
    }

    fn barriers_command(&mut self, command: &barriers::Command) -> Outcome {
        match command {
            barriers::Command::Arrive { name, lease, parties, attempt } => {
                self.leases.check(*lease)?;
                let tickets = &mut self.tickets;
                let passage = self.barriers.arrive(tickets, name, *lease, *parties, *attempt)?;
                Ok(Answer::Passage(passage))
            }
            barriers::Command::Leave { name, lease } => {
                self.barriers.leave(name, *lease).map(Answer::Changed)
            }
        }
    }

    fn groups_command(&mut self, command: &groups::Command) -> Outcome {
        let tickets = &mut self.tickets;
        match command {
            groups::Command::Join { group, lease, name } => {
                self.leases.check(*lease)?;
                self.groups.join(tickets, group, *lease, name).map(|at| Answer::Position(Some(at)))
            }
            groups::Command::Leave { group, lease } => {
                Ok(Answer::Changed(self.groups.leave(tickets, group, *lease)))
            }
            groups::Command::Multicast { group, lease, number, payload } => {
                let position = self.groups.multicast(tickets, group, *lease, *number, payload)?;
                Ok(Answer::Position(position))
            }
            groups::Command::Acknowledge { group, lease, up_to } => {
                self.groups.acknowledge(tickets, group, *lease, *up_to).map(|()| Answer::Done)
            }
        }
    }
}
