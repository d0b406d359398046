// SPDX-License-Identifier: MIT OR Apache-2.0
//! A program's side.

use std::time::{Duration, Instant};

use dvk::{Access, CallError, Endpoint, Port, Timeout};

use crate::exchange::{read_answer, write_question, Ask, ExchangeClient, ExchangeError};
use crate::question::{
    Answer, Change, Compare, Delivery, Leader, Lease, Line, Operation, Pair, Passage, Question,
    Range, Reason, Refusal, Subject, Transacted, Transaction,
};
use crate::SLOT;

/// How long nothing is asked after nobody led.
const PAUSE: Duration = Duration::from_millis(50);

/// Why a question has no answer that is one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The exchange of messages failed.
    #[error(transparent)]
    Ipc(#[from] dvk::Error),
    /// The question was not taken.
    #[error("ask the container's services: {0}")]
    NotTaken(#[from] ExchangeError),
    /// It was answered that it was not done.
    #[error("ask the container's services: {0}")]
    Refused(#[from] Refusal),
    /// The answer is one to another question, or none.
    #[error(
        "ask the container's services: the answer makes no sense; the node is of another release"
    )]
    Strange,
}

impl Error {
    /// Why it was refused, if it was.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::Refused(refusal) => Some(refusal.reason),
            _ => None,
        }
    }

    /// Whether it was not done, and asking again may succeed; with `harmless`, also if it may have been done.
    fn is_passing(&self, harmless: bool) -> bool {
        match self {
            Self::NotTaken(ExchangeError::Busy) => true,
            Self::Refused(refusal) => {
                refusal.reason == Reason::Leaderless
                    || harmless && refusal.reason == Reason::Unknown
            }
            _ => false,
        }
    }
}

/// How questions get there: by a port, or, in tests, otherwise.
pub trait Way {
    /// Has the question at the beginning of `memory` answered there; gives the bytes of the answer.
    ///
    /// # Errors
    /// [`Error`].
    fn exchange(&self, memory: &mut [u8], question: u32) -> Result<u32, Error>;
}

/// To the services on this node, by a port.
#[derive(Clone, Copy, Debug)]
pub struct Direct<'p> {
    port: &'p Port,
    server: Endpoint,
    timeout: Timeout,
}

impl Way for Direct<'_> {
    fn exchange(&self, memory: &mut [u8], question: u32) -> Result<u32, Error> {
        let bytes = u32::try_from(memory.len()).map_err(|_| ExchangeError::Size)?;
        let lent = self.port.lend_mut(self.server, memory, Access::ReadWrite, |memory| {
            let services = ExchangeClient::new(self.port, self.server).within(self.timeout);
            services.ask(&Ask { memory, question, bytes })
        });
        lent?.map_err(|error| match error {
            CallError::Exchange(error) => Error::Ipc(error),
            CallError::Refused { error, .. } => Error::NotTaken(error),
            CallError::Code { .. } | CallError::Reply { .. } => Error::Strange,
        })
    }
}

/// Asks a container's services. Every method asks once, and waits for the answer.
#[derive(Clone, Copy, Debug)]
pub struct Client<W> {
    way: W,
}

impl<'p> Client<Direct<'p>> {
    /// Waits until the services of this node answer in the port's container.
    ///
    /// # Errors
    /// `EAGAIN` or `ETIMEDOUT` if they do not in time.
    pub fn find(port: &'p Port, timeout: Timeout) -> Result<Self, Error> {
        let server = port.wait_bind(SLOT, timeout)?;
        Ok(Self { way: Direct { port, server, timeout: Timeout::Forever } })
    }

    /// The same client, but one that waits for an answer at most so long, where it is otherwise for ever. A question that itself waits
    /// for something needs more time than that. One whose time is over may have been done.
    pub fn within(mut self, timeout: Timeout) -> Self {
        self.way.timeout = timeout;
        self
    }
}

/// An answer of one kind, or what else was said.
macro_rules! expect {
    ($asked:expr, $pattern:pat => $value:expr) => {
        match $asked? {
            $pattern => Ok($value),
            _ => Err(Error::Strange),
        }
    };
}

impl<W: Way> Client<W> {
    /// A client that asks that way.
    pub fn by(way: W) -> Self {
        Self { way }
    }

    /// Asks any question, once.
    ///
    /// # Errors
    /// [`Error`].
    pub fn ask(&self, question: &Question) -> Result<Answer, Error> {
        let mut memory = write_question(question)?;
        let bytes = u32::try_from(memory.len()).map_err(|_| ExchangeError::Size)?;
        memory.resize(question.answer_bytes().max(memory.len()), 0);
        let answer = self.way.exchange(&mut memory, bytes)?;
        let answer = usize::try_from(answer).ok().and_then(|bytes| memory.get(..bytes));
        match read_answer(answer.ok_or(Error::Strange)?) {
            Ok(Answer::Refused(refusal)) => Err(refusal.into()),
            Ok(answer) => Ok(answer),
            Err(_) => Err(Error::Strange),
        }
    }

    /// Asks again and again for at most `limit` while nobody leads, and, if that is harmless, while nobody knows what came of it.
    ///
    /// # Errors
    /// The last [`Error`].
    pub fn insist(&self, question: &Question, limit: Duration) -> Result<Answer, Error> {
        let deadline = Instant::now() + limit;
        loop {
            match self.ask(question) {
                Err(error)
                    if error.is_passing(question.is_harmless()) && Instant::now() < deadline =>
                {
                    std::thread::sleep(PAUSE);
                }
                other => return other,
            }
        }
    }

    /// What a key has.
    ///
    /// # Errors
    /// [`Error`].
    pub fn get(&self, key: &[u8]) -> Result<Option<Pair>, Error> {
        let question = Question::Read { key: key.to_vec(), exact: true, limit: 1, stale: false };
        expect!(self.ask(&question), Answer::Range(range) => range.pairs.into_iter().next())
    }

    /// Keys that begin like this, at most `limit` of them.
    ///
    /// # Errors
    /// [`Error`].
    pub fn range(&self, prefix: &[u8], limit: u32) -> Result<Range, Error> {
        let question = Question::Read { key: prefix.to_vec(), exact: false, limit, stale: false };
        expect!(self.ask(&question), Answer::Range(range) => range)
    }

    /// Writes a key; gives the revision that did.
    ///
    /// # Errors
    /// [`Error`].
    pub fn put(&self, key: &[u8], value: &[u8], lease: Option<Lease>) -> Result<u64, Error> {
        let put = Operation::Put { key: key.to_vec(), value: value.to_vec(), lease };
        let done = self.transact(Transaction { then: vec![put], ..Transaction::default() })?;
        Ok(done.revision)
    }

    /// Writes a key if a given revision wrote it last, 0 if it must not be there; says whether it did.
    ///
    /// # Errors
    /// [`Error`].
    pub fn put_if(&self, key: &[u8], modified: u64, value: &[u8]) -> Result<bool, Error> {
        let compare = vec![Compare { key: key.to_vec(), subject: Subject::Modified(modified) }];
        let put = Operation::Put { key: key.to_vec(), value: value.to_vec(), lease: None };
        let transaction = Transaction { compare, then: vec![put], otherwise: Vec::new() };
        Ok(self.transact(transaction)?.held)
    }

    /// Compares, then does one thing or the other.
    ///
    /// # Errors
    /// [`Error`].
    pub fn transact(&self, transaction: Transaction) -> Result<Transacted, Error> {
        expect!(self.ask(&Question::Transact(transaction)), Answer::Transacted(done) => done)
    }

    /// The revision after which changes are to come.
    ///
    /// # Errors
    /// [`Error`].
    pub fn revision(&self) -> Result<u64, Error> {
        let question = Question::Changes { prefix: Vec::new(), from: None, wait_ms: 0 };
        expect!(self.ask(&question), Answer::Changes(revision, _) => revision)
    }

    /// Changes of keys that begin like this, from a revision on, and up to which revision these are all: the next call is for what
    /// follows. Waits for some.
    ///
    /// # Errors
    /// [`Error`]; with [`Reason::Compacted`] some have been forgotten.
    pub fn changes(
        &self,
        prefix: &[u8],
        from: u64,
        wait_ms: u64,
    ) -> Result<(u64, Vec<Change>), Error> {
        let question = Question::Changes { prefix: prefix.to_vec(), from: Some(from), wait_ms };
        expect!(self.ask(&question), Answer::Changes(revision, changes) => (revision, changes))
    }

    /// A lease of so many milliseconds.
    ///
    /// # Errors
    /// [`Error`].
    pub fn grant(&self, ttl_ms: u64, owner: &str) -> Result<Lease, Error> {
        let question = Question::Grant { ttl_ms, owner: owner.to_owned() };
        expect!(self.ask(&question), Answer::Lease(lease) => lease)
    }

    /// Has a lease last its whole time again.
    ///
    /// # Errors
    /// [`Error`]; with [`Reason::Missing`] it has ended.
    pub fn keep_alive(&self, lease: Lease) -> Result<(), Error> {
        expect!(self.ask(&Question::KeepAlive { lease }), Answer::Lease(_) => ())
    }

    /// Ends a lease, and what is held under it.
    ///
    /// # Errors
    /// [`Error`].
    pub fn revoke(&self, lease: Lease) -> Result<(), Error> {
        expect!(self.ask(&Question::Revoke { lease }), Answer::Done => ())
    }

    /// Takes a lock, or, with `wait`, a place in line for it.
    ///
    /// # Errors
    /// [`Error`]; with [`Reason::Busy`] somebody else holds it.
    pub fn acquire(&self, name: &str, lease: Lease, wait: bool) -> Result<Line, Error> {
        let (name, label) = (name.to_owned(), String::new());
        let question = Question::Acquire { name, lease, places: 1, wait, label };
        expect!(self.ask(&question), Answer::Line(line) => line)
    }

    /// Waits until a lock is held that was asked for, or the time is over.
    ///
    /// # Errors
    /// [`Error`].
    pub fn await_lock(&self, name: &str, lease: Lease, wait_ms: u64) -> Result<Line, Error> {
        let question = Question::AwaitLock { name: name.to_owned(), lease, wait_ms };
        expect!(self.ask(&question), Answer::Line(line) => line)
    }

    /// Gives a lock back; says whether it was held or waited for.
    ///
    /// # Errors
    /// [`Error`].
    pub fn release(&self, name: &str, lease: Lease) -> Result<bool, Error> {
        let question = Question::Release { name: name.to_owned(), lease };
        expect!(self.ask(&question), Answer::Changed(released) => released)
    }

    /// Stands for election.
    ///
    /// # Errors
    /// [`Error`].
    pub fn stand(&self, name: &str, lease: Lease, value: &[u8]) -> Result<Line, Error> {
        let question = Question::Stand { name: name.to_owned(), lease, value: value.to_vec() };
        expect!(self.ask(&question), Answer::Line(line) => line)
    }

    /// Waits until a candidate leads, or the time is over.
    ///
    /// # Errors
    /// [`Error`].
    pub fn await_lead(&self, name: &str, lease: Lease, wait_ms: u64) -> Result<Line, Error> {
        let question = Question::AwaitLead { name: name.to_owned(), lease, wait_ms };
        expect!(self.ask(&question), Answer::Line(line) => line)
    }

    /// Who leads; waits until it is another one than in a term that is `known`, or nobody.
    ///
    /// # Errors
    /// [`Error`].
    pub fn observe(
        &self,
        name: &str,
        known: Option<u64>,
        wait_ms: u64,
    ) -> Result<Option<Leader>, Error> {
        let question = Question::Observe { name: name.to_owned(), known, wait_ms };
        expect!(self.ask(&question), Answer::Leader(leader) => leader)
    }

    /// Leads or stands no more; says whether it did.
    ///
    /// # Errors
    /// [`Error`].
    pub fn resign(&self, name: &str, lease: Lease) -> Result<bool, Error> {
        let question = Question::Resign { name: name.to_owned(), lease };
        expect!(self.ask(&question), Answer::Changed(resigned) => resigned)
    }

    /// Arrives at a barrier of so many parties.
    ///
    /// # Errors
    /// [`Error`].
    pub fn arrive(
        &self,
        name: &str,
        lease: Lease,
        parties: u32,
        attempt: u64,
    ) -> Result<Passage, Error> {
        let question = Question::Arrive { name: name.to_owned(), lease, parties, attempt };
        expect!(self.ask(&question), Answer::Passage(passage) => passage)
    }

    /// Waits until a barrier opens, or the time is over.
    ///
    /// # Errors
    /// [`Error`].
    pub fn await_passage(
        &self,
        name: &str,
        lease: Lease,
        attempt: u64,
        wait_ms: u64,
    ) -> Result<Passage, Error> {
        let question = Question::AwaitPassage { name: name.to_owned(), lease, attempt, wait_ms };
        expect!(self.ask(&question), Answer::Passage(passage) => passage)
    }

    /// Goes away from a barrier; says whether it waited there.
    ///
    /// # Errors
    /// [`Error`].
    pub fn depart(&self, name: &str, lease: Lease) -> Result<bool, Error> {
        let question = Question::Depart { name: name.to_owned(), lease };
        expect!(self.ask(&question), Answer::Changed(left) => left)
    }

    /// Becomes a member of a group; gives where its stream begins.
    ///
    /// # Errors
    /// [`Error`].
    pub fn join(&self, group: &str, lease: Lease, name: &str) -> Result<u64, Error> {
        let question = Question::Join { group: group.to_owned(), lease, name: name.to_owned() };
        expect!(self.ask(&question), Answer::Position(Some(position)) => position)
    }

    /// Is a member no more; says whether it was one.
    ///
    /// # Errors
    /// [`Error`].
    pub fn leave(&self, group: &str, lease: Lease) -> Result<bool, Error> {
        let question = Question::Leave { group: group.to_owned(), lease };
        expect!(self.ask(&question), Answer::Changed(left) => left)
    }

    /// Sends a message to all members; gives its place in the stream, unless it was sent before.
    ///
    /// # Errors
    /// [`Error`].
    pub fn send(
        &self,
        group: &str,
        lease: Lease,
        number: u64,
        payload: &[u8],
    ) -> Result<Option<u64>, Error> {
        let (group, payload) = (group.to_owned(), payload.to_vec());
        let question = Question::Send { group, lease, number, payload };
        expect!(self.ask(&question), Answer::Position(position) => position)
    }

    /// What a member has to take from a position on; waits for something.
    ///
    /// # Errors
    /// [`Error`]; with [`Reason::Missing`] it is no member any more.
    pub fn deliveries(
        &self,
        group: &str,
        lease: Lease,
        from: u64,
        wait_ms: u64,
    ) -> Result<Vec<Delivery>, Error> {
        let question = Question::Deliveries { group: group.to_owned(), lease, from, wait_ms };
        expect!(self.ask(&question), Answer::Deliveries(deliveries) => deliveries)
    }

    /// Says that everything up to a position was taken.
    ///
    /// # Errors
    /// [`Error`].
    pub fn acknowledge(&self, group: &str, lease: Lease, up_to: u64) -> Result<(), Error> {
        let question = Question::Acknowledge { group: group.to_owned(), lease, up_to };
        expect!(self.ask(&question), Answer::Done => ())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::exchange::{read_question, write_answer};

    /// Gives these answers, one after the other.
    struct Scripted(RefCell<Vec<Answer>>);

    impl Way for Scripted {
        fn exchange(&self, memory: &mut [u8], question: u32) -> Result<u32, Error> {
            read_question(&memory[..question as usize])?;
            let answer = write_answer(&self.0.borrow_mut().remove(0))?;
            memory[..answer.len()].copy_from_slice(&answer);
            Ok(answer.len() as u32)
        }
    }

    fn client(answers: &[Answer]) -> Client<Scripted> {
        Client::by(Scripted(RefCell::new(answers.to_vec())))
    }

    fn refused(reason: Reason) -> Answer {
        Answer::Refused(Refusal { reason, text: "no".into() })
    }

    #[test]
    fn an_answer_to_another_question_is_none() {
        assert_eq!(client(&[Answer::Done]).grant(1_000, "x"), Err(Error::Strange));
        assert_eq!(client(&[Answer::Lease(Lease(7))]).grant(1_000, "x"), Ok(Lease(7)));
        let error = client(&[refused(Reason::Busy)]).acquire("l", Lease(1), false).unwrap_err();
        assert_eq!(error.reason(), Some(Reason::Busy));
    }

    #[test]
    fn who_insists_asks_again_only_what_is_harmless() {
        let answers = [refused(Reason::Leaderless), refused(Reason::Unknown), Answer::Done];
        let limit = Duration::from_secs(60);
        let revoke = Question::Revoke { lease: Lease(1) };
        assert_eq!(client(&answers).insist(&revoke, limit), Ok(Answer::Done));
        let error = client(&answers).insist(&Question::Transact(Transaction::default()), limit);
        assert_eq!(error.unwrap_err().reason(), Some(Reason::Unknown), "it may have been done");
        let error = client(&answers).insist(&revoke, Duration::ZERO).unwrap_err();
        assert_eq!(error.reason(), Some(Reason::Leaderless));
    }
}
