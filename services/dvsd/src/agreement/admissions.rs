// SPDX-License-Identifier: MIT OR Apache-2.0
//! Letting machines in that have a join token: what is agreed on about it, and having it agreed that they join.

use dvs_config::{Mac, Token};
use dvs_state::nodes::Machine;
use dvs_state::tokens::Command as Tokens;
use dvs_state::{Command, Refusal, State};

use super::Access;
use crate::admission::{Admission, Known, Reason};

/// What is agreed on about a token and a machine that shows it.
fn known(state: &State, id: &str, machine: Mac) -> Option<Known> {
    let (token, note) = (state.tokens().get(id)?, state.token_notes().get(id)?);
    let machine = Machine(machine.0);
    let removed = state.lifecycle().bar(machine).is_some_and(|bar| bar.since >= note.created);
    let used_up = token.uses_left == Some(0) && !note.machines.contains(&machine);
    let against = match (removed, used_up) {
        (true, _) => Some(Reason::Removed),
        (false, true) => Some(Reason::UsedUp),
        (false, false) => None,
    };
    Some(Known { public: token.public(), against })
}

impl Access {
    /// Whether it is this node that lets machines in: that which leads, so that each is answered once.
    pub fn is_doorkeeper(&self) -> bool {
        self.consensus().is_ok_and(|consensus| consensus.is_leader())
    }

    /// What is agreed on about a join token and a machine that shows it, as far as this node has come.
    pub fn token(&self, id: &str, machine: Mac) -> Option<Known> {
        self.consensus().ok()?.look(|state| known(state, id, machine))
    }

    /// Has the nodes agree that a machine joins; gives back what to send to it, if there is something to say.
    pub async fn admit(&self, admission: Admission, token: &Token) -> Option<Vec<u8>> {
        let consensus = self.consensus().ok()?;
        let (name, machine) = (admission.id.clone(), Machine(admission.machine.0));
        let redeem = Command::Tokens(Tokens::Redeem { name, machine });
        match consensus.propose(&redeem).await {
            Ok(Ok(_)) => admission.answer(token),
            Ok(Err(Refusal::Missing { .. })) => Some(admission.refusal(Reason::Unknown)),
            Ok(Err(_)) => {
                let known = self.token(&admission.id, admission.machine);
                let reason = known.and_then(|known| known.against).unwrap_or(Reason::Unknown);
                Some(admission.refusal(reason))
            }
            // It asks again.
            Err(_) => None,
        }
    }
}
