// SPDX-License-Identifier: MIT OR Apache-2.0
//! Roles: which one of a container's programs does something that only one may do at a time, and where it is found.
//!
//! A role is an election of the container's, and what its leader says of itself is its endpoint. So a program that waits for the role takes
//! over when the one that had it ends, loses its node, or cannot be heard by the cluster's majority; and clients [find] whoever has it, on any node.
//!
//! A holder believes in its role for a bounded time after the last renewal that it knows of, which ends before anybody else can have it. It has to
//! look ([`Role::standing`]) before it does something that only the holder may do, and end when it has lost the role.
//! It does not help against a program that is stopped between looking and doing; whatever can compare the term should.

mod candidacy;

pub use self::candidacy::{Candidacy, Standing, Step, TTL};

use core::time::Duration;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use dvk::{Endpoint, Port, Slot, Timeout};

use crate::client::{Client, Error, Way};
use crate::question::Question;

/// How long nothing is asked after a question had no answer.
const PAUSE: Duration = Duration::from_millis(100);

/// Who has a role now, if anybody has.
///
/// # Errors
/// [`Error`].
pub fn find<W: Way>(client: &Client<W>, role: &str) -> Result<Option<Endpoint>, Error> {
    let leader = client.observe(role, None, 0)?;
    Ok(leader.and_then(|leader| decode(&leader.value)))
}

fn encode(endpoint: Endpoint) -> [u8; 8] {
    endpoint.raw().to_le_bytes()
}

/// What another kind of candidate says of itself is no endpoint.
fn decode(value: &[u8]) -> Option<Endpoint> {
    let endpoint = Endpoint::from_raw(u64::from_le_bytes(value.try_into().ok()?));
    endpoint.is_name().then_some(endpoint)
}

/// A program's candidacy for a role, which a thread of its own keeps up. It is given back when this is dropped.
#[derive(Debug)]
pub struct Role {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    began: Instant,
    standing: Mutex<Standing>,
    ends: AtomicBool,
}

impl Role {
    /// Stands for a role in the container of the device `dvk`; clients of the role are to ask `me`.
    ///
    /// # Errors
    /// Those of [`Port::open`].
    pub fn stand(dvk: &Path, role: &str, me: Endpoint) -> Result<Self, dvk::Error> {
        let port = Port::open(dvk, Slot::Any)?;
        let shared = Arc::new(Shared {
            began: Instant::now(),
            standing: Mutex::new(Standing::Waiting),
            ends: AtomicBool::new(false),
        });
        let candidacy = Candidacy::new(role, &encode(me));
        let its = shared.clone();
        let thread = std::thread::spawn(move || keep_up(&port, candidacy, &its));
        Ok(Self { shared, thread: Some(thread) })
    }

    /// How it stands now.
    pub fn standing(&self) -> Standing {
        let now = self.shared.began.elapsed();
        match *self.shared.standing.lock().unwrap_or_else(PoisonError::into_inner) {
            Standing::Held { until, .. } if now >= until => Standing::Lost,
            standing => standing,
        }
    }

    /// Whether it has the role now.
    pub fn is_held(&self) -> bool {
        matches!(self.standing(), Standing::Held { .. })
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A thread that has panicked has nothing more to give back than a lease that ends by itself.
            let _ = thread.join();
        }
    }
}

fn keep_up(port: &Port, mut candidacy: Candidacy, shared: &Shared) {
    let now = || shared.began.elapsed();
    let mut client = None;
    while !shared.ends.load(Ordering::Relaxed) {
        let step = candidacy.next(now());
        *shared.standing.lock().unwrap_or_else(PoisonError::into_inner) = candidacy.standing(now());
        match step {
            Step::Ask(question) => {
                let asked = now();
                let answer = ask(port, &mut client, &question);
                if !candidacy.heard(asked, &answer) {
                    std::thread::sleep(PAUSE);
                }
            }
            Step::Pause(time) => std::thread::sleep(time.min(PAUSE)),
            Step::End => return,
        }
    }
    if let (Some(lease), Some(client)) = (candidacy.lease(), client) {
        // Who cannot be told finds out when the lease ends.
        let _ = client.revoke(lease);
    }
}

/// Asks the services of this node, which are looked for again once they were started anew.
fn ask<'p>(
    port: &'p Port,
    client: &mut Option<Client<crate::Direct<'p>>>,
    question: &Question,
) -> Result<crate::Answer, Error> {
    let found = match *client {
        Some(found) => found,
        None => *client.insert(Client::find(port, Timeout::After(PAUSE))?),
    };
    let answer = found.ask(question);
    if matches!(answer, Err(Error::Ipc(_))) {
        *client = None;
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::num::NonZeroU32;

    #[test]
    fn a_holder_is_found_by_what_it_says_and_others_are_none() {
        let endpoint = Endpoint::new(70, NonZeroU32::MIN);
        assert_eq!(decode(&encode(endpoint)), Some(endpoint));
        assert_eq!(decode(b"node1"), None);
        assert_eq!(decode(&encode(Endpoint::ANY)), None);
        assert_eq!(decode(&[]), None);
    }
}
