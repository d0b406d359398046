// SPDX-License-Identifier: MIT OR Apache-2.0
//! Join tokens: who may become a node. Only hashes of them are kept, so the state gives none away.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::nodes::Machine;
use crate::refusal::{Refusal, Thing};
use crate::time::Time;

/// Most tokens at once.
pub const TOKENS_MAX: usize = 1_024;

/// The SHA-256 of a token. Tokens have 128 bits of randomness or more, so a hash cannot be turned back by trying.
pub type TokenHash = [u8; 32];

/// What can be done with tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Makes a token valid.
    Create {
        /// By which name people speak of it.
        name: String,
        /// Its hash.
        hash: TokenHash,
        /// How long it is valid; for ever without.
        ttl_ms: Option<u64>,
        /// How many machines may join with it; any number without.
        uses: Option<u32>,
    },
    /// Makes it invalid.
    Revoke {
        /// Which one.
        name: String,
    },
    /// Counts a machine that has joined with it.
    Use {
        /// The hash of what the machine showed.
        hash: TokenHash,
    },
    /// Makes a token valid that is proved by a key. Since version 2.
    Issue {
        /// By which name people and machines speak of it.
        name: String,
        /// The public half of the key that is made of it.
        public: [u8; 32],
        /// How long it is valid; for ever without.
        ttl_ms: Option<u64>,
        /// How many machines may join with it; any number without.
        uses: Option<u32>,
        /// What it is for, for people.
        description: String,
    },
    /// Lets a machine join that has proved to have a token. One that has joined with it before is not counted again, since a
    /// machine without a disk has to join whenever it starts. Since version 2.
    Redeem {
        /// Which token.
        name: String,
        /// Which machine.
        machine: Machine,
    },
}

/// What is known of a token that was issued.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// What it is for.
    pub description: String,
    /// Since when it is valid.
    pub created: Time,
    /// The machines that have joined with it.
    pub machines: BTreeSet<Machine>,
}

/// What is known of the tokens that were issued, by name.
pub type Notes = BTreeMap<String, Note>;

/// A valid token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Its hash, or the public half of its key.
    hash: TokenHash,
    /// Until when it is valid.
    pub expires: Option<Time>,
    /// How many more machines may join with it.
    pub uses_left: Option<u32>,
}

/// The valid tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tokens {
    by_name: BTreeMap<String, Token>,
}

impl Token {
    /// The public half of the key of a token that was issued.
    pub fn public(&self) -> [u8; 32] {
        self.hash
    }
}

impl Tokens {
    /// A token.
    pub fn get(&self, name: &str) -> Option<&Token> {
        self.by_name.get(name)
    }

    /// Counts a machine that joins. Unlike one of the first version a token that is used up stays, for the machines that have joined
    /// with it.
    pub(crate) fn spend(&mut self, name: &str) -> Result<(), Refusal> {
        let token = self.by_name.get_mut(name);
        let token = token.ok_or_else(|| Refusal::missing(Thing::Token, name))?;
        match &mut token.uses_left {
            None => {}
            Some(0) => {
                return Err(Refusal::Invalid(format!(
                    "join token {name} is used up: as many machines have joined with it as may; create another"
                )));
            }
            Some(left) => *left -= 1,
        }
        Ok(())
    }

    /// All of them by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Token)> + '_ {
        self.by_name.iter().map(|(name, token)| (name.as_str(), token))
    }

    /// The name of the valid token that has this hash.
    pub fn name_of(&self, hash: &TokenHash) -> Option<&str> {
        self.iter().find(|(_, token)| token.hash == *hash).map(|(name, _)| name)
    }

    /// When the next one ends.
    pub fn deadline(&self) -> Option<Time> {
        self.by_name.values().filter_map(|token| token.expires).min()
    }

    pub(crate) fn create(
        &mut self,
        now: Time,
        name: &str,
        hash: TokenHash,
        ttl_ms: Option<u64>,
        uses: Option<u32>,
    ) -> Result<(), Refusal> {
        crate::check_name("a join token", name)?;
        if self.by_name.contains_key(name) {
            return Err(Refusal::exists(Thing::Token, name));
        }
        if let Some(other) = self.name_of(&hash) {
            return Err(Refusal::exists(Thing::Token, other));
        }
        if ttl_ms == Some(0) || uses == Some(0) {
            return Err(Refusal::Invalid(format!("join token {name} could never be used")));
        }
        if self.by_name.len() >= TOKENS_MAX {
            return Err(Refusal::limit("the number of join tokens", TOKENS_MAX));
        }
        let expires = ttl_ms.map(|ttl_ms| now.after(ttl_ms));
        self.by_name.insert(name.to_owned(), Token { hash, expires, uses_left: uses });
        Ok(())
    }

    pub(crate) fn revoke(&mut self, name: &str) -> Result<(), Refusal> {
        let revoked = self.by_name.remove(name);
        revoked.map(drop).ok_or_else(|| Refusal::missing(Thing::Token, name))
    }

    /// Counts a use, and says of which token.
    pub(crate) fn use_once(&mut self, hash: &TokenHash) -> Result<String, Refusal> {
        let unknown = || {
            Refusal::Invalid(
                "the join token is not valid: it is unknown, has run out, was revoked or was used \
                 up; create another"
                    .into(),
            )
        };
        let name = self.name_of(hash).ok_or_else(unknown)?.to_owned();
        let token = self.by_name.get_mut(&name).ok_or_else(unknown)?;
        if let Some(left) = &mut token.uses_left {
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.by_name.remove(&name);
            }
        }
        Ok(name)
    }

    /// Ends those whose time is over, and says which.
    pub(crate) fn expire(&mut self, now: Time) -> Vec<String> {
        let over = |token: &Token| token.expires.is_some_and(|expires| expires <= now);
        self.by_name.extract_if(.., |_, token| over(token)).map(|(name, _)| name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_valid_until_it_expires_is_revoked_or_used_up() {
        let mut tokens = Tokens::default();
        tokens.create(Time(0), "short", [1; 32], Some(100), None).unwrap();
        tokens.create(Time(0), "twice", [2; 32], None, Some(2)).unwrap();
        tokens.create(Time(0), "plain", [3; 32], None, None).unwrap();
        assert_eq!(tokens.deadline(), Some(Time(100)));
        tokens.expire(Time(99));
        tokens.use_once(&[1; 32]).unwrap();
        tokens.expire(Time(100));
        assert!(tokens.use_once(&[1; 32]).is_err());
        tokens.use_once(&[2; 32]).unwrap();
        tokens.use_once(&[2; 32]).unwrap();
        assert!(tokens.use_once(&[2; 32]).is_err());
        tokens.use_once(&[3; 32]).unwrap();
        tokens.revoke("plain").unwrap();
        assert!(tokens.use_once(&[3; 32]).is_err() && tokens.revoke("plain").is_err());
        assert_eq!(tokens, Tokens::default());
    }

    #[test]
    fn neither_a_name_nor_a_secret_can_be_there_twice() {
        let mut tokens = Tokens::default();
        tokens.create(Time(0), "a", [1; 32], None, None).unwrap();
        assert!(tokens.create(Time(0), "a", [2; 32], None, None).is_err());
        assert!(tokens.create(Time(0), "b", [1; 32], None, None).is_err());
        assert!(tokens.create(Time(0), "c", [3; 32], Some(0), None).is_err());
        assert_eq!(tokens.iter().count(), 1);
    }
}
