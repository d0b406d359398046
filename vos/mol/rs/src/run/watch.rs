// SPDX-License-Identifier: MIT OR Apache-2.0
//! The thread that says when keys change.

use super::clerk::Order;
use super::{thread, News};
use crate::board::PREFIX;
use crate::error::{services, Error};
use dvk::{Port, Slot};
use std::path::Path;
use std::sync::mpsc::Sender;

pub(super) fn start(dvk: &Path, orders: Sender<Order>, news: Sender<News>) -> Result<(), Error> {
    let dvk = dvk.to_path_buf();
    thread("watch", move || {
        let watched = Port::open(&dvk, Slot::Any).map_err(Error::from).and_then(|port| {
            dvk_services::watch(&port, PREFIX, || orders.send(Order::Look).is_ok())
                .map_err(services("find the container's services"))
        });
        if let Err(error) = watched {
            let _ = news.send(News::Failed(error));
        }
    })
}
