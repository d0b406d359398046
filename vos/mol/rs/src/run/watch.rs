// SPDX-License-Identifier: MIT OR Apache-2.0
//! The thread that says when keys change.

use super::clerk::Order;
use super::{client, is_unreachable, News, PAUSE};
use crate::board::PREFIX;
use crate::error::{services, Error};
use dvk::{Port, Slot};
use std::path::Path;
use std::sync::mpsc::Sender;
use std::thread::sleep;

/// How long a question about changes waits.
const WAIT_MS: u64 = 2_000;

pub(super) fn start(dvk: &Path, orders: Sender<Order>, news: Sender<News>) {
    let dvk = dvk.to_path_buf();
    std::thread::spawn(move || {
        let watched = Port::open(&dvk, Slot::Any).map_err(Error::from);
        if let Err(error) = watched.and_then(|port| watch(&port, &orders)) {
            let _ = news.send(News::Failed(error));
        }
    });
}

fn watch(port: &Port, orders: &Sender<Order>) -> Result<(), Error> {
    let mut services_here = client(port)?;
    let failed = services("watch the keys of the reincarnation servers");
    let mut from = None;
    loop {
        let seen = match from {
            // What was before is seen by looking.
            None => services_here.revision().map(|revision| (revision, true)),
            Some(from) => {
                let changes = services_here.changes(PREFIX, from, WAIT_MS);
                changes.map(|(revision, changes)| (revision, !changes.is_empty()))
            }
        };
        match seen.map_err(&failed) {
            Ok((revision, has_changed)) => {
                from = Some(revision + 1);
                if has_changed && orders.send(Order::Look).is_err() {
                    return Ok(());
                }
            }
            Err(error) => {
                from = None;
                sleep(PAUSE);
                if is_unreachable(&error) {
                    services_here = client(port)?;
                }
            }
        }
    }
}
