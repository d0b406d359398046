// SPDX-License-Identifier: MIT OR Apache-2.0
//! The thread that keeps the node's lease alive.

use super::clerk::Order;
use super::log::Log;
use super::{thread, News, Reach};
use crate::board::Board;
use crate::error::{services, Error};
use crate::supervisor::{Event, Supervisor};
use dvk::Port;
use dvk_services::{Direct, Lease, Reason};
use std::sync::mpsc::Sender;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How often the lease is kept alive.
const EVERY: Duration = Duration::from_secs(1);

pub(super) fn start(
    port: Port,
    node: u32,
    origin: Instant,
    log: Log,
    orders: Sender<Order>,
    news: Sender<News>,
) -> Result<(), Error> {
    thread("keeper", move || {
        let kept =
            Reach::new(&port, log).and_then(|reach| keep(reach, node, origin, &orders, &news));
        if let Err(error) = kept {
            let _ = news.send(News::Failed(error));
        }
    })
}

fn keep(
    mut reach: Reach<'_>,
    node: u32,
    origin: Instant,
    orders: &Sender<Order>,
    news: &Sender<News>,
) -> Result<(), Error> {
    let mut lease = None;
    loop {
        // What lasts from when it was asked for lasts longer in truth.
        let asked = origin.elapsed();
        match step(&reach.board, node, lease) {
            Ok(held) => {
                if lease != Some(held) {
                    let _ = orders.send(Order::Leased(held));
                }
                lease = Some(held);
                reach.is_well();
                if news.send(News::Event(Event::Lasts(held, asked))).is_err() {
                    return Ok(());
                }
                sleep(EVERY);
            }
            Err(error) => {
                let has_ended = matches!(&error, Error::Services { error, .. } if error.reason() == Some(Reason::Missing));
                if let Some(ended) = lease.take_if(|_| has_ended) {
                    let _ = news.send(News::Event(Event::LeaseEnded(ended)));
                }
                reach.recover(&error)?;
            }
        }
    }
}

fn step(board: &Board<Direct<'_>>, node: u32, lease: Option<Lease>) -> Result<Lease, Error> {
    let client = board.client();
    if let Some(lease) = lease {
        client.keep_alive(lease).map_err(services("keep the lease of this node alive"))?;
        return Ok(lease);
    }
    let ttl_ms = Supervisor::TTL.as_millis() as u64;
    client
        .grant(ttl_ms, &format!("mol-rs of node {node}"))
        .map_err(services("get a lease for this node"))
}
