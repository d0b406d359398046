// SPDX-License-Identifier: MIT OR Apache-2.0
//! Leases of time: what is held under one ends with it, unless its holder keeps it alive.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::refusal::{Refusal, Thing};
use crate::tickets::Tickets;
use crate::time::Time;

/// The longest a lease may last without being kept alive: a day.
pub const TTL_MS_MAX: u64 = 24 * 60 * 60 * 1000;
/// The shortest: below, a change of leaders could end it before its holder gets to keep it alive.
pub const TTL_MS_MIN: u64 = 500;
/// Most leases at once.
pub const LEASES_MAX: usize = 65_536;

/// The name of a lease. None ever comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LeaseId(pub u64);

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What can be done with leases.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Makes a lease.
    Grant {
        /// How long it lasts unless it is kept alive.
        ttl_ms: u64,
        /// Whose it is, for people.
        owner: String,
    },
    /// Lets it last for its whole time again, from now on.
    KeepAlive(LeaseId),
    /// Ends it, and what is held under it.
    Revoke(LeaseId),
}

/// A lease that has not ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// How long it lasts unless it is kept alive.
    pub ttl_ms: u64,
    /// When it ends.
    pub expires: Time,
    /// Whose it is, for people.
    pub owner: String,
}

/// The leases that have not ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leases {
    by_id: BTreeMap<LeaseId, Lease>,
    /// The same by when they end.
    due: BTreeSet<(Time, LeaseId)>,
}

impl Leases {
    /// A lease that has not ended.
    pub fn get(&self, id: LeaseId) -> Option<&Lease> {
        self.by_id.get(&id)
    }

    /// All of them by id.
    pub fn iter(&self) -> impl Iterator<Item = (LeaseId, &Lease)> + '_ {
        self.by_id.iter().map(|(id, lease)| (*id, lease))
    }

    /// When the next one ends.
    pub fn deadline(&self) -> Option<Time> {
        self.due.first().map(|(time, _)| *time)
    }

    pub(crate) fn check(&self, id: LeaseId) -> Result<(), Refusal> {
        self.get(id).map(drop).ok_or_else(|| Refusal::missing(Thing::Lease, id))
    }

    pub(crate) fn grant(
        &mut self,
        tickets: &mut Tickets,
        now: Time,
        ttl_ms: u64,
        owner: &str,
    ) -> Result<LeaseId, Refusal> {
        if !(TTL_MS_MIN..=TTL_MS_MAX).contains(&ttl_ms) {
            return Err(Refusal::Invalid(format!(
                "a lease cannot last for {ttl_ms} ms; give it {TTL_MS_MIN} to {TTL_MS_MAX} ms"
            )));
        }
        crate::check_label("the owner of a lease", owner)?;
        if self.by_id.len() >= LEASES_MAX {
            return Err(Refusal::limit("the number of leases", LEASES_MAX));
        }
        let id = LeaseId(tickets.draw());
        let expires = now.after(ttl_ms);
        self.by_id.insert(id, Lease { ttl_ms, expires, owner: owner.to_owned() });
        self.due.insert((expires, id));
        Ok(id)
    }

    pub(crate) fn keep_alive(&mut self, now: Time, id: LeaseId) -> Result<u64, Refusal> {
        let lease = self.by_id.get_mut(&id).ok_or_else(|| Refusal::missing(Thing::Lease, id))?;
        self.due.remove(&(lease.expires, id));
        lease.expires = now.after(lease.ttl_ms);
        self.due.insert((lease.expires, id));
        Ok(lease.ttl_ms)
    }

    pub(crate) fn revoke(&mut self, id: LeaseId) -> Result<(), Refusal> {
        let lease = self.by_id.remove(&id).ok_or_else(|| Refusal::missing(Thing::Lease, id))?;
        self.due.remove(&(lease.expires, id));
        Ok(())
    }

    /// Takes off a lease that has ended by `now`, the earliest first.
    pub(crate) fn expire_one(&mut self, now: Time) -> Option<LeaseId> {
        let (_, id) = self.due.first().copied().filter(|(time, _)| *time <= now)?;
        self.due.pop_first();
        self.by_id.remove(&id);
        Some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(leases: &mut Leases, tickets: &mut Tickets, now: u64, ttl_ms: u64) -> LeaseId {
        leases.grant(tickets, Time(now), ttl_ms, "test").unwrap()
    }

    #[test]
    fn a_lease_ends_when_its_time_is_over_and_not_before() {
        let (mut leases, mut tickets) = (Leases::default(), Tickets::default());
        let long = grant(&mut leases, &mut tickets, 0, 2_000);
        let short = grant(&mut leases, &mut tickets, 0, 1_000);
        assert_eq!(leases.deadline(), Some(Time(1_000)));
        assert_eq!(leases.expire_one(Time(999)), None);
        assert_eq!(leases.expire_one(Time(5_000)), Some(short));
        assert_eq!(leases.expire_one(Time(5_000)), Some(long));
        assert_eq!((leases.expire_one(Time(5_000)), leases.deadline()), (None, None));
    }

    #[test]
    fn keeping_alive_starts_the_time_anew() {
        let (mut leases, mut tickets) = (Leases::default(), Tickets::default());
        let id = grant(&mut leases, &mut tickets, 0, 1_000);
        assert_eq!(leases.keep_alive(Time(900), id), Ok(1_000));
        assert_eq!(leases.expire_one(Time(1_899)), None);
        assert_eq!(leases.expire_one(Time(1_900)), Some(id));
        assert_eq!(leases.keep_alive(Time(1_900), id), Err(Refusal::missing(Thing::Lease, id)));
    }

    #[test]
    fn no_id_comes_back() {
        let (mut leases, mut tickets) = (Leases::default(), Tickets::default());
        let first = grant(&mut leases, &mut tickets, 0, 1_000);
        leases.revoke(first).unwrap();
        assert!(grant(&mut leases, &mut tickets, 0, 1_000) > first);
        assert!(leases.revoke(first).is_err());
    }

    #[test]
    fn times_that_make_no_sense_are_refused() {
        let (mut leases, mut tickets) = (Leases::default(), Tickets::default());
        for ttl_ms in [0, TTL_MS_MIN - 1, TTL_MS_MAX + 1, u64::MAX] {
            assert!(leases.grant(&mut tickets, Time(0), ttl_ms, "test").is_err(), "{ttl_ms}");
        }
        assert_eq!(leases, Leases::default());
    }
}
