// SPDX-License-Identifier: MIT OR Apache-2.0
//! The link over QUIC: one connection at a time, made anew whenever it breaks.
//!
//! A short frame is a datagram (RFC 9221): when it is lost the link sends it again, which knows best whether it is still wanted. A frame that does not
//! fit into a packet goes in a stream, with others as long as it: QUIC repairs what a stream loses, packet by packet, and the link would send
//! all of a frame again for each packet of it. There is a new stream for every few frames, so that one that waits for a
//! packet holds up no other.

mod endpoint;
mod exchange;

use crate::link::{Link, Refused};
use crate::passage::Passage;
use crate::tcp::Role;
use anyhow::{anyhow, Context, Result};
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use dvk::Frames;
use endpoint::Ends;
use std::thread;
use tokio::sync::mpsc;

/// Between two attempts.
const RETRY: Duration = Duration::from_millis(500);
/// How often the thread that waits for frames looks whether the connection has ended.
const LOOK: Duration = Duration::from_millis(200);

/// Why frames are no longer exchanged.
enum Broken {
    /// Another transport has taken over.
    TakenOver,
    Connection(anyhow::Error),
    Link(anyhow::Error),
}

/// Carries the link until another transport does.
///
/// # Errors
/// When nothing can be listened to, there is nothing to prove this node by, or the link fails.
pub fn carry<L: Link>(passage: Passage<'_, L>, role: Role) -> Result<()> {
    let identity = passage.identity.context(
        "QUIC is always encrypted, and there is no cluster.token to do it with; set one, or carry the link over TCP or UDP",
    )?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("preparing to wait for packets")?;
    // The endpoint looks for the runtime that it is made in.
    let mut ends = runtime.block_on(async { Ends::new(identity, role) })?;
    let mut attached = false;
    let mut next = None;
    while !attached || passage.link.is_attached()? {
        let connection = match next.take() {
            Some(connection) => Ok(Some(connection)),
            None => runtime.block_on(ends.next(passage)),
        };
        let connection = match connection {
            Ok(Some(connection)) => connection,
            Ok(None) => continue,
            Err(error) => {
                let Role::Connect(address) = role else { return Err(error) };
                passage.log.say(format_args!("connecting to {address}"), &format!("{error:#}"));
                runtime.block_on(async { tokio::time::sleep(RETRY).await });
                continue;
            }
        };
        if !attached {
            passage.link.attach()?;
            attached = true;
        }
        let (sender, frames) = mpsc::channel(1);
        let over = AtomicBool::new(false);
        let broken = thread::scope(|scope| {
            // With the sender's end, the exchange learns that there are no frames any more.
            let over = &over;
            let fetcher = scope.spawn(move || fetch(passage.link, &sender, over));
            let exchange = exchange::run(passage, &connection, &mut ends, frames);
            let (broken, replacing) = runtime.block_on(exchange);
            next = replacing;
            over.store(true, Ordering::Release);
            match fetcher.join() {
                Ok(Some(broken)) => broken,
                Ok(None) => broken,
                Err(_) => Broken::Link(anyhow!("a thread panicked")),
            }
        });
        connection.close(0u8.into(), b"");
        match broken {
            Broken::TakenOver => break,
            Broken::Link(error) => return Err(error),
            Broken::Connection(why) => {
                let peer = connection.remote_address();
                let whom = format_args!("the connection with {peer} ended");
                passage.log.say(whom, &format!("{why:#}"));
            }
        }
    }
    // The peer hears of the end rather than waiting for it.
    runtime.block_on(ends.finish());
    Ok(())
}

/// Takes frames from the link, which waits for them, for the thread that waits for packets. Says why there are no more.
fn fetch(link: &impl Link, sender: &mpsc::Sender<Frames>, over: &AtomicBool) -> Option<Broken> {
    while !over.load(Ordering::Acquire) {
        let mut frames = Frames::new();
        match link.get(&mut frames, LOOK) {
            // One batch waits at most, so that frames stay in the link until the path is ready for them.
            Ok(()) => sender.blocking_send(frames).ok()?,
            Err(Refused::Quiet) => {}
            Err(Refused::TakenOver) => return Some(Broken::TakenOver),
            Err(Refused::Failed(error)) => return Some(Broken::Link(error)),
        }
        if sender.is_closed() {
            return None;
        }
    }
    None
}
