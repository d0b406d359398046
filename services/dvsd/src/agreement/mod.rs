// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the nodes agree on: this node's member of the consensus, and how it reaches the others.
//!
//! The membership says who belongs to the cluster and where everybody is. [`Agreement`] is told
//! whenever that changes: it starts a member once this node has its place, listens for the others
//! on the cluster interfaces, and, where this node leads, has the agreed state follow the membership
//! ([`mirror`]). Members speak TLS with each other, by certificates that the cluster token vouches for.
//!
//! A node without a disk forgets what it voted, so it is another member whenever it starts; the
//! leader lets the new one learn, and vote in the old one's place.

mod admissions;
pub mod api;
pub(crate) mod asking;
pub mod departure;
mod frame;
mod journal;
mod lines;
mod listener;
mod mirror;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{SocketAddr, SocketAddrV6};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dvs_authority::Authority;
use dvs_config::Token;
use dvs_consensus::disk::{Content, NoDisk, Owner};
use dvs_consensus::{Call, CallError, Consensus, Peer, Timing, Transport};
use dvs_secret::ClusterSecret;
use dvs_state::nodes::{MemberId, NodeId};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::sleep;

use crate::beacon::Seat;
use crate::carrier::OwnEnd;
use crate::membership::{Liveness, MemberView, Removals, Roster, Standing, View};
use crate::upgrades::rollout;
pub use journal::Journal;
use journal::Pages;
use lines::{Directory, Lines};
use listener::{Answer, Listener};
pub(crate) use mirror::seat;

/// The port on which members listen.
pub const PORT: u16 = 7701;
/// What they speak, and its version.
const SPOKEN: &[u8] = b"dvs-agreement/1";
/// How patient members are. Guests that are translated and share processors are slow to answer.
const TIMING: Timing = Timing {
    heartbeat: Duration::from_millis(300),
    election: Duration::from_millis(1_500),
    patience: Duration::from_secs(8),
    absence: Duration::from_secs(15),
};
/// How often the leader looks whether the state has the nodes as the membership does.
const LOOK: Duration = Duration::from_millis(200);
/// The same after it had something to say.
const SOON: Duration = Duration::from_millis(20);

/// Gives the address at which an address of a cluster interface is reached: the same one, but for tests.
pub type Reach = Arc<dyn Fn(SocketAddrV6) -> SocketAddr + Send + Sync>;

/// This node's member, as the API sees it.
#[derive(Clone)]
pub struct Access {
    now: watch::Receiver<Now>,
    view: watch::Receiver<View>,
}

#[derive(Clone)]
enum Now {
    /// There is no member, and why, for people.
    Absent(String),
    Present(Consensus),
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").finish_non_exhaustive()
    }
}

impl Access {
    /// The member.
    ///
    /// # Errors
    /// For people: why there is none.
    pub fn consensus(&self) -> Result<Consensus, String> {
        match &*self.now.borrow() {
            Now::Absent(why) => Err(why.clone()),
            Now::Present(consensus) => Ok(consensus.clone()),
        }
    }

    /// The nodes as the membership sees them now.
    pub fn view(&self) -> View {
        self.view.borrow().clone()
    }

    /// In which incarnation each member is known here, which the nodes may not have agreed on yet.
    pub(crate) fn heard(&self) -> BTreeMap<NodeId, u32> {
        let view = self.view.borrow();
        view.members.iter().map(|member| (member.seat.id, member.seat.incarnation)).collect()
    }
}

/// One life of this node's member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Life {
    cluster: u64,
    seat: Seat,
    member: MemberId,
}

struct Running {
    life: Life,
    /// `None` for a node that has nothing to prove itself by, and is alone.
    listener: Option<Listener>,
    directory: watch::Sender<Directory>,
    task: AbortHandle,
}

/// Starts and ends this node's member as the membership goes.
pub struct Agreement {
    cluster: String,
    /// What this node runs, which no beacon tells it.
    release: String,
    secret: Option<ClusterSecret>,
    reach: Reach,
    now: watch::Sender<Now>,
    view: watch::Sender<View>,
    journal: Journal,
    pages: Pages,
    running: Option<Running>,
    trouble: Option<(Life, String)>,
}

impl fmt::Debug for Agreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let life = self.running.as_ref().map(|running| running.life);
        f.debug_struct("Agreement").field("life", &life).finish_non_exhaustive()
    }
}

impl Agreement {
    /// None yet. `cluster` is the cluster's name, `release` what this node runs.
    pub fn new(
        cluster: String,
        release: String,
        token: Option<&Token>,
        reach: Reach,
    ) -> (Self, Access) {
        let absent = "this node is not part of a cluster yet";
        let (now, see_now) = watch::channel(Now::Absent(absent.into()));
        let standing = Standing::Discovering { detail: String::new(), heard: false };
        let (view, see_view) = watch::channel(View { standing, members: Vec::new(), whole: false });
        let secret = token.map(ClusterSecret::new);
        let (journal, pages) = journal::journal();
        let (running, trouble) = (None, None);
        let agreement =
            Self { cluster, release, secret, reach, now, view, journal, pages, running, trouble };
        (agreement, Access { now: see_now, view: see_view })
    }

    /// Where is put what the others should know of.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Who must not be a member, as far as this node knows what was agreed on; `None` while it knows nothing.
    pub fn removals(&self) -> Option<Removals> {
        match &*self.now.borrow() {
            Now::Present(consensus) => Some(consensus.look(mirror::removals)),
            Now::Absent(_) => None,
        }
    }

    /// Follows the membership. `founders` are those who formed the cluster, if this node was among them.
    pub fn look(&mut self, view: &View, founders: impl FnOnce() -> Roster, end: &OwnEnd) {
        self.view.send_if_modified(|before| {
            let changed = *before != *view;
            if changed {
                before.clone_from(view);
            }
            changed
        });
        let life = life(view);
        if self.running.as_ref().map(|running| running.life) != life {
            self.end("this node is not part of a cluster at the moment");
            let fresh = self.trouble.as_ref().map(|(life, _)| *life) != life;
            if let Some(life) = life.filter(|_| fresh) {
                match self.start(life, &founders()) {
                    Ok(running) => self.running = Some(running),
                    Err(why) => {
                        println!("error: start to agree with other nodes: {why}");
                        self.now.send_replace(Now::Absent(why.clone()));
                        self.trouble = Some((life, why));
                    }
                }
            }
        }
        let Some(running) = &mut self.running else { return };
        let at = |address, scope| (self.reach)(SocketAddrV6::new(address, PORT, 0, scope));
        if let Some(listener) = &mut running.listener {
            let own = end.link_locals.iter().map(|(scope, address)| at(*address, *scope));
            listener.listen(&own.collect::<Vec<_>>());
        }
        let there = |member: &MemberView| {
            let path = member.said.as_ref()?.path?;
            let heard = !member.local && member.liveness == Liveness::Alive;
            heard.then(|| (member.seat.id, at(path.address, path.interface)))
        };
        let directory: Directory = view.members.iter().filter_map(there).collect();
        running.directory.send_if_modified(|before| {
            let changed = *before != directory;
            *before = directory;
            changed
        });
    }

    fn start(&self, life: Life, founders: &Roster) -> Result<Running, String> {
        let Life { cluster, seat, member } = life;
        let (directory, see_directory) = watch::channel(Directory::new());
        let mut listener = None;
        let transport: Arc<dyn Transport> = match &self.secret {
            None => Arc::new(Nobody),
            Some(secret) => {
                let failed = |error| format!("{error:#}");
                let authority = Authority::derived(secret, &self.cluster).map_err(failed)?;
                let identity = authority.open_identity(seat.id.into(), SPOKEN).map_err(failed)?;
                listener = Some(Listener::new(&identity, self.answering())?);
                Arc::new(Lines::new(authority, &identity, see_directory)?)
            }
        };
        let members: BTreeMap<MemberId, Peer> = founders
            .entries()
            .map(|entry| {
                (mirror::member_of(entry.instance, entry.seat), Peer { node: entry.seat.id })
            })
            .collect();
        let (now, view, release) = (self.now.clone(), self.view.subscribe(), self.release.clone());
        let (owner, name) = (Owner { cluster, member }, self.cluster.clone());
        let pages = Arc::clone(&self.pages);
        let task = tokio::spawn(async move {
            let disk = Arc::new(NoDisk);
            let started =
                Consensus::start(owner, TIMING, Content::default(), disk, transport).await;
            let consensus = match started {
                Ok(consensus) => consensus,
                Err(error) => {
                    println!("error: {error}");
                    now.send_replace(Now::Absent(error.to_string()));
                    return;
                }
            };
            now.send_replace(Now::Present(consensus.clone()));
            if !members.is_empty() {
                if let Err(error) = consensus.form(&members).await {
                    println!("error: form the cluster's consensus: {error}");
                }
            }
            let by = mirror::seat(seat);
            tokio::join!(
                lead(&name, &release, &consensus, &view),
                journal::keep(by, &consensus, &pages)
            );
        });
        Ok(Running { life, listener, directory, task: task.abort_handle() })
    }

    /// Answers by the member that there is at the time.
    fn answering(&self) -> Answer {
        let now = self.now.subscribe();
        Arc::new(move |request| {
            let now = now.borrow().clone();
            Box::pin(async move {
                match now {
                    Now::Present(consensus) => Some(consensus.serve(&request).await),
                    Now::Absent(_) => None,
                }
            })
        })
    }

    /// Ends the member, if there is one.
    fn end(&mut self, why: &str) {
        let Some(running) = self.running.take() else { return };
        running.task.abort();
        if let Now::Present(consensus) = self.now.send_replace(Now::Absent(why.to_owned())) {
            tokio::spawn(async move { consensus.stop().await });
        }
    }
}

impl Drop for Agreement {
    fn drop(&mut self) {
        // Without a runtime everything has ended already.
        if tokio::runtime::Handle::try_current().is_ok() {
            self.end("this node's daemon is stopping");
        }
    }
}

fn life(view: &View) -> Option<Life> {
    let Standing::Member { cluster, seat } = view.standing else { return None };
    let own = view.members.iter().find(|member| member.local)?;
    Some(Life { cluster, seat, member: mirror::member_of(own.instance, seat) })
}

/// Proposes what the leader has to say about the nodes, for as long as this node leads.
async fn lead(name: &str, release: &str, consensus: &Consensus, view: &watch::Receiver<View>) {
    let mut told = String::new();
    let mut pause = LOOK;
    loop {
        sleep(std::mem::replace(&mut pause, LOOK)).await;
        if !consensus.is_leader() {
            continue;
        }
        let seen = view.borrow().clone();
        let (term, now) = (consensus.status().term, consensus.now());
        let command = consensus.look(|state| {
            // Whoever leads says so first, so that what it does then has its time.
            let of_itself = mirror::lead(&seen, state, term, now, unix_ms());
            of_itself
                .or_else(|| mirror::next(name, &seen, state))
                .or_else(|| rollout::next(&seen, state, release, now))
        });
        let Some(command) = command else { continue };
        match consensus.propose(&command).await {
            // There may be more.
            Ok(Ok(_)) => pause = SOON,
            Ok(Err(refusal)) => {
                let text = format!("warning: agree on the nodes: {refusal}");
                if text != told {
                    println!("{text}");
                    told = text;
                }
            }
            // What is not agreed on now is found again by the next look.
            Err(_) => {}
        }
    }
}

/// What the clock of this machine shows. It is passed on as a hint and nothing depends on it.
fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// For a node that is alone.
struct Nobody;

impl Transport for Nobody {
    fn call<'a>(&'a self, _: &'a Peer, _: Vec<u8>) -> Call<'a> {
        Box::pin(async { Err(CallError::NotSent) })
    }
}
