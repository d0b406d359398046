// SPDX-License-Identifier: MIT OR Apache-2.0
//! `poll` on an endpoint's file.

use super::Case;
use crate::cast::{Cast, Party};
use crate::check::equal;
use crate::dvs::{self, HOME};
use crate::wish;
use anyhow::{ensure, Result};
use dvk::{Device, Endpoint, Message, Timeout};
use rustix::event::{poll, PollFd, PollFlags, Timespec};

pub(super) const CASES: &[Case] = &[
    Case::both("poll-is-quiet-while-nothing-waits", quiet),
    Case::both("poll-is-readable-while-something-waits", readable),
    Case::both("poll-ends-when-a-message-comes", wakes),
    Case::alone("poll-of-an-unbound-file-is-error-and-hangup", "it has no peer", unbound),
];

fn is_readable(port: &Party, expected: bool) -> Result<()> {
    let flags = port.call(wish::poll(0))?;
    equal("POLLIN", flags.contains(PollFlags::IN), expected)?;
    ensure!(!flags.intersects(PollFlags::ERR | PollFlags::HUP), "a bound file polls {flags:?}");
    Ok(())
}

fn quiet(cast: &Cast) -> Result<()> {
    let (port, peer) = (cast.near()?, cast.far()?);
    is_readable(&port, false)?;
    peer.notify(port.endpoint(), 1)?;
    cast.settle()?;
    port.take(Endpoint::ANY)?;
    is_readable(&port, false)
}

fn readable(cast: &Cast) -> Result<()> {
    let (port, peer) = (cast.near()?, cast.far()?);
    let (to, from) = (port.endpoint(), peer.endpoint());
    let is_readable = |expected| {
        cast.settle()?;
        is_readable(&port, expected)
    };
    peer.notify(to, 1)?;
    is_readable(true)?;
    port.take(Endpoint::ANY)?;
    is_readable(false)?;
    let send = peer.begin(wish::send(to, &Message::new(1), Timeout::Forever))?;
    is_readable(true)?;
    port.take(Endpoint::ANY)?;
    send.join("send to end")??;
    is_readable(false)?;
    let request = peer.begin(wish::sendrec(to, &Message::new(1), Timeout::Forever))?;
    is_readable(true)?;
    port.take(Endpoint::ANY)?;
    is_readable(false)?;
    port.reply(from, &Message::new(2))?;
    request.join("sendrec to end")??;
    // The withdrawal of what waits counts too.
    let short = Timeout::from_millis(20);
    ensure!(peer.send(to, &Message::new(1), short).is_err(), "a send nobody received succeeded");
    is_readable(false)
}

fn wakes(cast: &Cast) -> Result<()> {
    let (port, peer) = (cast.near()?, cast.far()?);
    let to = port.endpoint();
    let poll = port.begin(wish::poll(8))?;
    poll.waits("poll of an empty endpoint")?;
    peer.notify(to, 1)?;
    ensure!(poll.join("poll to end")??.contains(PollFlags::IN), "poll ended without POLLIN");
    port.take(Endpoint::ANY)?;
    let poll = port.begin(wish::poll(8))?;
    let send = peer.begin(wish::send(to, &Message::new(1), Timeout::Forever))?;
    ensure!(poll.join("poll to end")??.contains(PollFlags::IN), "poll ended without POLLIN");
    port.take(Endpoint::ANY)?;
    send.join("send to end")??;
    Ok(())
}

/// What polling for input says at once.
fn polled(file: &Device) -> rustix::io::Result<PollFlags> {
    let mut files = [PollFd::new(file, PollFlags::IN)];
    poll(&mut files, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
    Ok(files[0].revents())
}

fn unbound() -> Result<()> {
    let both = PollFlags::ERR | PollFlags::HUP;
    for device in [Device::open(HOME)?, dvs::bind()?.unbind()?] {
        let flags = polled(&device)?;
        ensure!(flags.contains(both), "an unbound file polls {flags:?}");
    }
    Ok(())
}
