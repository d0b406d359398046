// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which key is which.
//!
//! AES-GCM loses all that it promises when two frames are encrypted with the same key and the same
//! nonce. MACsec's nonce is the sender's address and a packet number that starts at 1 with every key,
//! so a key may never be used again once the count has begun. The name of a key is therefore all that
//! can repeat a count: the interface that sends, the run of `dvsd` that counts the generations, and
//! the generation. A run draws its number at random, 64 bits, so that neither a restart of `dvsd` nor
//! one of the machine comes back to an earlier key; and within a run generations only grow.

use dvs_config::Mac;
use dvs_secret::{ClusterSecret, Key, Purpose};

/// How many keys of one sender can be in use at once: frames tell them apart by two bits.
pub const ASSOCIATIONS: u32 = 4;

/// One key: whose, and the how manieth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyName {
    /// MAC address of the interface that sends with it.
    pub mac: Mac,
    /// Which run of the sender's `dvsd`.
    pub instance: u64,
    /// From 1 up within the run.
    pub generation: u32,
}

/// The association number of a generation: what frames carry to say which key they are under.
pub fn association(generation: u32) -> u8 {
    (generation % ASSOCIATIONS) as u8
}

impl KeyName {
    /// See [`association`].
    pub fn association(&self) -> u8 {
        association(self.generation)
    }

    /// The key itself.
    pub fn derive(&self, secret: &ClusterSecret) -> Key {
        let mut info = [0; 18];
        info[..6].copy_from_slice(&self.mac.0);
        info[6..14].copy_from_slice(&self.instance.to_le_bytes());
        info[14..].copy_from_slice(&self.generation.to_le_bytes());
        secret.key(Purpose::Segment, &info)
    }

    /// What the kernel shows in place of the key; no secret.
    pub fn id(&self) -> [u8; 16] {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.instance.to_be_bytes());
        id[12..].copy_from_slice(&self.generation.to_be_bytes());
        id
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_part_of_the_name_makes_another_key() {
        let secret = ClusterSecret::new(&"sixteen letters or more".parse().unwrap());
        let name = KeyName { mac: Mac([2, 0, 0, 0, 0, 1]), instance: 7, generation: 1 };
        let others = [
            KeyName { mac: Mac([2, 0, 0, 0, 0, 2]), ..name },
            KeyName { instance: 8, ..name },
            KeyName { instance: 7 << 32, ..name },
            KeyName { generation: 5, ..name },
        ];
        let keys: HashSet<_> = others.iter().chain([&name]).map(|n| *n.derive(&secret)).collect();
        assert_eq!(keys.len(), 5);
        assert_eq!(name.derive(&secret), name.derive(&secret));
        assert_eq!(name.association(), others[3].association());
        assert_ne!(name.id(), others[3].id());
    }
}
