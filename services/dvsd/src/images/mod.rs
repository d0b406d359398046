// SPDX-License-Identifier: MIT OR Apache-2.0
//! Images of containers on this node.
//!
//! The nodes agree on which name stands for which archive. The archives are copied from node to node: each has those that its containers are
//! made of, unpacked by the runtime, and those that it is to keep for others ([`keepers`]). What nobody needs is removed.

pub mod api;
mod archives;
mod keepers;
mod store;
pub(crate) mod stream;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use dvs_consensus::Consensus;
use dvs_state::images::Digest;
use dvs_state::nodes::{NodeId, Seat};
use tokio::sync::watch;
use tokio::time::{sleep, timeout, Instant};

use crate::agreement::seat;
use crate::containers::{blocking, write, Runtime};
use crate::daemon::Handle;
use crate::machine;
use crate::peers::Peers;
use archives::Archives;
pub use store::Store;

/// How often it is looked what there is to do when nothing else happens.
const LOOK: Duration = Duration::from_secs(5);
/// How soon it looks again when the nodes agree on something, which most of the time is about something else.
const SOON: Duration = Duration::from_millis(200);
/// How long nothing is tried after something failed.
const PAUSE: Duration = Duration::from_secs(2);
/// How long a node may take to begin to give an archive away.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the next bytes of one may take.
const SILENCE: Duration = Duration::from_secs(10);
/// How often it is told how far an archive has come.
const TELL: Duration = Duration::from_millis(500);
/// What part of the memory that a node has left an archive may take.
const MEMORY_PART: u64 = 2;

/// How far an image has come on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It can be used.
    Ready,
    /// Something is being done, for people.
    Busy(String),
    /// Why it could not be had, for people; it is tried again.
    Failed(String),
}

/// The images that containers of this node need.
pub type States = BTreeMap<Digest, Progress>;

/// What the runtime calls an image: what fits into a name of it, and tells images apart.
pub fn name_of(digest: Digest) -> String {
    digest.to_string()[..40].to_owned()
}

/// Sees to the images of this node.
#[derive(Debug)]
pub struct Images {
    shared: Shared,
    states: watch::Sender<States>,
    /// What the runtime has, and cannot be asked for without a process.
    unpacked: Option<BTreeSet<String>>,
    told: String,
}

/// What the API needs of it, too.
#[derive(Clone)]
struct Shared {
    daemon: Handle,
    peers: Peers,
    runtime: Arc<dyn Runtime>,
    archives: Archives,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("archives", &self.archives).finish_non_exhaustive()
    }
}

impl Images {
    /// Those of this daemon's node, whose archives are in `directory`. On a node that is in memory.
    pub fn new(
        daemon: Handle,
        peers: Peers,
        runtime: Arc<dyn Runtime>,
        directory: PathBuf,
    ) -> Self {
        let archives = Archives::at(directory);
        let shared = Shared { daemon, peers, runtime, archives };
        Self { shared, states: watch::Sender::default(), unpacked: None, told: String::new() }
    }

    /// What containers need to know of it.
    pub fn states(&self) -> watch::Receiver<States> {
        self.states.subscribe()
    }

    /// Its archives, for others than containers.
    pub fn store(&self) -> Store {
        Store { shared: self.shared.clone(), states: self.states.subscribe() }
    }

    /// Runs for as long as it is polled.
    pub async fn run(mut self) {
        loop {
            let Ok(consensus) = self.shared.daemon.agreement.consensus() else {
                sleep(PAUSE).await;
                continue;
            };
            // What changes while it looks is not to be missed.
            let mut progress = consensus.watch();
            progress.borrow_and_update();
            match self.look(&consensus).await {
                Ok(()) => self.told.clear(),
                Err(why) => {
                    if self.told != why {
                        println!("error: {why}");
                        self.told = why;
                    }
                    sleep(PAUSE).await;
                    continue;
                }
            }
            sleep(SOON).await;
            let _ = timeout(LOOK, progress.changed()).await;
        }
    }

    async fn look(&mut self, consensus: &Consensus) -> Result<(), String> {
        let programmed = self.shared.daemon.snapshots.borrow().programmed.map(seat);
        let Some(own) = programmed else { return Ok(()) };
        if !consensus.look(|state| state.nodes().is_present(own)) {
            return Ok(());
        }
        let (used, bundles, wanted) = consensus.look(|state| {
            let bundles = keepers::bundles(state, own.id);
            (keepers::used(state, own.id), bundles, keepers::wanted(state, own.id))
        });
        let had = self.shared.archives.list();
        let mut had = had.map_err(|error| format!("list the archives of images: {error}"))?;
        self.states.send_if_modified(|states| {
            let before = states.len();
            states.retain(|digest, _| used.contains(digest) || bundles.contains(digest));
            states.len() != before
        });
        let mut failed = None;
        for digest in &wanted {
            if !had.contains(digest) {
                match self.fetch(consensus, own, *digest).await {
                    Ok(()) => drop(had.insert(*digest)),
                    Err(why) => {
                        self.set(*digest, Progress::Failed(why.clone()));
                        failed = Some(format!("get the image {digest}: {why}"));
                        continue;
                    }
                }
            }
            if bundles.contains(digest) {
                self.set(*digest, Progress::Ready);
            }
            if used.contains(digest) {
                if let Err(why) = self.unpack(*digest).await {
                    self.set(*digest, Progress::Failed(why.clone()));
                    failed = Some(format!("unpack the image {digest}: {why}"));
                }
            }
        }
        self.remove(consensus, &used, &wanted, &mut had).await?;
        let news = consensus.look(|state| keepers::news(state, own, &had));
        write(consensus, news).await?;
        failed.map_or(Ok(()), Err)
    }

    fn set(&self, digest: Digest, progress: Progress) {
        self.states.send_if_modified(|states| {
            states.insert(digest, progress.clone()).is_none_or(|before| before != progress)
        });
    }

    /// Copies an archive from a node that has it.
    async fn fetch(&self, consensus: &Consensus, own: Seat, digest: Digest) -> Result<(), String> {
        let holders = consensus.look(|state| keepers::holders(state).remove(&digest));
        let holders: Vec<_> = holders.into_iter().flatten().filter(|id| *id != own.id).collect();
        let mut why = "no node that is up has it; import it again".to_owned();
        for holder in holders {
            match self.copy(holder, digest).await {
                Ok(()) => return Ok(()),
                Err(error) => why = error,
            }
        }
        Err(why)
    }

    async fn copy(&self, holder: NodeId, digest: Digest) -> Result<(), String> {
        let request = Request::get(format!("/v1/archives/{digest}"))
            .header("host", "node")
            .body(Body::empty())
            .map_err(|error| error.to_string())?;
        let answer = self.shared.peers.ask(holder, request, PATIENCE).await?;
        if answer.status() != StatusCode::OK {
            return Err(format!("node {holder} does not give it: {}", answer.status()));
        }
        let mut partial = self.shared.begin()?;
        let mut body = answer.into_body();
        let mut told = Instant::now();
        loop {
            let bytes = timeout(SILENCE, stream::next(&mut body)).await;
            let bytes = bytes.map_err(|_| format!("node {holder} has stopped to send it"))?;
            let Some(bytes) = bytes.map_err(|why| format!("node {holder}: {why}"))? else { break };
            partial = blocking(move || partial.write(&bytes).map(|()| partial))
                .await
                .map_err(|error| format!("keep it: {error}"))?;
            if told.elapsed() >= TELL {
                told = Instant::now();
                let mebibytes = partial.bytes() >> 20;
                self.set(
                    digest,
                    Progress::Busy(format!(
                        "copying its image from node {holder}: {mebibytes} MiB"
                    )),
                );
            }
        }
        if partial.digest() != digest {
            return Err(format!("what node {holder} has sent is another archive, or damaged"));
        }
        partial.finish().map(drop).map_err(|error| format!("keep it: {error}"))
    }

    /// Has the runtime take an image in, unless it has it.
    async fn unpack(&mut self, digest: Digest) -> Result<(), String> {
        let unpacked = match self.unpacked.take() {
            Some(unpacked) => unpacked,
            None => self.shared.unpacked().await?,
        };
        let unpacked = self.unpacked.insert(unpacked);
        let name = name_of(digest);
        if !unpacked.contains(&name) {
            unpacked.insert(name.clone());
            self.set(digest, Progress::Busy("unpacking its image".to_owned()));
            if let Err(why) = self.shared.import(&self.shared.archives.path(digest), name).await {
                self.unpacked = None;
                return Err(why);
            }
        }
        self.set(digest, Progress::Ready);
        Ok(())
    }

    /// Removes what nobody needs. What a container is still made of is removed later.
    async fn remove(
        &mut self,
        consensus: &Consensus,
        used: &BTreeSet<Digest>,
        wanted: &BTreeSet<Digest>,
        had: &mut BTreeSet<Digest>,
    ) -> Result<(), String> {
        let names: BTreeSet<_> = used.iter().map(|digest| name_of(*digest)).collect();
        let unpacked = self.unpacked.iter().flatten();
        let left: Vec<_> = unpacked.filter(|name| !names.contains(*name)).cloned().collect();
        for name in left {
            let (runtime, removed) = (Arc::clone(&self.shared.runtime), name.clone());
            if blocking(move || runtime.remove_image(&removed)).await.is_ok() {
                if let Some(unpacked) = &mut self.unpacked {
                    unpacked.remove(&name);
                }
            }
        }
        let holders = consensus.look(keepers::holders);
        for digest in had.clone().difference(wanted) {
            // Whoever is to keep it must have it first.
            let is_kept = consensus.look(|state| {
                let keepers = keepers::keepers(state, *digest);
                let has = |id: &NodeId| holders.get(digest).is_some_and(|had| had.contains(id));
                !keepers::is_known(state, *digest) || keepers.iter().all(has)
            });
            let is_gone = is_kept
                && self
                    .shared
                    .archives
                    .remove(*digest)
                    .map_err(|error| format!("remove {digest}: {error}"))?;
            if is_gone {
                had.remove(digest);
            }
        }
        Ok(())
    }
}

impl Shared {
    /// Begins to write an archive for which there is room.
    fn begin(&self) -> Result<archives::Partial, String> {
        let number = getrandom::u64().map_err(|error| format!("entropy: {error}"))?;
        let memory = machine::usage(Path::new(machine::PROC)).memory_available_bytes;
        let begun = self.archives.begin(number, memory / MEMORY_PART);
        begun.map_err(|error| format!("write the archive of an image: {error}"))
    }

    async fn unpacked(&self) -> Result<BTreeSet<String>, String> {
        let runtime = Arc::clone(&self.runtime);
        blocking(move || runtime.images()).await.map_err(|fault| fault.to_string())
    }

    async fn import(&self, archive: &Path, name: String) -> Result<(), String> {
        let (runtime, archive) = (Arc::clone(&self.runtime), archive.to_owned());
        let imported = blocking(move || runtime.import(&archive, &name)).await;
        imported.map_err(|fault| fault.to_string())
    }

    /// Whether the runtime takes an archive for an image.
    async fn check(&self, archive: &Path) -> Result<(), String> {
        let number = getrandom::u64().map_err(|error| format!("entropy: {error}"))?;
        let name = format!("check-{number:x}");
        self.import(archive, name.clone()).await?;
        let runtime = Arc::clone(&self.runtime);
        blocking(move || runtime.remove_image(&name)).await.map_err(|fault| fault.to_string())
    }
}
