// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the leader says next about an upgrade, as far as it sees the nodes.

use std::collections::BTreeMap;

use dvs_state::nodes::NodeId;
use dvs_state::upgrades::plan::{self, Sight};
use dvs_state::{Command, State, Time};

use crate::agreement::seat;
use crate::membership::{Liveness, View};

/// The next command; `None` while there is nothing to do. `own` is the release of this node, of which no beacon tells it, and `now` the agreed
/// time.
pub(crate) fn next(view: &View, state: &State, own: &str, now: Time) -> Option<Command> {
    let upgrade = state.upgrades().current()?;
    let seen: BTreeMap<NodeId, Sight> = view
        .members
        .iter()
        .filter(|member| member.liveness == Liveness::Alive)
        .filter_map(|member| {
            let release = match &member.said {
                _ if member.local => own.to_owned(),
                Some(said) => said.release.clone(),
                None => return None,
            };
            let seat = seat(member.seat);
            Some((seat.id, Sight { seat, is_ready: member.ready, release }))
        })
        .collect();
    plan::next(upgrade, state.nodes(), &seen, now).map(Command::Upgrades)
}
