// SPDX-License-Identifier: MIT OR Apache-2.0
//! Elections: of those who stand, one leads.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::leases::LeaseId;
use crate::line::{Line, Standing};
use crate::locks::LINE_MAX;
use crate::refusal::{Refusal, Thing};
use crate::tickets::Tickets;

/// Most elections at once.
pub const ELECTIONS_MAX: usize = 65_536;
/// Most bytes that a candidate can say of itself.
pub const VALUE_BYTES_MAX: usize = 4_096;

/// What can be done with elections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Stands for election.
    Stand {
        /// Which one; it exists while somebody stands.
        name: String,
        /// Under which lease.
        lease: LeaseId,
        /// What others should know of this candidate once it leads, such as its address.
        value: Vec<u8>,
    },
    /// Changes what others know of the leader.
    Proclaim {
        /// Which one.
        name: String,
        /// The leader's lease.
        lease: LeaseId,
        /// What others should know.
        value: Vec<u8>,
    },
    /// Stops to lead or to stand.
    Resign {
        /// Which one.
        name: String,
        /// Under which lease.
        lease: LeaseId,
    },
}

/// Who leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leader<'a> {
    /// Its lease.
    pub lease: LeaseId,
    /// Its term, greater than that of every leader before: a fencing token.
    pub term: u64,
    /// What it says of itself.
    pub value: &'a [u8],
}

/// The elections for which somebody stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Elections {
    by_name: BTreeMap<String, Line>,
}

impl Elections {
    /// Who leads.
    pub fn leader(&self, name: &str) -> Option<Leader<'_>> {
        let (lease, holder) = self.by_name.get(name)?.holders().next()?;
        Some(Leader { lease, term: holder.fence, value: &holder.label })
    }

    /// All for which somebody stands, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Line)> + '_ {
        self.by_name.iter().map(|(name, line)| (name.as_str(), line))
    }

    /// Where a candidate stands.
    pub fn standing(&self, name: &str, lease: LeaseId) -> Option<Standing> {
        self.by_name.get(name)?.standing(lease)
    }

    pub(crate) fn stand(
        &mut self,
        tickets: &mut Tickets,
        name: &str,
        lease: LeaseId,
        value: &[u8],
    ) -> Result<Standing, Refusal> {
        crate::check_name("an election", name)?;
        check_value(value)?;
        match self.by_name.get(name) {
            None if self.by_name.len() >= ELECTIONS_MAX => {
                return Err(Refusal::limit("the number of elections", ELECTIONS_MAX));
            }
            Some(line) if line.standing(lease).is_none() && line.len() >= LINE_MAX => {
                return Err(Refusal::limit(format!("the candidates of election {name}"), LINE_MAX));
            }
            _ => {}
        }
        let line = self.by_name.entry(name.to_owned()).or_insert_with(|| Line::new(1));
        Ok(line.enter(tickets, lease, value))
    }

    pub(crate) fn proclaim(
        &mut self,
        name: &str,
        lease: LeaseId,
        value: &[u8],
    ) -> Result<(), Refusal> {
        check_value(value)?;
        let line =
            self.by_name.get_mut(name).ok_or_else(|| Refusal::missing(Thing::Election, name))?;
        match line.relabel(lease, value) {
            true => Ok(()),
            false => Err(Refusal::Busy { what: Thing::Election, name: name.to_owned() }),
        }
    }

    /// Says whether the lease stood.
    pub(crate) fn resign(&mut self, tickets: &mut Tickets, name: &str, lease: LeaseId) -> bool {
        let Some(line) = self.by_name.get_mut(name) else { return false };
        let stood = line.leave(tickets, lease);
        if line.is_empty() {
            self.by_name.remove(name);
        }
        stood
    }

    pub(crate) fn end_lease(&mut self, tickets: &mut Tickets, lease: LeaseId) {
        self.by_name.retain(|_, line| {
            line.leave(tickets, lease);
            !line.is_empty()
        });
    }
}

fn check_value(value: &[u8]) -> Result<(), Refusal> {
    match value.len() <= VALUE_BYTES_MAX {
        true => Ok(()),
        false => Err(Refusal::limit("bytes of a candidate's value", VALUE_BYTES_MAX)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_leads_and_the_next_follows_with_a_greater_term() {
        let (mut elections, mut tickets) = (Elections::default(), Tickets::default());
        let [a, b] = [LeaseId(1), LeaseId(2)];
        elections.stand(&mut tickets, "e", a, b"a").unwrap();
        elections.stand(&mut tickets, "e", b, b"b").unwrap();
        assert_eq!(elections.leader("e"), Some(Leader { lease: a, term: 1, value: b"a" }));
        elections.proclaim("e", a, b"new").unwrap();
        assert_eq!(elections.leader("e").unwrap().value, b"new");
        assert!(elections.proclaim("e", b, b"no").is_err());
        elections.end_lease(&mut tickets, a);
        assert_eq!(elections.leader("e"), Some(Leader { lease: b, term: 2, value: b"b" }));
        assert!(elections.resign(&mut tickets, "e", b));
        assert_eq!(elections, Elections::default());
    }
}
