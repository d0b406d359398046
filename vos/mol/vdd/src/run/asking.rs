// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a person asks about replicas.

use super::clerk::with_board;
use super::{ByGroup, RunError};
use crate::board::{BoardError, Standing};
use crate::client::Finder;
use crate::replica::{Life, ReplicaId, Standing as Step};
use core::fmt::Write;
use dvk::{Port, Slot, Timeout};
use mol_protocol::block::{BlockClient, Scrub};
use std::path::Path;

/// How long a server may take to begin.
const LIMIT: Timeout = Timeout::from_millis(10_000);

/// Who has replicas of a device, one a line, for people.
///
/// # Errors
/// [`RunError::Board`].
pub fn show(dvk: &Path, group: &str, minor: u32) -> Result<String, RunError> {
    Ok(describe(&with_board(dvk, group, |board| board.look(minor))?))
}

/// Takes a replica away.
///
/// # Errors
/// [`RunError::Board`], [`RunError::NotRemoved`].
pub fn remove(dvk: &Path, group: &str, minor: u32, id: ReplicaId) -> Result<String, RunError> {
    let removed = with_board(dvk, group, |board| -> Result<_, BoardError> {
        Ok((board.remove(minor, id)?, board.look(minor)?))
    });
    match removed? {
        (true, _) => Ok(format!("{id} of device {minor} is removed\n")),
        (false, standing) => {
            let is_one = standing.lineup.members.contains_key(&id);
            Err(RunError::NotRemoved { id, minor, is_one })
        }
    }
}

/// Begins to compare the blocks of all replicas of a device that are in step.
///
/// # Errors
/// [`RunError::Dvk`], [`RunError::NotScrubbed`].
pub fn scrub(dvk: &Path, group: &str, minor: u32) -> Result<String, RunError> {
    let port = Port::open(dvk, Slot::Any)?;
    let finder = ByGroup::new(dvk, group, minor)?;
    let failed = |why: String| RunError::NotScrubbed { minor, why };
    let server = finder.find().ok_or_else(|| failed("it has no primary".to_owned()))?;
    let client = BlockClient::new(&port, server).within(LIMIT);
    client.scrub(&Scrub { minor }).map_err(|error| failed(error.to_string()))?;
    Ok(format!("device {minor} is compared; {server} tells what it finds\n"))
}

fn describe(standing: &Standing) -> String {
    let lineup = &standing.lineup;
    let mut text = format!("epoch {}, primary {}\n", lineup.epoch, lineup.primary.0);
    for (id, member) in &lineup.members {
        let step = match member.standing {
            Step::InStep => "in step",
            Step::Behind => "behind",
        };
        let known = standing.servers.get(id).filter(|_| member.life != Life(0));
        let place = match known {
            Some((life, server)) if *life == member.life => format!("server {server}"),
            Some(_) => "its server was started anew".to_owned(),
            None => "no server yet".to_owned(),
        };
        let gone = if member.is_gone { ", seems gone" } else { "" };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "replica {}: {step}, {place}{gone}", id.0);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::Lineup;
    use core::num::NonZeroU32;
    use dvk::Endpoint;

    #[test]
    fn a_line_up_is_told_line_by_line() {
        let ids = [1, 2, 3].map(ReplicaId);
        let mut lineup =
            Lineup::first(ids[0], [(ids[0], Life(7)), (ids[1], Life(8)), (ids[2], Life(0))]);
        lineup.members.get_mut(&ids[0]).unwrap().is_gone = true;
        let server = |slot, life| (Life(life), Endpoint::new(slot, NonZeroU32::MIN));
        let servers = [(ids[0], server(70, 7)), (ids[1], server(71, 9))].into();
        let standing = Standing { identity: 1, lineup, servers };
        assert_eq!(
            describe(&standing),
            "epoch 1, primary 1\n\
             replica 1: in step, server 70.1, seems gone\n\
             replica 2: behind, its server was started anew\n\
             replica 3: behind, no server yet\n"
        );
    }
}
