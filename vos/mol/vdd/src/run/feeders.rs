// SPDX-License-Identifier: MIT OR Apache-2.0
//! A thread for each other replica that something is said to.

use super::events::{Event, Teller};
use crate::feeder::{exchange, take_next, Route};
use crate::replica::{Life, Message, ReplicaId};
use crate::server::Letter;
use dvk::{Endpoint, Port, Slot, Timeout};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{sync_channel, Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Which items wait to be said to one replica, or are being said. An item that is said again before that has come to an end would only take
/// memory, with its blocks, and time of the network.
type Waiting = Arc<Mutex<BTreeSet<(u64, u64)>>>;

/// How many messages wait for one that does not answer. Any more are lost, which the rules allow.
const WAITING_MAX: usize = 256;
/// How long an exchange may take.
const LIMIT: Timeout = Timeout::from_millis(2000);
/// How long a thread that is refused an endpoint waits before it asks for one again, at first.
const PAUSE: Duration = Duration::from_millis(100);
/// The same, after it was refused again and again.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// What is said to whom.
pub(super) struct Feeders {
    dvk: PathBuf,
    teller: Teller,
    roles: BTreeMap<u32, (ReplicaId, Life)>,
    servers: BTreeMap<u32, BTreeMap<ReplicaId, (Life, Endpoint)>>,
    queues: BTreeMap<(u32, ReplicaId, Life), (SyncSender<Message>, Waiting)>,
}

impl Feeders {
    pub(super) fn new(dvk: &Path, teller: Teller) -> Self {
        Self {
            dvk: dvk.to_path_buf(),
            teller,
            roles: BTreeMap::new(),
            servers: BTreeMap::new(),
            queues: BTreeMap::new(),
        }
    }

    /// Who speaks.
    pub(super) fn be(&mut self, minor: u32, role: (ReplicaId, Life)) {
        self.roles.insert(minor, role);
    }

    /// Where the others are. The threads of those that are no more end.
    pub(super) fn know(&mut self, minor: u32, servers: &BTreeMap<ReplicaId, (Life, Endpoint)>) {
        self.servers.insert(minor, servers.clone());
        let is_there =
            |id: &ReplicaId, life: &Life| servers.get(id).is_some_and(|it| it.0 == *life);
        self.queues.retain(|(of, id, life), _| *of != minor || is_there(id, life));
    }

    /// Says something, unless nobody is there or too much waits to be said.
    pub(super) fn say(&mut self, letter: Letter) {
        let Letter { minor, to, message } = letter;
        let key = (minor, to.0, to.1);
        if !self.queues.contains_key(&key) {
            let Some(queue) = self.start(minor, to) else { return };
            self.queues.insert(key, queue);
        }
        if let Some((queue, waiting)) = self.queues.get(&key) {
            let item = item_of(&message);
            if item.is_some_and(|item| !lock(waiting).insert(item)) {
                return;
            }
            // What finds no room is said again. A thread that has ended is started anew by what is said next.
            match queue.try_send(message) {
                Ok(()) => {}
                Err(TrySendError::Full(_)) => {
                    item.map(|item| lock(waiting).remove(&item));
                }
                Err(TrySendError::Disconnected(_)) => {
                    self.queues.remove(&key);
                }
            }
        }
    }

    fn start(&self, minor: u32, to: (ReplicaId, Life)) -> Option<(SyncSender<Message>, Waiting)> {
        let from = *self.roles.get(&minor)?;
        let known = self.servers.get(&minor)?.get(&to.0)?;
        let server = (known.0 == to.1).then_some(known.1)?;
        let route = Route { minor, from, to, server };
        let (send, receive) = sync_channel(WAITING_MAX);
        let (dvk, teller) = (self.dvk.clone(), self.teller.clone());
        let waiting = Waiting::default();
        let its = waiting.clone();
        std::thread::spawn(move || {
            let complain =
                |error| eprintln!("mol-vdd: cannot speak to {} yet: {error}", route.to.0);
            let enter = || Port::open(&dvk, Slot::Any).map_err(complain);
            if let Some(port) = insist(enter, &receive, &its) {
                feed(&port, &route, &receive, &its, &teller);
            }
        });
        Some((send, waiting))
    }
}

/// An item of a feed, by both numbers; other messages are short, and each is new.
fn item_of(message: &Message) -> Option<(u64, u64)> {
    match message {
        Message::Feed { feed, sequence, .. } => Some((feed.0, *sequence)),
        _ => None,
    }
}

fn lock(waiting: &Waiting) -> MutexGuard<'_, BTreeSet<(u64, u64)>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tries to get something, ever less often, until it is there or nothing can be said any more. What is to be said meanwhile is lost, which
/// the rules allow.
fn insist<T>(
    mut get: impl FnMut() -> Result<T, ()>,
    messages: &Receiver<Message>,
    waiting: &Waiting,
) -> Option<T> {
    let mut pause = PAUSE;
    loop {
        if let Ok(got) = get() {
            return Some(got);
        }
        let until = Instant::now() + pause;
        loop {
            match messages.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(message) => drop(item_of(&message).map(|item| lock(waiting).remove(&item))),
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

fn feed(
    port: &Port,
    route: &Route,
    messages: &Receiver<Message>,
    waiting: &Waiting,
    teller: &Teller,
) {
    let mut queue = VecDeque::new();
    loop {
        if queue.is_empty() {
            let Ok(message) = messages.recv() else { return };
            queue.push_back(message);
        }
        queue.extend(messages.try_iter().take(WAITING_MAX));
        let next = take_next(&mut queue);
        // What was not heard is said again by who knows whether that is still so.
        let answers = exchange(port, route, &next, LIMIT);
        for item in next.iter().filter_map(item_of) {
            lock(waiting).remove(&item);
        }
        let Ok(answers) = answers else { continue };
        if !answers.is_empty() && !teller.tell(Event::Answered(*route, answers)) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::{Feed, Item};
    use std::thread;

    fn item(sequence: u64) -> Message {
        Message::Feed { epoch: 1, feed: Feed(1), sequence, item: Item::Flush }
    }

    /// Tells this feeder something all the time, and gives how often it asked for an endpoint.
    fn attempts_within(time: Duration, refusals: usize) -> (usize, Option<()>) {
        let (send, receive) = sync_channel(WAITING_MAX);
        let waiting = Waiting::default();
        let its = waiting.clone();
        let feeder = thread::spawn(move || {
            let mut attempts = 0;
            let get = || {
                attempts += 1;
                if attempts > refusals {
                    Ok(())
                } else {
                    Err(())
                }
            };
            let got = insist(get, &receive, &its);
            (attempts, got)
        });
        let until = Instant::now() + time;
        for sequence in 0.. {
            if Instant::now() >= until || feeder.is_finished() {
                break;
            }
            lock(&waiting).insert((1, sequence));
            let _ = send.send(item(sequence));
            thread::sleep(Duration::from_millis(1));
        }
        drop(send);
        let ended = feeder.join().unwrap();
        assert!(ended.1.is_some() || lock(&waiting).is_empty(), "what is lost waits no more");
        ended
    }

    #[test]
    fn who_is_refused_an_endpoint_asks_ever_less_often() {
        let (attempts, got) = attempts_within(Duration::from_millis(1000), usize::MAX);
        // After 0, 100, 300 and 700 ms; a busy host makes it less.
        assert!((1..=4).contains(&attempts), "{attempts}");
        assert_eq!(got, None, "nothing can be said any more");
    }

    #[test]
    fn who_gets_an_endpoint_late_goes_on() {
        assert_eq!(attempts_within(Duration::from_secs(60), 2), (3, Some(())));
    }
}
