// SPDX-License-Identifier: MIT OR Apache-2.0
//! `poll` on an endpoint's file.

use super::exchange::take;
use super::Case;
use crate::blocked::blocked;
use crate::check::equal;
use crate::dvs::{self, HOME};
use anyhow::{ensure, Result};
use dvk::{Device, Endpoint, Message, Port, Timeout};
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::fd::AsFd;
use std::sync::Arc;

pub(super) const CASES: &[Case] = &[
    Case::new("poll-is-quiet-while-nothing-waits", quiet),
    Case::new("poll-is-readable-while-something-waits", readable),
    Case::new("poll-ends-when-a-message-comes", wakes),
    Case::new("poll-of-an-unbound-file-is-error-and-hangup", unbound),
];

/// What polling for input says within this many seconds.
fn polled(file: impl AsFd, seconds: i64) -> rustix::io::Result<PollFlags> {
    let mut files = [PollFd::new(&file, PollFlags::IN)];
    poll(&mut files, Some(&Timespec { tv_sec: seconds, tv_nsec: 0 }))?;
    Ok(files[0].revents())
}

fn is_readable(port: &Port, expected: bool) -> Result<()> {
    let flags = polled(port, 0)?;
    equal("POLLIN", flags.contains(PollFlags::IN), expected)?;
    ensure!(!flags.intersects(PollFlags::ERR | PollFlags::HUP), "a bound file polls {flags:?}");
    Ok(())
}

fn quiet() -> Result<()> {
    let (port, peer) = (dvs::bind()?, dvs::bind()?);
    is_readable(&port, false)?;
    peer.notify(port.endpoint(), 1)?;
    take(&port, Endpoint::ANY)?;
    is_readable(&port, false)
}

fn readable() -> Result<()> {
    let (port, peer) = (dvs::bind()?, Arc::new(dvs::bind()?));
    let (to, from) = (port.endpoint(), peer.endpoint());
    peer.notify(to, 1)?;
    is_readable(&port, true)?;
    take(&port, Endpoint::ANY)?;
    is_readable(&port, false)?;
    let sender = Arc::clone(&peer);
    let send = blocked(move || sender.send(to, &Message::new(1), Timeout::Forever))?;
    is_readable(&port, true)?;
    take(&port, Endpoint::ANY)?;
    send.join("send to end")??;
    is_readable(&port, false)?;
    let sender = Arc::clone(&peer);
    let request = blocked(move || sender.sendrec(to, &Message::new(1), Timeout::Forever))?;
    is_readable(&port, true)?;
    take(&port, Endpoint::ANY)?;
    is_readable(&port, false)?;
    port.reply(from, &Message::new(2))?;
    request.join("sendrec to end")??;
    // The withdrawal of what waits counts too.
    let short = Timeout::from_millis(20);
    ensure!(peer.send(to, &Message::new(1), short).is_err(), "a send nobody received succeeded");
    is_readable(&port, false)
}

fn wakes() -> Result<()> {
    let (port, peer) = (Arc::new(dvs::bind()?), dvs::bind()?);
    let to = port.endpoint();
    let polling = Arc::clone(&port);
    let poll = blocked(move || polled(&*polling, 8))?;
    poll.waits("poll of an empty endpoint")?;
    peer.notify(to, 1)?;
    ensure!(poll.join("poll to end")??.contains(PollFlags::IN), "poll ended without POLLIN");
    take(&port, Endpoint::ANY)?;
    let polling = Arc::clone(&port);
    let poll = blocked(move || polled(&*polling, 8))?;
    let send = blocked(move || peer.send(to, &Message::new(1), Timeout::Forever).map(|()| peer))?;
    ensure!(poll.join("poll to end")??.contains(PollFlags::IN), "poll ended without POLLIN");
    take(&port, Endpoint::ANY)?;
    send.join("send to end")??;
    Ok(())
}

fn unbound() -> Result<()> {
    let both = PollFlags::ERR | PollFlags::HUP;
    for device in [Device::open(HOME)?, dvs::bind()?.unbind()?] {
        let flags = polled(&device, 0)?;
        ensure!(flags.contains(both), "an unbound file polls {flags:?}");
    }
    Ok(())
}
