// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the reincarnation servers of a container keep in its keys.
//!
//! | key | under a lease | has |
//! |---|---|---|
//! | `rs/manifest` | | the manifest, as it was written |
//! | `rs/node/N` | yes | that node N has a reincarnation server |
//! | `rs/state/N` | yes | how the servers are there, and by which manifest, as JSON |
//! | `rs/prefer/NAME` | | the node where people want a server to be |
//! | `rs/stop/NAME` | | that people have stopped a server |

use crate::error::{services, Error};
use crate::manifest::Manifest;
use crate::report::{State, Told};
use crate::supervisor::View;
use dvk_services::{
    Answer, Client, Compare, Lease, Operation, Pair, Question, Reason, Subject, Transaction, Way,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What all keys begin with.
pub const PREFIX: &[u8] = b"rs/";
const MANIFEST: &[u8] = b"rs/manifest";
const NODES: &str = "rs/node/";
const STATES: &str = "rs/state/";
const PREFERENCES: &str = "rs/prefer/";
const STOPPED: &str = "rs/stop/";
/// How long it is insisted on reading while nobody leads.
const PATIENCE: Duration = Duration::from_secs(5);
/// So many keys are read at once at most.
const LIMIT: u32 = 1_024;

/// The election of a server.
pub fn election(server: &str) -> String {
    format!("rs/{server}")
}

/// What there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The manifest as it was written, and the revision that did.
    pub manifest: Option<(String, u64)>,
    /// Nodes with a reincarnation server.
    pub alive: BTreeSet<u32>,
    /// Where servers are wanted, and the revision that says so.
    pub preferences: BTreeMap<String, (u32, u64)>,
    /// Which servers are stopped.
    pub stopped: BTreeSet<String>,
    /// What the nodes tell.
    pub told: BTreeMap<u32, Told>,
}

impl Seen {
    /// As a supervisor sees it.
    pub fn view(&self, manifest: Manifest) -> View {
        let all = self.told.values().flat_map(|told| &told.servers);
        let running = all.filter(|report| report.state == State::Running);
        View {
            revision: self.manifest.as_ref().map_or(0, |(_, revision)| *revision),
            manifest,
            alive: self.alive.clone(),
            preferences: self.preferences.clone(),
            stopped: self.stopped.clone(),
            running: running.map(|report| report.server.clone()).collect(),
        }
    }

    /// The manifest, if there is one.
    ///
    /// # Errors
    /// [`Error::NoManifest`], [`Error::Manifest`].
    pub fn manifest(&self) -> Result<Manifest, Error> {
        let (text, _) = self.manifest.as_ref().ok_or(Error::NoManifest)?;
        Ok(Manifest::read(text)?)
    }
}

/// The keys.
#[derive(Debug)]
pub struct Board<W> {
    client: Client<W>,
}

impl<W: Way> Board<W> {
    /// Reached by a client.
    pub fn new(client: Client<W>) -> Self {
        Self { client }
    }

    /// The client.
    pub fn client(&self) -> &Client<W> {
        &self.client
    }

    fn read(&self, key: &[u8], exact: bool) -> Result<Vec<Pair>, Error> {
        let failed = services("read the keys of the reincarnation servers");
        let question = Question::Read { key: key.to_vec(), exact, limit: LIMIT, stale: false };
        match self.client.insist(&question, PATIENCE).map_err(&failed)? {
            Answer::Range(range) => Ok(range.pairs),
            _ => Err(failed(dvk_services::Error::Strange)),
        }
    }

    fn range(&self, prefix: &str) -> Result<Vec<(String, Pair)>, Error> {
        let pairs = self.read(prefix.as_bytes(), false)?;
        let named = |pair: Pair| {
            let name = pair.key.get(prefix.len()..).unwrap_or_default();
            (String::from_utf8_lossy(name).into_owned(), pair)
        };
        Ok(pairs.into_iter().map(named).collect())
    }

    /// Reads everything. What makes no sense is left out: it is of another release.
    ///
    /// # Errors
    /// [`Error::Services`].
    pub fn look(&self) -> Result<Seen, Error> {
        let text = |pair: &Pair| String::from_utf8_lossy(&pair.value).into_owned();
        let manifest = self.read(MANIFEST, true)?.into_iter().next();
        let numbered = |(name, _): &(String, Pair)| name.parse().ok();
        let told = self.range(STATES)?.into_iter().filter_map(|(name, pair)| {
            Some((name.parse().ok()?, serde_json::from_slice(&pair.value).ok()?))
        });
        let preferences = self
            .range(PREFERENCES)?
            .into_iter()
            .filter_map(|(name, pair)| Some((name, (text(&pair).parse().ok()?, pair.modified))));
        Ok(Seen {
            manifest: manifest.map(|pair| (text(&pair), pair.modified)),
            alive: self.range(NODES)?.iter().filter_map(numbered).collect(),
            preferences: preferences.collect(),
            stopped: self.range(STOPPED)?.into_iter().map(|(name, _)| name).collect(),
            told: told.collect(),
        })
    }

    /// Says that a node has a reincarnation server.
    ///
    /// # Errors
    /// [`Error::Services`].
    pub fn come(&self, node: u32, lease: Lease) -> Result<(), Error> {
        let put = self.client.put(format!("{NODES}{node}").as_bytes(), b"", Some(lease));
        put.map(drop).map_err(services("say that this node has a reincarnation server"))
    }

    /// Tells how the servers of a node are.
    ///
    /// # Errors
    /// [`Error::Services`].
    pub fn tell(&self, node: u32, lease: Lease, told: &Told) -> Result<(), Error> {
        let value = serde_json::to_vec(told).unwrap_or_default();
        let put = self.client.put(format!("{STATES}{node}").as_bytes(), &value, Some(lease));
        put.map(drop).map_err(services("tell how the servers are"))
    }

    /// Keeps a manifest, if nobody else has changed it since it was looked at; forgets what was said of servers that it has not.
    ///
    /// # Errors
    /// [`Error`].
    pub fn load(&self, text: &str) -> Result<(), Error> {
        let manifest = Manifest::read(text)?;
        let seen = self.look()?;
        let before = seen.manifest.as_ref().map_or(0, |(_, revision)| *revision);
        let subject = Subject::Modified(before);
        let put = Operation::Put { key: MANIFEST.to_vec(), value: text.into(), lease: None };
        let gone = |name: &&String| !manifest.servers.contains_key(*name);
        let delete = |key: String| Operation::Delete { key: key.into_bytes(), prefix: false };
        let prefer = seen.preferences.keys().filter(gone);
        let prefer = prefer.map(|name| delete(format!("{PREFERENCES}{name}")));
        let stopped = seen.stopped.iter().filter(gone);
        let stopped = stopped.map(|name| delete(format!("{STOPPED}{name}")));
        // What does not fit stays, and does no harm.
        let then = core::iter::once(put).chain(prefer).chain(stopped).take(128).collect();
        let compare = vec![Compare { key: MANIFEST.to_vec(), subject }];
        let done = self.client.transact(Transaction { compare, then, otherwise: Vec::new() });
        match done {
            Ok(done) if done.held => Ok(()),
            Ok(_) => Err(Error::Contended),
            Err(error) if error.reason() == Some(Reason::Unknown) => {
                // Whether it was done shows.
                match self.look()?.manifest {
                    Some((now, _)) if now == text => Ok(()),
                    _ => Err(services("keep the manifest")(error)),
                }
            }
            Err(error) => Err(services("keep the manifest")(error)),
        }
    }

    /// Says where a server is wanted.
    ///
    /// # Errors
    /// [`Error::Services`].
    pub fn prefer(&self, server: &str, node: u32) -> Result<(), Error> {
        let key = format!("{PREFERENCES}{server}");
        let put = self.client.put(key.as_bytes(), node.to_string().as_bytes(), None);
        put.map(drop).map_err(services("say where the server is to be"))
    }

    /// Says that a server is to be on no node.
    ///
    /// # Errors
    /// [`Error::Services`].
    pub fn stop(&self, server: &str) -> Result<(), Error> {
        let put = self.client.put(format!("{STOPPED}{server}").as_bytes(), b"", None);
        put.map(drop).map_err(services("say that the server is stopped"))
    }

    /// Says that a server is to be where the manifest wants it again.
    ///
    /// # Errors
    /// [`Error::Services`].
    pub fn start(&self, server: &str) -> Result<(), Error> {
        let key = format!("{STOPPED}{server}").into_bytes();
        let then = vec![Operation::Delete { key, prefix: false }];
        let done = self.client.transact(Transaction { then, ..Transaction::default() });
        done.map(drop).map_err(services("say that the server is to run"))
    }
}
