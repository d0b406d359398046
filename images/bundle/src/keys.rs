// SPDX-License-Identifier: MIT OR Apache-2.0
//! The keys that bundles are signed and checked with: Ed25519 (RFC 8032).

use std::fmt;

use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair, UnparsedPublicKey, ED25519};

/// Bytes of a public key.
const PUBLIC: usize = 32;

/// Why a key cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The machine has no entropy.
    #[error("make a signing key: the system gives no random numbers")]
    Entropy,
    /// A private key is none.
    #[error("it is no Ed25519 key in PKCS#8, DER: {0}; `openssl genpkey -algorithm ed25519 -outform DER` makes one")]
    Private(String),
    /// A list of public keys has a line that is none.
    #[error("line {0} is no Ed25519 public key; it has 64 hexadecimal digits")]
    Public(usize),
}

/// Signs bundles.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    pkcs8: Vec<u8>,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The private half must not get into a log.
        f.debug_struct("SigningKey").field("public", &self.public()).finish_non_exhaustive()
    }
}

impl SigningKey {
    /// Makes a new one.
    ///
    /// # Errors
    /// [`KeyError::Entropy`].
    pub fn generate() -> Result<Self, KeyError> {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new());
        let pkcs8 = pkcs8.map_err(|_| KeyError::Entropy)?;
        Self::from_pkcs8(pkcs8.as_ref())
    }

    /// Reads one that was kept, in PKCS#8, with or without its public half.
    ///
    /// # Errors
    /// [`KeyError::Private`].
    pub fn from_pkcs8(bytes: &[u8]) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(bytes);
        let pair = pair.map_err(|error| KeyError::Private(error.to_string()))?;
        Ok(Self { pair, pkcs8: bytes.to_vec() })
    }

    /// What it is kept as. Whoever has it can make images that nodes trust.
    pub fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// What it is checked with.
    pub fn public(&self) -> PublicKey {
        let mut key = [0; PUBLIC];
        key.iter_mut().zip(self.pair.public_key().as_ref()).for_each(|(to, from)| *to = *from);
        PublicKey(key)
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(message).as_ref().to_vec()
    }
}

/// Tells whose signature it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey([u8; PUBLIC]);

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The keys whose signatures are believed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedKeys(Vec<PublicKey>);

impl TrustedKeys {
    /// Reads a list: a key on each line, comments from `#` on.
    ///
    /// # Errors
    /// [`KeyError::Public`] with the first line that is no key.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let mut keys = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.split('#').next().unwrap_or_default().trim();
            if !line.is_empty() {
                keys.push(public(line).ok_or(KeyError::Public(number))?);
            }
        }
        Ok(Self(keys))
    }

    pub(crate) fn have_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        let is_by = |key: &PublicKey| {
            UnparsedPublicKey::new(&ED25519, key.0).verify(message, signature).is_ok()
        };
        self.0.iter().any(is_by)
    }
}

fn public(text: &str) -> Option<PublicKey> {
    if text.len() != 2 * PUBLIC || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut key = [0; PUBLIC];
    for (byte, pair) in key.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(PublicKey(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signing_key_is_kept_and_read_again() {
        let key = SigningKey::generate().unwrap();
        let again = SigningKey::from_pkcs8(key.pkcs8()).unwrap();
        assert_eq!(again.public(), key.public());
        let shown = format!("{key:?}");
        assert!(shown.contains(&key.public().to_string()) && shown.len() < 120, "{shown}");
        let error = SigningKey::from_pkcs8(b"-----BEGIN").unwrap_err();
        assert!(error.to_string().contains("genpkey"), "{error}");
    }

    /// RFC 8032, 7.1, test 2.
    #[test]
    fn signatures_are_those_of_the_standard() {
        let keys = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c  # test 2\n\n";
        let keys = TrustedKeys::parse(keys).unwrap();
        let signature = "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
                         085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00";
        let digits: Vec<u8> = signature.bytes().filter(u8::is_ascii_hexdigit).collect();
        let signature: Vec<u8> = digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect();
        assert!(keys.have_signed(&[0x72], &signature));
        assert!(!keys.have_signed(&[0x73], &signature));
        assert!(!keys.have_signed(&[0x72], &signature[..63]));
    }

    #[test]
    fn a_line_that_is_no_key_is_named() {
        for (text, line) in [("# none\nabc", 2), (&"g".repeat(64), 1), (&"é".repeat(32), 1)] {
            assert_eq!(TrustedKeys::parse(text), Err(KeyError::Public(line)), "{text}");
        }
        assert_eq!(TrustedKeys::parse(" # nobody \n"), Ok(TrustedKeys::default()));
    }
}
