// SPDX-License-Identifier: MIT OR Apache-2.0
//! The thread that writes and reads what is decided.

use super::events::{Event, Teller};
use super::ReplicaPlan;
use crate::board::{Board, BoardError, Standing, TTL};
use crate::ledger::Identity;
use crate::replica::{Boot, Contents, Life, Lineup, ReplicaId};
use crate::server::Role;
use crate::store::Shape;
use core::time::Duration;
use dvk::{Endpoint, Port, Slot, Timeout};
use dvk_services::{watch, Client, Direct, Error};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{channel, Receiver, RecvTimeoutError, Sender};
use std::time::Instant;

/// How long it is waited after something failed.
const PAUSE: Duration = Duration::from_millis(200);
/// It is looked at least so often, should a change be missed.
const AT_LEAST: Duration = Duration::from_secs(2);

/// What the clerk is told to do.
#[derive(Debug)]
pub(super) enum Order {
    /// A key has changed.
    Look,
    /// The primary, which is here, asks for a line-up.
    Propose(u32, Lineup),
    /// A run of a replica's server has ended, or its node is down.
    Gone(u32, ReplicaId, Life),
    /// The replica here has failed.
    Withdraw(u32),
}

pub(super) struct Clerk {
    pub(super) dvk: PathBuf,
    pub(super) plan: ReplicaPlan,
    /// The endpoint of the server.
    pub(super) me: Endpoint,
    pub(super) boot: Boot,
    /// For devices that it makes.
    pub(super) identity: Identity,
    /// For each store the shape of its device, and what it has of which.
    pub(super) kept: Vec<(Shape, Option<(Identity, Contents)>)>,
}

impl Clerk {
    /// Starts it, and what tells it of changes.
    pub(super) fn start(self, teller: Teller) -> Sender<Order> {
        let (send, receive) = channel();
        let (orders, dvk) = (send.clone(), self.dvk.clone());
        let prefix = Board::<Direct<'_>>::prefix(&self.plan.group);
        std::thread::spawn(move || match Port::open(&dvk, Slot::Any) {
            // Without services there is nothing to be told of, and the other thread says so.
            Ok(port) => drop(watch(&port, &prefix, || orders.send(Order::Look).is_ok())),
            Err(error) => eprintln!("mol-vdd: cannot watch line-ups: {error}"),
        });
        std::thread::spawn(move || {
            if let Err(error) = self.run(&receive, &teller) {
                teller.tell(Event::Ended(error));
            }
        });
        send
    }

    fn run(&self, orders: &Receiver<Order>, teller: &Teller) -> Result<(), BoardError> {
        let what = "reach the container's services";
        let failed = |error| BoardError::Services { what, error };
        let port = Port::open(&self.dvk, Slot::Any).map_err(|error| failed(error.into()))?;
        let client = find(&port).map_err(failed)?;
        let mut board = Board::new(client, &self.plan.group, self.plan.id, self.me);
        let mut here: BTreeMap<u32, Option<Standing>> = BTreeMap::new();
        let mut missing: Vec<u32> = (0..self.kept.len() as u32).collect();
        let (mut stayed, mut looked) = (Instant::now(), Instant::now());
        let mut has_told = false;
        let mut next = Some(Order::Look);
        loop {
            let done = self.join(&mut board, &mut missing, &mut here, teller);
            let done = done.and_then(|()| match next.take() {
                Some(order) => follow(&mut board, order, &mut here, teller),
                None => Ok(()),
            });
            let done = done.and_then(|()| {
                if stayed.elapsed() < TTL / 4 {
                    return Ok(());
                }
                stayed = Instant::now();
                board.stay()
            });
            match done {
                Ok(()) => {}
                Err(error @ BoardError::NoDevice { .. }) if !missing.is_empty() => {
                    if !has_told {
                        eprintln!("mol-vdd: waiting: {error}");
                        has_told = true;
                    }
                }
                Err(error @ (BoardError::Services { .. } | BoardError::Contended { .. })) => {
                    eprintln!("mol-vdd: {error}");
                    std::thread::sleep(PAUSE);
                    if is_unreachable(&error) {
                        board.reach(find(&port).map_err(failed)?);
                    }
                }
                Err(error) => return Err(error),
            }
            next = match orders.recv_timeout(TTL / 8) {
                Ok(order) => Some(order),
                Err(RecvTimeoutError::Timeout) => {
                    let is_due = looked.elapsed() >= AT_LEAST || !missing.is_empty();
                    is_due.then_some(Order::Look)
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            };
            if matches!(next, Some(Order::Look)) {
                looked = Instant::now();
            }
        }
    }

    fn join(
        &self,
        board: &mut Board<Direct<'_>>,
        missing: &mut Vec<u32>,
        here: &mut BTreeMap<u32, Option<Standing>>,
        teller: &Teller,
    ) -> Result<(), BoardError> {
        while let Some(&minor) = missing.last() {
            let (shape, kept) = self.kept[minor as usize];
            let contents = |identity| match kept {
                Some((of, contents)) if of == identity => contents,
                _ => Contents::None,
            };
            let begins = self.plan.begins.then_some(self.identity);
            let (identity, life) = board.come_forward(minor, &shape, contents, begins)?;
            let role = Role { id: self.plan.id, life, boot: self.boot, identity };
            teller.tell(Event::Joined(minor, role));
            missing.pop();
            here.insert(minor, None);
            tell_standing(board.look(minor)?, minor, here, teller);
        }
        Ok(())
    }
}

fn follow(
    board: &mut Board<Direct<'_>>,
    order: Order,
    here: &mut BTreeMap<u32, Option<Standing>>,
    teller: &Teller,
) -> Result<(), BoardError> {
    match order {
        Order::Look => {
            let minors: Vec<u32> = here.keys().copied().collect();
            for minor in minors {
                tell_standing(board.look(minor)?, minor, here, teller);
            }
        }
        Order::Propose(minor, lineup) => {
            tell_standing(board.propose(minor, &lineup)?, minor, here, teller);
        }
        Order::Gone(minor, id, life) => {
            board.is_gone(minor, id, life)?;
            tell_standing(board.look(minor)?, minor, here, teller);
        }
        Order::Withdraw(minor) => {
            here.remove(&minor);
            board.withdraw(minor)?;
        }
    }
    Ok(())
}

/// Tells what holds, if that is new.
fn tell_standing(
    standing: Standing,
    minor: u32,
    here: &mut BTreeMap<u32, Option<Standing>>,
    teller: &Teller,
) {
    let Some(told) = here.get_mut(&minor) else { return };
    if told.as_ref() != Some(&standing) {
        *told = Some(standing.clone());
        teller.tell(Event::Standing(minor, standing));
    }
}

/// Whether the services were started anew, or are being.
fn is_unreachable(error: &BoardError) -> bool {
    matches!(error, BoardError::Services { error: Error::Ipc(_), .. })
}

/// The services of this node, however long it takes until they are there.
pub(super) fn find(port: &Port) -> Result<Client<Direct<'_>>, Error> {
    Client::find(port, Timeout::Forever)
}

/// A device's line-up, or another question to the board of a group, for a person.
///
/// # Errors
/// [`BoardError`].
pub(crate) fn with_board<T>(
    dvk: &Path,
    group: &str,
    work: impl FnOnce(&mut Board<Direct<'_>>) -> Result<T, BoardError>,
) -> Result<T, BoardError> {
    let what = "reach the container's services";
    let failed = |error| BoardError::Services { what, error };
    let port = Port::open(dvk, Slot::Any).map_err(|error| failed(error.into()))?;
    let client = Client::find(&port, Timeout::from_millis(10_000)).map_err(failed)?;
    work(&mut Board::new(client, group, ReplicaId(u32::MAX), port.endpoint()))
}
