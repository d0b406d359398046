// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether frames are protected on their way, and by which keys.

use dvs_secret::{ClusterSecret, Key, Purpose};

/// What is spoken inside of TLS, and its version. A later version offers this one as well.
pub const SPOKEN: &[u8] = b"dvs-link/2";

/// The two ends of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// This node.
    pub own: u32,
    /// The other one.
    pub peer: u32,
}

/// How frames travel. Ends that do not agree never exchange one.
#[derive(Clone, Debug)]
pub enum Protection {
    /// As they are: `cluster.insecure`.
    Clear,
    /// Encrypted, and accepted from the peer only.
    Sealed(Keys),
}

/// What keys for datagrams are made of.
#[derive(Clone, Debug)]
pub struct Keys {
    secret: ClusterSecret,
    cluster: String,
}

/// What a key for datagrams is for. Part of the derivation: the numbers never change their meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Use {
    /// The pre-shared key of handshakes.
    Handshake = 0,
    /// Authenticates challenges.
    Challenge = 1,
}

impl Keys {
    /// Of the cluster with this name and secret.
    pub fn new(secret: ClusterSecret, cluster: String) -> Self {
        Self { secret, cluster }
    }

    /// The key for a use between two nodes, the same on both.
    pub(crate) fn between(&self, ends: Ends, what: Use) -> Key {
        let (low, high) = (ends.own.min(ends.peer), ends.own.max(ends.peer));
        let mut info = vec![what as u8];
        info.extend(low.to_le_bytes());
        info.extend(high.to_le_bytes());
        // The only field of variable length is the last.
        info.extend(self.cluster.as_bytes());
        self.secret.key(Purpose::Datagrams, &info)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_has_keys_of_its_own() {
        let keys = |token: &str, cluster: &str| {
            Keys::new(ClusterSecret::new(&token.parse().unwrap()), cluster.to_owned())
        };
        let (one, token) = (Ends { own: 1, peer: 2 }, "sixteen letters or more");
        let key = keys(token, "lab").between(one, Use::Handshake);
        assert_eq!(key, keys(token, "lab").between(Ends { own: 2, peer: 1 }, Use::Handshake));
        assert_ne!(key, keys(token, "lab").between(Ends { own: 1, peer: 3 }, Use::Handshake));
        assert_ne!(key, keys(token, "lab").between(one, Use::Challenge));
        assert_ne!(key, keys(token, "bal").between(one, Use::Handshake));
        assert_ne!(key, keys("seventeen letters or so", "lab").between(one, Use::Handshake));
    }
}
