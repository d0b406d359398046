// SPDX-License-Identifier: MIT OR Apache-2.0
//! A program in a container that uses its services together with others of the same container: each counts up one key under a lock and
//! sends what it wrote to a group, all of which must come out the same for everybody.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use dvk::{Port, Slot, Timeout};
use dvk_services::{
    Answer, Client, Delivered, Direct, Lease, Line, Operation, Passage, Question, Response,
    Transaction,
};
use sha2::{Digest, Sha256};

use crate::say;

/// How long it is tried to be answered while nobody leads.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a lease outlives its program.
const TTL_MS: u64 = 30_000;
/// Longest wait of one question.
const WAIT_MS: u64 = 2_000;
const KEY: &[u8] = b"count";

struct Patron<'p> {
    client: Client<Direct<'p>>,
    lease: Lease,
    kept: Instant,
}

/// Does its part `rounds` times, once so many `parties` are there, and tells what came of all.
pub(crate) fn run(device: &str, name: &str, parties: u32, rounds: u64) -> Result<()> {
    let port = Port::open(device, Slot::Any)?;
    let client = Client::find(&port, Timeout::After(PATIENCE)).context("finding the services")?;
    let there = client.range(b"", 10).context("looking at the keys")?;
    let grant = Question::Grant { ttl_ms: TTL_MS, owner: name.to_owned() };
    let Answer::Lease(lease) = client.insist(&grant, PATIENCE)? else { bail!("no lease") };
    let mut patron = Patron { client, lease, kept: Instant::now() };
    let (group, name) = ("all".to_owned(), name.to_owned());
    let join = Question::Join { group, lease, name };
    let Answer::Position(Some(from)) = patron.insist(&join)? else { bail!("not a member") };
    patron.meet("begin", parties)?;
    say(&format!("begins with {} keys", there.count))?;
    let mut last_fence = 0;
    for round in 1..=rounds {
        let fence = patron.lock()?;
        ensure!(fence > last_fence, "token {fence} after {last_fence}");
        last_fence = fence;
        let count = patron.count_up(&format!("{}/{round}", lease.0))?;
        patron.unlock()?;
        let (group, payload) = ("all".to_owned(), count.to_string().into_bytes());
        patron.insist(&Question::Send { group, lease, number: round, payload })?;
    }
    let stream = patron.stream(from, u64::from(parties) * rounds)?;
    patron.meet("end", parties)?;
    let count = patron.read()?.0;
    patron.insist(&Question::Revoke { lease })?;
    say(&format!("counted {count}, saw {stream}"))
}

impl Patron<'_> {
    fn insist(&mut self, question: &Question) -> Result<Answer> {
        if self.kept.elapsed() > Duration::from_millis(TTL_MS / 3) {
            let asked = Instant::now();
            let keep = Question::KeepAlive { lease: self.lease };
            self.client.insist(&keep, PATIENCE).context("keeping the lease alive")?;
            self.kept = asked;
        }
        let answer = self.client.insist(question, PATIENCE);
        answer.with_context(|| format!("asking for {question:?}"))
    }

    /// Waits until so many are at a barrier.
    fn meet(&mut self, name: &str, parties: u32) -> Result<()> {
        let (name, lease) = (name.to_owned(), self.lease);
        let mut question = Question::Arrive { name: name.clone(), lease, parties, attempt: 1 };
        loop {
            match self.insist(&question)? {
                Answer::Passage(Passage::Open { .. }) => return Ok(()),
                Answer::Passage(Passage::Waiting { .. }) => {}
                other => bail!("a barrier answers {other:?}"),
            }
            let name = name.clone();
            question = Question::AwaitPassage { name, lease, attempt: 1, wait_ms: WAIT_MS };
        }
    }

    /// Takes the lock; gives its token.
    fn lock(&mut self) -> Result<u64> {
        let (name, lease) = (|| "lock".to_owned(), self.lease);
        let label = String::new();
        let mut question = Question::Acquire { name: name(), lease, places: 1, wait: true, label };
        loop {
            match self.insist(&question)? {
                Answer::Line(Line::Holding { fence }) => return Ok(fence),
                Answer::Line(Line::Waiting { .. }) => {}
                other => bail!("a lock answers {other:?}"),
            }
            question = Question::AwaitLock { name: name(), lease, wait_ms: WAIT_MS };
        }
    }

    fn unlock(&mut self) -> Result<()> {
        let release = Question::Release { name: "lock".into(), lease: self.lease };
        self.insist(&release).map(drop)
    }

    /// The count, and who counted last.
    fn read(&mut self) -> Result<(u64, String)> {
        let get = Operation::Get { key: KEY.to_vec() };
        let read = Question::Read { key: KEY.to_vec(), exact: true, limit: 1, stale: false };
        // A transaction reads the same; one of both is asked at random.
        let transaction = Transaction { then: vec![get], ..Transaction::default() };
        let answer = match self.lease.0 % 2 {
            0 => self.insist(&read)?,
            _ => loop {
                // It changes nothing, so that it may be asked again whatever became of it.
                match self.insist(&Question::Transact(transaction.clone())) {
                    Err(error) if is_unknown(&error) => {}
                    answer => break answer?,
                }
            },
        };
        let pair = match answer {
            Answer::Range(range) => range.pairs.into_iter().next(),
            Answer::Transacted(done) => match done.responses.into_iter().next() {
                Some(Response::Got(pair)) => pair,
                other => bail!("a transaction that reads answers {other:?}"),
            },
            other => bail!("a key answers {other:?}"),
        };
        let Some(pair) = pair else { return Ok((0, String::new())) };
        let text = String::from_utf8(pair.value).context("reading the count")?;
        let (count, who) = text.split_once(' ').context("reading the count")?;
        Ok((count.parse().context("reading the count")?, who.to_owned()))
    }

    /// Writes one more than is there, without comparing: that is what the lock is for. Whether a write came about of which nobody
    /// knows, the key says.
    fn count_up(&mut self, mark: &str) -> Result<u64> {
        let (count, _) = self.read()?;
        let value = format!("{} {mark}", count + 1).into_bytes();
        let put = Operation::Put { key: KEY.to_vec(), value, lease: None };
        let write = Question::Transact(Transaction { then: vec![put], ..Transaction::default() });
        while let Err(error) = self.insist(&write) {
            ensure!(is_unknown(&error), "{error:#}");
            if self.read()?.1 == mark {
                break;
            }
        }
        Ok(count + 1)
    }

    /// Takes what comes until there were so many messages; gives a digest of them, in their order.
    fn stream(&mut self, mut from: u64, messages: u64) -> Result<String> {
        let (mut digest, mut seen) = (Sha256::new(), 0);
        while seen < messages {
            let (group, lease) = ("all".to_owned(), self.lease);
            let wait_ms = WAIT_MS;
            let asked = self.insist(&Question::Deliveries { group, lease, from, wait_ms })?;
            let Answer::Deliveries(deliveries) = asked else { bail!("a group answers {asked:?}") };
            for delivery in deliveries {
                ensure!(delivery.position == from, "{} after {from}", delivery.position);
                from += 1;
                if let Delivered::Message { sender, number, payload } = delivery.content {
                    seen += 1;
                    let text = String::from_utf8_lossy(&payload).into_owned();
                    digest.update(format!("{} {number} {text};", sender.0));
                }
            }
        }
        let digest = digest.finalize();
        let hex =
            digest.iter().take(8).fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
        Ok(format!("{seen} messages with digest {hex}"))
    }
}

fn is_unknown(error: &anyhow::Error) -> bool {
    let reason = error.downcast_ref::<dvk_services::Error>().and_then(|error| error.reason());
    reason == Some(dvk_services::Reason::Unknown)
}
