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
use std::time::{Duration, Instant};

/// What all keys begin with.
pub const PREFIX: &[u8] = b"rs/";
const MANIFEST: &[u8] = b"rs/manifest";
const NODES: &str = "rs/node/";
const STATES: &str = "rs/state/";
const PREFERENCES: &str = "rs/prefer/";
const STOPPED: &str = "rs/stop/";
/// How long it is insisted on reading and on loading while nobody leads.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long nothing is asked after it was not known whether something was done.
const PAUSE: Duration = Duration::from_millis(50);
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

    /// What is there, and whether that is all: an answer holds only so much.
    fn read(&self, key: &[u8], exact: bool) -> Result<(Vec<Pair>, bool), Error> {
        let failed = services("read the keys of the reincarnation servers");
        let question = Question::Read { key: key.to_vec(), exact, limit: LIMIT, stale: false };
        match self.client.insist(&question, PATIENCE).map_err(&failed)? {
            Answer::Range(range) => {
                let is_all = range.count <= range.pairs.len() as u64;
                Ok((range.pairs, is_all))
            }
            _ => Err(failed(dvk_services::Error::Strange)),
        }
    }

    fn range(&self, prefix: &str) -> Result<(Vec<(String, Pair)>, bool), Error> {
        let (pairs, is_all) = self.read(prefix.as_bytes(), false)?;
        let named = |pair: Pair| {
            let name = pair.key.get(prefix.len()..).unwrap_or_default();
            (String::from_utf8_lossy(name).into_owned(), pair)
        };
        Ok((pairs.into_iter().map(named).collect(), is_all))
    }

    /// What these nodes tell: of all at once if that fits an answer, else of one after the other.
    fn told(&self, alive: &BTreeSet<u32>) -> Result<BTreeMap<u32, Told>, Error> {
        let (mut pairs, is_all) = self.range(STATES)?;
        if !is_all {
            let missing = alive.iter().map(u32::to_string);
            let there: BTreeSet<String> = pairs.iter().map(|(name, _)| name.clone()).collect();
            for node in missing.filter(|node| !there.contains(node)) {
                let (pair, _) = self.read(format!("{STATES}{node}").as_bytes(), true)?;
                pairs.extend(pair.into_iter().map(|pair| (node.clone(), pair)));
            }
        }
        let told = |(name, pair): (String, Pair)| {
            Some((name.parse().ok()?, serde_json::from_slice(&pair.value).ok()?))
        };
        Ok(pairs.into_iter().filter_map(told).collect())
    }

    /// Does something that harms nobody if it is done twice, and insists for at most `limit` while nobody leads or it is not known whether it was
    /// done.
    fn change(
        &self,
        then: Vec<Operation>,
        limit: Duration,
        what: &'static str,
    ) -> Result<(), Error> {
        let until = Instant::now() + limit;
        let question = Question::Transact(Transaction { then, ..Transaction::default() });
        loop {
            let rest = until.saturating_duration_since(Instant::now());
            match self.client.insist(&question, rest) {
                Ok(Answer::Transacted(_)) => return Ok(()),
                Ok(_) => return Err(services(what)(dvk_services::Error::Strange)),
                Err(error) if error.reason() == Some(Reason::Unknown) && !rest.is_zero() => {
                    std::thread::sleep(PAUSE);
                }
                Err(error) => return Err(services(what)(error)),
            }
        }
    }

    /// Reads everything. What makes no sense is left out: it is of another release.
    ///
    /// # Errors
    /// [`Error::Services`].
    pub fn look(&self) -> Result<Seen, Error> {
        let text = |pair: &Pair| String::from_utf8_lossy(&pair.value).into_owned();
        let manifest = self.read(MANIFEST, true)?.0.into_iter().next();
        let numbered = |(name, _): &(String, Pair)| name.parse().ok();
        let alive = self.range(NODES)?.0.iter().filter_map(numbered).collect();
        let told = self.told(&alive)?;
        let preferences =
            self.range(PREFERENCES)?.0.into_iter().filter_map(|(name, pair)| {
                Some((name, (text(&pair).parse().ok()?, pair.modified)))
            });
        Ok(Seen {
            manifest: manifest.map(|pair| (text(&pair), pair.modified)),
            alive,
            preferences: preferences.collect(),
            stopped: self.range(STOPPED)?.0.into_iter().map(|(name, _)| name).collect(),
            told,
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

    /// Keeps a manifest, if nobody else has changed it since it was looked at; forgets what was said of servers that it has not, and where servers
    /// were wanted that it prefers elsewhere than the one before.
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
        // One that makes no sense here is of another release, and says nothing that could be newer.
        let old = seen.manifest().ok();
        let is_elsewhere = |name: &&String| {
            let wish = |manifest: &Manifest| manifest.servers.get(*name)?.placement.prefers();
            wish(&manifest).is_some() && old.as_ref().and_then(wish) != wish(&manifest)
        };
        let prefer = seen.preferences.keys().filter(|name| gone(name) || is_elsewhere(name));
        let prefer = prefer.map(|name| delete(format!("{PREFERENCES}{name}")));
        let stopped = seen.stopped.iter().filter(gone);
        let stopped = stopped.map(|name| delete(format!("{STOPPED}{name}")));
        // What does not fit stays, and does no harm.
        let then = core::iter::once(put).chain(prefer).chain(stopped).take(128).collect();
        let compare = vec![Compare { key: MANIFEST.to_vec(), subject }];
        let question = Question::Transact(Transaction { compare, then, otherwise: Vec::new() });
        match self.client.insist(&question, PATIENCE) {
            Ok(Answer::Transacted(done)) if done.held => Ok(()),
            Ok(Answer::Transacted(_)) => Err(Error::Contended),
            Ok(_) => Err(services("keep the manifest")(dvk_services::Error::Strange)),
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

    /// Says where a server is wanted; insists for at most so long.
    ///
    /// # Errors
    /// [`Error::Services`].
    pub fn prefer(&self, server: &str, node: u32, limit: Duration) -> Result<(), Error> {
        let (key, value) = (format!("{PREFERENCES}{server}").into_bytes(), node.to_string());
        let put = Operation::Put { key, value: value.into_bytes(), lease: None };
        self.change(vec![put], limit, "say where the server is to be")
    }

    /// Says that a server is to be on no node; insists for at most so long.
    ///
    /// # Errors
    /// [`Error::Services`].
    pub fn stop(&self, server: &str, limit: Duration) -> Result<(), Error> {
        let key = format!("{STOPPED}{server}").into_bytes();
        let put = Operation::Put { key, value: Vec::new(), lease: None };
        self.change(vec![put], limit, "say that the server is stopped")
    }

    /// Says that a server is to be where the manifest wants it again; insists for at most so long.
    ///
    /// # Errors
    /// [`Error::Services`].
    pub fn start(&self, server: &str, limit: Duration) -> Result<(), Error> {
        let key = format!("{STOPPED}{server}").into_bytes();
        let delete = Operation::Delete { key, prefix: false };
        self.change(vec![delete], limit, "say that the server is to run")
    }
}

#[cfg(test)]
mod tests;
