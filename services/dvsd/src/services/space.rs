// SPDX-License-Identifier: MIT OR Apache-2.0
//! A container's own names among those that the nodes agree on, and how much it may have of each kind.

use dvk_services::Lease;
use dvs_state::containers::ContainerId;
use dvs_state::kv::Selector;
use dvs_state::leases::LeaseId;
use dvs_state::{Refusal, State, Thing};

/// How the names of all containers begin. Those of administrators begin otherwise.
pub(super) const SPACES: &str = "dc/";
/// Most keys of a container.
const KEYS_MAX: usize = 4_096;
/// Most bytes of its keys and values.
const BYTES_MAX: usize = 8 * 1024 * 1024;
/// Most leases of a container.
const LEASES_MAX: usize = 1_024;
/// Most locks, elections and barriers of a container, each.
const NAMES_MAX: usize = 1_024;
/// Most groups of a container, each of which may keep megabytes for a member that is behind.
const GROUPS_MAX: usize = 16;

/// One container's.
#[derive(Clone, Debug)]
pub(super) struct Space {
    prefix: String,
}

/// What there can be too many of.
#[derive(Clone, Copy, Debug)]
pub(super) enum Named {
    Lock,
    Election,
    Barrier,
    Group,
}

impl Space {
    pub(super) fn of(id: ContainerId) -> Self {
        Self { prefix: format!("{SPACES}{id}/") }
    }

    /// A name as the state has it.
    pub(super) fn name(&self, what: &str, name: &str) -> Result<String, Refusal> {
        match name.is_empty() {
            true => Err(Refusal::Invalid(format!("{what} has no name; give it one"))),
            false => Ok(format!("{}{name}", self.prefix)),
        }
    }

    /// Whose a lease is, as the state has it.
    pub(super) fn owner(&self, owner: &str) -> String {
        format!("{}{owner}", self.prefix)
    }

    /// A key, or the beginning of some, as the state has it.
    pub(super) fn key(&self, key: &[u8]) -> Vec<u8> {
        [self.prefix.as_bytes(), key].concat()
    }

    /// A key as the container has it; `None` for one that is not the container's.
    pub(super) fn own_key<'k>(&self, key: &'k [u8]) -> Option<&'k [u8]> {
        key.strip_prefix(self.prefix.as_bytes())
    }

    /// What is said about the state, in the container's own names.
    pub(super) fn told(&self, text: &str) -> String {
        text.replace(&self.prefix, "")
    }

    /// Whether a lease is one of the container's, as far as the state goes.
    pub(super) fn has(&self, state: &State, lease: LeaseId) -> bool {
        state.leases().get(lease).is_some_and(|lease| lease.owner.starts_with(&self.prefix))
    }

    /// That there is no such lease, which is what is said of those of others as well.
    pub(super) fn no_lease(lease: Lease) -> Refusal {
        Refusal::missing(Thing::Lease, lease.0)
    }

    /// Whether there may be one more lease. What this node has may be a little behind: these bounds are there so that no container takes what
    /// is for all, and need not be exact.
    pub(super) fn check_leases(&self, state: &State) -> Result<(), Refusal> {
        let own = state.leases().iter().filter(|(_, it)| it.owner.starts_with(&self.prefix));
        within("leases of a container", own.count(), LEASES_MAX)
    }

    /// Whether there may be something of that name, which is the state's.
    pub(super) fn check_name(&self, state: &State, of: Named, name: &str) -> Result<(), Refusal> {
        let (what, names, most): (_, Vec<&str>, _) = match of {
            Named::Lock => ("locks", state.locks().iter().map(|it| it.0).collect(), NAMES_MAX),
            Named::Election => {
                ("elections", state.elections().iter().map(|it| it.0).collect(), NAMES_MAX)
            }
            Named::Barrier => {
                ("barriers", state.barriers().iter().map(|it| it.0).collect(), NAMES_MAX)
            }
            Named::Group => ("groups", state.groups().iter().map(|it| it.0).collect(), GROUPS_MAX),
        };
        if names.contains(&name) {
            return Ok(());
        }
        let own = names.iter().filter(|other| other.starts_with(&self.prefix)).count();
        within(&format!("{what} of a container"), own, most)
    }

    /// Whether values of these lengths may be written under these keys, which are the state's.
    pub(super) fn check_keys(
        &self,
        state: &State,
        puts: &[(Vec<u8>, usize)],
    ) -> Result<(), Refusal> {
        let own = state.kv().range(&Selector::Prefix(self.prefix.clone().into_bytes()));
        let (mut keys, mut bytes) = own.fold((0, 0), |(keys, bytes), (key, pair)| {
            (keys + 1, bytes + key.len() + pair.value.len())
        });
        for (key, value) in puts {
            match state.kv().get(key) {
                Some(pair) => bytes = (bytes + value).saturating_sub(pair.value.len()),
                None => (keys, bytes) = (keys + 1, bytes + key.len() + value),
            }
        }
        match keys > KEYS_MAX {
            true => Err(Refusal::limit("keys of a container", KEYS_MAX)),
            false if bytes > BYTES_MAX => {
                Err(Refusal::limit("bytes of all keys and values of a container", BYTES_MAX))
            }
            false => Ok(()),
        }
    }
}

fn within(what: &str, count: usize, most: usize) -> Result<(), Refusal> {
    match count < most {
        true => Ok(()),
        false => Err(Refusal::limit(what, most)),
    }
}
