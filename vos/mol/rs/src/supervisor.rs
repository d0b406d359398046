// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the reincarnation server of one node decides, without I/O, clock or randomness.
//!
//! It is told what the container's keys say, what became of processes, of its lease and of elections, and that time has passed,
//! and says what to do. The rules:
//!
//! - A server of which there is one at a time runs under the lead of an election, and that under the node's lease. It is told to
//!   end [`Supervisor::TERM_AFTER`] after the last time that the lease was known to last, and killed [`Supervisor::KILL_AFTER`] after it, which
//!   is before the lease can have ended. The time counts from when it was asked, not from when it was answered.
//! - The lead is given up only when the process is gone, and what it had started.
//! - Servers of each node run whatever the lease does.
//! - Who ends by itself runs again after a pause that doubles from [`Supervisor::PAUSE_MIN`] to [`Supervisor::PAUSE_MAX`], and begins anew
//!   after [`Supervisor::GOOD`] of running. At the longest pause, a server of which there is one is left to another node, if one is there that may
//!   have it.
//! - While the preferred node is there, others stand for election [`Supervisor::PATIENCE`] later, and leave the line if they are in it; who
//!   leads gives the lead up only to a preference that is new: what people have said last, be it by a move or by another manifest.

mod server;

use self::server::Server;
use crate::manifest::Manifest;
use crate::report::{Report, Told};
use core::time::Duration;
use dvk_services::Lease;
use std::collections::{BTreeMap, BTreeSet};

/// Since any moment before; it never goes back.
pub type Time = Duration;

/// What the keys of the container say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Which revision of the keys has the manifest.
    pub revision: u64,
    /// Which servers there are to be; none before anybody has said so.
    pub manifest: Manifest,
    /// Nodes with a reincarnation server.
    pub alive: BTreeSet<u32>,
    /// Where people want servers to be, and the revision that says so.
    pub preferences: BTreeMap<String, (u32, u64)>,
    /// Servers that people have stopped.
    pub stopped: BTreeSet<String>,
    /// Servers that run on any node.
    pub running: BTreeSet<String>,
}

/// What the supervisor is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// What the keys say.
    View(View),
    /// A lease lasts its whole time from a moment on; it may be another one than before.
    Lasts(Lease, Time),
    /// A lease has ended.
    LeaseEnded(Lease),
    /// A candidate leads.
    Won {
        /// Of which server.
        server: String,
        /// Under which lease.
        lease: Lease,
        /// Which [`Action::Stand`] that was.
        attempt: u64,
        /// The fencing token.
        term: u64,
    },
    /// A process runs.
    Started {
        /// Which server.
        server: String,
        /// Its number.
        pid: u32,
    },
    /// A process has ended by itself or because it was told to, and others of its group have not.
    Leaving {
        /// Which server.
        server: String,
    },
    /// A process could not be made, or has ended, and so has all that it had started.
    Ended {
        /// Which server.
        server: String,
        /// How.
        how: String,
    },
    /// Time has passed.
    Tick,
    /// Everything is to end.
    End,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make a process.
    Start {
        /// Which server.
        server: String,
        /// Program and arguments.
        command: Vec<String>,
        /// More variables.
        environment: BTreeMap<String, String>,
        /// The fencing token.
        term: Option<u64>,
    },
    /// Ask a process to end, and those that it has started.
    Terminate(String),
    /// End them.
    Kill(String),
    /// Stand for election.
    Stand {
        /// Of which server.
        server: String,
        /// Under which lease.
        lease: Lease,
        /// Tells it from others.
        attempt: u64,
    },
    /// Stand or lead no more.
    Resign {
        /// Of which server.
        server: String,
        /// Under which lease.
        lease: Lease,
    },
    /// Tell others how the servers are.
    Tell(Told),
    /// All processes are gone.
    End,
}

/// The node's lease, as far as is known.
#[derive(Clone, Copy, Debug)]
struct Held {
    lease: Lease,
    /// It lasts its time from here on at least.
    renewed: Time,
}

/// What all servers of a node share.
#[derive(Debug)]
struct Surroundings {
    node: u32,
    held: Option<Held>,
    view: View,
    /// Servers that run here.
    running: BTreeSet<String>,
    is_ending: bool,
    attempts: u64,
}

/// The reincarnation server of one node.
#[derive(Debug)]
pub struct Supervisor {
    surroundings: Surroundings,
    servers: BTreeMap<String, Server>,
    told: Option<Told>,
    has_ended: bool,
}

impl Supervisor {
    /// How long the lease lasts unless it is kept alive.
    pub const TTL: Duration = Duration::from_secs(5);
    /// When servers under it are told to end, after it was kept alive last.
    pub const TERM_AFTER: Duration = Duration::from_millis(3_333);
    /// When they are killed: early enough that they are gone when it ends.
    pub const KILL_AFTER: Duration = Duration::from_millis(4_000);
    /// How long a process may take to end before it is killed.
    pub const GRACE: Duration = Duration::from_secs(3);
    /// The pause after a server has ended by itself for the first time.
    pub const PAUSE_MIN: Duration = Duration::from_secs(1);
    /// The longest one.
    pub const PAUSE_MAX: Duration = Duration::from_secs(30);
    /// How long a server has to run for what was before not to count.
    pub const GOOD: Duration = Duration::from_secs(30);
    /// How much later than the preferred node others stand.
    pub const PATIENCE: Duration = Duration::from_secs(2);

    /// That of a node.
    pub fn new(node: u32) -> Self {
        let surroundings = Surroundings {
            node,
            held: None,
            view: View::default(),
            running: BTreeSet::new(),
            is_ending: false,
            attempts: 0,
        };
        Self { surroundings, servers: BTreeMap::new(), told: None, has_ended: false }
    }

    /// Takes an event, and says what to do, in this order.
    pub fn handle(&mut self, now: Time, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::View(view) => {
                for (name, definition) in &view.manifest.servers {
                    let server = self.servers.entry(name.clone()).or_insert_with(|| {
                        let revision = view.preferences.get(name).map_or(0, |it| it.1);
                        Server::new(name, definition, revision, now)
                    });
                    server.define(Some(definition));
                }
                for (name, server) in &mut self.servers {
                    if !view.manifest.servers.contains_key(name) {
                        server.define(None);
                    }
                }
                self.surroundings.view = view;
            }
            Event::Lasts(lease, renewed) => self.lasts(lease, renewed),
            Event::LeaseEnded(lease) => {
                if self.surroundings.held.is_some_and(|held| held.lease == lease) {
                    self.surroundings.held = None;
                }
            }
            Event::Won { server, lease, attempt, term } => {
                if let Some(server) = self.servers.get_mut(&server) {
                    server.won(lease, attempt, term);
                }
            }
            Event::Started { server, pid } => {
                if let Some(server) = self.servers.get_mut(&server) {
                    server.started(now, pid);
                }
            }
            Event::Leaving { server } => {
                if let Some(server) = self.servers.get_mut(&server) {
                    server.leaving(now);
                }
                // What is left may not have been told.
                actions.push(Action::Terminate(server));
            }
            Event::Ended { server, how } => {
                if let Some(server) = self.servers.get_mut(&server) {
                    server.ended(now, how);
                }
            }
            Event::Tick => {}
            Event::End => self.surroundings.is_ending = true,
        }
        self.settle(now, &mut actions);
        actions
    }

    fn lasts(&mut self, lease: Lease, renewed: Time) {
        let held = &mut self.surroundings.held;
        *held = match *held {
            // Answers may come late.
            Some(before) if before.lease == lease => {
                Some(Held { lease, renewed: before.renewed.max(renewed) })
            }
            _ => Some(Held { lease, renewed }),
        };
    }

    fn settle(&mut self, now: Time, actions: &mut Vec<Action>) {
        let runs = |server: &Server| server.is_running();
        let running = self.servers.iter().filter(|(_, server)| runs(server));
        self.surroundings.running = running.map(|(name, _)| name.clone()).collect();
        for server in self.servers.values_mut() {
            server.settle(now, &mut self.surroundings, actions);
        }
        self.servers.retain(|_, server| !server.is_over());
        let servers: Vec<Report> = self
            .servers
            .values_mut()
            .filter_map(|server| server.report(now, &self.surroundings))
            .collect();
        let told = Told { revision: self.surroundings.view.revision, servers };
        if self.told.as_ref() != Some(&told) {
            self.told = Some(told.clone());
            // Who takes over a lead must not be told of before this node says that it has ended its server.
            actions.insert(0, Action::Tell(told));
        }
        let is_idle = self.servers.values().all(Server::is_idle);
        if self.surroundings.is_ending && is_idle && !self.has_ended {
            self.has_ended = true;
            actions.push(Action::End);
        }
    }

    /// What it told last.
    pub fn reports(&self) -> &[Report] {
        self.told.as_ref().map_or(&[], |told| &told.servers)
    }
}
