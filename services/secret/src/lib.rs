// SPDX-License-Identifier: MIT OR Apache-2.0
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

use dvs_config::Token;
use hkdf::Hkdf;
use sha2::Sha256;
use std::fmt;
use zeroize::Zeroizing;

/// Bytes of a key.
pub const KEY_BYTES: usize = 32;

/// A key of 256 bits, wiped when it is dropped.
pub type Key = Zeroizing<[u8; KEY_BYTES]>;

/// What a key is for. Two purposes never share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// MACsec on the cluster's segment, one for each sender and period.
    Segment,
    /// The authority that vouches for the certificates of nodes.
    Authority,
    /// Datagrams between two proxies.
    Datagrams,
}

impl Purpose {
    /// Part of the derivation: never changes its meaning.
    const fn label(self) -> &'static [u8] {
        match self {
            Self::Segment => b"segment",
            Self::Authority => b"authority",
            Self::Datagrams => b"datagrams",
        }
    }
}

/// The secret of a cluster.
#[derive(Clone)]
pub struct ClusterSecret(Hkdf<Sha256>);

impl fmt::Debug for ClusterSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterSecret")
    }
}

impl ClusterSecret {
    /// The secret of those who share a cluster token.
    pub fn new(token: &Token) -> Self {
        Self(Hkdf::new(Some(b"dvs cluster secret 1"), token.secret().as_bytes()))
    }

    /// The key for a purpose. `info` tells keys for one purpose apart: fields of fixed length, or
    /// one field.
    pub fn key(&self, purpose: Purpose, info: &[u8]) -> Key {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        self.0
            .expand_multi_info(&[purpose.label(), &[0], info], &mut *key)
            .expect("32 bytes are less than the 8,160 that HKDF-SHA256 gives at most");
        key
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(token: &str) -> ClusterSecret {
        ClusterSecret::new(&token.parse().unwrap())
    }

    #[test]
    fn keys_depend_on_all_that_they_are_made_of() {
        let one = secret("sixteen letters or more");
        let key = one.key(Purpose::Segment, b"1");
        assert_eq!(key, secret("sixteen letters or more").key(Purpose::Segment, b"1"));
        assert_ne!(key, secret("sixteen letters or mor3").key(Purpose::Segment, b"1"));
        assert_ne!(key, one.key(Purpose::Authority, b"1"));
        assert_ne!(key, one.key(Purpose::Segment, b"2"));
    }

    #[test]
    fn keys_are_those_of_the_rfc() {
        // Computed by Python's hmac from RFC 5869's two steps.
        let key = secret("sixteen letters or more").key(Purpose::Segment, b"1");
        assert_eq!(hex(&*key), EXPECTED);
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    const EXPECTED: &str = "508f61c1d843c9b3af1cc06665581df99bef44fb429e31789cee82b29d7bce7d";
}
