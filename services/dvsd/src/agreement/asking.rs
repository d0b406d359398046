// SPDX-License-Identifier: MIT OR Apache-2.0
//! Has the nodes agree on something, or shows what they agreed on, for whoever answers a person or a program about it.

use std::time::Duration;

use dvs_consensus::{Consensus, ProposeError};
use dvs_state::{Answer, Command, Refusal, State, VERSION};
use tokio::time::{timeout_at, Instant};

use super::Access;

/// How long a cluster that has just formed may take to be agreed on.
const SETTLING: Duration = Duration::from_secs(10);

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// This node does not agree with others, and why.
    Absent(String),
    /// The nodes agreed that it cannot be done.
    Refused(Refusal),
    /// They did not agree.
    Failed(ProposeError),
}

/// Asks by this node's member.
#[derive(Clone, Debug)]
pub(crate) struct Asking(Access);

impl Asking {
    pub(crate) fn new(access: Access) -> Self {
        Self(access)
    }

    /// This node's member; an error is why there is none.
    pub(crate) fn consensus(&self) -> Result<Consensus, String> {
        self.0.consensus()
    }

    fn member(&self) -> Result<Consensus, Trouble> {
        self.consensus().map_err(Trouble::Absent)
    }

    /// Has the nodes agree on a command. In a cluster that has just formed, or whose last node has just got this release, it waits until
    /// the leader has seen to that.
    pub(crate) async fn propose(&self, command: &Command) -> Result<Answer, Trouble> {
        let deadline = Instant::now() + SETTLING;
        let consensus = self.member()?;
        loop {
            let refusal = match consensus.propose(command).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(refusal)) => refusal,
                Err(error) => return Err(Trouble::Failed(error)),
            };
            let settled = match awaited(&refusal) {
                Some(version) if Instant::now() < deadline => {
                    let is_there = |state: &State| {
                        (state.identity().is_some() && state.version() >= version).then_some(())
                    };
                    wait_for(&consensus, deadline, is_there).await
                }
                _ => None,
            };
            if settled.is_none() {
                return Err(Trouble::Refused(refusal));
            }
        }
    }

    /// Reads what shows everything that was agreed on before, or what this node has.
    pub(crate) async fn read<T>(
        &self,
        stale: bool,
        look: impl FnOnce(&State) -> T,
    ) -> Result<T, Trouble> {
        let consensus = self.member()?;
        if stale {
            return Ok(consensus.look(look));
        }
        consensus.read(look).await.map_err(Trouble::Failed)
    }

    /// What `look` finds once it does not `wait` any more, or once the time is over; `None` when there is nothing to find. What this node
    /// has may be behind, but it has come at least to where whoever asks was answered before.
    pub(crate) async fn outcome<T>(
        &self,
        deadline: Instant,
        look: impl Fn(&State) -> Option<T>,
        waits: impl Fn(&T) -> bool,
    ) -> Result<Option<T>, Trouble> {
        let first = self.read(false, &look).await?;
        if !first.as_ref().is_some_and(&waits) {
            return Ok(first);
        }
        let consensus = self.member()?;
        let over = wait_for(&consensus, deadline, |state| match look(state) {
            Some(found) if waits(&found) => None,
            over => Some(over),
        });
        Ok(match over.await {
            Some(over) => over,
            None => consensus.look(look),
        })
    }
}

/// If a command was refused for something that the leader sees to by itself soon: which version the state has then.
fn awaited(refusal: &Refusal) -> Option<u16> {
    match refusal {
        Refusal::NotFormed => Some(0),
        Refusal::TooNew { needed, .. } if *needed <= VERSION => Some(*needed),
        _ => None,
    }
}

/// What is found in the state of this node, now or whenever it changes until then.
pub(crate) async fn wait_for<T>(
    consensus: &Consensus,
    deadline: Instant,
    mut look: impl FnMut(&State) -> Option<T>,
) -> Option<T> {
    let mut progress = consensus.watch();
    loop {
        progress.borrow_and_update();
        if let Some(found) = consensus.look(&mut look) {
            return Some(found);
        }
        match timeout_at(deadline, progress.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return None,
        }
    }
}
