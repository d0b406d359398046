// SPDX-License-Identifier: MIT OR Apache-2.0
//! From a question to its answer: what the nodes have to agree on for it, or what they have agreed on.

use std::time::Duration;

use dvk_services::{Answer, Lease, Operation, Question, Transaction, WAIT_MS_MAX};
use dvs_state::barriers::{Command as BarrierCommand, Passage as StatePassage};
use dvs_state::elections::Command as ElectionCommand;
use dvs_state::groups::Command as GroupCommand;
use dvs_state::kv::{Command as KvCommand, Selector};
use dvs_state::leases::{Command as LeaseCommand, LeaseId};
use dvs_state::line::Standing;
use dvs_state::locks::{Command as LockCommand, Wait};
use dvs_state::{Answer as StateAnswer, Command, Refusal, State, Thing};
use tokio::time::Instant;

use super::convert::{deliveries, leader, line, passage};
use super::space::{Named, Space};
use crate::agreement::asking::{wait_for, Asking, Trouble};

/// Answers a container's question.
pub(super) async fn answer(asking: &Asking, space: &Space, question: Question) -> Answer {
    let wait_ms = question.wait_ms();
    if wait_ms > WAIT_MS_MAX {
        let text = format!("wait_ms = {wait_ms}: expected 0 to {WAIT_MS_MAX}");
        return space.refused(&Refusal::Invalid(text));
    }
    let deadline = Instant::now() + Duration::from_millis(wait_ms);
    let answerer = Answerer { asking, space, deadline };
    answerer.answer(question).await.unwrap_or_else(|trouble| space.troubled(trouble))
}

impl From<Refusal> for Trouble {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

struct Answerer<'a> {
    asking: &'a Asking,
    space: &'a Space,
    deadline: Instant,
}

impl Answerer<'_> {
    async fn answer(&self, question: Question) -> Result<Answer, Trouble> {
        use Question as Q;
        match question {
            Q::Read { key, exact, limit, stale } => {
                let key = self.space.key(&key);
                let keys = if exact { Selector::Key(key) } else { Selector::Prefix(key) };
                let limit = usize::try_from(limit).unwrap_or(usize::MAX);
                let range = self.asking.read(stale, |it| self.space.range(it, &keys, limit));
                Ok(Answer::Range(range.await?))
            }
            Q::Transact(transaction) => self.transact(transaction).await,
            Q::Changes { prefix, from, .. } => self.changes(&prefix, from).await,
            Q::Grant { .. } | Q::KeepAlive { .. } | Q::Revoke { .. } => self.lease(question).await,
            Q::Acquire { .. } | Q::AwaitLock { .. } | Q::Release { .. } => {
                self.lock(question).await
            }
            Q::Stand { .. } | Q::AwaitLead { .. } | Q::Observe { .. } | Q::Resign { .. } => {
                self.election(question).await
            }
            Q::Arrive { .. } | Q::AwaitPassage { .. } | Q::Depart { .. } => {
                self.barrier(question).await
            }
            Q::Join { .. }
            | Q::Leave { .. }
            | Q::Send { .. }
            | Q::Deliveries { .. }
            | Q::Acknowledge { .. } => self.group(question).await,
        }
    }

    /// Has the nodes agree, and puts what they say in the words of an answer.
    async fn agree(&self, command: Command) -> Result<Answer, Trouble> {
        Ok(match self.asking.propose(&command).await? {
            StateAnswer::Done => Answer::Done,
            StateAnswer::Changed(changed) => Answer::Changed(changed),
            StateAnswer::Transaction(answer) => self.space.transacted(&answer),
            StateAnswer::Granted(lease) => Answer::Lease(Lease(lease.0)),
            StateAnswer::Standing(standing) => line(standing),
            StateAnswer::Passage(it) => passage(it),
            StateAnswer::Position(position) => Answer::Position(position),
            other => {
                return Err(Refusal::Invalid(format!("the nodes agreed on {other:?}")).into());
            }
        })
    }

    /// A lease of this container's own: those of others are none.
    async fn own(&self, lease: Lease) -> Result<LeaseId, Trouble> {
        let id = LeaseId(lease.0);
        let is_own = |state: &State| self.space.has(state, id);
        // One that was granted a moment ago may not have come to this node's state yet.
        let known =
            self.asking.read(true, is_own).await? || self.asking.read(false, is_own).await?;
        match known {
            true => Ok(id),
            false => Err(Space::no_lease(lease).into()),
        }
    }

    /// Whether this container may have something of that name.
    async fn may_have(&self, of: Named, name: &str) -> Result<(), Trouble> {
        let checked = self.asking.read(true, |state| self.space.check_name(state, of, name));
        Ok(checked.await??)
    }

    async fn transact(&self, transaction: Transaction) -> Result<Answer, Trouble> {
        let mut puts = Vec::new();
        for operation in transaction.then.iter().chain(&transaction.otherwise) {
            let Operation::Put { key, value, lease } = operation else { continue };
            puts.push((self.space.key(key), value.len()));
            if let Some(lease) = lease {
                self.own(*lease).await?;
            }
        }
        let transaction = self.space.transaction(transaction)?;
        if !puts.is_empty() {
            let checked = self.asking.read(true, |state| self.space.check_keys(state, &puts));
            checked.await??;
        }
        self.agree(Command::Kv(KvCommand::Transact(transaction))).await
    }

    async fn changes(&self, prefix: &[u8], from: Option<u64>) -> Result<Answer, Trouble> {
        let Some(from) = from else {
            let revision = self.asking.read(false, |state| state.kv().revision()).await?;
            return Ok(Answer::Changes(revision, Vec::new()));
        };
        let consensus = self.asking.consensus().map_err(Trouble::Absent)?;
        let look = |state: &State| self.space.changes(state, prefix, from);
        match wait_for(&consensus, self.deadline, look).await {
            Some(found) => Ok(found?),
            None => Ok(Answer::Changes(from.saturating_sub(1), Vec::new())),
        }
    }

    async fn lease(&self, question: Question) -> Result<Answer, Trouble> {
        let command = match question {
            Question::Grant { ttl_ms, owner } => {
                let checked = self.asking.read(true, |state| self.space.check_leases(state));
                checked.await??;
                LeaseCommand::Grant { ttl_ms, owner: self.space.owner(&owner) }
            }
            Question::KeepAlive { lease } => {
                let kept = LeaseCommand::KeepAlive(self.own(lease).await?);
                self.agree_on_lease(kept).await?;
                return Ok(Answer::Lease(lease));
            }
            Question::Revoke { lease } => LeaseCommand::Revoke(self.own(lease).await?),
            other => return Err(unasked(&other)),
        };
        self.agree(Command::Leases(command)).await
    }

    async fn agree_on_lease(&self, command: LeaseCommand) -> Result<(), Trouble> {
        self.asking.propose(&Command::Leases(command)).await.map(drop)
    }

    async fn lock(&self, question: Question) -> Result<Answer, Trouble> {
        let in_space = |name: &str| self.space.name("a lock", name);
        match question {
            Question::Acquire { name, lease, places, wait, label } => {
                let (name, lease) = (in_space(&name)?, self.own(lease).await?);
                self.may_have(Named::Lock, &name).await?;
                let wait = if wait { Wait::InLine } else { Wait::Never };
                let command = LockCommand::Acquire { name, lease, places, wait, label };
                self.agree(Command::Locks(command)).await
            }
            Question::AwaitLock { name, lease, .. } => {
                let name = in_space(&name)?;
                self.stands(lease, |state, lease| state.locks().standing(&name, lease)).await
            }
            Question::Release { name, lease } => {
                let (name, lease) = (in_space(&name)?, LeaseId(lease.0));
                self.agree(Command::Locks(LockCommand::Release { name, lease })).await
            }
            other => Err(unasked(&other)),
        }
    }

    /// Where a lease stands in a line; waits until it holds what the line is for.
    async fn stands(
        &self,
        lease: Lease,
        look: impl Fn(&State, LeaseId) -> Option<Standing>,
    ) -> Result<Answer, Trouble> {
        let id = LeaseId(lease.0);
        let waits = |standing: &Standing| matches!(standing, Standing::Waiting { .. });
        let found = self.asking.outcome(self.deadline, |state| look(state, id), waits).await?;
        found.map(line).ok_or_else(|| Space::no_lease(lease).into())
    }

    async fn election(&self, question: Question) -> Result<Answer, Trouble> {
        let in_space = |name: &str| self.space.name("an election", name);
        match question {
            Question::Stand { name, lease, value } => {
                let (name, lease) = (in_space(&name)?, self.own(lease).await?);
                self.may_have(Named::Election, &name).await?;
                self.agree(Command::Elections(ElectionCommand::Stand { name, lease, value })).await
            }
            Question::AwaitLead { name, lease, .. } => {
                let name = in_space(&name)?;
                self.stands(lease, |state, lease| state.elections().standing(&name, lease)).await
            }
            Question::Observe { name, known, .. } => {
                let name = in_space(&name)?;
                // Nobody is found as somebody is, so that waiting is for what is known to end.
                let look = |state: &State| Some(leader(state, &name));
                let is_old =
                    |it: &Option<dvk_services::Leader>| it.as_ref().map(|it| it.term) == known;
                let found = self.asking.outcome(self.deadline, look, is_old).await?;
                Ok(Answer::Leader(found.flatten()))
            }
            Question::Resign { name, lease } => {
                let (name, lease) = (in_space(&name)?, LeaseId(lease.0));
                self.agree(Command::Elections(ElectionCommand::Resign { name, lease })).await
            }
            other => Err(unasked(&other)),
        }
    }

    async fn barrier(&self, question: Question) -> Result<Answer, Trouble> {
        let in_space = |name: &str| self.space.name("a barrier", name);
        match question {
            Question::Arrive { name, lease, parties, attempt } => {
                let (name, lease) = (in_space(&name)?, self.own(lease).await?);
                self.may_have(Named::Barrier, &name).await?;
                let command = BarrierCommand::Arrive { name, lease, parties, attempt };
                self.agree(Command::Barriers(command)).await
            }
            Question::AwaitPassage { name, lease, attempt, .. } => {
                let (name, id) = (in_space(&name)?, LeaseId(lease.0));
                let look = |state: &State| state.barriers().passage(&name, id, attempt);
                let waits = |it: &StatePassage| matches!(it, StatePassage::Waiting { .. });
                let found = self.asking.outcome(self.deadline, look, waits).await?;
                found.map(passage).ok_or_else(|| Space::no_lease(lease).into())
            }
            Question::Depart { name, lease } => {
                let (name, lease) = (in_space(&name)?, LeaseId(lease.0));
                self.agree(Command::Barriers(BarrierCommand::Leave { name, lease })).await
            }
            other => Err(unasked(&other)),
        }
    }

    async fn group(&self, question: Question) -> Result<Answer, Trouble> {
        let in_space = |name: &str| self.space.name("a group", name);
        let command = match question {
            Question::Join { group, lease, name } => {
                let (group, lease) = (in_space(&group)?, self.own(lease).await?);
                self.may_have(Named::Group, &group).await?;
                GroupCommand::Join { group, lease, name }
            }
            Question::Leave { group, lease } => {
                GroupCommand::Leave { group: in_space(&group)?, lease: LeaseId(lease.0) }
            }
            Question::Send { group, lease, number, payload } => {
                let (group, lease) = (in_space(&group)?, LeaseId(lease.0));
                GroupCommand::Multicast { group, lease, number, payload }
            }
            Question::Acknowledge { group, lease, up_to } => {
                let (group, lease) = (in_space(&group)?, LeaseId(lease.0));
                GroupCommand::Acknowledge { group, lease, up_to }
            }
            Question::Deliveries { group, lease, from, .. } => {
                let (group, lease) = (in_space(&group)?, LeaseId(lease.0));
                let look = |state: &State| {
                    let found = state.groups().get(&group);
                    let found = found.ok_or_else(|| Refusal::missing(Thing::Group, &group))?;
                    Ok::<_, Refusal>(deliveries(found.deliveries(lease, from)?))
                };
                let waits = |found: &Result<Vec<_>, Refusal>| {
                    found.as_ref().is_ok_and(|found| found.is_empty())
                };
                let found = self.asking.outcome(self.deadline, |it| Some(look(it)), waits).await?;
                return Ok(Answer::Deliveries(found.unwrap_or_else(|| Ok(Vec::new()))?));
            }
            other => return Err(unasked(&other)),
        };
        self.agree(Command::Groups(command)).await
    }
}

/// A question that was given to those who answer others, which does not happen.
fn unasked(question: &Question) -> Trouble {
    Refusal::Invalid(format!("nobody answers {question:?}")).into()
}
