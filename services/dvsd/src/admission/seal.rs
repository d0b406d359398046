// SPDX-License-Identifier: MIT OR Apache-2.0
//! The handshake by which a join token is proved, and under which the cluster's token travels.

use dvs_config::{JoinToken, Mac};
use hkdf::Hkdf;
use sha2::Sha256;
use snow::params::DHChoice;
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::{Builder, HandshakeState};
use zeroize::Zeroizing;

const PATTERN: &str = "Noise_KNpsk0_25519_ChaChaPoly_SHA256";
const PROLOGUE: &[u8] = b"dvs join 1";
/// Longest message of a handshake: an ephemeral key, a payload and its tag.
const MESSAGE_MAX: usize = 32 + 16 + 512;

/// What members know of a join token: the public half of the key that is made of it.
pub type PublicKey = [u8; 32];

/// Whom a handshake is about; none of it can be exchanged for another.
#[derive(Clone, Copy, Debug)]
pub(super) struct About<'a> {
    pub(super) cluster: &'a str,
    pub(super) machine: Mac,
    pub(super) id: &'a str,
}

impl About<'_> {
    fn prologue(&self) -> Vec<u8> {
        // Texts are told apart by a byte that they cannot hold.
        let parts =
            [PROLOGUE, self.cluster.as_bytes(), &[0], self.id.as_bytes(), &[0], &self.machine.0];
        parts.concat()
    }
}

fn derive(secret: &[u8], label: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut key = Zeroizing::new([0; 32]);
    let hkdf = Hkdf::<Sha256>::new(Some(b"dvs join token 1"), secret);
    hkdf.expand(label, &mut *key).expect("32 bytes can be had of SHA-256");
    key
}

/// What members may know of a join token.
pub fn public_key(token: &JoinToken) -> PublicKey {
    let mut dh = DefaultResolver.resolve_dh(&DHChoice::Curve25519).expect("it is compiled in");
    dh.set(&*derive(token.secret().as_bytes(), b"static key"));
    dh.pubkey().try_into().expect("a key has 32 bytes")
}

/// Of what both ends know, and nobody who has never seen the token.
fn shared(public: &PublicKey) -> Zeroizing<[u8; 32]> {
    derive(public, b"shared key")
}

/// An applicant's side of a handshake.
pub(super) struct Asked(HandshakeState);

impl std::fmt::Debug for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Asked")
    }
}

/// Begins a handshake: what is to be sent, and what opens the answer.
pub(super) fn ask(token: &JoinToken, about: About<'_>) -> Result<(Vec<u8>, Asked), snow::Error> {
    let secret = derive(token.secret().as_bytes(), b"static key");
    let (shared, prologue) = (shared(&public_key(token)), about.prologue());
    let mut state = Builder::new(PATTERN.parse()?)
        .prologue(&prologue)?
        .local_private_key(&*secret)?
        .psk(0, &shared)?
        .build_initiator()?;
    let mut message = vec![0; MESSAGE_MAX];
    let length = state.write_message(&[], &mut message)?;
    message.truncate(length);
    Ok((message, Asked(state)))
}

impl Asked {
    /// Opens an answer. One that was not made for this question opens nothing and spoils nothing.
    pub(super) fn open(&mut self, answer: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let mut payload = Zeroizing::new(vec![0; MESSAGE_MAX]);
        let length = self.0.read_message(answer, &mut payload).ok()?;
        payload.truncate(length);
        Some(payload)
    }
}

/// A question of somebody who has a token, to be answered once.
pub(super) struct Question(HandshakeState);

impl std::fmt::Debug for Question {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Question")
    }
}

impl Question {
    /// Takes a question; `None` if whoever asks does not know the token of which this is the public key, or has changed
    /// something.
    pub(super) fn read(public: &PublicKey, about: About<'_>, message: &[u8]) -> Option<Self> {
        let (shared, prologue) = (shared(public), about.prologue());
        let builder = Builder::new(PATTERN.parse().ok()?).prologue(&prologue).ok()?;
        let builder = builder.remote_public_key(public).ok()?.psk(0, &shared).ok()?;
        let mut state = builder.build_responder().ok()?;
        let length = state.read_message(message, &mut [0; MESSAGE_MAX]).ok()?;
        (length == 0).then_some(Self(state))
    }

    /// Seals an answer for who asked.
    pub(super) fn answer(mut self, payload: &[u8]) -> Option<Vec<u8>> {
        let mut message = vec![0; MESSAGE_MAX];
        let length = self.0.write_message(payload, &mut message).ok()?;
        message.truncate(length);
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(secret: char) -> JoinToken {
        format!("ab12.{}", secret.to_string().repeat(32)).parse().unwrap()
    }

    fn about(id: &str) -> About<'_> {
        About { cluster: "lab", machine: Mac([2, 0, 0, 0, 0, 1]), id }
    }

    #[test]
    fn who_has_the_token_gets_the_secret_and_nobody_else() {
        let (token, other) = (token('a'), token('b'));
        let (question, mut asked) = ask(&token, about("ab12")).unwrap();
        let read = |public: PublicKey, about| Question::read(&public, about, &question);
        let answer = read(public_key(&token), about("ab12")).unwrap().answer(b"secret").unwrap();
        assert!(!answer.windows(6).any(|part| part == b"secret"));
        assert_eq!(asked.open(&answer[..answer.len() - 1]), None);
        assert_eq!(asked.open(&answer).unwrap().as_slice(), b"secret");
        assert_eq!(asked.open(&answer), None, "it is over");
        // Another token, id, machine and cluster.
        assert!(read(public_key(&other), about("ab12")).is_none());
        assert!(read(public_key(&token), about("ab13")).is_none());
        let moved = About { machine: Mac([2, 0, 0, 0, 0, 2]), ..about("ab12") };
        assert!(read(public_key(&token), moved).is_none());
        let elsewhere = About { cluster: "bal", ..about("ab12") };
        assert!(read(public_key(&token), elsewhere).is_none());
        // Who knows only what the members do can ask, but not open what is answered.
        let (_, mut thief) = ask(&other, about("ab12")).unwrap();
        assert_eq!(thief.open(&answer), None);
        let (_, mut later) = ask(&token, about("ab12")).unwrap();
        assert_eq!(later.open(&answer), None, "an answer to another question");
    }

    #[test]
    fn nothing_of_a_question_or_an_answer_can_be_changed() {
        let token = token('a');
        let public = public_key(&token);
        let (question, mut asked) = ask(&token, about("ab12")).unwrap();
        for at in 0..question.len() {
            let mut changed = question.clone();
            changed[at] ^= 4;
            assert!(Question::read(&public, about("ab12"), &changed).is_none(), "byte {at}");
            assert!(Question::read(&public, about("ab12"), &question[..at]).is_none());
        }
        let answer = Question::read(&public, about("ab12"), &question).unwrap();
        let answer = answer.answer(b"secret").unwrap();
        for at in 0..answer.len() {
            let mut changed = answer.clone();
            changed[at] ^= 4;
            assert_eq!(asked.open(&changed), None, "byte {at}");
        }
        assert!(asked.open(&answer).is_some());
    }
}
