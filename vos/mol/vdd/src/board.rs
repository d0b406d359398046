// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where the line-ups of devices are decided: keys of the container, which the cluster agrees on and keeps.
//!
//! For each device there is the line-up that holds, and for each of its replicas where the last run of its server is and what it
//! had to begin with. A third key says that this run is alive, under a lease. Every server that has a replica looks at
//! them whenever one changes, decides by the rules of [`Authority`], and writes the next line-up if the one that holds is still that
//! which it has seen. So it does not matter who decides, nor how many do at once; and there is a line-up as long as the keys are there, whoever
//! of the servers is.
//!
//! The keys are gone with the container. Devices in it begin anew then, from the replica that is said to have the right blocks.

use crate::ledger::Identity;
use crate::replica::{Authority, Contents, Life, Lineup, Presence, ReplicaId};
use crate::store::Shape;
use core::time::Duration;
use dvk::Endpoint;
use dvk_services::{
    Answer, Client, Compare, Error, Lease, Operation, Pair, Question, Reason, Subject, Transacted,
    Transaction, Way,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How long a run of a server counts as alive that is not heard of: the lease's time.
pub const TTL: Duration = Duration::from_millis(3000);
/// How long it is tried to be answered while nobody leads.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a decision is tried while others decide as well.
const TRIES: usize = 16;
/// Keys of one device: no device has so many replicas.
const KEYS_MAX: u32 = 256;

/// Why a device's line-up is not known, or this server is not in it.
#[derive(Debug, thiserror::Error)]
pub enum BoardError {
    /// The services did not do it.
    #[error("cannot {what}: {error}")]
    Services {
        /// What was wanted.
        what: &'static str,
        /// What they say.
        error: Error,
    },
    /// There is no such device yet.
    #[error(
        "there are no replicas of device {minor} of group {group} yet: start the server that has the right blocks \
         (or any, for a new device) with --begin"
    )]
    NoDevice {
        /// The group.
        group: String,
        /// The device.
        minor: u32,
    },
    /// Another server is this replica now.
    #[error("another server is {id} of device {minor} now: give each server a number of its own")]
    Superseded {
        /// The replica.
        id: ReplicaId,
        /// The device.
        minor: u32,
    },
    /// It was taken away.
    #[error(
        "{id} of device {minor} was removed: start its server again if it is to be one once more"
    )]
    Removed {
        /// The replica.
        id: ReplicaId,
        /// The device.
        minor: u32,
    },
    /// The store has another shape than those of the other replicas.
    #[error(
        "the store of {id} of device {minor} holds {bytes} bytes in blocks of {block_bytes}, and the device has {of_bytes} in \
         blocks of {of_block_bytes}: all replicas need the same"
    )]
    Shape {
        /// The replica.
        id: ReplicaId,
        /// The device.
        minor: u32,
        /// What the store holds.
        bytes: u64,
        /// Its block.
        block_bytes: u32,
        /// What the device has.
        of_bytes: u64,
        /// Its block.
        of_block_bytes: u32,
    },
    /// A key has what no server of this release writes.
    #[error(
        "the key {key} has what this release cannot read: is there a server of another release?"
    )]
    Strange {
        /// The key.
        key: String,
    },
    /// Others decided each time.
    #[error(
        "cannot agree on a line-up of device {minor}: others changed it {TRIES} times meanwhile"
    )]
    Contended {
        /// The device.
        minor: u32,
    },
}

/// Where a run of a server is, and what it had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct There {
    endpoint: u64,
    contents: Contents,
}

/// The value of the key of a line-up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Held {
    identity: Identity,
    bytes: u64,
    block_bytes: u32,
    lineup: Lineup,
}

/// What holds for a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Which device it is.
    pub identity: Identity,
    /// The line-up.
    pub lineup: Lineup,
    /// The last run of each replica's server, and where it is.
    pub servers: BTreeMap<ReplicaId, (Life, Endpoint)>,
}

/// All keys of a device.
struct Seen {
    held: Option<(Held, u64)>,
    there: BTreeMap<ReplicaId, (There, u64)>,
    alive: BTreeMap<ReplicaId, (u64, u64)>,
}

/// One server's access to the decisions on its devices.
#[derive(Debug)]
pub struct Board<W> {
    client: Client<W>,
    group: String,
    id: ReplicaId,
    me: Endpoint,
    lease: Option<Lease>,
    /// The devices that it has joined, and as which run.
    joined: BTreeMap<u32, Life>,
}

impl<W: Way> Board<W> {
    /// For the server with this endpoint, which is one and the same replica of all devices of its group.
    pub fn new(client: Client<W>, group: &str, id: ReplicaId, me: Endpoint) -> Self {
        Self { client, group: group.to_owned(), id, me, lease: None, joined: BTreeMap::new() }
    }

    /// Goes on by other means: the services were started anew.
    pub fn reach(&mut self, client: Client<W>) {
        self.client = client;
    }

    /// How all keys of the group begin.
    pub fn prefix(group: &str) -> Vec<u8> {
        format!("vdd/{group}/").into_bytes()
    }

    fn key(&self, minor: u32, rest: &str) -> Vec<u8> {
        format!("vdd/{}/{minor}/{rest}", self.group).into_bytes()
    }

    fn ask(&self, what: &'static str, question: &Question) -> Result<Answer, BoardError> {
        let asked = self.client.insist(question, PATIENCE);
        asked.map_err(|error| BoardError::Services { what, error })
    }

    /// `None` if nobody knows whether it was done.
    fn transact(
        &self,
        what: &'static str,
        compare: Vec<Compare>,
        then: Vec<Operation>,
    ) -> Result<Option<Transacted>, BoardError> {
        let transaction = Transaction { compare, then, otherwise: Vec::new() };
        match self.ask(what, &Question::Transact(transaction)) {
            Ok(Answer::Transacted(done)) => Ok(Some(done)),
            Ok(_) => Err(BoardError::Services { what, error: Error::Strange }),
            Err(BoardError::Services { error, .. }) if error.reason() == Some(Reason::Unknown) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn see(&self, minor: u32) -> Result<Seen, BoardError> {
        let what = "look at a device's line-up";
        let key = self.key(minor, "");
        let skip = key.len();
        let question = Question::Read { key, exact: false, limit: KEYS_MAX, stale: false };
        let Answer::Range(range) = self.ask(what, &question)? else {
            return Err(BoardError::Services { what, error: Error::Strange });
        };
        let mut seen = Seen { held: None, there: BTreeMap::new(), alive: BTreeMap::new() };
        for pair in &range.pairs {
            let name = core::str::from_utf8(&pair.key[skip..]).unwrap_or_default();
            let replica = |text: &str| text.parse().map(ReplicaId).ok();
            match name.split_once('/') {
                None if name == "lineup" => seen.held = Some((read(pair)?, pair.modified)),
                Some(("there", id)) => {
                    let id = replica(id).ok_or_else(|| strange(pair))?;
                    seen.there.insert(id, (read(pair)?, pair.modified));
                }
                Some(("alive", id)) => {
                    let id = replica(id).ok_or_else(|| strange(pair))?;
                    seen.alive.insert(id, (read(pair)?, pair.modified));
                }
                _ => {}
            }
        }
        Ok(seen)
    }

    fn lease(&mut self) -> Result<Lease, BoardError> {
        if let Some(lease) = self.lease {
            return Ok(lease);
        }
        let what = "get a lease";
        let owner = format!("mol-vdd {} {}", self.group, self.id.0);
        let grant = Question::Grant { ttl_ms: TTL.as_millis() as u64, owner };
        match self.ask(what, &grant)? {
            Answer::Lease(lease) => {
                self.lease = Some(lease);
                Ok(lease)
            }
            _ => Err(BoardError::Services { what, error: Error::Strange }),
        }
    }

    /// A run of the server says that it is there, with a store for a device of this shape and what it has. Without a device of this
    /// minor, it makes one if it is given an identity for it. The result is which device it is, and as which run it takes part.
    ///
    /// # Errors
    /// [`BoardError`].
    pub fn come_forward(
        &mut self,
        minor: u32,
        shape: &Shape,
        contents: impl Fn(Identity) -> Contents,
        begin: Option<Identity>,
    ) -> Result<(Identity, Life), BoardError> {
        let seen = self.see(minor)?;
        let (bytes, block_bytes, id) = (shape.bytes, shape.block_bytes, self.id);
        if let Some((held, _)) = &seen.held {
            let (of_bytes, of_block_bytes) = (held.bytes, held.block_bytes);
            if (of_bytes, of_block_bytes) != (bytes, block_bytes) {
                let error =
                    BoardError::Shape { id, minor, bytes, block_bytes, of_bytes, of_block_bytes };
                return Err(error);
            }
        }
        let identity = match (&seen.held, begin) {
            (Some((held, _)), _) => held.identity,
            (None, Some(identity)) => identity,
            (None, None) => return Err(BoardError::NoDevice { group: self.group.clone(), minor }),
        };
        let contents = if seen.held.is_some() { contents(identity) } else { Contents::None };
        let life = self.say_there(minor, contents)?;
        self.joined.insert(minor, life);
        if seen.held.is_none() {
            let lineup = Lineup::first(self.id, [(self.id, life)]);
            let what = "make the first line-up";
            let put =
                self.put(minor, "lineup", &Held { identity, bytes, block_bytes, lineup }, None);
            let unless = self.compare(minor, "lineup", 0);
            self.transact(what, vec![unless], vec![put])?;
            // If another one was faster, this server had nothing of that device.
            let held = self.see(minor)?.held;
            let held = held.ok_or(BoardError::NoDevice { group: self.group.clone(), minor })?;
            return Ok((held.0.identity, life));
        }
        self.update(minor, |board, authority| authority.add(board.id))?;
        Ok((identity, life))
    }

    fn say_there(&mut self, minor: u32, contents: Contents) -> Result<Life, BoardError> {
        let lease = self.lease()?;
        let id = self.id.0;
        let there = There { endpoint: self.me.raw(), contents };
        for _ in 0..TRIES {
            let puts = vec![
                self.put(minor, &format!("there/{id}"), &there, None),
                self.put(minor, &format!("alive/{id}"), &there.endpoint, Some(lease)),
            ];
            if let Some(done) = self.transact("say that a replica is there", Vec::new(), puts)? {
                return Ok(Life(done.revision));
            }
        }
        Err(BoardError::Contended { minor })
    }

    fn put(
        &self,
        minor: u32,
        name: &str,
        value: &impl Serialize,
        lease: Option<Lease>,
    ) -> Operation {
        // Nothing that is written here can fail to be.
        let value = postcard::to_allocvec(value).unwrap_or_default();
        Operation::Put { key: self.key(minor, name), value, lease }
    }

    fn compare(&self, minor: u32, name: &str, modified: u64) -> Compare {
        Compare { key: self.key(minor, name), subject: Subject::Modified(modified) }
    }

    /// Has this run count as alive for another while: to be called every quarter of [`TTL`] or so.
    ///
    /// # Errors
    /// [`BoardError`].
    pub fn stay(&mut self) -> Result<(), BoardError> {
        if let Some(lease) = self.lease {
            match self.ask("keep a lease", &Question::KeepAlive { lease }) {
                Err(BoardError::Services { error, .. })
                    if error.reason() == Some(Reason::Missing) =>
                {
                    self.lease = None;
                }
                other => return other.map(drop),
            }
        }
        let joined: Vec<u32> = self.joined.keys().copied().collect();
        joined.into_iter().try_for_each(|minor| self.say_alive(minor))
    }

    fn say_alive(&mut self, minor: u32) -> Result<(), BoardError> {
        let lease = self.lease()?;
        let name = format!("alive/{}", self.id.0);
        let put = self.put(minor, &name, &self.me.raw(), Some(lease));
        self.transact("say that a replica is alive", Vec::new(), vec![put]).map(drop)
    }

    /// What holds, after what has to be decided was.
    ///
    /// # Errors
    /// [`BoardError`].
    pub fn look(&mut self, minor: u32) -> Result<Standing, BoardError> {
        self.update(minor, |_, _| ())
    }

    /// The primary, which is the replica of this server, asks for another line-up. What holds then is the result.
    ///
    /// # Errors
    /// [`BoardError`].
    pub fn propose(&mut self, minor: u32, lineup: &Lineup) -> Result<Standing, BoardError> {
        let Some(life) = self.joined.get(&minor).copied() else { return self.look(minor) };
        let id = self.id;
        self.update(minor, |_, authority| authority.propose((id, life), lineup.clone()))
    }

    /// Somebody has seen a run of a server end.
    ///
    /// # Errors
    /// [`BoardError`].
    pub fn is_gone(&mut self, minor: u32, id: ReplicaId, life: Life) -> Result<(), BoardError> {
        let seen = self.see(minor)?;
        let is_this = seen.there.get(&id).is_some_and(|(_, modified)| *modified == life.0);
        let Some((_, modified)) = seen.alive.get(&id).filter(|_| is_this) else { return Ok(()) };
        let name = format!("alive/{}", id.0);
        let unless = self.compare(minor, &name, *modified);
        let delete = Operation::Delete { key: self.key(minor, &name), prefix: false };
        self.transact("say that a replica is gone", vec![unless], vec![delete]).map(drop)
    }

    /// The replica of this server has failed: it is there no more, and others go on.
    ///
    /// # Errors
    /// [`BoardError`].
    pub fn withdraw(&mut self, minor: u32) -> Result<(), BoardError> {
        self.joined.remove(&minor);
        let key = self.key(minor, &format!("alive/{}", self.id.0));
        let delete = Operation::Delete { key, prefix: false };
        self.transact("withdraw a replica", Vec::new(), vec![delete]).map(drop)
    }

    /// An administrator takes a replica away, or knows that it never comes back. Whether it was one, and is none now: the
    /// last one in step stays.
    ///
    /// # Errors
    /// [`BoardError`].
    pub fn remove(&mut self, minor: u32, id: ReplicaId) -> Result<bool, BoardError> {
        let before = self.look(minor)?;
        let after = self.update(minor, |_, authority| authority.remove(id))?;
        let is_removed = !after.lineup.members.contains_key(&id);
        if is_removed {
            let names = ["there", "alive"].map(|name| self.key(minor, &format!("{name}/{}", id.0)));
            let delete = |key| Operation::Delete { key, prefix: false };
            let deletes = names.map(delete).into();
            self.transact("remove a replica", Vec::new(), deletes)?;
        }
        Ok(is_removed && before.lineup.members.contains_key(&id))
    }

    fn update(
        &mut self,
        minor: u32,
        change: impl Fn(&Self, &mut Authority),
    ) -> Result<Standing, BoardError> {
        for _ in 0..TRIES {
            let seen = self.see(minor)?;
            if self.has_said_so_again(minor, &seen)? {
                continue;
            }
            let Some((held, modified)) = seen.held else {
                return Err(BoardError::NoDevice { group: self.group.clone(), minor });
            };
            let present = seen.there.iter().map(|(&id, (there, modified))| {
                let is_alive = seen.alive.get(&id).is_some_and(|it| it.0 == there.endpoint);
                let contents = there.contents;
                (id, Presence { life: Life(*modified), contents, is_alive })
            });
            let mut authority = Authority::restore(held.lineup.clone(), present.collect());
            change(self, &mut authority);
            let server = |(&id, (there, modified)): (&_, &(There, u64))| {
                (id, (Life(*modified), Endpoint::from_raw(there.endpoint)))
            };
            let servers = seen.there.iter().map(server).collect();
            let lineup = authority.lineup().clone();
            let standing = Standing { identity: held.identity, lineup: lineup.clone(), servers };
            if lineup == held.lineup {
                return Ok(standing);
            }
            let mut compare = vec![self.compare(minor, "lineup", modified)];
            for (id, (_, modified)) in &seen.there {
                compare.push(self.compare(minor, &format!("there/{}", id.0), *modified));
            }
            let held = Held { lineup, ..held };
            let put = self.put(minor, "lineup", &held, None);
            let done = self.transact("write a line-up", compare, vec![put])?;
            if done.is_some_and(|done| done.held) {
                return Ok(standing);
            }
        }
        Err(BoardError::Contended { minor })
    }

    /// Sees to it that this server counts as alive, if it is still the last run of its replica. Whether something was done for it.
    fn has_said_so_again(&mut self, minor: u32, seen: &Seen) -> Result<bool, BoardError> {
        let Some(life) = self.joined.get(&minor) else { return Ok(false) };
        let id = self.id;
        match seen.there.get(&id) {
            Some((_, modified)) if *modified == life.0 => {}
            Some(_) => return Err(BoardError::Superseded { id, minor }),
            None => return Err(BoardError::Removed { id, minor }),
        }
        let is_alive = seen.alive.contains_key(&id);
        if !is_alive {
            // Somebody took it for dead, or its lease has ended.
            self.lease = None;
            self.say_alive(minor)?;
        }
        Ok(!is_alive)
    }
}

/// The server of the primary of a device, as far as that is decided.
///
/// # Errors
/// [`BoardError`].
pub fn find<W: Way>(
    client: &Client<W>,
    group: &str,
    minor: u32,
) -> Result<Option<Endpoint>, BoardError> {
    let what = "look for the server of a device";
    let key = format!("vdd/{group}/{minor}/").into_bytes();
    let skip = key.len();
    // What this node knows is good enough to try.
    let question = Question::Read { key, exact: false, limit: KEYS_MAX, stale: true };
    let asked = client.insist(&question, PATIENCE);
    let Answer::Range(range) = asked.map_err(|error| BoardError::Services { what, error })? else {
        return Err(BoardError::Services { what, error: Error::Strange });
    };
    let named = |name: &[u8]| range.pairs.iter().find(|pair| &pair.key[skip..] == name);
    let Some(held) = named(b"lineup") else { return Ok(None) };
    let primary = read::<Held>(held)?.lineup.primary;
    let there = named(format!("there/{}", primary.0).as_bytes());
    let there = there.map(read::<There>).transpose()?;
    Ok(there.map(|there| Endpoint::from_raw(there.endpoint)))
}

fn strange(pair: &Pair) -> BoardError {
    BoardError::Strange { key: String::from_utf8_lossy(&pair.key).into_owned() }
}

fn read<T: for<'a> Deserialize<'a>>(pair: &Pair) -> Result<T, BoardError> {
    postcard::from_bytes(&pair.value).map_err(|_| strange(pair))
}
