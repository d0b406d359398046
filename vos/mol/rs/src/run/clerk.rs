// SPDX-License-Identifier: MIT OR Apache-2.0
//! The thread that stands for election, reads the keys and tells how the servers are.

use super::log::Log;
use super::{thread, News, Reach};
use crate::board::{election, Board};
use crate::error::{services, Error};
use crate::manifest::Manifest;
use crate::report::Told;
use crate::supervisor::Event;
use dvk::{Port, Slot};
use dvk_services::{Lease, Line, Reason, Way};
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::mpsc::{channel, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

/// It is looked at least so often.
const AT_LEAST: Duration = Duration::from_secs(1);

/// What the clerk is told to do.
#[derive(Debug)]
pub(super) enum Order {
    /// A key has changed.
    Look,
    /// The node has another lease.
    Leased(Lease),
    /// To stand for election.
    Stand { server: String, lease: Lease, attempt: u64 },
    /// To stand or lead no more.
    Resign { server: String, lease: Lease },
    /// How the servers are.
    Tell(Told),
    /// To give everything up, and say that it was done.
    End(Sender<()>),
}

/// A candidacy that has come to nothing yet.
#[derive(Debug)]
struct Candidacy {
    lease: Lease,
    attempt: u64,
    has_stood: bool,
}

#[derive(Default)]
struct Desk {
    node: u32,
    lease: Option<Lease>,
    /// Whether others know that this node is there, under this lease.
    has_come: bool,
    candidacies: BTreeMap<String, Candidacy>,
    /// Elections that are to be left, in this order.
    resignations: VecDeque<(String, Lease)>,
    told: Told,
    has_told: bool,
    /// The manifest that was read last: its revision, and what it says.
    manifest: (u64, Manifest),
    looks: bool,
}

pub(super) fn start(
    dvk: &Path,
    node: u32,
    log: Log,
    news: Sender<News>,
) -> Result<Sender<Order>, Error> {
    let (send, orders) = channel();
    let dvk = dvk.to_path_buf();
    thread("clerk", move || {
        let opened = Port::open(&dvk, Slot::Any).map_err(Error::from);
        if let Err(error) = opened.and_then(|port| work(&port, node, &log, &orders, &news)) {
            let _ = news.send(News::Failed(error));
        }
    })?;
    Ok(send)
}

fn work(
    port: &Port,
    node: u32,
    log: &Log,
    orders: &Receiver<Order>,
    news: &Sender<News>,
) -> Result<(), Error> {
    let mut reach = Reach::new(port, log.clone())?;
    let mut desk = Desk { node, looks: true, ..Desk::default() };
    let mut looked = Instant::now();
    loop {
        match desk.work_off(&reach.board, log, news) {
            Ok(()) => reach.is_well(),
            Err(error) => reach.recover(&error)?,
        }
        let mut next = match orders.recv_timeout(AT_LEAST / 4) {
            Ok(order) => Some(order),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        };
        while let Some(order) = next {
            if let Order::End(done) = order {
                // Keys and elections end with the lease.
                if let Some(lease) = desk.lease {
                    let _ = reach.board.client().revoke(lease);
                }
                let _ = done.send(());
                return Ok(());
            }
            desk.take(order);
            next = orders.try_recv().ok();
        }
        if looked.elapsed() >= AT_LEAST {
            desk.looks = true;
        }
        if desk.looks {
            looked = Instant::now();
        }
    }
}

impl Desk {
    fn take(&mut self, order: Order) {
        match order {
            Order::Look => self.looks = true,
            Order::Leased(lease) => {
                self.lease = Some(lease);
                self.has_come = false;
                self.has_told = false;
                // What was under the one before has ended with it.
                self.candidacies.retain(|_, candidacy| candidacy.lease == lease);
                self.resignations.retain(|(_, of)| *of == lease);
            }
            Order::Stand { server, lease, attempt } => {
                self.candidacies.insert(server, Candidacy { lease, attempt, has_stood: false });
            }
            Order::Resign { server, lease } => {
                self.candidacies.remove(&server);
                self.resignations.push_back((server, lease));
            }
            Order::Tell(told) => {
                self.told = told;
                self.has_told = false;
            }
            Order::End(_) => {}
        }
    }

    /// Does what is due. One thing that is refused keeps nothing else from being done, but that nobody stands before the resignations are in; the
    /// first error is told.
    fn work_off(
        &mut self,
        board: &Board<impl Way>,
        log: &Log,
        news: &Sender<News>,
    ) -> Result<(), Error> {
        // That a server has ended here is told before another node can have it.
        let told = self.tell(board);
        let resigned = self.resign(board);
        let has_resigned = resigned.is_ok();
        let looked = if self.looks { self.look(board, log, news) } else { Ok(()) };
        self.looks = looked.is_err();
        let stood = if has_resigned { self.stand(board, news) } else { Ok(()) };
        told.and(resigned).and(looked).and(stood)
    }

    fn resign(&mut self, board: &Board<impl Way>) -> Result<(), Error> {
        let client = board.client();
        while let Some((server, lease)) = self.resignations.front() {
            match client.resign(&election(server), *lease) {
                Ok(_) => {}
                Err(error) if error.reason() == Some(Reason::Missing) => {}
                Err(error) => return Err(services("give up the lead of a server")(error)),
            }
            self.resignations.pop_front();
        }
        Ok(())
    }

    fn tell(&mut self, board: &Board<impl Way>) -> Result<(), Error> {
        if let Some(lease) = self.lease {
            if !self.has_come {
                board.come(self.node, lease)?;
                self.has_come = true;
            }
            if !self.has_told {
                board.tell(self.node, lease, &self.told)?;
                self.has_told = true;
            }
        }
        Ok(())
    }

    fn look(
        &mut self,
        board: &Board<impl Way>,
        log: &Log,
        news: &Sender<News>,
    ) -> Result<(), Error> {
        let seen = board.look()?;
        match &seen.manifest {
            Some((text, revision)) if *revision != self.manifest.0 => match Manifest::read(text) {
                Ok(manifest) => self.manifest = (*revision, manifest),
                Err(error) => {
                    // It was loaded by another release. What runs goes on.
                    log.say(error);
                    self.manifest.0 = *revision;
                }
            },
            Some(_) => {}
            None => self.manifest = (0, Manifest::default()),
        }
        let _ = news.send(News::Event(Event::View(seen.view(self.manifest.1.clone()))));
        Ok(())
    }

    fn stand(&mut self, board: &Board<impl Way>, news: &Sender<News>) -> Result<(), Error> {
        let failed = services("stand for the lead of a server");
        let mut won = Vec::new();
        let mut done = Ok(());
        for (server, candidacy) in &mut self.candidacies {
            let (name, lease) = (election(server), candidacy.lease);
            let asked = match candidacy.has_stood {
                true => board.client().await_lead(&name, lease, 0),
                false => board.client().stand(&name, lease, self.node.to_string().as_bytes()),
            };
            match asked {
                Ok(Line::Waiting { .. }) => candidacy.has_stood = true,
                Ok(Line::Holding { fence }) => won.push((server.clone(), fence)),
                // The lease has ended, or somebody else has ended the candidacy: the keeper finds out which.
                Err(error) if error.reason() == Some(Reason::Missing) => {
                    candidacy.has_stood = false;
                }
                // The others are not to wait for this one.
                Err(error) => done = done.and(Err(failed(error))),
            }
        }
        for (server, term) in won {
            if let Some(Candidacy { lease, attempt, .. }) = self.candidacies.remove(&server) {
                let _ = news.send(News::Event(Event::Won { server, lease, attempt, term }));
            }
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dvk_services::{
        read_question, write_answer, Answer, Client, Error as ServicesError, Operation, Question,
        Transacted,
    };
    use std::cell::RefCell;

    /// Takes note of what is asked, and says that it is done.
    #[derive(Default)]
    struct Notes(RefCell<Vec<String>>);

    impl Way for &Notes {
        fn exchange(&self, memory: &mut [u8], question: u32) -> Result<u32, ServicesError> {
            let (note, answer) = match read_question(&memory[..question as usize])? {
                Question::Resign { name, .. } => (format!("resign {name}"), Answer::Changed(true)),
                Question::Transact(transaction) => {
                    let put = transaction.then.iter().find_map(|operation| match operation {
                        Operation::Put { key, .. } => Some(String::from_utf8_lossy(key)),
                        _ => None,
                    });
                    let done = Transacted { revision: 1, held: true, responses: Vec::new() };
                    (format!("put {}", put.unwrap()), Answer::Transacted(done))
                }
                other => panic!("{other:?}"),
            };
            self.0.borrow_mut().push(note);
            let answer = write_answer(&answer)?;
            memory[..answer.len()].copy_from_slice(&answer);
            Ok(answer.len() as u32)
        }
    }

    #[test]
    fn a_node_tells_that_a_server_is_gone_before_it_gives_up_the_lead() {
        let notes = Notes::default();
        let board = Board::new(Client::by(&notes));
        let mut desk = Desk { node: 2, ..Desk::default() };
        desk.take(Order::Leased(Lease(1)));
        desk.take(Order::Resign { server: "a".into(), lease: Lease(1) });
        desk.take(Order::Tell(Told::default()));
        let (news, _inbox) = channel();
        desk.work_off(&board, &Log::start().unwrap(), &news).unwrap();
        assert_eq!(*notes.0.borrow(), ["put rs/node/2", "put rs/state/2", "resign rs/a"]);
    }
}
