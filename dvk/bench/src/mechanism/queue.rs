// SPDX-License-Identifier: MIT OR Apache-2.0
//! Message queues: POSIX and System V.

use super::{Pair, MESSAGE_BYTES};
use crate::sys::Queue;
use anyhow::{Context, Result};
use core::convert::Infallible;
use nix::mqueue::{mq_open, mq_receive, mq_send, mq_unlink, MQ_OFlag, MqAttr, MqdT};
use nix::sys::stat::Mode;

/// How many messages a POSIX queue holds; one would do.
const DEPTH: i64 = 8;

pub(super) fn posix() -> Result<Pair> {
    let make = |direction: &str| -> Result<MqdT> {
        let name = format!("/dvk-bench-{}-{direction}", std::process::id());
        let attributes = MqAttr::new(0, DEPTH, MESSAGE_BYTES as i64, 0);
        let flags = MQ_OFlag::O_CREAT | MQ_OFlag::O_EXCL | MQ_OFlag::O_RDWR;
        let queue = mq_open(name.as_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR, Some(&attributes))
            .with_context(|| format!("making the message queue {name}"))?;
        // The open file is enough.
        mq_unlink(name.as_str()).context("removing the name of a message queue")?;
        Ok(queue)
    };
    let (there, back) = (std::rc::Rc::new(make("there")?), std::rc::Rc::new(make("back")?));
    let (requests, replies) = (there.clone(), back.clone());
    let mut message = [1; MESSAGE_BYTES];
    let go = move |count| {
        for _ in 0..count {
            mq_send(&requests, &message, 0)?;
            mq_receive(&replies, &mut message, &mut 0)?;
        }
        Ok(())
    };
    let serve = move || -> Result<Infallible> {
        let mut message = [0; MESSAGE_BYTES];
        loop {
            mq_receive(&there, &mut message, &mut 0)?;
            mq_send(&back, &message, 0)?;
        }
    };
    Ok(Pair::connected(go, serve))
}

/// Removes the queues when it is dropped; those of System V know no owner.
struct Queues([Queue; 2]);

impl Drop for Queues {
    fn drop(&mut self) {
        self.0.iter().for_each(|queue| queue.remove());
    }
}

pub(super) fn sysv() -> Result<Pair> {
    let make = || Queue::new().context("making a System V message queue");
    let (there, back) = (make()?, make()?);
    let mut message = [1; MESSAGE_BYTES];
    let go = move |count| {
        for _ in 0..count {
            there.send(&message)?;
            message = back.receive()?;
        }
        Ok(())
    };
    let serve = move || -> Result<Infallible> {
        loop {
            let message = there.receive()?;
            back.send(&message)?;
        }
    };
    Ok(Pair::keeping(Queues([there, back]), go, serve))
}
