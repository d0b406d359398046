// SPDX-License-Identifier: MIT OR Apache-2.0
//! The machine that wants to be let in.

use dvs_config::{JoinToken, Mac, Token};

use super::seal::{ask, About, Asked};
use super::wire::{Content, Datagram, Reason};

/// Milliseconds between two questions.
const ASK_MS: u64 = 500;
/// Milliseconds for which a question is repeated before another one is made: longer than an answer takes.
const QUESTION_MS: u64 = 15_000;
/// Milliseconds for which what a member said is shown, while nobody says anything else.
const SHOWN_MS: u64 = 5_000;

/// What came of a datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Nothing.
    Nothing,
    /// A member gave a reason not to let this machine in. Nothing proves that it was one.
    Refused(Reason),
    /// The cluster lets it in: its token.
    Admitted(Token),
}

/// Asks for the cluster's token.
#[derive(Debug)]
pub struct Applicant {
    cluster: String,
    machine: Mac,
    token: JoinToken,
    /// A question that was asked, since when, and its bytes.
    asked: Option<(Asked, u64, Vec<u8>)>,
    ask_ms: u64,
    now_ms: u64,
    /// What was said, and when.
    refused: Option<(Reason, u64)>,
}

impl Applicant {
    /// One that has asked nothing yet.
    pub fn new(cluster: &str, machine: Mac, token: JoinToken) -> Self {
        let cluster = cluster.to_owned();
        Self { cluster, machine, token, asked: None, ask_ms: 0, now_ms: 0, refused: None }
    }

    /// Lets time pass; gives back what is to be sent now, on every interface.
    ///
    /// # Errors
    /// For people: if no question can be made, which does not happen while the machine has randomness.
    pub fn step(&mut self, now_ms: u64) -> Result<Option<Vec<u8>>, String> {
        self.now_ms = now_ms;
        if now_ms < self.ask_ms {
            return Ok(None);
        }
        self.ask_ms = now_ms + ASK_MS;
        if let Some((_, since_ms, bytes)) = &self.asked {
            if now_ms.saturating_sub(*since_ms) < QUESTION_MS {
                return Ok(Some(bytes.clone()));
            }
        }
        let (cluster, id) = (self.cluster.as_str(), self.token.id());
        let about = About { cluster, machine: self.machine, id };
        let (message, asked) = ask(&self.token, about)
            .map_err(|error| format!("make a question of join token {id}: {error}"))?;
        let content = Content::Ask(&message);
        let bytes = Datagram { cluster, machine: self.machine, id, content }.to_bytes();
        self.asked = Some((asked, now_ms, bytes.clone()));
        Ok(Some(bytes))
    }

    /// Takes a datagram, of whomever.
    pub fn hear(&mut self, bytes: &[u8]) -> Heard {
        let Some(datagram) = Datagram::read(bytes) else { return Heard::Nothing };
        let own = (datagram.cluster, datagram.machine, datagram.id);
        if own != (self.cluster.as_str(), self.machine, self.token.id()) {
            return Heard::Nothing;
        }
        match datagram.content {
            Content::Ask(_) => Heard::Nothing,
            Content::Refuse(reason) => {
                self.refused = Some((reason, self.now_ms));
                Heard::Refused(reason)
            }
            Content::Admit(message) => {
                let opened = self.asked.as_mut().and_then(|(asked, ..)| asked.open(message));
                let token = opened.and_then(|text| std::str::from_utf8(&text).ok()?.parse().ok());
                token.map_or(Heard::Nothing, Heard::Admitted)
            }
        }
    }

    /// What this machine waits for, for people.
    pub fn detail(&self) -> String {
        let (cluster, id) = (&self.cluster, self.token.id());
        let recent = self.refused.filter(|(_, at)| self.now_ms.saturating_sub(*at) <= SHOWN_MS);
        match recent.map(|(reason, _)| reason) {
            None => format!("asking cluster {cluster} to be let in with join token {id}"),
            Some(Reason::Unknown) => format!(
                "cluster {cluster} does not let this machine in: join token {id} has run out, was revoked, or is none of its tokens; \
                 create another with `dvsctl token create`"
            ),
            Some(Reason::UsedUp) => format!(
                "cluster {cluster} does not let this machine in: as many machines as may have joined with join token {id}; create \
                 another with `dvsctl token create`"
            ),
            Some(Reason::Removed) => format!(
                "cluster {cluster} does not let this machine in: it was removed after join token {id} was created; run \
                 `dvsctl node reset`, or create another token"
            ),
        }
    }
}
