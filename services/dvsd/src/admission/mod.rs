// SPDX-License-Identifier: MIT OR Apache-2.0
//! How a machine that has a join token, and not the cluster's own, is let in.
//!
//! The applicant asks by multicast, like everything before there is a cluster: it names the token's id and begins a Noise
//! handshake by which it proves that it has the token. The node that leads looks the id up in the agreed state, has the nodes agree
//! that the machine joins with it, and answers with the cluster's token, which only who has the join token can open. From
//! there on the machine is one like any other.
//!
//! The handshake is `Noise_KNpsk0`: the applicant's static key is made of the token's secret, and members know its public half, so
//! the state gives no token away; the shared key is made of that public half, so that whoever has never seen the token costs a
//! few hashes, and is in nobody's way. Both ends' ephemeral keys protect an answer that was recorded from a token that
//! is stolen later. Cluster, machine and id are bound to the handshake, so none can be exchanged for another.

mod applicant;
mod desk;
mod seal;
mod wire;

use std::time::{Duration, Instant};

use dvs_api::{Status, StatusState};
use dvs_config::{JoinToken, Token};
use tokio::time::interval;

use crate::multicast::{Departure, Network};
use crate::settings::Settings;
use crate::status::StatusFile;

pub use applicant::{Applicant, Heard};
pub use desk::{Admission, Desk, Known, Verdict};
pub use seal::{public_key, PublicKey};
pub use wire::{is_answer, is_application, Reason};

/// How often time passes for an applicant.
const TICK: Duration = Duration::from_millis(50);

/// Asks until the cluster lets this machine in; gives back the cluster's token. The status says meanwhile what is in the way.
///
/// # Errors
/// For people: what it cannot go on without.
pub async fn apply(
    settings: &Settings,
    token: &JoinToken,
    random: u64,
    network: &mut Network,
    file: &mut StatusFile,
) -> Result<Token, String> {
    let machine = settings.identity(random);
    let mut applicant = Applicant::new(&settings.cluster, machine, token.clone());
    let start = Instant::now();
    let mut tick = interval(TICK);
    let mut told = String::new();
    loop {
        tokio::select! {
            datagram = network.inbound.recv() => {
                let Some(datagram) = datagram else {
                    return Err("the network is gone".into());
                };
                if let Heard::Admitted(token) = applicant.hear(&datagram.bytes) {
                    return Ok(token);
                }
            }
            _ = tick.tick() => {
                let now_ms = start.elapsed().as_millis() as u64;
                if let Some(bytes) = applicant.step(now_ms)? {
                    for interface in &settings.interfaces {
                        // A full queue is a lost datagram.
                        let to_all = Departure::to_all(interface.index, bytes.clone());
                        let _ = network.outbound.try_send(to_all);
                    }
                }
            }
        }
        let detail = applicant.detail();
        if detail != told {
            println!("{detail}");
            file.write(&status(settings, detail.clone()))?;
            told = detail;
        }
    }
}

fn status(settings: &Settings, detail: String) -> Status {
    Status {
        node: None,
        name: Some(settings.name.clone()).filter(|name| !name.is_empty()),
        cluster: settings.cluster.clone(),
        state: StatusState::Discovering,
        detail,
        members: 0,
        ready: 0,
        addresses: Vec::new(),
        version: settings.release.clone(),
    }
}
